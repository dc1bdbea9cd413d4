use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use thiserror::Error;

/// Why an encoder or cross-encoder could not be opened or used.
#[derive(Debug, Error)]
pub enum EncoderError {
    /// A file of the folder is missing or cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A configuration file is not the JSON it should be.
    #[error("{}: {error}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        error: serde_json::Error,
    },
    /// The model does something that this encoder does not.
    #[error("{}: {key} is {got}, supported: {supported}", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// Setting.
        key: &'static str,
        /// Its value.
        got: String,
        /// Values that work.
        supported: &'static str,
    },
    /// The weights file is truncated or not safetensors, or a tensor is missing.
    #[error("{}: {error}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: SafeTensorError,
    },
    /// A tensor does not have the shape that the configuration implies.
    #[error("{}: tensor {name} has shape {got:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// The tokenizer cannot be read, or gives a token that the model does not have.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

pub(super) fn unsupported(
    path: &Path,
    key: &'static str,
    got: impl Into<String>,
    supported: &'static str,
) -> EncoderError {
    EncoderError::Unsupported { path: path.into(), key, got: got.into(), supported }
}
