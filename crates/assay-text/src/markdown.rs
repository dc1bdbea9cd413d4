//! Markdown: the outermost blocks with their byte ranges.

use pulldown_cmark::{Event, MetadataBlockKind, Options, Parser, Tag, TagEnd};

use crate::{Block, BlockKind, Parsed};

pub(crate) fn parse(source: &str) -> Parsed {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let mut blocks: Vec<Block> = Vec::new();
    let mut depth = 0usize;
    let mut words = String::new();
    let mut front_matter = None;
    for (event, span) in Parser::new_ext(source, options).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                if depth == 0 {
                    words.clear();
                    push(&mut blocks, source, kind(&tag), span);
                }
                depth += 1;
            }
            Event::End(tag) => {
                depth -= 1;
                if depth == 0 {
                    close(&mut blocks, tag, &words, &mut front_matter);
                }
            }
            Event::Text(text) | Event::Code(text) => words.push_str(&text),
            Event::SoftBreak | Event::HardBreak => words.push(' '),
            _ if depth == 0 => push(&mut blocks, source, BlockKind::Other, span),
            _ => {}
        }
    }
    let heading = |only: Option<u8>| {
        blocks.iter().find_map(|b| match &b.kind {
            BlockKind::Heading { level, text } if only.is_none_or(|l| l == *level) => {
                Some(text.clone()).filter(|t| !t.is_empty())
            }
            _ => None,
        })
    };
    let title = front_matter.or_else(|| heading(Some(1))).or_else(|| heading(None));
    Parsed { text: source.to_owned(), title, blocks, ..Parsed::default() }
}

fn kind(tag: &Tag<'_>) -> BlockKind {
    match tag {
        Tag::Heading { level, .. } => {
            BlockKind::Heading { level: *level as u8, text: String::new() }
        }
        Tag::Paragraph => BlockKind::Paragraph,
        Tag::List(_) => BlockKind::List,
        Tag::Table(_) => BlockKind::Table,
        Tag::CodeBlock(_) => BlockKind::Code,
        _ => BlockKind::Other,
    }
}

/// Adds a block without the white space around it. A range that the parser reports before the end of
/// the previous block (footnote definitions may) starts there instead.
fn push(blocks: &mut Vec<Block>, source: &str, kind: BlockKind, span: std::ops::Range<usize>) {
    let from = span.start.max(blocks.last().map_or(0, |b| b.span.end));
    if from >= span.end {
        return;
    }
    let inner = &source[from..span.end];
    let start = from + inner.len() - inner.trim_start().len();
    let end = from + inner.trim_end().len();
    if start < end {
        blocks.push(Block { kind, span: start..end });
    }
}

fn close(blocks: &mut [Block], tag: TagEnd, words: &str, front_matter: &mut Option<String>) {
    match tag {
        TagEnd::Heading(_) => {
            if let Some(Block { kind: BlockKind::Heading { text, .. }, .. }) = blocks.last_mut() {
                *text = words.split_whitespace().collect::<Vec<_>>().join(" ");
            }
        }
        TagEnd::MetadataBlock(MetadataBlockKind::YamlStyle) => {
            *front_matter = words
                .lines()
                .find_map(|line| line.strip_prefix("title:"))
                .map(|title| title.trim().trim_matches(['"', '\'']).to_owned())
                .filter(|title| !title.is_empty());
        }
        _ => {}
    }
}
