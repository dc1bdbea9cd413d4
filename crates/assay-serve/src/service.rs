//! What the server needs from whatever answers: one release, or several of them side by side.

use std::ops::ControlFlow;

use assay_types::{Message, Output, Pages};
use serde_json::Value;
use thiserror::Error;

/// Something that answers, embeds and searches. Calls come from several threads at once and may take long.
pub trait Service: Send + Sync + 'static {
    /// The models that may be asked for, stable while the server runs.
    fn models(&self) -> Vec<ModelInfo>;

    /// Answers a conversation with a model that [`models`](Self::models) lists for chat.
    ///
    /// Text goes to `on_text` as it is generated. Joined, the pieces are a prefix of the returned text; the server
    /// sends what is missing at the end. After `Break` the generation stops and what there is so far is returned.
    ///
    /// # Errors
    /// [`ServiceError`], best before the first text: only then can the client be told with a status.
    fn answer(
        &self,
        request: &AnswerRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Output, ServiceError>;

    /// Vectors of `texts`, in their order, by a model that [`models`](Self::models) lists for embeddings.
    ///
    /// # Errors
    /// [`ServiceError`].
    fn embed(&self, model: &str, texts: &[&str]) -> Result<Embeddings, ServiceError>;

    /// The best passages, best first.
    ///
    /// # Errors
    /// [`ServiceError::Unsupported`] if there are no documents, [`ServiceError::BadFilter`].
    fn search(&self, request: &SearchRequest) -> Result<SearchResponse, ServiceError>;
}

/// Who asks, as the proxy before this server says in the headers that it was told to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Names of users and groups; without any, the caller is not known.
    pub principals: Vec<String>,
    /// The caller's tenant.
    pub tenant: Option<String>,
}

/// Names of the headers that say who asks. They are believed: a server that reads them stands behind a proxy that
/// sets or removes them. `None` reads none, and nobody is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerHeaders {
    /// Holds names of users and groups, with commas between them.
    pub principals: Option<String>,
    /// Holds the name of a tenant.
    pub tenant: Option<String>,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    /// Words or a question.
    pub query: String,
    /// Passages at most.
    pub k: usize,
    /// Conditions on documents, in the JSON of the index; not checked yet.
    pub filter: Option<Value>,
    /// Who asks.
    pub caller: Caller,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SearchResponse {
    /// Best first.
    pub hits: Vec<SearchHit>,
    /// Tokens that were read of a query that is longer than the embedder takes.
    pub truncated_to: Option<usize>,
}

/// A model as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name that requests give.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created_s: u64,
    /// What it may be asked for.
    pub used_for: ModelUse,
}

/// What a model may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelUse {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/embeddings`.
    Embeddings,
}

/// A conversation to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerRequest {
    /// Name of the model.
    pub model: String,
    /// The turns, at least one.
    pub messages: Vec<Message>,
    /// How to generate.
    pub options: AnswerOptions,
    /// Who asks.
    pub caller: Caller,
}

/// What the client asks of the generation; `None` leaves it to the release.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerOptions {
    /// Limit on new tokens, at least 1.
    pub max_new_tokens: Option<usize>,
    /// 0 to 2; 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus, above 0 and up to 1.
    pub top_p: Option<f32>,
    /// Seed of the sampling.
    pub seed: Option<u64>,
    /// Strings that end the answer and are not part of it; none is empty.
    pub stop: Vec<String>,
    /// Only so many of the most likely tokens; 0 for all.
    pub top_k: Option<usize>,
    /// Only tokens at least this share as likely as the most likely one, 0 to 1.
    pub min_p: Option<f32>,
    /// Above 0; 1 for none.
    pub repetition_penalty: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Whether to tell log-probabilities, and of how many of the most likely tokens beside the chosen one.
    pub log_probs: Option<usize>,
    /// The form that the answer must have.
    pub form: Option<AnswerForm>,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerForm {
    /// Any JSON object.
    JsonObject,
    /// JSON that satisfies this schema; not checked yet.
    JsonSchema(Value),
    /// A text that this regular expression matches as a whole; not checked yet.
    Regex(String),
    /// One of these texts.
    OneOf(Vec<String>),
}

/// Vectors and what they cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// One vector per text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: usize,
}

/// A passage that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchHit {
    /// Path of the document, relative to the documents folder.
    pub document: String,
    /// First byte of the passage in the stored source.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Where that is in the file, if its format has pages.
    pub pages: Option<Pages>,
    /// The passage.
    pub text: String,
    /// Larger is better; comparable within one query only.
    pub score: f64,
}

/// Why a service cannot do what it is asked.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The conversation does not fit into the model.
    #[error("the conversation has {tokens} tokens, the model takes {limit}")]
    ContextTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// The release has no such ability.
    #[error("this release has no {0}")]
    Unsupported(&'static str),
    /// The schema of the answer cannot be used.
    #[error("{0}")]
    BadSchema(String),
    /// The regular expression or choice of the answer cannot be used.
    #[error("{0}")]
    BadPattern(String),
    /// The filter of a search cannot be used; the text says why.
    #[error("{0}")]
    BadFilter(String),
    /// The model's own server refuses the conversation; its words go to the client.
    #[error("the model refuses the request: {0}")]
    Refused(String),
    /// The model's own server fails or cannot be reached; the text goes to the log and not to the client.
    #[error("{0}")]
    Upstream(String),
    /// The server that holds the vectors fails or cannot be reached, and may come back; the text goes to the log and not
    /// to the client.
    #[error("{0}")]
    Unavailable(String),
    /// A failure on our side; the text goes to the log and not to the client.
    #[error("{0}")]
    Internal(String),
}
