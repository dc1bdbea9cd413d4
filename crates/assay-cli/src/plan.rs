//! `assay plan`, and the table before a run: time, memory and cost of every candidate, predicted.
//!
//! Tokens are counted with the model's own tokenizer on the project's own prompts, speeds are measured
//! (`plan/calibrate.rs`), and `plan/predict.rs` makes seconds and bytes of both. What cannot fit into memory is refused
//! here, before anything long begins.

mod calibrate;
mod predict;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use assay_candidate::{CandidateSpec, Generator, Golden, Prompt};
use assay_model::{Decoder, ModelKind};
use assay_remote::RemoteSpec;
use assay_store::{StepKey, Store};
use assay_train::{PassSize, Trainer};
use assay_types::Item;
use serde::{Deserialize, Serialize};

use crate::bench::Texts;
use crate::config::Loaded;
use crate::interrupt::{self, Interrupted};
use crate::machine::{self, Machine};
use crate::run::{Bench, Job, decide, evaluate, tune};
use crate::ui::Ui;
use calibrate::Wanted;
use predict::{Answers, Need, Prompts, Rows, Training, Work, kept_tokens, trained_length};
pub(crate) use predict::{Fit, Seconds};

/// Prompts that are made to count their tokens.
const SAMPLE: usize = 32;
/// Dev items that the base model answers to learn how long its answers are, and which variant it is likely to be best
/// with: nobody knows beforehand when a model that was not trained for the task will stop.
const PILOT: usize = 12;
/// What a process holds beside the weights: program, tokenizer, embedder.
const BESIDE_WEIGHTS: u64 = 150_000_000;

/// A plan, as `assay plan --json` prints it.
#[derive(Serialize)]
struct Plan {
    machine: Machine,
    /// Memory that the run may take.
    available_bytes: u64,
    /// The general suite with the base model alone.
    base: Seconds,
    candidates: Vec<Planned>,
    total_s: f64,
    cost_usd: f64,
}

#[derive(Serialize)]
struct Planned {
    name: String,
    /// Whether nothing is left to do.
    done: bool,
    seconds: Seconds,
    cost_usd: f64,
    #[serde(flatten)]
    fit: Fit,
}

