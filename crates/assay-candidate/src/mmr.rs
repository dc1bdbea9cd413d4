//! Maximal marginal relevance: what is relevant, and unlike what stands above it already.
//!
//! Carbonell and Goldstein, "The use of MMR, diversity-based reranking" (SIGIR 1998).

/// The order in which `relevance.len()` candidates are taken, best first, each with its score when it was taken.
///
/// The next one has the largest `lambda * relevance - (1 - lambda) * similarity`, with the similarity to the most similar
/// of those taken before (at least 0, which it is for the first). Relevance is scaled to 0..1 over the candidates, so that it can be weighed
/// against cosines; equal scores are taken in the order given. With `lambda` 1 this is the order of relevance.
/// Scores never ascend. `similarity` is symmetric.
pub(crate) fn mmr(
    relevance: &[f64],
    similarity: impl Fn(usize, usize) -> f64,
    lambda: f64,
) -> Vec<(usize, f64)> {
    let low = relevance.iter().copied().fold(f64::INFINITY, f64::min);
    let high = relevance.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let scaled = |i: usize| if high > low { (relevance[i] - low) / (high - low) } else { 1.0 };
    let mut open: Vec<usize> = (0..relevance.len()).collect();
    // Stable, so that what rounding makes equal keeps its order by relevance.
    open.sort_by(|&a, &b| relevance[b].total_cmp(&relevance[a]));
    // Of each candidate the similarity to the most similar one that was taken.
    let mut nearest = vec![0.0f64; relevance.len()];
    let mut taken = Vec::with_capacity(relevance.len());
    while !open.is_empty() {
        let score = |i: usize| lambda * scaled(i) - (1.0 - lambda) * nearest[i];
        let (mut place, mut best) = (0, score(open[0]));
        for (at, &i) in open.iter().enumerate().skip(1) {
            if score(i) > best {
                (place, best) = (at, score(i));
            }
        }
        let next = open.remove(place);
        taken.push((next, best));
        for &i in &open {
            nearest[i] = nearest[i].max(similarity(i, next));
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_repetition_goes_behind_something_else() {
        // 0 and 1 say the same; 2 is a little less relevant and says something else.
        let similarity = |a: usize, b: usize| if a + b == 1 { 1.0 } else { 0.0 };
        let order = |lambda| -> Vec<usize> {
            mmr(&[1.0, 0.9, 0.8, 0.0], similarity, lambda).into_iter().map(|t| t.0).collect()
        };
        assert_eq!(order(1.0), [0, 1, 2, 3]);
        assert_eq!(order(0.5), [0, 2, 3, 1]);
        assert_eq!(mmr(&[], similarity, 0.5), []);
    }

    proptest! {
        /// Lambda 1 changes no order, ties included, and for any lambda scores never ascend and nothing is lost.
        #[test]
        fn laws(
            relevance in proptest::collection::vec((-3i32..4).prop_map(|n| f64::from(n) / 3.0), 0..12),
            points in proptest::collection::vec((-1.0f64..1.0, -1.0f64..1.0), 12),
            lambda in 0.0f64..=1.0,
        ) {
            let mut sorted: Vec<usize> = (0..relevance.len()).collect();
            sorted.sort_by(|&a, &b| relevance[b].total_cmp(&relevance[a]));
            let similarity = |a: usize, b: usize| points[a].0 * points[b].0 + points[a].1 * points[b].1;
            let order: Vec<usize> = mmr(&relevance, similarity, 1.0).iter().map(|t| t.0).collect();
            prop_assert_eq!(&order, &sorted);
            let taken = mmr(&relevance, similarity, lambda);
            prop_assert!(taken.windows(2).all(|w| w[0].1 >= w[1].1), "{:?}", taken);
            let mut all: Vec<usize> = taken.iter().map(|t| t.0).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..relevance.len()).collect::<Vec<_>>());
        }
    }
}
