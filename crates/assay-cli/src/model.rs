//! `assay model`: fetch models, and look inside one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use assay_model::{Adapter, Decoder, FetchConfig, Precision, Progress, ResolvedModel};
use assay_types::Message;
use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// Put models into the shared cache, verified.
    Fetch {
        /// Catalog names, hf:org/repo[/file], or paths.
        #[arg(required = true)]
        models: Vec<String>,
    },
    /// The models known by name.
    List,
    /// What the model sees and thinks: rendered prompt, token ids, top logits.
    Probe {
        /// Catalog name, hf:org/repo/file.gguf, or a path.
        model: String,
        /// Folder of a LoRA adapter in PEFT layout.
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        /// JSON file with a list of messages, rendered by the model's chat template.
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with = "text",
            required_unless_present = "text"
        )]
        chat: Option<PathBuf>,
        /// Text taken as it is; special tokens in it are recognised, none are added.
        #[arg(long)]
        text: Option<String>,
        /// How many of the largest logits to print.
        #[arg(long, default_value_t = 10)]
        top: usize,
        /// Arithmetic of the weights: f32 is the reference, bf16 is what runs and serves.
        #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
        precision: PrecisionArg,
        /// Write all logits, [tokens, vocabulary], as a NumPy file.
        #[arg(long, value_name = "FILE.npy")]
        logits: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum PrecisionArg {
    F32,
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(p: PrecisionArg) -> Precision {
        match p {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Bf16 => Precision::Bf16,
        }
    }
}