pub(crate) fn plan(loaded: &Loaded, json: bool, anew: bool) -> Result<ExitCode> {
    interrupt::install()?;
    let ui = Ui::default();
    let store = Store::open(&loaded.state_dir())?;
    let _only_one = store.lock_run()?;
    let room = Room::look(loaded)?;
    let Some(bench) = crate::run::prepare(loaded, &ui, store, &room)? else {
        return Ok(ExitCode::from(1));
    };
    let (jobs, _) = crate::run::jobs(&bench)?;
    let counted = count(&bench, &jobs)?;
    let fits = fits(&bench, &jobs, &counted, &room)?;
    let Some(plan) = predict(&bench, &jobs, counted, &fits, &room, anew)? else {
        return Err(anyhow!(
            "nothing can be predicted for a base model behind a server: its speed is its own"
        ));
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        print!("{}", plan.render());
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what a run will take, if anything is left to do, and says how each job is to be fitted into memory.
///
/// # Errors
/// If a candidate cannot fit.
pub(crate) fn before_run(bench: &Bench<'_>, jobs: &[Job], room: &Room) -> Result<Forecast> {
    let counted = count(bench, jobs)?;
    let fits = fits(bench, jobs, &counted, room)?;
    let mut told = None;
    match predict(bench, jobs, counted, &fits, room, false) {
        Ok(Some(plan)) if plan.total_s > 0.0 => {
            bench.ui.note(plan.render().trim_end());
            told = Some(plan);
        }
        Ok(_) => {}
        Err(e) if e.is::<Interrupted>() => return Err(e),
        // A run is worth as much without a forecast.
        Err(e) => bench.ui.note(&format!("warning: time cannot be predicted: {e:#}")),
    }
    Ok(Forecast { fits, plan: told })
}

/// What was said before a run.
pub(crate) struct Forecast {
    /// How each job is fitted into memory; empty where the model is elsewhere.
    pub(crate) fits: Vec<Fit>,
    plan: Option<Plan>,
}

/// What a candidate took, or the base model (no name).
pub(crate) struct Taken {
    pub(crate) name: Option<String>,
    pub(crate) seconds: Seconds,
    /// Most memory at once, where the system tells.
    pub(crate) memory_bytes: Option<u64>,
}

impl Forecast {
    /// The same table with what was measured, beside the forecast, so that nobody has to believe it; `None` if there was
    /// nothing to foretell.
    pub(crate) fn against(&self, taken: &[Taken]) -> Option<String> {
        let plan = self.plan.as_ref()?;
        let mut out = format!(
            "{:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>15}\n",
            "took", "build", "test", "general", "total", "memory", "predicted"
        );
        let time = |s: f64| if s == 0.0 { "-".to_owned() } else { duration(s) };
        let mut line = |name: &str, s: Seconds, memory: Option<u64>, told: (f64, Option<u64>)| {
            let (build, test, general) = (time(s.build), time(s.answers), time(s.general));
            let size = |bytes: Option<u64>| bytes.map_or(String::new(), machine::size);
            let told = format!("{}, {}", time(told.0), size(told.1));
            let (total, memory) = (time(s.total()), size(memory));
            let told = told.trim_end_matches(", ");
            out += &format!(
                "{name:<10} {build:>9} {test:>9} {general:>9} {total:>9} {memory:>9} {told:>15}\n"
            );
        };
        let mut sum = Seconds::default();
        for Taken { name, seconds, memory_bytes } in taken {
            let told = match name {
                None if plan.base.total() > 0.0 => (plan.base.total(), None),
                None => continue,
                Some(name) => match plan.candidates.iter().find(|c| c.name == *name && !c.done) {
                    Some(c) => (c.seconds.total(), Some(c.fit.memory_bytes)),
                    None => continue,
                },
            };
            let memory = memory_bytes.filter(|_| name.is_some());
            line(name.as_deref().unwrap_or("base"), *seconds, memory, told);
            sum = Seconds {
                build: sum.build + seconds.build,
                answers: sum.answers + seconds.answers,
                general: sum.general + seconds.general,
            };
        }
        let peak = taken.iter().filter_map(|t| t.memory_bytes).max();
        let told = plan.candidates.iter().map(|c| c.fit.memory_bytes).max();
        line("all", sum, peak, (plan.total_s, told));
        Some(out)
    }
}

/// Memory that a run may take, in bytes.
pub(crate) struct Room {
    machine: Machine,
    bytes: u64,
}

impl Room {
    /// Before anything is loaded: what is loaded then counts.
    pub(crate) fn look(loaded: &Loaded) -> Result<Self> {
        let machine = Machine::look()?;
        let limit = loaded.config.limits.memory_gb.map_or(u64::MAX, |gb| (gb * 1e9) as u64);
        Ok(Room { bytes: machine.memory_available.min(limit), machine })
    }

    /// Refuses weights that cannot be loaded.
    pub(crate) fn check_weights(&self, loaded: &Loaded) -> Result<()> {
        let spec = &loaded.config.model.base;
        if RemoteSpec::is_remote(spec) {
            return Ok(());
        }
        let found = crate::model::resolve(spec)?;
        let needed = Decoder::outline(&found.path)?.weight_bytes as u64 + BESIDE_WEIGHTS;
        if needed <= self.bytes {
            return Ok(());
        }
        let hint = self.smaller_base(needed).map_or_else(
            || "close something, or take a machine with more memory".to_owned(),
            |name| format!("the base model {name} fits: `--set model.base={name}`"),
        );
        let (needed, room) = (machine::size(needed), machine::size(self.bytes));
        Err(anyhow!(
            "the weights of {spec} need about {needed} of memory, and {room} may be taken\nhint: {hint}"
        ))
    }

    /// A model of the catalog whose files are here and whose weights take less than `bytes` and fit.
    fn smaller_base(&self, bytes: u64) -> Option<&'static str> {
        let cache = crate::model::cache_dir().ok()?.join("models");
        let decoders = assay_model::catalog().iter().filter(|e| e.kind == ModelKind::Gguf);
        decoders.rev().find_map(|entry| {
            let file = cache.join(&entry.name).join(&entry.files.first()?.path);
            let takes = Decoder::outline(&file).ok()?.weight_bytes as u64 + BESIDE_WEIGHTS;
            (takes < bytes && takes <= self.bytes).then_some(entry.name.as_str())
        })
    }
}

/// How every candidate fits into memory, in the order of the jobs; empty where the model is elsewhere.
///
/// # Errors
/// Names the first candidate that does not fit, and what would.
fn fits(bench: &Bench<'_>, jobs: &[Job], counted: &[Counted], room: &Room) -> Result<Vec<Fit>> {
    let Generator::Local(decoder) = &bench.generator else { return Ok(Vec::new()) };
    let held = machine::held_memory().unwrap_or(decoder.weight_bytes() as u64 + BESIDE_WEIGHTS);
    let mut needs: Vec<Need<'_>> =
        jobs.iter().zip(counted).map(|(job, c)| need(bench, decoder, job, c, held)).collect();
    // What was read stays, for the next candidate too, until a training begins.
    let suite = if evaluate::scored(bench, None)? { 0.0 } else { suite_tokens(decoder)? };
    let mut kept = suite;
    for (need, counted) in needs.iter_mut().zip(counted) {
        if need.pass.is_some() {
            kept = 0.0;
        }
        need.kept_building += kept;
        need.kept_answering += kept + if counted.general { suite } else { 0.0 };
        kept = need.kept_answering;
    }
    let fits: Vec<Result<Fit, u64>> = needs.iter().map(|need| need.fit(room.bytes)).collect();
    let Some(bad) = fits.iter().position(Result::is_err) else {
        // Loading may have taken more than what follows.
        let so_far = machine::peak_memory().unwrap_or(0);
        let known = |fit: Fit| Fit { memory_bytes: fit.memory_bytes.max(so_far), ..fit };
        return Ok(fits.into_iter().flatten().map(known).collect());
    };
    let least = fits[bad].err().unwrap_or(0);
    let others: Vec<String> = jobs
        .iter()
        .zip(&fits)
        .filter(|(_, fit)| fit.is_ok())
        .map(|(job, _)| format!("{:?}", job.name()))
        .collect();
    let mut hints = Vec::new();
    if let Some((key, n, bytes)) = needs[bad].smaller(room.bytes) {
        let left_out = if key.ends_with("max_tokens") { ", longer rows are left out" } else { "" };
        let bytes = machine::size(bytes);
        hints.push(format!("`--set {key}={n}` makes it fit into {bytes}{left_out}"));
    }
    if let Some(name) = room.smaller_base(decoder.weight_bytes() as u64 + BESIDE_WEIGHTS) {
        hints.push(format!("`--set model.base={name}` takes a smaller base model"));
    }
    if !others.is_empty() {
        let others = others.join(", ");
        hints.push(format!("`--set 'project.candidates=[{others}]'` leaves out what does not fit"));
    }
    if hints.is_empty() {
        hints.push("close something, or take a machine with more memory".to_owned());
    }
    let (name, needed, room) = (jobs[bad].name(), machine::size(least), machine::size(room.bytes));
    let checkpointed = if needs[bad].pass.is_some() { ", recomputing activations" } else { "" };
    Err(anyhow!(
        "{name} needs {needed} of memory at least{checkpointed}, and {room} may be taken\nhint: {}",
        hints.join("; or ")
    ))
}

fn need<'a>(
    bench: &Bench<'_>,
    decoder: &'a Decoder,
    job: &Job,
    counted: &Counted,
    held: u64,
) -> Need<'a> {
    let (rank, pass) = match job {
        Job::Chosen(_) => (None, None),
        Job::Trained(training) => {
            let rows = training.rows.as_ref().zip(counted.passes.as_ref()).map(|(rows, passes)| {
                let most = |of: fn(&PassSize) -> usize| passes.iter().map(of).max().unwrap_or(0);
                Rows {
                    tokens: most(|p| p.tokens),
                    targets: most(|p| p.targets),
                    longest: rows.train.lengths.max,
                }
            });
            (Some(training.config.rank), rows)
        }
    };
    let all = || counted.choosing.iter().chain(&counted.answering).chain(&counted.probe);
    let longest = all().map(|a| a.prompts.longest).max().unwrap_or(0);
    let kept = |answers: &Answers| kept_tokens([answers]);
    let most_kept = counted.answering.iter().map(kept).max_by(f64::total_cmp).unwrap_or(0.0);
    Need {
        config: decoder.config(),
        held,
        rank,
        pass,
        kept_building: kept_tokens(counted.choosing.iter().chain(&counted.probe)),
        kept_answering: kept_tokens(&counted.choosing) + most_kept,
        longest: longest + bench.config.max_new_tokens(),
    }
}

