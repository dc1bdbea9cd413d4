//! From scores to the decision, its record, its report and its releases.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use assay_candidate::CandidateSpec;
use assay_decide::{
    Constraints, Decision, DecisionInput, EpochRecord, Facts, GeneralAnswers, Inputs, Prices,
    ReportData, ReportItem, ReportOutput, Rule, SkippedCandidate, Stated, Sure, SureAnswers,
    TestItem, TrainingHistory,
};
use assay_eval::{
    Labelled, MetricSummary, Resampling, answer_text, macro_f1, match_label, summarize,
};
use assay_model::Form;
use assay_types::{Item, Output, Score, Task, Timing, Usage};

use super::evaluate::{Answered, Held};
use super::{Bench, Measured, release};
use crate::base;

/// Items that the report shows: half of them the hardest, half the ones that candidates differ on most.
const REPORT_ITEMS: usize = 40;

/// Scores every answer, decides, and writes `decision.json`, `report.html` and the releases.
pub(crate) fn decide(
    bench: &Bench<'_>,
    measured: &[Measured],
    skipped: Vec<SkippedCandidate>,
    base_general: Option<&[bool]>,
) -> Result<ExitCode> {
    let metric = bench.config.metric();
    let input = DecisionInput {
        task: bench.config.project.task,
        primary_metric: metric.clone(),
        items: bench
            .data
            .test
            .iter()
            .map(|i| TestItem {
                id: i.id.clone(),
                cluster: i.cluster().to_owned(),
                slices: i.slices.clone(),
            })
            .collect(),
        candidates: measured
            .iter()
            .map(|m| candidate(bench, m, base_general))
            .collect::<Result<_>>()?,
        skipped,
        facts: Facts {
            train_labels: bench.data.train.len(),
            dev_labels: bench.data.dev.len(),
            documents: bench.index.as_ref().map_or(0, |i| i.documents().len()),
        },
        stated: stated(bench),
        prices: prices(bench),
        constraints: constraints(bench),
        rule: rule(bench),
        inputs: inputs(bench),
        times: times(measured),
    };
    let decision = assay_decide::decide(&input)?;
    let report = ReportData {
        project: bench.config.project.name.clone(),
        items: report_items(bench, measured, &input, &metric),
        training: measured.iter().filter_map(history).collect(),
        method_notes: method_notes(bench),
        decision,
    };
    let json = serde_json::to_string_pretty(&report.decision)? + "\n";
    let hash = assay_store::hash_bytes(json.as_bytes());
    let mut releases = BTreeMap::new();
    for (m, record) in measured.iter().zip(&report.decision.candidates) {
        let promise = record.selective.as_ref().and_then(|s| s.promise);
        if bench.config.serve.max_risk.is_some() && promise.is_none() {
            bench.ui.note(&format!(
                "warning: {}: how sure its answers are is not known, so serve.max_risk cannot be kept: it answers all",
                m.spec.name
            ));
        }
        let abstain_below = promise.and_then(|p| p.threshold);
        if let Some(p) = promise.filter(|p| p.threshold.is_none()) {
            bench.ui.note(&format!(
                "warning: {}: {} dev items cannot promise a risk of at most {} for any threshold: it answers all",
                m.spec.name, p.dev_items, p.max_risk
            ));
        }
        let spec = CandidateSpec { abstain_below, ..m.spec.clone() };
        releases.insert(m.spec.name.as_str(), release::file(bench, &spec, &hash)?);
    }
    let changed = write(&bench.loaded.path(Path::new("decision.json")), &json)?
        | write(&bench.loaded.path(Path::new("report.html")), &assay_report::html(&report))?;
    if let Some(id) = report.decision.winner.as_deref().and_then(|w| releases.get(w)) {
        bench.store.set_current(id)?;
    }
    say(bench, &report.decision, changed);
    Ok(ExitCode::SUCCESS)
}

