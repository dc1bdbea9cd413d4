//! Why there is no answer, and whose fault that is.

use std::time::Duration;

use thiserror::Error;

/// Why a server gave no answer. Messages of servers are quoted without the key.
#[derive(Clone, Debug, Error)]
pub enum RemoteError {
    /// The name of a remote model cannot be read.
    #[error("`{spec}` names no remote model: {reason}")]
    Spec {
        /// As given, where it cannot hold a secret.
        spec: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The key holds characters that cannot be sent, or nothing.
    #[error("the API key is empty or holds characters that no header can carry")]
    Key,
    /// No connection: refused, unknown host, reset, no trust in the certificate.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// In the words of the system.
        reason: String,
    },
    /// Connected, then silence.
    #[error("{url} did not answer in time ({phase})")]
    Timeout {
        /// The address.
        url: String,
        /// What was waited for.
        phase: String,
    },
    /// The server refused.
    #[error("{url} answered with status {status}: {message}")]
    Status {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's words, shortened.
        message: String,
        /// The server's code for it, e.g. `insufficient_quota`.
        code: Option<String>,
    },
    /// The answer is no chat completion.
    #[error("{url} sent no chat completion: {reason}")]
    Protocol {
        /// The address.
        url: String,
        /// What was found.
        reason: String,
    },
    /// The connection, or the server, ended the answer in the middle.
    #[error("{url}: the answer broke off: {reason}")]
    BrokenOff {
        /// The address.
        url: String,
        /// How.
        reason: String,
    },
    /// The server answered without an answer: a content filter, a call of a tool.
    #[error("the model gave no text: it ended with `{finish}`")]
    Withheld {
        /// The reason that the server gave.
        finish: String,
    },
    /// Every try failed.
    #[error("{tries} tries failed; the last: {last}")]
    Exhausted {
        /// Tries made.
        tries: u32,
        /// Why the last one failed.
        last: Box<RemoteError>,
    },
    /// The time for one question, waits and tries together, is over.
    #[error("no answer within {} s and {tries} tries{}", deadline.as_secs(), last.as_ref().map_or(String::new(), |e| format!("; the last: {e}")))]
    Deadline {
        /// The time.
        deadline: Duration,
        /// Tries begun.
        tries: u32,
        /// Why the last finished one failed.
        last: Option<Box<RemoteError>>,
    },
    /// So many questions in a row failed that the server is given up.
    #[error("{failures} questions in a row failed, so no more are asked; the last: {last}")]
    Down {
        /// Failures in a row.
        failures: u32,
        /// The last of them.
        last: Box<RemoteError>,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Whose fault an error is, which decides what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// This request: it will fail again, others need not.
    Request,
    /// The moment: the same request may succeed later.
    Moment,
    /// The server, key, model or address: every request will fail until that is changed.
    Server,
    /// Nobody: the caller stopped.
    Stopped,
}

impl RemoteError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            RemoteError::Spec { .. } | RemoteError::Key | RemoteError::Down { .. } => Blame::Server,
            RemoteError::Status { code: Some(code), .. } if code == "insufficient_quota" => {
                Blame::Server
            }
            RemoteError::Status { status: 400 | 413 | 422, .. } | RemoteError::Withheld { .. } => {
                Blame::Request
            }
            RemoteError::Status { status, .. } if passes(*status) => Blame::Moment,
            RemoteError::Status { .. } => Blame::Server,
            RemoteError::Unreachable { .. }
            | RemoteError::Timeout { .. }
            | RemoteError::Protocol { .. }
            | RemoteError::BrokenOff { .. }
            | RemoteError::Exhausted { .. }
            | RemoteError::Deadline { .. } => Blame::Moment,
            RemoteError::Stopped => Blame::Stopped,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            RemoteError::Status { code: Some(code), .. } if code == "insufficient_quota" => {
                Some("the account behind the key has no quota left")
            }
            RemoteError::Status { status, .. } => match status {
                300..=399 => Some("the server moved: name its new base URL"),
                401 | 403 => Some(
                    "name the environment variable that holds the key: api_key_env in [model.remote]; \
                     if it is named, the key does not open this model",
                ),
                404 | 405 => Some(
                    "is the model served under that name, and does the base URL end as the server's manual says (mostly in /v1)?",
                ),
                400 | 413 | 422 => Some(
                    "a prompt longer than the server's context? retrieval.prompt_tokens limits it",
                ),
                429 => Some("lower concurrency in [model.remote]"),
                _ => None,
            },
            RemoteError::Unreachable { .. } => {
                Some("is the server running, and is the base URL right?")
            }
            RemoteError::Timeout { .. } | RemoteError::Deadline { last: None, .. } => Some(
                "a slow server needs a larger timeout_s in [model.remote], or a smaller concurrency",
            ),
            RemoteError::Protocol { .. } => {
                Some("does the base URL end as the server's manual says (mostly in /v1)?")
            }
            RemoteError::Exhausted { last, .. }
            | RemoteError::Down { last, .. }
            | RemoteError::Deadline { last: Some(last), .. } => last.hint(),
            RemoteError::Spec { .. } => {
                Some("for example openai:qwen2.5-7b-instruct@http://127.0.0.1:8000/v1")
            }
            RemoteError::Key => {
                Some("does the environment variable hold the key, and only the key?")
            }
            RemoteError::BrokenOff { .. } | RemoteError::Withheld { .. } | RemoteError::Stopped => {
                None
            }
        }
    }
}

/// Statuses after which the same request may succeed.
pub(crate) fn passes(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 506..=599)
}
