//! Training the tuned and the hybrid candidate: rows as they will be served, then LoRA.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use assay_candidate::{
    CandidateSpec, Context, Golden, RankedBy, RetrieveFrom, Shot, Source, join_adjacent,
};
use assay_data::Chunk;
use assay_index::{Hit, Query};
use assay_model::Adapter;
use assay_store::{Key, StepKey};
use assay_train::{
    BadRows, Checkpoints, EpochReport, SftConfig, TrainError, TrainRow, TrainSet, Trainer,
};
use assay_types::{Item, Message, Role};
use serde::{Deserialize, Serialize};

use super::Bench;
use crate::interrupt::{self, Interrupted};

/// Version of this step: raise it when rows or training change.
const VERSION: u32 = 1;

/// What a kill can lose of a training.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Folder of the adapter within its artifact.
const ADAPTER: &str = "adapter";

/// Hits looked at for distractors; the golden chunk is among the first of them or is added.
const DISTRACTOR_POOL: usize = 8;

/// A training that was done or is to be done.
pub(crate) struct Training {
    /// The candidate, without its adapter.
    pub(crate) spec: CandidateSpec,
    pub(crate) config: SftConfig,
    key: Key,
    /// What is still to be learned; `None` if that was done.
    pub(crate) rows: Option<Rows>,
}

/// Rows as tokens.
pub(crate) struct Rows {
    pub(crate) train: TrainSet,
    pub(crate) dev: TrainSet,
}

impl Training {
    /// Folder of the adapter, there or to come, relative to the store.
    pub(crate) fn folder(&self) -> String {
        format!("artifacts/{}/{}/{ADAPTER}", self.key.step(), self.key.hash())
    }
}

/// A trained adapter and how it came to be.
pub(crate) struct Tuned {
    pub(crate) adapter: Arc<Adapter>,
    /// Folder of the adapter, relative to the store.
    pub(crate) folder: String,
    pub(crate) summary: Summary,
}

/// What is kept beside the adapter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) history: Vec<EpochReport>,
    pub(crate) steps: usize,
    pub(crate) tokens: u64,
    pub(crate) seconds: f64,
    pub(crate) best_epoch: usize,
    pub(crate) stopped_early: bool,
    pub(crate) rows: usize,
    pub(crate) skipped: Vec<String>,
}

/// The training of `spec`, with its rows if it is still to be done.
pub(crate) fn training(bench: &Bench<'_>, spec: CandidateSpec) -> Result<Training> {
    let train = rows(bench, &spec, &bench.data.train)?;
    let dev = rows(bench, &spec, &bench.data.dev)?;
    let config = settings(bench);
    let key = key(bench, &spec, &config, &train, &dev);
    if bench.store.has_dir(&key) {
        return Ok(Training { spec, config, key, rows: None });
    }
    let (decoder, limit) = (bench.decoder()?, bench.config.training.max_tokens);
    let train = assay_train::prepare(decoder, &train, limit, BadRows::Skip)?;
    let dev = assay_train::prepare(decoder, &dev, limit, BadRows::Skip)?;
    Ok(Training { spec, config, key, rows: Some(Rows { train, dev }) })
}

