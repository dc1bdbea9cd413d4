//! Who finds what: filters, access, tenants, deletes.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use assay_index::{
    Filter, FilterError, Hit, Index, IndexError, Query, SearchMode, TruncatedQuery, Viewer,
};
use fs_err as fs;

use crate::support::{Project, Words, ingest, ledger, search};

const RULES: &str = r#"
    [[documents]]
    match = "hr/**"
    allow = ["staff"]
    metadata = { year = 2023 }

    [[documents]]
    match = "acme/*"
    tenant = "acme"
    metadata = { year = 2020, secret = true }

    [[documents]]
    match = "nobody.md"
    allow = []
"#;

fn project() -> Project {
    Project::new(&[
        ("assay-docs.toml", RULES),
        ("open.md", "---\nyear: 2021\ntags: [red, green]\n---\n\nlamp open"),
        ("hr/pay.md", "lamp pay"),
        ("hr/own.md", "---\nallow: everyone\nyear: 2024\n---\n\nlamp own"),
        ("acme/plan.txt", "lamp plan"),
        ("nobody.md", "lamp nobody"),
    ])
}

fn names<'a>(names: &'a [String], tenant: Option<&'a str>) -> Viewer<'a> {
    Viewer { principals: names, tenant }
}

/// Paths that a viewer finds, by every leg alike.
fn found(index: &Index, viewer: Viewer<'_>, filter: Option<&str>) -> Vec<String> {
    let filter = filter.map(|text| Filter::parse(text).unwrap());
    let paths = |mode| {
        let query = Query { filter: filter.as_ref(), viewer, ..Query::new("lamp", 99, mode) };
        let hits: Vec<Hit> = index.search(&query).unwrap().hits;
        let mut paths: Vec<String> = hits.into_iter().map(|h| h.document).collect();
        paths.sort();
        paths
    };
    let all = paths(SearchMode::Hybrid);
    assert_eq!(all, paths(SearchMode::Bm25));
    assert_eq!(all, paths(SearchMode::Vector));
    all
}

#[test]
fn viewers_find_what_they_may_read() {
    let index = project().ingested();
    let staff = ["staff".to_owned(), "anna".to_owned()];
    assert_eq!(found(&index, Viewer::ANYONE, None), ["open.md"]);
    assert_eq!(found(&index, names(&staff, None), None), ["hr/own.md", "hr/pay.md", "open.md"]);
    assert_eq!(found(&index, names(&[], Some("acme")), None), ["acme/plan.txt", "open.md"]);
    assert_eq!(found(&index, names(&[], Some("other")), None), ["open.md"]);
    // The same for what is read without searching.
    for (viewer, seen) in [(Viewer::ANYONE, false), (names(&staff, None), true)] {
        assert_eq!(index.document_text("hr/pay.md", viewer).unwrap().is_some(), seen);
        assert_eq!(index.chunks("hr/pay.md", viewer).unwrap().is_empty(), !seen);
    }
    assert_eq!(index.document_text("nobody.md", names(&staff, Some("acme"))).unwrap(), None);
}

#[test]
fn filters_choose_among_what_is_seen() {
    let index = project().ingested();
    let staff = ["staff".to_owned()];
    let staff = names(&staff, None);
    assert_eq!(found(&index, staff, Some("year >= 2023")), ["hr/own.md", "hr/pay.md"]);
    assert_eq!(found(&index, staff, Some("year != 2023")), ["hr/own.md", "open.md"]);
    assert_eq!(found(&index, staff, Some("tags = 'red' or year = 2024")), ["hr/own.md", "open.md"]);
    assert_eq!(found(&index, names(&[], Some("acme")), Some("secret = true")), ["acme/plan.txt"]);

    let refused = |viewer, filter: &str| {
        let filter = Filter::parse(filter).unwrap();
        let query =
            Query { filter: Some(&filter), viewer, ..Query::new("lamp", 9, SearchMode::Hybrid) };
        match index.search(&query).unwrap_err() {
            IndexError::Filter(e) => e,
            other => panic!("{other}"),
        }
    };
    let error = refused(staff, "years = 2023");
    assert_eq!(error.hint().as_deref(), Some("did you mean `year`?"));
    assert_eq!(error.to_string(), "no document has a field `years`; there is: tags, year");
    // Nobody learns of fields that only others may see.
    assert!(matches!(refused(staff, "secret = true"), FilterError::UnknownField { .. }));
    let error = refused(staff, "year = '2023'");
    assert_eq!(error.to_string(), "`year` is compared with a string, and it is a number");
    assert!(error.hint().is_some());
    assert!(matches!(refused(staff, "tags = 'red' or year = true"), FilterError::WrongKind { .. }));
}

