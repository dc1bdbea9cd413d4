//! `assay ingest`, `assay ledger` and `assay parse`: documents, and what became of each.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use assay_index::{
    Index, IndexConfig, IngestOutcome, IngestReport, LedgerEntry, PageOutcome, examine, read_ledger,
};
use assay_text::Parsed;
use clap::Args;
use notify::{EventKind, RecursiveMode, Watcher as _};
use serde_json::{Value, json};

use crate::config::Loaded;
use crate::interrupt;
use crate::parser::{ParserLimits, ParserProcess};
use crate::run::{self, release};
use crate::ui::Ui;

/// Changes come in groups: a folder is copied, an editor writes a file anew.
const QUIET: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(200);

/// Arguments of `assay ingest`.
#[derive(Args)]
pub(crate) struct IngestArgs {
    /// Print what became of every file and page as JSON.
    #[arg(long)]
    json: bool,
    /// Go on, and ingest again whenever a file changes, until interrupted.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    limits: ParserLimits,
}

/// Arguments of `assay parse`.
#[derive(Args)]
pub(crate) struct ParseArgs {
    /// Files to read.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print a line of JSON for each file: what became of it and its pages, and its text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: ParserLimits,
}

pub(crate) fn ingest(loaded: &Loaded, args: &IngestArgs) -> Result<ExitCode> {
    interrupt::install()?;
    let ui = Ui::default();
    let embedder = release::embedder(&loaded.config.model)?;
    let mut index = guarded(run::open_index(loaded, embedder, Some(&ui))?, args.limits);
    let folder = loaded.path(&loaded.config.data.documents);

    // Watched before it is read, so that no change falls in between.
    let (sender, changes) = channel();
    let watcher = if args.watch { Some(watch(&folder, sender)?) } else { None };
    let report = update(&mut index, &folder, &ui)?;
    show(&report.ledger, args.json)?;
    interrupt::check()?;
    let Some(_watcher) = watcher else {
        let failed = |e: &LedgerEntry| matches!(e.outcome, IngestOutcome::Failed { .. });
        return Ok(if report.ledger.iter().any(failed) {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        });
    };

    ui.note(&format!("watching {}; Ctrl-C to stop", folder.display()));
    let mut ledger = report.ledger;
    let mut changed: Option<Instant> = None;
    loop {
        if interrupt::asked() {
            return Ok(ExitCode::SUCCESS);
        }
        match changes.recv_timeout(POLL) {
            // Reading a file, which ingesting does, is no change of it.
            Ok(Ok(event)) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(Ok(_)) => changed = Some(Instant::now()),
            Ok(Err(e)) => return Err(e).context("watching for changes"),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the watcher ended"),
        }
        if changed.is_some_and(|at| at.elapsed() >= QUIET) {
            changed = None;
            let before = versions(&index);
            // A folder that is empty for a moment, or a disk that is full, may be well again later.
            match update(&mut index, &folder, &ui) {
                Ok(report) => {
                    tell(&before, &versions(&index), &ledger, &report.ledger, args.json)?;
                    ledger = report.ledger;
                }
                Err(e) => ui.note(&format!("error: {e:#}")),
            }
        }
    }
}

fn watch(
    folder: &Path,
    changes: Sender<notify::Result<notify::Event>>,
) -> Result<notify::RecommendedWatcher> {
    let context = || format!("watching {}", folder.display());
    let mut watcher = notify::recommended_watcher(changes).with_context(context)?;
    watcher.watch(folder, RecursiveMode::Recursive).with_context(context)?;
    Ok(watcher)
}

pub(crate) fn ledger(loaded: &Loaded, json: bool) -> Result<ExitCode> {
    let ledger = read_ledger(&loaded.state_dir().join("index"))?;
    show(&ledger, json)?;
    Ok(ExitCode::SUCCESS)
}

/// The index, with a parser that no document can crash.
pub(crate) fn guarded(index: Index, limits: ParserLimits) -> Index {
    index.with_parser(Arc::new(ParserProcess::new(limits)))
}

