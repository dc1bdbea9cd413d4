//! What became of every file and page, and where that is kept.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use assay_text::Parsed;
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::IndexError;
use crate::record::{Reader, Record};

pub(crate) const SCHEMA: &str =
    "CREATE TABLE ledger (path TEXT PRIMARY KEY, entry TEXT NOT NULL) STRICT;";

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Path relative to the folder, with `/`; what is not UTF-8 in it is replaced.
    pub path: String,
    /// As what it was read.
    pub format: Option<String>,
    /// What became of it.
    pub outcome: IngestOutcome,
    /// What became of its pages, slides or sheets; none for formats that have none.
    pub pages: Vec<PageOutcome>,
    /// What a user should know about how it was read.
    pub notes: Vec<String>,
    /// The first file with the same bytes.
    pub same_as: Option<String>,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum IngestOutcome {
    /// It can be found.
    Parsed {
        /// How many chunks it has; at least one.
        chunks: usize,
        /// Characters of its text that are not white space.
        chars: usize,
        /// Those of them that are in chunks: all.
        chars_in_chunks: usize,
    },
    /// It holds no text.
    Empty,
    /// It is not of a format that is read.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It should have been read and could not be.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What became of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum PageOutcome {
    /// It can be found.
    Parsed {
        /// Characters of its text that are not white space, all of them in chunks.
        chars: usize,
    },
    /// It holds no text: blank, or a scan.
    Empty,
    /// It is not all in the text.
    Failed {
        /// Why.
        reason: String,
        /// Characters that were read nevertheless.
        chars: usize,
    },
}

impl fmt::Display for IngestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IngestOutcome::Parsed { chunks, chars, .. } => {
                write!(f, "parsed ({chunks} chunks, {chars} characters)")
            }
            IngestOutcome::Empty => f.write_str("empty"),
            IngestOutcome::Skipped { reason } => write!(f, "skipped ({reason})"),
            IngestOutcome::Failed { reason } => write!(f, "failed ({reason})"),
        }
    }
}

impl LedgerEntry {
    /// Of a file that is not parsed.
    pub(crate) fn of(path: String, outcome: IngestOutcome) -> Self {
        LedgerEntry {
            path,
            format: None,
            outcome,
            pages: Vec::new(),
            notes: Vec::new(),
            same_as: None,
        }
    }
}

/// What became of a text that was cut into `spans`. Text that is in no chunk is a failure: it could never
/// be found.
pub(crate) fn outcome(parsed: &Parsed, spans: &[Range<usize>]) -> IngestOutcome {
    let chars = visible(&parsed.text);
    let within = |span: &Range<usize>| parsed.text.get(span.clone()).map_or(0, visible);
    let chars_in_chunks = spans.iter().map(within).sum();
    if chars == 0 {
        return match parsed.failed_pages.first() {
            Some(page) => {
                IngestOutcome::Failed { reason: format!("page {}: {}", page.page, page.reason) }
            }
            None => IngestOutcome::Empty,
        };
    }
    if chars_in_chunks != chars {
        let reason = format!("{chars_in_chunks} of {chars} characters are in chunks");
        return IngestOutcome::Failed { reason };
    }
    IngestOutcome::Parsed { chunks: spans.len(), chars, chars_in_chunks }
}

/// What became of the pages of a text whose characters are all in chunks.
pub(crate) fn pages(parsed: &Parsed) -> Vec<PageOutcome> {
    let mut pages: Vec<PageOutcome> = parsed
        .pages
        .iter()
        .map(|page| match parsed.text.get(page.clone()).map_or(0, visible) {
            0 => PageOutcome::Empty,
            chars => PageOutcome::Parsed { chars },
        })
        .collect();
    for failed in &parsed.failed_pages {
        if let Some(page) = pages.get_mut(failed.page as usize - 1) {
            let chars = match page {
                PageOutcome::Parsed { chars } => *chars,
                _ => 0,
            };
            *page = PageOutcome::Failed { reason: failed.reason.clone(), chars };
        }
    }
    pages
}

fn visible(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}

/// The ledger of the last ingest into the index in `dir`, by path; empty if there is no index.
///
/// # Errors
/// [`IndexError::Format`] for an index of another format version, and failures of SQLite.
pub fn read_ledger(dir: &Path) -> Result<Vec<LedgerEntry>, IndexError> {
    let path = dir.join("index.sqlite");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let record = Record::open(&path)?;
    record.read(|r| r.ledger())
}

/// Stores entries in the place of those with the same paths.
pub(crate) fn put(tx: &Transaction<'_>, entries: &[LedgerEntry]) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO ledger VALUES (?, ?)")?;
    for entry in entries {
        let row = serde_json::to_string(entry)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        insert.execute(params![entry.path, row])?;
    }
    Ok(())
}

impl Record {
    /// Forgets entries of files that are gone.
    pub(crate) fn keep_ledger_of(&self, present: &HashSet<&str>) -> Result<(), IndexError> {
        self.write(|tx| {
            let paths: Vec<String> = tx
                .prepare("SELECT path FROM ledger")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut delete = tx.prepare("DELETE FROM ledger WHERE path = ?")?;
            for path in paths.iter().filter(|path| !present.contains(path.as_str())) {
                delete.execute([path])?;
            }
            Ok(())
        })
    }
}

impl Reader<'_> {
    /// All entries, by path.
    fn ledger(&self) -> Result<Vec<LedgerEntry>, IndexError> {
        let rows: Vec<String> = self.run(|| {
            self.tx
                .prepare("SELECT entry FROM ledger ORDER BY path")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    /// The entry of a file.
    pub(crate) fn ledger_entry(&self, path: &str) -> Result<Option<LedgerEntry>, IndexError> {
        let row: Option<String> = self.run(|| {
            self.tx
                .prepare_cached("SELECT entry FROM ledger WHERE path = ?")?
                .query_row([path], |row| row.get(0))
                .optional()
        })?;
        row.map(|row| self.entry(&row)).transpose()
    }

    fn entry(&self, row: &str) -> Result<LedgerEntry, IndexError> {
        let damaged = |e| self.record.damaged(format!("an entry of the ledger: {e}"));
        serde_json::from_str(row).map_err(damaged)
    }
}
