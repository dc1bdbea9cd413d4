//! Paths, handlers, and what is done around every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::Instrument;

use crate::chat;
use crate::error::ApiError;
use crate::queue::{ANSWERS, LOOKUPS, Queue, compute};
use crate::service::{Caller, CallerHeaders, ModelInfo, ModelUse, Service, ServiceError};
use crate::wire::chat::ChatRequest;
use crate::wire::embeddings::{EmbeddingsRequest, EmbeddingsResponse};
use crate::wire::search::{Found, SearchRequest};
use crate::wire::{self, List, Model};

/// Largest body that is read: far beyond what fits into a context.
const BODY_BYTES: usize = 8 << 20;

#[derive(Clone)]
struct App {
    service: Arc<dyn Service>,
    answers: Queue,
    /// Embeddings and searches: quick, and not to wait behind answers.
    lookups: Queue,
    headers: Arc<CallerHeaders>,
}

pub(crate) fn router(service: Arc<dyn Service>, headers: CallerHeaders) -> Router {
    let headers = Arc::new(headers);
    let (answers, lookups) = (Queue::new(ANSWERS), Queue::new(LOOKUPS));
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/search", post(search))
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/healthz", get(health))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(observe))
        .with_state(App { service, answers, lookups, headers })
}

async fn chat_completions(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let caller = app.caller(&headers)?;
    let request: ChatRequest = read(body).await?;
    let (stream, include_usage) = (request.stream == Some(true), request.include_usage());
    let request = request.into_answer(caller)?;
    app.find(&request.model, ModelUse::Chat)?;
    let turn = app.answers.turn().await?;
    if stream {
        chat::streamed(app.service, request, include_usage, turn).await
    } else {
        chat::whole(app.service, request, turn).await
    }
}

async fn embeddings(
    State(app): State<App>,
    body: Body,
) -> Result<Json<EmbeddingsResponse>, ApiError> {
    let request: EmbeddingsRequest = read(body).await?;
    let texts = request.texts()?;
    app.find(&request.model, ModelUse::Embeddings)?;
    let model = request.model.clone();
    let made = app.look_up(move |service| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        service.embed(&model, &texts)
    });
    Ok(Json(request.response(made.await?)?))
}

async fn search(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Found>, ApiError> {
    let caller = app.caller(&headers)?;
    let request = read::<SearchRequest>(body).await?.checked(caller)?;
    Ok(Json(app.look_up(move |service| service.search(&request)).await?.into()))
}

async fn models(State(app): State<App>) -> Json<List<Model>> {
    Json(List::of(app.service.models().into_iter().map(Model::from)))
}

async fn model(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    let models = app.service.models();
    match models.iter().find(|m| m.id == id) {
        Some(found) => Ok(Json(found.clone().into())),
        None => Err(ApiError::no_such_model(&id, &names(models.iter()))),
    }
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn no_route(request: Request) -> ApiError {
    let message = format!("there is no {} {}", request.method(), request.uri().path());
    ApiError { code: Some("unknown_url"), ..ApiError::new(StatusCode::NOT_FOUND, message) }
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

impl App {
    fn find(&self, id: &str, used_for: ModelUse) -> Result<(), ApiError> {
        let models = self.service.models();
        let fit = || models.iter().filter(|m| m.used_for == used_for);
        if fit().any(|m| m.id == id) {
            return Ok(());
        }
        Err(ApiError::no_such_model(id, &names(fit())))
    }

    /// Who the headers say asks. What cannot be read is refused, not taken for less.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let values = |name: &Option<String>| -> Result<Vec<String>, ApiError> {
            let Some(name) = name else { return Ok(Vec::new()) };
            let mut values = Vec::new();
            for value in headers.get_all(name.as_str()) {
                let text = std::str::from_utf8(value.as_bytes()).map_err(|_| {
                    ApiError::new(
                        StatusCode::BAD_REQUEST,
                        format!("the header {name} is not UTF-8"),
                    )
                })?;
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                values.extend(names.map(str::to_owned));
            }
            Ok(values)
        };
        let principals = values(&self.headers.principals)?;
        let mut tenants = values(&self.headers.tenant)?;
        if tenants.len() > 1 {
            let message = "a request belongs to one tenant, and its headers name several";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
        }
        Ok(Caller { principals, tenant: tenants.pop() })
    }

    async fn look_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Service) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (turn, service) = (self.lookups.turn().await?, Arc::clone(&self.service));
        match compute(turn, move || work(&*service)).await {
            Ok(result) => Ok(result?),
            Err(panicked) => {
                tracing::error!(%panicked, "request failed");
                Err(ApiError::internal())
            }
        }
    }
}

fn names<'a>(models: impl Iterator<Item = &'a ModelInfo>) -> String {
    let names: Vec<&str> = models.map(|m| m.id.as_str()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = to_bytes(body, BODY_BYTES).await.map_err(|e| {
        // The limit is one cause of two; the other is a client that broke off and reads no answer.
        let message = format!("the body has more than {BODY_BYTES} bytes, or broke off: {e}");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    })?;
    wire::parse(&bytes)
}

/// One span per request: what was asked for and how it went, never what was said.
async fn observe(request: Request, next: Next) -> Response {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    let span =
        tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    let started = Instant::now();
    async move {
        let mut response = next.run(request).await.into_response();
        let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
        tracing::info!(status, ms, "responded");
        if let Ok(value) = HeaderValue::from_str(&format!("req-{id}")) {
            response.headers_mut().insert("x-request-id", value);
        }
        response
    }
    .instrument(span)
    .await
}
