//! Makes one ranking of two.

use std::collections::BTreeMap;

use crate::vectors::Goal;

/// Similarities that all lie closer together than this say nothing; scaling them up would turn rounding
/// into a ranking.
const LEAST_RANGE: f64 = 0.05;

/// Share of the similarity in the fused score, the rest is BM25's.
const VECTOR_SHARE: f64 = 0.6;

/// Scores from both legs: BM25 over the best of it, and the similarity scaled from 0 (the least similar chunk,
/// `low`) to 1 (the most similar, `high`), weighted; of the chunks that may be found, whatever others there are.
///
/// A chunk that one leg does not find gets 0 from it. `bm25` holds the score of every slot, `top` is the largest.
///
/// Chosen by measurement (`examples/retrieval_quality.rs`, all-MiniLM-L6-v2, nDCG@10):
///
/// | set (queries) | BM25 | vectors | reciprocal ranks, 60 | this |
/// |---|---|---|---|---|
/// | SciFact, train (809) | .689 | .685 | .718 | .736 |
/// | XQuAD English (566) | .964 | .948 | .966 | .978 |
/// | Cranfield (113) | .375 | .391 | .425 | .438 |
/// | Vaswani (47) | .437 | .468 | .502 | .500 |
/// | CISI (39) | .380 | .394 | .423 | .453 |
/// | CACM (26) | .449 | .397 | .524 | .551 |
///
/// Equal weights were .001 to .016 lower on the five sets other than SciFact, where both were tried; scaling by the best 1000
/// only, by mean and deviation, or by the best similarity alone differed by as little, in both directions.
pub(crate) fn normalised<'b>(bm25: Option<&'b [f32]>, top: f32, low: f32, high: f32) -> Goal<'b> {
    let (low, high, top) = (f64::from(low), f64::from(high), f64::from(top));
    Goal {
        factor: VECTOR_SHARE / (high - low).max(LEAST_RANGE),
        low,
        weight: if top > 0.0 { (1.0 - VECTOR_SHARE) / top } else { 0.0 },
        bm25,
        top,
    }
}

/// Chunks of each leg that reciprocal ranks are taken of. Not a multiple of k: a longer list then begins with the
/// shorter one.
pub(crate) const RECIPROCAL_DEPTH: usize = 1000;
/// Of Cormack, Clarke and Büttcher, Reciprocal rank fusion outperforms Condorcet, 2009.
const RECIPROCAL_CONSTANT: f64 = 60.0;

/// The sum of `1 / (60 + rank)` over the legs, given as slots best first; an absent leg contributes nothing.
pub(crate) fn reciprocal(legs: [&[u32]; 2]) -> Vec<(u32, f64)> {
    let mut scores: BTreeMap<u32, f64> = BTreeMap::new();
    for leg in legs {
        for (slot, rank) in leg.iter().zip(1..) {
            *scores.entry(*slot).or_default() += 1.0 / (RECIPROCAL_CONSTANT + f64::from(rank));
        }
    }
    scores.into_iter().collect()
}
