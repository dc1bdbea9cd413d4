//! Intervals, paired tests, multiplicity and power: the arithmetic behind every claim that one candidate is better.
//!
//! Three habits run through it. Comparisons are **paired**: two systems answered the same items. Uncertainty
//! is **clustered**: questions about one document rise and fall together, so whole documents are resampled
//! and flipped ([`Clustered`]). Nothing is **silently absent**: what cannot be computed is `None`, never 0 or NaN.
//!
//! No I/O, no clock, no hidden randomness: what is random takes a seed and runs on ChaCha, so the same input
//! gives the same bits (McNemar's p goes through the platform's logarithm and may differ in the last one).
//! Values must be finite: a NaN comes out as it went in.
//!
//! ```
//! use assay_stats::{Clustered, Resampling, bootstrap_mean, sign_flip_p};
//!
//! // A minus B on five questions about three documents.
//! let diffs = Clustered::new([("a", 0.2), ("a", 0.4), ("b", 0.1), ("b", 0.3), ("c", 0.5)]);
//! let interval = bootstrap_mean(&diffs, Resampling { samples: 2_000, seed: 1, level: 0.95 }).unwrap();
//! assert!(interval.percentile.contains(diffs.mean().unwrap()));
//! // Three documents can be flipped in 2³ ways: no p below 2/8 exists, however good A looks.
//! assert_eq!(sign_flip_p(&diffs, 1), 0.25);
//! ```

mod clustered;
mod interval;
mod multiplicity;
mod normal;
mod paired;
mod power;
mod resample;
mod selective;
mod summary;

pub use clustered::Clustered;
pub use interval::{Interval, bonett_price, bonett_price_effective, wilson, wilson_effective};
pub use multiplicity::holm;
pub use paired::{Discordant, mcnemar_exact, mcnemar_less_mid_p, mcnemar_mid_p, sign_flip_p};
pub use power::{
    mcnemar_power, minimum_detectable_effect, n_for_paired_mean, n_for_paired_proportions,
    n_for_unpaired_proportions,
};
pub use resample::{BootstrapIntervals, Resampling, bootstrap_mean, bootstrap_statistic};
pub use selective::{Judged, Selected, calibrate, risk_coverage, select};
pub use summary::{MetricSummary, mean, percentile, summarize};
