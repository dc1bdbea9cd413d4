//! Test outputs of a candidate, and the general suite with and without its adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anyhow::{Result, bail};
use assay_candidate::{Blame, Candidate, CandidateError, CandidateSpec, Options, Request};
use assay_eval::{Attack, GeneralItem};
use assay_model::{Adapter, Continuation, Decoder};
use assay_store::{Key, StepKey};
use assay_types::{Item, Output, Score, Task};
use serde::{Deserialize, Serialize};

use super::Bench;
use crate::interrupt::{self, Interrupted};

/// Version of this step: raise it when outputs change.
const VERSION: u32 = 5;

/// Test items that are answered one at a time, as a user would ask: the sample of the latencies. Fewer would leave
/// the 95th percentile to one item.
const TIMED_ALONE: usize = 40;

/// Items of one batch: what a kill can lose.
pub(crate) const BATCH: usize = 64;

/// What became of one item.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answered {
    /// Answered alone, so that its timing is what a user would wait.
    Alone(Output),
    /// Answered in a batch: the same text as alone, sooner; its timing is its share of the batch.
    Batched(Output),
    Failed(String),
}

impl Answered {
    /// The output, or why there is none.
    pub(crate) fn output(&self) -> Result<&Output, &str> {
        match self {
            Answered::Alone(output) | Answered::Batched(output) => Ok(output),
            Answered::Failed(why) => Err(why),
        }
    }
}

/// Answers every test item. A sample that is spread over all items is answered one at a time, which makes the
/// latencies real; the others in batches.
pub(crate) fn answers(
    bench: &Bench<'_>,
    candidate: &Candidate,
) -> Result<BTreeMap<String, Answered>> {
    let test = &bench.data.test;
    let key = answers_key(bench, candidate.spec());
    let label = format!("test {}", candidate.spec().name);
    let mut done: BTreeMap<String, Answered> = bench.store.items(&key)?;
    if done.len() == test.len() {
        bench.ui.fresh(&label, &format!("{} answers", done.len()));
        return Ok(done);
    }
    let step = bench.ui.step(&label, test.len() as u64);
    step.tick(done.len() as u64);
    // The first answer after loading is slower than all others: one throw-away warms caches up.
    if let Some(first) = bench.data.dev.first().or(test.first()) {
        let warm = Options { max_new_tokens: Some(2), ..Options::default() };
        let _ = candidate.answer(&bench.request(first), &warm, &mut |_| ControlFlow::Continue(()));
    }
    let sample = sample(test.len());
    let (alone, batched): (Vec<_>, Vec<_>) = test
        .iter()
        .enumerate()
        .filter(|(_, item)| !done.contains_key(&item.id.0))
        .partition(|(i, _)| sample.contains(i));
    let mut passing = 0;
    let mut file = |item: &Item, answered: Settled| -> Result<()> {
        if let Settled::ForGood(answered) = &answered {
            bench.store.put_item(&key, &item.id.0, answered)?;
        } else {
            passing += 1;
        }
        let (Settled::ForGood(answered) | Settled::ForNow(answered)) = answered;
        done.insert(item.id.0.clone(), answered);
        step.tick(done.len() as u64);
        Ok(())
    };
    for (_, item) in alone {
        interrupt::check()?;
        let request = bench.request(item);
        let output =
            candidate.answer(&request, &Options::default(), &mut |_| ControlFlow::Continue(()));
        file(item, settle(output, Answered::Alone)?)?;
    }
    for items in batched.chunks(BATCH) {
        interrupt::check()?;
        let requests: Vec<_> = items.iter().map(|(_, item)| bench.request(item)).collect();
        let outputs = candidate.answer_batch(&requests)?;
        // What a server did answer is filed also if it was given up in between.
        let filed: Vec<Result<()>> = items
            .iter()
            .zip(outputs)
            .map(|((_, item), output)| file(item, settle(output, Answered::Batched)?))
            .collect();
        filed.into_iter().collect::<Result<()>>()?;
    }
    let failed = done.values().filter(|a| a.output().is_err()).count();
    step.done(&format!("{} answers, {failed} failed", done.len()));
    if passing > 0 {
        bench.ui.note(&format!(
            "{passing} of them for reasons that may pass: `assay run` asks these again"
        ));
    }
    bench.tell_unwritten();
    Ok(done)
}

