//! Who may win.

use crate::candidate::forgetting_p;
use crate::input::{DecisionInput, Measured};
use crate::record::{CandidateRecord, ConstraintRecord, ConstraintValue};

/// One limit: its name, its value, whether the clock is behind it, what was measured, and whether that keeps it.
struct Limit<'a> {
    name: &'static str,
    limit: Option<f64>,
    timed: bool,
    measured: &'a dyn Fn(&Measured, &CandidateRecord) -> Option<f64>,
    kept: &'a dyn Fn(&Measured, f64, f64) -> bool,
}

/// Checks every limit that was set, and marks the candidates that break one. A limit that could not be measured is
/// taken as broken.
pub(crate) fn check(
    input: &DecisionInput,
    records: &mut [CandidateRecord],
    warnings: &mut Vec<String>,
) -> Vec<ConstraintRecord> {
    let set = &input.constraints;
    let at_most = |_: &Measured, value: f64, limit: f64| value <= limit;
    let at_least = |_: &Measured, value: f64, limit: f64| value >= limit;
    let no_proven_loss = |candidate: &Measured, lost: f64, limit: f64| {
        lost <= limit || forgetting_p(candidate) > input.rule.alpha
    };
    let limits = [
        Limit {
            name: "max_p95_latency_ms",
            limit: set.max_p95_latency_ms,
            timed: true,
            measured: &|_, r| r.latency_ms.p95,
            kept: &at_most,
        },
        Limit {
            name: "max_cost_per_query_usd",
            limit: set.max_cost_per_query_usd,
            timed: true,
            measured: &|_, r| r.cost.per_query_usd,
            kept: &at_most,
        },
        Limit {
            name: "max_training_usd",
            limit: set.max_training_usd,
            timed: true,
            measured: &|_, r| r.cost.training_usd,
            kept: &at_most,
        },
        Limit {
            name: "max_forgetting_points",
            limit: set.max_forgetting_points,
            timed: false,
            measured: &|c, r| {
                if c.uses_training { r.general.diff.map(|d| -100.0 * d) } else { Some(0.0) }
            },
            kept: &no_proven_loss,
        },
        Limit {
            name: "min_quality",
            limit: set.min_quality,
            timed: false,
            measured: &|_, r| r.metrics[&input.primary_metric].value,
            kept: &at_least,
        },
    ];
    coverage(input, records);
    let checked = limits
        .iter()
        .filter_map(|limit| Some(check_one(limit, limit.limit?, input, records)))
        .collect();
    unproven_losses(input, records, warnings);
    checked
}

fn check_one(
    limit: &Limit<'_>,
    bound: f64,
    input: &DecisionInput,
    records: &mut [CandidateRecord],
) -> ConstraintRecord {
    let measured = input.candidates.iter().zip(records).map(|(candidate, record)| {
        let value = (limit.measured)(candidate, record);
        let ok = value.is_some_and(|v| (limit.kept)(candidate, v, bound));
        if !ok {
            record.eligible = false;
            record.ineligible_because.push(match value {
                Some(_) => format!("It does not keep `{}` = {bound}.", limit.name),
                None => format!("`{}` = {bound} could not be measured.", limit.name),
            });
        }
        ConstraintValue { candidate: record.name.clone(), value, ok }
    });
    ConstraintRecord {
        name: limit.name.to_owned(),
        limit: bound,
        timed: limit.timed,
        measured: measured.collect(),
    }
}

/// A candidate that failed on too many items was not measured on the same thing as the others.
fn coverage(input: &DecisionInput, records: &mut [CandidateRecord]) {
    for record in records {
        let summary = &record.metrics[&input.primary_metric];
        let (n, failed) = (summary.n, summary.failed);
        let reason = if n == 0 {
            "It has no scored item.".to_owned()
        } else if failed as f64 / (n + failed) as f64 > input.rule.max_failed_share {
            let allowed = 100.0 * input.rule.max_failed_share;
            format!("{failed} of {} items failed, more than {allowed} %.", n + failed)
        } else {
            continue;
        };
        record.eligible = false;
        record.ineligible_because.push(reason);
    }
}

fn unproven_losses(input: &DecisionInput, records: &[CandidateRecord], warnings: &mut Vec<String>) {
    let Some(limit) = input.constraints.max_forgetting_points else { return };
    for (candidate, record) in input.candidates.iter().zip(records) {
        let lost = record.general.diff.map_or(0.0, |d| -100.0 * d);
        if candidate.uses_training && lost > limit && forgetting_p(candidate) > input.rule.alpha {
            warnings.push(format!(
                "`{}` lost {lost:.1} points on the general suite, more than {limit}; on {} items that is within chance, \
                 so it does not count as forgetting.",
                record.name, record.general.n
            ));
        }
    }
}
