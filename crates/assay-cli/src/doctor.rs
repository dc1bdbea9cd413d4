//! `assay doctor`: what this machine has, what will be used, and what is missing.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;
use serde::Serialize;

use crate::machine::{self, Machine};
use crate::model;

/// Memory that training the default model takes, with some room: see `assay bench`.
const COMFORTABLE_MEMORY: u64 = 3_000_000_000;
/// Disk for models and a project's store.
const COMFORTABLE_DISK: u64 = 2_000_000_000;

#[derive(Serialize)]
struct Diagnosis {
    version: &'static str,
    machine: Machine,
    cache: String,
    cache_free: Option<u64>,
    models: Vec<ModelState>,
    /// Python that can fetch models from packages.
    pip: Option<String>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct ModelState {
    name: String,
    in_cache: bool,
    bytes: u64,
}

/// Something that is not as it should be.
#[derive(Serialize)]
struct Finding {
    level: Level,
    what: String,
    hint: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// Works, but worse.
    Warning,
    /// Something will fail.
    Error,
}

pub(crate) fn doctor(json: bool) -> Result<ExitCode> {
    let diagnosis = diagnose()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        print!("{}", render(&diagnosis));
    }
    let errors = diagnosis.findings.iter().any(|f| f.level == Level::Error);
    Ok(if errors { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn diagnose() -> Result<Diagnosis> {
    let machine = Machine::look()?;
    let cache = model::cache_dir()?.join("models");
    let models: Vec<ModelState> = assay_model::catalog()
        .iter()
        .map(|entry| ModelState {
            name: entry.name.clone(),
            in_cache: entry.files.iter().all(|f| cache.join(&entry.name).join(&f.path).is_file()),
            bytes: entry.bytes(),
        })
        .collect();
    let mut diagnosis = Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        cache_free: machine::free_disk(&cache),
        cache: cache.display().to_string(),
        machine,
        models,
        pip: pip(),
        findings: Vec::new(),
    };
    diagnosis.findings = findings(&diagnosis);
    Ok(diagnosis)
}

fn findings(d: &Diagnosis) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |level, what: String, hint: &str| {
        findings.push(Finding { level, what, hint: hint.to_owned() });
    };
    let (free, path) = (d.machine.memory_available, d.machine.kernel_path);
    let fastest = d.machine.fastest_kernel_path;
    if free < COMFORTABLE_MEMORY {
        find(
            Level::Warning,
            format!("{} of memory are free", machine::size(free)),
            "training the default model takes about 1.5 GB; close something, or leave out tuned and hybrid",
        );
    }
    if path != fastest {
        find(
            Level::Warning,
            format!("ASSAY_KERNELS keeps the kernels at {path}, and {fastest} is there"),
            "unset it for full speed",
        );
    } else if path == "portable" {
        find(
            Level::Warning,
            "no fast kernels for this processor: plain code is used".to_owned(),
            "expect a tenth of the speed; a processor with AVX2, AVX-512 or NEON is used at its best",
        );
    }
    if let Some(free) = d.cache_free.filter(|free| *free < COMFORTABLE_DISK) {
        find(
            Level::Warning,
            format!("{} are free where models are kept", machine::size(free)),
            "set ASSAY_CACHE to a folder on a larger disk",
        );
    }
    let missing = d.models.iter().filter(|m| !m.in_cache).count();
    if missing > 0 && d.pip.is_none() {
        find(
            Level::Warning,
            "no Python with pip: models can come from the Hub or a path only".to_owned(),
            "install Python with pip, or name models by path",
        );
    }
    if let Err(e) = fs_err::create_dir_all(&d.cache) {
        find(
            Level::Error,
            format!("models cannot be kept: {e}"),
            "set ASSAY_CACHE to a folder that you may write",
        );
    }
    findings
}

fn pip() -> Option<String> {
    ["python3", "python"].into_iter().find_map(|python| {
        let out =
            Command::new(python).args(["-m", "pip", "--version"]).stderr(Stdio::null()).output();
        let out = out.ok().filter(|out| out.status.success())?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let version = text.split(" from ").next()?.trim();
        Some(format!("{python} -m {version}"))
    })
}

fn render(d: &Diagnosis) -> String {
    let m = &d.machine;
    let mut out = String::new();
    let mut line = |what: &str, text: String| out += &format!("{what:<12} {text}\n");
    line("assay", d.version.to_owned());
    line("system", m.os.clone());
    line("processor", format!("{}, {} threads used", m.cpu, m.threads));
    line("kernels", m.kernel_path.to_owned());
    let (free, all) = (machine::size(m.memory_available), machine::size(m.memory_total));
    line("memory", format!("{free} free of {all}"));
    let room = d.cache_free.map_or(String::new(), |b| format!(", {} free", machine::size(b)));
    line("models in", format!("{}{room}", d.cache));
    for model in &d.models {
        let state = if model.in_cache { "here" } else { "fetched when it is needed" };
        line("", format!("{:<26} {:>7}  {state}", model.name, machine::size(model.bytes)));
    }
    line("packages", d.pip.clone().unwrap_or_else(|| "no Python with pip".to_owned()));
    for finding in &d.findings {
        let level = if finding.level == Level::Error { "error" } else { "warning" };
        out += &format!("{level}: {}\n  hint: {}\n", finding.what, finding.hint);
    }
    if d.findings.is_empty() {
        out += "nothing is missing\n";
    }
    out
}
