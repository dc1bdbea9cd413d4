//! `assay bench`: what this machine computes per second.

use std::ops::ControlFlow;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use assay_kernels::{AdamW, adamw_step};
use assay_model::{Adapter, Decoder, Encoder, GenerateRequest, Module, PackedBatch, Precision};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::config::EmbedderPrecision;
use crate::machine::{self, Machine};
use crate::model;

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Generating model: catalog name, hf:org/repo/file.gguf, or a path.
    #[arg(long, default_value = "smollm2-135m-instruct")]
    model: String,
    /// Embedding model.
    #[arg(long, default_value = "all-minilm-l6-v2")]
    embedder: String,
    /// How its weights are held.
    #[arg(long, value_enum, default_value_t)]
    embedder_precision: EmbedderPrecision,
    /// Measures only this.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Readings of each figure; the median is told.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const OPTIMIZER: AdamW = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Train,
    Generate,
    Embed,
}

/// What was measured; medians. What was not measured is absent.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Figures {
    model: String,
    embedder: String,
    embedder_precision: EmbedderPrecision,
    threads: usize,
    kernel_path: String,
    rounds: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_lora_tokens_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_peak_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill_tokens_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_tokens_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decode_batch32_tokens_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embed_documents_per_s: Option<f64>,
}

pub(crate) fn bench(args: &BenchArgs) -> Result<ExitCode> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    let machine = Machine::look()?;
    let mut figures = Figures {
        model: args.model.clone(),
        embedder: args.embedder.clone(),
        embedder_precision: args.embedder_precision,
        threads: machine.threads,
        kernel_path: machine.kernel_path.to_owned(),
        rounds: args.rounds,
        ..Figures::default()
    };
    let wanted = |part| args.only.is_none_or(|only| only == part);
    if wanted(Part::Train) {
        if args.only == Some(Part::Train) {
            train(args, &mut figures)?;
        } else {
            // In a process of its own, so that its peak memory is training's alone.
            let own = train_apart(args)?;
            figures.train_lora_tokens_per_s = own.train_lora_tokens_per_s;
            figures.train_peak_rss_bytes = own.train_peak_rss_bytes;
        }
    }
    if wanted(Part::Generate) {
        generate(args, &mut figures)?;
    }
    if wanted(Part::Embed) {
        embed(args, &mut figures)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print(&machine, &figures);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(machine: &Machine, f: &Figures) {
    println!("{}, {} threads, {}", machine.cpu, f.threads, f.kernel_path);
    let line = |what: &str, rate: Option<f64>, unit: &str| {
        if let Some(rate) = rate {
            println!("{what:<44} {rate:>8.0} {unit}");
        }
    };
    line("LoRA training, rank 16, 4 texts of 256 tokens", f.train_lora_tokens_per_s, "tokens/s");
    if let Some(bytes) = f.train_peak_rss_bytes {
        println!("{:<44} {:>8} at most", "  its memory", machine::size(bytes));
    }
    line("reading a prompt of 1,024 tokens", f.prefill_tokens_per_s, "tokens/s");
    line("writing, one answer at a time", f.decode_tokens_per_s, "tokens/s");
    line("writing, 32 answers at a time", f.decode_batch32_tokens_per_s, "tokens/s");
    line("embedding documents of about 88 tokens", f.embed_documents_per_s, "documents/s");
    println!("medians of {} readings; models {} and {}", f.rounds, f.model, f.embedder);
}

fn train_apart(args: &BenchArgs) -> Result<Figures> {
    let program = std::env::current_exe().context("which program is this?")?;
    let rounds = args.rounds.to_string();
    let out = Command::new(program)
        .args(["bench", "--only", "train", "--json", "--model", &args.model, "--rounds", &rounds])
        .stderr(Stdio::inherit())
        .output()?;
    if !out.status.success() {
        bail!("measuring training failed");
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}

/// Steps as `train_lora.py` of the PyTorch peer makes them: 4 texts of 256 tokens, every token but the first
/// learned, rank 16 on all linear layers, the optimizer included.
fn train(args: &BenchArgs, figures: &mut Figures) -> Result<()> {
    let decoder = model::open_decoder(&args.model, Precision::Bf16)?;
    let rate =
        training(&decoder, Texts { rows: 4, tokens: 256, targets: 255 }, 16, false, args.rounds)?;
    figures.train_lora_tokens_per_s = Some(rate);
    figures.train_peak_rss_bytes = machine::peak_memory();
    Ok(())
}

/// Texts of one training pass, each with so many tokens, of which the last ones are learned.
#[derive(Clone, Copy)]
pub(crate) struct Texts {
    pub(crate) rows: usize,
    pub(crate) tokens: usize,
    pub(crate) targets: usize,
}

/// Tokens per second of training steps of one pass each, the optimizer included.
pub(crate) fn training(
    decoder: &Decoder,
    texts: Texts,
    rank: usize,
    checkpointing: bool,
    rounds: usize,
) -> Result<f64> {
    let rows: Vec<Vec<u32>> = (0..texts.rows).map(|i| text(decoder, texts.tokens, i)).collect();
    let first = texts.tokens - texts.targets.min(texts.tokens - 1);
    let supervised: Vec<bool> = (0..texts.tokens).map(|i| i >= first).collect();
    let batch = PackedBatch::pack(rows.iter().map(|r| (&r[..], &supervised[..])));
    let mut adapter = decoder.new_adapter(rank, 32.0, &Module::ALL, 1);
    let mut gradients = adapter.zeros_like();
    let n = adapter.parameters().len();
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let mut steps = 0;
    median(rounds, &mut || {
        let start = Instant::now();
        gradients.parameters_mut().fill(0.0);
        let divisor = batch.targets() as f64;
        decoder.loss_and_gradients(&batch, &adapter, divisor, &mut gradients, checkpointing)?;
        steps += 1;
        let gradient = gradients.parameters();
        adamw_step(adapter.parameters_mut(), gradient, &mut m, &mut v, &OPTIMIZER, steps);
        Ok(batch.tokens.len() as f64 / start.elapsed().as_secs_f64())
    })
}

fn generate(args: &BenchArgs, figures: &mut Figures) -> Result<()> {
    let decoder = model::open_decoder(&args.model, Precision::Bf16)?;
    figures.prefill_tokens_per_s = Some(median(args.rounds, &mut || {
        Ok(1024.0 / answer(&decoder, None, 1, 0, 1024, 1)?.read_s)
    })?);
    let decode = |n: usize, new: usize| {
        median(args.rounds, &mut || {
            let Some(write_s) = answer(&decoder, None, n, 0, 16, new)?.write_s else {
                bail!("{} ends every answer at once: its writing cannot be measured", args.model);
            };
            Ok(1.0 / write_s)
        })
    };
    figures.decode_tokens_per_s = Some(decode(1, 128)?);
    figures.decode_batch32_tokens_per_s = Some(decode(32, 64)?);
    Ok(())
}

/// Times of made-up questions.
pub(crate) struct Answered {
    /// Seconds until the first new token, of all questions together.
    pub(crate) read_s: f64,
    /// Seconds per further token; `None` where every answer ended with its first.
    pub(crate) write_s: Option<f64>,
}

/// Answers `n` prompts of so many tokens together, with `new` tokens each. The first `same` tokens are those of all other
/// prompts with so many: only the first time they have to be read.
pub(crate) fn answer(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    n: usize,
    same: usize,
    prompt: usize,
    new: usize,
) -> Result<Answered> {
    // New texts each time: what was read before must not be known.
    static SALT: AtomicUsize = AtomicUsize::new(1);
    let request = |_| {
        let salt = SALT.fetch_add(1, Ordering::Relaxed);
        let tokens = [text(decoder, same, 0), text(decoder, prompt - same, salt)].concat();
        GenerateRequest::greedy(tokens, new)
    };
    let requests: Vec<GenerateRequest> = (0..n).map(request).collect();
    let done = decoder.generate(&requests, adapter, &mut |_, _| ControlFlow::Continue(()))?;
    let tokens: usize = done.iter().map(|g| g.tokens.len() - 1).sum();
    let ms: f64 = done.iter().map(|g| g.decode_ms).sum();
    Ok(Answered {
        read_s: done.iter().map(|g| g.prefill_ms).sum::<f64>() / 1e3,
        write_s: (tokens > 0).then(|| ms / 1e3 / tokens as f64),
    })
}

/// Documents of 88 tokens on average, tokenisation included.
fn embed(args: &BenchArgs, figures: &mut Figures) -> Result<()> {
    const WORDS: &[&str] = &[
        "the",
        "water",
        "of",
        "valve",
        "and",
        "sensor",
        "in",
        "greenhouse",
        "to",
        "temperature",
        "is",
        "night",
        "for",
        "plants",
        "with",
        "controller",
        "after",
        "season",
        "when",
        "light",
    ];
    let found = model::resolve(&args.embedder)?;
    let encoder = Encoder::open(&found.path, args.embedder_precision.into())?;
    let documents: Vec<String> = (0..128usize)
        .map(|i| {
            let words = 54 + i * 37 % 65;
            (0..words)
                .map(|j| WORDS[(i * 7 + j * 13 + j * j) % WORDS.len()])
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    figures.embed_documents_per_s = Some(median(args.rounds, &mut || {
        let start = Instant::now();
        encoder.embed(&texts)?;
        Ok(texts.len() as f64 / start.elapsed().as_secs_f64())
    })?);
    Ok(())
}

/// Some text of `n` tokens, another one for each `salt`.
fn text(decoder: &Decoder, n: usize, salt: usize) -> Vec<u32> {
    let plain = decoder.config().vocab - 20;
    (0..n).map(|i| 20 + ((i * 7919 + salt * 104_729) % plain) as u32).collect()
}

/// The median of `rounds` readings, after one that is thrown away.
pub(crate) fn median(rounds: usize, read: &mut dyn FnMut() -> Result<f64>) -> Result<f64> {
    read()?;
    let mut readings = (0..rounds).map(|_| read()).collect::<Result<Vec<f64>>>()?;
    readings.sort_by(f64::total_cmp);
    let upper = readings[rounds / 2];
    Ok(if rounds.is_multiple_of(2) { (readings[rounds / 2 - 1] + upper) / 2.0 } else { upper })
}