/// Trains the adapter, or finds the one that was trained before. Checkpointing takes less memory and more time to
/// the same bits.
pub(crate) fn tune(bench: &Bench<'_>, training: &Training, checkpointing: bool) -> Result<Tuned> {
    let Training { spec, key, .. } = training;
    let label = format!("train {}", spec.name);
    let folder = training.folder();
    let Some(Rows { train, dev }) = &training.rows else {
        let summary: Summary = bench
            .store
            .get(key)?
            .with_context(|| format!("{key}: the adapter is there but not its summary"))?;
        bench.ui.fresh(&label, &describe(&summary));
        let dir = bench.store.dir_for(key).join(ADAPTER);
        let adapter = Adapter::load_peft(&dir, bench.decoder()?.config())?;
        return Ok(Tuned { adapter: Arc::new(adapter), folder, summary });
    };

    let decoder = bench.decoder()?;
    let config = SftConfig { checkpointing, ..training.config.clone() };
    let skipped: Vec<String> =
        train.skipped.iter().chain(&dev.skipped).map(ToString::to_string).collect();
    if let Some(first) = skipped.first() {
        bench.ui.note(&format!(
            "warning: {} of {} rows cannot be trained on and are left out; the first: {first}",
            skipped.len(),
            train.examples.len() + dev.examples.len() + skipped.len(),
        ));
    }

    let work = bench.store.work_dir(key)?;
    let checkpoints = Checkpoints { dir: work.join("checkpoints"), every: CHECKPOINT_EVERY };
    let trainer = Trainer {
        decoder,
        config: &config,
        train: &train.examples,
        dev: &dev.examples,
        checkpoints: Some(&checkpoints),
    };
    let step = bench.ui.step(&label, 1);
    let probe = bench.dev_probe();
    // Training needs the memory, and no prompt is read again by the same weights.
    decoder.forget_prompts();
    let mut metric = |adapter: &Adapter| {
        let spec = CandidateSpec { adapter: Some("in training".to_owned()), ..spec.clone() };
        let candidate = bench.candidate(spec, Some(Arc::new(adapter.clone())))?;
        let mean = bench.mean_on(&candidate, probe)?;
        decoder.forget_prompts();
        Ok(mean)
    };
    let trained = trainer.train(Some(&mut metric), &mut |p| {
        step.length(p.steps as u64);
        step.tick(p.step as u64);
        step.message(format!("loss {:.3}, {:.0} tokens/s", p.loss, p.tokens_per_s));
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let trained = match trained {
        Err(TrainError::Stopped { .. }) => return Err(Interrupted.into()),
        other => other?,
    };
    let summary = Summary {
        history: trained.history,
        steps: trained.steps,
        tokens: trained.tokens,
        seconds: trained.seconds,
        best_epoch: trained.best_epoch,
        stopped_early: trained.stopped_early,
        rows: train.examples.len(),
        skipped,
    };
    // The summary first: an adapter that is there has one.
    bench.store.put(key, &summary)?;
    let result = work.join(ADAPTER);
    if result.exists() {
        fs_err::remove_dir_all(&result)?;
    }
    trained.adapter.save_peft(&result, &bench.config.model.base)?;
    fs_err::remove_dir_all(work.join("checkpoints"))?;
    let dir = bench.store.commit_dir(key)?;
    step.done(&describe(&summary));
    // What is used now is what a second run will load.
    let adapter = Adapter::load_peft(&dir.join(ADAPTER), decoder.config())?;
    Ok(Tuned { adapter: Arc::new(adapter), folder, summary })
}

/// One line for the terminal and the report.
pub(crate) fn describe(s: &Summary) -> String {
    let best = &s.history[s.best_epoch - 1];
    let dev = best.dev_metric.or(best.dev_loss).map_or(String::new(), |d| format!(", dev {d:.3}"));
    format!(
        "{} rows, {} steps, epoch {} is best{dev}{}",
        s.rows,
        s.steps,
        s.best_epoch,
        if s.stopped_early { ", stopped early" } else { "" }
    )
}

fn settings(bench: &Bench<'_>) -> SftConfig {
    let t = &bench.config.training;
    SftConfig {
        rank: t.rank,
        alpha: t.alpha,
        learning_rate: t.learning_rate,
        epochs: t.epochs,
        batch_size: t.batch_size,
        warmup_steps: t.warmup_steps,
        weight_decay: t.weight_decay,
        seed: bench.config.project.seed,
        micro_batch_tokens: t.micro_batch_tokens,
        ..SftConfig::default()
    }
}

fn key(
    bench: &Bench<'_>,
    spec: &CandidateSpec,
    config: &SftConfig,
    train: &[TrainRow],
    dev: &[TrainRow],
) -> Key {
    let plain = |rows: &[TrainRow]| rows.iter().map(|r| r.messages.clone()).collect::<Vec<_>>();
    let probe: Vec<&Item> = bench.dev_probe().iter().collect();
    StepKey::new("train", VERSION)
        .input("base", &bench.base_hash)
        .setting("spec", spec)
        .setting("sft", config)
        .setting("max_tokens", &bench.config.training.max_tokens)
        .setting("train", &plain(train))
        .setting("dev", &plain(dev))
        .setting("probe", &probe)
        .finish()
}

/// Items as conversations to learn: the prompt that will be served, and the answer.
fn rows(bench: &Bench<'_>, spec: &CandidateSpec, items: &[Item]) -> Result<Vec<TrainRow>> {
    if spec.cites() {
        bench.write_queries(items)?;
        bench.tell_unwritten();
    }
    items
        .iter()
        .map(|item| {
            interrupt::check()?;
            let (context, golden) = context(bench, spec, item)?;
            let mut messages = spec.messages(&[], &item.input, &context);
            messages.push(Message::new(Role::Assistant, spec.target(item, golden)));
            Ok(TrainRow { messages, source: item.source.clone() })
        })
        .collect()
}

fn context(bench: &Bench<'_>, spec: &CandidateSpec, item: &Item) -> Result<(Context, Golden)> {
    let Some(policy) = &spec.retrieval else { return Ok((Context::default(), Golden::Unused)) };
    match policy.from {
        RetrieveFrom::Examples => {
            let examples = bench.examples.as_ref().context("examples are not indexed")?;
            let shots: Vec<Shot> = examples.search(&item.input, policy.top_k, Some(&item.id.0))?;
            Ok((Context { sources: Vec::new(), shots }, Golden::Unused))
        }
        RetrieveFrom::Documents => {
            raft(bench, spec, policy.top_k, bench.config.training.golden_share, item)
        }
    }
}

/// Retrieved sources, the golden one put in if it was missed, or left out for a share of the rows.
///
/// RAFT (arXiv 2403.10131) with hard distractors from the project's own retriever; a prompt without its golden
/// chunk teaches the abstention, not an invented citation.
pub(super) fn raft(
    bench: &Bench<'_>,
    spec: &CandidateSpec,
    top_k: usize,
    golden_share: f64,
    item: &Item,
) -> Result<(Context, Golden)> {
    let searcher = bench.searcher.as_ref().context("documents are not indexed")?;
    let index = searcher.index();
    let viewer = bench.config.retrieval.viewer();
    let mode = RankedBy::from(bench.config.retrieval.mode).search_mode();
    let query = Query::new(&item.input, top_k.max(DISTRACTOR_POOL), mode);
    let found = searcher.search(&bench.refine, &Query { viewer, ..query })?;
    let retrieved: Vec<Chunk> = found.hits.iter().map(chunk).collect();
    let mut gold = Vec::new();
    for document in &item.doc_ids {
        gold.extend(index.chunks(document, viewer)?.iter().map(chunk));
    }
    let golden = match assay_data::golden_chunk(item, &retrieved, &gold) {
        // A row that names no document is answered from what was retrieved, if the answer is there.
        None if item.doc_ids.is_empty() => {
            retrieved.iter().find(|c| assay_data::contains_answer(item, &c.text))
        }
        found => found,
    };
    let row = assay_data::raft_row(
        item,
        golden,
        &retrieved,
        top_k.saturating_sub(1)..=top_k,
        golden_share,
        bench.config.project.seed,
    );
    let headings = |c: &Chunk| {
        let same = |h: &&Hit| h.document == c.document && h.span.start == c.start;
        let hit = found.hits.iter().find(same);
        hit.map(|h| assay_candidate::headings(h.title.as_deref(), &h.heading_path))
    };
    let mut sources = Vec::with_capacity(row.chunks.len());
    for c in &row.chunks {
        let headings = match headings(c) {
            Some(headings) => headings,
            None => {
                let all = index.chunks(&c.document, viewer)?;
                let hit =
                    all.iter().find(|h| h.span.start == c.start).context("a chunk is gone")?;
                assay_candidate::headings(hit.title.as_deref(), &hit.heading_path)
            }
        };
        let (document, start, text) = (c.document.clone(), c.start, c.text.clone());
        sources.push(Source { document, start, headings, text });
    }
    // As when it is asked; but neighbours do not tell an answer that is to be missing.
    let text = |document: &str| index.document_text(document, viewer);
    let limit = bench.config.retrieval.prompt_tokens;
    let sources = searcher.widen(sources, bench.refine.window, viewer, &mut |widened| {
        let added = widened.last().is_some_and(|s| assay_data::contains_answer(item, &s.text));
        if added && row.golden.is_none() {
            return Ok(false);
        }
        let (sources, _) = join_adjacent(widened, &text)?;
        let context = Context { sources, shots: Vec::new() };
        let messages = spec.messages(&[], &item.input, &context);
        anyhow::Ok(bench.prompt_tokens(&messages)? <= limit)
    })?;
    let (sources, places) = join_adjacent(&sources, &text)?;
    let golden = row.golden.map_or(Golden::Absent, |position| Golden::At(places[position] + 1));
    Ok((Context { sources, shots: Vec::new() }, golden))
}

fn chunk(hit: &Hit) -> Chunk {
    Chunk {
        document: hit.document.clone(),
        start: hit.span.start,
        end: hit.span.end,
        text: hit.text.clone(),
    }
}
