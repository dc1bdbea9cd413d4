use std::collections::{BTreeMap, BTreeSet};

use assay_types::{ItemId, Score};

use crate::compare::{Pair, all_pairs};
use crate::input::{DecisionInput, Rule};
use crate::record::{Decision, Outcome, SCHEMA_VERSION};
use crate::rule::{Ruling, Table, rule};
use crate::verdict::Findings;
use crate::{DecideError, candidate, constraints, flowchart, slices};

/// Decides. The same input gives the same bits; see the crate's documentation for the rule.
pub fn decide(input: &DecisionInput) -> Result<Decision, DecideError> {
    validate(input)?;
    let mut records = candidate::records(input);
    let mut warnings = Vec::new();
    let constraints = constraints::check(input, &mut records, &mut warnings);
    let pairs = all_pairs(input);
    let table = Table { pairs: &pairs, alpha: input.rule.alpha, margin: input.rule.margin };
    let ruling = rule(input, &records, &table);
    let needed = needed_labels(&ruling, &table);
    let detectable = minimum_detectable_effect(&ruling, &table, &input.rule);
    let findings = Findings { input, records: &records, table: &table, ruling: &ruling, needed };
    warnings.extend(findings.warnings(detectable));
    let (verdict, flips) = (findings.verdict(), findings.flips());
    let mut inputs = input.inputs.clone();
    inputs.settings.extend(settings(input));
    inputs.seeds.insert("decision".into(), input.rule.seed);
    Ok(Decision {
        schema_version: SCHEMA_VERSION,
        task: input.task,
        primary_metric: input.primary_metric.clone(),
        winner: ruling.winner.map(|i| records[i].name.clone()),
        outcome: ruling.outcome,
        verdict,
        needed_labels: needed,
        minimum_detectable_effect: detectable,
        warnings,
        flips,
        flowchart: flowchart::steps(input, &records),
        constraints,
        slices: slices::decide(input, &records),
        comparisons: pairs.iter().map(|p| p.record(input)).collect(),
        candidates: records,
        skipped: input.skipped.clone(),
        prices: input.prices,
        inputs,
        times: input.times.clone(),
    })
}

/// Items on which a candidate is worst, for reading: failures first, then the lowest primary metric; among equals those
/// where another candidate does better, then by name.
pub fn worst_items(input: &DecisionInput, candidate: &str, limit: usize) -> Vec<ItemId> {
    let score = |name: &str, id: &ItemId| {
        let measured = input.candidates.iter().find(|c| c.name == name)?;
        measured.scores.get(&input.primary_metric)?.get(id)?.value()
    };
    let best = |id: &ItemId| {
        input.candidates.iter().filter_map(|c| score(&c.name, id)).fold(f64::NEG_INFINITY, f64::max)
    };
    let skipped = |id: &ItemId| {
        let measured = input.candidates.iter().find(|c| c.name == candidate);
        let scores = measured.and_then(|c| c.scores.get(&input.primary_metric));
        matches!(scores.and_then(|s| s.get(id)), None | Some(Score::Skipped(_)))
    };
    let mut ids: Vec<&ItemId> =
        input.items.iter().map(|i| &i.id).filter(|id| !skipped(id)).collect();
    let key = |id: &ItemId| (score(candidate, id).unwrap_or(f64::NEG_INFINITY), -best(id));
    ids.sort_by(|a, b| {
        let (x, y) = (key(a), key(b));
        x.0.total_cmp(&y.0).then(x.1.total_cmp(&y.1)).then_with(|| a.cmp(b))
    });
    ids.into_iter().take(limit).cloned().collect()
}

/// Items that would close every pair that stands open.
fn needed_labels(ruling: &Ruling, table: &Table<'_>) -> Option<usize> {
    if ruling.outcome != Outcome::Inconclusive {
        return None;
    }
    let leader = ruling.leader?;
    let open = ruling.open.iter().map(|&i| table.pair(leader, i)?.needed);
    open.collect::<Option<Vec<usize>>>()?.into_iter().max().filter(|n| *n > 0)
}

