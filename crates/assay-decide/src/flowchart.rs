//! The questions an engineer asks before choosing, each with the evidence at hand. They explain; the rule decides.

use assay_types::Task;

use crate::candidate::best_untrained;
use crate::input::DecisionInput;
use crate::record::{CandidateRecord, EvidenceSource, FlowStep};
use crate::words::{list, number, usd, whole};

/// A step without figures of the clock.
fn step(
    question: &str,
    answer: impl Into<String>,
    evidence: impl Into<String>,
    source: EvidenceSource,
    speaks_for: &str,
) -> FlowStep {
    FlowStep {
        question: question.into(),
        answer: answer.into(),
        evidence: evidence.into(),
        source,
        speaks_for: speaks_for.into(),
        timed: false,
    }
}

fn unknown(question: &str, key: &str) -> FlowStep {
    let evidence = format!("`{key}` is not stated in assay.toml.");
    step(question, "unknown", evidence, EvidenceSource::Unknown, "")
}

pub(crate) fn steps(input: &DecisionInput, records: &[CandidateRecord]) -> Vec<FlowStep> {
    vec![
        knowledge(input),
        sources(input, records),
        retrieval(input, records),
        labels(input),
        format(input, records),
        latency(input, records),
        volume(input, records),
        gap(input, records),
        forgetting(input, records),
    ]
}

fn knowledge(input: &DecisionInput) -> FlowStep {
    let question = "Does the knowledge behind the answers change?";
    let Some(changes) = input.stated.knowledge_changes_per_month else {
        return unknown(question, "knowledge_changes_per_month");
    };
    let evidence = format!("Stated: {} changes a month.", number(changes));
    let (answer, speaks_for) = match changes {
        c if c >= 1.0 => ("yes", "retrieval"),
        c if c > 0.0 => ("rarely", ""),
        _ => ("no", "tuning"),
    };
    step(question, answer, evidence, EvidenceSource::Stated, speaks_for)
}

fn sources(input: &DecisionInput, records: &[CandidateRecord]) -> FlowStep {
    let question = "Must answers name their sources?";
    let Some(needed) = input.stated.citations_needed else {
        return unknown(question, "citations_needed");
    };
    let measured = measured(records, "citation_validity");
    let evidence = match measured.as_str() {
        "" => "Stated.".to_owned(),
        figures => format!("Stated. Share of citations verified in the source: {figures}."),
    };
    let (answer, speaks_for) = if needed { ("yes", "retrieval") } else { ("no", "") };
    step(question, answer, evidence, EvidenceSource::Stated, speaks_for)
}

fn retrieval(input: &DecisionInput, records: &[CandidateRecord]) -> FlowStep {
    let question = "Does retrieval find the right document?";
    let figures = measured(records, "recall@5");
    if figures.is_empty() {
        let why = "No candidate retrieved for items that name their gold documents.";
        return step(question, "unknown", why, EvidenceSource::Unknown, "");
    }
    let best = records.iter().filter_map(|r| r.metrics.get("recall@5")?.value).fold(0.0, f64::max);
    let evidence =
        format!("Recall at 5 over {} documents: {figures}.", whole(input.facts.documents));
    let (answer, speaks_for) = match best {
        b if b >= 0.8 => ("yes", "retrieval"),
        b if b >= 0.5 => ("often", ""),
        _ => ("rarely", "tuning"),
    };
    step(question, answer, evidence, EvidenceSource::Measured, speaks_for)
}

fn labels(input: &DecisionInput) -> FlowStep {
    let (have, bars) = (input.facts.train_labels, &input.rule.thresholds);
    let (few, enough) = (whole(bars.few_labels), whole(bars.enough_labels));
    let range =
        if few == enough { format!("about {enough}") } else { format!("{few} to {enough}") };
    let evidence = format!(
        "{} training labels; the rule of thumb for `{}` asks for {range}.",
        whole(have),
        input.task
    );
    let (answer, speaks_for) = match have {
        n if n >= bars.enough_labels => ("yes", "tuning"),
        n if n >= bars.few_labels => ("borderline", ""),
        _ => ("no", "prompting"),
    };
    let question = "Are there enough labels to tune?";
    step(question, answer, evidence, EvidenceSource::Measured, speaks_for)
}

fn format(input: &DecisionInput, records: &[CandidateRecord]) -> FlowStep {
    let question = "Is a strict output format needed?";
    let by_task = matches!(input.task, Task::Classify | Task::Extract);
    if !(by_task || input.stated.strict_format == Some(true)) {
        return match input.stated.strict_format {
            Some(_) => step(question, "no", "Stated.", EvidenceSource::Stated, ""),
            None => unknown(question, "strict_format"),
        };
    }
    let metric = if input.task == Task::Classify { "valid_label" } else { "schema_valid" };
    let figures = measured(records, metric);
    if figures.is_empty() {
        return step(question, "yes", "Stated.", EvidenceSource::Stated, "tuning");
    }
    let untrained = best_untrained(input, records);
    let kept = untrained
        .and_then(|i| records[i].metrics.get(metric)?.value)
        .is_some_and(|share| share >= 0.98);
    let (answer, speaks_for) =
        if kept { ("yes, and prompting keeps it", "") } else { ("yes", "tuning") };
    let evidence = format!("Share of outputs in the right form: {figures}.");
    step(question, answer, evidence, EvidenceSource::Measured, speaks_for)
}

