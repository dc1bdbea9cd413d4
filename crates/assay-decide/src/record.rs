//! What a decision leaves behind: `decision.json` ([`Decision`]) and the data of the report ([`ReportData`]).

use std::collections::BTreeMap;

use assay_stats::MetricSummary;
use assay_types::{Citation, ItemId, Retrieved, Score, Task};
use serde::{Deserialize, Serialize};

/// Version of the layout of `decision.json`; rises when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// The decision, as it stands in `decision.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// What the feature does.
    pub task: Task,
    /// The metric that decides, a key of every candidate's `metrics`.
    pub primary_metric: String,
    /// Name of the chosen candidate; `None` when nothing is decided.
    pub winner: Option<String>,
    /// How the rule ended.
    pub outcome: Outcome,
    /// The decision in plain words. Holds no figure that depends on the clock.
    pub verdict: String,
    /// About how many more labelled test items would settle it; `None` when it is settled or cannot be told.
    pub needed_labels: Option<usize>,
    /// Smallest difference of the primary metric that this test set shows with 80 % power.
    pub minimum_detectable_effect: Option<f64>,
    /// What a reader must know before trusting the verdict.
    pub warnings: Vec<String>,
    /// What would change the decision.
    pub flips: Vec<String>,
    /// Every candidate, in the order of the input.
    pub candidates: Vec<CandidateRecord>,
    /// Candidates that were asked for and could not be built, with the reason.
    #[serde(default)]
    pub skipped: Vec<SkippedCandidate>,
    /// Every pair of candidates on the primary metric.
    pub comparisons: Vec<Comparison>,
    /// The questions an engineer would ask, each with its evidence.
    pub flowchart: Vec<FlowStep>,
    /// The limits that were set, and who keeps them.
    pub constraints: Vec<ConstraintRecord>,
    /// The best candidate of each slice.
    pub slices: Vec<SliceDecision>,
    /// Prices behind the cost figures.
    pub prices: Prices,
    /// What the decision was made from.
    pub inputs: Inputs,
    /// Wall seconds of the steps of the run, by step; kept apart because no two runs agree on them.
    pub times: BTreeMap<String, f64>,
}

impl Decision {
    /// The decision without anything that the clock has touched, for comparing two runs:
    /// step times, latencies, tokens per second, costs, the evidence and limits made of them, and what would flip it.
    #[must_use]
    pub fn without_times(&self) -> Decision {
        let mut d = self.clone();
        d.times.clear();
        d.flips.clear();
        for c in &mut d.candidates {
            c.latency_ms = LatencyMs::default();
            c.tokens.output_per_s = None;
            c.cost = Cost::default();
        }
        for step in d.flowchart.iter_mut().filter(|s| s.timed) {
            step.evidence.clear();
        }
        for limit in d.constraints.iter_mut().filter(|c| c.timed) {
            limit.measured.iter_mut().for_each(|m| m.value = None);
        }
        d
    }
}

/// How the rule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The winner is significantly better than every other eligible candidate.
    Better,
    /// The best ones are equal within the margin, and the winner is the simplest of them.
    Equivalent,
    /// Only one candidate keeps the constraints.
    OnlyEligible,
    /// The differences are too uncertain; see `needed_labels`.
    Inconclusive,
    /// No candidate keeps the constraints, or none could be measured.
    NoneEligible,
}

/// One candidate, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// Unique name: `prompt`, `rag`, `tuned`, `hybrid`, or the user's own.
    pub name: String,
    /// Whether it may win.
    pub eligible: bool,
    /// Why it may not, one sentence each; empty when it may.
    pub ineligible_because: Vec<String>,
    /// Metric name to its value, interval and coverage.
    pub metrics: BTreeMap<String, MetricSummary>,
    /// Time per answer.
    pub latency_ms: LatencyMs,
    /// Tokens per answer.
    pub tokens: Tokens,
    /// Money.
    pub cost: Cost,
    /// The general suite before and after tuning.
    pub general: General,
    /// What it gains by answering only when it is sure; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selective: Option<Selective>,
    /// The primary metric on each slice.
    pub slices: Vec<SliceRecord>,
    /// What else to know about it, e.g. the number of shots chosen on dev.
    pub notes: Vec<String>,
}

/// A candidate that was asked for and not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedCandidate {
    /// Its name.
    pub name: String,
    /// Why it could not be built, a clause.
    pub reason: String,
}

