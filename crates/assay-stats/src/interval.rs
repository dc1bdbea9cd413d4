use serde::{Deserialize, Serialize};

use crate::normal;

/// A closed interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `x` lies in it, ends included.
    pub fn contains(&self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }

    /// For an interval of `a − b`: whether `a` is worse by less than `margin` at most (non-inferiority).
    pub fn non_inferior(&self, margin: f64) -> bool {
        self.low > -margin
    }

    /// Half its length.
    pub fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// Wilson's score interval of a proportion; `None` when `n` is 0.
///
/// `level` is the coverage, e.g. 0.95. The lower end at 0 successes is exactly 0, the upper at `n` exactly 1.
/// Source: E. B. Wilson, JASA 22 (1927).
pub fn wilson(successes: usize, n: usize, level: f64) -> Option<Interval> {
    (n > 0).then(|| wilson_effective(successes as f64 / n as f64, n as f64, level))
}

/// Wilson's interval of a share `p` seen on `n` effective items, which need not be a whole number.
///
/// With `n` divided by the design effect this is the interval for clustered items (Franco, Little, Louis and
/// Slud, Journal of Survey Statistics and Methodology 7, 2019). `n` must be positive, `p` within 0..=1.
pub fn wilson_effective(p: f64, n: f64, level: f64) -> Interval {
    let z = normal::quantile(0.5 + level / 2.0);
    let denominator = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / denominator;
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / denominator;
    Interval {
        low: if p <= 0.0 { 0.0 } else { (centre - half).max(0.0) },
        high: if p >= 1.0 { 1.0 } else { (centre + half).min(1.0) },
    }
}

/// Interval of the difference `(b − c) / n` of two paired proportions; `None` when `n` is 0.
///
/// `b` and `c` are the items that only the first and only the second system got right. One pseudo-count is added to
/// each (adjusted Wald). Source: D. G. Bonett and R. M. Price, Statistics in Medicine 31 (2012).
pub fn bonett_price(b: usize, c: usize, n: usize, level: f64) -> Option<Interval> {
    (n > 0).then(|| bonett_price_effective(b as f64, c as f64, n as f64, level))
}

/// [`bonett_price`] on effective counts, which need not be whole numbers: `b`, `c` and `n > 0` each divided by the
/// design effect of the clusters.
pub fn bonett_price_effective(b: f64, c: f64, n: f64, level: f64) -> Interval {
    let total = n + 2.0;
    let (p, q) = ((b + 1.0) / total, (c + 1.0) / total);
    let half = normal::quantile(0.5 + level / 2.0) * ((p + q - (p - q).powi(2)) / total).sqrt();
    Interval { low: (p - q - half).max(-1.0), high: (p - q + half).min(1.0) }
}
