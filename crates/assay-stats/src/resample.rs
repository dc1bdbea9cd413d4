use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Clustered, Interval, normal};

/// How to bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampling {
    /// Resamples, e.g. 10,000.
    pub samples: usize,
    /// Seed of the generator (ChaCha8).
    pub seed: u64,
    /// Coverage of the interval, e.g. 0.95.
    pub level: f64,
}

/// Two bootstrap intervals of one mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapIntervals {
    /// Plain percentiles of the resampled means.
    pub percentile: Interval,
    /// Bias-corrected and accelerated; `None` where the correction is undefined (all resamples equal, or on one side).
    pub bca: Option<Interval>,
}

/// Cluster bootstrap intervals of the mean; `None` below two clusters or without resamples.
///
/// Whole clusters are drawn with replacement, and the mean is that over values. An interval that by the luck of the draw
/// misses the mean itself is widened to it. The percentile interval undercovers with few clusters: below about
/// twenty say so. Source: B. Efron, JASA 82 (1987); acceleration from the jackknife over clusters.
pub fn bootstrap_mean(values: &Clustered, resampling: Resampling) -> Option<BootstrapIntervals> {
    let totals = values.totals();
    let mean_of = |picked: &mut dyn Iterator<Item = usize>| {
        let (sum, n) = picked.fold((0.0, 0.0), |(s, n), i| (s + totals[i].0, n + totals[i].1));
        sum / n
    };
    let mean = values.mean()?;
    let means = resample(totals.len(), resampling, mean_of)?;
    let percentile = percentiles(&means, (1.0 - resampling.level) / 2.0, mean);
    let (sum, n) = totals.iter().fold((0.0, 0.0), |(s, n), t| (s + t.0, n + t.1));
    let jackknife: Vec<f64> = totals.iter().map(|t| (sum - t.0) / (n - t.1)).collect();
    Some(BootstrapIntervals { percentile, bca: bca(&means, mean, &jackknife, resampling.level) })
}

/// Percentile interval of any statistic of resampled clusters, e.g. macro-F1; `None` below two clusters.
///
/// `statistic` gets the indices (0..clusters) of the drawn clusters, repeats included; `observed` is its value
/// on the data themselves, to which the interval is widened if it misses it.
pub fn bootstrap_statistic(
    clusters: usize,
    observed: f64,
    resampling: Resampling,
    statistic: impl Fn(&mut dyn Iterator<Item = usize>) -> f64,
) -> Option<Interval> {
    let draws = resample(clusters, resampling, statistic)?;
    Some(percentiles(&draws, (1.0 - resampling.level) / 2.0, observed))
}

/// Sorted values of the statistic over the resamples.
fn resample(
    clusters: usize,
    resampling: Resampling,
    statistic: impl Fn(&mut dyn Iterator<Item = usize>) -> f64,
) -> Option<Vec<f64>> {
    if clusters < 2 || resampling.samples == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(resampling.seed);
    let mut draws: Vec<f64> = (0..resampling.samples)
        .map(|_| statistic(&mut (0..clusters).map(|_| below(&mut rng, clusters))))
        .collect();
    draws.sort_by(f64::total_cmp);
    Some(draws)
}

/// Uniform in `0..n` by multiplication; the bias is below n / 2³².
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// The interval that leaves `tail` of the sorted draws outside on each side, widened to hold `observed`.
fn percentiles(sorted: &[f64], tail: f64, observed: f64) -> Interval {
    let cut = (tail * sorted.len() as f64).floor() as usize;
    let cut = cut.min((sorted.len() - 1) / 2);
    Interval { low: sorted[cut].min(observed), high: sorted[sorted.len() - 1 - cut].max(observed) }
}

fn bca(sorted: &[f64], observed: f64, jackknife: &[f64], level: f64) -> Option<Interval> {
    let below = sorted.partition_point(|v| *v < observed) as f64;
    let at_most = sorted.partition_point(|v| *v <= observed) as f64;
    // Ties are split, as for a discrete statistic.
    let share = (below + at_most) / 2.0 / sorted.len() as f64;
    if below == at_most && (share <= 0.0 || share >= 1.0) || sorted.first() == sorted.last() {
        return None;
    }
    let bias = normal::quantile(share);
    let centre = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let (cubes, squares) = jackknife.iter().fold((0.0, 0.0), |(c, s), v| {
        let d = centre - v;
        (c + d * d * d, s + d * d)
    });
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares * squares.sqrt()) } else { 0.0 };
    let rank = |tail: f64| {
        let z = bias + normal::quantile(tail);
        let adjusted = normal::cdf(bias + z / (1.0 - acceleration * z));
        ((adjusted * sorted.len() as f64) as usize).min(sorted.len() - 1)
    };
    let tail = (1.0 - level) / 2.0;
    let (low, high) = (sorted[rank(tail)], sorted[rank(1.0 - tail)]);
    (low <= high).then(|| Interval { low: low.min(observed), high: high.max(observed) })
}
