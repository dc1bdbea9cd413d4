//! Random documents, queries and sets of allowed chunks, against brute force.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::analysis::{query_terms, words};

const DIMS: usize = 20;
const BM25: Bm25 = Bm25 { k1: 0.9, b: 0.4 };

/// Texts and vectors of a document's chunks.
type Chunks = Vec<(Vec<u8>, [i8; 3])>;

/// Few words and few directions, so that there are ties; one word is in most chunks.
fn text(words: &[u8]) -> String {
    words.iter().map(|w| if *w > 9 { "w0 ".to_owned() } else { format!("w{w} ") }).collect()
}

fn vector(seed: [i8; 3]) -> Vec<f32> {
    let values: Vec<f32> =
        (0..DIMS).map(|i| f32::from(seed[i % 3]) + ((i * i) % 7) as f32 * 3.0).collect();
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.iter().map(|v| v / norm).collect()
}

fn chunks() -> impl Strategy<Value = Chunks> {
    let words = prop::collection::vec(0u8..14, 0..12);
    prop::collection::vec((words, prop::array::uniform3(-9i8..9)), 1..5)
}

/// By path; the number changes with the content.
fn corpus(most: usize) -> impl Strategy<Value = BTreeMap<String, Chunks>> {
    prop::collection::btree_map("[a-d]{1,3}", chunks(), 1..most)
}

/// Ids that are never used twice, as the record gives them.
#[derive(Default)]
struct Ids(BTreeMap<(String, String), i64>);

fn hash(chunks: &Chunks) -> String {
    blake3::hash(format!("{chunks:?}").as_bytes()).to_hex().to_string()
}

fn open(
    dir: &Path,
    before: Option<&Projections>,
    ids: &mut Ids,
    corpus: &BTreeMap<String, Chunks>,
) -> Projections {
    let hashes: Vec<String> = corpus.values().map(hash).collect();
    let sources: Vec<Source<'_>> = corpus
        .iter()
        .zip(&hashes)
        .map(|((path, chunks), content_hash)| {
            let next = ids.0.len() as i64;
            let id = *ids.0.entry((path.clone(), content_hash.clone())).or_insert(next);
            Source { id, path, content_hash, chunks: chunks.len() }
        })
        .collect();
    let content = |source: &Source<'_>| {
        let chunks = &corpus[source.path];
        Ok(Content {
            texts: chunks.iter().map(|(words, _)| text(words)).collect(),
            vectors: chunks.iter().flat_map(|(_, seed)| vector(*seed)).collect(),
        })
    };
    Projections::open(
        dir,
        before,
        &Settings { key: "settings", dims: DIMS, bm25: BM25 },
        &sources,
        &content,
    )
    .unwrap()
}

