//! The JSON of requests and responses, and its conversion to the server's own types by hand.

pub(crate) mod chat;
pub(crate) mod embeddings;
pub(crate) mod search;

use axum::http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::service::ModelInfo;

/// Reads a request's body; the error names the parameter that is wrong.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let malformed = !e.inner().is_data();
        let message = if malformed {
            format!("the body is not valid JSON: {}", e.inner())
        } else {
            e.inner().to_string()
        };
        let param = (!malformed && path != ".").then_some(path);
        ApiError { param, ..ApiError::new(StatusCode::BAD_REQUEST, message) }
    })?;
    json.end().map_err(|e| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {e}"))
    })?;
    Ok(value)
}

/// A list as the API wraps it.
#[derive(Serialize)]
pub(crate) struct List<T> {
    object: &'static str,
    data: Vec<T>,
}

impl<T> List<T> {
    pub(crate) fn of(data: impl IntoIterator<Item = T>) -> Self {
        List { object: "list", data: data.into_iter().collect() }
    }
}

/// An entry of `/v1/models`.
#[derive(Serialize)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl From<ModelInfo> for Model {
    fn from(info: ModelInfo) -> Self {
        Model { id: info.id, object: "model", created: info.created_s, owned_by: "assay" }
    }
}
