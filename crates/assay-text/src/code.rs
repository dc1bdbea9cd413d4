//! Source code: pieces that begin at the margin, with what stands before them without a blank line.

use crate::{Block, BlockKind, Parsed};

pub(crate) fn parse(source: &str) -> Parsed {
    let mut blocks: Vec<Block> = Vec::new();
    let mut at = 0;
    let mut after_blank = true;
    for line in source.split_inclusive('\n') {
        let content = line.trim_end().len();
        if content > 0 {
            match blocks.last_mut() {
                Some(block) if !(after_blank && begins(line)) => block.span.end = at + content,
                _ => blocks.push(Block { kind: BlockKind::Code, span: at..at + content }),
            }
        }
        after_blank = content == 0;
        at += line.len();
    }
    Parsed { text: source.to_owned(), blocks, ..Parsed::default() }
}

/// Whether a line that stands after a blank one can begin a function or the like: it is not indented, and
/// neither ends nor goes on with what stands before.
fn begins(line: &str) -> bool {
    const GOES_ON: [&str; 4] = ["end", "else", "elif", "except"];
    let word = line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    !line.starts_with([' ', '\t', '}', ')', ']']) && !GOES_ON.contains(&word)
}
