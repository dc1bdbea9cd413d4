//! What holds for every input.

use assay_stats::*;
use assay_types::Score;
use proptest::prelude::*;

const FAST: Resampling = Resampling { samples: 400, seed: 3, level: 0.95 };

fn values() -> impl Strategy<Value = Vec<(String, f64)>> {
    prop::collection::vec((0..9u8, -1.0..1.0f64), 1..60)
        .prop_map(|v| v.into_iter().map(|(c, x)| (format!("d{c}"), x)).collect())
}

fn clustered(values: &[(String, f64)]) -> Clustered {
    Clustered::new(values.iter().map(|(c, x)| (c.as_str(), *x)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn order_of_items_changes_no_bit(items in values(), rotate in 0usize..60) {
        let mut turned = items.clone();
        turned.rotate_left(rotate % items.len());
        turned.reverse();
        let (a, b) = (clustered(&items), clustered(&turned));
        prop_assert_eq!(a.mean().map(f64::to_bits), b.mean().map(f64::to_bits));
        prop_assert_eq!(sign_flip_p(&a, 1).to_bits(), sign_flip_p(&b, 1).to_bits());
        prop_assert_eq!(bootstrap_mean(&a, FAST), bootstrap_mean(&b, FAST));
    }

    #[test]
    fn p_is_a_probability_and_symmetric(items in values()) {
        let diffs = clustered(&items);
        let opposite: Vec<_> = items.iter().map(|(c, x)| (c.clone(), -x)).collect();
        let p = sign_flip_p(&diffs, 1);
        prop_assert!(p > 0.0 && p <= 1.0);
        prop_assert_eq!(p, sign_flip_p(&clustered(&opposite), 1));
        prop_assert!(p >= 2.0 / 2f64.powi(diffs.clusters() as i32).min(10_001.0) - 1e-12);
    }

    #[test]
    fn bootstrap_intervals_hold_the_mean(items in values()) {
        let values = clustered(&items);
        let mean = values.mean().unwrap();
        match bootstrap_mean(&values, FAST) {
            None => prop_assert!(values.clusters() < 2),
            Some(b) => {
                prop_assert!(b.percentile.contains(mean));
                prop_assert!(b.bca.is_none_or(|i| i.contains(mean)));
            }
        }
    }

    #[test]
    fn mcnemar_is_symmetric(b in 0usize..80, c in 0usize..80) {
        for test in [mcnemar_exact, mcnemar_mid_p] {
            let p = test(Discordant { b, c });
            prop_assert!(p > 0.0 && p <= 1.0);
            prop_assert_eq!(p, test(Discordant { b: c, c: b }));
        }
        let d = Discordant { b, c };
        prop_assert!(mcnemar_mid_p(d) <= mcnemar_exact(d));
        let both = mcnemar_less_mid_p(Discordant { b, c }) + mcnemar_less_mid_p(Discordant { b: c, c: b });
        prop_assert!((both - 1.0).abs() < 1e-12);
    }

    #[test]
    fn proportion_intervals_hold_the_point(k in 0usize..200, more in 0usize..200) {
        let n = k + more;
        prop_assume!(n > 0);
        let p = k as f64 / n as f64;
        let interval = wilson(k, n, 0.95).unwrap();
        prop_assert!(interval.contains(p) && interval.low >= 0.0 && interval.high <= 1.0);
        prop_assert!(wilson(k, n, 0.99).unwrap().half_width() > interval.half_width());
        let opposite = wilson(more, n, 0.95).unwrap();
        prop_assert!((opposite.low - (1.0 - interval.high)).abs() < 1e-12);
    }

    #[test]
    fn holm_raises_p_and_keeps_their_order(p in prop::collection::vec(0.0..=1.0f64, 0..12)) {
        let adjusted = holm(&p);
        for i in 0..p.len() {
            prop_assert!(adjusted[i] >= p[i] && adjusted[i] <= 1.0);
            for j in 0..p.len() {
                prop_assert!(p[i] > p[j] || adjusted[i] <= adjusted[j]);
            }
        }
    }

    #[test]
    fn percentile_is_a_value_and_rises(items in prop::collection::vec(-5.0..5.0f64, 1..40), p in 0.0..=100.0f64) {
        let x = percentile(&items, p).unwrap();
        prop_assert!(items.contains(&x));
        prop_assert!(percentile(&items, 0.0).unwrap() <= x && x <= percentile(&items, 100.0).unwrap());
    }
}

#[test]
fn percentiles_are_nearest_ranks() {
    let values: Vec<f64> = (1..=20).map(f64::from).collect();
    assert_eq!(percentile(&values, 50.0), Some(10.0));
    assert_eq!(percentile(&values, 95.0), Some(19.0));
    assert_eq!(percentile(&values, 95.1), Some(20.0));
    assert_eq!(percentile(&[], 50.0), None);
}

#[test]
fn repeating_an_item_within_its_cluster_adds_no_certainty() {
    let once: Vec<(String, f64)> = (0..20).map(|i| (format!("{i}"), f64::from(i % 4))).collect();
    let thrice: Vec<_> = once.iter().cycle().take(60).cloned().collect();
    let (once, thrice) = (clustered(&once), clustered(&thrice));
    assert!((once.standard_error().unwrap() - thrice.standard_error().unwrap()).abs() < 1e-12);
    assert_eq!(bootstrap_mean(&once, FAST), bootstrap_mean(&thrice, FAST));
    assert!(thrice.design_effect() > 2.5 && once.design_effect() == 1.0);
}

#[test]
fn summary_counts_the_three_states() {
    let scores = [
        ("a", Score::Scored(1.0)),
        ("a", Score::Failed("timeout".into())),
        ("b", Score::Scored(0.0)),
        ("c", Score::Skipped("no gold documents".into())),
    ];
    let summary = summarize(scores.iter().map(|(c, s)| (*c, s)), FAST);
    assert_eq!((summary.n, summary.failed, summary.skipped), (2, 1, 1));
    assert_eq!(summary.value, Some(0.5));
    let plain = wilson(1, 2, 0.95).unwrap();
    assert_eq!((summary.ci_low, summary.ci_high), (Some(plain.low), Some(plain.high)));

    let none = summarize(scores[1..2].iter().map(|(c, s)| (*c, s)), FAST);
    assert_eq!((none.value, none.ci_low, none.n, none.failed), (None, None, 0, 1));
}

#[test]
fn clustered_binary_scores_get_a_wider_interval() {
    // Ten documents, each wholly right or wholly wrong.
    let scores: Vec<(String, Score)> =
        (0..100).map(|i| (format!("d{}", i / 10), Score::Scored(f64::from(i / 10 % 2)))).collect();
    let summary = summarize(scores.iter().map(|(c, s)| (c.as_str(), s)), FAST);
    let plain = wilson(50, 100, 0.95).unwrap();
    assert!(
        summary.ci_low.unwrap() < plain.low - 0.1 && summary.ci_high.unwrap() > plain.high + 0.1
    );
}

#[test]
fn bca_leans_towards_the_long_tail() {
    // Published behaviour: for a right-skewed sample BCa lies right of the percentile interval.
    let values: Vec<f64> =
        (0..60).map(|i| if i % 10 == 0 { 1.0 } else { 0.02 * f64::from(i % 7) }).collect();
    let b = bootstrap_mean(&Clustered::independent(&values), Resampling { samples: 4_000, ..FAST })
        .unwrap();
    let bca = b.bca.unwrap();
    assert!(bca.high > b.percentile.high && bca.low >= b.percentile.low, "{b:?}");
}

#[test]
fn a_statistic_of_resampled_clusters_matches_the_mean() {
    let values = [0.1, 0.4, 0.2, 0.9, 0.7];
    let by_mean = bootstrap_mean(&Clustered::independent(&values), FAST).unwrap().percentile;
    let sorted = Clustered::independent(&values).values().collect::<Vec<_>>();
    let statistic = |picked: &mut dyn Iterator<Item = usize>| {
        let drawn: Vec<f64> = picked.map(|i| sorted[i]).collect();
        drawn.iter().sum::<f64>() / drawn.len() as f64
    };
    let observed = mean(&values).unwrap();
    let general = bootstrap_statistic(values.len(), observed, FAST, statistic).unwrap();
    assert!(
        (by_mean.low - general.low).abs() < 1e-12 && (by_mean.high - general.high).abs() < 1e-12
    );
}
