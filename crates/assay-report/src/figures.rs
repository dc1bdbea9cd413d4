//! The figures, as coordinates for the templates.
//!
//! They are composed by hand rather than by a chart library: libraries write fixed colours and pixel
//! fonts into the SVG, and these figures take their colours from the page (light, dark, print), their
//! text from its fonts, and are dots, whiskers and lines only. Wide figures are laid out twice, for a
//! desk and for a phone, so that their text keeps its size.

use assay_decide::{CandidateRecord, ReportData, TrainingHistory};
use serde::Serialize;

use crate::chart::{Axis, Tick, spread};
use crate::format::{ms, percent, percent_interval, short, trimmed, usd};

/// Widths of a figure's two layouts, in pixels.
const LAYOUTS: [(&str, f64); 2] = [("wide", 720.0), ("narrow", 350.0)];

/// A dot with whiskers on a short horizontal axis, in percent of the axis' width.
#[derive(Debug, Serialize)]
pub(crate) struct Whisker {
    dot: f64,
    low: f64,
    high: f64,
}

/// Dots with whiskers that share an axis.
#[derive(Debug, Serialize)]
pub(crate) struct Whiskers {
    pub(crate) rows: Vec<Option<Whisker>>,
    pub(crate) ticks: Vec<Tick>,
}

/// Width of the small axes, in pixels; the dots at the ends need the margin.
const SMALL: f64 = 260.0;
const SMALL_MARGIN: f64 = 8.0;

/// One row per value with its interval. The axis is as wide as the intervals need, within `bounds`,
/// and takes in `also`.
pub(crate) fn whiskers(
    rows: &[(Option<f64>, Option<f64>, Option<f64>)],
    also: Option<f64>,
    bounds: (f64, f64),
    label: impl Fn(f64) -> String,
) -> Whiskers {
    let all: Vec<f64> =
        rows.iter().flat_map(|(v, l, h)| [*v, *l, *h]).flatten().chain(also).collect();
    let (low, high) = range(&all).unwrap_or((0.0, 1.0));
    let axis = Axis::linear(low, high, SMALL_MARGIN, SMALL - SMALL_MARGIN);
    let axis = axis.within(bounds.0, bounds.1);
    let row = |(value, low, high): &(Option<f64>, Option<f64>, Option<f64>)| {
        let value = (*value)?;
        Some(Whisker {
            dot: axis.at(value),
            low: axis.at(low.unwrap_or(value)),
            high: axis.at(high.unwrap_or(value)),
        })
    };
    Whiskers { rows: rows.iter().map(row).collect(), ticks: axis.ticks(4.0, label) }
}

fn range(values: &[f64]) -> Option<(f64, f64)> {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    Some((finite().reduce(f64::min)?, finite().reduce(f64::max)?))
}

/// The frame of a figure: its plot runs from (`left`, `top`) to (`right`, `bottom`).
#[derive(Debug, Serialize)]
pub(crate) struct Frame {
    layout: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
}

impl Frame {
    fn new(layout: &'static str, width: f64, height: f64, label_room: f64) -> Self {
        Frame {
            layout,
            width,
            height,
            left: 46.0,
            right: width - label_room,
            top: 14.0,
            bottom: height - 46.0,
            x_ticks: Vec::new(),
            y_ticks: Vec::new(),
        }
    }

    fn narrow(&self) -> bool {
        self.layout == "narrow"
    }
}

/// A candidate in the picture of quality, latency and cost.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    candidate: usize,
    name: String,
    title: String,
    x: f64,
    y: f64,
    /// The 95th percentile of latency.
    x_high: Option<f64>,
    low: f64,
    high: f64,
    radius: f64,
    label_x: f64,
    label_y: f64,
    anchor: &'static str,
}

/// Quality over latency; the area of a dot is the cost of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Scatter {
    frame: Frame,
    points: Vec<Point>,
    by_cost: bool,
    log: bool,
}