#[test]
fn another_description_is_committed_without_embedding() {
    let project = project();
    let words = Words::new("words");
    let mut index = project.open_with(words.clone(), 24).unwrap();
    project.ingest(&mut index);
    let (snapshot, embedded) = (index.snapshot_hash(), words.embedded.load(Ordering::Relaxed));
    let reader = project.open();
    assert_eq!(found(&reader, Viewer::ANYONE, None), ["open.md"]);

    project.write(
        "assay-docs.toml",
        "[[documents]]\nmatch = 'open.md'\nallow = []\nmetadata = { x = 1 }",
    );
    let report = project.ingest(&mut index);
    // What says of itself that everyone may read it had been overruled.
    assert_eq!((report.described, report.unchanged, report.changed, report.added), (5, 5, 0, 0));
    assert_eq!(words.embedded.load(Ordering::Relaxed), embedded);
    assert_ne!(index.snapshot_hash(), snapshot);
    let all = ["acme/plan.txt", "hr/own.md", "hr/pay.md", "nobody.md"];
    for index in [&index, &reader, &project.open()] {
        assert_eq!(found(index, Viewer::ANYONE, None), all);
    }
    assert_eq!(project.ingest(&mut index).described, 0);
    assert_eq!(
        ledger(&project.ingest(&mut index))[1],
        "assay-docs.toml: skipped (describes the other documents)"
    );
    project.write("assay-docs.toml", "[[documents]]\nmatch = 'opened.md'\nallow = []");
    let entry = &ledger(&project.ingest(&mut index))[1];
    assert!(entry.ends_with("matching none: opened.md)"), "{entry}");

    project.write("assay-docs.toml", "[[documents]]\nmatch = 'open.md'\nallow = 'anna'");
    let error = ingest(&mut index, &project.docs()).unwrap_err();
    assert!(matches!(error, IndexError::Sidecar { .. }) && error.hint().is_some(), "{error}");
    // A document that cannot say who may read it is nobody's.
    project.write("assay-docs.toml", "");
    project.write("open.md", "---\nallow: anna\n---\n\nlamp open");
    let report = project.ingest(&mut index);
    assert!(ledger(&report)[5].starts_with("open.md: failed (allow is"), "{:?}", ledger(&report));
    assert_eq!(found(&index, Viewer::ANYONE, None), all);
}

#[test]
fn what_was_deleted_stays_away() {
    let project =
        Project::new(&[("a.md", "lamp one"), ("b.md", "lamp two"), ("c.md", "lamp three")]);
    let mut index = project.ingested();
    let other = project.open();
    assert_eq!(found(&other, Viewer::ANYONE, None).len(), 3);

    let error = index.corpus().delete(&["a.md", "x.md"]).unwrap_err();
    assert_eq!(error.to_string(), "no such document: x.md");
    assert_eq!(found(&other, Viewer::ANYONE, None).len(), 3);
    index.corpus().delete(&["a.md", "b.md"]).unwrap();
    for index in [&index, &other, &project.open()] {
        assert_eq!(found(index, Viewer::ANYONE, None), ["c.md"]);
        assert_eq!(index.document_text("a.md", Viewer::ANYONE).unwrap(), None);
    }
    index.corpus().delete(&["a.md"]).unwrap();

    let report = project.ingest(&mut index);
    assert_eq!(ledger(&report)[0], "a.md: skipped (deleted by hand; restore it to have it again)");
    assert_eq!((report.added, report.removed), (0, 0));
    assert_eq!(found(&index, Viewer::ANYONE, None), ["c.md"]);

    // Another content is another document; the deleted one does not come back behind it.
    project.write("a.md", "lamp four");
    assert_eq!(project.ingest(&mut index).added, 1);
    assert_eq!(found(&index, Viewer::ANYONE, None), ["a.md", "c.md"]);
    project.write("a.md", "lamp one");
    assert_eq!(project.ingest(&mut index).removed, 1);
    assert_eq!(found(&index, Viewer::ANYONE, None), ["c.md"]);

    assert_eq!(index.corpus().restore(&["a.md", "b.md"]).unwrap(), 2);
    project.ingest(&mut index);
    assert_eq!(found(&index, Viewer::ANYONE, None), ["a.md", "b.md", "c.md"]);
}

