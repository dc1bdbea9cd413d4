//! What a decision is made from.

use std::collections::BTreeMap;

use assay_stats::MetricSummary;
use assay_types::{ItemId, Score, Task, Timing, Usage};

use crate::{Inputs, Prices, SkippedCandidate};

/// Everything that was measured and stated. Building one is the caller's part; deciding is [`crate::decide`]'s.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionInput {
    /// What the feature does.
    pub task: Task,
    /// The metric that decides; higher is better.
    pub primary_metric: String,
    /// The test items, all of them.
    pub items: Vec<TestItem>,
    /// The candidates, in the order of the report.
    pub candidates: Vec<Measured>,
    /// Candidates that were asked for and could not be built, passed on to the record.
    pub skipped: Vec<SkippedCandidate>,
    /// Sizes of the data.
    pub facts: Facts,
    /// What the project file says about the use.
    pub stated: Stated,
    /// Prices.
    pub prices: Prices,
    /// Limits that a winner must keep.
    pub constraints: Constraints,
    /// How to decide.
    pub rule: Rule,
    /// Hashes, seeds and counts, passed on to the record.
    pub inputs: Inputs,
    /// Wall seconds of the steps, passed on to the record.
    pub times: BTreeMap<String, f64>,
}

impl DecisionInput {
    /// An input without items and candidates, with nothing stated, priced or limited.
    pub fn new(task: Task, primary_metric: &str, rule: Rule) -> Self {
        DecisionInput {
            task,
            primary_metric: primary_metric.to_owned(),
            items: Vec::new(),
            candidates: Vec::new(),
            skipped: Vec::new(),
            facts: Facts::default(),
            stated: Stated::default(),
            prices: Prices::default(),
            constraints: Constraints::default(),
            rule,
            inputs: Inputs::default(),
            times: BTreeMap::new(),
        }
    }
}

/// One test item, as far as the decision cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestItem {
    /// Its name.
    pub id: ItemId,
    /// Unit of resampling, as [`assay_types::Item::cluster`] gives it.
    pub cluster: String,
    /// Slice name to value.
    pub slices: BTreeMap<String, String>,
}

/// One candidate, as it was measured on the test items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Unique name.
    pub name: String,
    /// Metric to item to score. Every metric covers every test item, if only to say that it was skipped.
    pub scores: BTreeMap<String, BTreeMap<ItemId, Score>>,
    /// Metrics that are no mean over items, such as macro-F1, summarised by the caller.
    pub summaries: BTreeMap<String, MetricSummary>,
    /// One per answer that was made alone, as a user would wait for it, with its tokens where they are known.
    pub timed: Vec<(Timing, Option<Usage>)>,
    /// One per answer whose tokens are known.
    pub usage: Vec<Usage>,
    /// Whether the model is rented by the token: then only retrieval takes time of the priced machine, and without prices
    /// of tokens the cost is unknown.
    pub paid_by_token: bool,
    /// Whether it needs an index to be kept up.
    pub uses_retrieval: bool,
    /// Whether it needs trained weights.
    pub uses_training: bool,
    /// Measured wall seconds of training; `None` for a candidate that is not trained.
    pub training_seconds: Option<f64>,
    /// The general suite, item by item; `None` if it was not run.
    pub general: Option<GeneralAnswers>,
    /// How sure it was of what it answered; `None` where that is not known.
    pub sure: Option<Sure>,
    /// Passed on to the record.
    pub notes: Vec<String>,
}

/// How sure a candidate was of its answers, on the items that judge it and on those that a threshold may be made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sure {
    /// The test items.
    pub test: SureAnswers,
    /// The dev items; empty if no threshold is wanted.
    pub dev: SureAnswers,
}

/// Answers with their confidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SureAnswers {
    /// Items that were asked, those that the candidate declined included and those that failed not.
    pub items: usize,
    /// Cluster, confidence, and loss from 0 to 1 of each that it answered.
    pub answers: Vec<(String, f64, f64)>,
}

impl Measured {
    /// Rank of simplicity, stated beforehand: 0 a prompt, 1 with retrieval, 2 with training, 3 with both.
    pub(crate) fn complexity(&self) -> usize {
        2 * usize::from(self.uses_training) + usize::from(self.uses_retrieval)
    }
}

/// Right or wrong on each item of the general suite, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneralAnswers {
    /// With the base model.
    pub before: Vec<bool>,
    /// With the candidate's weights; equal to `before` for a candidate that is not trained.
    pub after: Vec<bool>,
}