/// Time and cost of every candidate that fits; `None` where the base model is behind a server.
fn predict(
    bench: &Bench<'_>,
    jobs: &[Job],
    mut counted: Vec<Counted>,
    fits: &[Fit],
    room: &Room,
    anew: bool,
) -> Result<Option<Plan>> {
    let Generator::Local(decoder) = &bench.generator else { return Ok(None) };
    let base_general = !evaluate::scored(bench, None)?;
    if !base_general && counted.iter().all(Counted::is_done) {
        return Ok(Some(Plan::nothing(jobs, fits, room)));
    }
    let typical: Vec<Option<(Texts, bool)>> = counted
        .iter()
        .zip(fits)
        .map(|(counted, fit)| Some((typical(counted.passes.as_ref()?)?, fit.checkpointing)))
        .collect();
    let adapters = jobs.iter().any(|job| matches!(job, Job::Trained(_)));
    let wanted = Wanted {
        decoder,
        rank: adapters.then_some(bench.config.training.rank),
        trainings: typical.iter().flatten().copied().collect(),
        anew,
    };
    let step = bench.ui.step("plan", 0);
    for (counted, job) in counted.iter_mut().zip(jobs) {
        counted.set_lengths(bench, job)?;
    }
    let known = wanted.speeds()?;
    decoder.forget_prompts();
    step.abandon();

    let missing = || anyhow!("a speed that was measured is not there");
    let base = known.base.as_ref().ok_or_else(missing)?;
    let prices = decide::prices(bench);
    let mut candidates = Vec::new();
    for (i, job) in jobs.iter().enumerate() {
        let mut work = counted[i].work();
        let mut speeds = base;
        if let Job::Trained(training) = job {
            speeds = known.adapted.get(&training.config.rank).ok_or_else(missing)?;
            if let (Some(passes), Some((texts, checkpointing)), Some(rows)) =
                (&counted[i].passes, typical[i], &training.rows)
            {
                let name = wanted.shape(texts, checkpointing);
                work.training = Some(Training {
                    epochs: training.config.epochs,
                    tokens: passes.iter().map(|p| p.tokens as f64).sum(),
                    tokens_per_s: *known.training.get(&name).ok_or_else(missing)?,
                    dev_tokens: rows.dev.lengths.total as f64,
                    probe: counted[i].probe.ok_or_else(missing)?,
                });
            }
        }
        let seconds = work.seconds(speeds);
        candidates.push(Planned {
            name: job.name().to_owned(),
            done: work.is_done(),
            seconds,
            cost_usd: assay_decide::machine_usd(seconds.total(), &prices),
            fit: fits[i],
        });
    }
    let general = if base_general { base.general_s } else { 0.0 };
    let base = Seconds { general, ..Seconds::default() };
    let total_s = base.total() + candidates.iter().map(|c| c.seconds.total()).sum::<f64>();
    Ok(Some(Plan {
        machine: room.machine.clone(),
        available_bytes: room.bytes,
        base,
        candidates,
        total_s,
        cost_usd: assay_decide::machine_usd(total_s, &prices),
    }))
}

