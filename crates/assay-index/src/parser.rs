//! The seam between ingesting and parsing.

use assay_text::{Format, Limits, Parsed};

/// Why a file was not parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotParsed {
    /// It cannot be: why, and what to do, as it goes into the ledger.
    File(String),
    /// There is no parser just now, which says nothing about the file: the ingest ends.
    NoParser(String),
}

impl From<String> for NotParsed {
    fn from(reason: String) -> Self {
        NotParsed::File(reason)
    }
}

/// Turns the bytes of a file into text.
///
/// Parsers of binary formats meet hostile files, and within a process nothing stops one that runs out of
/// memory or never ends. A program that must go on puts them into a process of their own behind this trait.
pub trait Parse: Send + Sync {
    /// The text of a file.
    ///
    /// # Errors
    /// Why there is none.
    fn parse(&self, bytes: &[u8], format: Format) -> Result<Parsed, NotParsed>;
}

/// Parses in this process, within limits on what files expand to, but not on time and memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess(
    /// The limits.
    pub Limits,
);

impl Parse for InProcess {
    fn parse(&self, bytes: &[u8], format: Format) -> Result<Parsed, NotParsed> {
        assay_text::parse(bytes, format, &self.0).map_err(|e| NotParsed::File(e.reason()))
    }
}