/// One figure per layout, or none if no candidate has both quality and latency.
pub(crate) fn scatter(data: &ReportData) -> Vec<Scatter> {
    let metric = &data.decision.primary_metric;
    let measured: Vec<Measured<'_>> = data
        .decision
        .candidates
        .iter()
        .enumerate()
        .filter_map(|(i, c)| Measured::of(i, c, metric))
        .collect();
    if measured.is_empty() {
        return Vec::new();
    }
    LAYOUTS.map(|(layout, width)| scatter_in(layout, width, &measured)).into()
}

struct Measured<'a> {
    index: usize,
    record: &'a CandidateRecord,
    value: f64,
    low: f64,
    high: f64,
    p50: f64,
    p95: f64,
}

impl<'a> Measured<'a> {
    fn of(index: usize, record: &'a CandidateRecord, metric: &str) -> Option<Self> {
        let summary = record.metrics.get(metric)?;
        let value = summary.value?;
        let p50 = record.latency_ms.p50?;
        Some(Measured {
            index,
            record,
            value,
            low: summary.ci_low.unwrap_or(value),
            high: summary.ci_high.unwrap_or(value),
            p50,
            p95: record.latency_ms.p95.unwrap_or(p50),
        })
    }
}

fn scatter_in(layout: &'static str, width: f64, measured: &[Measured<'_>]) -> Scatter {
    let mut frame = Frame::new(layout, width, if layout == "wide" { 380.0 } else { 340.0 }, 24.0);
    let column = |f: fn(&Measured<'_>) -> f64| measured.iter().map(f).collect::<Vec<_>>();
    let (fastest, slowest) = (range(&column(|m| m.p50)), range(&column(|m| m.p95)));
    let (fastest, slowest) = (fastest.map_or(1.0, |r| r.0), slowest.map_or(1.0, |r| r.1));
    let x = Axis::positive(fastest, slowest, frame.left, frame.right);
    let low = range(&column(|m| m.low)).map_or(0.0, |r| r.0);
    let high = range(&column(|m| m.high)).map_or(1.0, |r| r.1);
    let y = Axis::linear(low, high, frame.bottom, frame.top).within(low.min(0.0), high.max(1.0));
    frame.x_ticks = x.ticks(if frame.narrow() { 3.0 } else { 6.0 }, number_of_ms);
    frame.y_ticks = y.ticks(5.0, |v| format!("{}%", trimmed(100.0 * v)));

    let dearest = measured.iter().filter_map(|m| m.record.cost.per_query_usd).fold(0.0, f64::max);
    let radius = |m: &Measured<'_>| match m.record.cost.per_query_usd {
        // The area is the cost; the smallest dot is still seen.
        Some(cost) if dearest > 0.0 => (13.0 * (cost / dearest).sqrt()).max(4.0),
        _ => 6.0,
    };
    let mut points: Vec<Point> = measured
        .iter()
        .map(|m| Point {
            candidate: m.index % 8,
            name: m.record.name.clone(),
            title: point_title(m),
            x: x.at(m.p50),
            y: y.at(m.value),
            x_high: m.record.latency_ms.p95.map(|p| x.at(p)),
            low: y.at(m.low),
            high: y.at(m.high),
            radius: radius(m),
            label_x: 0.0,
            label_y: 0.0,
            anchor: "start",
        })
        .collect();
    label(&mut points, &frame);
    Scatter {
        points,
        by_cost: dearest > 0.0,
        log: fastest > 0.0 && slowest / fastest > 12.0,
        frame,
    }
}

/// Puts each name beside its dot, where it covers no dot and no name that stands already.
fn label(points: &mut [Point], frame: &Frame) {
    type Box = [f64; 4];
    let apart = |a: &Box, b: &Box| a[2] < b[0] || b[2] < a[0] || a[3] < b[1] || b[3] < a[1];
    let dot = |p: &Point| [p.x - p.radius, p.y - p.radius, p.x + p.radius, p.y + p.radius];
    let mut taken: Vec<Box> = points.iter().map(dot).collect();
    for p in points {
        // Letters are about 7.5 pixels wide at this size.
        let width = 7.5 * p.name.chars().count() as f64;
        let places = [("start", -6.0), ("end", -6.0), ("start", 16.0), ("end", 16.0)];
        let place = |(anchor, dy): (&'static str, f64)| {
            let side = if anchor == "start" { 1.0 } else { -1.0 };
            let (from, base) = (p.x + side * (p.radius + 5.0), p.y + dy);
            let (left, right) =
                if side > 0.0 { (from, from + width) } else { (from - width, from) };
            (anchor, from, base, [left, base - 11.0, right, base + 3.0])
        };
        let free = |&(_, _, _, b): &(&str, f64, f64, Box)| {
            let inside = b[0] >= frame.left && b[2] <= frame.width && b[3] <= frame.bottom;
            inside && taken.iter().all(|t| apart(t, &b))
        };
        let placed = places.into_iter().map(place).find(free).unwrap_or_else(|| place(places[0]));
        (p.anchor, p.label_x, p.label_y) = (placed.0, placed.1, placed.2);
        taken.push(placed.3);
    }
}

