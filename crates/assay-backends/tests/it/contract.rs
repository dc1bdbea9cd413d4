//! What every place for vectors must hold.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use assay_index::{
    Among, BackendDocument, BackendError, Collection, DocumentKey, Filter, Hit, Index, IndexConfig,
    IndexError, Mark, Near, Query, SearchMode, VectorBackend, Viewer,
};
use fs_err as fs;

use crate::support::{Draw, MODES, Project, WORDS, Words, ingest, search};

/// The server, or `None` for segments.
pub(crate) type Make = Option<Arc<dyn VectorBackend>>;

/// Runs every law. `make` connects to the same server each time.
#[expect(clippy::print_stderr, reason = "the seed, shown when a law fails")]
pub(crate) fn holds(make: &dyn Fn() -> Make) {
    for seed in 0..12 {
        eprintln!("seed {seed}");
        searches_are_brute_force(make, seed);
        what_is_deleted_is_not_found(make, seed);
        history_does_not_matter(make, seed);
    }
    ties_are_in_order(make);
    many_documents_are_restricted(make);
    rebuilt_from_nothing(make);
    indexes_do_not_see_each_other(make);
    another_embedder_begins_anew(make);
    let Some(backend) = make() else { return };
    for seed in 0..4 {
        documents_are_replaced_and_removed(&*backend, seed);
    }
    other_collections_are_refused(&*backend);
    backups_of_either_side(make);
    backups_after_an_interruption(make);
    sending_goes_on_where_it_stopped(make);
    what_is_missing_is_told(make);
}

/// What is known of a document.
pub(crate) struct Known {
    allow: Option<Vec<&'static str>>,
    tenant: Option<&'static str>,
    year: Option<usize>,
    lang: Option<&'static str>,
}

/// Writes some documents with metadata and access, of one to four chunks.
pub(crate) fn folder(project: &Project, draw: &mut Draw) -> BTreeMap<String, Known> {
    let mut all = BTreeMap::new();
    for n in 0..3 + draw.below(14) {
        let known = Known {
            allow: match draw.below(4) {
                0 => Some(vec![draw.of(&["anna", "staff"])]),
                1 if draw.below(3) == 0 => Some(vec![]),
                _ => None,
            },
            tenant: (draw.below(4) == 0).then(|| draw.of(&["x", "y"])),
            year: (draw.below(3) > 0).then(|| 2020 + draw.below(4)),
            lang: (draw.below(3) > 0).then(|| draw.of(&["en", "de"])),
        };
        let mut text = "---\n".to_owned();
        if let Some(allow) = &known.allow {
            text += &format!("allow: [{}]\n", allow.join(", "));
        }
        let year = known.year.map(|y| y.to_string());
        let fields = [("tenant", known.tenant), ("lang", known.lang), ("year", year.as_deref())];
        for (name, value) in fields {
            text += &value.map(|value| format!("{name}: {value}\n")).unwrap_or_default();
        }
        // Some texts are equal, and so are the vectors of their chunks.
        let words = if draw.below(4) == 0 {
            "red door".to_owned()
        } else {
            let n = 1 + draw.below(70);
            draw.words(n)
        };
        let path = format!("{}{n:02}.md", draw.of(&["a", "b", "c"]));
        project.write(&path, &format!("{text}---\n\n{words}\n"));
        all.insert(path, known);
    }
    all
}

#[derive(Debug)]
pub(crate) struct Question {
    text: String,
    principals: Vec<String>,
    tenant: Option<&'static str>,
    filter: Option<Filter>,
}