/// Percentiles (nearest rank) of the time per answer made alone, in milliseconds; `None` without timings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// Median of the whole answer.
    pub p50: Option<f64>,
    /// 95th percentile of the whole answer.
    pub p95: Option<f64>,
    /// Mean of the whole answer, from which the cost is computed.
    pub mean: Option<f64>,
    /// Median of retrieval.
    pub retrieval_p50: Option<f64>,
    /// 95th percentile of retrieval.
    pub retrieval_p95: Option<f64>,
    /// Median of the prompt's processing.
    pub prefill_p50: Option<f64>,
    /// 95th percentile of the prompt's processing.
    pub prefill_p95: Option<f64>,
    /// Median of writing the answer.
    pub decode_p50: Option<f64>,
    /// 95th percentile of writing the answer.
    pub decode_p95: Option<f64>,
}

/// Tokens per answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    /// Mean tokens of the prompt.
    pub input_mean: Option<f64>,
    /// Mean generated tokens.
    pub output_mean: Option<f64>,
    /// Generated tokens per second of decoding.
    pub output_per_s: Option<f64>,
}

/// What a candidate costs, in US dollars.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// One answer: hardware time plus tokens; of a model that is rented by the token, the time of retrieval plus tokens.
    pub per_query_usd: Option<f64>,
    /// Measured training time on the priced hardware; 0 for a candidate that is not trained.
    pub training_usd: Option<f64>,
    /// The labels that training needs, at the price of a label; 0 for a candidate that is not trained.
    pub labels_usd: Option<f64>,
    /// The month's queries at `per_query_usd`; `None` unless the volume is stated.
    pub per_month_usd: Option<f64>,
    /// Queries after which `training_usd` is repaid by the cheaper answer; `None` when it never is.
    pub break_even_queries: Option<f64>,
    /// The candidate that `break_even_queries` compares with.
    pub break_even_against: Option<String>,
}

/// Forgetting: accuracy on the frozen general suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct General {
    /// Share right with the base model.
    pub before: Option<f64>,
    /// Share right with the tuned model; equal to `before` for a candidate that is not tuned.
    pub after: Option<f64>,
    /// Items of the suite.
    pub n: usize,
    /// `after − before`.
    pub diff: Option<f64>,
    /// Lower end of the paired 95 % interval of `diff` (Bonett–Price).
    pub ci_low: Option<f64>,
    /// Upper end.
    pub ci_high: Option<f64>,
    /// Exact McNemar p of `diff`.
    pub p_value: Option<f64>,
}

/// Answering only when sure. Risk is 1 − the primary metric of what is answered, coverage the share of items answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selective {
    /// On the test items, from the surest answers to all.
    pub curve: Vec<RiskPoint>,
    /// The threshold for the stated risk; `None` if none is stated.
    pub promise: Option<Promise>,
}

/// What becomes of the items at one threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RiskPoint {
    /// Share of items that are answered.
    pub coverage: f64,
    /// Mean loss of those.
    pub risk: f64,
}

/// A threshold made from dev items alone, and what it did on the test items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// The stated risk.
    pub max_risk: f64,
    /// How sure it is that the true risk is at most that.
    pub level: f64,
    /// Dev items it was made from.
    pub dev_items: usize,
    /// Least confidence that is answered; `None` if so few items can promise it for none.
    pub threshold: Option<f64>,
    /// On the dev items: the coverage that is promised.
    pub dev: Option<RiskPoint>,
    /// On the test items: the coverage and the risk that came of it; `None` if nothing was answered.
    pub test: Option<RiskPoint>,
}

/// The primary metric of a candidate on the items with one slice value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceRecord {
    /// Name of the slice, e.g. `type`.
    pub slice: String,
    /// Its value, e.g. `procedure`.
    pub value: String,
    /// The primary metric there.
    pub summary: MetricSummary,
}

/// Who is ahead on the items with one slice value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceDecision {
    /// Name of the slice.
    pub slice: String,
    /// Its value.
    pub value: String,
    /// Items with this value.
    pub n: usize,
    /// The eligible candidate with the highest primary metric there.
    pub leader: Option<String>,
    /// The leader, if it is significantly better than every other eligible one (Holm over all slice comparisons).
    pub winner: Option<String>,
}

/// One paired comparison; differences are `a − b`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// First candidate.
    pub a: String,
    /// Second candidate.
    pub b: String,
    /// Metric compared.
    pub metric: String,
    /// Mean of `a − b` over the items that both have scores for.
    pub diff: Option<f64>,
    /// Lower end of its interval: cluster bootstrap, or Bonett–Price with the design effect where every difference is 0
    /// or ±1.
    pub ci_low: Option<f64>,
    /// Upper end.
    pub ci_high: Option<f64>,
    /// Two-sided p of the test named in `test`.
    pub p_value: Option<f64>,
    /// `p_value` after Holm's correction over all comparisons.
    pub p_adjusted: Option<f64>,
    /// Exact McNemar p where the scores are 0 or 1 (ignores clusters; beside, not instead of, `p_value`).
    pub mcnemar_p: Option<f64>,
    /// Items compared.
    pub n: usize,
    /// Clusters (source documents) among them.
    pub clusters: usize,
    /// Items that are scored for one and failed for the other; they are left out of `n`.
    pub failed: usize,
    /// Items more until a difference of this size is significant or within the margin, with the rule's power; 0 when it
    /// is so already, `None` when no reasonable number is enough.
    pub needed_labels: Option<usize>,
    /// The test behind `p_value`.
    pub test: String,
}

