//! `cargo xtask bench peers`: Assay beside what a user would pick instead, on this machine, in turns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A figure of `assay bench --json`, and the peer's figure it is divided by.
struct Row {
    what: &'static str,
    ours: &'static str,
    /// A name that a peer's script prints; `*` stands for any word, of which the fastest counts.
    peer: &'static str,
    label: &'static str,
    /// The ratio that this project wants to reach.
    wanted: f64,
}

const fn row(
    what: &'static str,
    ours: &'static str,
    peer: &'static str,
    label: &'static str,
    wanted: f64,
) -> Row {
    Row { what, ours, peer, label, wanted }
}

const TRAIN: &str = "train_lora_tokens_per_s";
const PREFILL: &str = "prefill_tokens_per_s";
const DECODE: &str = "decode_tokens_per_s";
const DECODE_32: &str = "decode_batch32_tokens_per_s";
const EMBED: &str = "embed_documents_per_s";
const COMPILED: &str = "train_lora.bf16-autocast+compile";

const ROWS: &[Row] = &[
    row("LoRA training", TRAIN, "train_lora.bf16-pure", "PyTorch + PEFT, bf16", 2.0),
    row("LoRA training", TRAIN, COMPILED, "PyTorch + PEFT, autocast, compiled", 1.5),
    row("prefill", PREFILL, "generate.*.prefill", "llama.cpp, best format", 2.0),
    row("decode, 1 stream", DECODE, "generate.q4_1.decode", "llama.cpp, same file", 2.0),
    row("decode, 1 stream", DECODE, "generate.*.decode", "llama.cpp, best format", 1.5),
    row(
        "decode, 32 streams",
        DECODE_32,
        "generate.q4_1.decode_batched",
        "llama.cpp, same file",
        4.0,
    ),
    row(
        "decode, 32 streams",
        DECODE_32,
        "generate.*.decode_batched",
        "llama.cpp, best format",
        2.0,
    ),
    row("MiniLM documents", EMBED, "embed.st-bf16", "sentence-transformers, bf16", 1.8),
    row("MiniLM documents", EMBED, "embed.ort-int8", "ONNX Runtime, int8", 1.4),
];

/// A peer's script.
struct Script {
    /// What `bench peers NAME` calls it.
    name: &'static str,
    /// What of `assay bench --only` it is compared with.
    part: &'static str,
    /// The settings at which it does best. Its own repetitions are few: the rounds repeat it.
    command: &'static [&'static str],
}

const SCRIPTS: &[Script] = &[
    Script {
        name: "train",
        part: "train",
        command: &["train_lora.py", "--modes", "bf16-pure", "--steps", "3"],
    },
    Script {
        name: "compiled",
        part: "train",
        command: &["train_lora.py", "--modes", "bf16-autocast", "--compile", "--steps", "3"],
    },
    Script { name: "generate", part: "generate", command: &["generate.py", "--repeat", "2"] },
    Script {
        name: "embed",
        part: "embed",
        command: &["embed.py", "--engines", "st-bf16", "ort-int8", "--repeat", "2"],
    },
];

/// Readings by name.
type Readings = BTreeMap<String, Vec<f64>>;

/// Runs Assay and the peers in turns and prints the table. `only` names some of [`SCRIPTS`].
///
/// `ASSAY_PEERS_PYTHON` is the Python of the environment that `shared/peers/setup.sh` makes.
pub(crate) fn peers(root: &Path, assay: &Path, rounds: usize, only: &[&str]) -> Result<()> {
    let python = python()?;
    let folder = root.join("../shared/peers");
    if let Some(unknown) = only.iter().find(|name| SCRIPTS.iter().all(|s| s.name != **name)) {
        let known: Vec<&str> = SCRIPTS.iter().map(|s| s.name).collect();
        bail!("no peer is called `{unknown}`; there are {}", known.join(", "));
    }
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    let (mut ours, mut theirs) = (Readings::new(), Readings::new());
    let mut versions = BTreeMap::new();
    let mut machine = String::new();
    for round in 1..=rounds {
        eprintln!("== round {round} of {rounds}");
        for script in SCRIPTS.iter().filter(|s| wanted(s.name)) {
            // Right before the peer: the speed of a shared machine changes within minutes.
            let bench = ["bench", "--json", "--rounds", "3", "--only", script.part];
            let figures: Value = serde_json::from_str(&read(Command::new(assay).args(bench))?)?;
            let path = figures["kernel_path"].as_str().unwrap_or("unknown kernels");
            machine = format!("{} threads, {path}", figures["threads"]);
            for (name, value) in figures.as_object().into_iter().flatten() {
                if let Some(value) = value.as_f64() {
                    ours.entry(name.clone()).or_default().push(value);
                }
            }
            let lines = read(Command::new(&python).args(script.command).current_dir(&folder))?;
            for line in lines.lines() {
                let line: Value = serde_json::from_str(line).context("a peer printed no JSON")?;
                let (name, median) = (line["name"].as_str(), line["median"].as_f64());
                let (Some(name), Some(median)) = (name, median) else {
                    bail!("a peer printed neither name nor median: {line}");
                };
                let compiled = if line["compile"] == true { "+compile" } else { "" };
                let attention = if line["flash_attention"] == true { "+fa" } else { "" };
                let name = format!("{name}{compiled}{attention}");
                theirs.entry(name).or_default().push(median);
                for (package, version) in line["versions"].as_object().into_iter().flatten() {
                    versions.insert(package.clone(), version.as_str().unwrap_or("?").to_owned());
                }
            }
        }
    }
    print(&machine, rounds, &ours, &theirs);
    let versions: Vec<String> = versions.iter().map(|(p, v)| format!("{p} {v}")).collect();
    println!("\nPeers: {}.", versions.join(", "));
    Ok(())
}

