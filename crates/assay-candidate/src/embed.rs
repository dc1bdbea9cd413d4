//! The encoder of `assay-model` as the embedder of `assay-index`: the two do not know each other.

use assay_index::{Embed, EmbedError};
use assay_model::Encoder;

/// A sentence encoder as an [`Embed`].
pub struct EncoderEmbedder(Encoder);

impl EncoderEmbedder {
    /// Embeds with `encoder`.
    pub fn new(encoder: Encoder) -> Self {
        EncoderEmbedder(encoder)
    }
}

impl Embed for EncoderEmbedder {
    fn id(&self) -> &str {
        self.0.hash()
    }

    fn dims(&self) -> usize {
        self.0.dims()
    }

    fn max_tokens(&self) -> usize {
        self.0.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        // A text that the tokenizer refuses is too long for every budget.
        self.0.tokens(text).unwrap_or(usize::MAX)
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.embed(texts).map_err(EmbedError::new)
    }

    fn embed_queries(&self, queries: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.embed_queries(queries).map_err(EmbedError::new)
    }
}
