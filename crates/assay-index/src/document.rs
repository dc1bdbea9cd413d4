//! One file: its bytes, its format, its text.

use std::io::Read as _;
use std::path::Path;

use assay_text::{Detected, ParseError, Parsed};
use fs_err as fs;

use crate::ledger::{self, IngestOutcome, LedgerEntry};
use crate::{IndexError, NotParsed, Parse};

/// How often a file that changes while it is read is read again.
const READS: usize = 3;
/// Words in a chunk of a document that is only looked at.
const CHUNK_WORDS: usize = 150;

/// A file whose format was found and whose parser has run.
pub(crate) struct Read {
    /// Complete but for the outcome if there is a text.
    pub(crate) entry: LedgerEntry,
    pub(crate) text: Option<Parsed>,
}

/// Reads one file as an ingest does, without an index: what the ledger would say, and the text if there is one.
///
/// # Errors
/// [`IndexError::NoParser`].
pub fn examine(
    path: &Path,
    parser: &dyn Parse,
    max_bytes: u64,
) -> Result<(LedgerEntry, Option<Parsed>), IndexError> {
    let name = path.to_string_lossy().into_owned();
    let bytes = match load(path, max_bytes) {
        Ok(bytes) => bytes,
        Err(reason) => {
            return Ok((LedgerEntry::of(name, IngestOutcome::Failed { reason }), None));
        }
    };
    let Read { mut entry, text } = parse(name, path, &bytes, parser)?;
    if let Some(parsed) = &text {
        let words = |text: &str| text.split_whitespace().count();
        let chunks = assay_text::chunk(parsed, CHUNK_WORDS, &words);
        let spans: Vec<_> = chunks.into_iter().map(|c| c.span).collect();
        entry.outcome = ledger::outcome(parsed, &spans);
    }
    Ok((entry, text))
}

/// Finds the format of `bytes`, which were read from `source`, and parses them.
pub(crate) fn parse(
    path: String,
    source: &Path,
    bytes: &[u8],
    parser: &dyn Parse,
) -> Result<Read, IndexError> {
    let failed = |e: ParseError| IngestOutcome::Failed { reason: e.reason() };
    let without_text = |outcome| Read { entry: LedgerEntry::of(path.clone(), outcome), text: None };
    let (format, note) = match assay_text::detect(source, bytes) {
        Detected::Known { format, note } => (format, note),
        Detected::Unread { reason } => return Ok(without_text(IngestOutcome::Skipped { reason })),
        Detected::Protected => return Ok(without_text(failed(ParseError::Password))),
        Detected::Broken { format } => {
            let what = "its first bytes are of no known format".to_owned();
            return Ok(without_text(failed(ParseError::Damaged { format: format.name(), what })));
        }
    };
    let mut read = without_text(IngestOutcome::Empty);
    read.entry.format = Some(format.name().to_owned());
    read.entry.notes.extend(note);
    match parser.parse(bytes, format) {
        Ok(mut parsed) => {
            read.entry.pages = ledger::pages(&parsed);
            read.entry.notes.append(&mut parsed.notes);
            read.text = Some(parsed);
        }
        Err(NotParsed::File(reason)) => read.entry.outcome = IngestOutcome::Failed { reason },
        Err(NotParsed::NoParser(why)) => return Err(IndexError::NoParser(why)),
    }
    Ok(read)
}

/// The bytes of a file, unless there are more than `limit`, and all from the same state of it.
pub(crate) fn load(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let plain = |e: std::io::Error| e.to_string();
    let state = || -> Result<_, String> {
        let metadata = fs::metadata(path).map_err(plain)?;
        Ok((metadata.len(), metadata.modified().ok()))
    };
    let mut before = state()?;
    for _ in 0..READS {
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(plain)?;
        file.take(limit + 1).read_to_end(&mut bytes).map_err(plain)?;
        if bytes.len() as u64 > limit {
            return Err(format!("larger than the limit of {limit} bytes"));
        }
        let after = state()?;
        if before == after && bytes.len() as u64 == after.0 {
            return Ok(bytes);
        }
        before = after;
    }
    Err(format!("changed while it was read, {READS} times; ingest again when it is complete"))
}
