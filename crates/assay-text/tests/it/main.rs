//! Parsers and chunker at the crate's boundary.

mod chunks;
mod encodings;
mod formats;
mod office;
mod parsing;
mod pdf;

use assay_text::{BlockKind, Format, Limits, ParseError, Parsed};

fn parse(bytes: &[u8], format: Format) -> Result<Parsed, ParseError> {
    assay_text::parse(bytes, format, &Limits::default())
}

/// Blocks as `kind: text` lines.
fn blocks(parsed: &Parsed) -> Vec<String> {
    let line = |b: &assay_text::Block| {
        let kind = match &b.kind {
            BlockKind::Heading { level, text } => format!("h{level} {text}"),
            other => format!("{other:?}").to_lowercase(),
        };
        format!("{kind}: {}", &parsed.text[b.span.clone()])
    };
    parsed.blocks.iter().map(line).collect()
}

/// Text of each page.
fn pages(parsed: &Parsed) -> Vec<&str> {
    parsed.pages.iter().map(|page| parsed.text[page.clone()].trim()).collect()
}
