use crate::config::DecoderConfig;
use crate::error::ModelError;

/// Documents one behind the other, none seeing another; positions begin at 0 in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Tokens of all documents.
    pub tokens: Vec<u32>,
    /// Cumulative starts `[0, …, tokens.len()]`.
    pub segments: Vec<usize>,
    /// Whether a token is a target, predicted from those before it. The first token of a document
    /// has none before it and cannot be one.
    pub supervised: Vec<bool>,
}

impl PackedBatch {
    /// Packs `(tokens, supervised)` rows.
    pub fn pack<'a>(rows: impl IntoIterator<Item = (&'a [u32], &'a [bool])>) -> Self {
        let mut batch = PackedBatch { segments: vec![0], ..PackedBatch::default() };
        for (tokens, supervised) in rows {
            batch.tokens.extend_from_slice(tokens);
            batch.supervised.extend_from_slice(supervised);
            batch.segments.push(batch.tokens.len());
        }
        batch
    }

    /// Number of targets.
    pub fn targets(&self) -> usize {
        self.supervised.iter().filter(|&&s| s).count()
    }

    /// Position of every token within its document.
    pub(crate) fn positions(&self) -> Vec<u32> {
        self.segments.windows(2).flat_map(|s| 0..(s[1] - s[0]) as u32).collect()
    }

    pub(crate) fn check(&self, config: &DecoderConfig) -> Result<(), ModelError> {
        let refuse = |why| Err(ModelError::Batch(why));
        if self.supervised.len() != self.tokens.len() {
            return refuse("`supervised` and `tokens` differ in length");
        }
        if self.segments.first() != Some(&0) || self.segments.last() != Some(&self.tokens.len()) {
            return refuse("`segments` must run from 0 to the number of tokens");
        }
        if !self.segments.is_sorted() {
            return refuse("`segments` must increase");
        }
        let mut starts = self.segments.windows(2).filter(|s| s[0] < s[1]).map(|s| s[0]);
        if starts.any(|start| self.supervised[start]) {
            return refuse("the first token of a document cannot be a target");
        }
        let longest = self.segments.windows(2).map(|s| s[1] - s[0]).max().unwrap_or(0);
        if longest > config.context_length {
            return Err(ModelError::TooLong { tokens: longest, limit: config.context_length });
        }
        check_tokens(&self.tokens, config)
    }
}

pub(crate) fn check_tokens(tokens: &[u32], config: &DecoderConfig) -> Result<(), ModelError> {
    match tokens.iter().find(|&&t| t as usize >= config.vocab) {
        Some(&token) => Err(ModelError::UnknownToken { token, vocab: config.vocab }),
        None => Ok(()),
    }
}

/// A sum of negative log-likelihoods and the number of its terms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// In nats.
    pub nll: f64,
    /// Targets.
    pub tokens: usize,
}

impl LossSum {
    /// Mean per target; NaN without targets.
    pub fn mean(&self) -> f64 {
        self.nll / self.tokens as f64
    }
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: Self) {
        self.nll += other.nll;
        self.tokens += other.tokens;
    }
}
