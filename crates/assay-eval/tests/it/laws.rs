//! What holds for every input.

use assay_eval::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_text_equals_itself(text in "\\PC{0,30}") {
        let golds = [text.clone()];
        prop_assert_eq!(squad_exact_match(&text, &golds, SquadRules::V2), Some(1.0));
        prop_assert_eq!(squad_f1(&text, &golds, SquadRules::V2), Some(1.0));
        let rouge = rouge_l(&text, &golds).unwrap();
        prop_assert!(rouge == 1.0 || rouge == 0.0);
    }

    #[test]
    fn text_metrics_stay_within_their_range(a in "\\PC{0,40}", b in "[a-e ]{0,40}", c in "[a-e ]{0,40}") {
        for golds in [vec![b.clone()], vec![b.clone(), c.clone()]] {
            for value in [squad_f1(&a, &golds, SquadRules::V1), squad_f1(&a, &golds, SquadRules::V2), rouge_l(&a, &golds)] {
                prop_assert!((0.0..=1.0).contains(&value.unwrap()));
            }
        }
        let more = squad_f1(&c, &[b.clone(), c.clone()], SquadRules::V2);
        prop_assert!(more >= squad_f1(&c, &[b], SquadRules::V2), "another gold never hurts");
    }

    #[test]
    fn ranking_metrics_stay_within_their_range(
        scores in prop::collection::vec((0..20u8, -3..3i8), 0..25),
        grades in prop::collection::btree_map(0..20u8, -1..4i64, 0..10),
        k in 1..12usize,
    ) {
        let names: Vec<String> = (0..20).map(|i| format!("d{i}")).collect();
        let run: Vec<(&str, f64)> = scores.iter().map(|(d, s)| (names[*d as usize].as_str(), f64::from(*s))).collect();
        let grades: Grades = grades.into_iter().map(|(d, g)| (names[d as usize].clone(), g)).collect();
        let ranking = rank_documents(run.iter().copied());
        for value in [
            recall_at(&ranking, &grades, k),
            reciprocal_rank(&ranking, &grades),
            average_precision(&ranking, &grades),
            ndcg_at(&ranking, &grades, k),
        ] {
            prop_assert!(value.is_none_or(|v| (0.0..=1.0 + 1e-12).contains(&v)));
        }
        let mut reversed = run;
        reversed.reverse();
        prop_assert_eq!(rank_documents(reversed), ranking, "the order of the run does not matter");
    }

    #[test]
    fn slots_do_not_depend_on_order(fields in prop::collection::btree_map("[a-c]{1,2}", 0..5i32, 0..6)) {
        let forward: Vec<String> = fields.iter().map(|(k, v)| format!("\"{k}\": {v}")).collect();
        let backward: Vec<String> = forward.iter().rev().cloned().collect();
        let (a, b) = (format!("{{{}}}", forward.join(",")), format!("{{{}}}", backward.join(",")));
        prop_assert_eq!(slot_f1(&a, &b).value(), Some(1.0));
    }

    #[test]
    fn markers_are_removed_and_nothing_panics(text in "[a-z \\[\\]0-9,é]{0,30}") {
        let output = crate::scorer::output(&text, &["doc.md"]);
        let answer = answer_text(&output);
        prop_assert!(answer.chars().filter(|c| c.is_alphabetic()).eq(text.chars().filter(|c| c.is_alphabetic())));
    }
}
