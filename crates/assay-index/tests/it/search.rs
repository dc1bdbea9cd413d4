//! What is found, and how it is told.

use assay_index::{Hit, SearchMode, Viewer};

use crate::support::{Project, search};

const MANUAL: &str = "# Controller manual\n\nThis manual is for the Aurora controller.\n\n\
    ## Reset\n\nHold the red button for ten seconds until the lamp blinks.\n\n\
    ## Warranty\n\nThe warranty lasts two years and covers lightning damage.\n";

fn manual() -> Project {
    Project::new(&[
        ("manual.md", MANUAL),
        ("billing.md", "# Billing\n\nInvoices are sent monthly by mail.\n"),
        ("sub/faq.txt", "Why does the lamp blink? It has no network.\n"),
    ])
}

/// `document@start` of each hit.
fn places(hits: &[Hit]) -> Vec<String> {
    hits.iter().map(|h| format!("{}@{}", h.document, h.span.start)).collect()
}

#[test]
fn a_hit_tells_where_it_stands() {
    let project = manual();
    let index = project.ingested();
    let hits = search(&index, "what does the warranty cover?", 3, SearchMode::Hybrid);
    let hit = &hits[0];
    assert_eq!(hit.document, "manual.md");
    assert_eq!(hit.text, MANUAL[hit.span.clone()]);
    assert_eq!(
        hit.text,
        "## Warranty\n\nThe warranty lasts two years and covers lightning damage."
    );
    assert_eq!(hit.heading_path, ["Controller manual", "Warranty"]);
    assert_eq!(hit.title.as_deref(), Some("Controller manual"));
    assert!(hit.bm25_rank == Some(1) && hit.vector_rank.is_some());
    assert_eq!(index.document_text("manual.md", Viewer::ANYONE).unwrap().as_deref(), Some(MANUAL));
    assert_eq!(index.document_text("nothing.md", Viewer::ANYONE).unwrap(), None);

    let chunks = index.chunks("manual.md", Viewer::ANYONE).unwrap();
    assert_eq!(chunks[2].chunk_id, hit.chunk_id);
    assert_eq!(chunks.iter().map(|c| c.span.start).collect::<Vec<_>>(), [0, 64, 134]);
    assert_eq!(index.chunks("nothing.md", Viewer::ANYONE).unwrap(), []);
}

#[test]
fn words_are_stemmed_and_joined_by_or() {
    let index = manual().ingested();
    let found = |query| places(&search(&index, query, 9, SearchMode::Bm25));
    assert_eq!(found("INVOICE zebra"), ["billing.md@0"]);
    assert_eq!(found("blinking"), ["sub/faq.txt@0", "manual.md@64"]);
    // The title and the headings belong to each chunk.
    assert_eq!(found("aurora reset").len(), 2);
    assert_eq!(found("controllers").len(), 3);
}

#[test]
fn queries_without_words_are_answered() {
    let index = manual().ingested();
    for query in ["", "  \n"] {
        for mode in [SearchMode::Hybrid, SearchMode::Bm25, SearchMode::Vector] {
            assert_eq!(search(&index, query, 3, mode), []);
        }
    }
    for query in ["the", "?!", "zebra", "日本語", "\u{0}"] {
        assert_eq!(search(&index, query, 3, SearchMode::Bm25), []);
        let hits = search(&index, query, 3, SearchMode::Hybrid);
        assert_eq!(hits.len(), 3);
        assert!(hits.iter().all(|h| h.bm25_rank.is_none()));
        // The absent leg changes nothing about the order of the other.
        assert_eq!(places(&hits), places(&search(&index, query, 3, SearchMode::Vector)));
    }
}

#[test]
fn k_may_be_anything() {
    let index = manual().ingested();
    let all = search(&index, "lamp", usize::MAX, SearchMode::Hybrid);
    assert_eq!(all.len(), index.chunk_count());
    assert_eq!(search(&index, "lamp", 2, SearchMode::Hybrid), all[..2]);
    assert_eq!(search(&index, "lamp", 0, SearchMode::Hybrid), []);
    assert_eq!(search(&index, "lamp", 99, SearchMode::Bm25).len(), 2);
    assert_eq!(search(&index, "lamp", 99, SearchMode::Vector).len(), all.len());
}

#[test]
fn an_empty_index_finds_nothing() {
    let project = Project::new(&[]);
    let index = project.open();
    assert_eq!((index.chunk_count(), index.documents().len()), (0, 0));
    assert_eq!(search(&index, "lamp", 5, SearchMode::Hybrid), []);
}

#[test]
fn equal_chunks_come_by_path() {
    let text = "the same words in each of them, and more of the same";
    let project = Project::new(&[("b.md", text), ("a.md", text), ("c/a.md", text)]);
    let index = project.ingested();
    for mode in [SearchMode::Hybrid, SearchMode::Bm25, SearchMode::Vector] {
        let hits = search(&index, "same words more", 3, mode);
        assert_eq!(places(&hits), ["a.md@0", "b.md@0", "c/a.md@0"]);
    }
}

#[test]
fn scores_do_not_depend_on_what_was_deleted() {
    let project =
        Project::new(&[("a.md", "lamp"), ("b.md", "lamp red"), ("c.md", "lamp red blue")]);
    let mut index = project.ingested();
    project.write("z.md", "red red red lamp");
    project.ingest(&mut index);
    project.remove("z.md");
    project.ingest(&mut index);
    let fresh = Project::new(&[("a.md", "lamp"), ("b.md", "lamp red"), ("c.md", "lamp red blue")]);
    assert_eq!(
        search(&index, "red lamp", 9, SearchMode::Bm25),
        search(&fresh.ingested(), "red lamp", 9, SearchMode::Bm25)
    );
}

#[test]
fn a_text_in_another_language_is_not_found_by_function_words() {
    let lamp = |n: usize| {
        format!(
            "The lamp in room {n} of the house is red, and it was bought for the people who live there."
        )
    };
    let lamps: Vec<(String, String)> = (1..6).map(|n| (format!("{n}.txt"), lamp(n))).collect();
    let mut files: Vec<(&str, &str)> =
        lamps.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push((
        "it.txt",
        "Quando siamo arrivati a Roma, la casa era già chiusa perché il custode era andato a cena; a destra c'era la \
         porta, a sinistra il giardino, e dalla finestra della cucina si vedevano gli alberi e il mare.",
    ));
    let index = Project::new(&files).ingested();
    let hits = search(&index, "a lamp", 9, SearchMode::Bm25);
    assert!(hits.len() > 5, "the other text has the word too");
    assert!(hits[..5].iter().all(|h| h.document != "it.txt"), "{hits:?}");
    assert_eq!(search(&index, "giardino", 9, SearchMode::Bm25)[0].document, "it.txt");
}
