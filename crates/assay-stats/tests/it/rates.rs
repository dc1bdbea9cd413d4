//! Error rates by simulation: what a test promises, it keeps.

use assay_stats::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    rng.next_u64() as f64 / u64::MAX as f64
}

/// Share of 400 simulated comparisons of 60 documents with 3 questions each that reach p ≤ 0.05, where
/// the documents shift both systems' difference around `delta`.
fn rejections(delta: f64, clustered: bool) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut hits = 0;
    for round in 0..400 {
        let mut items = Vec::new();
        for document in 0..60 {
            let shift = uniform(&mut rng) - 0.5;
            for question in 0..3 {
                let noise = 0.4 * (uniform(&mut rng) - 0.5);
                let name = if clustered {
                    format!("{document}")
                } else {
                    format!("{document}/{question}")
                };
                items.push((name, delta + shift + noise));
            }
        }
        let diffs = Clustered::new(items.iter().map(|(c, d)| (c.as_str(), *d)));
        hits += usize::from(sign_flip_p(&diffs, round) <= 0.05);
    }
    hits as f64 / 400.0
}

#[test]
fn sign_flip_keeps_its_size_only_with_clusters() {
    let clustered = rejections(0.0, true);
    assert!((0.02..=0.08).contains(&clustered), "{clustered}");
    // The same data with questions taken as independent: the error this crate exists to prevent.
    let naive = rejections(0.0, false);
    assert!(naive > 0.15, "{naive}");
    assert!(rejections(0.15, true) > 0.9);
}

#[test]
fn bootstrap_interval_covers() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut covered = [0, 0];
    for round in 0..600 {
        // Skewed: squares of uniforms, mean 1/3.
        let values: Vec<f64> = (0..60).map(|_| uniform(&mut rng).powi(2)).collect();
        let how = Resampling { samples: 600, seed: round, level: 0.95 };
        let b = bootstrap_mean(&Clustered::independent(&values), how).unwrap();
        covered[0] += usize::from(b.percentile.contains(1.0 / 3.0));
        covered[1] += usize::from(b.bca.unwrap().contains(1.0 / 3.0));
    }
    for hits in covered {
        let rate = hits as f64 / 600.0;
        assert!((0.92..=0.975).contains(&rate), "{covered:?}");
    }
}
