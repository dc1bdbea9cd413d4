use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use crate::{BackendError, EmbedError, FilterError};

/// Why the index could not be opened, filled or searched.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The folder to ingest does not exist, or is a file.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// As given.
        path: PathBuf,
    },
    /// The folder to ingest holds no file of a format that is read.
    #[error("{} holds no documents ({skipped} files of other formats)", path.display())]
    NoDocuments {
        /// As given.
        path: PathBuf,
        /// Files of other formats in it.
        skipped: usize,
    },
    /// `assay-docs.toml` cannot be understood; nothing was changed.
    #[error("{}: {what}", path.display())]
    Sidecar {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There are no documents at these paths; nothing was changed.
    #[error("no such document: {}", paths.join(", "))]
    NoSuchDocument {
        /// As given.
        paths: Vec<String>,
    },
    /// The filter cannot be used on these documents.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Another version of this software wrote the index.
    #[error("{} has format {found}, not {expected}", path.display())]
    Format {
        /// The database.
        path: PathBuf,
        /// Version it was written with.
        found: i64,
        /// Version that is read.
        expected: i64,
    },
    /// Some documents were indexed with another embedder, chunk size or parser.
    #[error("{documents} documents were indexed with other settings")]
    Stale {
        /// How many.
        documents: usize,
    },
    /// Another process ingests into the same index.
    #[error("{} is locked by another ingest", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The database holds what cannot be.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// SQLite failed: a full disk, a lock held by another process, a file that is no database.
    #[error("{}: {source}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// SQLite's own error.
        source: rusqlite::Error,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Files cannot be parsed just now; what was ingested before stays.
    #[error("no parser: {0}")]
    NoParser(String),
    /// The embedder failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The server that holds the vectors could not be used.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl IndexError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            IndexError::Filter(e) => return e.hint().map(Cow::Owned),
            IndexError::Backend(e) => return e.hint(),
            IndexError::NotAFolder { .. } => {
                "name a folder with documents: Markdown, HTML, text, PDF, Office, EPUB, …"
            }
            IndexError::NoDocuments { .. } => {
                "put *.md, *.html, *.txt, *.pdf, *.docx, … files there; \
                 to forget all documents, delete the index folder"
            }
            IndexError::Sidecar { .. } => {
                "each [[documents]] has `match`, and of `allow`, `tenant` and `metadata` what it says"
            }
            IndexError::NoSuchDocument { .. } => {
                "documents are named by their paths below the ingested folder"
            }
            IndexError::Format { .. } | IndexError::Damaged { .. } => {
                "delete the index folder and ingest again"
            }
            IndexError::Stale { .. } => "ingest again",
            IndexError::Busy { .. } => "wait until it is done",
            IndexError::NoParser(_) => "ingest again; nothing is lost",
            IndexError::Database { source, .. } => match source.sqlite_error_code()? {
                rusqlite::ErrorCode::DatabaseBusy => {
                    "another process is writing to the index: wait until it is done"
                }
                rusqlite::ErrorCode::DiskFull => "the disk is full",
                rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt => {
                    "delete the index folder and ingest again"
                }
                _ => return None,
            },
            IndexError::Io(_) | IndexError::Embed(_) => return None,
        };
        Some(Cow::Borrowed(hint))
    }
}
