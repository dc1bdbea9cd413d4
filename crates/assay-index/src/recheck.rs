//! Chunks that were found a while ago, looked at again: rerankers and rewriters take their time.

use crate::{Hit, Index, IndexError, Query};

impl Index {
    /// Of each hit whether its document is still this one, seen by who asked, and of what was asked for.
    ///
    /// # Errors
    /// [`IndexError::Filter`] for a filter that makes no sense on these documents, and when SQLite fails.
    pub fn still_found(&self, hits: &[Hit], query: &Query<'_>) -> Result<Vec<bool>, IndexError> {
        self.record().read(|r| {
            let still = |hit: &Hit| {
                let Some(stored) = r.chunk_at(&hit.document, hit.span.start)? else {
                    return Ok(false);
                };
                let fits = match query.filter {
                    Some(filter) => filter.matches(&stored.properties.metadata)?,
                    None => true,
                };
                let seen = fits && query.viewer.sees(&stored.properties);
                Ok(seen && Hit::unranked(stored).chunk_id == hit.chunk_id)
            };
            hits.iter().map(still).collect()
        })
    }

    /// The vectors of hits, of norm 1 or about; `None` of one that is gone. This does not ask who may see it.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn vectors(&self, hits: &[Hit]) -> Result<Vec<Option<Vec<f32>>>, IndexError> {
        let dims = self.embedder.dims();
        self.record().read(|r| {
            let vector = |hit: &Hit| {
                let vector = r.vector_at(&hit.document, hit.span.start)?;
                Ok(vector.filter(|v| v.len() == dims))
            };
            hits.iter().map(vector).collect()
        })
    }
}
