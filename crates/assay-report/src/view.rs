//! The report's data as the template prints it: texts and coordinates, nothing to be worked out.

mod evidence;
mod items;

use std::collections::BTreeMap;

use assay_decide::{CandidateRecord, Comparison, Decision, Outcome, ReportData};
use serde::Serialize;

use crate::chart::Tick;
use crate::figures::{self, BreakEven, Scatter, TrainingCurve, Whisker, whiskers};
use crate::format::{
    count, ms, percent, percent_interval, points, points_interval, prose, trimmed, usd, words,
};

/// What is shown where nothing was measured.
const NONE: &str = "–";

/// Text with names set apart, see [`prose`].
type Prose = Vec<(String, bool)>;

fn proses(texts: &[String]) -> Vec<Prose> {
    texts.iter().map(|t| prose(t)).collect()
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    project: String,
    task: &'static str,
    metric: String,
    verdict: Verdict,
    names: Vec<Name>,
    candidates: Candidates,
    metrics: Vec<MetricRow>,
    constraints: Vec<ConstraintRow>,
    comparisons: Comparisons,
    scatter: Vec<Scatter>,
    costs: Costs,
    selective: evidence::SelectiveView,
    general: evidence::GeneralView,
    flow: Vec<evidence::FlowView>,
    slices: Vec<evidence::SliceRow>,
    items: Vec<items::ItemView>,
    training: Vec<TrainingCurve>,
    appendix: evidence::Appendix,
}

impl Report {
    pub(crate) fn of(data: &ReportData) -> Self {
        let d = &data.decision;
        Report {
            project: data.project.clone(),
            task: d.task.as_str(),
            metric: words(&d.primary_metric),
            verdict: Verdict::of(d),
            names: names(d),
            candidates: Candidates::of(d),
            metrics: metrics(d),
            constraints: constraints(d),
            comparisons: Comparisons::of(d),
            scatter: figures::scatter(data),
            costs: Costs::of(data),
            selective: evidence::selective(data),
            general: evidence::general(data),
            flow: evidence::flow(d),
            slices: evidence::slices(d),
            items: items::items(data),
            training: data.training.iter().filter_map(figures::training_curve).collect(),
            appendix: evidence::Appendix::of(data),
        }
    }
}

/// A candidate with the number of its colour.
#[derive(Debug, Serialize)]
struct Name {
    name: String,
    colour: usize,
    winner: bool,
}

fn names(d: &Decision) -> Vec<Name> {
    let name = |(i, c): (usize, &CandidateRecord)| Name {
        name: c.name.clone(),
        colour: i % 8,
        winner: d.winner.as_ref() == Some(&c.name),
    };
    d.candidates.iter().enumerate().map(name).collect()
}

#[derive(Debug, Serialize)]
struct Verdict {
    /// `decided` or `open`.
    state: &'static str,
    badge: &'static str,
    /// The headline: `before`, the winner in bold, `after`.
    before: &'static str,
    winner: Option<String>,
    after: &'static str,
    text: Prose,
    facts: Vec<Fact>,
    warnings: Vec<Prose>,
    flips: Vec<Prose>,
}

#[derive(Debug, Serialize)]
struct Fact {
    label: String,
    value: String,
    note: String,
}

/// Badge and headline of an outcome.
pub(crate) fn headline(outcome: Outcome) -> (&'static str, &'static str, &'static str) {
    match outcome {
        Outcome::Better => ("Decided: significantly better", "Serve ", "."),
        Outcome::Equivalent => {
            ("Decided: equal, and simplest", "Serve ", ", the simplest of equals.")
        }
        Outcome::OnlyEligible => {
            ("Decided: the only one allowed", "Serve ", ", the only one within the limits.")
        }
        Outcome::Inconclusive => ("Not decided", "No significant winner", " yet."),
        Outcome::NoneEligible => ("Not decided", "No candidate", " can be served."),
    }
}

impl Verdict {
    fn of(d: &Decision) -> Self {
        let (badge, before, after) = headline(d.outcome);
        Verdict {
            state: if d.winner.is_some() { "decided" } else { "open" },
            badge,
            before,
            winner: d.winner.clone(),
            after,
            text: prose(&d.verdict),
            facts: facts(d),
            warnings: proses(&d.warnings),
            flips: proses(&d.flips),
        }
    }
}