/// Tokens of the general suite whose keys and values are kept.
fn suite_tokens(decoder: &Decoder) -> Result<f64> {
    let suite = assay_eval::general_suite();
    let tokens = suite.iter().map(|item| Ok(decoder.tokenizer().encode(&item.context)?.len()));
    Ok(tokens.sum::<Result<usize>>()? as f64)
}

/// The pass in the middle of all tokens: what most of the time goes into.
fn typical(passes: &[PassSize]) -> Option<Texts> {
    let mut sorted = passes.to_vec();
    sorted.sort_by_key(|p| p.tokens);
    let half = sorted.iter().map(|p| p.tokens).sum::<usize>() / 2;
    let mut sum = 0;
    let pass = sorted.into_iter().find(|p| {
        sum += p.tokens;
        sum > half
    })?;
    let each = |n: usize| (n / pass.rows).max(1);
    Some(Texts { rows: pass.rows, tokens: each(pass.tokens).max(2), targets: each(pass.targets) })
}

/// What is left to answer for a candidate, in tokens.
struct Counted {
    choosing: Vec<Answers>,
    answering: Vec<Answers>,
    /// Dev items after each epoch of a training.
    probe: Option<Answers>,
    /// Passes of a training.
    passes: Option<Vec<PassSize>>,
    general: bool,
}

