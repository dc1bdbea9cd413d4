//! Metrics of answers, citations and retrieval, and the general suite that measures forgetting.
//!
//! Every function takes records and returns a number or the reason why there is none; nothing here runs a
//! model, reads a file or asks a judge. A wrong answer scores 0; an answer that could not be had is
//! [`Score::Failed`](assay_types::Score::Failed); a metric that does not apply, an empty denominator for example, is
//! [`Score::Skipped`](assay_types::Score::Skipped). Aggregates come from [`summarize`], which keeps the three apart.
//!
//! Definitions follow the packages that people compare with: the official SQuAD scripts, rouge-score, trec_eval,
//! scikit-learn, lm-evaluation-harness. Each function says where it departs from them.
//!
//! ```
//! use assay_eval::{SquadRules, squad_f1};
//!
//! let golds = vec!["the red car".to_owned()];
//! assert_eq!(squad_f1("A red car!", &golds, SquadRules::V2), Some(1.0));
//! ```

mod citation;
mod classify;
mod error;
mod extract;
mod form;
mod general;
mod injection;
mod porter;
mod ranking;
mod rouge;
mod scorer;
mod squad;

pub use assay_stats::{MetricSummary, Resampling, summarize};
pub use citation::{citation_precision, citation_recall, citation_validity};
pub use classify::{ClassScore, Confusion, Labelled, macro_f1, match_label};
pub use error::EvalError;
pub use extract::{Schema, slot_f1};
pub use form::{abstention_accuracy, answer_text, finished, repetition};
pub use general::{ChoiceScore, GeneralItem, general_suite, score_choices};
pub use injection::Attack;
pub use ranking::{Grades, average_precision, ndcg_at, rank_documents, recall_at, reciprocal_rank};
pub use rouge::rouge_l;
pub use scorer::Scorer;
pub use squad::{SquadRules, squad_exact_match, squad_f1, squad_normalize};
