//! Labels: accuracy, per-class figures, macro-F1 and the confusion matrix.

use std::collections::{BTreeMap, BTreeSet};

use assay_stats::{MetricSummary, Resampling, bootstrap_statistic};
use assay_types::Coverage;
use serde::{Deserialize, Serialize};

/// The label that an answer names: the whole answer, trimmed, equal to one of `labels`; `None` for anything else.
pub fn match_label<'a>(answer: &str, labels: &'a [String]) -> Option<&'a str> {
    labels.iter().map(String::as_str).find(|label| *label == answer.trim())
}

/// One classified item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// Unit of resampling, as [`assay_types::Item::cluster`] gives it.
    pub cluster: String,
    /// The right label.
    pub gold: String,
    /// The predicted label; `None` for an output that names none.
    pub predicted: Option<String>,
}

/// Precision, recall and F1 of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The label.
    pub label: String,
    /// Share of its predictions that are right; 0 when it is never predicted.
    pub precision: f64,
    /// Share of its items that are found; 0 when it has none.
    pub recall: f64,
    /// Harmonic mean of both; 0 when both are.
    pub f1: f64,
    /// Items with this label.
    pub support: usize,
}

/// How often each label was taken for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Labels that are right or predicted at least once, in byte order.
    pub labels: Vec<String>,
    /// `counts[gold][predicted]`; the last column holds outputs that name no label.
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts the pairs.
    ///
    /// As in scikit-learn, a label of the closed set that is neither right nor predicted anywhere does not appear.
    /// Unlike there, an output that names no label is not a class of its own: it is a miss of the right one.
    pub fn of(items: &[Labelled]) -> Self {
        let labels: BTreeSet<&str> = items
            .iter()
            .flat_map(|i| std::iter::once(i.gold.as_str()).chain(i.predicted.as_deref()))
            .collect();
        let index: BTreeMap<&str, usize> =
            labels.iter().enumerate().map(|(i, l)| (*l, i)).collect();
        let mut counts = vec![vec![0; labels.len() + 1]; labels.len()];
        for item in items {
            let column = item.predicted.as_deref().map_or(labels.len(), |p| index[p]);
            counts[index[item.gold.as_str()]][column] += 1;
        }
        Confusion { labels: labels.into_iter().map(str::to_owned).collect(), counts }
    }

    /// Figures per label, with 0 for every empty denominator (scikit-learn's `zero_division=0`).
    pub fn per_class(&self) -> Vec<ClassScore> {
        let score = |(i, label): (usize, &String)| {
            let hits = self.counts[i][i];
            let predicted: usize = self.counts.iter().map(|row| row[i]).sum();
            let support: usize = self.counts[i].iter().sum();
            ClassScore {
                label: label.clone(),
                precision: share(hits, predicted),
                recall: share(hits, support),
                f1: f1(hits, predicted, support).unwrap_or(0.0),
                support,
            }
        };
        self.labels.iter().enumerate().map(score).collect()
    }

    /// Plain mean of the labels' F1; `None` without items.
    pub fn macro_f1(&self) -> Option<f64> {
        let f1: Vec<f64> = self.per_class().iter().map(|c| c.f1).collect();
        assay_stats::mean(&f1)
    }
}

/// Macro-F1 with a cluster bootstrap interval (percentile).
///
/// `failed` is the number of items whose output could not be had; they are counted, not scored.
pub fn macro_f1(items: &[Labelled], failed: usize, resampling: Resampling) -> MetricSummary {
    let confusion = Confusion::of(items);
    let value = confusion.macro_f1();
    let index: BTreeMap<&str, usize> =
        confusion.labels.iter().enumerate().map(|(i, l)| (l.as_str(), i)).collect();
    let mut clusters: BTreeMap<&str, Vec<(usize, Option<usize>)>> = BTreeMap::new();
    for item in items {
        let pair = (index[item.gold.as_str()], item.predicted.as_deref().map(|p| index[p]));
        clusters.entry(&item.cluster).or_default().push(pair);
    }
    let clusters: Vec<_> = clusters.into_values().collect();
    let resampled = |picked: &mut dyn Iterator<Item = usize>| {
        let mut tally = vec![(0usize, 0usize, 0usize); index.len()];
        for (gold, predicted) in picked.flat_map(|c| clusters[c].iter().copied()) {
            tally[gold].2 += 1;
            if let Some(predicted) = predicted {
                tally[predicted].1 += 1;
                tally[gold].0 += usize::from(predicted == gold);
            }
        }
        let f1: Vec<f64> = tally.iter().filter_map(|(h, p, s)| f1(*h, *p, *s)).collect();
        assay_stats::mean(&f1).unwrap_or(0.0)
    };
    let interval =
        value.and_then(|v| bootstrap_statistic(clusters.len(), v, resampling, resampled));
    MetricSummary::new(value, interval, Coverage { n: items.len(), failed, skipped: 0 })
}

/// F1 of a label; `None` when it neither occurs nor is predicted.
fn f1(hits: usize, predicted: usize, support: usize) -> Option<f64> {
    let both = predicted + support;
    (both > 0).then(|| 2.0 * hits as f64 / both as f64)
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
