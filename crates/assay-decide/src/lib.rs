//! The decision between prompt, RAG, tuned and hybrid, as a pure function of scores, times, prices and constraints.
//!
//! [`decide`] takes what was measured and stated ([`DecisionInput`]) and returns the record that is stored as
//! `decision.json` ([`Decision`]). It opens nothing, asks no clock and draws no hidden random number: the same
//! input gives the same record. What it refuses: comparing candidates on different items, turning a failure into a 0,
//! and naming a winner that the data do not show.
//!
//! # The rule
//!
//! 1. A candidate may win if it keeps every constraint and has a score on enough of the items.
//! 2. Of those the one with the highest primary metric wins if it is significantly better than every other: paired
//!    sign-flip permutation of whole documents, Holm-corrected over all pairs of candidates.
//! 3. Otherwise the simplest wins (prompt, then retrieval, then training, then both) that is, against each other one,
//!    significantly better, or simpler and not worse than the margin (lower end of the interval of the
//!    difference). A more complex candidate has to prove that it is better; a simpler one only that it is no worse.
//! 4. Otherwise nobody wins, and the record says about how many more labelled test items would settle it.
//!
//! A significant lead smaller than the margin still wins under 2: the margin forgives a simpler candidate what the data
//! leave open, not what they show.
//!
//! ```
//! use std::collections::BTreeMap;
//! use assay_decide::*;
//! use assay_types::{ItemId, Score, Task};
//!
//! let items: Vec<TestItem> = (0..120)
//!     .map(|i| TestItem { id: ItemId(i.to_string()), cluster: format!("doc{}", i / 3), slices: BTreeMap::new() })
//!     .collect();
//! let measured = |name: &str, uses_retrieval, right: fn(usize) -> bool| Measured {
//!     name: name.into(),
//!     scores: BTreeMap::from([("em".into(), (0..120)
//!         .map(|i| (ItemId(i.to_string()), Score::Scored(f64::from(u8::from(right(i))))))
//!         .collect())]),
//!     uses_retrieval,
//!     ..Measured::default()
//! };
//! let input = DecisionInput {
//!     items,
//!     candidates: vec![measured("prompt", false, |i| i % 3 == 0), measured("rag", true, |i| i % 4 != 0)],
//!     ..DecisionInput::new(Task::Qa, "em", Rule::new(Task::Qa, 1))
//! };
//! let decision = decide(&input)?;
//! assert_eq!(decision.winner.as_deref(), Some("rag"));
//! # Ok::<(), DecideError>(())
//! ```

mod candidate;
mod compare;
mod constraints;
mod cost;
mod decide;
mod error;
mod flowchart;
mod input;
mod record;
mod rule;
mod selective;
mod slices;
mod verdict;
mod words;

pub use assay_stats::MetricSummary;
pub use cost::{break_even_queries, cost_per_query_usd, machine_usd};
pub use decide::{decide, worst_items};
pub use error::DecideError;
pub use input::{
    Constraints, DecisionInput, Facts, GeneralAnswers, Measured, Rule, Stated, Sure, SureAnswers,
    TestItem, Thresholds,
};
pub use record::{
    CandidateRecord, Comparison, ConstraintRecord, ConstraintValue, Cost, Decision, EpochRecord,
    EvidenceSource, FlowStep, General, Inputs, LatencyMs, Outcome, Prices, Promise, ReportData,
    ReportItem, ReportOutput, RiskPoint, SCHEMA_VERSION, Selective, SkippedCandidate,
    SliceDecision, SliceRecord, Tokens, TrainingHistory,
};
