//! The seam to servers that hold the vectors in the place of segments.
//!
//! A server holds a projection of the record, as segments are: vectors under the ids of their chunks and documents,
//! and nothing else. Texts, metadata and access stay in the record. Nothing that a server answers is believed: its
//! hits are candidates, which pass the same set of allowed chunks as everything else and are compared again with
//! the record's own vectors. So a server that is behind, or lies, can hide a chunk, but never show one.

use std::borrow::Cow;
use std::collections::HashMap;

/// What the vectors of one index are on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// `assay_` and 32 hexadecimal digits, drawn when the index first used a server. No other index has it.
    pub name: String,
    /// [`Embed::id`](crate::Embed::id) of the model that made the vectors.
    pub embedder: String,
    /// Values of a vector.
    pub dims: usize,
}

/// Names everything that the chunks and vectors of a document follow from: equal keys, equal vectors.
pub type DocumentKey = [u8; 32];

/// Names a state of a collection. The record remembers the one that it set last, so that both know whether they
/// mean the same state, also when one of them was restored from a backup.
pub type Mark = [u8; 16];

/// The vectors of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendDocument {
    /// In the record; never used twice.
    pub id: i64,
    /// Of this version of it.
    pub key: DocumentKey,
    /// Ids of its chunks in the record, at least one.
    pub chunks: Vec<i64>,
    /// Their vectors, one after the other: `[chunks, dims]`.
    pub vectors: Vec<f32>,
}

/// The documents that a search is about, by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among<'a> {
    /// All of the collection.
    All,
    /// These, as far as they are there.
    Only(&'a [i64]),
    /// All but these.
    Except(&'a [i64]),
}

/// A chunk that a server found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// Its id in the record.
    pub chunk: i64,
    /// Dot product with the query, as the server computes it in `f32`.
    pub similarity: f32,
}

/// A server that holds vectors.
///
/// What a method acknowledged by returning is durable as far as the server promises it. Every method may be repeated
/// after an error, whether or not it had its effect. Calls come from many threads.
pub trait VectorBackend: Send + Sync {
    /// Names the server for people, without credentials; the same server always the same way.
    fn server(&self) -> &str;

    /// Whether [`search`](Self::search) may miss chunks unless it is asked to be exact.
    fn is_approximate(&self) -> bool;

    /// Makes the collection unless it is there; its mark, if it was ever given one.
    ///
    /// # Errors
    /// [`BackendError::Mismatch`] if under its name stands one of another embedder, length of vectors or format.
    fn open(&self, collection: &Collection) -> Result<Option<Mark>, BackendError>;

    /// Removes the collection and all in it; nothing happens if there is none.
    ///
    /// # Errors
    /// When the server fails.
    fn clear(&self, collection: &Collection) -> Result<(), BackendError>;

    /// The documents that are there whole, with their keys: those of the given ids, or all.
    ///
    /// # Errors
    /// When the server fails.
    fn documents(
        &self,
        collection: &Collection,
        of: Option<&[i64]>,
    ) -> Result<HashMap<i64, DocumentKey>, BackendError>;

    /// Puts documents in the place of what stands there under their ids or those of their chunks. One that is cut
    /// short is not among [`documents`](Self::documents).
    ///
    /// # Errors
    /// When the server fails.
    fn put(
        &self,
        collection: &Collection,
        documents: &[BackendDocument],
    ) -> Result<(), BackendError>;

    /// Removes documents with all their chunks; those that are not there are none.
    ///
    /// # Errors
    /// When the server fails.
    fn remove(&self, collection: &Collection, documents: &[i64]) -> Result<(), BackendError>;

    /// Gives the collection a mark.
    ///
    /// # Errors
    /// When the server fails.
    fn set_mark(&self, collection: &Collection, mark: Mark) -> Result<(), BackendError>;

    /// The `n` chunks of these documents with the largest dot products with `query`, best first; fewer only if
    /// there are no more, or if the search is approximate and `exact` is not set. Equal ones come in any order.
    ///
    /// # Errors
    /// When the server fails, or the collection is not there.
    fn search(
        &self,
        collection: &Collection,
        query: &[f32],
        n: usize,
        among: Among<'_>,
        exact: bool,
    ) -> Result<Vec<Near>, BackendError>;
}

/// Why a server that holds vectors could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The address in the configuration is none.
    #[error("the vector backend `{given}` is not understood: {what}")]
    Address {
        /// As given, without its password.
        given: String,
        /// What is wrong with it.
        what: String,
    },
    /// The server does not answer.
    #[error("{server} cannot be reached: {source}")]
    Away {
        /// The server.
        server: String,
        /// Its client's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answers, and refuses or fails.
    #[error("{server}: {doing}: {source}")]
    Failed {
        /// The server.
        server: String,
        /// What was asked of it.
        doing: &'static str,
        /// Its own error.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What the user can do, where that is known.
        hint: Option<&'static str>,
    },
    /// Something else stands under the collection's name.
    #[error("{server}: collection {collection} is {found}, not {expected}")]
    Mismatch {
        /// The server.
        server: String,
        /// The collection's name.
        collection: String,
        /// What it says of itself.
        found: String,
        /// What was looked for.
        expected: String,
    },
    /// The server has fewer of the chunks than it acknowledged.
    #[error("{server}: collection {collection} lacks {missing} of {expected} chunks")]
    Incomplete {
        /// The server.
        server: String,
        /// The collection's name.
        collection: String,
        /// How many it did not find.
        missing: usize,
        /// How many it should have found.
        expected: usize,
    },
    /// Sending it what the record has was interrupted, or failed.
    #[error("{server} does not have all vectors yet")]
    Behind {
        /// The server.
        server: String,
    },
}

impl BackendError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            BackendError::Address { .. } => {
                "retrieval.backend is postgres://user@host:5432/database or qdrant://host:6334"
            }
            BackendError::Away { .. } => {
                "is it running, and are retrieval.backend and retrieval.backend_key_env right?"
            }
            BackendError::Failed { hint, .. } => (*hint)?,
            BackendError::Mismatch { .. } | BackendError::Incomplete { .. } => {
                "`assay index rebuild` sends all vectors again"
            }
            BackendError::Behind { .. } => "ingest again",
        };
        Some(Cow::Borrowed(hint))
    }
}
