//! The seam between ingesting and parsing.

use assay_text::{Format, Limits, Parsed};

/// Turns the bytes of a file into text.
///
/// Parsers of binary formats meet hostile files, and within a process nothing stops one that runs out of
/// memory or never ends. A program that must go on puts them into a process of their own behind this trait.
pub trait Parse: Send + Sync {
    /// The text of a file.
    ///
    /// # Errors
    /// Why there is none, and what to do, as it goes into the ledger.
    fn parse(&self, bytes: &[u8], format: Format) -> Result<Parsed, String>;
}

/// Parses in this process, within limits on what files expand to, but not on time and memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess(
    /// The limits.
    pub Limits,
);

impl Parse for InProcess {
    fn parse(&self, bytes: &[u8], format: Format) -> Result<Parsed, String> {
        assay_text::parse(bytes, format, &self.0).map_err(|e| e.reason())
    }
}
