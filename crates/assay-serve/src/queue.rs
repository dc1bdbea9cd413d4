//! Admission to the compute threads: few run, some wait, the rest are refused at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::error::ApiError;

/// Answers that run at once: as many as a model computes in one batch.
pub(crate) const ANSWERS: usize = 32;
/// Embeddings and searches that run at once. Each uses all cores; two, so that a long one does not hold up every
/// short one.
pub(crate) const LOOKUPS: usize = 2;
/// Requests of one kind that may wait for their turn.
const WAITING: usize = 64;

#[derive(Clone)]
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// The right to compute, until dropped.
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

impl Queue {
    pub(crate) fn new(running: usize) -> Self {
        Queue {
            places: Arc::new(Semaphore::new(running + WAITING)),
            running: Arc::new(Semaphore::new(running)),
        }
    }

    /// Waits for a turn; a client that goes away while waiting leaves its place.
    pub(crate) async fn turn(&self) -> Result<Turn, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| ApiError::busy())?;
        let running =
            Arc::clone(&self.running).acquire_owned().await.map_err(|_| ApiError::busy())?;
        Ok(Turn { _place: place, _running: running })
    }
}

/// Runs `work` on a thread for blocking work and keeps the turn until it has ended, even if nobody waits for it.
pub(crate) fn compute<T: Send + 'static>(
    turn: Turn,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        span.in_scope(work)
    })
}