#[test]
fn an_ingest_does_not_bring_back_what_is_deleted_meanwhile() {
    let project = Project::new(&[("a.md", "lamp one"), ("b.md", "lamp two")]);
    let mut index = project.ingested();
    let other = project.open();
    // Everything is made anew: read first, stored at the end.
    let mut again = project.open_with(Words::new("words"), 3).unwrap();
    again
        .ingest(&project.docs(), &mut |p| {
            if p.done == 2 {
                other.corpus().delete(&["a.md"]).unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found(&again, Viewer::ANYONE, None), ["b.md"]);
    project.ingest(&mut index);
    assert_eq!(found(&index, Viewer::ANYONE, None), ["b.md"]);
}

#[test]
fn access_that_was_set_by_hand_outlives_ingests() {
    let project = project();
    let mut index = project.ingested();
    let reader = project.open();
    let anna = ["anna".to_owned()];
    let files = segments(&project);
    index.corpus().set_access(&["open.md"], Some(&anna)).unwrap();
    index.corpus().set_access(&["nobody.md"], None).unwrap();
    let check = |index: &Index| {
        assert_eq!(found(index, Viewer::ANYONE, None), ["nobody.md"]);
        assert_eq!(found(index, names(&anna, None), None), ["nobody.md", "open.md"]);
    };
    check(&index);
    check(&reader);
    project.write("open.md", "lamp open");
    project.ingest(&mut index);
    check(&index);
    check(&project.open());
    assert_ne!(segments(&project), files);
    let files = segments(&project);

    index.corpus().reset_access(&["open.md", "nobody.md"]).unwrap();
    assert_eq!(found(&index, Viewer::ANYONE, None), ["open.md"]);
    // The projections have nothing to do with it.
    let snapshot = index.snapshot_hash();
    let again = project.open();
    assert_ne!(again.snapshot_hash(), snapshot);
    assert_eq!(segments(&project), files);
    let listed = again.corpus().snapshot().unwrap();
    assert_eq!(listed.hash, again.snapshot_hash());
    assert_eq!(listed.documents.len(), 5);
    let error = index.corpus().set_access(&["x.md"], None).unwrap_err();
    assert!(matches!(error, IndexError::NoSuchDocument { .. }));
}

#[test]
fn a_list_of_changes_that_was_cut_is_no_gap() {
    let project = Project::new(&[("a.md", "lamp one"), ("b.md", "lamp two")]);
    let writer = project.ingested();
    let reader = project.open();
    writer.corpus().set_access(&["b.md"], Some(&[])).unwrap();
    writer.corpus().delete(&["a.md"]).unwrap();
    let db = rusqlite::Connection::open(project.state().join("index.sqlite")).unwrap();
    db.execute_batch("DELETE FROM changes WHERE sequence < (SELECT max(sequence) FROM changes)")
        .unwrap();
    assert_eq!(found(&reader, Viewer::ANYONE, None), Vec::<String>::new());
}

/// Names of the projections' files.
fn segments(project: &Project) -> Vec<std::ffi::OsString> {
    let files = fs::read_dir(project.state().join("segments")).unwrap();
    let mut names: Vec<_> = files.map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn verify_names_what_is_damaged() {
    let damaged = |statement: &str, words: &str| {
        let project = project();
        let index = project.ingested();
        let well = index.corpus().verify().unwrap();
        assert_eq!((well.documents, well.chunks, well.projections), (5, 5, 1));
        assert_eq!((well.embeddings, &well.damage[..]), (5, &[][..]));
        let db = rusqlite::Connection::open(project.state().join("index.sqlite")).unwrap();
        db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {statement}")).unwrap();
        let found = index.corpus().verify().unwrap().damage.join("\n");
        assert!(found.contains(words), "{statement}: {found}");
    };
    damaged("UPDATE chunks SET end = end - 1 WHERE id = 1", "acme/plan.txt");
    damaged(
        "UPDATE documents SET text = 'lamp plam' WHERE path = 'acme/plan.txt'",
        "acme/plan.txt",
    );
    damaged("DELETE FROM chunks WHERE id = 1", "acme/plan.txt");
    damaged("DELETE FROM embeddings", "not there");
    damaged("UPDATE embeddings SET vector = x'00000000'", "norm 0.000");
    damaged("UPDATE documents SET allow = 'staff'", "no list");
    damaged("UPDATE documents SET metadata = '[]'", "metadata");
}

#[test]
fn a_damaged_projection_is_named_and_built_again() {
    let project = project();
    let mut index = project.ingested();
    let expected = search(&index, "lamp open", 9, SearchMode::Hybrid);
    let files = fs::read_dir(project.state().join("segments")).unwrap();
    let paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    for path in &paths {
        let mut bytes = fs::read(path).unwrap();
        bytes[3] ^= 0xff;
        // Aside and renamed, for the open index has it mapped.
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let found = index.corpus().verify().unwrap();
    let named: Vec<String> = paths.iter().map(|p| format!("{} is damaged", p.display())).collect();
    assert_eq!(found.damage, named);
    index.rebuild().unwrap();
    assert_eq!(index.corpus().verify().unwrap().damage, Vec::<String>::new());
    assert_eq!(search(&index, "lamp open", 9, SearchMode::Hybrid), expected);
}

#[test]
fn a_long_query_says_that_it_was_cut() {
    let index = project().ingested();
    let cut = |query: &str, mode| index.search(&Query::new(query, 3, mode)).unwrap().truncated;
    let long = "lamp ".repeat(70);
    assert_eq!(cut(&long, SearchMode::Hybrid), Some(TruncatedQuery { tokens: 70, read: 64 }));
    assert_eq!(cut(&long, SearchMode::Bm25), None);
    assert_eq!(cut(&"lamp ".repeat(64), SearchMode::Vector), None);
}

#[test]
fn what_was_found_a_while_ago_is_looked_up_again() {
    let project = project();
    let index = project.ingested();
    let staff = ["staff".to_owned()];
    let query = Query { viewer: names(&staff, None), ..Query::new("lamp", 99, SearchMode::Hybrid) };
    let hits = index.search(&query).unwrap().hits;
    let still = |hits: &[Hit]| index.still_found(hits, &query).unwrap();
    assert_eq!(still(&hits), [true; 3]);
    let vectors = index.vectors(&hits).unwrap();
    for (hit, vector) in hits.iter().zip(&vectors) {
        assert!(vector.is_some(), "{}", hit.document);
    }
    index.corpus().delete(&["open.md"]).unwrap();
    index.corpus().set_access(&["hr/own.md"], Some(&["anna".to_owned()])).unwrap();
    let expected: Vec<bool> = hits.iter().map(|h| h.document == "hr/pay.md").collect();
    assert_eq!(still(&hits), expected);
    let gone: Vec<bool> = hits.iter().map(|h| h.document == "open.md").collect();
    let there = index.vectors(&hits).unwrap();
    assert_eq!(there.iter().map(Option::is_none).collect::<Vec<_>>(), gone);
    // Of those who may not see it, and of what was not asked for.
    assert_eq!(
        index.still_found(&hits, &Query { viewer: Viewer::ANYONE, ..query }).unwrap(),
        [false; 3]
    );
    let filter = Filter::parse("year = 1999").unwrap();
    let asked = Query { filter: Some(&filter), ..query };
    assert_eq!(index.still_found(&hits, &asked).unwrap(), [false; 3]);
}

#[test]
fn a_given_vector_takes_the_place_of_that_of_the_text() {
    let project = project();
    let index = project.ingested();
    let staff = ["staff".to_owned()];
    let query = Query { viewer: names(&staff, None), ..Query::new("lamp", 9, SearchMode::Vector) };
    let vector = Words::vector("own");
    let hits = index.search(&Query { vector: Some(&vector), ..query }).unwrap().hits;
    assert_eq!(hits[0].document, "hr/own.md");
    assert_eq!(index.embed_query("lamp").unwrap().0, Words::vector("lamp"));
    assert_eq!(index.embed_passage("own").unwrap(), vector);
    // One of another length, or with a value that is none, is refused.
    for wrong in [vec![1.0; 3], vec![f32::NAN; 32]] {
        assert!(index.search(&Query { vector: Some(&wrong), ..query }).is_err());
    }
}
