//! OpenAI-compatible HTTP server of a release.
//!
//! `POST /v1/chat/completions` (whole or streamed), `POST /v1/embeddings`, `GET /v1/models` and `/v1/models/{id}`,
//! `POST /v1/search`, `GET /healthz`. Citations travel as `annotations` of the message. Errors are OpenAI's error
//! object with the status that belongs to them.
//!
//! What answers is a [`Service`]; this crate knows HTTP and nothing of models. Compute is synchronous and
//! runs on its own threads behind a bounded queue: a request that finds the queue full is refused at once with 503,
//! and a client that goes away stops its own generation.
//!
//! Answers that run at once are meant to be computed in one batch. Beside OpenAI's own parameters, `top_k`, `min_p` and
//! `repetition_penalty` are understood, and `structured_outputs` with a `regex` or a `choice`. In a stream, log-probabilities come with the last piece.
//!
//! It refuses, with 400, parameters that it would otherwise have to ignore against the caller's intent (`n` above 1,
//! tools, biases of logits). It has no authentication and no TLS: bind it to
//! this machine or put it behind a proxy. The proxy may say who asks, in headers ([`CallerHeaders`]); without them
//! every caller is a stranger. It sends no CORS headers, so that no web page can read through it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use assay_serve::{CallerHeaders, DEFAULT_PORT, ServeError, Service, serve};
//!
//! fn run(service: Arc<dyn Service>) -> Result<(), ServeError> {
//!     let at = ([127, 0, 0, 1], DEFAULT_PORT).into();
//!     serve(service, at, CallerHeaders::default(), |at| eprintln!("listening on http://{at}"))
//! }
//! ```

mod chat;
mod error;
mod queue;
mod routes;
mod server;
mod service;
mod wire;

pub use server::{DEFAULT_PORT, ServeError, serve};
pub use service::{
    AnswerForm, AnswerOptions, AnswerRequest, Caller, CallerHeaders, Embeddings, ModelInfo,
    ModelUse, SearchHit, SearchRequest, SearchResponse, Service, ServiceError,
};
