//! Forgetting, questions, slices and the appendix.

use assay_decide::{CandidateRecord, Decision, EvidenceSource, ReportData};
use serde::Serialize;

use super::{NONE, Prose, or_none, proses, rows};
use crate::chart::Tick;
use crate::figures::{Dumbbell, RiskCurves, dumbbells, risk_curves};
use crate::format::{count, number, p_value, percent, points, points_interval, prose, words};

#[derive(Debug, Serialize)]
pub(super) struct GeneralView {
    rows: Vec<GeneralRow>,
    ticks: Vec<Tick>,
    /// Candidates that use the base model as it is.
    unchanged: Vec<String>,
}

#[derive(Debug, Serialize)]
struct GeneralRow {
    /// Place of the candidate.
    candidate: usize,
    before: String,
    after: String,
    diff: String,
    interval: Option<String>,
    p: Option<String>,
    n: String,
    dumbbell: Dumbbell,
    worse: bool,
}

/// The general suite of the candidates whose model was trained; the others answer it as the base model does.
pub(super) fn general(data: &ReportData) -> GeneralView {
    let d = &data.decision;
    let measured = |c: &CandidateRecord| Some((c.general.before?, c.general.after?));
    let trained = |c: &CandidateRecord| data.training.iter().any(|t| t.candidate == c.name);
    let tuned = |c: &CandidateRecord| c.general.before != c.general.after || trained(c);
    let (tuned, unchanged): (Vec<_>, Vec<_>) = d
        .candidates
        .iter()
        .enumerate()
        .filter(|(_, c)| measured(c).is_some())
        .partition(|(_, c)| tuned(c));
    let pairs: Vec<(f64, f64)> = tuned.iter().filter_map(|(_, c)| measured(c)).collect();
    let (bells, ticks) = dumbbells(&pairs);
    let rows = tuned.iter().zip(&pairs).zip(bells).map(|(((i, c), (before, after)), dumbbell)| {
        let g = &c.general;
        GeneralRow {
            candidate: *i,
            before: percent(*before),
            after: percent(*after),
            diff: points(g.diff.unwrap_or(after - before)),
            interval: points_interval(g.ci_low, g.ci_high),
            p: g.p_value.map(p_value),
            n: count(g.n),
            dumbbell,
            worse: after < before,
        }
    });
    GeneralView {
        rows: rows.collect(),
        ticks,
        unchanged: unchanged.iter().map(|(_, c)| c.name.clone()).collect(),
    }
}

/// Risk against coverage, and what a threshold promises.
#[derive(Debug, Serialize)]
pub(super) struct SelectiveView {
    figure: Vec<RiskCurves>,
    max_risk: String,
    level: String,
    promises: Vec<PromiseRow>,
}

#[derive(Debug, Serialize)]
struct PromiseRow {
    /// Place of the candidate.
    candidate: usize,
    threshold: Option<String>,
    promised: String,
    coverage: String,
    risk: String,
    /// Where there is no threshold.
    why: String,
}

