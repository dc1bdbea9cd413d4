use assay_types::Task;
use thiserror::Error;

/// Why a scorer cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvalError {
    /// The schema is not a valid JSON schema.
    #[error("the schema is not valid at `{at}`: {reason}")]
    Schema {
        /// Path inside the schema.
        at: String,
        /// What is wrong there.
        reason: String,
    },
    /// A task needs something that was not given.
    #[error("task `{task}` needs {what}")]
    Missing {
        /// The task.
        task: Task,
        /// What it needs.
        what: &'static str,
    },
}