fn number_of_ms(v: f64) -> String {
    if v >= 10_000.0 { format!("{}k", trimmed(v / 1000.0)) } else { trimmed(v) }
}

fn point_title(m: &Measured<'_>) -> String {
    let interval = percent_interval(Some(m.low), Some(m.high)).unwrap_or_default();
    let mut title = format!("{}: {} ({interval}), {}", m.record.name, percent(m.value), ms(m.p50));
    if let Some(cost) = m.record.cost.per_query_usd {
        title.push_str(&format!(", {} per answer", usd(cost)));
    }
    title
}

/// A candidate's cumulative cost.
#[derive(Debug, Serialize)]
pub(crate) struct CostLine {
    candidate: usize,
    name: String,
    title: String,
    y_start: f64,
    y_end: f64,
    label_y: f64,
}

/// Where a trained candidate has repaid its training.
#[derive(Debug, Serialize)]
pub(crate) struct Crossing {
    candidate: usize,
    x: f64,
    y: f64,
    title: String,
}

/// Cumulative cost over the number of answers.
#[derive(Debug, Serialize)]
pub(crate) struct BreakEven {
    frame: Frame,
    lines: Vec<CostLine>,
    crossings: Vec<Crossing>,
}

/// One figure per layout, or none where no answer has a price.
pub(crate) fn break_even(data: &ReportData) -> Vec<BreakEven> {
    let lines: Vec<(usize, &CandidateRecord, f64, f64)> = data
        .decision
        .candidates
        .iter()
        .enumerate()
        .filter_map(|(i, c)| {
            Some((i, c, c.cost.training_usd.unwrap_or(0.0), c.cost.per_query_usd?))
        })
        .collect();
    if lines.iter().all(|(_, _, training, per_query)| training + per_query <= 0.0) {
        return Vec::new();
    }
    let end = queries_shown(&lines);
    LAYOUTS.map(|(layout, width)| break_even_in(layout, width, &lines, end)).into()
}

/// How far the curve runs: past the last crossing, else a year of the stated volume, else until the
/// dearest answers have cost as much as the dearest training.
fn queries_shown(lines: &[(usize, &CandidateRecord, f64, f64)]) -> f64 {
    let crossing = lines.iter().filter_map(|(_, c, _, _)| c.cost.break_even_queries);
    let year = lines.iter().filter_map(|(_, c, _, per_query)| {
        Some(12.0 * c.cost.per_month_usd.filter(|_| *per_query > 0.0)? / per_query)
    });
    let repaid = || {
        let training = lines.iter().map(|l| l.2).fold(0.0, f64::max);
        let per_query = lines.iter().map(|l| l.3).fold(0.0, f64::max);
        if training > 0.0 && per_query > 0.0 { 2.0 * training / per_query } else { 1e5 }
    };
    let finite = |x: &f64| x.is_finite() && *x > 0.0;
    crossing
        .filter(finite)
        .reduce(f64::max)
        .map(|x| 1.8 * x)
        .or_else(|| year.filter(finite).reduce(f64::max))
        .unwrap_or_else(repaid)
}

