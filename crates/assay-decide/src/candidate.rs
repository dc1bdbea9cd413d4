//! The record of one candidate: metrics, time, tokens, money, forgetting.

use assay_stats::{
    Discordant, MetricSummary, Resampling, bonett_price, mcnemar_exact, mcnemar_less_mid_p, mean,
    percentile, summarize,
};
use assay_types::{Score, Timing, Usage};

use crate::cost::{cost_per_query_usd, machine_usd, set_break_even};
use crate::input::{DecisionInput, Measured, Rule};
use crate::record::{CandidateRecord, Cost, General, LatencyMs, Tokens};
use crate::selective::selective;
use crate::slices;

/// Records of all candidates, eligibility still open.
pub(crate) fn records(input: &DecisionInput) -> Vec<CandidateRecord> {
    let mut records: Vec<CandidateRecord> =
        (0..input.candidates.len()).map(|i| record(input, i)).collect();
    let untrained = best_untrained(input, &records);
    let reference = untrained.map(|i| (records[i].name.clone(), records[i].cost.per_query_usd));
    for (candidate, record) in input.candidates.iter().zip(&mut records) {
        if candidate.uses_training {
            let against = reference.as_ref().map(|(name, usd)| (name.as_str(), *usd));
            set_break_even(&mut record.cost, against);
        }
    }
    records
}

/// The candidate without training that one would use otherwise: the best on the primary metric.
pub(crate) fn best_untrained(input: &DecisionInput, records: &[CandidateRecord]) -> Option<usize> {
    let value = |i: usize| records[i].metrics[&input.primary_metric].value;
    (0..records.len())
        .filter(|&i| !input.candidates[i].uses_training && value(i).is_some())
        .reduce(|best, i| if value(i) > value(best) { i } else { best })
}

fn record(input: &DecisionInput, index: usize) -> CandidateRecord {
    let candidate = &input.candidates[index];
    let everything = |_: usize| true;
    let mut metrics = candidate.summaries.clone();
    for metric in candidate.scores.keys() {
        metrics.insert(metric.clone(), summary(input, candidate, metric, everything));
    }
    let latency_ms = latency(&candidate.timed);
    let tokens = tokens(candidate);
    CandidateRecord {
        name: candidate.name.clone(),
        eligible: true,
        ineligible_because: Vec::new(),
        metrics,
        latency_ms,
        tokens,
        cost: cost(input, candidate, &latency_ms, &tokens),
        general: general(candidate, &input.rule),
        selective: selective(input, index),
        slices: slices::of_candidate(input, candidate),
        notes: candidate.notes.clone(),
    }
}

/// One metric on the items that `keep` keeps.
pub(crate) fn summary(
    input: &DecisionInput,
    candidate: &Measured,
    metric: &str,
    keep: impl Fn(usize) -> bool,
) -> MetricSummary {
    let scores = &candidate.scores[metric];
    let pairs: Vec<(&str, &Score)> = input
        .items
        .iter()
        .enumerate()
        .filter(|(i, _)| keep(*i))
        .map(|(_, item)| (item.cluster.as_str(), &scores[&item.id]))
        .collect();
    let rule = &input.rule;
    let level = 1.0 - rule.alpha;
    let how = Resampling { samples: rule.bootstrap_samples, seed: rule.seed, level };
    summarize(pairs.iter().copied(), how)
}

fn latency(timed: &[(Timing, Option<Usage>)]) -> LatencyMs {
    let values = |of: fn(&Timing) -> f64| timed.iter().map(|(t, _)| of(t)).collect::<Vec<_>>();
    let part = |of: fn(&Timing) -> f64, p| percentile(&values(of), p);
    LatencyMs {
        p50: part(Timing::total_ms, 50.0),
        p95: part(Timing::total_ms, 95.0),
        mean: mean(&values(Timing::total_ms)),
        retrieval_p50: part(|t| t.retrieval_ms, 50.0),
        retrieval_p95: part(|t| t.retrieval_ms, 95.0),
        prefill_p50: part(|t| t.prefill_ms, 50.0),
        prefill_p95: part(|t| t.prefill_ms, 95.0),
        decode_p50: part(|t| t.decode_ms, 50.0),
        decode_p95: part(|t| t.decode_ms, 95.0),
    }
}

fn tokens(candidate: &Measured) -> Tokens {
    let sum = |of: fn(&Usage) -> usize| candidate.usage.iter().map(of).sum::<usize>() as f64;
    let (input, output) = (sum(|u| u.input_tokens), sum(|u| u.output_tokens));
    let n = candidate.usage.len() as f64;
    let counted = || candidate.timed.iter().filter_map(|(t, u)| Some((t, u.as_ref()?)));
    let decode_s: f64 = counted().map(|(t, _)| t.decode_ms).sum::<f64>() / 1_000.0;
    let timed_output: usize = counted().map(|(_, u)| u.output_tokens).sum();
    Tokens {
        input_mean: (n > 0.0).then(|| input / n),
        output_mean: (n > 0.0).then(|| output / n),
        output_per_s: (decode_s > 0.0).then(|| timed_output as f64 / decode_s),
    }
}

fn cost(input: &DecisionInput, candidate: &Measured, latency: &LatencyMs, tokens: &Tokens) -> Cost {
    let prices = &input.prices;
    let retrieval: Vec<f64> = candidate.timed.iter().map(|(t, _)| t.retrieval_ms).collect();
    let machine_ms = if candidate.paid_by_token { mean(&retrieval) } else { latency.mean };
    let token_prices =
        prices.input_usd_per_million_tokens.zip(prices.output_usd_per_million_tokens);
    let is_priced = !candidate.paid_by_token || token_prices.is_some();
    let per_query_usd = match (machine_ms, tokens.input_mean, tokens.output_mean) {
        (Some(ms), Some(read), Some(written)) if is_priced => {
            Some(cost_per_query_usd(ms, read, written, prices))
        }
        _ => None,
    };
    let trained = |usd: Option<f64>| if candidate.uses_training { usd } else { Some(0.0) };
    Cost {
        per_query_usd,
        training_usd: trained(candidate.training_seconds.map(|s| machine_usd(s, prices))),
        labels_usd: trained(Some(input.facts.train_labels as f64 * prices.label_usd)),
        per_month_usd: per_query_usd.zip(input.stated.queries_per_month).map(|(c, q)| c * q),
        break_even_queries: None,
        break_even_against: None,
    }
}

fn general(candidate: &Measured, rule: &Rule) -> General {
    let Some(answers) = candidate.general.as_ref().filter(|g| !g.before.is_empty()) else {
        return General::default();
    };
    let n = answers.before.len();
    let share = |of: &[bool]| of.iter().filter(|right| **right).count() as f64 / n as f64;
    let (before, after) = (share(&answers.before), share(&answers.after));
    let changed = changes(candidate);
    let interval = bonett_price(changed.b, changed.c, n, 1.0 - rule.alpha);
    General {
        before: Some(before),
        after: Some(after),
        n,
        diff: Some(after - before),
        ci_low: interval.map(|i| i.low),
        ci_high: interval.map(|i| i.high),
        p_value: Some(mcnemar_exact(changed)),
    }
}

/// Items of the general suite gained (`b`) and lost (`c`) by tuning.
fn changes(candidate: &Measured) -> Discordant {
    let answers = candidate.general.iter();
    Discordant::of(answers.flat_map(|g| g.after.iter().copied().zip(g.before.iter().copied())))
}

/// One-sided p of "tuning lost nothing on the general suite".
pub(crate) fn forgetting_p(candidate: &Measured) -> f64 {
    mcnemar_less_mid_p(changes(candidate))
}
