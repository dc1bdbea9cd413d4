//! `/v1/embeddings`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::service::Embeddings;

/// Texts of one request, as OpenAI limits them.
const MOST: usize = 2048;

#[derive(Deserialize)]
pub(crate) struct EmbeddingsRequest {
    pub(crate) model: String,
    input: Input,
    #[serde(default)]
    encoding_format: Format,
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "input must be a string or an array of strings; token arrays are not supported"
)]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Float,
    Base64,
}

impl EmbeddingsRequest {
    /// The texts, at least one.
    pub(crate) fn texts(&self) -> Result<Vec<String>, ApiError> {
        let texts = match &self.input {
            Input::One(text) => vec![text.clone()],
            Input::Many(texts) => texts.clone(),
        };
        match texts.len() {
            0 => Err(ApiError::bad("input", "input is empty")),
            1..=MOST => Ok(texts),
            n => Err(ApiError::bad(
                "input",
                format!("input has {n} texts, at most {MOST} are taken"),
            )),
        }
    }

    pub(crate) fn response(self, made: Embeddings) -> Result<EmbeddingsResponse, ApiError> {
        let dims = made.vectors.first().map_or(0, Vec::len);
        if self.dimensions.is_some_and(|wanted| wanted != dims) {
            return Err(ApiError::unsupported("dimensions", &format!("the model gives {dims}")));
        }
        let vector = |v: Vec<f32>| match self.encoding_format {
            Format::Float => Vector::Float(v),
            Format::Base64 => {
                let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        };
        let entry = |(index, v)| Entry { object: "embedding", index, embedding: vector(v) };
        Ok(EmbeddingsResponse {
            object: "list",
            data: made.vectors.into_iter().enumerate().map(entry).collect(),
            model: self.model,
            usage: Usage { prompt_tokens: made.tokens, total_tokens: made.tokens },
        })
    }
}

#[derive(Serialize)]
pub(crate) struct EmbeddingsResponse {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    /// Little-endian `f32`s.
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}