/// Of the leader against its closest rival, or of the first two candidates.
fn minimum_detectable_effect(ruling: &Ruling, table: &Table<'_>, rule: &Rule) -> Option<f64> {
    let closest = ruling.leader.and_then(|leader| {
        let of_leader = |p: &&Pair| p.i == leader || p.j == leader;
        table
            .pairs
            .iter()
            .filter(of_leader)
            .min_by(|a, b| a.diff().abs().total_cmp(&b.diff().abs()))
    });
    closest.or(table.pairs.first())?.detectable(rule)
}

fn settings(input: &DecisionInput) -> BTreeMap<String, String> {
    let rule = &input.rule;
    BTreeMap::from([
        ("alpha".to_owned(), rule.alpha.to_string()),
        ("power".to_owned(), rule.power.to_string()),
        ("margin".to_owned(), rule.margin.to_string()),
        ("max_failed_share".to_owned(), rule.max_failed_share.to_string()),
        ("bootstrap_samples".to_owned(), rule.bootstrap_samples.to_string()),
    ])
}

fn validate(input: &DecisionInput) -> Result<(), DecideError> {
    let rule = &input.rule;
    let share = |name, range, value: f64, ok: bool| {
        if ok { Ok(()) } else { Err(DecideError::Setting { name, range, got: value.to_string() }) }
    };
    share("alpha", "between 0 and 1", rule.alpha, rule.alpha > 0.0 && rule.alpha < 1.0)?;
    share("power", "between 0.5 and 1", rule.power, rule.power > 0.5 && rule.power < 1.0)?;
    share("margin", "at least 0", rule.margin, rule.margin >= 0.0)?;
    share(
        "max_failed_share",
        "between 0 and 1",
        rule.max_failed_share,
        (0.0..=1.0).contains(&rule.max_failed_share),
    )?;
    if input.candidates.is_empty() {
        return Err(DecideError::NoCandidates);
    }
    if input.items.is_empty() {
        return Err(DecideError::NoItems);
    }
    let mut ids = BTreeSet::new();
    if let Some(item) = input.items.iter().find(|i| !ids.insert(&i.id)) {
        return Err(DecideError::DuplicateItem(item.id.clone()));
    }
    let mut names = BTreeSet::new();
    for candidate in &input.candidates {
        if !names.insert(&candidate.name) {
            return Err(DecideError::DuplicateCandidate(candidate.name.clone()));
        }
        if !candidate.scores.contains_key(&input.primary_metric) {
            return Err(DecideError::MissingMetric {
                candidate: candidate.name.clone(),
                metric: input.primary_metric.clone(),
            });
        }
        for (metric, scores) in &candidate.scores {
            covers(&ids, &candidate.name, metric, scores)?;
        }
        if let Some(g) = candidate.general.as_ref().filter(|g| g.before.len() != g.after.len()) {
            return Err(DecideError::GeneralDiffers {
                candidate: candidate.name.clone(),
                before: g.before.len(),
                after: g.after.len(),
            });
        }
    }
    Ok(())
}

/// Whether a metric covers exactly the test items, with finite scores.
fn covers(
    ids: &BTreeSet<&ItemId>,
    candidate: &str,
    metric: &str,
    scores: &BTreeMap<ItemId, Score>,
) -> Result<(), DecideError> {
    let scored: BTreeSet<&ItemId> = scores.keys().collect();
    if let Some(example) = ids.symmetric_difference(&scored).next() {
        return Err(DecideError::ItemsDiffer {
            candidate: candidate.to_owned(),
            metric: metric.to_owned(),
            expected: ids.len(),
            got: scored.len(),
            example: (*example).clone(),
        });
    }
    match scores.iter().find(|(_, s)| s.value().is_some_and(|v| !v.is_finite())) {
        Some((item, _)) => Err(DecideError::NotFinite {
            candidate: candidate.to_owned(),
            metric: metric.to_owned(),
            item: item.clone(),
        }),
        None => Ok(()),
    }
}
