use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

use crate::Clustered;

/// Flip assignments up to this many clusters are all enumerated, so p is exact.
const ENUMERATED_CLUSTERS: usize = 14;
/// Random assignments beyond that.
const MONTE_CARLO: usize = 10_000;

/// Items on which two systems disagree, where every score is 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discordant {
    /// Only the first system is right.
    pub b: usize,
    /// Only the second system is right.
    pub c: usize,
}

impl Discordant {
    /// Counts the disagreements of paired right/wrong answers.
    pub fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        pairs.into_iter().fold(Discordant { b: 0, c: 0 }, |d, pair| match pair {
            (true, false) => Discordant { b: d.b + 1, ..d },
            (false, true) => Discordant { c: d.c + 1, ..d },
            _ => d,
        })
    }
}

/// Exact two-sided McNemar p: `min(1, 2·P(Bin(b + c, ½) ≤ min(b, c)))`; 1 without disagreements.
///
/// Source: Q. McNemar, Psychometrika 12 (1947), in its exact binomial form.
pub fn mcnemar_exact(Discordant { b, c }: Discordant) -> f64 {
    if b == c { 1.0 } else { (2.0 * half_binomial(b + c).cdf(b.min(c) as u64)).min(1.0) }
}

/// Two-sided McNemar mid-p: the exact p less the probability of the outcome itself.
///
/// Nearer to its nominal size than the exact test, which is conservative. Source: M. W. Fagerland, S. Lydersen and
/// P. Laake, BMC Medical Research Methodology 13 (2013).
pub fn mcnemar_mid_p(Discordant { b, c }: Discordant) -> f64 {
    if b + c == 0 {
        return 1.0;
    }
    let (binomial, k) = (half_binomial(b + c), b.min(c) as u64);
    (2.0 * binomial.cdf(k) - binomial.pmf(k)).min(1.0)
}

/// One-sided mid-p against the first system being worse: `P(X < b) + P(X = b)/2`, X ~ Bin(b + c, ½).
///
/// Small when the first system is right alone on surprisingly few items; ½ without disagreements.
pub fn mcnemar_less_mid_p(Discordant { b, c }: Discordant) -> f64 {
    if b + c == 0 {
        return 0.5;
    }
    let binomial = half_binomial(b + c);
    binomial.cdf(b as u64) - binomial.pmf(b as u64) / 2.0
}

pub(crate) fn half_binomial(n: usize) -> Binomial {
    Binomial::new(0.5, n as u64).expect("one half is a probability")
}

/// Two-sided sign-flip permutation p of "the mean difference is zero", whole clusters flipped together.
///
/// The statistic is the absolute sum. Clusters that sum to zero cannot matter and are left out; up to
/// 14 others every assignment is enumerated and p is exact, beyond that p is
/// `(hits + 1) / (10,000 + 1)` over random assignments from `seed`. Ties count as hits, so p is never 0 and
/// never below what the number of clusters allows. 1 without values.
///
/// Exchangeability under the null is assumed of clusters, not of items.
pub fn sign_flip_p(diffs: &Clustered, seed: u64) -> f64 {
    let scale: f64 = diffs.values().map(f64::abs).sum();
    // Sums of rounded values may differ in the last bits although they are equal in exact arithmetic.
    let tolerance = 1e-12 * scale;
    let parts: Vec<f64> =
        diffs.totals().into_iter().map(|t| t.0).filter(|s| s.abs() > tolerance).collect();
    let observed = parts.iter().sum::<f64>().abs() - tolerance;
    if parts.is_empty() || observed <= 0.0 {
        return 1.0;
    }
    let flipped = |bits: &[u64]| {
        // A set bit flips the sign bit of its cluster's sum.
        let signed = |(i, p): (usize, &f64)| {
            f64::from_bits(p.to_bits() ^ (bits[i / 64] >> (i % 64) & 1) << 63)
        };
        parts.iter().enumerate().map(signed).sum::<f64>().abs() >= observed
    };
    if parts.len() <= ENUMERATED_CLUSTERS {
        let all = 1u64 << parts.len();
        return (0..all).filter(|&bits| flipped(&[bits])).count() as f64 / all as f64;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bits = vec![0u64; parts.len().div_ceil(64)];
    let mut hits = 0usize;
    for _ in 0..MONTE_CARLO {
        bits.iter_mut().for_each(|b| *b = rng.next_u64());
        hits += usize::from(flipped(&bits));
    }
    (hits + 1) as f64 / (MONTE_CARLO + 1) as f64
}
