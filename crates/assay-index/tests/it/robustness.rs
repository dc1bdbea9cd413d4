//! Damage, other versions, other processes.

use assay_index::{IndexError, SearchMode};
use fs_err as fs;
use std::path::PathBuf;

use crate::support::{Project, Words, search};

fn project() -> Project {
    Project::new(&[("a.md", "red lamp"), ("b.md", "blue lamp"), ("c.md", "green door")])
}

fn segments(project: &Project) -> Vec<PathBuf> {
    let entries = fs::read_dir(project.state().join("segments")).unwrap();
    entries.map(|e| e.unwrap().path()).collect()
}

#[test]
fn a_lost_or_damaged_segment_is_built_again() {
    let project = project();
    let expected = search(&project.ingested(), "red lamp", 9, SearchMode::Hybrid);
    let [segment] = &segments(&project)[..] else { panic!() };

    fs::remove_dir_all(project.state().join("segments")).unwrap();
    assert_eq!(search(&project.open(), "red lamp", 9, SearchMode::Hybrid), expected);

    let whole = fs::read(segment).unwrap();
    for damage in [0, 1, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[damage] ^= 0xff;
        fs::write(segment, bytes).unwrap();
        assert_eq!(search(&project.open(), "red lamp", 9, SearchMode::Hybrid), expected);
        fs::write(segment, &whole[..damage]).unwrap();
        assert_eq!(search(&project.open(), "red lamp", 9, SearchMode::Hybrid), expected);
        assert_eq!(fs::read(segment).unwrap(), whole);
    }
}

#[test]
fn segments_that_nothing_lives_in_are_removed() {
    let project = project();
    let mut index = project.ingested();
    project.write("a.md", "yellow lamp");
    project.ingest(&mut index);
    assert_eq!(segments(&project).len(), 1);
    assert_eq!(search(&index, "yellow", 9, SearchMode::Bm25).len(), 1);
    assert_eq!(search(&index, "red", 9, SearchMode::Bm25).len(), 0);
}

#[test]
fn what_another_process_deletes_is_never_a_hit() {
    let project = project();
    let mut writer = project.ingested();
    let reader = project.open();
    project.remove("a.md");
    project.write("b.md", "changed");
    project.ingest(&mut writer);
    for mode in [SearchMode::Hybrid, SearchMode::Bm25, SearchMode::Vector] {
        for k in [1, 2, 3] {
            let hits = search(&reader, "red blue green lamp", k, mode);
            assert!(hits.iter().all(|h| h.document == "c.md"), "{hits:?}");
            assert_eq!(hits.len(), 1);
        }
    }
}

#[test]
fn an_index_of_another_format_is_refused() {
    let project = project();
    drop(project.ingested());
    let file = project.state().join("index.sqlite");
    let db = rusqlite::Connection::open(&file).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = project.open_with(Words::new("words"), 24).err().unwrap();
    assert!(matches!(error, IndexError::Format { found: 99, expected: 3, .. }), "{error}");
    assert!(error.hint().unwrap().contains("delete"));
}

#[test]
fn a_database_of_something_else_is_refused() {
    let project = project();
    fs::create_dir_all(project.state()).unwrap();
    let file = project.state().join("index.sqlite");
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(db);
    let error = project.open_with(Words::new("words"), 24).err().unwrap();
    assert!(matches!(error, IndexError::Format { .. }), "{error}");

    fs::write(&file, "this is a text, and not a small one, but not a database".repeat(99)).unwrap();
    let error = project.open_with(Words::new("words"), 24).err().unwrap();
    assert!(matches!(error, IndexError::Database { .. }), "{error}");
    assert!(error.to_string().contains("index.sqlite") && error.hint().is_some());
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let damage = |statement: &str| {
        let project = project();
        drop(project.ingested());
        let db = rusqlite::Connection::open(project.state().join("index.sqlite")).unwrap();
        db.execute_batch(statement).unwrap();
        drop(db);
        fs::remove_file(&segments(&project)[0]).unwrap();
        let error = project.open_with(Words::new("words"), 24).err().unwrap();
        assert!(matches!(error, IndexError::Damaged { .. }), "{error}");
    };
    damage("UPDATE embeddings SET vector = x'00'");
    damage("PRAGMA foreign_keys = OFF; DELETE FROM embeddings");
    damage("UPDATE chunks SET end = 999");
    damage("UPDATE chunks SET heading_path = 'no list'");
}

#[test]
fn a_full_disk_names_the_file() {
    let project = project();
    let mut index = project.ingested();
    // SQLite's own limit stands for the disk's.
    project.write("d.md", (0..9_000).map(|i| format!("w{i} ")).collect::<String>());
    let db = rusqlite::Connection::open(project.state().join("index.sqlite")).unwrap();
    db.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON documents
        BEGIN SELECT RAISE(ABORT, 'no space'); END",
    )
    .unwrap();
    let error = crate::support::ingest(&mut index, &project.docs()).unwrap_err();
    assert!(error.to_string().contains("index.sqlite"), "{error}");
    // What was there before still is.
    assert_eq!(search(&index, "lamp", 9, SearchMode::Bm25).len(), 2);
    db.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(project.ingest(&mut index).embeddings_computed, 0);
}

#[test]
fn an_embedder_that_misbehaves_is_refused() {
    use assay_index::{Embed, EmbedError, Index, IndexConfig};
    struct Bad(Vec<Vec<f32>>);
    impl Embed for Bad {
        fn id(&self) -> &str {
            "bad"
        }
        fn dims(&self) -> usize {
            2
        }
        fn max_tokens(&self) -> usize {
            9
        }
        fn count_tokens(&self, text: &str) -> usize {
            text.split_whitespace().count()
        }
        fn embed(&self, _: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            Ok(self.0.clone())
        }
    }
    for bad in [vec![], vec![vec![1.0]], vec![vec![f32::NAN, 0.0]]] {
        let project = Project::new(&[("a.md", "one")]);
        let embedder = std::sync::Arc::new(Bad(bad));
        let mut index = Index::open(&project.state(), embedder, IndexConfig::default()).unwrap();
        let error = crate::support::ingest(&mut index, &project.docs()).unwrap_err();
        assert!(matches!(error, IndexError::Embed(_)), "{error}");
        assert_eq!(index.chunk_count(), 0);
    }
}
