//! Form of an answer, whatever it says: whether it refused, ended, repeated itself.

use std::collections::HashSet;

use assay_types::{FinishReason, Item, Output, Score};

/// 1 if the candidate answered what can be answered or declined what cannot, else 0.
///
/// Skipped where the item does not say whether it is answerable.
pub fn abstention_accuracy(item: &Item, output: &Output) -> Score {
    match item.answerable {
        None => Score::Skipped("the item does not say whether it is answerable".into()),
        Some(answerable) => yes(output.abstained != answerable),
    }
}

/// 1 if the answer ended by itself, 0 if it was cut at the limit of tokens.
pub fn finished(output: &Output) -> Score {
    yes(output.finish == FinishReason::Stop)
}

/// Share of the answer's word 4-grams that stood in it before, 0..1: near 1 in a loop. Lower is better.
///
/// Skipped below four words.
pub fn repetition(output: &Output) -> Score {
    let words: Vec<&str> = output.text.split_whitespace().collect();
    if words.len() < 4 {
        return Score::Skipped("fewer than four words".into());
    }
    let grams = words.windows(4);
    let total = grams.len();
    let distinct = grams.collect::<HashSet<_>>().len();
    Score::Scored((total - distinct) as f64 / total as f64)
}

/// The answer without the source markers of a candidate that was given sources; empty for a refusal.
///
/// A marker is `[1]`, or `[1, 2]`; the white space before it goes with it.
pub fn answer_text(output: &Output) -> String {
    if output.abstained {
        return String::new();
    }
    if output.retrieved.is_empty() {
        return output.text.trim().to_owned();
    }
    let mut text = String::with_capacity(output.text.len());
    let mut rest = output.text.as_str();
    while let Some(open) = rest.find('[') {
        let (before, tail) = rest.split_at(open);
        match tail.find(']').filter(|close| is_marker(&tail[1..*close])) {
            Some(close) => {
                text.push_str(before.trim_end());
                rest = &tail[close + 1..];
            }
            None => {
                text.push_str(before);
                text.push('[');
                rest = &tail[1..];
            }
        }
    }
    text.push_str(rest);
    text.trim().to_owned()
}

fn is_marker(inside: &str) -> bool {
    inside.split(',').all(|n| {
        let n = n.trim();
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())
    })
}

pub(crate) fn yes(is: bool) -> Score {
    Score::Scored(if is { 1.0 } else { 0.0 })
}