/// One question of the flowchart with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowStep {
    /// The question.
    pub question: String,
    /// Its answer, a few words.
    pub answer: String,
    /// The figures or statements behind the answer.
    pub evidence: String,
    /// Where the evidence comes from.
    pub source: EvidenceSource,
    /// What the answer speaks for, e.g. `retrieval`; empty when it speaks for nothing.
    pub speaks_for: String,
    /// Whether `evidence` holds figures that the clock has touched.
    pub timed: bool,
}

/// Where evidence comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceSource {
    /// The project file says so.
    Stated,
    /// Measured in this run.
    Measured,
    /// Neither stated nor measured.
    Unknown,
}

/// One limit and who keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConstraintRecord {
    /// Key in the project file, e.g. `max_p95_latency_ms`.
    pub name: String,
    /// The limit, in the unit that the name ends in.
    pub limit: f64,
    /// Whether the measured values come from the clock.
    pub timed: bool,
    /// One entry per candidate, in their order.
    pub measured: Vec<ConstraintValue>,
}

/// One candidate against one limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConstraintValue {
    /// The candidate.
    pub candidate: String,
    /// What was measured; `None` when nothing was.
    pub value: Option<f64>,
    /// Whether the limit is kept. A limit that could not be measured is not kept.
    pub ok: bool,
}

/// Prices that turn time and tokens into money. All of them are the user's own figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prices {
    /// One hour of the machine that answers and trains.
    pub hardware_usd_per_hour: f64,
    /// One labelled row.
    pub label_usd: f64,
    /// A million prompt tokens, where the model is rented by the token; `None` if that is not stated.
    pub input_usd_per_million_tokens: Option<f64>,
    /// A million generated tokens.
    pub output_usd_per_million_tokens: Option<f64>,
}

/// What the decision was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Name of the input to its content hash: corpus, splits, models, config.
    pub hashes: BTreeMap<String, String>,
    /// Name of the step to its seed.
    pub seeds: BTreeMap<String, u64>,
    /// Items per split, documents, clusters.
    pub counts: BTreeMap<String, usize>,
    /// Settings of the decision: alpha, margin, bootstrap samples and the like.
    pub settings: BTreeMap<String, String>,
}

/// Everything that the report shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportData {
    /// Name of the project.
    pub project: String,
    /// The decision.
    pub decision: Decision,
    /// Items worth reading, worst first, with every candidate's output side by side.
    pub items: Vec<ReportItem>,
    /// One history per trained candidate.
    pub training: Vec<TrainingHistory>,
    /// How the figures were made, one paragraph each.
    pub method_notes: Vec<String>,
}

/// One item with the outputs of all candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportItem {
    /// The item.
    pub id: ItemId,
    /// What was asked.
    pub input: String,
    /// Accepted outputs; empty for an unanswerable question.
    pub references: Vec<String>,
    /// Gold documents.
    pub doc_ids: Vec<String>,
    /// Slice name to value.
    pub slices: BTreeMap<String, String>,
    /// One per candidate, in their order.
    pub outputs: Vec<ReportOutput>,
}

/// What one candidate made of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportOutput {
    /// The candidate.
    pub candidate: String,
    /// The answer.
    pub text: String,
    /// The primary metric.
    pub score: Score,
    /// Verified citations.
    pub citations: Vec<Citation>,
    /// Markers that could not be verified, and were dropped.
    pub dropped_citations: usize,
    /// What was retrieved, best first.
    pub retrieved: Vec<Retrieved>,
    /// Whether it declined to answer.
    pub abstained: bool,
}

/// How training went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingHistory {
    /// The candidate.
    pub candidate: String,
    /// Every epoch that was run, in order.
    pub epochs: Vec<EpochRecord>,
    /// Epoch whose checkpoint is used, from 1.
    pub best_epoch: Option<usize>,
}

/// One epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Mean training loss over the epoch, nats per supervised token.
    pub train_loss: f64,
    /// Loss on dev after it, nats per supervised token.
    pub dev_loss: Option<f64>,
    /// Wall seconds.
    pub seconds: f64,
}
