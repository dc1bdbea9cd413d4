use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token or stop string.
    Stop,
    /// The limit on new tokens, or the end of the context.
    Length,
}

/// A verified quote: `source[start..end] == quote`, byte offsets into the stored source text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Citation {
    /// Path of the document, relative to the documents folder.
    pub document: String,
    /// First byte of the quote in the stored source.
    pub start: usize,
    /// One past the last byte of the quote.
    pub end: usize,
    /// The quoted text, equal to those bytes.
    pub quote: String,
    /// Number of the source in the prompt, from 1, as the answer refers to it: `[1]`.
    pub source_number: usize,
    /// Whether the model's marker named another source, and was changed to the one that holds the words.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repaired: bool,
    /// Where the quote stands in the file, if its format has pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<Pages>,
}

/// Pages, slides or sheets of a file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// The first.
    pub first: u32,
    /// The last, which may be the same.
    pub last: u32,
}

impl From<RangeInclusive<u32>> for Pages {
    fn from(pages: RangeInclusive<u32>) -> Self {
        Pages { first: *pages.start(), last: *pages.end() }
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pages { first, last } if first == last => write!(f, "p. {first}"),
            Pages { first, last } => write!(f, "pp. {first}–{last}"),
        }
    }
}

/// A chunk that was retrieved for an item, best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retrieved {
    /// Path of the document, relative to the documents folder.
    pub document: String,
    /// First byte of the chunk in the stored source.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Fused score; larger is better, comparable within one query only.
    pub score: f64,
    /// Whether the chunk fitted into the prompt's token budget.
    pub in_context: bool,
}

/// Where the time of one answer went, in milliseconds of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Embedding the query, searching, assembling the context.
    pub retrieval_ms: f64,
    /// From the prompt's tokens to the first new token.
    pub prefill_ms: f64,
    /// All further tokens.
    pub decode_ms: f64,
}

impl Timing {
    /// The whole answer, in milliseconds.
    pub fn total_ms(&self) -> f64 {
        self.retrieval_ms + self.prefill_ms + self.decode_ms
    }
}

/// Tokens of one answer, counted by the served model's own tokenizer; of a remote model, with the tries that were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt, template included.
    pub input_tokens: usize,
    /// Generated, stop token included.
    pub output_tokens: usize,
}

/// A token and how likely the model found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LikelyToken {
    /// What it stands for; possibly a part of a character.
    pub bytes: Vec<u8>,
    /// Log-probability in nats, before temperature, penalties and constraints.
    pub log_prob: f32,
}

/// A token of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChosenToken {
    /// The token.
    pub token: LikelyToken,
    /// The most likely tokens at its place, best first, as many as were asked for.
    pub top: Vec<LikelyToken>,
}

/// What a candidate made of an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The answer, source markers like `[1]` included where the candidate cites.
    pub text: String,
    /// Verified citations.
    pub citations: Vec<Citation>,
    /// Markers in the answer that could not be verified, and were dropped.
    pub dropped_citations: usize,
    /// What was retrieved, best first; empty for candidates without retrieval.
    pub retrieved: Vec<Retrieved>,
    /// Whether the candidate declined to answer.
    pub abstained: bool,
    /// Why generation ended.
    pub finish: FinishReason,
    /// Where the time went.
    pub timing: Timing,
    /// Tokens in and out; `None` where the server of a remote model does not tell.
    pub usage: Option<Usage>,
    /// How likely the model found its own answer: the geometric mean of its tokens' probabilities, the stop token
    /// included; `None` where the server of a remote model does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// How likely each generated token was, the stop token excepted; empty unless asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_probs: Vec<ChosenToken>,
}
