use std::fmt;
use std::io;
use std::path::PathBuf;

use assay_types::RowRef;

use crate::Shape;

/// A row that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Where it stands.
    pub at: RowRef,
    /// What is wrong.
    pub what: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl fmt::Display for RowError {
    /// `file:row: what; hint`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for RowError {}

/// Why a dataset could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be opened or read; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file's name tells no known format.
    #[error("{}: not a format that is read here", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no row.
    #[error("{file}: holds no rows")]
    Empty {
        /// The file.
        file: String,
    },
    /// The file is in UTF-16.
    #[error("{file}: is written in UTF-16")]
    Utf16 {
        /// The file.
        file: String,
    },
    /// The header of a CSV file cannot be used.
    #[error("{file}:1: {what}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The rows are preference pairs.
    #[error(
        "{at}: a preference pair (`prompt`, `chosen`, `rejected`) has no reference to score against"
    )]
    Preference {
        /// The first such row.
        at: RowRef,
    },
    /// Rows that cannot be used: all of them, in the order of the file.
    #[error("{file}: {} of {total} rows cannot be used", errors.len())]
    Rows {
        /// The file.
        file: String,
        /// Each bad row.
        errors: Vec<RowError>,
        /// Rows in the file, good and bad.
        total: usize,
        /// The shape that the rows were read as; `None` when no row has a known one.
        shape: Option<Shape>,
    },
}

impl ReadError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ReadError::Io(_) => None,
            ReadError::UnknownFormat { path } => Some(match path.extension() {
                Some(e) if e == "gz" || e == "zip" || e == "zst" => "unpack it first",
                Some(e) if e == "json" => "write one object per line and name the file .jsonl",
                Some(e) if e == "tsv" => "save it as .csv with commas",
                _ => "name it .jsonl (one JSON object per line) or .csv (with a header row)",
            }),
            ReadError::Empty { .. } => Some("put one labelled example in each row"),
            ReadError::Utf16 { .. } => Some("save it as UTF-8"),
            ReadError::Header { .. } => Some("the first row names the columns, parted by commas"),
            ReadError::Preference { .. } => {
                Some("keep `prompt` and write the chosen answer as `completion`")
            }
            ReadError::Rows { .. } => Some("each row is named with its fault"),
        }
    }

    /// The unusable rows, if that is the reason.
    pub fn rows(&self) -> &[RowError] {
        match self {
            ReadError::Rows { errors, .. } => errors,
            _ => &[],
        }
    }
}
