//! Two copies of one system: how often is one called better?

use assay_decide::*;
use proptest::prelude::*;

use crate::{candidate, input, noise};

/// Four systems of equal quality, whose answers share the luck of their document.
fn equal_systems(seed: u64, n: usize) -> DecisionInput {
    let names = ["prompt", "rag", "tuned", "hybrid"];
    let candidates = names.iter().enumerate().map(|(k, name)| {
        let mut own = noise(1_000 * seed + k as u64);
        let mut luck = 0.0;
        candidate(name, n, move |i| {
            if i % 3 == 0 {
                luck = 0.6 * (own() - 0.5);
            }
            f64::from(u8::from(own() < 0.5 + luck))
        })
    });
    let mut input = input(n, candidates.collect());
    input.rule.bootstrap_samples = 100;
    input
}

#[test]
fn equal_systems_are_rarely_told_apart() {
    let (mut better, mut any) = (0, 0);
    for seed in 0..200 {
        let decision = decide(&equal_systems(seed, 120)).unwrap();
        better += usize::from(decision.outcome == Outcome::Better);
        any += usize::from(decision.comparisons.iter().any(|c| c.p_adjusted.unwrap() <= 0.05));
    }
    // Holm promises at most 5 % for any of the six: 10 of 200, give or take 3.
    assert!(any <= 13, "{any} of 200");
    assert!(better <= 4, "{better} of 200");
}

#[test]
fn a_planted_gain_is_found() {
    let found = (0..40).filter(|&seed| {
        let mut input = equal_systems(seed, 300);
        for score in input.candidates[1].scores.get_mut("f1").unwrap().values_mut() {
            let mut luck = noise(seed);
            if luck() < 0.9 {
                *score = assay_types::Score::Scored(1.0);
            }
        }
        decide(&input).unwrap().winner.as_deref() == Some("rag")
    });
    assert!(found.count() >= 30);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_items_and_candidates_changes_no_ruling(seed in 0u64..500, turn in 1usize..4) {
        let input = equal_systems(seed, 60);
        let mut turned = input.clone();
        turned.items.reverse();
        turned.candidates.rotate_left(turn);
        let (a, b) = (decide(&input).unwrap(), decide(&turned).unwrap());
        prop_assert_eq!((a.outcome, &a.winner, a.needed_labels), (b.outcome, &b.winner, b.needed_labels));
        for c in &a.candidates {
            let other = b.candidates.iter().find(|o| o.name == c.name).unwrap();
            prop_assert_eq!(&c.metrics, &other.metrics);
        }
    }
}
