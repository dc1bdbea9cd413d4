//! Plain text: paragraphs between blank lines.

use crate::{Block, BlockKind, Parsed};

pub(crate) fn parse(source: &str) -> Parsed {
    let mut blocks: Vec<Block> = Vec::new();
    let mut at = 0;
    let mut after_blank = true;
    for line in source.split_inclusive('\n') {
        let content = line.trim_end().len();
        if content > 0 {
            match blocks.last_mut() {
                Some(block) if !after_blank => block.span.end = at + content,
                _ => blocks.push(Block { kind: BlockKind::Paragraph, span: at..at + content }),
            }
        }
        after_blank = content == 0;
        at += line.len();
    }
    Parsed { text: source.to_owned(), blocks, ..Parsed::default() }
}
