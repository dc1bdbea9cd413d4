//! Each way the rule can end.

use assay_decide::*;
use assay_types::Score;

use crate::{candidate, input, noise, timed};

#[track_caller]
fn check(input: &DecisionInput, outcome: Outcome, winner: Option<&str>) -> Decision {
    let decision = decide(input).unwrap();
    assert_eq!((decision.outcome, decision.winner.as_deref()), (outcome, winner), "{decision:#?}");
    for (at, c) in decision.comparisons.iter().enumerate() {
        let (low, diff, high) = (c.ci_low.unwrap(), c.diff.unwrap(), c.ci_high.unwrap());
        assert!(low <= diff && diff <= high, "{at}: {c:?}");
        assert!(c.p_adjusted >= c.p_value);
    }
    decision
}

/// 300 items; `gain` over a common noisy base, and noise of its own.
fn noisy(name: &str, seed: u64, gain: f64, spread: f64) -> Measured {
    let (mut base, mut own) = (noise(1), noise(seed));
    candidate(name, 300, move |_| 0.4 * base() + gain + spread * (own() - 0.5))
}

#[test]
fn a_clear_lead_wins_at_any_price_of_complexity() {
    let candidates = vec![
        noisy("prompt", 2, 0.0, 0.1),
        noisy("rag", 3, 0.2, 0.1),
        noisy("tuned", 4, 0.1, 0.1),
        noisy("hybrid", 5, 0.3, 0.1),
    ];
    let decision = check(&input(300, candidates), Outcome::Better, Some("hybrid"));
    assert_eq!(decision.needed_labels, None);
    assert_eq!(decision.comparisons.len(), 6);
    assert!(
        decision.comparisons.iter().all(|c| c.p_adjusted.unwrap() <= 0.05 && c.clusters == 100)
    );
    assert!(decision.verdict.starts_with("Use `hybrid`"), "{}", decision.verdict);
    assert!(decision.slices.iter().all(|s| s.winner.as_deref() == Some("hybrid")));
}

#[test]
fn among_equals_the_simplest_wins_although_another_leads() {
    let candidates = vec![
        noisy("hybrid", 5, 0.2005, 0.02),
        noisy("rag", 3, 0.2, 0.02),
        noisy("prompt", 2, 0.0, 0.1),
    ];
    let decision = check(&input(300, candidates), Outcome::Equivalent, Some("rag"));
    assert!(
        decision.verdict.contains("a tie on quality, and it is the simplest"),
        "{}",
        decision.verdict
    );
    assert!(
        decision.verdict.contains("significantly better than `prompt`"),
        "{}",
        decision.verdict
    );
}

#[test]
fn a_complex_leader_that_proves_nothing_does_not_win() {
    let candidates = vec![noisy("prompt", 2, 0.2, 0.9), noisy("hybrid", 3, 0.23, 0.9)];
    let decision = check(&input(300, candidates), Outcome::Inconclusive, None);
    let needed = decision.needed_labels.unwrap();
    assert!((100..100_000).contains(&needed), "{needed}");
    assert!(decision.verdict.contains("No significant winner"), "{}", decision.verdict);
    assert_eq!(decision.comparisons[0].needed_labels, Some(needed));
}

#[test]
fn needed_labels_follow_the_power_of_the_paired_test() {
    // Three items for one, seven for the other: 10 % discordant, 4 points apart, every item its own document.
    let n = 100;
    let a = candidate("prompt", n, |i| f64::from(u8::from(i % 40 == 0)));
    let b = candidate("tuned", n, |i| f64::from(u8::from(i % 40 != 0 && i % 13 == 1)));
    let mut one = input(n, vec![a, b]);
    one.items.iter_mut().for_each(|i| i.cluster = i.id.0.clone());
    let decision = check(&one, Outcome::Inconclusive, None);
    let c = &decision.comparisons[0];
    assert!((c.diff.unwrap() + 0.04).abs() < 1e-9, "{c:?}");
    let expected = assay_stats::n_for_paired_proportions(0.1, 0.04, 0.05, 0.8);
    assert_eq!(decision.needed_labels, Some(expected.ceil() as usize - n));
    assert_eq!(
        c.mcnemar_p,
        Some(assay_stats::mcnemar_exact(assay_stats::Discordant { b: 3, c: 7 }))
    );
}

#[test]
fn identical_outputs_are_a_tie_only_on_enough_items() {
    let two = |n| {
        input(
            n,
            vec![
                candidate("prompt", n, |i| (i % 2) as f64),
                candidate("rag", n, |i| (i % 2) as f64),
            ],
        )
    };
    let few = check(&two(30), Outcome::Inconclusive, None);
    assert!(few.needed_labels.unwrap() > 50, "{:?}", few.needed_labels);
    assert!(few.warnings.iter().any(|w| w.contains("Only 30 test items")), "{:?}", few.warnings);
    assert!(few.warnings.iter().any(|w| w.contains("only 10 documents")), "{:?}", few.warnings);
    check(&two(300), Outcome::Equivalent, Some("prompt"));
}