impl Question {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let filters = [
            "year >= 2021",
            "lang = 'en' and year < 2023",
            "not lang = 'de'",
            "lang in ['de'] or year = 2020",
            "year != 2022 and (lang exists or year > 2020)",
        ];
        let filter = (draw.below(2) == 0).then(|| Filter::parse(draw.of(&filters)).unwrap());
        let principals = ["anna", "staff"].iter().filter(|_| draw.below(2) == 0);
        let principals = principals.map(|p| (*p).to_owned()).collect();
        let n = 1 + draw.below(4);
        Question {
            text: draw.words(n),
            principals,
            tenant: draw.of(&[None, Some("x"), Some("y")]),
            filter,
        }
    }

    pub(crate) fn sees(&self, of: &Known) -> bool {
        let mine = |allow: &Vec<&str>| allow.iter().any(|a| self.principals.iter().any(|p| p == a));
        let fits = |of: &Known| {
            let metadata = [
                of.year.map(|y| ("year".to_owned(), assay_index::Value::Integer(y as i64))),
                of.lang.map(|l| ("lang".to_owned(), assay_index::Value::from(l))),
            ];
            let metadata = metadata.into_iter().flatten().collect();
            self.filter.as_ref().is_none_or(|filter| filter.matches(&metadata).unwrap())
        };
        of.allow.as_ref().is_none_or(mine)
            && (of.tenant.is_none() || of.tenant == self.tenant)
            && fits(of)
    }

    pub(crate) fn ask(
        &self,
        index: &Index,
        mode: SearchMode,
        k: usize,
    ) -> Result<Vec<Hit>, IndexError> {
        let viewer = Viewer { principals: &self.principals, tenant: self.tenant };
        let filter = self.filter.as_ref();
        Ok(index.search(&Query { viewer, filter, ..Query::new(&self.text, k, mode) })?.hits)
    }

    /// Asks both; a filter that none of the visible documents has fields for is refused by both.
    fn agree(&self, here: &Index, there: &Index, k: usize, what: &str) {
        for mode in MODES {
            match (self.ask(here, mode, k), self.ask(there, mode, k)) {
                (Ok(here), Ok(there)) => assert_eq!(here, there, "{what}: {mode:?} {k} {self:?}"),
                (Err(IndexError::Filter(here)), Err(IndexError::Filter(there))) => {
                    assert_eq!(here, there, "{what}");
                }
                (here, there) => panic!("{what}: {mode:?} {self:?}: {here:?} and {there:?}"),
            }
        }
    }
}

