//! What becomes of files, and what is done again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use assay_index::{
    Index, IndexConfig, IndexError, IngestOutcome, NotParsed, PageOutcome, Parse, Query,
    SearchMode, Viewer, read_ledger,
};
use assay_text::{FailedPage, Format, Parsed};
use fs_err as fs;

use crate::support::{Project, Words, ingest, ledger, search};

#[test]
fn the_ledger_accounts_for_every_file() {
    let project = Project::new(&[
        ("a.md", "# Title\n\nSome words.\n"),
        ("b/c.TXT", "plain"),
        ("b/d.html", "<title>T</title><p>text"),
        ("again.md", "plain"),
        ("empty.md", " \n"),
        ("only-markup.html", "<script>x()</script>"),
        ("slides.pdf", "%PDF"),
        ("Makefile", "all:"),
        (".hidden.md", "secret"),
        (".git/readme.md", "secret"),
        ("large.txt", &"x ".repeat(50_001)),
    ]);
    project.write("nul.txt", b"ca\0f");
    project.write("latin.txt", b"caf\xe9 stra\xdfe");
    let mut index = project.open();
    let report = project.ingest(&mut index);
    assert_eq!(
        ledger(&report),
        [
            "Makefile: skipped (no extension)",
            "a.md: parsed (1 chunks, 16 characters)",
            "again.md: parsed (1 chunks, 5 characters)",
            "b/c.TXT: parsed (1 chunks, 5 characters)",
            "b/d.html: parsed (1 chunks, 4 characters)",
            "empty.md: empty",
            "large.txt: failed (larger than the limit of 100000 bytes)",
            "latin.txt: parsed (1 chunks, 10 characters)",
            "nul.txt: failed (not a text: there is a NUL byte at offset 2; \
             remove the file if it is binary)",
            "only-markup.html: empty",
            "slides.pdf: failed (damaged PDF file: no page tree could be read; \
             open it in the program that wrote it and save it again)",
        ]
    );
    let entry = |path: &str| report.ledger.iter().find(|e| e.path == path).unwrap();
    assert_eq!(entry("b/c.TXT").same_as.as_deref(), Some("again.md"));
    assert_eq!(entry("latin.txt").notes, ["read as windows-1252, by a guess from its letters"]);
    assert_eq!(entry("slides.pdf").format.as_deref(), Some("PDF"));
    // It is kept.
    assert_eq!(read_ledger(&project.state()).unwrap(), report.ledger);
    assert_eq!(project.ingest(&mut index).ledger, report.ledger);
    assert_eq!((report.added, report.chunks, report.embeddings_computed), (5, 5, 4));
    let documents: Vec<_> =
        index.documents().iter().map(|d| (&*d.path, d.title.as_deref())).collect();
    assert_eq!(
        documents,
        [
            ("a.md", Some("Title")),
            ("again.md", None),
            ("b/c.TXT", None),
            ("b/d.html", Some("T")),
            ("latin.txt", None)
        ]
    );
    for entry in &report.ledger {
        if let IngestOutcome::Parsed { chars, chars_in_chunks, .. } = entry.outcome {
            assert_eq!(chars, chars_in_chunks);
        }
    }
}

#[test]
fn what_has_not_changed_is_not_embedded_again() {
    let project = Project::new(&[("a.md", "one"), ("b.md", "two"), ("c.md", "three")]);
    let words = Words::new("words");
    let mut index = project.open_with(words.clone(), 24).unwrap();
    let first = project.ingest(&mut index);
    let snapshot = index.snapshot_hash();
    assert_eq!((first.added, words.embedded.load(Ordering::Relaxed)), (3, 3));

    let again = project.ingest(&mut index);
    assert_eq!((again.added, again.changed, again.unchanged, again.removed), (0, 0, 3, 0));
    assert_eq!((again.embeddings_computed, words.embedded.load(Ordering::Relaxed)), (0, 3));
    assert_eq!((again.ledger, index.snapshot_hash()), (first.ledger, snapshot.clone()));

    project.write("b.md", "four");
    project.remove("c.md");
    project.write("d.md", "one");
    let report = project.ingest(&mut index);
    assert_eq!((report.added, report.changed, report.unchanged, report.removed), (1, 1, 1, 1));
    // The text of d.md is that of a.md, whose vector is there.
    assert_eq!(report.embeddings_computed, 1);
    assert_ne!(index.snapshot_hash(), snapshot);

    // Opened again, it is the same.
    let reopened = project.open();
    assert_eq!(reopened.snapshot_hash(), index.snapshot_hash());
    assert_eq!(reopened.documents(), index.documents());
}