impl Counted {
    fn of(bench: &Bench<'_>, job: &Job) -> Result<Self> {
        let (mut choosing, mut answering) = (Vec::new(), Vec::new());
        let (probe, new) = (bench.dev_probe(), bench.config.max_new_tokens() as f64);
        let answers = |prompts, (alone, batched)| Answers { prompts, new, alone, batched };
        match job {
            Job::Chosen(variants) => {
                if let Some(choice) = variants.chosen(bench)? {
                    let open = open(bench, &choice.spec)?;
                    answering.push(answers(prompts(bench, &choice.spec, &bench.data.test)?, open));
                } else {
                    for (_, spec) in &variants.specs {
                        choosing.push(answers(prompts(bench, spec, probe)?, (0, probe.len())));
                        let open = open(bench, spec)?;
                        answering.push(answers(prompts(bench, spec, &bench.data.test)?, open));
                    }
                }
                Ok(Counted { choosing, answering, probe: None, passes: None, general: false })
            }
            Job::Trained(training) => {
                let folder = training.folder();
                let spec = CandidateSpec { adapter: Some(folder.clone()), ..training.spec.clone() };
                let open = open(bench, &spec)?;
                let on = |items: &[Item], open| -> Result<Answers> {
                    Ok(answers(prompts(bench, &training.spec, items)?, open))
                };
                answering.push(on(&bench.data.test, open)?);
                let general = !evaluate::scored(bench, Some(&folder))?;
                let Some(rows) = &training.rows else {
                    return Ok(Counted { choosing, answering, probe: None, passes: None, general });
                };
                let probe = Some(on(probe, (0, probe.len()))?);
                let trainer = Trainer {
                    decoder: bench.decoder()?,
                    config: &training.config,
                    train: &rows.train.examples,
                    dev: &rows.dev.examples,
                    checkpoints: None,
                };
                let passes = Some(trainer.passes());
                Ok(Counted { choosing, answering, probe, passes, general })
            }
        }
    }

