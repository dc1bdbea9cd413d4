//! From conversations to tokens with a mask: what is learned is decided here, by position.

use std::fmt;
use std::ops::Range;

use assay_model::Decoder;
use assay_types::{Message, Role, RowRef};

use crate::TrainError;

/// One conversation to learn from. Every assistant turn in it is learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainRow {
    /// The turns, at least one of them by the assistant.
    pub messages: Vec<Message>,
    /// Where the row stands, for messages.
    pub source: RowRef,
}

/// A row as tokens of the decoder's own template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The whole conversation, template included.
    pub tokens: Vec<u32>,
    /// For each token, whether it is learned: assistant content and the stop token that ends it.
    pub supervised: Vec<bool>,
    /// Where the row stands.
    pub source: RowRef,
}

impl Example {
    /// How many tokens are learned.
    pub fn supervised_tokens(&self) -> usize {
        self.supervised.iter().filter(|&&s| s).count()
    }
}

/// What to do with rows that cannot be trained on. They are never cut to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRows {
    /// Fail, naming them.
    Refuse,
    /// Leave them out, and list them in [`TrainSet::skipped`].
    Skip,
}

/// A row that cannot be trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Where it stands.
    pub source: RowRef,
    /// What is wrong with it.
    pub reason: RefusedReason,
}

impl fmt::Display for RefusedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.reason)
    }
}

/// Why a row cannot be trained on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedReason {
    /// It has no assistant turn, or only empty ones.
    #[error("nothing to learn: no assistant turn with text")]
    NoSupervisedTokens,
    /// It does not fit.
    #[error("{tokens} tokens, more than {limit}")]
    TooLong {
        /// Tokens of the row.
        tokens: usize,
        /// The limit: the caller's or the model's context, whichever is less.
        limit: usize,
    },
    /// The template renders the turns before an assistant turn differently once that turn is there,
    /// so the prompt at inference would not be the prompt that was trained.
    #[error("turn {turn}: the template does not render the prompt as a prefix of the conversation")]
    NotPrefix {
        /// The assistant turn, counted from 1.
        turn: usize,
    },
    /// The template ends the turn with none of the model's stop tokens: it would never learn to
    /// stop.
    #[error("turn {turn}: the template ends it without a stop token")]
    NoStopToken {
        /// The assistant turn, counted from 1.
        turn: usize,
    },
    /// The template refuses the conversation, or there is none.
    #[error("{0}")]
    Template(String),
}

/// Rows ready for training, with what there is to know about them beforehand.
#[derive(Clone, Debug)]
pub struct TrainSet {
    /// The rows, in their order.
    pub examples: Vec<Example>,
    /// Rows left out under [`BadRows::Skip`].
    pub skipped: Vec<RefusedRow>,
    /// Tokens per row.
    pub lengths: Histogram,
    /// Learned tokens per row.
    pub supervised: Histogram,
}

/// Renders and tokenises `rows` with the decoder's own template, and marks what is learned.
///
/// Learned is every assistant turn, from the end of its generation prompt to its stop token.
/// `max_tokens` bounds a row; the model's context does too.
///
/// # Errors
/// [`TrainError::Refused`] with all bad rows under [`BadRows::Refuse`].
pub fn prepare(
    decoder: &Decoder,
    rows: &[TrainRow],
    max_tokens: usize,
    bad: BadRows,
) -> Result<TrainSet, TrainError> {
    let limit = max_tokens.min(decoder.config().context_length);
    let (mut examples, mut refused) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match example(decoder, row, limit) {
            Ok(example) => examples.push(example),
            Err(reason) => refused.push(RefusedRow { source: row.source.clone(), reason }),
        }
    }
    if bad == BadRows::Refuse && !refused.is_empty() {
        return Err(TrainError::Refused { refused, total: rows.len() });
    }
    Ok(TrainSet {
        lengths: Histogram::of(examples.iter().map(|e| e.tokens.len())),
        supervised: Histogram::of(examples.iter().map(Example::supervised_tokens)),
        examples,
        skipped: refused,
    })
}