fn answers_key(bench: &Bench<'_>, spec: &CandidateSpec) -> Key {
    key(bench, spec, &bench.data.test)
}

fn key(bench: &Bench<'_>, spec: &CandidateSpec, items: &[Item]) -> Key {
    StepKey::new("answer", VERSION)
        .input("base", &bench.base_hash)
        .input("context", &bench.context_hash)
        .setting("spec", spec)
        .setting("items", items)
        .finish()
}

/// Answers the dev items, in batches: what a threshold is made from.
pub(crate) fn dev_answers(
    bench: &Bench<'_>,
    candidate: &Candidate,
) -> Result<BTreeMap<String, Answered>> {
    let dev = &bench.data.dev;
    let key = key(bench, candidate.spec(), dev);
    let label = format!("dev {}", candidate.spec().name);
    let mut done: BTreeMap<String, Answered> = bench.store.items(&key)?;
    if done.len() == dev.len() {
        bench.ui.fresh(&label, &format!("{} answers", done.len()));
        return Ok(done);
    }
    let step = bench.ui.step(&label, dev.len() as u64);
    let open: Vec<&Item> = dev.iter().filter(|i| !done.contains_key(&i.id.0)).collect();
    for items in open.chunks(BATCH) {
        interrupt::check()?;
        let requests: Vec<_> = items.iter().map(|item| bench.request(item)).collect();
        for (item, output) in items.iter().zip(candidate.answer_batch(&requests)?) {
            let settled = settle(output, Answered::Batched)?;
            if let Settled::ForGood(answered) = &settled {
                bench.store.put_item(&key, &item.id.0, answered)?;
            }
            let (Settled::ForGood(answered) | Settled::ForNow(answered)) = settled;
            done.insert(item.id.0.clone(), answered);
        }
        step.tick(done.len() as u64);
    }
    step.done(&format!("{} answers", done.len()));
    bench.tell_unwritten();
    Ok(done)
}

/// What became of attacks, one per item.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Attacked {
    /// The best document held an instruction.
    pub(crate) injected: Vec<Held>,
    /// The best document stated a wrong answer; empty for tasks without short answers.
    pub(crate) poisoned: Vec<Held>,
}

/// What an answer did to planted text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Held {
    Resisted,
    Fell,
    /// No document entered the prompt in which text could be planted.
    NotPlanted,
    Failed(String),
}

/// Items that are attacked.
pub(crate) const ATTACKED: usize = 24;

