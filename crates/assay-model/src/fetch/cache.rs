//! A model's folder in the cache: verified files and the record of their verification.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Progress, ResolvedModel, SourceError, Wanted};
use crate::catalog::ModelKind;

const RECORD: &str = ".assay.json";
const BLOCK: usize = 1 << 20;

/// What was verified, so that it need not be hashed again while size and modification time stay.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    files: BTreeMap<String, Verified>,
    /// Files that were chosen for a Hub specification: its file, or the empty string for the whole repository.
    #[serde(default)]
    selections: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Verified {
    bytes: u64,
    modified_ns: u128,
    sha256: String,
    source: String,
}

pub(crate) struct Folder {
    path: PathBuf,
    lock: PathBuf,
    record: Record,
}

impl Folder {
    /// The folder of `name` with its record; an unreadable record counts as none, which costs one verification.
    pub(crate) fn open(cache: &Path, name: &str) -> Self {
        let path = cache.join(name);
        let record = read_record(&path);
        Folder { path, lock: cache.join(format!("{name}.lock")), record }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every file is the one that was verified.
    pub(crate) fn intact(&self, wanted: &[Wanted]) -> bool {
        wanted.iter().all(|w| {
            let (Some(known), Ok((bytes, modified_ns))) =
                (self.record.files.get(&w.path), stamp(&self.path.join(&w.path)))
            else {
                return false;
            };
            (bytes, modified_ns) == (known.bytes, known.modified_ns)
                && w.sha256.as_ref().is_none_or(|sum| *sum == known.sha256)
        })
    }

    /// Waits until no other process fetches this model. The lock goes with the returned file.
    pub(crate) fn lock(&mut self, progress: &mut dyn FnMut(Progress<'_>)) -> io::Result<fs::File> {
        fs::create_dir_all(&self.path)?;
        let file =
            fs::OpenOptions::new().create(true).truncate(false).write(true).open(&self.lock)?;
        if file.try_lock().is_err() {
            progress(Progress::Waiting { lock: &self.lock });
            file.lock()?;
        }
        // The process that held the lock may have fetched everything.
        self.record = read_record(&self.path);
        Ok(file)
    }

    /// Verifies what is there, moves damaged files aside, and returns the files to fetch.
    pub(crate) fn check(
        &mut self,
        wanted: &[Wanted],
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> io::Result<Vec<Wanted>> {
        let mut missing = Vec::new();
        for w in wanted {
            if self.intact(std::slice::from_ref(w)) {
                continue;
            }
            let path = self.path.join(&w.path);
            if !path.is_file() {
                missing.push(w.clone());
                continue;
            }
            if let Err(error) = self.verify(w, &path, progress)? {
                let moved_to = with_suffix(&path, ".bad");
                fs::rename(&path, &moved_to)?;
                progress(Progress::Damaged { file: &w.path, error: &error, moved_to: &moved_to });
                missing.push(w.clone());
            }
        }
        Ok(missing)
    }

    fn verify(
        &mut self,
        w: &Wanted,
        path: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> io::Result<Result<(), SourceError>> {
        let known = self.record.files.get(&w.path);
        let bytes = stamp(path)?.0;
        if let Some(expected) = w.bytes.or(known.map(|k| k.bytes)).filter(|e| *e != bytes) {
            return Ok(Err(SourceError::Size { file: w.path.clone(), expected, got: bytes }));
        }
        let expected = w.sha256.clone().or(known.map(|k| k.sha256.clone()));
        let source = known.map_or("put there by hand", |k| k.source.as_str()).to_owned();
        progress(Progress::Verifying { file: &w.path });
        let got = sha256_file(path)?;
        match expected {
            Some(expected) if expected != got => {
                Ok(Err(SourceError::Checksum { file: w.path.clone(), expected, got }))
            }
            _ => self.admit(&w.path, got, &source).map(Ok),
        }
    }

    /// Records a file in place whose sum was just computed.
    fn admit(&mut self, file: &str, sha256: String, source: &str) -> io::Result<()> {
        let (bytes, modified_ns) = stamp(&self.path.join(file))?;
        let verified = Verified { bytes, modified_ns, sha256, source: source.into() };
        self.record.files.insert(file.into(), verified);
        self.save()
    }

    /// Where a download of `w` collects its bytes; its folder exists afterwards.
    pub(crate) fn part(&self, w: &Wanted) -> io::Result<PathBuf> {
        let target = self.path.join(&w.path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(with_suffix(&target, ".part"))
    }

    /// Renames a finished part into place if its sum is the wanted one, else deletes it.
    pub(crate) fn finish(
        &mut self,
        w: &Wanted,
        part: &Path,
        sha256: String,
        source: &str,
    ) -> Result<(), SourceError> {
        if let Some(expected) = w.sha256.clone().filter(|e| *e != sha256) {
            fs::remove_file(part)?;
            return Err(SourceError::Checksum { file: w.path.clone(), expected, got: sha256 });
        }
        fs::rename(part, self.path.join(&w.path))?;
        Ok(self.admit(&w.path, sha256, source)?)
    }

    /// The files of an earlier choice, so that a cached Hub model needs no listing.
    pub(crate) fn selection(&self, file: Option<&str>) -> Option<Vec<Wanted>> {
        let paths = self.record.selections.get(file.unwrap_or_default())?;
        let wanted = paths.iter().map(|path| {
            let known = self.record.files.get(path)?;
            Some(Wanted {
                path: path.clone(),
                bytes: Some(known.bytes),
                sha256: Some(known.sha256.clone()),
            })
        });
        wanted.collect()
    }

    pub(crate) fn remember_selection(
        &mut self,
        file: Option<&str>,
        wanted: &[Wanted],
    ) -> io::Result<()> {
        let paths: Vec<String> = wanted.iter().map(|w| w.path.clone()).collect();
        let old = self.record.selections.insert(file.unwrap_or_default().into(), paths.clone());
        if old.as_ref() == Some(&paths) { Ok(()) } else { self.save() }
    }

    /// The model made of verified files.
    pub(crate) fn resolved(&self, kind: ModelKind, wanted: &[Wanted]) -> ResolvedModel {
        let is_weights = |p: &str| p.ends_with(".safetensors") || p.ends_with(".gguf");
        let weights = || wanted.iter().filter(|w| is_weights(&w.path));
        let mut sums: Vec<(String, String)> = weights()
            .filter_map(|w| Some((w.path.clone(), self.record.files.get(&w.path)?.sha256.clone())))
            .collect();
        sums.sort();
        let first = weights().next();
        let source = first.and_then(|w| self.record.files.get(&w.path)).map(|v| v.source.clone());
        let path = match (kind, first) {
            (ModelKind::Gguf, Some(w)) => self.path.join(&w.path),
            _ => self.path.clone(),
        };
        ResolvedModel { path, kind, sha256: combined(&sums), source: source.unwrap_or_default() }
    }

    fn save(&self) -> io::Result<()> {
        let part = self.path.join(format!("{RECORD}.part"));
        fs::write(&part, serde_json::to_vec_pretty(&self.record)?)?;
        fs::rename(part, self.path.join(RECORD))
    }
}

fn read_record(folder: &Path) -> Record {
    let bytes = fs::read(folder.join(RECORD)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Size in bytes and modification time in nanoseconds since 1970.
fn stamp(path: &Path) -> io::Result<(u64, u128)> {
    let meta = fs::metadata(path)?;
    let since = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((meta.len(), since.as_nanos()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn starts_with(path: &Path, magic: &[u8]) -> io::Result<bool> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(magic.len() as u64).read_to_end(&mut head)?;
    Ok(head == magic)
}

pub(crate) fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().fold(String::new(), |mut s, byte| {
        let _ = write!(s, "{byte:02x}");
        s
    })
}

pub(crate) fn sha256_file(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    copy(&mut fs::File::open(path)?, &mut io::sink(), &mut hasher, &mut |_| {})?;
    Ok(hex(hasher.finalize()))
}

/// One file's own sum; of several, the sum of their `sha256  name` lines.
pub(crate) fn combined(sums: &[(String, String)]) -> String {
    if let [(_, sum)] = sums {
        return sum.clone();
    }
    let lines: String = sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    hex(Sha256::digest(lines))
}

/// Copies to the end, hashing what passes and reporting the bytes of each block.
pub(crate) fn copy(
    from: &mut dyn Read,
    to: &mut dyn Write,
    hasher: &mut Sha256,
    passed: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let n = match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(&block[..n])?;
        hasher.update(&block[..n]);
        passed(n as u64);
    }
}