fn example(decoder: &Decoder, row: &TrainRow, limit: usize) -> Result<Example, RefusedReason> {
    let tokens = render(decoder, &row.messages, false)?;
    let mut supervised = vec![false; tokens.len()];
    let turns = row.messages.iter().enumerate();
    for (i, _) in turns.filter(|(_, m)| m.role == Role::Assistant && !m.content.is_empty()) {
        supervised[turn_span(decoder, &row.messages, i, &tokens)?].fill(true);
    }
    if !supervised.contains(&true) {
        return Err(RefusedReason::NoSupervisedTokens);
    }
    if tokens.len() > limit {
        return Err(RefusedReason::TooLong { tokens: tokens.len(), limit });
    }
    Ok(Example { tokens, supervised, source: row.source.clone() })
}

/// Where in `full` the content of assistant turn `i` and its stop token stand.
///
/// The template has no marker for this, so it is found by rendering twice: what is asked before the
/// turn, and everything up to its end. Both must be prefixes of the whole. What the template writes
/// after the stop token (a line break, say) is not learned.
fn turn_span(
    decoder: &Decoder,
    messages: &[Message],
    i: usize,
    full: &[u32],
) -> Result<Range<usize>, RefusedReason> {
    let prompt = render(decoder, &messages[..i], true)?;
    let turn = render(decoder, &messages[..=i], false)?;
    if !full.starts_with(&turn) || !turn.starts_with(&prompt) {
        return Err(RefusedReason::NotPrefix { turn: i + 1 });
    }
    let stops = decoder.stop_tokens();
    let stop = turn[prompt.len()..].iter().rposition(|t| stops.contains(t));
    let stop = stop.ok_or(RefusedReason::NoStopToken { turn: i + 1 })?;
    Ok(prompt.len()..prompt.len() + stop + 1)
}

fn render(
    decoder: &Decoder,
    messages: &[Message],
    generation_prompt: bool,
) -> Result<Vec<u32>, RefusedReason> {
    decoder
        .chat_tokens(messages, generation_prompt)
        .map_err(|e| RefusedReason::Template(e.to_string()))
}

/// `n` of the examples as text for a human to check, evenly spread: what is learned stands between
/// `⟦` and `⟧`, special tokens included.
pub fn audit(decoder: &Decoder, examples: &[Example], n: usize) -> Vec<String> {
    let n = n.min(examples.len());
    (0..n).map(|i| marked(decoder, &examples[i * examples.len() / n])).collect()
}

fn marked(decoder: &Decoder, example: &Example) -> String {
    let mut out = format!("{}\n", example.source);
    let mut start = 0;
    for part in example.supervised.chunk_by(|a, b| a == b) {
        let tokens = &example.tokens[start..start + part.len()];
        let text = decoder.tokenizer().decode(tokens, false);
        start += part.len();
        match part[0] {
            true => out.extend(["⟦", &text, "⟧"]),
            false => out.push_str(&text),
        }
    }
    out
}

/// Distribution of a count over rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Smallest value; 0 without rows.
    pub min: usize,
    /// Lower median; 0 without rows.
    pub median: usize,
    /// Largest value; 0 without rows.
    pub max: usize,
    /// Sum over rows.
    pub total: usize,
    /// Rows by power of two: `(up_to, rows)` counts values in `(up_to / 2, up_to]`; ascending, no
    /// empty ones.
    pub buckets: Vec<(usize, usize)>,
}

impl Histogram {
    fn of(values: impl Iterator<Item = usize>) -> Self {
        let mut values: Vec<usize> = values.collect();
        values.sort_unstable();
        let buckets = values
            .chunk_by(|a, b| a.next_power_of_two() == b.next_power_of_two())
            .map(|b| (b[0].next_power_of_two(), b.len()))
            .collect();
        Histogram {
            min: values.first().copied().unwrap_or(0),
            median: values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0),
            max: values.last().copied().unwrap_or(0),
            total: values.iter().sum(),
            buckets,
        }
    }
}