#[test]
fn constraints_come_before_quality() {
    let candidates = vec![
        timed(noisy("prompt", 2, 0.1, 0.05), 100.0, 0.0),
        timed(noisy("rag", 3, 0.5, 0.05), 900.0, 0.0),
        timed(noisy("tuned", 4, 0.2, 0.05), 90.0, 1.0),
    ];
    let mut limited = input(300, candidates);
    limited.constraints.max_p95_latency_ms = Some(200.0);
    let decision = check(&limited, Outcome::Better, Some("tuned"));
    let limit = &decision.constraints[0];
    assert_eq!(limit.measured.iter().map(|m| m.ok).collect::<Vec<_>>(), [true, false, true]);
    let rag = &decision.candidates[1];
    assert!(!rag.eligible && rag.ineligible_because[0].contains("max_p95_latency_ms"), "{rag:?}");
    assert!(
        decision.flips.iter().any(|f| f.contains("`rag` scores higher")),
        "{:?}",
        decision.flips
    );

    limited.constraints.min_quality = Some(0.35);
    check(&limited, Outcome::OnlyEligible, Some("tuned"));
    limited.constraints.min_quality = Some(0.99);
    let none = check(&limited, Outcome::NoneEligible, None);
    assert!(
        none.verdict.contains("`prompt`: It does not keep `min_quality` = 0.99"),
        "{}",
        none.verdict
    );
}

#[test]
fn a_limit_that_was_not_measured_is_not_kept() {
    let mut limited = input(300, vec![noisy("prompt", 2, 0.1, 0.05), noisy("tuned", 3, 0.3, 0.05)]);
    limited.constraints.max_forgetting_points = Some(1.0);
    let decision = check(&limited, Outcome::OnlyEligible, Some("prompt"));
    assert!(decision.candidates[1].ineligible_because[0].contains("could not be measured"));
    limited.constraints.max_p95_latency_ms = Some(100.0);
    check(&limited, Outcome::NoneEligible, None);
}

#[test]
fn forgetting_must_be_proven() {
    let mut limited = input(300, vec![noisy("prompt", 2, 0.1, 0.05), noisy("tuned", 3, 0.3, 0.05)]);
    limited.constraints.max_forgetting_points = Some(1.0);
    let general = |lost: usize, won: usize| {
        let before = (0..120).map(|i| i < 60 + lost).collect();
        let after = (0..120).map(|i| i < 60 || (i >= 100 && i < 100 + won)).collect();
        Some(GeneralAnswers { before, after })
    };
    // Six lost, four won: 1.7 points down, well within chance.
    limited.candidates[1].general = general(6, 4);
    let decision = check(&limited, Outcome::Better, Some("tuned"));
    assert!(decision.warnings.iter().any(|w| w.contains("1.7 points")), "{:?}", decision.warnings);
    let measured = &decision.candidates[1].general;
    assert!((measured.diff.unwrap() + 2.0 / 120.0).abs() < 1e-12 && measured.n == 120);

    limited.candidates[1].general = general(20, 1);
    let decision = check(&limited, Outcome::OnlyEligible, Some("prompt"));
    let forgot =
        decision.flowchart.iter().find(|s| s.question.contains("general ability")).unwrap();
    assert_eq!(forgot.answer, "yes");
}

#[test]
fn failures_are_counted_and_too_many_disqualify() {
    let mut failing = input(300, vec![noisy("prompt", 2, 0.1, 0.05), noisy("rag", 3, 0.5, 0.05)]);
    let fail = |input: &mut DecisionInput, n: usize| {
        let scores = input.candidates[1].scores.get_mut("f1").unwrap();
        scores.values_mut().take(n).for_each(|s| *s = Score::Failed("timeout".into()));
    };
    fail(&mut failing, 6);
    let decision = check(&failing, Outcome::Better, Some("rag"));
    let m = &decision.candidates[1].metrics["f1"];
    assert_eq!((m.n, m.failed), (294, 6));
    assert_eq!((decision.comparisons[0].n, decision.comparisons[0].failed), (294, 6));
    assert!(decision.warnings.iter().any(|w| w.contains("6 of 300")), "{:?}", decision.warnings);

    fail(&mut failing, 7);
    let decision = check(&failing, Outcome::OnlyEligible, Some("prompt"));
    assert!(decision.candidates[1].ineligible_because[0].contains("7 of 300 items failed"));
}

#[test]
fn worst_items_come_first() {
    let a = candidate("prompt", 9, |i| [0.5, 0.0, 0.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0][i]);
    let b = candidate("rag", 9, |i| [1.0, 0.0, 1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0][i]);
    let mut both = input(9, vec![a, b]);
    let failed = both.items[7].id.clone();
    both.candidates[0].scores.get_mut("f1").unwrap().insert(failed, Score::Failed("crash".into()));
    let skipped = both.items[8].id.clone();
    both.candidates[0].scores.get_mut("f1").unwrap().insert(skipped, Score::Skipped("n/a".into()));
    let worst: Vec<String> = worst_items(&both, "prompt", 4).into_iter().map(|i| i.0).collect();
    assert_eq!(worst, ["q0007", "q0002", "q0001", "q0004"]);
    assert_eq!(worst_items(&both, "prompt", 100).len(), 8);
    let decision = decide(&both).unwrap();
    assert_eq!(decision.candidates[0].metrics["f1"].skipped, 1);
}