fn update(index: &mut Index, folder: &Path, ui: &Ui) -> Result<IngestReport> {
    let step = ui.step("ingest", 1);
    let report = index.ingest(folder, &mut |p| {
        step.length(p.total as u64);
        step.tick(p.done as u64);
        step.message(p.path.to_owned());
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    step.done(&format!(
        "{} added, {} changed, {} unchanged, {} removed; {} chunks, {} embeddings computed",
        report.added,
        report.changed,
        report.unchanged,
        report.removed,
        report.chunks,
        report.embeddings_computed
    ));
    Ok(report)
}

/// Content of every document.
fn versions(index: &Index) -> BTreeMap<String, String> {
    index.documents().iter().map(|d| (d.path.clone(), d.content_hash.clone())).collect()
}

/// Prints what a round of watching did: one line, or one value, for each file.
fn tell(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    old: &[LedgerEntry],
    new: &[LedgerEntry],
    json: bool,
) -> Result<()> {
    let mut out = std::io::stdout();
    let mut line = |what: &str, path: &str, entry: Option<&LedgerEntry>| -> Result<()> {
        if json {
            writeln!(out, "{}", json!({ "change": what, "path": path, "entry": entry }))?;
        } else {
            let outcome = entry.map_or_else(String::new, |e| format!(": {}", e.outcome));
            writeln!(out, "{what} {path}{outcome}")?;
        }
        Ok(out.flush()?)
    };
    let was = |path: &str| old.iter().find(|e| e.path == path);
    for entry in new {
        let path = entry.path.as_str();
        match was(path) {
            None => line("added", path, Some(entry))?,
            Some(e) if e.outcome != entry.outcome || before.get(path) != after.get(path) => {
                line("changed", path, Some(entry))?;
            }
            Some(_) => {}
        }
    }
    for entry in old.iter().filter(|e| !new.iter().any(|n| n.path == e.path)) {
        line("removed", &entry.path, None)?;
    }
    Ok(())
}

/// Counts of outcomes, then every file that is not simply parsed, and every page that failed.
fn show(ledger: &[LedgerEntry], json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        let counts: serde_json::Map<String, Value> =
            counts(ledger).into_iter().map(|(name, n)| (name.to_owned(), json!(n))).collect();
        let value = json!({ "counts": counts, "files": ledger });
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?);
    }
    for (outcome, count) in counts(ledger) {
        writeln!(out, "{:<20} {count}", outcome.replace('_', " "))?;
    }
    for entry in ledger {
        match &entry.outcome {
            IngestOutcome::Parsed { .. } => {}
            other => writeln!(out, "{}: {other}", entry.path)?,
        }
        for note in &entry.notes {
            writeln!(out, "{}: note: {note}", entry.path)?;
        }
        if let Some(other) = &entry.same_as {
            writeln!(out, "{}: note: the same content as {other}", entry.path)?;
        }
        for (i, page) in entry.pages.iter().enumerate() {
            if let PageOutcome::Failed { reason, .. } = page {
                writeln!(out, "{}: page {}: failed ({reason})", entry.path, i + 1)?;
            }
        }
    }
    Ok(())
}

/// Files, pages and characters by outcome.
fn counts(ledger: &[LedgerEntry]) -> Vec<(&'static str, usize)> {
    let files =
        |wanted: fn(&IngestOutcome) -> bool| ledger.iter().filter(|e| wanted(&e.outcome)).count();
    let pages = |wanted: fn(&PageOutcome) -> bool| {
        ledger.iter().flat_map(|e| &e.pages).filter(|p| wanted(p)).count()
    };
    let sum = |of: fn(&IngestOutcome) -> usize| ledger.iter().map(|e| of(&e.outcome)).sum();
    vec![
        ("files", ledger.len()),
        ("parsed", files(|o| matches!(o, IngestOutcome::Parsed { .. }))),
        ("empty", files(|o| matches!(o, IngestOutcome::Empty))),
        ("skipped", files(|o| matches!(o, IngestOutcome::Skipped { .. }))),
        ("failed", files(|o| matches!(o, IngestOutcome::Failed { .. }))),
        ("pages_parsed", pages(|p| matches!(p, PageOutcome::Parsed { .. }))),
        ("pages_empty", pages(|p| matches!(p, PageOutcome::Empty))),
        ("pages_failed", pages(|p| matches!(p, PageOutcome::Failed { .. }))),
        (
            "characters",
            sum(|o| match o {
                IngestOutcome::Parsed { chars, .. } => *chars,
                _ => 0,
            }),
        ),
        (
            "characters_in_chunks",
            sum(|o| match o {
                IngestOutcome::Parsed { chars_in_chunks, .. } => *chars_in_chunks,
                _ => 0,
            }),
        ),
    ]
}

pub(crate) fn parse(args: &ParseArgs) -> Result<ExitCode> {
    let parser = ParserProcess::new(args.limits);
    let mut failed = false;
    let mut out = std::io::stdout();
    for file in &args.files {
        let (entry, text) = examine(file, &parser, IndexConfig::default().max_file_bytes)?;
        failed |= matches!(entry.outcome, IngestOutcome::Failed { .. });
        if args.json {
            writeln!(out, "{}", parsed_json(&entry, text.as_ref())?)?;
            continue;
        }
        if !matches!(entry.outcome, IngestOutcome::Parsed { .. }) || args.files.len() > 1 {
            eprintln!("{}: {}", entry.path, entry.outcome);
        }
        for note in &entry.notes {
            eprintln!("{}: note: {note}", entry.path);
        }
        if let Some(text) = text {
            writeln!(out, "{}", text.text)?;
        }
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn parsed_json(entry: &LedgerEntry, text: Option<&Parsed>) -> Result<Value> {
    let mut value = serde_json::to_value(entry)?;
    value["title"] = json!(text.and_then(|t| t.title.as_ref()));
    value["text"] = json!(text.map(|t| &t.text));
    Ok(value)
}
