//! The seam to the model that turns texts into vectors.

/// Turns texts into vectors whose dot product is their similarity.
pub trait Embed: Send + Sync {
    /// Names the model and everything else that decides its vectors: two embedders with the same id give
    /// the same vectors.
    fn id(&self) -> &str;

    /// Length of a vector.
    fn dims(&self) -> usize;

    /// Tokens that are read of a text, special ones included; the rest is ignored.
    fn max_tokens(&self) -> usize;

    /// Tokens of `text`, special ones included, however many there are.
    fn count_tokens(&self, text: &str) -> usize;

    /// One vector of length [`dims`](Self::dims) and norm 1 for each text, in order. The vector of a text
    /// does not depend on the other texts.
    ///
    /// # Errors
    /// When the model fails.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;

    /// Vectors of what documents are searched with; otherwise as [`embed`](Self::embed), and the same unless
    /// the model reads queries in another way than documents.
    ///
    /// # Errors
    /// When the model fails.
    fn embed_queries(&self, queries: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed(queries)
    }
}

/// Why texts could not be embedded.
#[derive(Debug, thiserror::Error)]
#[error("the texts could not be embedded: {0}")]
pub struct EmbedError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl EmbedError {
    /// Wraps the model's own error.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        EmbedError(source.into())
    }
}

/// Checks what came back: one finite vector of the right length for each of `texts` texts.
pub(crate) fn checked(
    embedder: &dyn Embed,
    texts: usize,
    vectors: Vec<Vec<f32>>,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    if vectors.len() != texts {
        let (got, expected) = (vectors.len(), texts);
        return Err(EmbedError::new(format!("{got} vectors for {expected} texts")));
    }
    for vector in &vectors {
        if vector.len() != embedder.dims() {
            let (got, expected) = (vector.len(), embedder.dims());
            return Err(EmbedError::new(format!("a vector of {got} values, not {expected}")));
        }
        if !vector.iter().all(|v| v.is_finite()) {
            return Err(EmbedError::new("a vector with a value that is not finite"));
        }
    }
    Ok(vectors)
}
