use std::path::PathBuf;

use assay_types::RowRef;
use thiserror::Error;

use crate::RefusedRow;

/// Why training did not happen, or did not finish.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Rows that cannot be trained on, in their order; see [`RefusedRow::reason`].
    #[error("{} of {total} rows cannot be trained on: {}", refused.len(), first(refused))]
    Refused {
        /// What is wrong with which row.
        refused: Vec<RefusedRow>,
        /// How many rows were given.
        total: usize,
    },
    /// Nothing to train on.
    #[error("there are no rows to train on")]
    NoRows,
    /// A setting that cannot work.
    #[error("training settings: {0}")]
    Config(&'static str),
    /// The loss or the gradient is infinite or not a number. The step was not taken.
    #[error("step {step}: {what} is not finite; rows {}", list(rows))]
    NonFinite {
        /// The step, from 0.
        step: usize,
        /// `loss`, `gradient` or `dev loss`.
        what: &'static str,
        /// The rows that cause it alone, else all rows of the step.
        rows: Vec<RowRef>,
    },
    /// The caller's metric is infinite or not a number.
    #[error("the metric of epoch {epoch} is {value}, not a finite number")]
    BadMetric {
        /// The epoch, from 1.
        epoch: usize,
        /// What the metric returned.
        value: f64,
    },
    /// The caller's metric failed.
    #[error("the metric of epoch {epoch} failed")]
    Metric {
        /// The epoch, from 1.
        epoch: usize,
        /// Its own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The observer asked to stop.
    #[error("stopped after step {step} of {steps}")]
    Stopped {
        /// Steps taken.
        step: usize,
        /// Steps of the whole run.
        steps: usize,
        /// From where the run can be resumed.
        checkpoint: Option<PathBuf>,
    },
    /// The folder holds checkpoints of another run.
    #[error("{path} belongs to another run: {} differ", differs.join(", "))]
    ForeignCheckpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Of `settings`, `training rows`, `dev rows`, `base model`, `chat template`: those that
        /// are not the same.
        differs: Vec<&'static str>,
    },
    /// The decoder failed.
    #[error(transparent)]
    Model(#[from] assay_model::ModelError),
    /// A file operation failed; the message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl TrainError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            TrainError::Refused { .. } => {
                Some("shorten or repair these rows, or skip them explicitly")
            }
            TrainError::NonFinite { .. } => Some("lower the learning rate, or look at these rows"),
            TrainError::ForeignCheckpoint { .. } => {
                Some("delete the folder to start anew, or give another one")
            }
            TrainError::Stopped { checkpoint: Some(_), .. } => {
                Some("run the same command again to continue")
            }
            _ => None,
        }
    }
}

fn first(refused: &[RefusedRow]) -> String {
    const SHOWN: usize = 5;
    let mut out =
        refused.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if refused.len() > SHOWN {
        out.push_str(&format!("; and {} more", refused.len() - SHOWN));
    }
    out
}

fn list(rows: &[RowRef]) -> String {
    rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