/// The four figures that a reader wants first.
fn facts(d: &Decision) -> Vec<Fact> {
    let fact = |label: &str, value: String, note: String| Fact { label: label.into(), value, note };
    let mut facts = Vec::new();
    let leader = d.candidates.iter().find(|c| match &d.winner {
        Some(winner) => c.name == *winner,
        None => Some(&c.name) == best(d).as_ref(),
    });
    if let Some(c) = leader {
        let of = if d.winner.is_some() {
            String::new()
        } else {
            format!(" of {}, ahead so far", c.name)
        };
        if let Some((summary, value)) =
            c.metrics.get(&d.primary_metric).and_then(|s| Some((s, s.value?)))
        {
            let interval = percent_interval(summary.ci_low, summary.ci_high)
                .map_or_else(String::new, |i| format!("95% interval {i}"));
            let label = format!("{}{of}", words(&d.primary_metric));
            facts.push(fact(&label, percent(value), interval));
        }
        if let Some(p50) = c.latency_ms.p50 {
            let p95 =
                c.latency_ms.p95.map_or_else(String::new, |p| format!("95th percentile {}", ms(p)));
            facts.push(fact("median latency", ms(p50), p95));
        }
        if let Some(cost) = c.cost.per_query_usd.filter(|cost| *cost > 0.0) {
            let month =
                c.cost.per_month_usd.map_or_else(String::new, |m| format!("{} a month", usd(m)));
            facts.push(fact("cost of 1,000 answers", usd(1000.0 * cost), month));
        }
    }
    if let Some(needed) = d.needed_labels {
        let note = "more test items, to settle it".to_owned();
        facts.push(fact("labels needed", format!("≈ {}", count(needed)), note));
    } else if let Some(mde) = d.minimum_detectable_effect {
        let note = "smallest difference this test shows, 80% power".to_owned();
        facts.push(fact(
            "resolution",
            format!("{} points", trimmed((1000.0 * mde).round() / 10.0)),
            note,
        ));
    }
    facts
}

/// The eligible candidate with the highest value of the primary metric.
fn best(d: &Decision) -> Option<String> {
    let value = |c: &CandidateRecord| c.metrics.get(&d.primary_metric).and_then(|s| s.value);
    let valued = d.candidates.iter().filter(|c| c.eligible).filter_map(|c| Some((value(c)?, c)));
    let best = valued.reduce(|a, b| if b.0 > a.0 { b } else { a })?;
    Some(best.1.name.clone())
}

#[derive(Debug, Serialize)]
struct Candidates {
    rows: Vec<CandidateRow>,
    ticks: Vec<Tick>,
}

#[derive(Debug, Serialize)]
struct CandidateRow {
    value: String,
    interval: Option<String>,
    whisker: Option<Whisker>,
    coverage: String,
    p50: String,
    p95: String,
    /// Medians of retrieval, prompt and answer.
    parts: Option<String>,
    cost: String,
    tokens: Option<String>,
    eligible: bool,
    because: Vec<Prose>,
    notes: Vec<Prose>,
}

impl Candidates {
    fn of(d: &Decision) -> Self {
        let summaries: Vec<_> =
            d.candidates.iter().map(|c| c.metrics.get(&d.primary_metric)).collect();
        let triple = |s: &Option<&assay_decide::MetricSummary>| {
            s.map_or((None, None, None), |s| (s.value, s.ci_low, s.ci_high))
        };
        let triples: Vec<_> = summaries.iter().map(triple).collect();
        let whiskers = whiskers(&triples, None, (0.0, 1.0), |v| format!("{}%", trimmed(100.0 * v)));
        let row = |((c, s), whisker): ((&CandidateRecord, &Option<&_>), Option<Whisker>)| {
            let s: &Option<&assay_decide::MetricSummary> = s;
            CandidateRow {
                value: or_none(s.and_then(|s| s.value).map(percent)),
                interval: s.and_then(|s| percent_interval(s.ci_low, s.ci_high)),
                whisker,
                coverage: s
                    .map_or_else(|| "not measured".into(), |s| coverage(s.n, s.failed, s.skipped)),
                p50: or_none(c.latency_ms.p50.map(ms)),
                p95: or_none(c.latency_ms.p95.map(ms)),
                parts: parts(c),
                cost: or_none(c.cost.per_query_usd.map(|cost| usd(1000.0 * cost))),
                tokens: tokens(c),
                eligible: c.eligible,
                because: proses(&c.ineligible_because),
                notes: proses(&c.notes),
            }
        };
        Candidates {
            rows: d.candidates.iter().zip(&summaries).zip(whiskers.rows).map(row).collect(),
            ticks: whiskers.ticks,
        }
    }
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}

/// `200 items`, with what is missing.
fn coverage(n: usize, failed: usize, skipped: usize) -> String {
    let mut text = format!("{} items", count(n));
    for (number, word) in [(failed, "failed"), (skipped, "skipped")] {
        if number > 0 {
            text.push_str(&format!(", {} {word}", count(number)));
        }
    }
    text
}

