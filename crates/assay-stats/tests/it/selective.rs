//! Thresholds that keep their promise.

use assay_stats::{Judged, calibrate, risk_coverage, select};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Answers whose chance to be wrong falls from 0.8 to 0 with the confidence; `graded` losses are not only 0 and 1.
fn draw(rng: &mut ChaCha8Rng, n: usize, graded: bool) -> Vec<(f64, f64)> {
    (0..n)
        .map(|_| {
            let confidence = uniform(rng);
            let wrong = uniform(rng) < 0.8 * (1.0 - confidence);
            let loss = match (wrong, graded) {
                (false, _) => 0.0,
                (true, false) => 1.0,
                (true, true) => 0.5 + uniform(rng) / 2.0,
            };
            (confidence, loss)
        })
        .collect()
}

/// True risk above a threshold: 0.8 times the mean of `1 - confidence` there, times the mean loss of what is wrong.
fn true_risk(threshold: f64, graded: bool) -> f64 {
    0.8 * (1.0 - threshold) / 2.0 * if graded { 0.75 } else { 1.0 }
}

#[test]
fn promises_are_broken_as_seldom_as_said() {
    let names: Vec<String> = (0..1500).map(|i| i.to_string()).collect();
    for graded in [false, true] {
        for max_risk in [0.1, 0.25] {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let (mut made, mut broken, mut coverage) = (0, 0, 0.0);
            for _ in 0..400 {
                let answers: Vec<Judged<'_>> = draw(&mut rng, 1500, graded)
                    .into_iter()
                    .zip(&names)
                    .map(|((confidence, loss), cluster)| Judged { cluster, confidence, loss })
                    .collect();
                if let Some(chosen) = calibrate(&answers, 1500, max_risk, 0.9) {
                    made += 1;
                    broken += usize::from(true_risk(chosen.threshold, graded) > max_risk);
                    coverage += chosen.coverage;
                }
            }
            assert!(made > 200, "{graded} {max_risk}: promised {made} times of 400");
            assert!(broken <= 40, "{graded} {max_risk}: broken {broken} of {made}");
            assert!(coverage / f64::from(made) > 0.1);
        }
    }
}

fn judged(confidence: f64, loss: f64) -> Judged<'static> {
    Judged { cluster: "", confidence, loss }
}

#[test]
fn the_curve_counts_ties_together_and_declined_items_as_not_covered() {
    let answers = [judged(0.9, 0.0), judged(0.5, 1.0), judged(0.5, 0.0), judged(0.1, 1.0)];
    let curve = risk_coverage(&answers, 8);
    let points: Vec<_> = curve.iter().map(|p| (p.threshold, p.coverage, p.n)).collect();
    assert_eq!(points, [(0.9, 0.125, 1), (0.5, 0.375, 3), (0.1, 0.5, 4)]);
    assert_eq!(curve[1].risk, 1.0 / 3.0);
    assert_eq!(select(&answers, 8, 0.5), Some(curve[1]));
    assert_eq!(select(&answers, 8, 0.95), None);
    assert!(risk_coverage(&[], 8).is_empty());
}

#[test]
fn few_items_promise_nothing_and_alike_ones_count_less() {
    let names: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let right = |n: usize, cluster: &dyn Fn(usize) -> usize| -> Vec<Judged<'_>> {
        (0..n)
            .map(|i| Judged { cluster: &names[cluster(i)], confidence: i as f64, loss: 0.0 })
            .collect()
    };
    // 0.8^n at most 0.005: from 24 on.
    assert_eq!(calibrate(&right(23, &|i| i), 23, 0.2, 0.95), None);
    assert_eq!(calibrate(&right(24, &|i| i), 48, 0.2, 0.95).map(|s| s.coverage), Some(0.5));
    assert_eq!(calibrate(&[], 10, 0.2, 0.95), None);
    // Fifty answers, one of ten documents always wrong: as ten answers.
    let grouped: Vec<Judged<'_>> = (0..50)
        .map(|i| Judged {
            cluster: &names[i / 5],
            confidence: 1.0,
            loss: f64::from(u8::from(i < 5)),
        })
        .collect();
    let alone: Vec<Judged<'_>> =
        grouped.iter().zip(&names).map(|(a, name)| Judged { cluster: name, ..*a }).collect();
    assert_eq!(calibrate(&grouped, 50, 0.35, 0.95), None);
    assert!(calibrate(&alone, 50, 0.35, 0.95).is_some());
}
