//! The frozen suite.

use std::collections::{BTreeMap, BTreeSet};

use assay_eval::{general_suite, score_choices};

#[test]
fn the_suite_is_well_formed() {
    let suite = general_suite();
    let mut categories = BTreeMap::new();
    for item in &suite {
        *categories.entry(item.category.as_str()).or_insert(0) += 1;
        assert!(item.gold < item.choices.len(), "{}", item.id);
        assert_eq!(item.choices.iter().collect::<BTreeSet<_>>().len(), 4, "{}", item.id);
        assert_eq!(item.context.trim_end(), item.context, "{}", item.id);
        assert!(item.choices.iter().all(|c| !c.is_empty() && c.trim() == c), "{}", item.id);
    }
    let expected = [("cloze", 30), ("commonsense", 30), ("knowledge", 30), ("language", 30)];
    assert_eq!(categories, BTreeMap::from(expected));
    let ids: BTreeSet<_> = suite.iter().map(|i| &i.id).collect();
    let contexts: BTreeSet<_> = suite.iter().map(|i| &i.context).collect();
    assert_eq!((ids.len(), contexts.len()), (120, 120));
    // No position is a good guess.
    for position in 0..4 {
        let share = suite.iter().filter(|i| i.gold == position).count();
        assert!((20..=40).contains(&share), "position {position}: {share}");
    }
}

#[test]
fn a_missing_log_likelihood_is_a_failure() {
    let choices = ["yes".to_owned(), "no".to_owned()];
    for logs in [&[-1.0][..], &[-1.0, f64::NAN], &[-1.0, f64::NEG_INFINITY]] {
        assert_eq!(score_choices(&choices, 0, logs).acc.value(), None);
    }
}
