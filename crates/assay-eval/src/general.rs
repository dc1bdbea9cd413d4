//! The frozen general suite: what a model knew before tuning, it should know after.

use assay_types::Score;
use serde::{Deserialize, Serialize};

use crate::form::yes;

/// A multiple-choice item that is scored by log-likelihood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneralItem {
    /// Unique within the suite.
    pub id: String,
    /// The text before the choice, without trailing space.
    pub context: String,
    /// Continuations, without leading space; the request is context, one space, choice.
    pub choices: Vec<String>,
    /// Index of the right one.
    pub gold: usize,
    /// `cloze`, `knowledge`, `commonsense` or `language`.
    pub category: String,
}

/// The suite of this version, 120 items written for Assay: 30 each of sentence completion, common knowledge,
/// everyday reasoning, and words and grammar.
///
/// It is small on purpose, as it is scored before and after every tuning. It tells damage from no damage; it ranks no
/// models. Changing an item changes what `before` and `after` mean, so the file is frozen per schema version.
pub fn general_suite() -> Vec<GeneralItem> {
    include_str!("general_suite.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("the suite is part of the program"))
        .collect()
}

/// Both readings of one multiple-choice item.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceScore {
    /// 1 if the gold choice has the highest log-likelihood.
    pub acc: Score,
    /// 1 if it has the highest log-likelihood per character of the choice.
    pub acc_norm: Score,
}

/// Scores the log-likelihoods (sum over tokens, natural log) of all choices, as lm-evaluation-harness 0.4 does.
///
/// The first of equal choices wins. A missing or non-finite log-likelihood is a failure.
pub fn score_choices(choices: &[String], gold: usize, log_likelihoods: &[f64]) -> ChoiceScore {
    if log_likelihoods.len() != choices.len() || !log_likelihoods.iter().all(|l| l.is_finite()) {
        let reason =
            format!("{} finite log-likelihoods needed, got {:?}", choices.len(), log_likelihoods);
        return ChoiceScore { acc: Score::Failed(reason.clone()), acc_norm: Score::Failed(reason) };
    }
    let per_character: Vec<f64> = log_likelihoods
        .iter()
        .zip(choices)
        .map(|(l, choice)| l / choice.chars().count() as f64)
        .collect();
    ChoiceScore {
        acc: yes(first_max(log_likelihoods) == Some(gold)),
        acc_norm: yes(first_max(&per_character) == Some(gold)),
    }
}

fn first_max(values: &[f64]) -> Option<usize> {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })
}