fn say(bench: &Bench<'_>, decision: &Decision, changed: bool) {
    let (worked, fresh) = bench.ui.counts();
    if worked == 0 && !changed {
        bench.ui.note(&format!("nothing to do: all {fresh} steps were up to date"));
    }
    bench.ui.note("");
    println!("{}", decision.verdict);
    for warning in &decision.warnings {
        bench.ui.note(&format!("warning: {warning}"));
    }
    let at = |name: &str| bench.loaded.path(Path::new(name)).display().to_string();
    bench.ui.note(&format!("\nreport    {}\nrecord    {}", at("report.html"), at("decision.json")));
    bench.ui.note(match decision.winner {
        Some(_) => "next      `assay ask \"…\"`, `assay serve`",
        None => "next      label more, or `assay serve --candidate NAME` to try one",
    });
}

fn candidate(
    bench: &Bench<'_>,
    m: &Measured,
    base_general: Option<&[bool]>,
) -> Result<assay_decide::Measured> {
    let mut scores: BTreeMap<String, BTreeMap<_, Score>> = BTreeMap::new();
    let mut outputs: Vec<&Output> = Vec::new();
    for item in &bench.data.test {
        let answered = output(m, item);
        outputs.extend(answered.ok());
        for (metric, score) in bench.scorer.score(item, answered) {
            scores.entry(metric).or_default().insert(item.id.clone(), score);
        }
    }
    let mut summaries = BTreeMap::new();
    if let Some(attacked) = &m.attacked {
        let kinds =
            [("injection_resisted", &attacked.injected), ("poison_resisted", &attacked.poisoned)];
        for (name, held) in kinds.into_iter().filter(|(_, held)| !held.is_empty()) {
            summaries.insert(name.to_owned(), share(bench, held));
        }
    }
    if bench.config.project.task == Task::Classify {
        summaries.insert("macro_f1".to_owned(), macro_f1_of(bench, m));
    }
    Ok(assay_decide::Measured {
        name: m.spec.name.clone(),
        scores,
        summaries,
        timed: m.answers.values().filter_map(timed).collect(),
        usage: outputs.iter().filter_map(|o| o.usage).collect(),
        paid_by_token: bench.is_remote(),
        uses_retrieval: m.spec.retrieval.is_some(),
        uses_training: m.spec.adapter.is_some(),
        training_seconds: m.training.as_ref().map(|t| t.seconds),
        general: base_general.zip(m.general.as_ref()).map(|(before, after)| GeneralAnswers {
            before: before.to_vec(),
            after: after.clone(),
        }),
        sure: sure(bench, m)?,
        notes: m
            .notes
            .iter()
            .cloned()
            .chain(citation_note(m, &outputs))
            .chain(remote_notes(bench, &outputs))
            .collect(),
    })
}

/// The share of attacks that failed, with its interval; what could not be answered is counted and not in it.
fn share(bench: &Bench<'_>, held: &[Held]) -> MetricSummary {
    let score = |(i, held): (usize, &Held)| {
        let score = match held {
            Held::Resisted => Score::Scored(1.0),
            Held::Fell => Score::Scored(0.0),
            Held::NotPlanted => Score::Skipped("no document entered the prompt".into()),
            Held::Failed(why) => Score::Failed(why.clone()),
        };
        (i.to_string(), score)
    };
    let scores: Vec<(String, Score)> = held.iter().enumerate().map(score).collect();
    summarize(scores.iter().map(|(item, score)| (item.as_str(), score)), resampling(bench))
}

/// How sure the candidate was of what it answered; `None` if it is not known of every answer.
fn sure(bench: &Bench<'_>, m: &Measured) -> Result<Option<Sure>> {
    let metric = bench.config.metric();
    let judge = |items: &[Item], answers: &BTreeMap<String, Answered>| {
        let mut of = SureAnswers::default();
        for item in items {
            let Some(Ok(output)) = answers.get(&item.id.0).map(Answered::output) else { continue };
            of.items += 1;
            if output.abstained {
                continue;
            }
            let Some(confidence) = output.confidence else { return Ok(None) };
            let loss = (1.0 - bench.one(item, output, &metric)?).clamp(0.0, 1.0);
            of.answers.push((item.cluster().to_owned(), confidence, loss));
        }
        Ok::<_, anyhow::Error>(Some(of))
    };
    Ok(judge(&bench.data.test, &m.answers)?
        .zip(judge(&bench.data.dev, &m.dev)?)
        .map(|(test, dev)| Sure { test, dev }))
}