fn latency(input: &DecisionInput, records: &[CandidateRecord]) -> FlowStep {
    let question = "Is the latency budget tight?";
    let budget = input.stated.latency_budget_ms.or(input.constraints.max_p95_latency_ms);
    let Some(budget) = budget else { return unknown(question, "latency_budget_ms") };
    let figures = list(
        records.iter().filter_map(|r| Some(format!("{} {} ms", r.name, number(r.latency_ms.p95?)))),
    );
    let (answer, speaks_for) = if budget < input.rule.thresholds.tight_latency_ms {
        ("yes", "tuning with a short prompt")
    } else {
        ("no", "")
    };
    let measured = match figures.as_str() {
        "" => String::new(),
        figures => format!(" Measured 95th percentiles: {figures}."),
    };
    let evidence = format!("Stated budget: {} ms.{measured}", number(budget));
    let stated = step(question, answer, evidence, EvidenceSource::Stated, speaks_for);
    FlowStep { timed: true, ..stated }
}

fn volume(input: &DecisionInput, records: &[CandidateRecord]) -> FlowStep {
    let question = "Is the volume high enough to repay tuning?";
    let Some(queries) = input.stated.queries_per_month else {
        return unknown(question, "queries_per_month");
    };
    let per_query = best_untrained(input, records)
        .and_then(|i| Some(records[i].tokens.input_mean? + records[i].tokens.output_mean?));
    let Some(per_query) = per_query else {
        let why = "No tokens were counted for a candidate without training.";
        return step(question, "unknown", why, EvidenceSource::Unknown, "");
    };
    let (bars, tokens) = (&input.rule.thresholds, queries * per_query);
    let (answer, speaks_for) = match tokens {
        t if t >= bars.high_tokens_per_month => ("yes", "tuning"),
        t if t >= bars.low_tokens_per_month => ("borderline", ""),
        _ => ("no", "prompting"),
    };
    let repaid = list(records.iter().filter_map(|r| {
        let (training, queries) = (r.cost.training_usd?, r.cost.break_even_queries?);
        Some(format!("{} ({}) after {} queries", r.name, usd(training), number(queries.round())))
    }));
    let repaid = match repaid.as_str() {
        "" => " No training is repaid by a cheaper answer.".to_owned(),
        repaid => format!(" Repaid: {repaid}."),
    };
    let evidence = format!(
        "{} queries of {} tokens are {} million tokens a month; the rule of thumb asks for {} to {} million.{repaid}",
        number(queries),
        number(per_query.round()),
        number(tokens / 1e6),
        number(bars.low_tokens_per_month / 1e6),
        number(bars.high_tokens_per_month / 1e6),
    );
    let measured = step(question, answer, evidence, EvidenceSource::Measured, speaks_for);
    FlowStep { timed: true, ..measured }
}

fn gap(input: &DecisionInput, records: &[CandidateRecord]) -> FlowStep {
    let question = "How far is the best prompt from the target?";
    let value = |i: usize| records[i].metrics[&input.primary_metric].value;
    let prompt = (0..records.len())
        .filter(|&i| input.candidates[i].complexity() == 0)
        .filter_map(|i| Some((&records[i].name, value(i)?)))
        .reduce(|best, next| if next.1 > best.1 { next } else { best });
    let Some((name, reached)) = prompt else {
        let why = "No candidate is a prompt alone.";
        return step(question, "unknown", why, EvidenceSource::Unknown, "");
    };
    let best = (0..records.len()).filter_map(value).fold(reached, f64::max);
    let (target, which) = match input.stated.target {
        Some(target) => (target, "the stated target"),
        None => (best, "the best candidate (no target is stated)"),
    };
    let gap = if target > 0.0 { ((target - reached) / target).max(0.0) } else { 0.0 };
    let bars = &input.rule.thresholds;
    let (answer, speaks_for) = match gap {
        g if g <= bars.small_gap => ("near", "prompting"),
        g if g <= bars.large_gap => ("some way", ""),
        _ => ("far", "retrieval or tuning"),
    };
    let evidence = format!(
        "{} of `{name}` is {reached:.3}, {:.0} % short of {which}, {target:.3}.",
        input.primary_metric,
        100.0 * gap
    );
    step(question, answer, evidence, EvidenceSource::Measured, speaks_for)
}

fn forgetting(input: &DecisionInput, records: &[CandidateRecord]) -> FlowStep {
    let question = "Does tuning cost general ability?";
    let trained = || {
        let both = input.candidates.iter().zip(records);
        both.filter(|(c, r)| c.uses_training && r.general.n > 0)
    };
    let figures = list(trained().filter_map(|(_, r)| {
        let (before, after) = (r.general.before?, r.general.after?);
        let (low, high) = (100.0 * r.general.ci_low?, 100.0 * r.general.ci_high?);
        Some(format!(
            "{} {:.1} → {:.1} % (change {low:+.1} to {high:+.1} points)",
            r.name,
            100.0 * before,
            100.0 * after
        ))
    }));
    let Some(items) = trained().map(|(_, r)| r.general.n).max() else {
        let why = "No tuned candidate was scored on the general suite.";
        return step(question, "unknown", why, EvidenceSource::Unknown, "");
    };
    let lost = trained().any(|(_, r)| r.general.ci_high.is_some_and(|high| high < 0.0));
    let evidence = format!("Right answers on {} general items: {figures}.", whole(items));
    let (answer, speaks_for) =
        if lost { ("yes", "prompting or retrieval") } else { ("not shown", "") };
    step(question, answer, evidence, EvidenceSource::Measured, speaks_for)
}

/// Values of a metric over the candidates that have it.
fn measured(records: &[CandidateRecord], metric: &str) -> String {
    list(
        records
            .iter()
            .filter_map(|r| Some(format!("{} {:.3}", r.name, r.metrics.get(metric)?.value?))),
    )
}