fn python() -> Result<PathBuf> {
    std::env::var_os("ASSAY_PEERS_PYTHON").map(PathBuf::from).context(
        "ASSAY_PEERS_PYTHON is not set: make the peers' environment with ../shared/peers/setup.sh \
         and name its Python",
    )
}

/// A figure of the example `search_speed`, the peer's, and whether less is better.
const SEARCH_ROWS: &[(&str, &str, &str, &str, bool, f64)] = &[
    ("hybrid p50, ms", "hybrid_p50", "search.hybrid.p50", "bm25s + faiss flat, RRF", true, 4.0),
    ("hybrid p99, ms", "hybrid_p99", "search.hybrid.p99", "bm25s + faiss flat, RRF", true, 4.0),
    ("exact dense p50, ms", "dense_p50", "search.faiss-flat.p50", "faiss flat", true, 4.0),
    ("exact dense p99, ms", "dense_p99", "search.faiss-flat.p99", "faiss flat", true, 4.0),
    ("exact dense p50, ms", "dense_p50", "search.chroma.p50", "Chroma, approximate", true, 1.0),
    ("exact dense p99, ms", "dense_p99", "search.chroma.p99", "Chroma, approximate", true, 1.0),
    ("lexical p50, ms", "lexical_p50", "search.bm25s.p50", "bm25s", true, 1.0),
    ("lexical p99, ms", "lexical_p99", "search.bm25s.p99", "bm25s", true, 1.0),
    ("ingest, chunks/s", "ingest", "search.chroma.build", "Chroma", false, 10.0),
];

/// Runs `example`, which prints the figures of our search, beside the peers' script, and prints the table.
pub(crate) fn search(
    root: &Path,
    example: &mut Command,
    documents: usize,
    options: &[&str],
) -> Result<()> {
    let python = python()?;
    let documents = documents.to_string();
    let ours = read(example.args([&documents, "--json"]).args(options))?;
    let ours: Value = serde_json::from_str(ours.trim())?;
    let mut script = Command::new(python);
    script.args(["search.py", "--documents", &documents]).args(options);
    script.args(["--engines", "bm25s", "faiss-flat", "hybrid", "chroma"]);
    let lines = read(script.current_dir(root.join("../shared/peers")))?;
    let mut theirs = BTreeMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).context("a peer printed no JSON")?;
        if let (Some(name), Some(median)) = (line["name"].as_str(), line["median"].as_f64()) {
            theirs.insert(name.to_owned(), median);
        }
    }
    println!("{documents} chunks of 384 dimensions {}\n", options.join(" "));
    println!("| | Assay | peer | | ratio | wanted |");
    println!("|:--|--:|:--|--:|--:|--:|");
    for &(what, own, peer, label, less, wanted) in SEARCH_ROWS {
        let (Some(own), Some(peer)) = (ours[own].as_f64(), theirs.get(peer).copied()) else {
            bail!("a figure is missing: {own} or {peer}");
        };
        let ratio = if less { peer / own } else { own / peer };
        println!("| {what} | {own:.3} | {label} | {peer:.3} | {ratio:.1} | {wanted:.1} |");
    }
    println!("\nAll of ours: {ours}");
    Ok(())
}

fn print(machine: &str, rounds: usize, ours: &Readings, theirs: &Readings) {
    println!("Medians of {rounds} rounds in turns; {machine}.\n");
    println!("| | Assay | peer | | ratio | wanted |");
    println!("|:--|--:|:--|--:|--:|--:|");
    for row in ROWS {
        let best = theirs
            .iter()
            .filter(|(name, _)| matches(row.peer, name))
            .map(|(_, readings)| median(readings))
            .max_by(f64::total_cmp);
        let (Some(own), Some(peer)) = (ours.get(row.ours).map(|r| median(r)), best) else {
            continue;
        };
        let Row { what, label, wanted, .. } = row;
        let ratio = own / peer;
        println!("| {what} | {own:.0} | {label} | {peer:.0} | {ratio:.2} | {wanted:.1} |");
    }
    if let Some(bytes) = ours.get("train_peak_rss_bytes") {
        println!("\nPeak memory of the training step: {:.2} GB.", median(bytes) / 1e9);
    }
}

/// Whether `name`, with or without flash attention, is what `pattern` means.
fn matches(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix("+fa").unwrap_or(name);
    match pattern.split_once('*') {
        Some((front, back)) => {
            name.len() > front.len() + back.len() && name.starts_with(front) && name.ends_with(back)
        }
        None => name == pattern,
    }
}

fn median(readings: &[f64]) -> f64 {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted[sorted.len() / 2];
    if sorted.len().is_multiple_of(2) {
        (sorted[sorted.len() / 2 - 1] + upper) / 2.0
    } else {
        upper
    }
}

/// What a command prints; its errors go to the terminal.
fn read(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let out =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("starting {shown}"))?;
    if !out.status.success() {
        bail!("{shown} ended with {}", out.status);
    }
    Ok(String::from_utf8(out.stdout)?)
}
