//! Reads Markdown, HTML and plain text, and cuts them into chunks that are byte spans of a stored text.
//!
//! [`parse`] turns the bytes of a file into the text that is stored, searched and quoted, with its
//! blocks (headings, paragraphs, lists, tables, code). [`chunk`] packs blocks into spans of bounded size
//! that follow the headings. Every character of the text that is not white space is in exactly one chunk.
//!
//! What is not valid UTF-8 is refused with the offset of the first bad byte: a quote must be found again
//! in the source, so nothing is replaced or guessed.
//!
//! ```
//! use assay_text::{Format, chunk, parse};
//!
//! let parsed = parse(b"# Manual\n\nHello.\n\n## Setup\n\nPress the button.\n", Format::Markdown)?;
//! assert_eq!(parsed.title.as_deref(), Some("Manual"));
//!
//! let words = |text: &str| text.split_whitespace().count();
//! let chunks = chunk(&parsed, 5, &words);
//! assert_eq!(&parsed.text[chunks[1].span.clone()], "## Setup\n\nPress the button.");
//! assert_eq!(chunks[1].heading_path, ["Manual", "Setup"]);
//! # Ok::<(), assay_text::ParseError>(())
//! ```

mod chunk;
mod html;
mod markdown;
mod plain;

use std::ops::Range;
use std::path::Path;

pub use chunk::{Chunk, chunk};

/// Changes whenever the same bytes could give another text, other blocks or other chunks, so that what
/// was stored by an earlier version is made anew.
pub const VERSION: u32 = 2;

/// How a file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// CommonMark with tables, footnotes and front matter.
    Markdown,
    /// HTML as browsers read it, whatever its errors.
    Html,
    /// Paragraphs separated by blank lines.
    Text,
}

impl Format {
    /// By the extension (`md`, `markdown`, `html`, `htm`, `txt`; case does not matter), else `None`.
    pub fn of_path(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "md" | "markdown" => Some(Format::Markdown),
            "html" | "htm" => Some(Format::Html),
            "txt" => Some(Format::Text),
            _ => None,
        }
    }
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The source text that spans refer to: the file itself, without a byte order mark, for Markdown and
    /// plain text; the readable text for HTML.
    pub text: String,
    /// Front matter `title` or first `#` heading of Markdown, `<title>` or first `<h1>` of HTML.
    pub title: Option<String>,
    /// In order, not overlapping, none empty.
    pub blocks: Vec<Block>,
}

impl Parsed {
    /// Whether there is nothing to read: white space only.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// A piece of the document that is best kept whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// Bytes of [`Parsed::text`].
    pub span: Range<usize>,
}

/// What a [`Block`] is. Only the outermost structure counts: a table inside a list is part of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Why a file has no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8: the first invalid byte is at offset {offset}")]
    NotUtf8 {
        /// Bytes before the first invalid one.
        offset: usize,
    },
    /// There is a NUL: UTF-16, or no text at all.
    #[error("not a text: there is a NUL byte at offset {offset}")]
    Nul {
        /// Bytes before it.
        offset: usize,
    },
}

impl ParseError {
    /// What the user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            ParseError::NotUtf8 { .. } => "convert the file to UTF-8, for example with iconv",
            ParseError::Nul { .. } => "convert UTF-16 to UTF-8, or remove the file if it is binary",
        }
    }
}

/// Reads a file's bytes. A UTF-8 byte order mark is dropped; line ends stay as they are.
///
/// An empty file is no error; see [`Parsed::is_blank`].
///
/// # Errors
/// When the bytes are not UTF-8 text.
pub fn parse(bytes: &[u8], format: Format) -> Result<Parsed, ParseError> {
    let source =
        std::str::from_utf8(bytes).map_err(|e| ParseError::NotUtf8 { offset: e.valid_up_to() })?;
    if let Some(offset) = source.find('\0') {
        return Err(ParseError::Nul { offset });
    }
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    Ok(match format {
        Format::Markdown => markdown::parse(source),
        Format::Html => html::parse(source),
        Format::Text => plain::parse(source),
    })
}