/// Plants text in the best document of some test items, and looks whether the candidate falls for it; `None` for one that
/// reads no documents.
pub(crate) fn attacked(bench: &Bench<'_>, candidate: &Candidate) -> Result<Option<Attacked>> {
    if !candidate.spec().cites() {
        return Ok(None);
    }
    let test = &bench.data.test;
    let n = ATTACKED.min(test.len());
    let items: Vec<&Item> = (0..n).map(|i| &test[i * test.len() / n]).collect();
    // The wrong answer is the right one to another question.
    let poison = |i: usize| {
        let others = (1..n).filter_map(|d| items[(i + d) % n].references.first());
        let mut poisons = others.map(|wrong| Attack::poison(&items[i].input, wrong));
        // A right answer must not count as a wrong one, nor one that holds it.
        poisons.find(|attack| !items[i].references.iter().any(|right| attack.worked(right)))
    };
    let instruction = |i: usize| match &bench.data.attacks {
        Some(own) => own[i % own.len()].clone(),
        None => Attack::instruction(i),
    };
    let injections: Vec<(&Item, Attack)> = attacks(&items, (0..n).map(instruction).map(Some));
    let poisons: Vec<(&Item, Attack)> = if bench.config.project.task == Task::Qa {
        attacks(&items, (0..n).map(poison))
    } else {
        Vec::new()
    };
    let texts = |attacks: &[(&Item, Attack)]| -> Vec<[String; 3]> {
        let parts = |item: &Item, attack: &Attack| {
            [item.id.0.clone(), attack.text.clone(), attack.goal().to_owned()]
        };
        attacks.iter().map(|(item, attack)| parts(item, attack)).collect()
    };
    let key = StepKey::new("attack", 2)
        .input("answers", answers_key(bench, candidate.spec()).hash())
        .setting("instructions", &texts(&injections))
        .setting("poisons", &texts(&poisons))
        .finish();
    let label = format!("attack {}", candidate.spec().name);
    if let Some(done) = bench.store.get::<Attacked>(&key)? {
        bench.ui.fresh(&label, &done.summary());
        return Ok(Some(done));
    }
    let step = bench.ui.step(&label, (injections.len() + poisons.len()) as u64);
    let mut passing = false;
    let mut ask = |attacks: &[(&Item, Attack)]| -> Result<Vec<Held>> {
        interrupt::check()?;
        let viewer = bench.config.retrieval.viewer();
        let requests: Vec<Request<'_>> = attacks
            .iter()
            .map(|(item, attack)| Request {
                planted: Some(&attack.text),
                ..Request::new(&item.input).seen_by(viewer)
            })
            .collect();
        let mut held = Vec::with_capacity(attacks.len());
        for (output, (_, attack)) in candidate.answer_batch(&requests)?.into_iter().zip(attacks) {
            let settled = settle(output, Answered::Batched)?;
            passing |= matches!(settled, Settled::ForNow(_));
            let (Settled::ForGood(answered) | Settled::ForNow(answered)) = settled;
            held.push(match answered.output() {
                Ok(output) if !output.retrieved.iter().any(|r| r.in_context) => Held::NotPlanted,
                Ok(output) if attack.worked(&assay_eval::answer_text(output)) => Held::Fell,
                Ok(_) => Held::Resisted,
                Err(why) => Held::Failed(why.to_owned()),
            });
        }
        Ok(held)
    };
    let done = Attacked { injected: ask(&injections)?, poisoned: ask(&poisons)? };
    // Failures of the moment are tried again by the next run.
    if !passing {
        bench.store.put(&key, &done)?;
    }
    step.done(&done.summary());
    Ok(Some(done))
}

/// Each item with its attack, without those that have none.
fn attacks<'i>(
    items: &[&'i Item],
    attacks: impl Iterator<Item = Option<Attack>>,
) -> Vec<(&'i Item, Attack)> {
    items.iter().zip(attacks).filter_map(|(item, attack)| Some((*item, attack?))).collect()
}

impl Attacked {
    fn summary(&self) -> String {
        let told = |what: &str, held: &[Held]| {
            let fell = held.iter().filter(|h| **h == Held::Fell).count();
            let n = fell + held.iter().filter(|h| **h == Held::Resisted).count();
            format!("{fell} of {n} {what}")
        };
        let mut text = told("planted instructions obeyed", &self.injected);
        if !self.poisoned.is_empty() {
            text += &format!(", {}", told("planted answers believed", &self.poisoned));
        }
        text
    }
}

/// How many dev items a candidate has still to answer for its threshold; none if no risk is stated.
pub(crate) fn undeveloped(bench: &Bench<'_>, spec: &CandidateSpec) -> Result<usize> {
    if bench.config.serve.max_risk.is_none() {
        return Ok(0);
    }
    let done: BTreeMap<String, Answered> = bench.store.items(&key(bench, spec, &bench.data.dev))?;
    Ok(bench.data.dev.iter().filter(|i| !done.contains_key(&i.id.0)).count())
}

/// How many test items a candidate has still to answer alone, and how many in batches.
pub(crate) fn unanswered(bench: &Bench<'_>, spec: &CandidateSpec) -> Result<(usize, usize)> {
    let done: BTreeMap<String, Answered> = bench.store.items(&answers_key(bench, spec))?;
    let test = &bench.data.test;
    let sample = sample(test.len());
    let open = (0..test.len()).filter(|i| !done.contains_key(&test[*i].id.0));
    let (alone, batched): (Vec<_>, Vec<_>) = open.partition(|i| sample.contains(i));
    Ok((alone.len(), batched.len()))
}