#[test]
fn a_document_that_is_no_longer_readable_is_forgotten() {
    let project = Project::new(&[("a.md", "apples"), ("b.md", "pears"), ("c.md", "plums")]);
    let mut index = project.ingested();
    project.write("a.md", b"\0");
    project.write("b.md", "");
    let report = project.ingest(&mut index);
    assert_eq!((report.removed, report.unchanged), (2, 1));
    assert_eq!(index.documents().len(), 1);
    assert!(search(&index, "apples pears", 9, SearchMode::Bm25).is_empty());
}

#[test]
fn a_folder_without_documents_is_refused_and_changes_nothing() {
    let project = Project::new(&[("a.md", "apples")]);
    let mut index = project.ingested();
    project.remove("a.md");
    project.write("x.bin", "");
    let error = ingest(&mut index, &project.docs()).unwrap_err();
    assert!(matches!(error, IndexError::NoDocuments { skipped: 1, .. }));
    assert!(error.hint().unwrap().contains("*.md"));
    let missing = ingest(&mut index, &project.docs().join("nowhere")).unwrap_err();
    assert!(matches!(missing, IndexError::NotAFolder { .. }) && missing.hint().is_some());
    assert_eq!(search(&index, "apples", 9, SearchMode::Hybrid).len(), 1);
}

#[test]
fn other_settings_make_everything_anew_and_refuse_searches_until_then() {
    let project = Project::new(&[("a.md", "one two three. four five six."), ("b.md", "seven")]);
    let before = project.ingested().snapshot_hash();

    for (id, chunk_tokens, embeddings) in [("words", 3, 3), ("others", 3, 3)] {
        let words = Words::new(id);
        let mut index = project.open_with(words, chunk_tokens).unwrap();
        assert_eq!(index.needs_ingest(), Some(2));
        let error = index.search(&Query::new("one", 3, SearchMode::Bm25)).unwrap_err();
        assert!(matches!(error, IndexError::Stale { documents: 2 }) && error.hint().is_some());
        let report = project.ingest(&mut index);
        assert_eq!((report.changed, report.chunks), (2, 3));
        // "seven" has its vector already where only the chunk size is new.
        assert_eq!(report.embeddings_computed, embeddings - usize::from(id == "words"));
        assert_eq!(index.needs_ingest(), None);
        assert_ne!(index.snapshot_hash(), before);
        assert_eq!(search(&index, "one", 3, SearchMode::Bm25)[0].text, "one two three.");
    }
}