    /// How long answers will be: the base model's as a few of its own, a trained one's as those it learns from.
    fn set_lengths(&mut self, bench: &Bench<'_>, job: &Job) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        match job {
            Job::Chosen(variants) => {
                let pilots = match variants.chosen(bench)? {
                    Some(choice) => vec![pilot(bench, &choice.spec)?],
                    None => {
                        let specs = variants.specs.iter();
                        specs.map(|(_, spec)| pilot(bench, spec)).collect::<Result<Vec<_>>>()?
                    }
                };
                for of in [&mut self.choosing, &mut self.answering] {
                    of.iter_mut().zip(&pilots).for_each(|(answers, p)| answers.new = p.length);
                }
                // Of equals the first, as when it is chosen.
                let likely = (0..pilots.len())
                    .rev()
                    .max_by(|a, b| pilots[*a].mean.total_cmp(&pilots[*b].mean));
                self.answering = likely.into_iter().map(|i| self.answering[i]).collect();
            }
            Job::Trained(training) => {
                let config = &training.config;
                let steps = config.epochs * bench.data.train.len().div_ceil(config.batch_size);
                let taught = taught_length(bench, training)?;
                let warm = steps >= config.warmup_steps;
                let base = if warm { taught } else { pilot(bench, &training.spec)?.length };
                let length = trained_length(base, taught, steps, config.warmup_steps);
                let all = self.answering.iter_mut().chain(&mut self.probe);
                all.for_each(|answers| answers.new = length.min(answers.new));
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.passes.is_none() && self.work().is_done()
    }

    fn work(&self) -> Work {
        Work {
            choosing: self.choosing.clone(),
            training: None,
            answering: self.answering.clone(),
            general: self.general,
        }
    }
}

/// Items that are still to be answered one at a time, and in batches.
fn open(bench: &Bench<'_>, spec: &CandidateSpec) -> Result<(usize, usize)> {
    let (alone, batched) = evaluate::unanswered(bench, spec)?;
    let attacked = if spec.cites() && alone + batched > 0 { 2 * evaluate::ATTACKED } else { 0 };
    Ok((alone, batched + evaluate::undeveloped(bench, spec)? + attacked))
}

/// What is left to answer for every job.
fn count(bench: &Bench<'_>, jobs: &[Job]) -> Result<Vec<Counted>> {
    if bench.is_remote() {
        return Ok(Vec::new());
    }
    jobs.iter().map(|job| Counted::of(bench, job)).collect()
}

fn mean(lengths: impl Iterator<Item = usize>) -> Option<f64> {
    let (n, sum) = lengths.fold((0usize, 0usize), |(n, sum), length| (n + 1, sum + length));
    (n > 0).then(|| sum as f64 / n as f64)
}

/// Tokens of what an adapter learns to say, with the stop token: on average over its rows, or over the dev items if it has
/// learned already.
fn taught_length(bench: &Bench<'_>, training: &tune::Training) -> Result<f64> {
    let lengths = match &training.rows {
        Some(rows) => rows.train.examples.iter().map(|e| e.supervised_tokens()).collect(),
        None => {
            let tokenizer = bench.decoder()?.tokenizer();
            let length = |item: &Item| -> Result<usize> {
                let target = training.spec.target(item, Golden::Unused);
                Ok(tokenizer.encode(&target)?.len() + 1)
            };
            bench.dev_probe().iter().map(length).collect::<Result<Vec<_>>>()?
        }
    };
    Ok(mean(lengths.into_iter()).unwrap_or(bench.config.max_new_tokens() as f64))
}

/// Tokens of the prompts of some of the items.
fn prompts(bench: &Bench<'_>, spec: &CandidateSpec, items: &[Item]) -> Result<Prompts> {
    let candidate = bench.candidate(spec.clone(), None)?;
    let n = SAMPLE.min(items.len());
    let (mut made, mut ms) = (Vec::new(), 0.0);
    for item in (0..n).map(|i| &items[i * items.len() / n]) {
        interrupt::check()?;
        // One that cannot be made is a failed item of the run, not of the plan.
        let Ok(prepared) = candidate.prepare(&bench.request(item)) else { continue };
        ms += prepared.retrieval_ms;
        if let Prompt::Tokens(tokens) = prepared.prompt {
            made.push(tokens);
        }
    }
    Ok(Prompts::of(&made, ms / 1e3 / made.len().max(1) as f64))
}

/// What a few answers of the base model say.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Pilot {
    /// Tokens of an answer, on average.
    length: f64,
    /// Mean of the primary metric, the choice's own; less than any if an item could not be answered.
    mean: f64,
}