fn break_even_in(
    layout: &'static str,
    width: f64,
    lines: &[(usize, &CandidateRecord, f64, f64)],
    end: f64,
) -> BreakEven {
    let narrow = layout == "narrow";
    let mut frame = Frame::new(layout, width, 320.0, if narrow { 70.0 } else { 100.0 });
    frame.left = 56.0;
    let x = Axis::linear(0.0, end, frame.left, frame.right).within(0.0, end);
    let dearest = lines.iter().map(|l| l.2 + l.3 * end).fold(0.0, f64::max);
    let y = Axis::linear(0.0, dearest, frame.bottom, frame.top);
    frame.x_ticks = x.ticks(if narrow { 3.0 } else { 6.0 }, short);
    frame.y_ticks = y.ticks(5.0, |v| format!("${}", short(v)));
    let wanted: Vec<f64> = lines.iter().map(|l| y.at(l.2 + l.3 * end) + 4.0).collect();
    let placed = spread(&wanted, 15.0, frame.bottom + 4.0);
    let line =
        |((i, c, training, per_query), label_y): (&(usize, &CandidateRecord, f64, f64), f64)| {
            CostLine {
                candidate: i % 8,
                name: c.name.clone(),
                title: format!(
                    "{}: {} for training, then {} per answer",
                    c.name,
                    usd(*training),
                    usd(*per_query)
                ),
                y_start: y.at(*training),
                y_end: y.at(training + per_query * end),
                label_y,
            }
        };
    let crossing = |(i, c, training, per_query): &(usize, &CandidateRecord, f64, f64)| {
        let at = c.cost.break_even_queries.filter(|q| q.is_finite() && *q > 0.0)?;
        Some(Crossing {
            candidate: i % 8,
            x: x.at(at),
            y: y.at(training + per_query * at),
            title: format!("{} has repaid its training after {} answers", c.name, short(at)),
        })
    };
    BreakEven {
        lines: lines.iter().zip(placed).map(line).collect(),
        crossings: lines.iter().filter_map(crossing).collect(),
        frame,
    }
}

/// Loss over the epochs of one training.
#[derive(Debug, Serialize)]
pub(crate) struct TrainingCurve {
    candidate: String,
    frame: Frame,
    train: Vec<(f64, f64)>,
    dev: Vec<(f64, f64)>,
    train_label_y: f64,
    dev_label_y: f64,
    best_x: Option<f64>,
    title: String,
}

/// The curve of one training, or nothing if there is no epoch.
pub(crate) fn training_curve(history: &TrainingHistory) -> Option<TrainingCurve> {
    let epochs = &history.epochs;
    let last = epochs.last()?;
    let losses: Vec<f64> =
        epochs.iter().flat_map(|e| [Some(e.train_loss), e.dev_loss]).flatten().collect();
    let (low, high) = range(&losses)?;
    let mut frame = Frame::new("both", 350.0, 220.0, 44.0);
    frame.left = 38.0;
    let first = epochs.first().map_or(1, |e| e.epoch) as f64;
    // A single epoch stands in the middle.
    let ends =
        if epochs.len() > 1 { (first, last.epoch as f64) } else { (first - 1.0, first + 1.0) };
    let x = |epoch: usize| {
        let share = (epoch as f64 - ends.0) / (ends.1 - ends.0);
        (frame.left + 10.0 + share * (frame.right - frame.left - 20.0)).round()
    };
    let y = Axis::linear(low, high, frame.bottom, frame.top);
    let point = |epoch: usize, loss: f64| loss.is_finite().then(|| (x(epoch), y.at(loss)));
    let train: Vec<_> = epochs.iter().filter_map(|e| point(e.epoch, e.train_loss)).collect();
    let dev: Vec<_> = epochs.iter().filter_map(|e| point(e.epoch, e.dev_loss?)).collect();
    let end_of = |line: &[(f64, f64)]| line.last().map_or(frame.bottom, |p| p.1) + 4.0;
    let labels = spread(&[end_of(&train), end_of(&dev)], 14.0, frame.bottom - 4.0);
    let every = epochs.len().div_ceil(8);
    let x_ticks = epochs.iter().step_by(every);
    let x_ticks = x_ticks.map(|e| Tick { at: x(e.epoch), label: e.epoch.to_string() }).collect();
    let title = format!(
        "Training of {}: loss on train {} after epoch {}{}",
        history.candidate,
        trimmed(last.train_loss),
        last.epoch,
        last.dev_loss.map(|l| format!(", on dev {}", trimmed(l))).unwrap_or_default()
    );
    Some(TrainingCurve {
        candidate: history.candidate.clone(),
        train_label_y: labels[0],
        dev_label_y: labels[1],
        best_x: history.best_epoch.map(&x),
        train,
        dev,
        title,
        frame: Frame { x_ticks, y_ticks: y.ticks(4.0, trimmed), ..frame },
    })
}

