//! Whether the sources that an answer names are there, and are the right ones.

use std::collections::BTreeSet;

use assay_types::{Item, Output, Score};

/// Share of the emitted source markers that were verified as a byte span of the stored source.
///
/// Skipped when the answer names no source.
pub fn citation_validity(output: &Output) -> Score {
    let emitted = output.citations.len() + output.dropped_citations;
    if emitted == 0 {
        return Score::Skipped("the answer names no source".into());
    }
    Score::Scored(output.citations.len() as f64 / emitted as f64)
}

/// Share of the verified citations that point into a gold document.
///
/// Skipped without gold documents and without verified citations.
pub fn citation_precision(item: &Item, output: &Output) -> Score {
    if item.doc_ids.is_empty() {
        return Score::Skipped("the item names no gold document".into());
    }
    if output.citations.is_empty() {
        return Score::Skipped("the answer has no verified citation".into());
    }
    let right = output.citations.iter().filter(|c| item.doc_ids.contains(&c.document)).count();
    Score::Scored(right as f64 / output.citations.len() as f64)
}

/// Share of the gold documents that the answer cites.
///
/// Skipped without gold documents, and for a candidate that was given no sources. An answer that could have cited and
/// did not, a refusal included, scores 0.
pub fn citation_recall(item: &Item, output: &Output) -> Score {
    if item.doc_ids.is_empty() {
        return Score::Skipped("the item names no gold document".into());
    }
    if output.retrieved.is_empty() {
        return Score::Skipped("no sources were given".into());
    }
    let gold: BTreeSet<&str> = item.doc_ids.iter().map(String::as_str).collect();
    let cited: BTreeSet<&str> = output.citations.iter().map(|c| c.document.as_str()).collect();
    Score::Scored(gold.intersection(&cited).count() as f64 / gold.len() as f64)
}
