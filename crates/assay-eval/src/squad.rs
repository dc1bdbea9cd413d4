//! Exact match and token F1 as the official SQuAD scripts compute them.

use std::collections::HashMap;

/// Which official script to agree with where a text normalises to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SquadRules {
    /// SQuAD 1.1: no shared token is 0, even between two empty texts.
    V1,
    /// SQuAD 2.0: if either side is empty, 1 iff both are; golds that normalise to nothing are dropped, and without
    /// any gold the right answer is the empty one (unanswerable).
    V2,
}

/// Lower case, ASCII punctuation deleted (no space put in), articles dropped, white space collapsed.
///
/// So "state-of-the-art" becomes "stateoftheart", and curly quotes stay, as in the official scripts.
pub fn squad_normalize(text: &str) -> String {
    squad_tokens(text).join(" ")
}

/// Exact match, 0 or 1: the best over all golds. `None` under V1 rules without golds.
pub fn squad_exact_match(prediction: &str, golds: &[String], rules: SquadRules) -> Option<f64> {
    let prediction = squad_tokens(prediction);
    best(golds, rules, |gold| if *gold == prediction { 1.0 } else { 0.0 })
}

/// Token F1, 0..=1: the best over all golds. `None` under V1 rules without golds.
pub fn squad_f1(prediction: &str, golds: &[String], rules: SquadRules) -> Option<f64> {
    let prediction = squad_tokens(prediction);
    best(golds, rules, |gold| {
        if rules == SquadRules::V2 && (gold.is_empty() || prediction.is_empty()) {
            return if *gold == prediction { 1.0 } else { 0.0 };
        }
        bag_f1(&prediction, gold)
    })
}

fn best(golds: &[String], rules: SquadRules, score: impl Fn(&Vec<String>) -> f64) -> Option<f64> {
    let mut golds: Vec<Vec<String>> = golds.iter().map(|g| squad_tokens(g)).collect();
    if rules == SquadRules::V2 {
        golds.retain(|g| !g.is_empty());
        if golds.is_empty() {
            golds.push(Vec::new());
        }
    }
    golds.iter().map(score).reduce(f64::max)
}

/// F1 of two bags of tokens; 0 without a shared one.
pub(crate) fn bag_f1<T: std::hash::Hash + Eq>(prediction: &[T], gold: &[T]) -> f64 {
    let mut left: HashMap<&T, usize> = HashMap::new();
    gold.iter().for_each(|t| *left.entry(t).or_default() += 1);
    let mut shared = 0usize;
    for token in prediction {
        if let Some(count) = left.get_mut(token).filter(|c| **c > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    harmonic(shared, prediction.len(), gold.len())
}

/// F1 from the number of hits and the sizes of both sides; 0 without hits.
pub(crate) fn harmonic(hits: usize, predicted: usize, gold: usize) -> f64 {
    if hits == 0 {
        return 0.0;
    }
    let precision = hits as f64 / predicted as f64;
    let recall = hits as f64 / gold as f64;
    2.0 * precision * recall / (precision + recall)
}

fn squad_tokens(text: &str) -> Vec<String> {
    let lower: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut spaced = String::with_capacity(lower.len());
    let mut rest = lower.as_str();
    while let Some(first) = rest.chars().next() {
        // Word boundaries are where letters or digits meet anything else, which is not always white space.
        let word = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != word).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        spaced.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = tail;
    }
    spaced.split(python_space).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

/// White space as Python's `str.split` knows it: Unicode's, and the four ASCII separators.
fn python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