/// Answers of the base model to the first dev items; filed like every other step.
fn pilot(bench: &Bench<'_>, spec: &CandidateSpec) -> Result<Pilot> {
    interrupt::check()?;
    let items = &bench.dev_probe()[..PILOT.min(bench.dev_probe().len())];
    let key = StepKey::new("pilot", 2)
        .input("base", &bench.base_hash)
        .input("context", &bench.context_hash)
        .setting("spec", spec)
        .setting("items", items)
        .finish();
    if let Some(pilot) = bench.store.get(&key)? {
        return Ok(pilot);
    }
    let candidate = bench.candidate(spec.clone(), None)?;
    let requests: Vec<_> = items.iter().map(|item| bench.request(item)).collect();
    let outputs = candidate.answer_batch(&requests)?;
    let lengths = outputs.iter().flatten().filter_map(|o| Some(o.usage?.output_tokens));
    let length = mean(lengths).unwrap_or(bench.config.max_new_tokens() as f64);
    let pilot = Pilot { length, mean: bench.mean_of(items, outputs).unwrap_or(-1.0) };
    bench.store.put(&key, &pilot)?;
    Ok(pilot)
}

impl Plan {
    /// A plan without anything to do.
    fn nothing(jobs: &[Job], fits: &[Fit], room: &Room) -> Self {
        let planned = |(job, fit): (&Job, &Fit)| Planned {
            name: job.name().to_owned(),
            done: true,
            seconds: Seconds::default(),
            cost_usd: 0.0,
            fit: *fit,
        };
        Plan {
            machine: room.machine.clone(),
            available_bytes: room.bytes,
            base: Seconds::default(),
            candidates: jobs.iter().zip(fits).map(planned).collect(),
            total_s: 0.0,
            cost_usd: 0.0,
        }
    }

    /// As people read it.
    fn render(&self) -> String {
        let mut out = format!(
            "{:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            "predicted", "build", "test", "general", "total", "memory", "cost"
        );
        let time = |s: f64| if s == 0.0 { "-".to_owned() } else { duration(s) };
        let mut line = |name: &str, s: Seconds, total: f64, bytes: Option<u64>, usd: f64| {
            let (build, test, general) = (time(s.build), time(s.answers), time(s.general));
            let memory = bytes.map_or(String::new(), machine::size);
            let (total, usd) = (time(total), format!("${usd:.3}"));
            out += &format!(
                "{name:<10} {build:>9} {test:>9} {general:>9} {total:>9} {memory:>9} {usd:>9}\n"
            );
        };
        let base_usd = self.cost_usd - self.candidates.iter().map(|c| c.cost_usd).sum::<f64>();
        if self.base.total() > 0.0 {
            line("base", self.base, self.base.total(), None, base_usd);
        }
        for c in &self.candidates {
            line(&c.name, c.seconds, c.seconds.total(), Some(c.fit.memory_bytes), c.cost_usd);
        }
        let all = |of: fn(&Seconds) -> f64| {
            of(&self.base) + self.candidates.iter().map(|c| of(&c.seconds)).sum::<f64>()
        };
        let sum = Seconds {
            build: all(|s| s.build),
            answers: all(|s| s.answers),
            general: all(|s| s.general),
        };
        let peak = self.candidates.iter().map(|c| c.fit.memory_bytes).max();
        line("all", sum, self.total_s, peak, self.cost_usd);
        let names = |which: fn(&Planned) -> bool| {
            let names = self.candidates.iter().filter(|c| which(c)).map(|c| c.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let done = names(|c| c.done);
        if !done.is_empty() {
            out += &format!("done already: {done}\n");
        }
        let slower = names(|c| c.fit.checkpointing);
        if !slower.is_empty() {
            let room = machine::size(self.available_bytes);
            out += &format!("activations are recomputed to fit into {room}: {slower}\n");
        }
        out
    }
}

/// `4.0 s`, `45 s`, `12.3 min`, `3.5 h`.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 5_400.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_people_do() {
        for (s, text) in [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (45.2, "45 s"),
            (300.0, "5.0 min"),
            (7_200.0, "2.0 h"),
        ] {
            assert_eq!(duration(s), text);
        }
    }

    #[test]
    fn the_typical_pass_is_the_one_in_the_middle_of_the_tokens() {
        let pass = |tokens| PassSize { rows: 4, tokens, targets: 8 };
        let Texts { rows, tokens, targets } =
            typical(&[pass(1000), pass(100), pass(900), pass(100)]).unwrap();
        assert_eq!((rows, tokens, targets), (4, 225, 2));
        assert!(typical(&[]).is_none());
    }
}