/// All chunks of the documents that a question sees, with their similarities, by `f64` sums.
fn brute_force(index: &Index, question: &Question, known: &BTreeMap<String, Known>) -> Vec<f64> {
    let query = WORDS.vector(&question.text);
    let mut all = Vec::new();
    for (path, known) in known.iter().filter(|(_, known)| question.sees(known)) {
        let principals: Vec<String> =
            known.allow.iter().flatten().map(|p| (*p).to_owned()).collect();
        let viewer = Viewer { principals: &principals, tenant: known.tenant };
        for chunk in index.chunks(path, viewer).unwrap() {
            let vector = WORDS.vector(&chunk.text);
            all.push(vector.iter().zip(&query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum());
        }
    }
    all.sort_by(|a: &f64, b| b.total_cmp(a));
    all
}

fn searches_are_brute_force(make: &dyn Fn() -> Make, seed: u64) {
    let (project, mut draw) = (Project::new(), Draw(seed));
    let known = folder(&project, &mut draw);
    let (here, there) = (project.ingested(None), project.ingested(make()));
    for _ in 0..12 {
        let question = Question::draw(&mut draw);
        for k in [1, 3, 1000] {
            question.agree(&here, &there, k, &format!("seed {seed}"));
            let Ok(hits) = question.ask(&there, SearchMode::Vector, k) else { continue };
            let expected = brute_force(&here, &question, &known);
            assert_eq!(hits.len(), expected.len().min(k), "seed {seed} {question:?}");
            for (hit, expected) in hits.iter().zip(expected) {
                assert!((hit.score - expected).abs() < 1e-5, "seed {seed} {question:?} {hit:?}");
                assert!(question.sees(&known[&hit.document]), "seed {seed} {question:?} {hit:?}");
            }
        }
    }
}

/// Through another handle, which knows no server: acknowledged is acknowledged.
fn what_is_deleted_is_not_found(make: &dyn Fn() -> Make, seed: u64) {
    let (project, mut draw) = (Project::new(), Draw(seed ^ 0xde1e));
    let mut known = folder(&project, &mut draw);
    let (here, there) = (project.ingested(None), project.ingested(make()));
    let paths: Vec<String> = known.keys().cloned().collect();
    for path in paths {
        match draw.below(3) {
            0 => {
                for index in [&here, &there] {
                    index.corpus().delete(&[&path]).unwrap();
                }
                known.remove(&path);
            }
            1 => {
                let allow = ["anna".to_owned()];
                for index in [&here, &there] {
                    index.corpus().set_access(&[&path], Some(&allow)).unwrap();
                }
                known.get_mut(&path).unwrap().allow = Some(vec!["anna"]);
            }
            _ => continue,
        }
        let question = Question::draw(&mut draw);
        question.agree(&here, &there, 1 + draw.below(9), &format!("seed {seed}"));
        if let Ok(hits) = question.ask(&there, SearchMode::Vector, 1000) {
            assert_eq!(hits.len(), brute_force(&here, &question, &known).len());
        }
    }
    if known.is_empty() {
        return;
    }
    drop(there);
    // A new process, which finds the server behind.
    let (here, there) = (project.open(None).unwrap(), project.open(make()).unwrap());
    let question = Question::draw(&mut draw);
    question.agree(&here, &there, 7, &format!("seed {seed}"));
    if let Some(checked) = there.check_backend(0).unwrap() {
        assert_eq!((checked.documents, checked.missing, checked.unknown), (known.len(), 0, 0));
    }
}

fn history_does_not_matter(make: &dyn Fn() -> Make, seed: u64) {
    let (project, mut draw) = (Project::new(), Draw(seed ^ 0x4157));
    let mut there = project.open(make()).unwrap();
    for _ in 0..3 {
        if draw.below(2) == 0 {
            fs::remove_dir_all(project.docs()).unwrap();
            fs::create_dir_all(project.docs()).unwrap();
        }
        folder(&project, &mut draw);
        ingest(&mut there, &project).unwrap();
        if draw.below(2) == 0 {
            there = project.open(make()).unwrap();
        }
    }
    let here = project.ingested(None);
    for _ in 0..6 {
        Question::draw(&mut draw).agree(&here, &there, 4, &format!("seed {seed}"));
    }
}

/// More chunks with the same vector than a server is asked for at first.
fn ties_are_in_order(make: &dyn Fn() -> Make) {
    let project = Project::new();
    for n in 0..260 {
        project.write(&format!("{:03}.txt", (n * 7) % 260), "the same red door");
    }
    project.write("other.txt", "a red door and a key");
    let there = project.ingested(make());
    for k in [1, 5, 150, 400] {
        let hits = search(&there, "the same door", k, SearchMode::Vector);
        let paths: Vec<String> = hits.into_iter().map(|hit| hit.document).collect();
        let mut expected: Vec<String> = (0..260).map(|n| format!("{n:03}.txt")).collect();
        expected.push("other.txt".into());
        expected.truncate(k);
        assert_eq!(paths, expected);
    }
}

/// More documents that are allowed, and that are not, than a search names.
fn many_documents_are_restricted(make: &dyn Fn() -> Make) {
    let (project, mut draw) = (Project::new(), Draw(11));
    for n in 0..300 {
        let who = ["anna", "staff", "bert"][n % 3];
        project.write(
            &format!("{n:03}.md"),
            &format!("---\nallow: [{who}]\n---\n\n{}\n", draw.words(9)),
        );
    }
    let (here, there) = (project.ingested(None), project.ingested(make()));
    for principals in [vec!["anna".to_owned()], vec!["anna".into(), "bert".into()], vec![]] {
        let question = Question { text: draw.words(3), principals, tenant: None, filter: None };
        for k in [2, 110, 1000] {
            question.agree(&here, &there, k, "restricted");
        }
    }
}

fn rebuilt_from_nothing(make: &dyn Fn() -> Make) {
    let (project, mut draw) = (Project::new(), Draw(3));
    folder(&project, &mut draw);
    let mut index = project.ingested(make());
    let found = |index: &Index| MODES.map(|mode| search(index, "red door", 1000, mode));
    let before = found(&index);
    index.rebuild().unwrap();
    assert_eq!(found(&index), before);
    if let Some(spy) = make().map(Spy::new) {
        // Everything on the server is lost.
        let index = project.open(Some(spy.clone())).unwrap();
        spy.clear(&spy.collection()).unwrap();
        drop(index);
        assert_eq!(found(&project.open(make()).unwrap()), before);
    }
}

fn indexes_do_not_see_each_other(make: &dyn Fn() -> Make) {
    let (one, other) = (Project::new(), Project::new());
    one.write("one.txt", "red lamp");
    other.write("other.txt", "red lamp");
    let (first, second) = (one.ingested(make()), other.ingested(make()));
    for (index, path) in [(&first, "one.txt"), (&second, "other.txt")] {
        let hits = search(index, "lamp", 10, SearchMode::Vector);
        assert_eq!(hits.iter().map(|h| h.document.as_str()).collect::<Vec<_>>(), [path]);
    }
    drop(second);
    let mut second = other.open(make()).unwrap();
    second.rebuild().unwrap();
    assert_eq!(search(&first, "lamp", 10, SearchMode::Vector).len(), 1);
}

fn another_embedder_begins_anew(make: &dyn Fn() -> Make) {
    let project = Project::new();
    project.write("a.txt", "red lamp");
    drop(project.ingested(make()));
    for embedder in [("words", 24), ("other", 24), ("long", 40)] {
        let (id, dims) = embedder;
        let mut index = project.open_with(Words { id, dims }, make()).unwrap();
        assert_eq!(index.needs_ingest().is_some(), id != "words");
        if id != "words" {
            let error = index.search(&Query::new("lamp", 1, SearchMode::Vector)).unwrap_err();
            assert!(matches!(error, IndexError::Stale { documents: 1 }), "{error}");
        }
        ingest(&mut index, &project).unwrap();
        assert_eq!(search(&index, "lamp", 9, SearchMode::Vector).len(), 1);
    }
}

/// A collection of no index.
fn collection(seed: u64, dims: usize) -> Collection {
    let name = format!("assay_{:032x}", blake3::hash(&seed.to_le_bytes()).as_bytes()[0]);
    Collection { name, embedder: "words".into(), dims }
}

/// Against a table in memory, after every step.
fn documents_are_replaced_and_removed(backend: &dyn VectorBackend, seed: u64) {
    const DIMS: usize = 8;
    let (mut draw, of) = (Draw(seed), collection(seed, DIMS));
    backend.clear(&of).unwrap();
    assert_eq!(backend.open(&of).unwrap(), None);
    backend.set_mark(&of, [7; 16]).unwrap();
    assert_eq!(backend.open(&of).unwrap(), Some([7; 16]));
    let mut model: BTreeMap<i64, BackendDocument> = BTreeMap::new();
    for step in 0..40u8 {
        if draw.below(4) == 0 {
            let gone: Vec<i64> = (0..3).map(|_| 1 + draw.below(12) as i64).collect();
            backend.remove(&of, &gone).unwrap();
            model.retain(|id, _| !gone.contains(id));
        } else {
            let id = 1 + draw.below(12) as i64;
            let chunks: Vec<i64> = (0..1 + draw.below(3) as i64).map(|n| 100 * id + n).collect();
            let vectors = chunks.iter().flat_map(|_| draw.unit(DIMS)).collect();
            let document = BackendDocument { id, key: [step; 32], chunks, vectors };
            // Twice is once.
            for _ in 0..2 {
                backend.put(&of, std::slice::from_ref(&document)).unwrap();
            }
            model.insert(id, document);
        }
        let keys: HashMap<i64, DocumentKey> = model.iter().map(|(id, d)| (*id, d.key)).collect();
        assert_eq!(backend.documents(&of, None).unwrap(), keys, "seed {seed}");
        let some: Vec<i64> = vec![1, 2, 3, 77];
        let named = |keys: &HashMap<i64, DocumentKey>| -> HashMap<i64, DocumentKey> {
            keys.iter().filter(|(id, _)| some.contains(id)).map(|(id, k)| (*id, *k)).collect()
        };
        assert_eq!(backend.documents(&of, Some(&some)).unwrap(), named(&keys), "seed {seed}");
        let query = draw.unit(DIMS);
        for among in [Among::All, Among::Only(&some), Among::Except(&some), Among::Only(&[])] {
            for n in [1, 4, 1000] {
                let found = backend.search(&of, &query, n, among, true).unwrap();
                compare(&found, &model, &query, n, among, seed);
            }
        }
    }
    backend.clear(&of).unwrap();
    backend.clear(&of).unwrap();
    let gone = backend.search(&of, &draw.unit(DIMS), 3, Among::All, true);
    assert!(gone.is_err() || gone.is_ok_and(|near| near.is_empty()));
}

fn compare(
    found: &[Near],
    model: &BTreeMap<i64, BackendDocument>,
    query: &[f32],
    n: usize,
    among: Among<'_>,
    seed: u64,
) {
    let fits = |id: &i64| match among {
        Among::All => true,
        Among::Only(ids) => ids.contains(id),
        Among::Except(ids) => !ids.contains(id),
    };
    let dot = |row: &[f32]| -> f32 { row.iter().zip(query).map(|(a, b)| a * b).sum() };
    let chunks = model.values().filter(|d| fits(&d.id));
    let all: HashMap<i64, f32> = chunks
        .flat_map(|d| d.chunks.iter().zip(d.vectors.chunks_exact(query.len())))
        .map(|(chunk, row)| (*chunk, dot(row)))
        .collect();
    let mut best: Vec<f32> = all.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    best.truncate(n);
    assert_eq!(found.len(), best.len(), "seed {seed} {among:?}");
    for (near, best) in found.iter().zip(best) {
        assert!((near.similarity - best).abs() < 1e-5, "seed {seed} {among:?} {found:?}");
        assert!((near.similarity - all[&near.chunk]).abs() < 1e-5, "seed {seed} {among:?}");
    }
}

fn other_collections_are_refused(backend: &dyn VectorBackend) {
    let of = collection(99, 8);
    backend.clear(&of).unwrap();
    backend.open(&of).unwrap();
    let others = [
        Collection { embedder: "another".into(), ..of.clone() },
        Collection { dims: 9, ..of.clone() },
    ];
    for other in others {
        let error = backend.open(&other).unwrap_err();
        assert!(matches!(error, BackendError::Mismatch { .. }), "{error}");
        let text = error.to_string();
        for part in [backend.server(), &of.name, "8 values of words", &other.embedder] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.contains(&format!("{} values of {}", other.dims, other.embedder)), "{text}");
        assert!(error.hint().is_some());
    }
    backend.open(&of).unwrap();
    backend.clear(&of).unwrap();
}

