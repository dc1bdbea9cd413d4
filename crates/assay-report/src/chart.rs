//! Axes and labels: the geometry that all figures share.

use serde::Serialize;

/// A scale from values to pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Tick {
    pub(crate) at: f64,
    pub(crate) label: String,
}

impl Axis {
    /// A linear axis for values `low..=high` on pixels `from..=to`, widened to round ends.
    pub(crate) fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, high + 0.5) };
        let step = step(high - low, 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Axis { low, high, from, to, log: false }
    }

    /// An axis for positive values: logarithmic if they span more than a factor of 12, else linear from 0.
    pub(crate) fn positive(low: f64, high: f64, from: f64, to: f64) -> Self {
        if low > 0.0 && high / low > 12.0 {
            Axis { low: low / 1.4, high: high * 1.4, from, to, log: true }
        } else {
            Axis::linear(0.0, high.max(f64::MIN_POSITIVE), from, to)
        }
    }

    /// Keeps a linear axis within the values that can occur.
    pub(crate) fn within(mut self, low: f64, high: f64) -> Self {
        self.low = self.low.max(low);
        self.high = self.high.min(high);
        self
    }

    /// The pixel of a value, rounded to a tenth; values outside end at the edge.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.log { v.ln() } else { v };
        let value = value.clamp(self.low, self.high);
        let share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low));
        (10.0 * (self.from + share * (self.to - self.from))).round() / 10.0
    }

    /// About `n` round values.
    pub(crate) fn ticks(&self, n: f64, label: impl Fn(f64) -> String) -> Vec<Tick> {
        let values: Vec<f64> = if self.log {
            let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            let few = (self.high / self.low).log10() > 2.5;
            let steps: &[f64] = if few { &[1.0] } else { &[1.0, 2.0, 5.0] };
            decades.flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d))).collect()
        } else {
            let step = step(self.high - self.low, n);
            let first = (self.low / step).ceil() as i64;
            let last = (self.high / step + 1e-9).floor() as i64;
            (first..=last).map(|i| i as f64 * step).collect()
        };
        let inside =
            |v: &f64| *v >= self.low * (1.0 - 1e-9) - 1e-12 && *v <= self.high * (1.0 + 1e-9);
        values
            .into_iter()
            .filter(inside)
            .map(|v| Tick { at: self.at(v), label: label(v) })
            .collect()
    }
}

/// A round step that parts `span` into about `n`.
fn step(span: f64, n: f64) -> f64 {
    let raw = span / n;
    let magnitude = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * magnitude >= raw * 0.999);
    factor.unwrap_or(10.0) * magnitude
}

/// Moves labels apart: each at least `gap` below the one above it, none below `bottom`, in their order.
pub(crate) fn spread(wanted: &[f64], gap: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut least = f64::NEG_INFINITY;
    for &i in &order {
        placed[i] = placed[i].max(least);
        least = placed[i] + gap;
    }
    let mut most = bottom;
    for &i in order.iter().rev() {
        placed[i] = placed[i].min(most);
        most = placed[i] - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: Axis, n: f64) -> Vec<String> {
        axis.ticks(n, crate::format::trimmed).into_iter().map(|t| t.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            labels(Axis::linear(0.41, 0.87, 0.0, 1.0), 5.0),
            ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]
        );
        assert_eq!(labels(Axis::linear(3.0, 3.0, 0.0, 1.0), 4.0), ["2.5", "3", "3.5"]);
        assert_eq!(
            labels(Axis::positive(90.0, 4000.0, 0.0, 1.0), 5.0),
            ["100", "200", "500", "1,000", "2,000", "5,000"]
        );
        assert_eq!(
            labels(Axis::positive(90.0, 200.0, 0.0, 1.0), 4.0),
            ["0", "50", "100", "150", "200"]
        );
    }

    #[test]
    fn values_keep_to_the_axis() {
        let axis = Axis::linear(0.0, 10.0, 100.0, 200.0);
        assert_eq!([axis.at(0.0), axis.at(5.0), axis.at(99.0)], [100.0, 150.0, 200.0]);
    }

    #[test]
    fn labels_do_not_overlap() {
        assert_eq!(spread(&[10.0, 12.0, 50.0], 14.0, 100.0), [10.0, 24.0, 50.0]);
        assert_eq!(spread(&[98.0, 97.0], 14.0, 100.0), [100.0, 86.0]);
    }
}
