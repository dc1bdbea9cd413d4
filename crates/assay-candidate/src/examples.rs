//! Labelled examples as something to retrieve: the nearest training rows by embedding.

use std::sync::Arc;

use assay_index::Embed;

use crate::spec::Shot;
use crate::{CandidateError, nearest};

/// Training rows with their embeddings; exact search.
pub struct ExampleIndex {
    embedder: Arc<dyn Embed>,
    ids: Vec<String>,
    rows: Vec<Shot>,
    vectors: Vec<Vec<f32>>,
}

impl ExampleIndex {
    /// Over rows with their ids and vectors (as the embedder makes them, one per row).
    ///
    /// # Errors
    /// If the numbers of ids, rows and vectors differ, or a vector has another dimension.
    pub fn new(
        embedder: Arc<dyn Embed>,
        ids: Vec<String>,
        rows: Vec<Shot>,
        vectors: Vec<Vec<f32>>,
    ) -> Result<Self, CandidateError> {
        let dims = embedder.dims();
        if ids.len() != rows.len()
            || rows.len() != vectors.len()
            || vectors.iter().any(|v| v.len() != dims)
        {
            return Err(CandidateError::Examples { rows: rows.len(), vectors: vectors.len() });
        }
        Ok(ExampleIndex { embedder, ids, rows, vectors })
    }

    /// The `k` rows nearest to `input`, best last: what stands closest to the input weighs most.
    ///
    /// `exclude` is the id of a row that may not be returned: the row itself, while training.
    ///
    /// # Errors
    /// If the query cannot be embedded.
    pub fn search(
        &self,
        input: &str,
        k: usize,
        exclude: Option<&str>,
    ) -> Result<Vec<Shot>, CandidateError> {
        let query = self.embedder.embed(&[input])?.remove(0);
        let allowed = (0..self.rows.len()).filter(|i| exclude != Some(self.ids[*i].as_str()));
        let mut found: Vec<Shot> = nearest(&query, &self.vectors, allowed, k)
            .into_iter()
            .map(|i| self.rows[i].clone())
            .collect();
        found.reverse();
        Ok(found)
    }
}
