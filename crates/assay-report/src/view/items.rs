//! The worst items, with every candidate's answer.

use assay_decide::{ReportData, ReportItem, ReportOutput};
use assay_types::{Citation, Retrieved, Score};
use serde::Serialize;

use crate::format::number;

#[derive(Debug, Serialize)]
pub(super) struct ItemView {
    id: String,
    input: String,
    references: Vec<String>,
    documents: Vec<String>,
    slices: Vec<(String, String)>,
    outputs: Vec<OutputView>,
}

#[derive(Debug, Serialize)]
struct OutputView {
    candidate: String,
    colour: usize,
    text: String,
    score: String,
    /// `good`, `half`, `bad` or `none`.
    grade: &'static str,
    /// Why there is no score.
    reason: Option<String>,
    abstained: bool,
    citations: Vec<CitationView>,
    dropped: usize,
    retrieved: Vec<RetrievedView>,
}

#[derive(Debug, Serialize)]
struct CitationView {
    number: usize,
    document: String,
    place: String,
    quote: String,
}

#[derive(Debug, Serialize)]
struct RetrievedView {
    document: String,
    gold: bool,
    in_context: bool,
}

pub(super) fn items(data: &ReportData) -> Vec<ItemView> {
    let names: Vec<&str> = data.decision.candidates.iter().map(|c| c.name.as_str()).collect();
    let view = |item: &ReportItem| ItemView {
        id: item.id.0.clone(),
        input: item.input.clone(),
        references: item.references.clone(),
        documents: item.doc_ids.clone(),
        slices: item.slices.clone().into_iter().collect(),
        outputs: item.outputs.iter().map(|o| output(o, item, &names)).collect(),
    };
    data.items.iter().map(view).collect()
}

fn output(o: &ReportOutput, item: &ReportItem, names: &[&str]) -> OutputView {
    let (score, grade, reason) = match &o.score {
        Score::Scored(v) => (number(*v, 2), grade(*v), None),
        Score::Failed(why) => ("failed".to_owned(), "bad", Some(why.clone())),
        Score::Skipped(why) => ("skipped".to_owned(), "none", Some(why.clone())),
    };
    let citation = |c: &Citation| CitationView {
        number: c.source_number,
        document: c.document.clone(),
        place: match c.pages {
            Some(pages) => format!("{pages}, bytes {}–{}", c.start, c.end),
            None => format!("bytes {}–{}", c.start, c.end),
        },
        quote: c.quote.clone(),
    };
    let retrieved = |r: &Retrieved| RetrievedView {
        document: r.document.clone(),
        gold: item.doc_ids.contains(&r.document),
        in_context: r.in_context,
    };
    OutputView {
        candidate: o.candidate.clone(),
        colour: names.iter().position(|n| *n == o.candidate).unwrap_or(0) % 8,
        text: o.text.clone(),
        score,
        grade,
        reason,
        abstained: o.abstained,
        citations: o.citations.iter().map(citation).collect(),
        dropped: o.dropped_citations,
        retrieved: o.retrieved.iter().map(retrieved).collect(),
    }
}

fn grade(score: f64) -> &'static str {
    match score {
        s if s >= 0.8 => "good",
        s if s >= 0.3 => "half",
        _ => "bad",
    }
}
