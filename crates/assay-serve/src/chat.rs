//! Runs one answer on a compute thread and turns it into a response, whole or streamed.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use assay_types::Output;
use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::error::ApiError;
use crate::queue::{Turn, compute};
use crate::service::{AnswerRequest, Service, ServiceError};
use crate::wire::chat::{Chunks, Completion, Header};

/// What a compute thread has to say. The number of pieces is bounded by the length of an answer.
enum Piece {
    Text(String),
    End(Result<Output, ServiceError>),
}

/// Answers with one JSON object.
pub(crate) async fn whole(
    service: Arc<dyn Service>,
    request: AnswerRequest,
    turn: Turn,
) -> Result<Response, ApiError> {
    let header = header(&request.model);
    let mut pieces = start(service, request, turn);
    while let Some(piece) = pieces.recv().await {
        if let Piece::End(output) = piece {
            return Ok(Json(Completion::new(header, output?)).into_response());
        }
    }
    Err(ApiError::internal())
}

/// Answers with server-sent events. The status waits for the first text, so that an error before it has its own.
pub(crate) async fn streamed(
    service: Arc<dyn Service>,
    request: AnswerRequest,
    include_usage: bool,
    turn: Turn,
) -> Result<Response, ApiError> {
    let mut chunks = Chunks::new(header(&request.model), include_usage);
    let mut pieces = start(service, request, turn);
    let first = match pieces.recv().await {
        None => return Err(ApiError::internal()),
        Some(Piece::End(Err(error))) => return Err(error.into()),
        Some(piece) => piece,
    };
    let opening = event(&chunks.first());
    let rest = stream::once(async { first }).chain(stream::poll_fn(move |cx| pieces.poll_recv(cx)));
    let events = rest.flat_map(move |piece| stream::iter(events(&mut chunks, piece)));
    let all = stream::iter([opening]).chain(events).map(Ok::<_, Infallible>);
    Ok(Sse::new(all).keep_alive(KeepAlive::default()).into_response())
}

/// Begins to compute. Dropping the receiver stops the generation at its next piece.
fn start(
    service: Arc<dyn Service>,
    request: AnswerRequest,
    turn: Turn,
) -> UnboundedReceiver<Piece> {
    let (pieces, receiver) = unbounded_channel();
    // Nobody waits for the thread: if it panics, its channel closes without an end, and that is reported.
    drop(compute(turn, move || {
        let mut on_text = |text: &str| match pieces.send(Piece::Text(text.to_owned())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let output = service.answer(&request, &mut on_text);
        if let Ok(output) = &output {
            let usage = output.usage;
            tracing::info!(
                model = request.model,
                input_tokens = usage.map(|u| u.input_tokens),
                output_tokens = usage.map(|u| u.output_tokens),
                retrieval_ms = output.timing.retrieval_ms,
                prefill_ms = output.timing.prefill_ms,
                decode_ms = output.timing.decode_ms,
                citations = output.citations.len(),
                client_left = pieces.is_closed(),
                "answered"
            );
        }
        // The client may have left.
        let _ = pieces.send(Piece::End(output));
    }));
    receiver
}

fn events(chunks: &mut Chunks, piece: Piece) -> Vec<Event> {
    match piece {
        Piece::Text(text) => vec![event(&chunks.text(text))],
        Piece::End(Ok(output)) => {
            let mut events: Vec<Event> = chunks.end(&output).iter().map(event).collect();
            events.push(Event::default().data("[DONE]"));
            events
        }
        Piece::End(Err(error)) => vec![event(&ApiError::from(error).body())],
    }
}

fn event(content: &impl Serialize) -> Event {
    // Our own types always serialise; an empty event is what is left if they ever do not.
    Event::default().json_data(content).unwrap_or_default()
}

fn header(model: &str) -> Header {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = format!("chatcmpl-{:x}-{count:x}", now.as_micros());
    Header { id, created: now.as_secs(), model: model.into() }
}
