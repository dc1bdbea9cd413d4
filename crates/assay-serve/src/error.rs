//! Errors as clients see them: OpenAI's error object with the status that belongs to it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::service::ServiceError;

/// Seconds after which a client that found the queue full may try again.
const RETRY_AFTER_S: &str = "2";

#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), param: None, code: None }
    }

    /// The request is wrong in `param`.
    pub(crate) fn bad(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError { param: Some(param.into()), ..ApiError::new(StatusCode::BAD_REQUEST, message) }
    }

    /// The request wants something that would otherwise be ignored against its intent.
    pub(crate) fn unsupported(param: &str, supported: &str) -> Self {
        let message = format!("{param} is not supported here; {supported}");
        ApiError { code: Some("unsupported_parameter"), ..ApiError::bad(param, message) }
    }

    pub(crate) fn no_such_model(model: &str, known: &str) -> Self {
        let message = format!("there is no model {model:?} for this; there is: {known}");
        ApiError {
            status: StatusCode::NOT_FOUND,
            code: Some("model_not_found"),
            ..ApiError::bad("model", message)
        }
    }

    pub(crate) fn busy() -> Self {
        let message = "too many requests are waiting; try again soon";
        ApiError { code: Some("busy"), ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// Hides the cause from the client; the caller has logged it.
    pub(crate) fn internal() -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why")
    }

    /// The error object, as it also stands in a stream.
    pub(crate) fn body(&self) -> Value {
        let server = self.status.is_server_error();
        json!({ "error": {
            "message": self.message,
            "type": if server { "server_error" } else { "invalid_request_error" },
            "param": self.param,
            "code": self.code,
        } })
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::ContextTooLong { .. } => ApiError {
                code: Some("context_length_exceeded"),
                ..ApiError::bad("messages", error.to_string())
            },
            ServiceError::BadSchema(_) => ApiError::bad("response_format", error.to_string()),
            ServiceError::BadFilter(_) => ApiError::bad("filters", error.to_string()),
            ServiceError::BadPattern(_) => ApiError::bad("structured_outputs", error.to_string()),
            ServiceError::Unsupported(_) => ApiError {
                code: Some("unsupported"),
                ..ApiError::new(StatusCode::BAD_REQUEST, error.to_string())
            },
            ServiceError::Refused(_) => ApiError {
                code: Some("refused_by_model"),
                ..ApiError::new(StatusCode::BAD_REQUEST, error.to_string())
            },
            ServiceError::Upstream(reason) => {
                tracing::error!(%reason, "the model's server failed");
                let message = "the model's own server failed; the log says why";
                ApiError {
                    code: Some("upstream"),
                    ..ApiError::new(StatusCode::BAD_GATEWAY, message)
                }
            }
            ServiceError::Unavailable(reason) => {
                tracing::error!(%reason, "documents cannot be searched");
                let message = "documents cannot be searched now; the log says why";
                ApiError {
                    code: Some("unavailable"),
                    ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
                }
            }
            ServiceError::Internal(reason) => {
                tracing::error!(%reason, "request failed");
                ApiError::internal()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let after = HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, after);
        }
        response
    }
}
