//! Ranking metrics with the semantics of trec_eval 10, one query at a time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

/// Relevance labels of one query: document to grade. Absent documents count as 0, negative grades too.
pub type Grades = BTreeMap<String, i64>;

/// Documents of one query in the order that is scored: score descending, ties by document id descending (byte order).
///
/// A document given more than once, as when several of its chunks were found, counts once with its best score.
pub fn rank_documents<'a>(scored: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<&'a str> {
    let mut scored: Vec<(&str, f64)> = scored.into_iter().collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(a.0)));
    let mut seen = HashSet::new();
    scored.into_iter().map(|(document, _)| document).filter(|d| seen.insert(*d)).collect()
}

/// Share of the relevant documents among the first `k`; `None` when none is relevant.
pub fn recall_at(ranking: &[&str], grades: &Grades, k: usize) -> Option<f64> {
    let found = ranking.iter().take(k).filter(|d| grade(grades, d) > 0).count();
    of_relevant(grades, found as f64)
}

/// One over the rank of the first relevant document, 0 if there is none in the ranking; `None` when none is relevant.
pub fn reciprocal_rank(ranking: &[&str], grades: &Grades) -> Option<f64> {
    relevant(grades)?;
    let first = ranking.iter().position(|d| grade(grades, d) > 0);
    Some(first.map_or(0.0, |i| 1.0 / (i + 1) as f64))
}

/// Average precision over all relevant documents, found or not; `None` when none is relevant.
pub fn average_precision(ranking: &[&str], grades: &Grades) -> Option<f64> {
    let (mut hits, mut sum) = (0usize, 0.0);
    for (i, document) in ranking.iter().enumerate() {
        if grade(grades, document) > 0 {
            hits += 1;
            sum += hits as f64 / (i + 1) as f64;
        }
    }
    of_relevant(grades, sum)
}

/// Normalised discounted cumulative gain of the first `k`, gain = grade, discount log₂(rank + 1), the ideal
/// over all judged documents cut at `k`; `None` when none is relevant.
///
/// Source: K. Järvelin and J. Kekäläinen, ACM TOIS 20 (2002), in trec_eval's linear form.
pub fn ndcg_at(ranking: &[&str], grades: &Grades, k: usize) -> Option<f64> {
    relevant(grades)?;
    let mut ideal: Vec<i64> = grades.values().copied().collect();
    ideal.sort_unstable_by_key(|g| Reverse(*g));
    let gains = ranking.iter().map(|d| grade(grades, d));
    Some(discounted(gains.take(k)) / discounted(ideal.into_iter().take(k)))
}

fn discounted(gains: impl Iterator<Item = i64>) -> f64 {
    gains.enumerate().map(|(i, g)| g.max(0) as f64 / (i as f64 + 2.0).log2()).sum()
}

fn grade(grades: &Grades, document: &str) -> i64 {
    grades.get(document).copied().unwrap_or(0)
}

/// Number of relevant documents, if any.
fn relevant(grades: &Grades) -> Option<usize> {
    Some(grades.values().filter(|g| **g > 0).count()).filter(|n| *n > 0)
}

fn of_relevant(grades: &Grades, sum: f64) -> Option<f64> {
    Some(sum / relevant(grades)? as f64)
}
