use std::collections::{BTreeMap, BTreeSet};

use assay_types::{Item, Task};

use crate::normalise;

/// The labels of the items (their first references), sorted, each once.
pub fn labels(items: &[Item]) -> Vec<String> {
    let labels: BTreeSet<_> = items.iter().filter_map(|i| i.references.first()).collect();
    labels.into_iter().cloned().collect()
}

/// Parts `items` into train and dev, with about `fraction` of the items in dev, each in the given order.
///
/// What belongs together stays together: items of one document ([`Item::cluster`]), so that dev asks
/// about documents that train does not know, and items with the same input. If all items belong to
/// one document, single items are parted. For [`Task::Classify`] every label gives its share, and a
/// label with one distinct text stays in train.
///
/// Which items go to dev depends on `seed` and on what the items say, not on their order. Dev has at
/// least one item if `fraction` > 0 and there are two groups to part; train is never empty.
///
/// # Panics
/// Unless `fraction` is in 0..=0.5.
pub fn split_dev(items: &[Item], task: Task, fraction: f64, seed: u64) -> (Vec<Item>, Vec<Item>) {
    assert!((0.0..=0.5).contains(&fraction), "the share of dev, {fraction}, is not in 0..=0.5");
    let in_dev = match task {
        Task::Classify => {
            let groups = group(items, |i| normalise(&i.input), seed);
            choose_by_label(items, groups, fraction)
        }
        Task::Qa | Task::Extract | Task::Generate => {
            let by_document = |i: &Item| match i.doc_ids.is_empty() {
                true => format!("input {}", normalise(&i.input)),
                false => format!("document {}", i.cluster()),
            };
            let mut groups = group(items, by_document, seed);
            if groups.len() == 1 {
                groups = group(items, |i| normalise(&i.input), seed);
            }
            choose(groups, fraction * items.len() as f64, fraction > 0.0)
        }
    };
    let (dev, train): (Vec<_>, Vec<_>) =
        items.iter().enumerate().partition(|(i, _)| in_dev.contains(i));
    let cloned = |part: Vec<(usize, &Item)>| part.into_iter().map(|(_, i)| i.clone()).collect();
    (cloned(train), cloned(dev))
}

type Group = Vec<usize>;

/// Indices of the items by `name`, in an order that `seed` and the names decide.
fn group(items: &[Item], name: impl Fn(&Item) -> String, seed: u64) -> Vec<Group> {
    let mut groups: BTreeMap<([u8; 32], String), Group> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        let name = name(item);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        groups.entry((*hasher.finalize().as_bytes(), name)).or_default().push(i);
    }
    groups.into_values().collect()
}

/// Takes groups in their order while that brings the number of items nearer to `target`. One group is
/// always left, and one is always taken if `at_least_one`.
fn choose(groups: Vec<Group>, target: f64, at_least_one: bool) -> BTreeSet<usize> {
    let mut chosen = BTreeSet::new();
    let mut left = groups.len();
    for group in groups {
        let (now, then) = (chosen.len() as f64, (chosen.len() + group.len()) as f64);
        let nearer = (then - target).abs() < (now - target).abs();
        let first = at_least_one && chosen.is_empty() && left == 2;
        if left > 1 && (nearer || first) {
            chosen.extend(group);
        }
        left -= 1;
    }
    chosen
}

/// [`choose`] within each label. Rounding is carried from label to label, so that many rare labels
/// together still give their share.
fn choose_by_label(items: &[Item], groups: Vec<Group>, fraction: f64) -> BTreeSet<usize> {
    let mut by_label: BTreeMap<&str, Vec<Group>> = BTreeMap::new();
    for group in groups {
        // The same text with two labels counts for the one that is first in the alphabet.
        let label = group.iter().filter_map(|i| items[*i].references.first()).min();
        by_label.entry(label.map_or("", String::as_str)).or_default().push(group);
    }
    let mut chosen = BTreeSet::new();
    let mut owed = 0.0;
    for groups in by_label.into_values() {
        owed += fraction * groups.iter().map(Vec::len).sum::<usize>() as f64;
        let taken = choose(groups, owed, false);
        owed -= taken.len() as f64;
        chosen.extend(taken);
    }
    chosen
}
