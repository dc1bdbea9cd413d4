//! Makes one ranking of two.

use std::cmp::Ordering;

/// Similarities that all lie closer together than this say nothing; scaling them up would turn rounding
/// into a ranking.
const LEAST_RANGE: f64 = 0.05;

/// The `k` best of `scores`, best first; equal scores in chunk order.
pub(crate) fn best(mut scores: Vec<(u32, f64)>, k: usize) -> Vec<(u32, f64)> {
    let order =
        |a: &(u32, f64), b: &(u32, f64)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
    if k < scores.len() {
        if k == 0 {
            return Vec::new();
        }
        scores.select_nth_unstable_by(k - 1, order);
        scores.truncate(k);
    }
    scores.sort_unstable_by(order);
    scores
}

/// Positions from 1 of `chunks` in the ranking that `scores`, in chunk order, make; `None` for those that
/// have no score.
pub(crate) fn ranks(scores: &[(u32, f32)], chunks: &[u32]) -> Vec<Option<usize>> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let own = |chunk: &u32| scores.binary_search_by_key(chunk, |&(c, _)| c).ok().map(|i| scores[i]);
    let mut asked: Vec<(u32, f32)> = chunks.iter().filter_map(own).collect();
    asked.sort_unstable_by(order);
    // How many scores come before the n-th of those asked for, and after the one before it.
    let mut before = vec![0usize; asked.len() + 1];
    for score in scores {
        before[asked.partition_point(|a| order(a, score).is_le())] += 1;
    }
    let position: Vec<usize> = before
        .iter()
        .scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        })
        .collect();
    chunks
        .iter()
        .map(|chunk| {
            let own = own(chunk)?;
            Some(1 + position[asked.partition_point(|a| order(a, &own).is_lt())])
        })
        .collect()
}

/// Share of the similarity in the fused score, the rest is BM25's.
const VECTOR_SHARE: f64 = 0.6;

/// Scores of every chunk from both legs: BM25 over the best of it, and the similarity scaled from 0 (the
/// least similar chunk) to 1 (the most similar), weighted.
///
/// A chunk that one leg does not find gets 0 from it. `similarity` holds every chunk that may be found, `bm25` those of them
/// with a word of the query, both in chunk order.
///
/// Chosen by measurement (`examples/retrieval_quality.rs`, all-MiniLM-L6-v2, nDCG@10):
///
/// | set (queries) | BM25 | vectors | reciprocal ranks, 60 | this |
/// |---|---|---|---|---|
/// | SciFact, train (809) | .686 | .685 | .719 | .737 |
/// | XQuAD English (566) | .964 | .947 | .965 | .977 |
/// | Cranfield (113) | .375 | .392 | .426 | .436 |
/// | Vaswani (47) | .440 | .466 | .501 | .510 |
/// | CISI (39) | .379 | .391 | .431 | .453 |
/// | CACM (26) | .460 | .398 | .521 | .548 |
///
/// Equal weights were .001 to .016 lower on the five sets other than SciFact, where both were tried; scaling by the best 1000
/// only, by mean and deviation, or by the best similarity alone differed by as little, in both directions.
pub(crate) fn fuse(bm25: &[(u32, f32)], similarity: &[(u32, f32)]) -> Vec<(u32, f64)> {
    let (low, high) =
        similarity.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &(_, s)| {
            (l.min(s.into()), h.max(s.into()))
        });
    let range = (high - low).max(LEAST_RANGE);
    let top = bm25.iter().fold(0.0, |top: f64, &(_, s)| top.max(s.into()));
    let mut bm25 = bm25.iter().copied().peekable();
    similarity
        .iter()
        .map(|&(chunk, s)| {
            let words = bm25.next_if(|&(c, _)| c == chunk).map_or(0.0, |(_, s)| f64::from(s) / top);
            (chunk, VECTOR_SHARE * (f64::from(s) - low) / range + (1.0 - VECTOR_SHARE) * words)
        })
        .collect()
}
