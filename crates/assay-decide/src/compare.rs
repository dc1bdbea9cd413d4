//! Paired comparisons on the primary metric.

use assay_stats::{
    Clustered, Discordant, Interval, Resampling, bonett_price_effective, bootstrap_mean, holm,
    mcnemar_exact, minimum_detectable_effect, n_for_paired_mean, n_for_paired_proportions,
    sign_flip_p,
};
use assay_types::Score;

use crate::input::{DecisionInput, Measured, Rule, TestItem};
use crate::record::Comparison;

/// A comparison of candidates `i` and `j` with what the rule needs of it; differences are `i − j`.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) i: usize,
    pub(crate) j: usize,
    pub(crate) clustered: Clustered,
    pub(crate) interval: Option<Interval>,
    pub(crate) p: f64,
    pub(crate) p_adjusted: f64,
    mcnemar: Option<f64>,
    failed: usize,
    /// Items more that would settle this pair; 0 when it is settled.
    pub(crate) needed: Option<usize>,
}

impl Pair {
    pub(crate) fn diff(&self) -> f64 {
        self.clustered.mean().unwrap_or(0.0)
    }

    /// Smallest difference that these items show with the rule's power.
    pub(crate) fn detectable(&self, rule: &Rule) -> Option<f64> {
        let error = self.clustered.standard_error().filter(|e| *e > 0.0)?;
        Some(minimum_detectable_effect(error, rule.alpha, rule.power))
    }

    pub(crate) fn record(&self, input: &DecisionInput) -> Comparison {
        Comparison {
            a: input.candidates[self.i].name.clone(),
            b: input.candidates[self.j].name.clone(),
            metric: input.primary_metric.clone(),
            diff: self.clustered.mean(),
            ci_low: self.interval.map(|i| i.low),
            ci_high: self.interval.map(|i| i.high),
            p_value: self.clustered.mean().map(|_| self.p),
            p_adjusted: self.clustered.mean().map(|_| self.p_adjusted),
            mcnemar_p: self.mcnemar,
            n: self.clustered.n(),
            clusters: self.clustered.clusters(),
            failed: self.failed,
            needed_labels: self.needed,
            test: "sign-flip permutation of whole clusters, two-sided".into(),
        }
    }
}

/// All pairs of candidates, Holm-corrected together.
pub(crate) fn all_pairs(input: &DecisionInput) -> Vec<Pair> {
    let k = input.candidates.len();
    let mut pairs: Vec<Pair> = (0..k)
        .flat_map(|i| (i + 1..k).map(move |j| (i, j)))
        .map(|(i, j)| compare(input, i, j))
        .collect();
    let p_values: Vec<f64> = pairs.iter().map(|p| p.p).collect();
    for (pair, adjusted) in pairs.iter_mut().zip(holm(&p_values)) {
        pair.p_adjusted = adjusted;
        // Holm's bar for this p: alpha over the number of hypotheses that are still open when its turn comes.
        let open = p_values.iter().filter(|p| **p >= pair.p).count();
        pair.needed = needed(pair, &input.rule, input.rule.alpha / open as f64);
    }
    pairs
}

/// Differences of the primary metric between two candidates on `items`, and the items that only one has a score for.
pub(crate) fn differences(
    input: &DecisionInput,
    a: &Measured,
    b: &Measured,
    items: impl Iterator<Item = usize>,
) -> (Clustered, usize) {
    let (a, b) = (&a.scores[&input.primary_metric], &b.scores[&input.primary_metric]);
    let mut failed = 0;
    let mut diffs = Vec::new();
    for TestItem { id, cluster, .. } in items.map(|i| &input.items[i]) {
        match (&a[id], &b[id]) {
            (Score::Scored(x), Score::Scored(y)) => diffs.push((cluster.as_str(), x - y)),
            (Score::Failed(_), Score::Scored(_)) | (Score::Scored(_), Score::Failed(_)) => {
                failed += 1;
            }
            _ => {}
        }
    }
    (Clustered::new(diffs), failed)
}

fn compare(input: &DecisionInput, i: usize, j: usize) -> Pair {
    let (a, b) = (&input.candidates[i], &input.candidates[j]);
    let (clustered, failed) = differences(input, a, b, 0..input.items.len());
    let rule = &input.rule;
    let discordant = discordant(&clustered);
    let binary = [a, b].iter().all(|c| {
        let mut values = c.scores[&input.primary_metric].values().filter_map(Score::value);
        values.all(|v| v == 0.0 || v == 1.0)
    });
    let level = 1.0 - rule.alpha;
    let resampling = Resampling { samples: rule.bootstrap_samples, seed: rule.seed, level };
    let interval = match discordant {
        _ if clustered.n() == 0 => None,
        // Differences of 0 and ±1, and so identical outputs: a bootstrap would claim certainty from a few items.
        Some(d) => {
            let effect = clustered.design_effect();
            let n = clustered.n() as f64 / effect;
            Some(bonett_price_effective(d.b as f64 / effect, d.c as f64 / effect, n, level))
        }
        None => bootstrap_mean(&clustered, resampling).map(|b| b.bca.unwrap_or(b.percentile)),
    };
    Pair {
        i,
        j,
        interval,
        p: sign_flip_p(&clustered, rule.seed),
        p_adjusted: 1.0,
        mcnemar: discordant.filter(|_| binary && clustered.n() > 0).map(mcnemar_exact),
        failed,
        needed: None,
        clustered,
    }
}

/// The disagreements, if every difference is 0 or ±1.
fn discordant(diffs: &Clustered) -> Option<Discordant> {
    let whole = diffs.values().all(|d| d == 0.0 || d.abs() == 1.0);
    whole.then(|| Discordant::of(diffs.values().map(|d| (d > 0.0, d < 0.0))))
}

/// Items more until either a difference of the observed size is significant at `alpha` or it is within the margin, each
/// with the rule's power; 0 when one of both is so already, `None` when no number can be named.
fn needed(pair: &Pair, rule: &Rule, alpha: f64) -> Option<usize> {
    let within = pair.interval.is_some_and(|i| i.low > -rule.margin && i.high < rule.margin);
    if pair.p_adjusted <= rule.alpha || within {
        return Some(0);
    }
    let (n, diff) = (pair.clustered.n() as f64, pair.diff().abs());
    // Identical outputs have variance 0; one pseudo-count each way, as in their interval.
    let variance = pair.clustered.variance().filter(|v| *v > 0.0).unwrap_or(2.0 / (n + 2.0));
    let shown = (diff > 0.0).then(|| match discordant(&pair.clustered) {
        Some(Discordant { b, c }) => {
            n_for_paired_proportions((b + c) as f64 / n, diff, alpha, rule.power)
        }
        None => n_for_paired_mean(variance, diff, alpha, rule.power),
    });
    let equal = (diff < rule.margin)
        .then(|| n_for_paired_mean(variance, rule.margin - diff, rule.alpha, rule.power));
    let total = shown.into_iter().chain(equal).reduce(f64::min)? * pair.clustered.design_effect();
    (total < MOST_LABELS).then(|| (total - n).ceil().max(1.0) as usize)
}

/// Beyond this many items "label more" is no advice.
const MOST_LABELS: f64 = 1e6;