/// Sizes of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Labelled rows that candidates may learn from.
    pub train_labels: usize,
    /// Labelled rows for choices.
    pub dev_labels: usize,
    /// Documents in the corpus.
    pub documents: usize,
}

/// What the project file says about the use. `None` means that it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stated {
    /// How often a month the facts behind the answers change.
    pub knowledge_changes_per_month: Option<f64>,
    /// Queries a month.
    pub queries_per_month: Option<f64>,
    /// Whether answers must name their sources.
    pub citations_needed: Option<bool>,
    /// Whether a program reads the answers.
    pub strict_format: Option<bool>,
    /// Time budget of one answer.
    pub latency_budget_ms: Option<f64>,
    /// The value of the primary metric that the feature needs.
    pub target: Option<f64>,
    /// Most risk that an answer may carry, above which it is better declined.
    pub max_risk: Option<f64>,
}

/// Limits that a winner must keep. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constraints {
    /// 95th percentile of the time per answer.
    pub max_p95_latency_ms: Option<f64>,
    /// One answer.
    pub max_cost_per_query_usd: Option<f64>,
    /// One training.
    pub max_training_usd: Option<f64>,
    /// Loss on the general suite, in percentage points. Broken only by a loss that is larger *and* significant (one-sided
    /// McNemar mid-p): on a small suite a bare drop is noise.
    pub max_forgetting_points: Option<f64>,
    /// Lowest value of the primary metric.
    pub min_quality: Option<f64>,
}

/// How to decide. Fixed before the test items are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Chance of calling some difference real when none is, over all comparisons; intervals have level 1 − alpha.
    pub alpha: f64,
    /// Power for which needed labels and the minimum detectable effect are computed.
    pub power: f64,
    /// Loss of the primary metric that a simpler candidate may have and still win.
    pub margin: f64,
    /// Share of items without a score above which a candidate may not win.
    pub max_failed_share: f64,
    /// Resamples of every bootstrap.
    pub bootstrap_samples: usize,
    /// Seed of every bootstrap and permutation.
    pub seed: u64,
    /// Bars of the flowchart.
    pub thresholds: Thresholds,
}

impl Rule {
    /// The rule that is used unless the project file says otherwise: α 5 %, power 80 %, margin 0.02, at most 2 % without
    /// a score, 10,000 resamples.
    pub fn new(task: Task, seed: u64) -> Self {
        Rule {
            alpha: 0.05,
            power: 0.8,
            margin: 0.02,
            max_failed_share: 0.02,
            bootstrap_samples: 10_000,
            seed,
            thresholds: Thresholds::new(task),
        }
    }
}

/// Bars of the flowchart: rules of thumb of the field. They explain the decision; only measurements make it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Below so many training labels tuning is unlikely to work.
    pub few_labels: usize,
    /// From so many on it usually does.
    pub enough_labels: usize,
    /// A budget below this leaves no room for long prompts.
    pub tight_latency_ms: f64,
    /// Below so many tokens a month training rarely pays.
    pub low_tokens_per_month: f64,
    /// From so many on it often does.
    pub high_tokens_per_month: f64,
    /// A prompt nearer to the target than this share of it is better improved than replaced.
    pub small_gap: f64,
    /// Beyond this share a prompt alone rarely gets there.
    pub large_gap: f64,
    /// Fewer test items than this are worth a warning.
    pub few_test_items: usize,
    /// Fewer clusters than this are worth a warning: the bootstrap undercovers.
    pub few_clusters: usize,
}

impl Thresholds {
    /// The usual bars: 1,000 labels for classification, 100–500 for a style or a format, 1,000–10,000 for the
    /// knowledge of a domain; 50 ms; 5–10 million tokens a month; 10 % and 20 % of the target.
    pub fn new(task: Task) -> Self {
        let (few_labels, enough_labels) = match task {
            Task::Classify => (1_000, 1_000),
            Task::Extract | Task::Generate => (100, 500),
            Task::Qa => (1_000, 10_000),
        };
        Thresholds {
            few_labels,
            enough_labels,
            tight_latency_ms: 50.0,
            low_tokens_per_month: 5e6,
            high_tokens_per_month: 10e6,
            small_gap: 0.1,
            large_gap: 0.2,
            few_test_items: 100,
            few_clusters: 20,
        }
    }
}