/// The record, or what the server has, is set back to an earlier state; both then make other changes.
fn backups_of_either_side(make: &dyn Fn() -> Make) {
    let project = Project::new();
    project.write("a.txt", "red lamp");
    project.write("b.txt", "blue door");
    drop(project.ingested(make()));
    let backup = backed_up(&project);
    project.write("c.txt", "a cat at the river, a cat at the river");
    project.write("d.txt", &"stone ".repeat(60));
    drop(project.ingested(make()));
    // Back, and on from there with other documents under the same numbers.
    restore(&project, &backup);
    fs::remove_file(project.docs().join("c.txt")).unwrap();
    for path in ["d.txt", "e.txt"] {
        project.write(path, &format!("milk and a key {}", "tree ".repeat(50)));
    }
    let (here, there) = (project.ingested(None), project.ingested(make()));
    for mode in MODES {
        assert_eq!(
            search(&there, "a cat and a stone", 99, mode),
            search(&here, "a cat and a stone", 99, mode)
        );
    }
    let checked = there.check_backend(0).unwrap().unwrap();
    assert_eq!((checked.documents, checked.missing, checked.unknown), (4, 0, 0));
}

/// A copy of the record.
fn backed_up(project: &Project) -> PathBuf {
    let backup = project.dir.path().join("backup");
    fs::create_dir_all(&backup).unwrap();
    for entry in fs::read_dir(project.state(true)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), backup.join(entry.file_name())).unwrap();
        }
    }
    backup
}

