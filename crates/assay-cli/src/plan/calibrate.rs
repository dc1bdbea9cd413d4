//! The speeds that the planner reckons with: measured in a few seconds on the model that will run, and kept in the cache
//! folder for this machine, this model and this build of Assay.

use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use assay_eval::GeneralItem;
use assay_model::{Adapter, Decoder, Module};
use serde::{Deserialize, Serialize};

use super::predict::{Known, Speeds, TOGETHER};
use crate::bench::{self, Texts};
use crate::machine::Machine;
use crate::run::evaluate;
use crate::{interrupt, model};

/// Readings of each figure.
const ROUNDS: usize = 2;
/// Lengths of prompts that are read; what lies between is interpolated.
const PROMPTS: [usize; 3] = [32, 128, 512];
/// A long prompt, and the tokens at its beginning that are known: what is read behind them tells what attention adds.
const LONG: [usize; 2] = [1024, 896];
/// Tokens of the prompts behind which many answers are written together.
const SHORTEST: usize = 16;
/// Tokens that are written behind each of them.
const WRITTEN: usize = 17;
/// Items of the general suite that are scored.
const SUITE: usize = 16;

/// Speeds as they are kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    build: String,
    known: Known,
}

/// What a plan needs to know.
pub(crate) struct Wanted<'a> {
    pub(crate) decoder: &'a Decoder,
    /// Rank of the adapters, if there are to be some.
    pub(crate) rank: Option<usize>,
    /// Passes of the trainings, and whether each runs with checkpointing.
    pub(crate) trainings: Vec<(Texts, bool)>,
    /// Whether what is known from earlier is measured again.
    pub(crate) anew: bool,
}

impl Wanted<'_> {
    /// What is known, completed by what is not.
    pub(crate) fn speeds(&self) -> Result<Known> {
        let file = self.file()?;
        let build = build()?;
        let kept = fs_err::read(&file).ok().filter(|_| !self.anew);
        // What another build measured, or what cannot be read, is measured again.
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let mut known = kept.filter(|k| k.build == build).map(|k| k.known).unwrap_or_default();
        let before = serde_json::to_vec(&known)?;
        if known.base.is_none() {
            known.base = Some(speeds(self.decoder, None)?);
        }
        if let Some(rank) = self.rank
            && !known.adapted.contains_key(&rank)
        {
            let adapter = self.decoder.new_adapter(rank, 32.0, &Module::ALL, 1);
            known.adapted.insert(rank, speeds(self.decoder, Some(&adapter))?);
        }
        for (texts, checkpointing) in &self.trainings {
            let name = self.shape(*texts, *checkpointing);
            if let Entry::Vacant(unknown) = known.training.entry(name) {
                interrupt::check()?;
                let rank = self.rank.context("a training without a rank")?;
                let rate = bench::training(self.decoder, *texts, rank, *checkpointing, ROUNDS)?;
                unknown.insert(rate);
            }
        }
        // What was read here is nothing that will be asked.
        self.decoder.forget_prompts();
        if serde_json::to_vec(&known)? != before {
            let kept = Kept { build, known };
            keep(&file, &serde_json::to_vec_pretty(&kept)?)?;
            return Ok(kept.known);
        }
        Ok(known)
    }

    /// The name of a training's speed.
    pub(crate) fn shape(&self, texts: Texts, checkpointing: bool) -> String {
        let Texts { rows, tokens, targets } = texts;
        let checkpointed = if checkpointing { ", checkpointed" } else { "" };
        let rank = self.rank.unwrap_or(0);
        format!("rank {rank}, {rows} rows of {tokens} tokens, {targets} learned{checkpointed}")
    }

    fn file(&self) -> Result<PathBuf> {
        let machine = Machine::look()?;
        let name = assay_store::hash_json(&(
            (machine.cpu, machine.threads, machine.kernel_path),
            self.decoder.file_hash(),
        ));
        Ok(model::cache_dir()?.join("speeds").join(format!("{name}.json")))
    }
}

/// Names the program that runs: its version, and when it was built.
fn build() -> Result<String> {
    let program = std::env::current_exe().context("which program is this?")?;
    let built = fs_err::metadata(&program)?.modified()?.duration_since(UNIX_EPOCH)?;
    Ok(format!("{} of {}", env!("CARGO_PKG_VERSION"), built.as_nanos()))
}

/// Whole or not at all: another run may read it now.
fn keep(file: &PathBuf, bytes: &[u8]) -> Result<()> {
    let folder = file.parent().context("a file in a folder")?;
    fs_err::create_dir_all(folder)?;
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    fs_err::write(&partial, bytes)?;
    Ok(fs_err::rename(partial, file)?)
}

fn speeds(decoder: &Decoder, adapter: Option<&Adapter>) -> Result<Speeds> {
    // The first answer after loading is slower than all others.
    bench::answer(decoder, adapter, 1, 0, PROMPTS[0], WRITTEN)?;
    let (mut read_s, mut write_s) = (Vec::new(), Vec::new());
    let most = decoder.config().context_length - WRITTEN;
    let mut measure = |known: usize, prompt: usize| -> Result<f64> {
        let (reading, writing) = answers(decoder, adapter, 1, known, prompt)?;
        write_s.push(((prompt + WRITTEN / 2) as f64, writing));
        Ok(reading)
    };
    for prompt in PROMPTS.into_iter().filter(|n| *n <= most) {
        read_s.push((prompt as f64, measure(0, prompt)?));
    }
    let [long, known] = LONG;
    let mut read_behind_s = None;
    if long <= most {
        bench::answer(decoder, adapter, 1, known, long, 1)?;
        read_behind_s = Some(((known as f64, (long - known) as f64), measure(known, long)?));
    }
    let write_together_s = answers(decoder, adapter, TOGETHER as usize, 0, SHORTEST)?.1;
    let suite = assay_eval::general_suite();
    // Its categories stand one behind the other, and differ in length.
    let some: Vec<GeneralItem> =
        suite.iter().step_by((suite.len() / SUITE).max(1)).cloned().collect();
    decoder.forget_prompts();
    let start = Instant::now();
    evaluate::score(decoder, &some, adapter)?;
    let general_s = start.elapsed().as_secs_f64() * suite.len() as f64 / some.len() as f64;
    decoder.forget_prompts();
    Ok(Speeds { read_s, read_behind_s, write_s, write_together_s, general_s })
}

/// Seconds to read `n` prompts of that length, of which a part is known, and to write one token behind them; means.
fn answers(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    n: usize,
    known: usize,
    prompt: usize,
) -> Result<(f64, f64)> {
    let (mut reading, mut writing) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        interrupt::check()?;
        let done = bench::answer(decoder, adapter, n, known, prompt, WRITTEN)?;
        reading.push(done.read_s);
        writing.extend(done.write_s);
    }
    if writing.is_empty() {
        bail!("the model ends every answer at once: its writing cannot be measured");
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    Ok((mean(&reading), mean(&writing)))
}