fn parts(c: &CandidateRecord) -> Option<String> {
    let l = &c.latency_ms;
    let parts =
        [("retrieval", l.retrieval_p50), ("prompt", l.prefill_p50), ("answer", l.decode_p50)];
    // A candidate that does not retrieve has spent no time on it.
    let spent = parts.iter().filter_map(|(name, p)| Some((name, (*p)?))).filter(|(_, p)| *p > 0.0);
    let shown = spent.map(|(name, p)| format!("{name} {}", ms(p)));
    let text = shown.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

fn tokens(c: &CandidateRecord) -> Option<String> {
    let t = &c.tokens;
    let parts = [
        t.input_mean.map(|n| format!("{n:.0} tokens in")),
        t.output_mean.map(|n| format!("{n:.0} out")),
        t.output_per_s.map(|n| format!("{n:.0} per second")),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

#[derive(Debug, Serialize)]
struct MetricRow {
    name: String,
    primary: bool,
    cells: Vec<MetricCell>,
}

#[derive(Debug, Serialize)]
struct MetricCell {
    value: String,
    interval: Option<String>,
    /// Shown only where items failed: the appendix has the whole coverage.
    failed: Option<String>,
    best: bool,
}

/// Metrics of which less is better.
const LESS_IS_BETTER: [&str; 1] = ["repetition"];

/// Every metric of any candidate, the primary one first.
fn metrics(d: &Decision) -> Vec<MetricRow> {
    let mut names: Vec<&String> = d.candidates.iter().flat_map(|c| c.metrics.keys()).collect();
    names.sort_by_key(|name| (**name != d.primary_metric, *name));
    names.dedup();
    let row = |name: &String| {
        let value = |c: &CandidateRecord| c.metrics.get(name).and_then(|s| s.value);
        let better = if LESS_IS_BETTER.contains(&name.as_str()) { f64::min } else { f64::max };
        let best = d.candidates.iter().filter_map(value).reduce(better);
        let cell = |c: &CandidateRecord| {
            let summary = c.metrics.get(name);
            MetricCell {
                value: or_none(value(c).map(percent)),
                interval: summary.and_then(|s| percent_interval(s.ci_low, s.ci_high)),
                failed: summary.filter(|s| s.failed > 0).map(|s| format!("{} failed", s.failed)),
                best: value(c).is_some() && value(c) == best,
            }
        };
        MetricRow {
            name: words(name),
            primary: *name == d.primary_metric,
            cells: d.candidates.iter().map(cell).collect(),
        }
    };
    names.into_iter().map(row).collect()
}

#[derive(Debug, Serialize)]
struct ConstraintRow {
    name: String,
    limit: String,
    cells: Vec<ConstraintCell>,
}

#[derive(Debug, Serialize)]
struct ConstraintCell {
    value: String,
    ok: bool,
}

fn constraints(d: &Decision) -> Vec<ConstraintRow> {
    let row = |c: &assay_decide::ConstraintRecord| {
        let cell = |candidate: &CandidateRecord| {
            let measured = c.measured.iter().find(|m| m.candidate == candidate.name);
            ConstraintCell {
                value: or_none(measured.and_then(|m| m.value).map(|v| limit(&c.name, v))),
                ok: measured.is_some_and(|m| m.ok),
            }
        };
        let (bound, name) = match (c.name.strip_prefix("max_"), c.name.strip_prefix("min_")) {
            (Some(name), _) => ("at most ", name),
            (_, Some(name)) => ("at least ", name),
            _ => ("", c.name.as_str()),
        };
        ConstraintRow {
            name: limit_name(name),
            limit: format!("{bound}{}", limit(&c.name, c.limit)),
            cells: d.candidates.iter().map(cell).collect(),
        }
    };
    d.constraints.iter().map(row).collect()
}

/// A limit's name without its unit.
fn limit_name(name: &str) -> String {
    let bare = ["_ms", "_usd", "_points"].iter().find_map(|u| name.strip_suffix(u)).unwrap_or(name);
    words(bare)
}

/// A value in the unit that the limit's name ends in; names without a unit are of shares, if they can be.
fn limit(name: &str, value: f64) -> String {
    match name {
        n if n.ends_with("_ms") => ms(value),
        n if n.ends_with("_usd") => usd(value),
        n if n.ends_with("_points") => format!("{} points", trimmed(value)),
        _ if (0.0..=1.0).contains(&value) => percent(value),
        _ => trimmed(value),
    }
}

#[derive(Debug, Serialize)]
struct Comparisons {
    rows: Vec<ComparisonRow>,
    ticks: Vec<Tick>,
    /// Where no difference lies on the small axis.
    zero: Option<f64>,
    tests: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ComparisonRow {
    a: String,
    b: String,
    diff: String,
    interval: Option<String>,
    whisker: Option<Whisker>,
    p: String,
    p_adjusted: String,
    mcnemar: Option<String>,
    n: String,
    clusters: String,
    failed: usize,
    needed: Option<String>,
    significant: bool,
}

impl Comparisons {
    fn of(d: &Decision) -> Self {
        let alpha = d.inputs.settings.get("alpha").and_then(|a| a.parse().ok()).unwrap_or(0.05);
        let comparisons: Vec<Comparison> = d.comparisons.iter().map(better_first).collect();
        let triples: Vec<_> = comparisons.iter().map(|c| (c.diff, c.ci_low, c.ci_high)).collect();
        let whiskers = whiskers(&triples, Some(0.0), (-1.0, 1.0), points_tick);
        let zero = whiskers.ticks.iter().find(|t| t.label == "0").map(|t| t.at);
        let row = |(c, whisker): (&Comparison, Option<Whisker>)| ComparisonRow {
            a: c.a.clone(),
            b: c.b.clone(),
            diff: or_none(c.diff.map(points)),
            interval: points_interval(c.ci_low, c.ci_high),
            whisker,
            p: or_none(c.p_value.map(crate::format::p_value)),
            p_adjusted: or_none(c.p_adjusted.map(crate::format::p_value)),
            mcnemar: c.mcnemar_p.map(crate::format::p_value),
            n: count(c.n),
            clusters: count(c.clusters),
            failed: c.failed,
            needed: c.needed_labels.map(count),
            significant: c.p_adjusted.is_some_and(|p| p < alpha),
        };
        let mut tests: Vec<String> = d.comparisons.iter().map(|c| c.test.clone()).collect();
        tests.sort();
        tests.dedup();
        Comparisons {
            rows: comparisons.iter().zip(whiskers.rows).map(row).collect(),
            ticks: whiskers.ticks,
            zero,
            tests,
        }
    }
}

/// The same comparison written so that its difference is not negative.
pub(crate) fn better_first(c: &Comparison) -> Comparison {
    if c.diff.is_none_or(|diff| diff >= 0.0) {
        return c.clone();
    }
    let negated = |x: Option<f64>| x.map(|x| -x);
    Comparison {
        a: c.b.clone(),
        b: c.a.clone(),
        diff: negated(c.diff),
        ci_low: negated(c.ci_high),
        ci_high: negated(c.ci_low),
        ..c.clone()
    }
}

fn points_tick(v: f64) -> String {
    let text = trimmed(100.0 * v);
    if v > 0.0 { format!("+{text}") } else { text }
}

#[derive(Debug, Serialize)]
struct Costs {
    rows: Vec<CostRow>,
    figure: Vec<BreakEven>,
    prices: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CostRow {
    per_answer: String,
    per_month: String,
    training: String,
    labels: String,
    break_even: Option<String>,
    against: Option<String>,
}

impl Costs {
    fn of(data: &ReportData) -> Self {
        let row = |c: &CandidateRecord| CostRow {
            per_answer: or_none(c.cost.per_query_usd.map(usd)),
            per_month: or_none(c.cost.per_month_usd.map(usd)),
            training: or_none(c.cost.training_usd.map(usd)),
            labels: or_none(c.cost.labels_usd.map(usd)),
            break_even: c
                .cost
                .break_even_queries
                .filter(|q| q.is_finite())
                .map(|q| format!("{} answers", count(q.ceil().max(0.0) as usize))),
            against: c.cost.break_even_against.clone(),
        };
        Costs {
            rows: data.decision.candidates.iter().map(row).collect(),
            figure: figures::break_even(data),
            prices: prices(data),
        }
    }
}

fn prices(data: &ReportData) -> Vec<String> {
    let p = &data.decision.prices;
    let shown = [
        (p.hardware_usd_per_hour, "per hour of the machine"),
        (p.label_usd, "per label"),
        (p.input_usd_per_million_tokens.unwrap_or(0.0), "per million tokens in"),
        (p.output_usd_per_million_tokens.unwrap_or(0.0), "per million tokens out"),
    ];
    let priced = shown.iter().filter(|(price, _)| *price > 0.0);
    priced.map(|(price, of)| format!("{} {of}", usd(*price))).collect()
}

/// Entries of a map as rows of a table.
fn rows<V>(map: &BTreeMap<String, V>, text: impl Fn(&V) -> String) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}
