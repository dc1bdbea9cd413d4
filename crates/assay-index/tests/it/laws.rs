//! Laws, on random folders, against brute force.

use std::collections::BTreeMap;

use assay_index::{Index, SearchMode};
use proptest::prelude::*;

use crate::support::{Project, Words, ingest, search};

/// Words with different stems, none of them a stop word.
const WORDS: &[&str] =
    &["lamp", "red", "door", "blue", "key", "tree", "cat", "stone", "river", "milk"];

/// The texts of one-chunk documents, by path.
type Folder = BTreeMap<String, Vec<&'static str>>;

fn folder() -> impl Strategy<Value = Folder> {
    let words = proptest::collection::vec(proptest::sample::select(WORDS), 1..12);
    proptest::collection::btree_map("[a-c]/[a-f]{1,2}\\.txt", words, 1..12)
}

fn query() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(WORDS), 1..4).prop_map(|w| w.join(" "))
}

fn project(folder: &Folder) -> Project {
    let project = Project::new(&[]);
    for (path, words) in folder {
        project.write(path, words.join(" "));
    }
    project
}

/// Lucene's BM25 with k1 = 1.2, b = 0.75; lengths below 40 words are stored exactly.
fn bm25(folder: &Folder, query: &str) -> Vec<Option<f64>> {
    let n = folder.len() as f64;
    let mean = folder.values().map(Vec::len).sum::<usize>() as f64 / n;
    let score = |document: &Vec<&str>, word: &str| {
        let tf = document.iter().filter(|w| **w == word).count() as f64;
        let df = folder.values().filter(|d| d.contains(&word)).count() as f64;
        let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
        let norm = 1.2 * (0.25 + 0.75 * document.len() as f64 / mean);
        idf * 2.2 * tf / (tf + norm)
    };
    folder
        .values()
        .map(|d| Some(query.split(' ').map(|w| score(d, w)).sum()).filter(|s| *s > 0.0))
        .collect()
}

fn cosine(folder: &Folder, query: &str) -> Vec<f64> {
    let query = Words::vector(query);
    let dot = |v: Vec<f32>| v.iter().zip(&query).map(|(a, b)| f64::from(a * b)).sum();
    folder.values().map(|words| dot(Words::vector(&words.join(" ")))).collect()
}

fn hybrid(bm25: &[Option<f64>], cosine: &[f64]) -> Vec<f64> {
    let top = bm25.iter().flatten().fold(f64::MIN_POSITIVE, |a, b| a.max(*b));
    let (low, high) = cosine.iter().fold((f64::MAX, f64::MIN), |(l, h), c| (l.min(*c), h.max(*c)));
    let range = (high - low).max(0.05);
    let both = bm25.iter().zip(cosine);
    both.map(|(b, c)| 0.4 * b.unwrap_or(0.0) / top + 0.6 * (c - low) / range).collect()
}

/// Same scores at each place, and each hit has the score that brute force gives it: that is the same
/// ranking, but for rounding.
fn assert_ranking(
    index: &Index,
    folder: &Folder,
    query: &str,
    mode: SearchMode,
    scores: &[Option<f64>],
) {
    let paths: Vec<&String> = folder.keys().collect();
    let hits = search(index, query, folder.len() + 1, mode);
    let mut expected: Vec<f64> = scores.iter().flatten().copied().collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(hits.len(), expected.len(), "{mode:?}");
    for (hit, expected) in hits.iter().zip(expected) {
        let own = paths.iter().position(|p| **p == hit.document).and_then(|i| scores[i]);
        assert!((hit.score - expected).abs() < 1e-4, "{mode:?} {} {expected}", hit.score);
        assert!((hit.score - own.unwrap()).abs() < 1e-4, "{mode:?} {} {own:?}", hit.score);
    }
    for k in 0..hits.len() {
        assert_eq!(search(index, query, k, mode), hits[..k]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn searches_are_brute_force(folder in folder(), query in query()) {
        let index = project(&folder).ingested();
        prop_assert_eq!(index.chunk_count(), folder.len());
        let (words, vectors) = (bm25(&folder, &query), cosine(&folder, &query));
        let all = |scores: &[f64]| scores.iter().copied().map(Some).collect::<Vec<_>>();
        assert_ranking(&index, &folder, &query, SearchMode::Bm25, &words);
        assert_ranking(&index, &folder, &query, SearchMode::Vector, &all(&vectors));
        let fused = all(&hybrid(&words, &vectors));
        assert_ranking(&index, &folder, &query, SearchMode::Hybrid, &fused);
    }

    #[test]
    fn ranks_are_those_of_the_legs(folder in folder(), query in query()) {
        let index = project(&folder).ingested();
        let place = |mode, id: &str| {
            search(&index, &query, 99, mode).iter().position(|h| h.chunk_id == id).map(|i| i + 1)
        };
        for hit in search(&index, &query, 99, SearchMode::Hybrid) {
            prop_assert_eq!(hit.bm25_rank, place(SearchMode::Bm25, &hit.chunk_id));
            prop_assert_eq!(hit.vector_rank, place(SearchMode::Vector, &hit.chunk_id));
        }
    }

    /// Whatever happened to the folder, the index is that of its last state.
    #[test]
    fn history_does_not_matter(states in proptest::collection::vec(folder(), 1..4), query in query()) {
        let moved = Project::new(&[]);
        let mut index = moved.open();
        for folder in &states {
            let _ = fs_err::remove_dir_all(moved.docs());
            for (path, words) in folder.iter().rev() {
                moved.write(path, words.join(" "));
            }
            ingest(&mut index, &moved.docs()).unwrap();
            for hit in search(&index, &query, 99, SearchMode::Hybrid) {
                prop_assert!(folder.contains_key(&hit.document));
            }
        }
        let clean = project(states.last().unwrap()).ingested();
        prop_assert_eq!(index.snapshot_hash(), clean.snapshot_hash());
        for mode in [SearchMode::Hybrid, SearchMode::Bm25, SearchMode::Vector] {
            prop_assert_eq!(search(&index, &query, 99, mode), search(&clean, &query, 99, mode));
        }
    }
}
