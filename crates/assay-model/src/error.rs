use std::path::PathBuf;

/// What can go wrong with a decoder: its file, its inputs, its adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Reading failed; the message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file does not begin as GGUF files do.
    #[error("{path}: not a GGUF file")]
    NotGguf {
        /// The file.
        path: PathBuf,
    },
    /// The header announces more tensor data than the file has.
    #[error("{path}: truncated: {expected_bytes} bytes announced, {got_bytes} present")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// End of the last tensor.
        expected_bytes: u64,
        /// Size of the file.
        got_bytes: u64,
    },
    /// The header cannot be read: cut off or damaged.
    #[error("{path}: truncated or damaged header: {detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        detail: String,
    },
    /// The file holds a model that this decoder does not compute.
    #[error("{path}: architecture `{architecture}` is not supported (supported: {})", supported.join(", "))]
    UnsupportedArchitecture {
        /// The file.
        path: PathBuf,
        /// As named in the file.
        architecture: String,
        /// What is supported.
        supported: &'static [&'static str],
    },
    /// A tensor is stored in a format that cannot be expanded.
    #[error("{path}: quantisation of {tensor} is not supported: {quantisation}")]
    UnsupportedQuantisation {
        /// The file.
        path: PathBuf,
        /// The tensor, or `a tensor` where the header could not be read far enough.
        tensor: String,
        /// The format.
        quantisation: String,
    },
    /// The tokenizer of the file is of another family.
    #[error("{path}: {field} `{got}` is not supported (supported: {})", supported.join(", "))]
    UnsupportedTokenizer {
        /// The file.
        path: PathBuf,
        /// Metadata key that names it.
        field: &'static str,
        /// Its value.
        got: String,
        /// What is supported.
        supported: &'static [&'static str],
    },
    /// A metadata key is missing or has another type.
    #[error("{path}: metadata `{key}` is missing or not {expected}")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The type or range needed.
        expected: &'static str,
    },
    /// A tensor of the architecture is not in the file.
    #[error("{path}: tensor `{name}` is missing")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that the architecture does not have: leaving it out would compute another model.
    #[error("{path}: tensor `{name}` is unknown to this architecture")]
    UnknownTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// Not JSON, or a field of the wrong type.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A tensor has another shape than the metadata say.
    #[error("{path}: tensor `{name}` has shape {got:?}, expected {expected:?}")]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape by the metadata, rows first.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// The tokenizer could not be built or applied.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The file has no chat template, so messages cannot be rendered.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The chat template does not parse, or refused the messages.
    #[error("chat template: {0}")]
    Template(String),
    /// More tokens than the context holds.
    #[error("{tokens} tokens do not fit into a context of {limit}")]
    TooLong {
        /// Tokens given, with at least one to generate where something is generated.
        tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// A token id beyond the vocabulary.
    #[error("token {token} is outside of the vocabulary of {vocab}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A parameter of sampling has a value without meaning.
    #[error("{parameter} is {got}, expected {expected}")]
    Sampling {
        /// The parameter.
        parameter: &'static str,
        /// Its value.
        got: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// The form that an answer must have cannot be kept: not valid, not supported, or too large.
    #[error("{kind}{}{place}: {reason}", if place.is_empty() { "" } else { " at " })]
    Form {
        /// What the form is given by.
        kind: &'static str,
        /// JSON pointer into a schema; empty for the whole.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing to compute on, where something is needed.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A batch whose parts do not fit together.
    #[error("batch: {0}")]
    Batch(&'static str),
    /// The adapter was made for something else.
    #[error("adapter does not fit: {what} is {got}, the model has {expected}")]
    AdapterMismatch {
        /// What differs: base model, chat template, or a shape.
        what: &'static str,
        /// The model's.
        expected: String,
        /// The adapter's.
        got: String,
    },
}
