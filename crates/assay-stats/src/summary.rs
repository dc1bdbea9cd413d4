use assay_types::{Coverage, Score};
use serde::{Deserialize, Serialize};

use crate::{Clustered, Interval, Resampling, bootstrap_mean, wilson_effective};

/// One metric of one candidate over a set of items, with its uncertainty and its coverage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// Mean over the scored items; `None` when there is none.
    pub value: Option<f64>,
    /// Lower end of the interval; `None` when it cannot be computed.
    pub ci_low: Option<f64>,
    /// Upper end of the interval.
    pub ci_high: Option<f64>,
    /// Items with a value.
    pub n: usize,
    /// Items that should have a value and have none.
    pub failed: usize,
    /// Items to which the metric does not apply.
    pub skipped: usize,
}

impl MetricSummary {
    /// A summary of `value` with its interval and the coverage behind it.
    pub fn new(value: Option<f64>, interval: Option<Interval>, coverage: Coverage) -> Self {
        MetricSummary {
            value,
            ci_low: interval.map(|i| i.low),
            ci_high: interval.map(|i| i.high),
            n: coverage.n,
            failed: coverage.failed,
            skipped: coverage.skipped,
        }
    }
}

/// Mean of `(cluster, score)` pairs with its interval.
///
/// Scores that are all 0 or 1 get Wilson's interval with the number of items divided by the design effect of
/// the clusters; anything else gets the cluster bootstrap (BCa, percentile where BCa is undefined). Below two clusters
/// there is no interval unless the scores are 0 or 1, where one cluster counts as independent items.
pub fn summarize<'a>(
    scores: impl IntoIterator<Item = (&'a str, &'a Score)> + Clone,
    resampling: Resampling,
) -> MetricSummary {
    let coverage = Coverage::of(scores.clone().into_iter().map(|(_, s)| s));
    let values = Clustered::new(scores.into_iter().filter_map(|(c, s)| Some((c, s.value()?))));
    let Some(value) = values.mean() else {
        return MetricSummary::new(None, None, coverage);
    };
    let interval = if values.values().all(|v| v == 0.0 || v == 1.0) {
        let effective = values.n() as f64 / values.design_effect();
        Some(wilson_effective(value, effective, resampling.level))
    } else {
        bootstrap_mean(&values, resampling).map(|b| b.bca.unwrap_or(b.percentile))
    };
    MetricSummary::new(Some(value), interval, coverage)
}

/// Arithmetic mean; `None` without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Percentile by nearest rank: the smallest value with at least `percent` % of all values at or below it.
///
/// Always one of the values; `None` without values. `percent` within 0..=100, 0 giving the minimum.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}