pub(crate) fn model(command: ModelCommand) -> Result<ExitCode> {
    match command {
        ModelCommand::Fetch { models } => {
            for spec in &models {
                let found = resolve(spec)?;
                println!("{}", found.path.display());
            }
        }
        ModelCommand::List => {
            for entry in assay_model::catalog() {
                println!("{:<26} {}, {}", entry.name, entry.about, entry.licence);
            }
        }
        ModelCommand::Probe { model, adapter, chat, text, top, precision, logits, json } => {
            let input = match (chat, text) {
                (Some(file), _) => Input::Chat(file),
                (None, Some(text)) => Input::Text(text),
                (None, None) => bail!("give --chat or --text"),
            };
            let decoder = open_decoder(&model, precision.into())?;
            let probe = probe(&decoder, adapter.as_deref(), input, top, logits.as_deref())?;
            if json {
                println!("{}", serde_json::to_string_pretty(&probe)?);
            } else {
                print_probe(&probe);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

enum Input {
    Chat(PathBuf),
    Text(String),
}

#[derive(Serialize)]
struct Probe {
    model_sha256: String,
    prompt: String,
    ids: Vec<u32>,
    top: Vec<TopLogit>,
    vocabulary: usize,
}

#[derive(Serialize)]
struct TopLogit {
    id: u32,
    token: String,
    logit: f32,
}

fn probe(
    decoder: &Decoder,
    adapter: Option<&Path>,
    input: Input,
    top: usize,
    npy: Option<&Path>,
) -> Result<Probe> {
    let prompt = match input {
        Input::Text(text) => text,
        Input::Chat(file) => {
            let text = fs_err::read_to_string(&file)?;
            let messages: Vec<Message> = serde_json::from_str(&text).with_context(|| {
                format!("{}: expected [{{\"role\": \"user\", \"content\": \"…\"}}]", file.display())
            })?;
            decoder.template().render(&messages, true)?
        }
    };
    let ids = decoder.tokenizer().encode(&prompt)?;
    if ids.is_empty() {
        bail!("the prompt has no tokens");
    }
    let adapter = adapter.map(|dir| Adapter::load_peft(dir, decoder.config())).transpose()?;
    let logits = decoder.logits(&ids, adapter.as_ref())?;
    let vocabulary = logits.len() / ids.len();
    if let Some(file) = npy {
        write_npy(file, &logits, ids.len(), vocabulary)?;
    }
    let last = &logits[logits.len() - vocabulary..];
    let mut order: Vec<usize> = (0..vocabulary).collect();
    order.sort_by(|a, b| last[*b].total_cmp(&last[*a]).then(a.cmp(b)));
    let top = order
        .into_iter()
        .take(top)
        .map(|i| {
            let id = u32::try_from(i)?;
            Ok(TopLogit { id, token: decoder.tokenizer().decode(&[id], false), logit: last[i] })
        })
        .collect::<Result<_>>()?;
    Ok(Probe { model_sha256: decoder.file_hash().to_owned(), prompt, ids, top, vocabulary })
}

fn print_probe(probe: &Probe) {
    println!("model sha256 {}", probe.model_sha256);
    println!("\nprompt, {} tokens:\n{}", probe.ids.len(), probe.prompt);
    println!("\nids: {:?}", probe.ids);
    println!("\n{:>8}  {:>9}  token", "id", "logit");
    for t in &probe.top {
        println!("{:>8}  {:>9.4}  {:?}", t.id, t.logit, t.token);
    }
}

/// NumPy format 1.0: magic, version, length-prefixed header padded to 64 bytes, then the data.
fn write_npy(file: &Path, data: &[f32], rows: usize, columns: usize) -> Result<()> {
    let shape =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let padded = (10 + shape.len() + 1).next_multiple_of(64) - 10;
    let header = format!("{shape:<width$}\n", width = padded - 1);
    let mut out = std::io::BufWriter::new(fs_err::File::create(file)?);
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&u16::try_from(header.len())?.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for v in data {
        out.write_all(&v.to_le_bytes())?;
    }
    out.flush().with_context(|| format!("writing {}", file.display()))
}

/// A decoder by name or path, fetched if need be.
pub(crate) fn open_decoder(spec: &str, precision: Precision) -> Result<Decoder> {
    let found = resolve(spec)?;
    Ok(Decoder::open(&found.path, precision)?)
}

/// A model in the shared cache, with a progress bar for what must be fetched first.
pub(crate) fn resolve(spec: &str) -> Result<ResolvedModel> {
    let mut config = FetchConfig::new(cache_dir()?.join("models"));
    if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
        config.hub_endpoint = endpoint;
    }
    config.hub_token = std::env::var("HF_TOKEN").ok().filter(|t| !t.is_empty());
    config.hub_offline =
        std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| !matches!(v.as_str(), "" | "0" | "false"));
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
    )?);
    let result = assay_model::resolve(spec, &config, &mut |p| show(&bar, spec, &p));
    bar.finish_and_clear();
    result.map_err(|e| match e.hint() {
        Some(hint) => anyhow!("{e}\nhint: {hint}"),
        None => anyhow!("{e}"),
    })
}

fn show(bar: &ProgressBar, spec: &str, progress: &Progress<'_>) {
    match progress {
        Progress::Waiting { lock } => {
            bar.set_message(format!("{spec}: another process fetches it ({})", lock.display()));
        }
        Progress::Trying { source } => bar.set_message(format!("{spec}: {source}")),
        Progress::Failed { .. } => {}
        Progress::Bytes { done, total, .. } => {
            if let Some(total) = total {
                bar.set_length(*total);
            }
            bar.set_position(*done);
        }
        Progress::Damaged { file, error, moved_to } => bar.suspend(|| {
            eprintln!("{spec}: {file} was damaged ({error}); moved to {}", moved_to.display());
        }),
        Progress::Verifying { .. } => bar.set_message(format!("{spec}: verifying")),
    }
    bar.enable_steady_tick(Duration::from_millis(200));
}

/// `ASSAY_CACHE`, else `assay` in the user's cache folder.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("ASSAY_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|d| d.join("assay")))
        .or_else(|| from("HOME").map(|d| d.join(".cache/assay")))
        .context("no place for the model cache: set ASSAY_CACHE to a folder")
}
