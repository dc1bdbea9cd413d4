//! Reads documents of many formats, and cuts them into chunks that are byte spans of a stored text.
//!
//! [`detect`] names the [`Format`] of a file by its content first, then by its extension. [`parse`] turns
//! its bytes into the text that is stored, searched and quoted, with its blocks (headings, paragraphs,
//! lists, tables, code) and pages. [`chunk`] packs blocks into spans of bounded size that follow the
//! headings. Every character of the text that is not white space is in exactly one chunk.
//!
//! Nothing is replaced or left out silently: bytes that cannot be decoded are an error with their offset,
//! a guessed encoding is noted, and a page that could not be read is named.
//!
//! Parsers of binary formats run code of others on what may be hostile. [`Limits`] bounds what they expand
//! and [`parse`] survives their panics; only a process of its own survives the rest
//! (see [`Format::is_risky`]).
//!
//! ```
//! use assay_text::{Format, Limits, chunk, parse};
//!
//! let source = b"# Manual\n\nHello.\n\n## Setup\n\nPress the button.\n";
//! let parsed = parse(source, Format::Markdown, &Limits::default())?;
//! assert_eq!(parsed.title.as_deref(), Some("Manual"));
//!
//! let words = |text: &str| text.split_whitespace().count();
//! let chunks = chunk(&parsed, 5, &words);
//! assert_eq!(&parsed.text[chunks[1].span.clone()], "## Setup\n\nPress the button.");
//! assert_eq!(chunks[1].heading_path, ["Manual", "Setup"]);
//! # Ok::<(), assay_text::ParseError>(())
//! ```

mod chunk;
mod code;
mod docx;
mod encoding;
mod epub;
mod error;
mod format;
mod html;
mod json;
mod markdown;
mod notebook;
mod opendocument;
mod package;
mod pdf;
mod plain;
mod pptx;
mod separated;
mod sheets;
mod write;
mod xml;

use std::ops::{Range, RangeInclusive};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

pub use chunk::{Chunk, chunk};
pub use error::ParseError;
pub use format::{Detected, Format, detect, is_container};

/// Changes whenever the same bytes could give another text, other blocks or other chunks, so that what
/// was stored by an earlier version is made anew.
pub const VERSION: u32 = 3;

/// What a parser may use. Time and memory are bounded by whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes that the parts of a package (Office, OpenDocument, EPUB) expand to, together.
    pub expanded_bytes: u64,
    /// How many times larger than the package that may be, once it is more than 16 MiB.
    pub expansion: u64,
    /// Files in a package.
    pub parts: usize,
    /// Elements within elements of XML.
    pub depth: usize,
    /// Pages, slides or sheets.
    pub pages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            expanded_bytes: 256 << 20,
            expansion: 200,
            parts: 20_000,
            depth: 512,
            pages: 20_000,
        }
    }
}

/// A document as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parsed {
    /// The text that spans refer to: the file itself, decoded and without a byte order mark, for Markdown,
    /// plain text and source code; the readable text written out for everything else.
    pub text: String,
    /// What the document calls itself, else its first heading.
    pub title: Option<String>,
    /// In order, not overlapping, none empty.
    pub blocks: Vec<Block>,
    /// Bytes of [`Parsed::text`] that stand on each page, slide or sheet, in order; a page without text is an
    /// empty range. No pages for formats that have none.
    pub pages: Vec<Range<usize>>,
    /// Pages that are not all in the text.
    pub failed_pages: Vec<FailedPage>,
    /// What a user should know about how it was read: one sentence each, without a full stop.
    pub notes: Vec<String>,
}

impl Parsed {
    /// Whether there is nothing to read: white space only.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// First and last of the `pages` of a text on which a span of it stands, from 1; `None` if there are none.
pub fn pages_of(pages: &[Range<usize>], span: &Range<usize>) -> Option<RangeInclusive<u32>> {
    let first = pages.partition_point(|page| page.end <= span.start);
    let last = pages.partition_point(|page| page.start < span.end);
    (first < last).then(|| first as u32 + 1..=last as u32)
}

/// A page that is not all in the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPage {
    /// From 1.
    pub page: u32,
    /// Why.
    pub reason: String,
}

/// A piece of the document that is best kept whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// Bytes of [`Parsed::text`].
    pub span: Range<usize>,
}

/// What a [`Block`] is. Only the outermost structure counts: a table inside a list is part of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockKind {
    /// A heading.
    Heading {
        /// 1 (outermost) to 6.
        level: u8,
        /// Its words, without markup.
        text: String,
    },
    /// Running text.
    Paragraph,
    /// A whole list.
    List,
    /// A whole table.
    Table,
    /// Code or other preformatted text.
    Code,
    /// Anything else: quotations, raw HTML, front matter.
    Other,
}

/// Reads a file's bytes.
///
/// An empty file is no error; see [`Parsed::is_blank`]. Line ends of text stay as they are.
///
/// # Errors
/// When the bytes are not what `format` says, are protected or damaged, or exceed a limit.
pub fn parse(bytes: &[u8], format: Format, limits: &Limits) -> Result<Parsed, ParseError> {
    let read = || match format {
        Format::Markdown => text(bytes, markdown::parse),
        Format::Html => encoding::decode_html(bytes).map(|d| d.parsed(html::parse)),
        Format::Text => text(bytes, plain::parse),
        Format::Code => text(bytes, code::parse),
        Format::Csv => text(bytes, |source| separated::parse(source, None)),
        Format::Tsv => text(bytes, |source| separated::parse(source, Some(b'\t'))),
        Format::Json => encoding::decode(bytes).and_then(|d| d.try_parsed(json::parse)),
        Format::Notebook => encoding::decode(bytes).and_then(|d| d.try_parsed(notebook::parse)),
        Format::Pdf => pdf::parse(bytes, limits),
        Format::Docx => docx::parse(bytes, limits),
        Format::Pptx => pptx::parse(bytes, limits),
        Format::Xlsx | Format::Xlsb | Format::Xls | Format::Ods => {
            sheets::parse(bytes, format, limits)
        }
        Format::Odt | Format::Odp => opendocument::parse(bytes, format, limits),
        Format::Epub => epub::parse(bytes, limits),
    };
    if !format.is_risky() {
        return read();
    }
    if bytes.is_empty() {
        return Ok(Parsed::default());
    }
    // Nothing outside is changed by a parser, so nothing is left half done by one that panics.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        Err(ParseError::Panicked { format: format.name(), message })
    })
}

fn text(bytes: &[u8], parse: impl FnOnce(&str) -> Parsed) -> Result<Parsed, ParseError> {
    encoding::decode(bytes).map(|decoded| decoded.parsed(parse))
}
