//! Fine-tunes a LoRA adapter on a JSONL file and measures exact match on another one.
//!
//!     cargo run --release -p assay-train --example sft -- MODEL.gguf train.jsonl --test test.jsonl
//!
//! Rows are `{"messages": [{"role", "content"}, …]}` or `{"prompt", "completion"}`. The last turn
//! of a test row is the expected answer; the others are asked, and the answer is decoded greedily.

#![expect(clippy::print_stdout, reason = "an example talks to the terminal")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use assay_model::{Adapter, Decoder, GenerateRequest, Precision};
use assay_train::{BadRows, Checkpoints, Histogram, SftConfig, TrainRow, Trainer, audit, prepare};
use assay_types::{Message, Role, RowRef};
use clap::Parser;
use serde::Deserialize;

#[derive(Parser)]
struct Args {
    /// Base model, a GGUF file.
    model: PathBuf,
    /// Rows to learn from.
    train: PathBuf,
    /// Rows to measure exact match on.
    #[arg(long)]
    test: Option<PathBuf>,
    /// Folder for the adapter; must not exist.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder of checkpoints, to resume from after an interruption.
    #[arg(long)]
    checkpoints: Option<PathBuf>,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    #[arg(long, default_value_t = 2e-4)]
    learning_rate: f64,
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    #[arg(long, default_value_t = 20)]
    warmup: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest row, in tokens.
    #[arg(long, default_value_t = 1024)]
    max_tokens: usize,
    /// Compute in f32 instead of bf16.
    #[arg(long)]
    f32: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Chat { messages: Vec<Message> },
    Pair { prompt: String, completion: String },
}

fn main() -> Result<()> {
    let args = Args::parse();
    let precision = if args.f32 { Precision::F32 } else { Precision::Bf16 };
    let decoder = Decoder::open(&args.model, precision)?;
    let rows = read(&args.train)?;
    let set = prepare(&decoder, &rows, args.max_tokens, BadRows::Skip)?;
    for skipped in &set.skipped {
        println!("skipped {skipped}");
    }
    println!("{} rows; tokens {}", set.examples.len(), shown(&set.lengths));
    println!("learned tokens {}", shown(&set.supervised));
    println!("{}", audit(&decoder, &set.examples, 2).join("\n"));

    let config = SftConfig {
        learning_rate: args.learning_rate,
        epochs: args.epochs,
        batch_size: args.batch_size,
        warmup_steps: args.warmup,
        seed: args.seed,
        ..SftConfig::default()
    };
    let checkpoints =
        args.checkpoints.map(|dir| Checkpoints { dir, every: Duration::from_secs(120) });
    let trainer = Trainer {
        decoder: &decoder,
        config: &config,
        train: &set.examples,
        dev: &[],
        checkpoints: checkpoints.as_ref(),
    };
    let trained = trainer.train(None, &mut |p| {
        if p.step % 10 == 0 || p.dev.is_some() {
            println!(
                "epoch {} step {}/{} loss {:.4} lr {:.2e} norm {:.2} {:.0} tokens/s",
                p.epoch, p.step, p.steps, p.loss, p.learning_rate, p.grad_norm, p.tokens_per_s
            );
        }
        ControlFlow::Continue(())
    })?;
    println!(
        "trained {} steps, {} tokens in {:.1} s: {:.0} tokens/s; losses {:?}",
        trained.steps,
        trained.tokens,
        trained.seconds,
        trained.tokens as f64 / trained.seconds,
        trained.history.iter().map(|e| e.train_loss).collect::<Vec<_>>()
    );
    if let Some(out) = &args.out {
        trained.adapter.save_peft(out, &args.model.to_string_lossy())?;
    }
    if let Some(test) = &args.test {
        exact_match(&decoder, &trained.adapter, &read(test)?)?;
    }
    Ok(())
}

fn shown(h: &Histogram) -> String {
    format!("{}..{} median {} total {}; {:?}", h.min, h.max, h.median, h.total, h.buckets)
}

fn read(path: &Path) -> Result<Vec<TrainRow>> {
    let file = path.display().to_string();
    let text = fs_err::read_to_string(path)?;
    let lines = text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let row = serde_json::from_str(line).with_context(|| format!("{file}:{}", i + 1))?;
            let messages = match row {
                Row::Chat { messages } => messages,
                Row::Pair { prompt, completion } => vec![
                    Message::new(Role::User, prompt),
                    Message::new(Role::Assistant, completion),
                ],
            };
            Ok(TrainRow { messages, source: RowRef { file: file.clone(), row: i + 1 } })
        })
        .collect()
}

fn exact_match(decoder: &Decoder, adapter: &Adapter, rows: &[TrainRow]) -> Result<()> {
    let begun = Instant::now();
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for row in rows {
        let Some((last, asked)) = row.messages.split_last() else { bail!("{}: empty", row.source) };
        requests.push(GenerateRequest::greedy(decoder.prompt_tokens(asked)?, 24));
        expected.push(last.content.trim());
    }
    let mut go_on = |_, _| ControlFlow::Continue(());
    let answers = decoder.generate(&requests, Some(adapter), &mut go_on)?;
    let hits = answers.iter().zip(&expected).filter(|(a, e)| a.text.trim() == **e).count();
    let (low, high) = wilson(hits as f64, rows.len() as f64);
    println!(
        "exact match {hits}/{} = {:.3}, 95 % interval {low:.3} to {high:.3}; {:.1} s",
        rows.len(),
        hits as f64 / rows.len() as f64,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// 95 % interval of a proportion (Wilson 1927).
fn wilson(hits: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    let (p, d) = (hits / n, 1.0 + Z * Z / n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / d;
    let middle = (p + Z * Z / (2.0 * n)) / d;
    (middle - half, middle + half)
}