fn restore(project: &Project, backup: &Path) {
    fs::remove_dir_all(project.state(true)).unwrap();
    fs::rename(backup, project.state(true)).unwrap();
}

/// The record is set back to the very state that the server last had whole.
fn backups_after_an_interruption(make: &dyn Fn() -> Make) {
    let project = Project::new();
    project.write("a.txt", "red lamp");
    project.write("b.txt", "blue door");
    drop(project.ingested(make()));
    let backup = backed_up(&project);
    fs::remove_file(project.docs().join("b.txt")).unwrap();
    for n in 0..600 {
        project.write(&format!("{n:04}.txt"), &format!("lamp {n}"));
    }
    let mut index = project.open(make()).unwrap();
    let report = index.ingest(&project.docs(), &mut |p| match p.path {
        "" => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(report.unwrap().interrupted);
    drop(index);
    restore(&project, &backup);
    let index = project.open(make()).unwrap();
    let hits = search(&index, "blue door", 9, SearchMode::Vector);
    assert_eq!(hits.iter().map(|h| h.document.as_str()).collect::<Vec<_>>(), ["b.txt", "a.txt"]);
    let checked = index.check_backend(0).unwrap().unwrap();
    assert_eq!((checked.documents, checked.missing, checked.unknown), (2, 0, 0));
}

fn sending_goes_on_where_it_stopped(make: &dyn Fn() -> Make) {
    let project = Project::new();
    for n in 0..1300 {
        project.write(&format!("{n:04}.txt"), &format!("lamp {n}"));
    }
    let spy = Spy::new(make().unwrap());
    let mut index = project.open(Some(spy.clone())).unwrap();
    let report = index
        .ingest(&project.docs(), &mut |p| {
            // The sending has no path.
            if p.path.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert!(report.interrupted);
    let error = index.search(&Query::new("lamp", 1, SearchMode::Hybrid)).unwrap_err();
    assert!(matches!(error, IndexError::Backend(BackendError::Behind { .. })), "{error}");
    let sent = spy.puts();
    assert!((1..1300).contains(&sent), "{sent}");
    drop(index);
    let mut told = Vec::new();
    let config = IndexConfig { chunk_tokens: 24, ..IndexConfig::default() };
    let index = Index::open_on(
        spy.clone(),
        &project.state(true),
        Arc::new(WORDS),
        config,
        &mut |done, total| {
            told.push((done, total));
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    assert_eq!(spy.puts(), 1300);
    assert_eq!(told.last(), Some(&(1300 - sent, 1300 - sent)));
    assert_eq!(search(&index, "lamp", 2000, SearchMode::Vector).len(), 1300);
    // Nothing is sent again.
    drop(project.open(Some(spy.clone())).unwrap());
    index.corpus().set_access(&["0001.txt"], Some(&[])).unwrap();
    let index = project.open(Some(spy.clone())).unwrap();
    assert_eq!(spy.puts(), 1300);
    assert_eq!(search(&index, "lamp", 2000, SearchMode::Vector).len(), 1299);
}

/// Someone else has changed what is on the server.
fn what_is_missing_is_told(make: &dyn Fn() -> Make) {
    let project = Project::new();
    for n in 0..5 {
        project.write(&format!("{n}.txt"), &format!("lamp {n}"));
    }
    let spy = Spy::new(make().unwrap());
    let mut index = project.ingested(Some(spy.clone()));
    let before = search(&index, "lamp 3", 9, SearchMode::Hybrid);
    let (of, some) = (spy.collection(), spy.last());
    // Documents and chunks that the record never had are not shown.
    let foreign = BackendDocument {
        id: 1 << 40,
        key: [1; 32],
        chunks: vec![1 << 40],
        vectors: WORDS.vector("lamp 3"),
    };
    spy.put(&of, &[foreign]).unwrap();
    assert_eq!(search(&index, "lamp 3", 9, SearchMode::Hybrid), before);
    let checked = index.check_backend(0).unwrap().unwrap();
    assert_eq!((checked.documents, checked.missing, checked.unknown), (5, 0, 1));
    spy.remove(&of, &[some]).unwrap();
    let error = index.search(&Query::new("lamp", 9, SearchMode::Vector)).unwrap_err();
    let IndexError::Backend(told @ BackendError::Incomplete { missing: 1, expected: 5, .. }) =
        error
    else {
        panic!("{error}");
    };
    assert!(told.hint().unwrap().contains("rebuild") && told.to_string().contains(&of.name));
    let checked = index.check_backend(0).unwrap().unwrap();
    assert_eq!((checked.documents, checked.missing, checked.unknown), (4, 1, 1));
    index.rebuild().unwrap();
    assert_eq!(search(&index, "lamp 3", 9, SearchMode::Hybrid), before);
    let checked = index.check_backend(0).unwrap().unwrap();
    assert_eq!((checked.documents, checked.missing, checked.unknown), (5, 0, 0));
    // The collection is of another format now.
    spy.clear(&of).unwrap();
    spy.open(&Collection { dims: 3, ..of }).unwrap();
    drop(index);
    let index = project.open(make()).unwrap();
    assert_eq!(search(&index, "lamp 3", 9, SearchMode::Hybrid), before);
}

/// Passes everything on, and remembers what was acknowledged.
pub(crate) struct Spy {
    backend: Arc<dyn VectorBackend>,
    opened: Mutex<Option<Collection>>,
    acknowledged: Mutex<Vec<(i64, DocumentKey)>>,
}

impl Spy {
    pub(crate) fn new(backend: Arc<dyn VectorBackend>) -> Arc<Self> {
        Arc::new(Spy { backend, opened: Mutex::default(), acknowledged: Mutex::default() })
    }

    pub(crate) fn collection(&self) -> Collection {
        self.opened.lock().unwrap().clone().unwrap()
    }

    pub(crate) fn acknowledged(&self) -> Vec<(i64, DocumentKey)> {
        self.acknowledged.lock().unwrap().clone()
    }

    fn puts(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    fn last(&self) -> i64 {
        self.acknowledged.lock().unwrap().last().unwrap().0
    }
}

impl VectorBackend for Spy {
    fn server(&self) -> &str {
        self.backend.server()
    }

    fn is_approximate(&self) -> bool {
        self.backend.is_approximate()
    }

    fn open(&self, of: &Collection) -> Result<Option<Mark>, BackendError> {
        *self.opened.lock().unwrap() = Some(of.clone());
        self.backend.open(of)
    }

    fn clear(&self, of: &Collection) -> Result<(), BackendError> {
        self.backend.clear(of)
    }

    fn documents(
        &self,
        of: &Collection,
        ids: Option<&[i64]>,
    ) -> Result<HashMap<i64, DocumentKey>, BackendError> {
        self.backend.documents(of, ids)
    }

    fn put(&self, of: &Collection, documents: &[BackendDocument]) -> Result<(), BackendError> {
        self.backend.put(of, documents)?;
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.extend(documents.iter().map(|d| (d.id, d.key)));
        Ok(())
    }

    fn remove(&self, of: &Collection, documents: &[i64]) -> Result<(), BackendError> {
        self.backend.remove(of, documents)
    }

    fn set_mark(&self, of: &Collection, mark: Mark) -> Result<(), BackendError> {
        self.backend.set_mark(of, mark)
    }

    fn search(
        &self,
        of: &Collection,
        query: &[f32],
        n: usize,
        among: Among<'_>,
        exact: bool,
    ) -> Result<Vec<Near>, BackendError> {
        self.backend.search(of, query, n, among, exact)
    }
}