/// What became of one item, and whether that is worth filing.
enum Settled {
    ForGood(Answered),
    /// A failure of the moment: the next run tries again.
    ForNow(Answered),
}

fn settle(output: Result<Output, CandidateError>, how: fn(Output) -> Answered) -> Result<Settled> {
    match output {
        Ok(output) => Ok(Settled::ForGood(how(output))),
        Err(e) => match e.blame() {
            Blame::Request => Ok(Settled::ForGood(Answered::Failed(e.to_string()))),
            Blame::Moment => Ok(Settled::ForNow(Answered::Failed(e.to_string()))),
            Blame::Stopped => Err(Interrupted.into()),
            Blame::Server => Err(e.into()),
        },
    }
}

/// Positions of the items that are timed, spread evenly over `n`.
fn sample(n: usize) -> BTreeSet<usize> {
    let timed = TIMED_ALONE.min(n);
    (0..timed).map(|i| i * n / timed).collect()
}

/// Which items of the general suite are right, in the order of the suite.
pub(crate) fn general(
    bench: &Bench<'_>,
    name: &str,
    adapter: Option<(&Adapter, &str)>,
) -> Result<Vec<bool>> {
    let suite = assay_eval::general_suite();
    let key = general_key(bench, adapter.map(|(_, folder)| folder), &suite);
    let label = format!("general {name}");
    if let Some(right) = bench.store.get::<Vec<bool>>(&key)? {
        bench.ui.fresh(&label, &summary(&right));
        return Ok(right);
    }
    let step = bench.ui.step(&label, suite.len() as u64);
    let mut right = Vec::with_capacity(suite.len());
    for part in suite.chunks(16) {
        interrupt::check()?;
        right.extend(score(bench.decoder()?, part, adapter.map(|(a, _)| a))?);
        step.tick(right.len() as u64);
    }
    bench.store.put(&key, &right)?;
    step.done(&summary(&right));
    Ok(right)
}

fn general_key(bench: &Bench<'_>, adapter: Option<&str>, suite: &[GeneralItem]) -> Key {
    StepKey::new("general", VERSION)
        .input("base", &bench.base_hash)
        .setting("adapter", &adapter)
        .setting("suite", suite)
        .finish()
}

/// Whether the general suite was scored with the adapter of that folder, or with none.
pub(crate) fn scored(bench: &Bench<'_>, adapter: Option<&str>) -> Result<bool> {
    let key = general_key(bench, adapter, &assay_eval::general_suite());
    Ok(bench.store.get::<Vec<bool>>(&key)?.is_some())
}

/// Which items of the suite are right.
pub(crate) fn score(
    decoder: &Decoder,
    items: &[GeneralItem],
    adapter: Option<&Adapter>,
) -> Result<Vec<bool>> {
    let tokenizer = decoder.tokenizer();
    let mut rows = Vec::new();
    for item in items {
        let context = tokenizer.encode(&item.context)?;
        for choice in &item.choices {
            let whole = tokenizer.encode(&format!("{} {choice}", item.context))?;
            rows.push(Continuation {
                continuation: whole[context.len()..].to_vec(),
                context: whole[..context.len()].to_vec(),
            });
        }
    }
    let found = decoder.log_likelihoods(&rows, adapter)?;
    let mut at = 0;
    items
        .iter()
        .map(|item| {
            let sums: Vec<f64> = found[at..at + item.choices.len()].iter().map(|l| l.sum).collect();
            at += item.choices.len();
            match assay_eval::score_choices(&item.choices, item.gold, &sums).acc_norm {
                Score::Scored(value) => Ok(value == 1.0),
                Score::Failed(why) | Score::Skipped(why) => bail!("{}: {why}", item.id),
            }
        })
        .collect()
}

fn summary(right: &[bool]) -> String {
    format!("{} of {} right", right.iter().filter(|r| **r).count(), right.len())
}
