use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store could not do what was asked. [`StoreError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk (or the quota) is full.
    #[error("no space left while writing {}", path.display())]
    DiskFull {
        /// What was written to.
        path: PathBuf,
    },
    /// The store file is not a healthy SQLite database.
    #[error("{} is damaged: {detail}", path.display())]
    Corrupt {
        /// The store file.
        path: PathBuf,
        /// What SQLite says.
        detail: String,
    },
    /// The store file is a healthy database of some other program.
    #[error("{} is not an assay store", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The store was written by a newer assay.
    #[error("{} has store layout {found}, this assay knows up to {supported}", path.display())]
    Newer {
        /// The store file.
        path: PathBuf,
        /// Layout of the file.
        found: i64,
        /// Newest layout that this build reads.
        supported: i64,
    },
    /// Another run holds the project.
    #[error("another assay run{} is working in {}", pid.map(|p| format!(" (process {p})")).unwrap_or_default(), project.display())]
    Locked {
        /// The store folder.
        project: PathBuf,
        /// Process that holds it, where it could be read.
        pid: Option<u32>,
    },
    /// A stored value does not have the expected form.
    #[error("stored result of step `{step}` ({key}) cannot be read: {source}")]
    Value {
        /// Step that made it.
        step: String,
        /// Its key.
        key: String,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// A value that was to be stored has no JSON form, e.g. a map with keys that are not strings.
    #[error("result of step `{step}` cannot be stored: {source}")]
    Unstorable {
        /// Step that made it.
        step: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// There is no such release.
    #[error("there is no release `{0}`")]
    NoSuchRelease(String),
    /// There is no release before the current one.
    #[error("there is no earlier release to go back to")]
    NoEarlierRelease,
    /// A file operation failed; the message names the file.
    #[error(transparent)]
    Io(io::Error),
    /// Any other failure of the database.
    #[error("{}: {source}", path.display())]
    Database {
        /// The store file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            StoreError::DiskFull { .. } => {
                "free some space and run again: everything that was finished is kept"
            }
            StoreError::Corrupt { .. } => {
                "move the store folder away and run again; its results will be computed anew"
            }
            StoreError::Foreign { .. } => "move that file away, or choose another project folder",
            StoreError::Newer { .. } => "update assay, or move the store folder away",
            StoreError::Locked { .. } => "wait until it ends, or stop it; what it finished is kept",
            StoreError::Value { .. } => {
                "it was written by another version of this step; move the store folder away"
            }
            StoreError::NoSuchRelease(_) => "`assay release list` shows the releases",
            StoreError::NoEarlierRelease
            | StoreError::Unstorable { .. }
            | StoreError::Io(_)
            | StoreError::Database { .. } => return None,
        })
    }

    /// Sorts a failure of SQLite into the cases that have a remedy.
    pub(crate) fn from_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::DiskFull { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Corrupt { path, detail: source.to_string() }
            }
            _ => StoreError::Database { path, source },
        }
    }

    /// Tells a full disk from any other failed file operation on `path`.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::DiskFull { path: path.to_path_buf() }
            }
            _ => StoreError::Io(source),
        }
    }
}
