use std::collections::{BTreeMap, BTreeSet};

use assay_data::{labels, split_dev};
use assay_types::{Item, Task};
use proptest::prelude::*;

use crate::item;

fn ids(items: &[Item]) -> BTreeSet<&str> {
    items.iter().map(|i| i.id.0.as_str()).collect()
}

#[test]
fn labels_are_sorted_and_distinct() {
    let items = [item(1, "a", "y", ""), item(2, "b", "x", ""), item(3, "c", "y", "")];
    assert_eq!(labels(&items), ["x", "y"]);
}

#[test]
fn every_label_gives_its_share() {
    let items: Vec<_> =
        (0..400).map(|n| item(n, &format!("text {n}"), &format!("label {}", n % 8), "")).collect();
    let (_, dev) = split_dev(&items, Task::Classify, 0.1, 7);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    dev.iter().for_each(|i| *counts.entry(&i.references[0]).or_default() += 1);
    assert_eq!(dev.len(), 40);
    assert!(counts.len() == 8 && counts.values().all(|n| *n == 5), "{counts:?}");
}

#[test]
fn seeds_differ_and_repeat() {
    let items: Vec<_> =
        (0..100).map(|n| item(n, &format!("q {n}"), "a", &format!("{}.md", n / 4))).collect();
    let dev = |seed| split_dev(&items, Task::Qa, 0.2, seed).1;
    assert_eq!(dev(1), dev(1));
    assert_ne!(ids(&dev(1)), ids(&dev(2)));
    assert_eq!(dev(1).len(), 20);
}

#[test]
fn small_data_still_give_a_dev_set() {
    let one_document = [item(1, "a", "x", "d"), item(2, "b", "x", "d"), item(3, "c", "x", "d")];
    let (train, dev) = split_dev(&one_document, Task::Qa, 0.1, 1);
    assert_eq!((train.len(), dev.len()), (2, 1));
    let (train, dev) = split_dev(&one_document[..1], Task::Qa, 0.5, 1);
    assert_eq!((train.len(), dev.len()), (1, 0));
    let (train, dev) = split_dev(&[], Task::Classify, 0.5, 1);
    assert_eq!((train.len(), dev.len()), (0, 0));
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec((0..12_u8, 0..4_u8, 0..6_u8), 0..40).prop_map(|rows| {
        let row = |(n, (input, label, document)): (usize, (u8, u8, u8))| {
            let document = if document == 0 { String::new() } else { format!("{document}.md") };
            item(n, &format!("input {input}"), &format!("label {label}"), &document)
        };
        rows.into_iter().enumerate().map(row).collect()
    })
}

proptest! {
    #[test]
    fn a_split_parts_the_items(
        items in items(), classify: bool, fraction in 0.0..=0.5, seed: u64,
        rotate in 0..40_usize,
    ) {
        let task = if classify { Task::Classify } else { Task::Qa };
        let (train, dev) = split_dev(&items, task, fraction, seed);
        prop_assert!(ids(&train).is_disjoint(&ids(&dev)));
        let all: BTreeSet<_> = ids(&train).union(&ids(&dev)).copied().collect();
        prop_assert_eq!(all, ids(&items));
        prop_assert!(items.is_empty() || !train.is_empty());

        let inputs = |part: &[Item], documents: bool| -> BTreeSet<String> {
            let of = |i: &Item| match documents && !i.doc_ids.is_empty() {
                true => i.doc_ids[0].clone(),
                false => i.input.clone(),
            };
            part.iter().map(of).collect()
        };
        let whole = inputs(&train, !classify).is_disjoint(&inputs(&dev, !classify));
        prop_assert!(whole || inputs(&items, !classify).len() == 1, "a group was torn");
        if classify {
            // Only a contradiction can take a label's last text: the text counts for another label.
            let known = labels(&train);
            let counts_elsewhere = |i: &Item| {
                items.iter().any(|o| o.input == i.input && o.references[0] < i.references[0])
            };
            let mut lost = items.iter().filter(|i| !known.contains(&i.references[0]));
            prop_assert!(lost.all(counts_elsewhere), "train lost a label");
        }

        let mut rotated = items;
        if !rotated.is_empty() {
            let by = rotate % rotated.len();
            rotated.rotate_left(by);
            rotated.reverse();
        }
        let (_, dev_again) = split_dev(&rotated, task, fraction, seed);
        prop_assert_eq!(ids(&dev), ids(&dev_again));
    }
}
