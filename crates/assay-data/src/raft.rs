//! Training rows with retrieved context, after RAFT (T. Zhang et al., arXiv 2403.10131), with the
//! distractors taken from our own retriever and with an abstention where the golden chunk is absent.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use assay_types::Item;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::normalise;

/// A span of a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// Path of the document, relative to the documents folder.
    pub document: String,
    /// First byte in the stored source.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Those bytes.
    pub text: String,
}

impl Chunk {
    fn overlaps(&self, other: &Chunk) -> bool {
        self.document == other.document && self.start < other.end && other.start < self.end
    }
}

/// The context of a training row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftRow {
    /// The chunks in the order of the prompt.
    pub chunks: Vec<Chunk>,
    /// Place of the golden chunk in `chunks`. Without one the row must be answered by declining.
    pub golden: Option<usize>,
}

/// Mixes the golden chunk of `item` with hard distractors, in random order.
///
/// `candidates` are retrieved chunks, best first; as many of them as `distractors` allows, drawn at
/// random, are the distractors (fewer if there are fewer), without those that overlap the golden chunk or repeat a
/// text. With probability `p_golden` (0.8 in the paper's main setting) the golden chunk is there;
/// otherwise, and when there is no golden chunk, none of the row's chunks comes from a gold document
/// or contains a reference, so that declining is the right answer. A row that would be left without
/// any chunk keeps its golden one.
///
/// The row depends on the arguments only: `seed` is mixed with the item's id, so that rows do not
/// change with their order.
///
/// # Panics
/// Unless `p_golden` is in 0..=1 and `distractors` is not empty.
pub fn raft_row(
    item: &Item,
    golden: Option<&Chunk>,
    candidates: &[Chunk],
    distractors: RangeInclusive<usize>,
    p_golden: f64,
    seed: u64,
) -> RaftRow {
    assert!(
        (0.0..=1.0).contains(&p_golden),
        "the share of golden rows, {p_golden}, is not in 0..=1"
    );
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(item.id.0.as_bytes());
    let mut rng = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
    let k = rng.random_range(distractors);
    let keep_golden = rng.random_bool(p_golden);

    let blind: Vec<&Chunk> = distinct(candidates)
        .filter(|c| !item.doc_ids.contains(&c.document) && !contains_answer(item, &c.text))
        .filter(|c| golden.is_none_or(|g| !g.overlaps(c)))
        .collect();
    let golden = golden.filter(|_| keep_golden || blind.is_empty());
    let pool = match golden {
        None => blind,
        Some(golden) => distinct(candidates)
            .filter(|c| !golden.overlaps(c) && normalise(&c.text) != normalise(&golden.text))
            .collect(),
    };
    let mut chunks = draw(pool, k, &mut rng);
    chunks.extend(golden);
    chunks.shuffle(&mut rng);
    RaftRow {
        golden: golden.and_then(|g| chunks.iter().position(|c| std::ptr::eq(*c, g))),
        chunks: chunks.into_iter().cloned().collect(),
    }
}

/// `k` of the pool. They are drawn from its best `2 k`: further down, chunks are no longer hard.
fn draw<'a>(mut pool: Vec<&'a Chunk>, k: usize, rng: &mut ChaCha8Rng) -> Vec<&'a Chunk> {
    pool.truncate(2 * k);
    pool.shuffle(rng);
    pool.truncate(k);
    pool
}

/// The chunks without those whose text has come before.
fn distinct(chunks: &[Chunk]) -> impl Iterator<Item = &Chunk> {
    let mut seen = HashSet::new();
    chunks.iter().filter(move |c| seen.insert(normalise(&c.text)))
}

/// The chunk that a row of `item` may be answered from.
///
/// That is the first of `retrieved` that is from a gold document and contains a reference; else the
/// first such chunk of `gold_chunks` (all chunks of the gold documents); else the chunk of these that
/// shares the largest part of its reference's words, if it shares any. `None` for an item that is
/// unanswerable or names no gold document.
pub fn golden_chunk<'a>(
    item: &Item,
    retrieved: &'a [Chunk],
    gold_chunks: &'a [Chunk],
) -> Option<&'a Chunk> {
    if item.answerable == Some(false) || item.references.is_empty() {
        return None;
    }
    let gold = |chunks: &'a [Chunk]| chunks.iter().filter(|c| item.doc_ids.contains(&c.document));
    let answers = |c: &&Chunk| contains_answer(item, &c.text);
    gold(retrieved).find(answers).or_else(|| gold(gold_chunks).find(answers)).or_else(|| {
        let scored = gold(retrieved).chain(gold(gold_chunks)).map(|c| (overlap(item, &c.text), c));
        // `max_by` takes the last of equals, hence the reversal.
        let scored: Vec<_> = scored.filter(|(share, _)| *share > 0.0).collect();
        scored.into_iter().rev().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, c)| c)
    })
}

/// Whether `text` contains a reference of the item as whole words, both normalised.
pub fn contains_answer(item: &Item, text: &str) -> bool {
    let text = format!(" {} ", normalise(text));
    let reference = |r: &String| {
        let r = normalise(r);
        !r.is_empty() && text.contains(&format!(" {r} "))
    };
    item.references.iter().any(reference)
}

/// The largest share of a reference's distinct words that stand in `text`.
fn overlap(item: &Item, text: &str) -> f64 {
    let text = normalise(text);
    let words: HashSet<&str> = text.split(' ').collect();
    let share = |reference: &String| {
        let reference = normalise(reference);
        let reference: HashSet<&str> = reference.split(' ').filter(|w| !w.is_empty()).collect();
        let found = reference.iter().filter(|w| words.contains(**w)).count();
        found as f64 / reference.len().max(1) as f64
    };
    item.references.iter().map(share).fold(0.0, f64::max)
}