pub(super) fn selective(data: &ReportData) -> SelectiveView {
    let promises = || {
        let candidates = data.decision.candidates.iter().enumerate();
        candidates.filter_map(|(i, c)| Some((i, c.selective.as_ref()?.promise?)))
    };
    let rows = promises().map(|(candidate, p)| PromiseRow {
        candidate,
        threshold: p.threshold.map(|t| number(t, 3)),
        promised: or_none(p.dev.map(|d| percent(d.coverage))),
        coverage: percent(p.test.map_or(0.0, |t| t.coverage)),
        risk: or_none(p.test.map(|t| percent(t.risk))),
        why: format!("{} dev items cannot promise it: all is answered", count(p.dev_items)),
    });
    let first = promises().next().map(|(_, p)| p);
    SelectiveView {
        figure: risk_curves(data),
        max_risk: first.map_or_else(String::new, |p| percent(p.max_risk)),
        level: first.map_or_else(String::new, |p| percent(p.level)),
        promises: rows.collect(),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct FlowView {
    question: String,
    answer: Prose,
    evidence: Prose,
    source: &'static str,
    speaks_for: Option<String>,
}

pub(super) fn flow(d: &Decision) -> Vec<FlowView> {
    let view = |s: &assay_decide::FlowStep| FlowView {
        question: s.question.clone(),
        answer: prose(&s.answer),
        evidence: prose(if s.evidence.is_empty() { NONE } else { &s.evidence }),
        source: match s.source {
            EvidenceSource::Stated => "stated",
            EvidenceSource::Measured => "measured",
            EvidenceSource::Unknown => "unknown",
        },
        speaks_for: Some(s.speaks_for.clone()).filter(|s| !s.is_empty()),
    };
    d.flowchart.iter().map(view).collect()
}

#[derive(Debug, Serialize)]
pub(super) struct SliceRow {
    slice: String,
    value: String,
    n: String,
    cells: Vec<SliceCell>,
    winner: Option<String>,
}

#[derive(Debug, Serialize)]
struct SliceCell {
    value: String,
    interval: Option<String>,
    /// Depth of the cell's colour, 0 to 40 percent: the value among all values of the table.
    depth: Option<f64>,
    leader: bool,
}

pub(super) fn slices(d: &Decision) -> Vec<SliceRow> {
    let summary = |c: &CandidateRecord, slice: &str, value: &str| {
        let found = c.slices.iter().find(|s| s.slice == slice && s.value == value);
        found.map(|s| s.summary.clone())
    };
    let values = d
        .candidates
        .iter()
        .flat_map(|c| &c.slices)
        .filter_map(|s| s.summary.value)
        .collect::<Vec<_>>();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let depth = |v: f64| match high > low {
        true => (40.0 * (v - low) / (high - low)).round(),
        false => 20.0,
    };
    let row = |s: &assay_decide::SliceDecision| {
        let cell = |c: &CandidateRecord| {
            let summary = summary(c, &s.slice, &s.value);
            let value = summary.as_ref().and_then(|s| s.value);
            SliceCell {
                value: or_none(value.map(percent)),
                interval: summary
                    .and_then(|s| crate::format::percent_interval(s.ci_low, s.ci_high)),
                depth: value.map(depth),
                leader: s.leader.as_ref() == Some(&c.name),
            }
        };
        SliceRow {
            slice: s.slice.clone(),
            value: s.value.clone(),
            n: count(s.n),
            cells: d.candidates.iter().map(cell).collect(),
            winner: s.winner.clone(),
        }
    };
    d.slices.iter().map(row).collect()
}

#[derive(Debug, Serialize)]
pub(super) struct Appendix {
    notes: Vec<Prose>,
    hashes: Vec<(String, String)>,
    seeds: Vec<(String, String)>,
    counts: Vec<(String, String)>,
    settings: Vec<(String, String)>,
    times: Vec<(String, String)>,
    coverage: Vec<CoverageRow>,
    schema_version: u32,
}

#[derive(Debug, Serialize)]
struct CoverageRow {
    candidate: String,
    metric: String,
    n: String,
    failed: String,
    skipped: String,
}

impl Appendix {
    pub(super) fn of(data: &ReportData) -> Self {
        let d = &data.decision;
        let coverage = d.candidates.iter().flat_map(|c| {
            c.metrics.iter().map(|(metric, s)| CoverageRow {
                candidate: c.name.clone(),
                metric: words(metric),
                n: count(s.n),
                failed: count(s.failed),
                skipped: count(s.skipped),
            })
        });
        Appendix {
            notes: proses(&data.method_notes),
            hashes: rows(&d.inputs.hashes, String::clone),
            seeds: rows(&d.inputs.seeds, u64::to_string),
            counts: rows(&d.inputs.counts, |n| count(*n)),
            settings: rows(&d.inputs.settings, |s| match s.is_empty() {
                true => NONE.to_owned(),
                false => s.clone(),
            }),
            times: rows(&d.times, |s| format!("{} s", number(*s, 1))),
            coverage: coverage.collect(),
            schema_version: d.schema_version,
        }
    }
}