/// What became of the markers in the answers.
fn citation_note(m: &Measured, outputs: &[&Output]) -> Option<String> {
    if !m.spec.cites() {
        return None;
    }
    let all = || outputs.iter().flat_map(|o| &o.citations);
    let repaired = all().filter(|c| c.repaired).count();
    let dropped: usize = outputs.iter().map(|o| o.dropped_citations).sum();
    Some(format!(
        "Citations: {} stand in the source as given, {repaired} were moved to the source that holds the words, {dropped} \
         could not be verified and were dropped.",
        all().count() - repaired
    ))
}

/// What a reader must know about the figures of a model behind a server.
fn remote_notes(bench: &Bench<'_>, outputs: &[&Output]) -> Vec<String> {
    let mut notes = Vec::new();
    if !bench.is_remote() {
        return notes;
    }
    notes.push(
        "The general suite was skipped: it needs log-probabilities of given texts, which a chat server does not offer."
            .to_owned(),
    );
    let known = outputs.iter().filter(|o| o.usage.is_some()).count();
    if known < outputs.len() {
        notes.push(format!(
            "Tokens are known for {known} of {} answers (the server sent no count, or a try was lost): token and cost \
             figures are means of these.",
            outputs.len()
        ));
    }
    if bench.config.model.price.is_none() {
        notes.push(
            "Costs are unknown: the project file states no prices in [model.price].".to_owned(),
        );
    }
    notes
}

fn output<'a>(m: &'a Measured, item: &Item) -> Result<&'a Output, &'a str> {
    m.answers.get(&item.id.0).map_or(Err("was not answered"), Answered::output)
}

/// What a user would have waited and got, where that was measured.
fn timed(answered: &Answered) -> Option<(Timing, Option<Usage>)> {
    match answered {
        Answered::Alone(output) => Some((output.timing, output.usage)),
        Answered::Batched(_) | Answered::Failed(_) => None,
    }
}

fn macro_f1_of(bench: &Bench<'_>, m: &Measured) -> assay_decide::MetricSummary {
    let mut failed = 0;
    let labelled: Vec<Labelled> = bench
        .data
        .test
        .iter()
        .filter_map(|item| {
            let Ok(output) = output(m, item) else {
                failed += 1;
                return None;
            };
            Some(Labelled {
                cluster: item.cluster().to_owned(),
                gold: item.references.first()?.clone(),
                predicted: match_label(&answer_text(output), &bench.data.labels).map(str::to_owned),
            })
        })
        .collect();
    macro_f1(&labelled, failed, resampling(bench))
}

fn resampling(bench: &Bench<'_>) -> Resampling {
    let Rule { bootstrap_samples: samples, seed, alpha, .. } = rule(bench);
    Resampling { samples, seed, level: 1.0 - alpha }
}

fn stated(bench: &Bench<'_>) -> Stated {
    let needs = &bench.config.needs;
    Stated {
        knowledge_changes_per_month: needs.knowledge_changes_per_month,
        queries_per_month: needs.queries_per_month,
        citations_needed: needs.citations,
        strict_format: needs.strict_format,
        latency_budget_ms: bench.config.constraints.max_p95_latency_ms,
        target: bench.config.decision.target,
        max_risk: bench.config.serve.max_risk,
    }
}

pub(crate) fn prices(bench: &Bench<'_>) -> Prices {
    let p = &bench.config.prices;
    let tokens = bench.config.model.price;
    Prices {
        hardware_usd_per_hour: p.hardware_usd_per_hour,
        label_usd: p.label_usd,
        input_usd_per_million_tokens: tokens.map(|t| t.input_per_million),
        output_usd_per_million_tokens: tokens.map(|t| t.output_per_million),
    }
}

fn constraints(bench: &Bench<'_>) -> Constraints {
    let c = &bench.config.constraints;
    Constraints {
        max_p95_latency_ms: c.max_p95_latency_ms,
        max_cost_per_query_usd: c.max_cost_per_query_usd,
        max_training_usd: c.max_training_usd,
        max_forgetting_points: c.max_forgetting_points,
        min_quality: c.min_quality,
    }
}