/// Scores of all chunks by the formulas, in `f64`; `None` for what is no hit.
fn brute(
    corpus: &BTreeMap<String, Chunks>,
    query: &str,
    q: &[f32],
    mode: SearchMode,
    allowed: &Bits,
) -> Vec<Option<f64>> {
    let chunks: Vec<&(Vec<u8>, [i8; 3])> = corpus.values().flatten().collect();
    let analysed: Vec<Vec<String>> = chunks
        .iter()
        .map(|(w, _)| {
            let mut all = Vec::new();
            words(&text(w), |w| all.push(w.to_owned()));
            all
        })
        .collect();
    let n = chunks.len() as f64;
    let mean = analysed.iter().map(Vec::len).sum::<usize>() as f64 / n;
    let bm25: Vec<f64> = analysed
        .iter()
        .map(|words| {
            let score = |(term, times): &(String, u32)| {
                let df = analysed.iter().filter(|w| w.contains(term)).count() as f64;
                let count = words.iter().filter(|w| *w == term).count() as f64;
                let (k1, b) = (f64::from(BM25.k1), f64::from(BM25.b));
                let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
                let norm = k1 * (1.0 - b + b * words.len() as f64 / mean);
                if count == 0.0 {
                    0.0
                } else {
                    f64::from(*times) * idf * (k1 + 1.0) * count / (count + norm)
                }
            };
            query_terms(query, &[Language::detect([""])]).terms.iter().map(score).sum()
        })
        .collect();
    let similarity: Vec<f64> =
        chunks.iter().map(|(_, s)| f64::from(assay_kernels::dot(&vector(*s), q))).collect();
    let may = |i: usize| allowed.contains(i as u32);
    let of_allowed = |v: &[f64]| (0..v.len()).filter(|&i| may(i)).map(|i| v[i]).collect::<Vec<_>>();
    let (low, high) = of_allowed(&similarity)
        .iter()
        .fold((f64::MAX, f64::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
    let top = of_allowed(&bm25).iter().fold(0.0, |t: f64, b| t.max(*b));
    (0..chunks.len())
        .map(|i| {
            if !may(i) {
                return None;
            }
            match mode {
                SearchMode::Bm25 => (bm25[i] > 0.0).then_some(bm25[i]),
                SearchMode::Vector => Some(similarity[i]),
                SearchMode::Hybrid => {
                    let words = if top > 0.0 { 0.4 * bm25[i] / top } else { 0.0 };
                    Some(words + 0.6 * (similarity[i] - low) / (high - low).max(0.05))
                }
                SearchMode::Reciprocal => {
                    // Ranks from the legs' own rankings, which are tested above.
                    None
                }
            }
        })
        .collect()
}

fn allowed(n: usize, keep: u64, share: u8) -> Bits {
    let mut bits = Bits::none(n);
    for i in 0..n as u32 {
        if (keep ^ (u64::from(i) << 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56
            <= u64::from(share)
        {
            bits.set(i);
        }
    }
    bits
}

fn check(
    p: &Projections,
    corpus: &BTreeMap<String, Chunks>,
    query: &[u8],
    seed: [i8; 3],
    allowed: &Bits,
) {
    let (query, q) = (text(query), vector(seed));
    for mode in [SearchMode::Bm25, SearchMode::Vector, SearchMode::Hybrid] {
        let scores = brute(corpus, &query, &q, mode, allowed);
        let all = p.search(&query, Some(&q), mode, usize::MAX, allowed, None).unwrap();
        let mut expected: Vec<f64> = scores.iter().flatten().copied().collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(all.len(), expected.len(), "{mode:?}");
        for (found, expected) in all.iter().zip(&expected) {
            let own = scores[found.chunk as usize].unwrap();
            assert!(
                (found.score - expected).abs() < 1e-5 && (found.score - own).abs() < 1e-5,
                "{mode:?} {found:?} {expected} {own}"
            );
        }
        // Equal scores by number, and a shorter list is the beginning of a longer one.
        assert!(
            all.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.chunk < b.chunk)),
            "{mode:?}"
        );
        for k in [0, 1, 2, 3, 7, all.len() / 2] {
            let some = p.search(&query, Some(&q), mode, k, allowed, None).unwrap();
            assert_eq!(some, all[..k.min(all.len())], "{mode:?} {k}");
        }
    }
    let legs = [SearchMode::Bm25, SearchMode::Vector]
        .map(|mode| p.search(&query, Some(&q), mode, usize::MAX, allowed, None).unwrap());
    let mut fused: BTreeMap<u32, f64> = BTreeMap::new();
    for leg in &legs {
        for (found, rank) in leg.iter().zip(1u32..).take(fusion::RECIPROCAL_DEPTH) {
            *fused.entry(found.chunk).or_default() += 1.0 / (60.0 + f64::from(rank));
        }
    }
    let mut fused: Vec<(u32, f64)> = fused.into_iter().collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let found = p.search(&query, Some(&q), SearchMode::Reciprocal, 5, allowed, None).unwrap();
    let got: Vec<(u32, f64)> = found.iter().map(|f| (f.chunk, f.score)).collect();
    fused.truncate(5);
    assert_eq!(got, fused);
    for f in found {
        let place = |leg: &[Found]| {
            leg.iter().position(|l| l.chunk == f.chunk).map(|i| i + 1).filter(|n| *n <= RANKED)
        };
        assert_eq!((f.bm25_rank, f.vector_rank), (place(&legs[0]), place(&legs[1])));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is allowed, and whatever was in the index before.
    #[test]
    fn searches_are_brute_force(
        states in prop::collection::vec(corpus(60), 1..4),
        queries in prop::collection::vec((prop::collection::vec(0u8..14, 1..6), prop::array::uniform3(-9i8..9), any::<u64>(), any::<u8>()), 4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut ids = Ids::default();
        let mut p: Option<Projections> = None;
        for corpus in &states {
            p = Some(open(dir.path(), p.as_ref(), &mut ids, corpus));
        }
        let (p, last) = (p.unwrap(), states.last().unwrap());
        let n = last.values().map(Vec::len).sum();
        // What is opened again, and what is made anew, finds the same.
        let again = open(dir.path(), None, &mut ids, last);
        let fresh = tempfile::tempdir().unwrap();
        let fresh = open(fresh.path(), None, &mut Ids::default(), last);
        for (query, seed, keep, share) in queries {
            let allowed = allowed(n, keep, share);
            check(&p, last, &query, seed, &allowed);
            check(&p, last, &query, seed, &Bits::all(n));
            for mode in [SearchMode::Bm25, SearchMode::Vector, SearchMode::Hybrid, SearchMode::Reciprocal] {
                let search = |p: &Projections| p.search(&text(&query), Some(&vector(seed)), mode, 9, &allowed, None).unwrap();
                prop_assert_eq!(search(&p), search(&again));
                prop_assert_eq!(search(&p), search(&fresh));
            }
        }
    }
}

fn numbered(range: Range<usize>) -> BTreeMap<String, Chunks> {
    range
        .map(|i| {
            (
                format!("{i:05}"),
                vec![(
                    vec![(i % 14) as u8, (i / 14 % 14) as u8],
                    [(i % 9) as i8, (i % 5) as i8, (i % 11) as i8],
                )],
            )
        })
        .collect()
}

#[test]
fn adding_a_document_leaves_large_segments_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Ids::default();
    let mut p = open(dir.path(), None, &mut ids, &numbered(0..3000));
    let large = p.segments[0].segment.path().to_owned();
    for n in (3001..3200).step_by(9) {
        p = open(dir.path(), Some(&p), &mut ids, &numbered(0..n));
        assert_eq!(p.segments[0].segment.path(), large);
        assert!(p.segments.len() < 8, "{} segments", p.segments.len());
    }
    check(&p, &numbered(0..3199), &[3, 4], [1, 2, 3], &Bits::all(3199));
    // Gone documents are bits, until most of a segment is gone.
    p = open(dir.path(), Some(&p), &mut ids, &numbered(500..3199));
    assert_eq!(p.segments[0].segment.path(), large);
    check(&p, &numbered(500..3199), &[3, 4], [1, 2, 3], &Bits::all(2699));
    p = open(dir.path(), Some(&p), &mut ids, &numbered(2000..3199));
    assert_ne!(p.segments[0].segment.path(), large);
    assert!(!large.exists());
    check(&p, &numbered(2000..3199), &[3, 4], [1, 2, 3], &Bits::all(1199));
}

#[test]
fn a_damaged_segment_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Ids::default();
    let corpus = numbered(0..100);
    let p = open(dir.path(), None, &mut ids, &corpus);
    let path = p.segments[0].segment.path().to_owned();
    drop(p);
    let whole = fs::read(&path).unwrap();
    // Every part of it changed, cut, or grown.
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&path, &bytes).unwrap();
        assert!(Segment::open(&path, Some(DIMS)).is_none(), "byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(Segment::open(&path, Some(DIMS)).is_none(), "cut at {at}");
    }
    fs::write(&path, b"").unwrap();
    let p = open(dir.path(), None, &mut ids, &corpus);
    assert_eq!(fs::read(&path).unwrap(), whole);
    check(&p, &corpus, &[1], [1, 2, 3], &Bits::all(100));
    // Vectors of another length are another embedder's.
    assert!(Segment::open(&path, Some(DIMS + 1)).is_none());
}
