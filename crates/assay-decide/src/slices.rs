//! The primary metric, slice by slice.

use std::collections::{BTreeMap, BTreeSet};

use assay_stats::{holm, sign_flip_p};

use crate::candidate::summary;
use crate::compare::differences;
use crate::input::{DecisionInput, Measured};
use crate::record::{CandidateRecord, SliceDecision, SliceRecord};

/// Items of each slice value.
fn members(input: &DecisionInput) -> BTreeMap<(&str, &str), BTreeSet<usize>> {
    let mut members: BTreeMap<(&str, &str), BTreeSet<usize>> = BTreeMap::new();
    for (i, item) in input.items.iter().enumerate() {
        for (slice, value) in &item.slices {
            members.entry((slice, value)).or_default().insert(i);
        }
    }
    members
}

pub(crate) fn of_candidate(input: &DecisionInput, candidate: &Measured) -> Vec<SliceRecord> {
    members(input)
        .into_iter()
        .map(|((slice, value), items)| SliceRecord {
            slice: slice.to_owned(),
            value: value.to_owned(),
            summary: summary(input, candidate, &input.primary_metric, |i| items.contains(&i)),
        })
        .collect()
}

/// Who leads each slice, and where that is significant: Holm over all pairs of eligible candidates in all slices.
pub(crate) fn decide(input: &DecisionInput, records: &[CandidateRecord]) -> Vec<SliceDecision> {
    let members = members(input);
    let eligible: Vec<usize> = (0..records.len()).filter(|&i| records[i].eligible).collect();
    // (slice, better, worse) of every test.
    let mut tests: Vec<(usize, usize, usize)> = Vec::new();
    let mut p_values = Vec::new();
    for (at, items) in members.values().enumerate() {
        for (k, &i) in eligible.iter().enumerate() {
            for &j in &eligible[k + 1..] {
                let (a, b) = (&input.candidates[i], &input.candidates[j]);
                let (diffs, _) = differences(input, a, b, items.iter().copied());
                let ahead = diffs.mean().is_some_and(|d| d > 0.0);
                tests.push(if ahead { (at, i, j) } else { (at, j, i) });
                p_values.push(sign_flip_p(&diffs, input.rule.seed));
            }
        }
    }
    let significant: BTreeSet<(usize, usize, usize)> = tests
        .into_iter()
        .zip(holm(&p_values))
        .filter(|(_, p)| *p <= input.rule.alpha)
        .map(|(test, _)| test)
        .collect();
    let decision = |(at, ((slice, value), items)): (usize, ((&str, &str), BTreeSet<usize>))| {
        let score = |i: usize| records[i].slices[at].summary.value;
        let leader = eligible
            .iter()
            .copied()
            .filter(|&i| score(i).is_some())
            .reduce(|best, i| if score(i) > score(best) { i } else { best });
        let wins = |i: &usize| {
            let mut rivals = eligible.iter().filter(|j| *j != i).peekable();
            rivals.peek().is_some() && rivals.all(|&j| significant.contains(&(at, *i, j)))
        };
        SliceDecision {
            slice: slice.to_owned(),
            value: value.to_owned(),
            n: items.len(),
            leader: leader.map(|i| records[i].name.clone()),
            winner: leader.filter(wins).map(|i| records[i].name.clone()),
        }
    };
    members.into_iter().enumerate().map(decision).collect()
}