fn rule(bench: &Bench<'_>) -> Rule {
    let d = &bench.config.decision;
    Rule {
        alpha: d.alpha,
        margin: d.margin,
        bootstrap_samples: d.bootstrap_samples,
        ..Rule::new(bench.config.project.task, bench.config.project.seed)
    }
}

fn inputs(bench: &Bench<'_>) -> Inputs {
    let mut hashes: BTreeMap<String, String> = bench.data.hashes.iter().cloned().collect();
    let base =
        if bench.is_remote() { "base model (name and settings)" } else { "base model (sha256)" };
    hashes.insert(base.into(), bench.base_hash.clone());
    hashes.insert("embedder".into(), bench.embedder.id().to_owned());
    hashes.insert("retrieval context".into(), bench.context_hash.clone());
    hashes.insert("configuration".into(), assay_store::hash_json(bench.config));
    let seed = bench.config.project.seed;
    let counts = [
        ("train", bench.data.train.len()),
        ("dev", bench.data.dev.len()),
        ("test", bench.data.test.len()),
        ("documents", bench.index.as_ref().map_or(0, |i| i.documents().len())),
        ("chunks", bench.index.as_ref().map_or(0, |i| i.chunk_count())),
    ];
    let d = &bench.config.decision;
    let settings = [
        ("base model", bench.config.model.base.clone()),
        ("embedder", bench.config.model.embedder.clone()),
        ("alpha", d.alpha.to_string()),
        ("margin", d.margin.to_string()),
        ("bootstrap samples", d.bootstrap_samples.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let mut settings: BTreeMap<String, String> =
        settings.map(|(k, v)| (k.to_owned(), v)).into_iter().collect();
    if bench.is_remote() {
        settings.insert("prompts are counted by".to_owned(), base::budget(bench.config));
    }
    match &bench.form {
        Some(Form::OneOf(_)) => settings.insert("answers are held to".into(), "the labels".into()),
        Some(_) => settings.insert("answers are held to".into(), "the schema".into()),
        None => None,
    };
    Inputs {
        hashes,
        seeds: ["split", "shots", "training", "statistics"]
            .map(|s| (s.to_owned(), seed))
            .into_iter()
            .collect(),
        counts: counts.map(|(k, v)| (k.to_owned(), v)).into_iter().collect(),
        settings,
    }
}

/// Seconds of training and answering, as stored with their results: a second run says the same.
fn times(measured: &[Measured]) -> BTreeMap<String, f64> {
    let mut times = BTreeMap::new();
    for m in measured {
        if let Some(training) = &m.training {
            times.insert(format!("train {}", m.spec.name), training.seconds);
        }
        let outputs = m.answers.values().filter_map(|a| a.output().ok());
        let seconds = outputs.map(|o| o.timing.total_ms() / 1e3).sum();
        times.insert(format!("test {}", m.spec.name), seconds);
    }
    times
}

fn report_items(
    bench: &Bench<'_>,
    measured: &[Measured],
    input: &DecisionInput,
    metric: &str,
) -> Vec<ReportItem> {
    let score = |c: usize, item: &Item| {
        input.candidates[c].scores.get(metric).and_then(|s| s.get(&item.id)).cloned()
    };
    let values = |item: &Item| -> Vec<f64> {
        (0..measured.len()).map(|c| score(c, item).and_then(|s| s.value()).unwrap_or(0.0)).collect()
    };
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let spread = |v: &[f64]| {
        v.iter().copied().fold(f64::MIN, f64::max) - v.iter().copied().fold(f64::MAX, f64::min)
    };
    let mut hardest: Vec<(&Item, Vec<f64>)> =
        bench.data.test.iter().map(|i| (i, values(i))).collect();
    let mut divided = hardest.clone();
    hardest.sort_by(|a, b| mean(&a.1).total_cmp(&mean(&b.1)).then(a.0.id.cmp(&b.0.id)));
    divided.sort_by(|a, b| spread(&b.1).total_cmp(&spread(&a.1)).then(a.0.id.cmp(&b.0.id)));
    let mut chosen: Vec<&Item> = Vec::new();
    for (item, _) in hardest.iter().take(REPORT_ITEMS / 2).chain(&divided) {
        if chosen.len() < REPORT_ITEMS && !chosen.iter().any(|c| c.id == item.id) {
            chosen.push(item);
        }
    }
    chosen
        .into_iter()
        .map(|item| ReportItem {
            id: item.id.clone(),
            input: item.input.clone(),
            references: item.references.clone(),
            doc_ids: item.doc_ids.clone(),
            slices: item.slices.clone(),
            outputs: measured
                .iter()
                .enumerate()
                .map(|(c, m)| {
                    let score = score(c, item)
                        .unwrap_or_else(|| Score::Failed(format!("{metric} was not measured")));
                    report_output(m, item, score)
                })
                .collect(),
        })
        .collect()
}

fn report_output(m: &Measured, item: &Item, score: Score) -> ReportOutput {
    let candidate = m.spec.name.clone();
    match output(m, item) {
        Ok(o) => ReportOutput {
            candidate,
            text: o.text.clone(),
            score,
            citations: o.citations.clone(),
            dropped_citations: o.dropped_citations,
            retrieved: o.retrieved.clone(),
            abstained: o.abstained,
        },
        Err(why) => ReportOutput {
            candidate,
            text: format!("(failed: {why})"),
            score,
            citations: Vec::new(),
            dropped_citations: 0,
            retrieved: Vec::new(),
            abstained: false,
        },
    }
}

fn history(m: &Measured) -> Option<TrainingHistory> {
    let summary = m.training.as_ref()?;
    Some(TrainingHistory {
        candidate: m.spec.name.clone(),
        epochs: summary
            .history
            .iter()
            .map(|e| EpochRecord {
                epoch: e.epoch,
                train_loss: e.train_loss,
                dev_loss: e.dev_loss,
                seconds: summary.seconds / summary.history.len().max(1) as f64,
            })
            .collect(),
        best_epoch: Some(summary.best_epoch),
    })
}

fn method_notes(bench: &Bench<'_>) -> Vec<String> {
    let t = &bench.config.training;
    let base = &bench.config.model.base;
    let mut notes = vec![format!(
        "All candidates answer the same {} test items, greedily, on the same {}; test items were used for nothing else. \
         Choices were made on {} of the {} dev items.",
        bench.data.test.len(),
        if bench.is_remote() { "server" } else { "machine" },
        bench.dev_probe().len(),
        bench.data.dev.len()
    )];
    if bench.is_remote() {
        notes.push(format!(
            "The base model is {base}, asked at temperature 0 with a fixed seed; whether that makes its answers repeatable is \
             the server's affair. The answers are stored, so deciding again does not ask again. Prompts were kept within \
             their budget by {}.",
            base::budget(bench.config)
        ));
    } else {
        notes.push(format!(
            "The base model is {base}; what tuning starts from is its dequantised weights. Tuned candidates: LoRA on all \
             linear layers, rank {}, α {}, learning rate {}, {} epochs at most, batch {}, loss on the answer only; \
             the epoch that is best on dev is used. Both have the same rows and the same budget.",
            t.rank, t.alpha, t.learning_rate, t.epochs, t.batch_size
        ));
        notes.push(
            "The hybrid is trained in the fashion of RAFT (arXiv 2403.10131): retrieved context with hard distractors from \
             the same retriever; where the golden chunk is left out, it learns to decline."
                .to_owned(),
        );
    }
    notes.push(
        "Retrieval is BM25 and exact vector search with score fusion. A citation is released only if its quote is a span \
         of the stored source."
            .to_owned(),
    );
    notes.push(if bench.is_remote() {
        "Latencies are wall time of single streamed questions, the network, waits and repeated tries included; the time to \
         the first text counts as the prompt's. Costs are the tokens of all tries at the prices in [model.price], and \
         retrieval at the price of the hardware."
            .to_owned()
    } else {
        "Latencies are wall time on this machine with nothing else asked of it by this program, split into retrieval, \
         prompt and answer. Costs are that time at the price of the hardware in assay.toml."
            .to_owned()
    });
    notes
}

/// Writes a file in one step; whether it changed.
fn write(path: &Path, text: &str) -> Result<bool> {
    if path.is_file() && fs_err::read_to_string(path)? == text {
        return Ok(false);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    fs_err::write(&part, text)?;
    fs_err::rename(&part, path)?;
    Ok(true)
}