#[test]
fn an_interrupted_ingest_goes_on_and_ends_as_a_clean_one() {
    let files: Vec<(String, String)> = (0..40)
        .map(|i| {
            let body: Vec<String> =
                (0..1 + i % 13).map(|j| format!("word{i} item{j} common thing{}", j % 5)).collect();
            (format!("{i:02}.md"), format!("# Head {i}\n\n{}\n", body.join("\n\n")))
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let clean = Project::new(&files);
    let small = |project: &Project| project.open_with(Words::new("words"), 4).unwrap();
    let mut expected = small(&clean);
    let embeddings = clean.ingest(&mut expected).embeddings_computed;

    let project = Project::new(&files);
    let (mut rounds, mut computed) = (0, 0);
    loop {
        rounds += 1;
        // As after a crash: nothing is kept but the files.
        let mut index = small(&project);
        let mut calls = 0;
        let report = index
            .ingest(&project.docs(), &mut |_| {
                calls += 1;
                if calls > 9 * rounds { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        computed += report.embeddings_computed;
        if !report.interrupted {
            break;
        }
    }
    assert!(rounds > 4, "{rounds}");
    assert_eq!(computed, embeddings);
    let index = small(&project);
    assert_eq!(index.snapshot_hash(), expected.snapshot_hash());
    assert_eq!(index.documents(), expected.documents());
    for query in ["word7 thing3", "item2 common", "head 12"] {
        for mode in [SearchMode::Hybrid, SearchMode::Bm25, SearchMode::Vector] {
            assert_eq!(search(&index, query, 20, mode), search(&expected, query, 20, mode));
        }
    }
}

#[test]
fn only_one_ingest_at_a_time() {
    let project = Project::new(&[("a.md", "one")]);
    let mut first = project.open();
    let mut second = project.open();
    let mut refused = false;
    first
        .ingest(&project.docs(), &mut |_| {
            let error = ingest(&mut second, &project.docs());
            refused = matches!(error, Err(IndexError::Busy { .. }));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(refused);
    assert_eq!(ingest(&mut second, &project.docs()).unwrap().unchanged, 1);
}

#[test]
fn symbolic_links_are_followed_and_loops_are_reported() {
    let project = Project::new(&[("a/one.md", "one")]);
    let outside = project.dir.path().join("outside.md");
    fs::write(&outside, "elsewhere").unwrap();
    std::os::unix::fs::symlink(&outside, project.docs().join("link.md")).unwrap();
    std::os::unix::fs::symlink("nowhere.md", project.docs().join("broken.md")).unwrap();
    std::os::unix::fs::symlink("..", project.docs().join("a/up")).unwrap();
    let report = project.ingest(&mut project.open());
    let ledger = ledger(&report);
    assert_eq!(ledger[0], "a/one.md: parsed (1 chunks, 3 characters)");
    assert_eq!(ledger[1], "a/up: failed (a symbolic link to a folder that it is in)");
    assert!(ledger[2].starts_with("broken.md: failed ("), "{}", ledger[2]);
    assert_eq!(ledger[3], "link.md: parsed (1 chunks, 9 characters)");
}

#[test]
fn a_path_that_is_not_utf8_is_reported() {
    use std::os::unix::ffi::OsStrExt as _;
    let project = Project::new(&[("a.md", "one")]);
    let name = std::ffi::OsStr::from_bytes(b"b\xff.md");
    fs::write(project.docs().join(name), "two").unwrap();
    let report = project.ingest(&mut project.open());
    assert_eq!(ledger(&report)[1], "b\u{fffd}.md: failed (the path is not UTF-8)");
}

/// A parser that says what the file is made of: a page for each line, `?` for one that cannot be read.
struct Lines;

impl Parse for Lines {
    fn parse(&self, bytes: &[u8], _: Format) -> Result<Parsed, NotParsed> {
        let text = String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())?;
        let mut parsed = Parsed::default();
        for line in text.lines().skip(1) {
            let start = parsed.text.len();
            match line {
                "?" => {
                    let page = parsed.pages.len() as u32 + 1;
                    parsed.failed_pages.push(FailedPage { page, reason: "unreadable".into() });
                }
                line => parsed.text.push_str(&format!("{line}\n")),
            }
            parsed.pages.push(start..parsed.text.len());
        }
        Ok(parsed)
    }
}

/// A parser that has gone away.
struct Away;

impl Parse for Away {
    fn parse(&self, _: &[u8], _: Format) -> Result<Parsed, NotParsed> {
        Err(NotParsed::NoParser("out of processes".into()))
    }
}

#[test]
fn without_a_parser_the_ingest_ends_and_no_document_is_forgotten() {
    let project = Project::new(&[("a.md", "red lamp")]);
    drop(project.ingested());
    project.write("b.md", "blue door");
    project.write("a.md", "red lamp, changed");
    let mut index = project.open().with_parser(Arc::new(Away));
    let docs = project.docs();
    let error = index.ingest(&docs, &mut |_| ControlFlow::Continue(())).err().unwrap();
    assert_eq!(error.to_string(), "no parser: out of processes");
    assert_eq!(search(&index, "lamp", 9, SearchMode::Bm25)[0].text, "red lamp");
}

#[test]
fn every_page_is_accounted_for_and_hits_know_theirs() {
    let words = |word: &str| vec![word; 20].join(" ");
    let long = format!("%PDF\n{}\n\n{}\n?\n", words("red"), words("blue"));
    let project = Project::new(&[("a.pdf", &long), ("b.pdf", "%PDF\n?\n"), ("c.pdf", "%PDF\n\n")]);
    let mut index = project.open().with_parser(Arc::new(Lines));
    let report = project.ingest(&mut index);
    assert_eq!(
        ledger(&report),
        [
            "a.pdf: parsed (2 chunks, 140 characters)",
            "b.pdf: failed (page 1: unreadable)",
            "c.pdf: empty"
        ]
    );
    assert_eq!(
        report.ledger[0].pages,
        [
            PageOutcome::Parsed { chars: 60 },
            PageOutcome::Empty,
            PageOutcome::Parsed { chars: 80 },
            PageOutcome::Failed { reason: "unreadable".into(), chars: 0 }
        ]
    );
    let pages = |query| search(&index, query, 1, SearchMode::Bm25)[0].pages.clone();
    assert_eq!((pages("red"), pages("blue")), (Some(1..=1), Some(3..=3)));
    assert_eq!(index.chunks("a.pdf", Viewer::ANYONE).unwrap()[1].pages, Some(3..=3));

    // A quote stands where its own bytes do, whatever chunk it came from.
    let at = |start: usize, quote: &str| {
        let span = start..start + quote.len();
        index.find_quote("a.pdf", span, quote, Viewer::ANYONE).unwrap().map(|place| place.pages)
    };
    assert_eq!(at(0, "red red"), Some(Some(1..=1)));
    let text = index.document_text("a.pdf", Viewer::ANYONE).unwrap().unwrap();
    let across = text.find("red\n\nblue").unwrap();
    assert_eq!(at(across, "red\n\nblue"), Some(Some(1..=3)));
    assert_eq!(at(across, "red\nblue"), None);
}

#[test]
fn titles_and_headings_find_chunks_unless_they_are_left_out() {
    let text = "# Lamps\n\nIn red.\n\n## Repair\n\nTurn it off and wait.\n";
    let project = Project::new(&[("a.md", text), ("b.md", "Something else.")]);
    let open = |contextual_headers| {
        let config = IndexConfig { chunk_tokens: 8, contextual_headers, ..IndexConfig::default() };
        Index::open(&project.state(), Words::new("words"), config).unwrap()
    };
    let repair = text.find("## Repair").unwrap();
    let found = |index: &Index, mode| {
        let hits = search(index, "lamps", 9, mode);
        hits.iter().map(|h| (h.document.clone(), h.span.start)).collect::<Vec<_>>()
    };
    let chunk = ("a.md".to_owned(), repair);
    let mut with = open(true);
    project.ingest(&mut with);
    assert!(found(&with, SearchMode::Bm25).contains(&chunk));
    assert_eq!(found(&with, SearchMode::Vector)[1], chunk);
    let mut without = open(false);
    assert_eq!(without.needs_ingest(), Some(2));
    let report = project.ingest(&mut without);
    // The first chunk holds its title itself, and the other document has none: only one text is another.
    assert_eq!((report.changed, report.embeddings_computed), (2, 1));
    assert_eq!(found(&without, SearchMode::Bm25), [("a.md".to_owned(), 0)]);
    // The headings that a prompt shows are there all the same.
    let hits = search(&without, "wait", 1, SearchMode::Bm25);
    assert_eq!(hits[0].heading_path, ["Lamps", "Repair"]);
    assert_eq!(open(true).needs_ingest(), Some(2));
}