/// Risk against coverage of one candidate.
#[derive(Debug, Serialize)]
pub(crate) struct RiskLine {
    candidate: usize,
    name: String,
    title: String,
    points: Vec<(f64, f64)>,
    label_y: f64,
}

/// Risk against coverage, one line per candidate.
#[derive(Debug, Serialize)]
pub(crate) struct RiskCurves {
    frame: Frame,
    lines: Vec<RiskLine>,
}

/// One figure per layout, or none if no candidate's confidence is known.
pub(crate) fn risk_curves(data: &ReportData) -> Vec<RiskCurves> {
    let known = |(i, c): (usize, &CandidateRecord)| {
        let points: Vec<(f64, f64)> =
            c.selective.as_ref()?.curve.iter().map(|p| (p.coverage, p.risk)).collect();
        (!points.is_empty()).then(|| Curve { candidate: i, name: c.name.clone(), points })
    };
    let curves: Vec<_> = data.decision.candidates.iter().enumerate().filter_map(known).collect();
    if curves.is_empty() {
        return Vec::new();
    }
    LAYOUTS.iter().map(|(layout, width)| risk_curves_in(layout, *width, &curves)).collect()
}

struct Curve {
    candidate: usize,
    name: String,
    /// Coverage and risk.
    points: Vec<(f64, f64)>,
}

fn risk_curves_in(layout: &'static str, width: f64, curves: &[Curve]) -> RiskCurves {
    let frame = Frame::new(layout, width, 260.0, 64.0);
    let x = Axis::linear(0.0, 1.0, frame.left, frame.right).within(0.0, 1.0);
    let highest = curves.iter().flat_map(|c| &c.points).fold(0.0f64, |max, p| max.max(p.1));
    let y = Axis::linear(0.0, highest, frame.bottom, frame.top).within(0.0, 1.0);
    let end = |c: &Curve| c.points.last().map_or(frame.bottom, |p| y.at(p.1)) + 4.0;
    let wanted: Vec<f64> = curves.iter().map(end).collect();
    let placed = spread(&wanted, 15.0, frame.bottom - 4.0);
    let line = |(Curve { candidate, name, points }, label_y): (&Curve, f64)| RiskLine {
        candidate: candidate % 8,
        name: name.clone(),
        title: points.last().map_or_else(String::new, |(coverage, risk)| {
            format!("{name}: risk {} at coverage {}", percent(*risk), percent(*coverage))
        }),
        points: points.iter().map(|(c, r)| (x.at(*c), y.at(*r))).collect(),
        label_y,
    };
    RiskCurves {
        lines: curves.iter().zip(placed).map(line).collect(),
        frame: Frame { x_ticks: x.ticks(5.0, percent), y_ticks: y.ticks(5.0, percent), ..frame },
    }
}

/// Before and after on one small axis.
#[derive(Debug, Serialize)]
pub(crate) struct Dumbbell {
    before: f64,
    after: f64,
}

/// One row per pair of shares, on a shared axis.
pub(crate) fn dumbbells(rows: &[(f64, f64)]) -> (Vec<Dumbbell>, Vec<Tick>) {
    let all: Vec<f64> = rows.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let (low, high) = range(&all).unwrap_or((0.0, 1.0));
    // A change of a point should not look like a cliff: the axis spans at least twenty points.
    let middle = (low + high) / 2.0;
    let (low, high) = (low.min(middle - 0.1), high.max(middle + 0.1));
    let axis = Axis::linear(low, high, SMALL_MARGIN, SMALL - SMALL_MARGIN).within(0.0, 1.0);
    let row = |(before, after): &(f64, f64)| Dumbbell {
        before: axis.at(*before),
        after: axis.at(*after),
    };
    let label = |v: f64| format!("{}%", trimmed(100.0 * v));
    (rows.iter().map(row).collect(), axis.ticks(4.0, label))
}
