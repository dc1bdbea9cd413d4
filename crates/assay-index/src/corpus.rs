//! The documents themselves, apart from searching them: deleting, access, snapshots, and whether all is well.
//!
//! Nothing here needs the embedder, so that a document can be deleted whatever else is missing.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use crate::index::snapshot_hash;
use crate::record::{DocumentRow, Reader, Record};
use crate::segment::Segment;
use crate::{IndexError, Properties};

const RECORD: &str = "index.sqlite";
const LOCK: &str = "ingest.lock";

/// The stored documents of an index.
///
/// What a method has acknowledged by returning holds for ever: after a crash, a power cut, and in every process that
/// has the index open, from its next search on.
pub struct Corpus {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
}

/// The documents of one moment, with everything but the projections that decides what a search returns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorpusSnapshot {
    /// Its name: blake3, in hexadecimal, over how the documents were indexed (embedder, chunk size, parser) and over
    /// their paths, contents and properties.
    pub hash: String,
    /// Number of the last change that is in it; larger is later.
    pub sequence: i64,
    /// By path.
    pub documents: Vec<SnapshotDocument>,
}

/// A document of a [`CorpusSnapshot`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotDocument {
    /// Path relative to the ingested folder, with `/`.
    pub path: String,
    /// blake3 of the file, in hexadecimal.
    pub content_hash: String,
    /// Metadata, access and tenant.
    #[serde(flatten)]
    pub properties: Properties,
}

/// What [`Corpus::verify`] has looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Documents that were checked.
    pub documents: usize,
    /// Chunks whose span and hash were checked.
    pub chunks: usize,
    /// Vectors that were checked.
    pub embeddings: usize,
    /// Projections that are there and were checked; one that is missing is built when the index is next opened.
    pub projections: usize,
    /// What is wrong, each in words; nothing if all is well.
    pub damage: Vec<String>,
}

impl Corpus {
    /// Opens the documents of the index in `dir`, or creates an empty one.
    ///
    /// # Errors
    /// [`IndexError::Format`] for an index of another format version, and failures of the file system or SQLite.
    pub fn open(dir: &Path) -> Result<Corpus, IndexError> {
        fs::create_dir_all(dir)?;
        let record = Record::open(&dir.join(RECORD))?;
        Ok(Corpus { dir: dir.to_owned(), record })
    }

    /// Deletes documents, all or none. Their contents stay away though the folder may still hold them: an ingest
    /// skips them until they are [restored](Self::restore), or the file has another content.
    ///
    /// # Errors
    /// [`IndexError::NoSuchDocument`] if a path is of no document and of none that was deleted, and failures of
    /// SQLite, after which nothing is deleted.
    pub fn delete(&self, paths: &[&str]) -> Result<(), IndexError> {
        all_known(self.record.delete(paths)?)
    }

    /// Lets the next ingest read again what was deleted at these paths; how many contents that are.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn restore(&self, paths: &[&str]) -> Result<usize, IndexError> {
        self.record.restore(paths)
    }

    /// Says who may read documents, all or none: `None` is everyone, an empty list nobody. It goes before what the
    /// folder says, now and after every ingest, until it is [reset](Self::reset_access).
    ///
    /// # Errors
    /// As [`Corpus::delete`].
    pub fn set_access(&self, paths: &[&str], allow: Option<&[String]>) -> Result<(), IndexError> {
        all_known(self.record.set_access(paths, Some(allow))?)
    }

    /// Lets the folder say again who may read documents.
    ///
    /// # Errors
    /// As [`Corpus::delete`].
    pub fn reset_access(&self, paths: &[&str]) -> Result<(), IndexError> {
        all_known(self.record.set_access(paths, None)?)
    }

    /// The documents as they are now.
    ///
    /// # Errors
    /// When SQLite fails, or the record contradicts itself.
    pub fn snapshot(&self) -> Result<CorpusSnapshot, IndexError> {
        self.record.read(|r| {
            let rows = r.documents()?;
            let hash = snapshot_hash(settings(&rows), &rows);
            let documents = rows
                .into_iter()
                .map(|row| SnapshotDocument {
                    path: row.path,
                    content_hash: row.content_hash,
                    properties: row.properties,
                })
                .collect();
            Ok(CorpusSnapshot { hash, sequence: r.sequence()?, documents })
        })
    }

    /// Checks all that is stored: the database itself, the span and hash of every chunk, every vector, and each
    /// projection against the record.
    ///
    /// # Errors
    /// When SQLite cannot read the record at all. What is wrong in it is no error but [`Verification::damage`].
    pub fn verify(&self) -> Result<Verification, IndexError> {
        self.record.read(|r| {
            let mut found = Verification { damage: r.integrity()?, ..Verification::default() };
            let rows = match r.documents() {
                Ok(rows) => rows,
                Err(error) => {
                    found.damage.push(error.to_string());
                    return Ok(found);
                }
            };
            for row in &rows {
                found.documents += 1;
                match document(r, row) {
                    Ok(chunks) => found.chunks += chunks,
                    Err(what) => found.damage.push(what),
                }
            }
            let (embeddings, damage) = r.check_vectors()?;
            found.embeddings = embeddings;
            found.damage.extend(damage);
            for path in crate::projections::files(&self.segments())? {
                found.projections += 1;
                if Segment::open(&path, None).is_none() {
                    found.damage.push(format!("{} is damaged", path.display()));
                }
            }
            Ok(found)
        })
    }

    /// Keeps ingests of other processes out, until what is returned is dropped.
    pub(crate) fn lock(&self) -> Result<fs::File, IndexError> {
        let path = self.dir.join(LOCK);
        let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(&path)?;
        file.file().try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => IndexError::Busy { path },
            std::fs::TryLockError::Error(e) => e.into(),
        })?;
        Ok(file)
    }

    /// The folder of the projections.
    pub(crate) fn segments(&self) -> PathBuf {
        self.dir.join("segments")
    }

    /// Removes everything that can be made again from the record.
    pub(crate) fn remove_projections(&self) -> Result<(), IndexError> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            // The record has companions: `-wal`, `-shm`, `-journal`.
            if name.to_string_lossy().starts_with(RECORD) || name == LOCK {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn all_known(unknown: Vec<String>) -> Result<(), IndexError> {
    if unknown.is_empty() { Ok(()) } else { Err(IndexError::NoSuchDocument { paths: unknown }) }
}

/// How the documents were indexed; where they differ, they are not searched.
fn settings(rows: &[DocumentRow]) -> &str {
    rows.first().map_or("", |row| &row.settings)
}

/// Checks a document and its chunks; how many it has.
fn document(r: &Reader<'_>, row: &DocumentRow) -> Result<usize, String> {
    let chunks = r.chunks_of(&row.path).map_err(|e| e.to_string())?;
    let text = r.text(&row.path).map_err(|e| e.to_string())?.unwrap_or_default();
    let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    let (there, held) = (visible(&text), chunks.iter().map(|c| visible(&c.text)).sum::<usize>());
    if there != held {
        return Err(format!("{}: {there} characters, and {held} in its chunks", row.path));
    }
    Ok(chunks.len())
}
