//! Texts to tokens of a transformer.

use std::path::PathBuf;

use tokenizers::{
    Encoding, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use super::config::{Config, Family};
use super::error::EncoderError;
use super::files::Files;

/// One input of the transformer, special tokens included; every id is below the vocabulary's size.
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// Token types, as many as ids.
    pub(super) types: Vec<u32>,
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
    lowercase: bool,
    vocabulary: usize,
    /// Largest token type that a text or its pair may have.
    last_type: u32,
    pub(super) max_tokens: usize,
}

impl TextTokenizer {
    pub(super) fn open(files: &mut Files<'_>, config: &Config) -> Result<Self, EncoderError> {
        let path = files.dir.join("tokenizer.json");
        let bytes = files.read("tokenizer.json")?;
        let bad = |reason| EncoderError::Tokenizer { path: path.clone(), reason };
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| bad(e.to_string()))?;
        // The file may ask for padding and for a shorter limit than the model's own.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| bad(e.to_string()))?;
        let tokenizer = TextTokenizer {
            tokenizer,
            path,
            lowercase: config.lowercase,
            vocabulary: config.vocabulary,
            // Only BERT's own tokenizers hand their types to the model.
            last_type: if config.family == Family::Bert { config.types as u32 - 1 } else { 0 },
            max_tokens: config.max_tokens,
        };
        let added = tokenizer.added(true);
        if added >= config.max_tokens {
            let limit = config.max_tokens;
            let reason = format!("adds {added} tokens to a text, and the model takes {limit}");
            return Err(tokenizer.error(reason));
        }
        Ok(tokenizer)
    }

    /// Length of `text` in tokens, special ones included, before any cut.
    pub(super) fn count(&self, text: &str) -> Result<usize, EncoderError> {
        Ok(self.encode(text)?.len() + self.added(false))
    }

    /// `text`, cut to the model's limit.
    pub(super) fn text(&self, text: &str) -> Result<Tokens, EncoderError> {
        self.finish(self.encode(text)?, None)
    }

    /// A query, from [`encode`](Self::encode), and a document; where both do not fit, the longer one is cut
    /// first, then both.
    pub(super) fn pair(&self, query: Encoding, document: &str) -> Result<Tokens, EncoderError> {
        self.finish(query, Some(self.encode(document)?))
    }

    pub(super) fn encode(&self, text: &str) -> Result<Encoding, EncoderError> {
        let lower;
        let text = if self.lowercase {
            lower = text.to_lowercase();
            lower.as_str()
        } else {
            text
        };
        self.tokenizer.encode_fast(text, false).map_err(|e| self.error(e.to_string()))
    }

    fn finish(&self, text: Encoding, pair: Option<Encoding>) -> Result<Tokens, EncoderError> {
        let params = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: self.max_tokens - self.added(pair.is_some()),
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let error = |e: tokenizers::Error| self.error(e.to_string());
        let (text, pair) = truncate_encodings(text, pair, &params).map_err(error)?;
        let encoding = self.tokenizer.post_process(text, pair, true).map_err(error)?;
        let ids = encoding.get_ids().to_vec();
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(self.error(format!("gives token {id}, the model has {}", self.vocabulary)));
        }
        let types = encoding.get_type_ids().iter().map(|&kind| kind.min(self.last_type)).collect();
        Ok(Tokens { ids, types })
    }

    /// Whether every input has a first token of its own.
    pub(super) fn has_special_tokens(&self) -> bool {
        self.added(false) > 0
    }

    /// Special tokens that are added to a text or to a pair.
    fn added(&self, pair: bool) -> usize {
        use tokenizers::PostProcessor;
        self.tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(pair))
    }

    pub(super) fn error(&self, reason: String) -> EncoderError {
        EncoderError::Tokenizer { path: self.path.clone(), reason }
    }
}
