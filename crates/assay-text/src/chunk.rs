//! Packs the blocks of a document into chunks.
//!
//! A chunk starts at a heading where it can, holds as many whole blocks as fit, and never crosses into
//! the next section, except that a section too small to stand alone takes its siblings and children in.
//! A block that does not fit is cut at lines (lists, tables, code) or sentences, then words, then
//! characters.

use std::ops::{Range, RangeInclusive};

use crate::{Block, BlockKind, Parsed, pages_of};

/// Bounds a chunk in bytes too. English has four to five bytes in a token; but an unknown word, however
/// long, may count as one token, and would exceed every other tokenizer's budget.
const MAX_BYTES_PER_TOKEN: usize = 32;
/// Bytes that are given to the tokenizer at once where an estimate is enough.
const COUNTED_BYTES: usize = 64 << 10;

/// A span of the stored text, to be embedded, searched and put into prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of [`Parsed::text`]; starts and ends with a character that is not white space.
    pub span: Range<usize>,
    /// The headings in force where it starts, outermost first, its own heading included.
    pub heading_path: Vec<String>,
    /// The pages that it stands on, from 1; `None` if the format has none.
    pub pages: Option<RangeInclusive<u32>>,
}

/// Cuts `parsed` into chunks of at most `max_tokens` (at least 1), as `count_tokens` counts, and of at
/// most 32 bytes for each of them.
///
/// Chunks are in order and do not overlap; together they hold every character that is not white space.
/// Only a single character of more than `max_tokens` makes a chunk larger than that.
pub fn chunk(
    parsed: &Parsed,
    max_tokens: usize,
    count_tokens: &dyn Fn(&str) -> usize,
) -> Vec<Chunk> {
    let max_tokens = max_tokens.max(1);
    let cutter = Cutter { text: &parsed.text, max_tokens, count_tokens, units: units(parsed) };
    let mut chunks = Vec::new();
    for group in cutter.groups() {
        cutter.cut(group, &mut chunks);
    }
    for chunk in &mut chunks {
        chunk.pages = pages_of(&parsed.pages, &chunk.span);
    }
    chunks
}

/// A block with the space up to the next one: units tile the text.
struct Unit {
    start: usize,
    end: usize,
    level: Option<u8>,
    lines_first: bool,
    heading_path: Vec<String>,
}

fn units(parsed: &Parsed) -> Vec<Unit> {
    let whole = Block { kind: BlockKind::Other, span: 0..parsed.text.len() };
    let blocks =
        if parsed.blocks.is_empty() { std::slice::from_ref(&whole) } else { &parsed.blocks[..] };
    let mut path: Vec<(u8, String)> = Vec::new();
    let mut units = Vec::with_capacity(blocks.len());
    for (i, block) in blocks.iter().enumerate() {
        let mut level = None;
        if let BlockKind::Heading { level: own, text } = &block.kind {
            path.retain(|(outer, _)| outer < own);
            path.push((*own, text.clone()));
            level = Some(*own);
        }
        units.push(Unit {
            start: if i == 0 { 0 } else { block.span.start },
            end: blocks.get(i + 1).map_or(parsed.text.len(), |next| next.span.start),
            level,
            lines_first: matches!(block.kind, BlockKind::List | BlockKind::Table | BlockKind::Code),
            heading_path: path.iter().map(|(_, text)| text.clone()).collect(),
        });
    }
    units
}

/// Where a block may be cut, in the order tried.
#[derive(Clone, Copy)]
enum Cut {
    Line,
    Sentence,
    Word,
    Character,
}

struct Cutter<'a> {
    text: &'a str,
    max_tokens: usize,
    count_tokens: &'a dyn Fn(&str) -> usize,
    units: Vec<Unit>,
}

impl Cutter<'_> {
    fn fits(&self, text: &str, limit: usize) -> bool {
        let text = text.trim();
        text.len() <= limit.saturating_mul(MAX_BYTES_PER_TOKEN)
            && (self.count_tokens)(text) <= limit
    }

    /// Tokens of a text, which may be too long for a tokenizer to be given whole.
    fn estimate(&self, mut text: &str) -> usize {
        let mut tokens = 0;
        while !text.is_empty() {
            let (part, rest) = text.split_at(text.floor_char_boundary(COUNTED_BYTES));
            tokens += (self.count_tokens)(part.trim());
            text = rest;
        }
        tokens
    }

    /// Ranges of units that may share chunks: a section, or a small one with its neighbours.
    fn groups(&self) -> Vec<Range<usize>> {
        let mut starts: Vec<usize> =
            (0..self.units.len()).filter(|&i| i == 0 || self.units[i].level.is_some()).collect();
        starts.push(self.units.len());

        let mut groups: Vec<Range<usize>> = Vec::new();
        // Whether the last group is headings only, or else few tokens.
        let mut bare = false;
        let mut small = false;
        for section in starts.windows(2).map(|w| w[0]..w[1]) {
            let first = &self.units[section.start];
            let joined = groups.last().is_some_and(|group| {
                let outer = self.units[group.start].level.unwrap_or(0);
                let inner = first.level.unwrap_or(0);
                let child = self.units[group.end - 1].level.is_some_and(|own| own < inner);
                let span = self.units[group.start].start..self.units[section.end - 1].end;
                (bare && child)
                    || (small && outer <= inner && self.fits(&self.text[span], self.max_tokens))
            });
            match groups.last_mut() {
                Some(group) if joined => group.end = section.end,
                _ => groups.push(section.clone()),
            }
            bare = section.len() == 1 && first.level.is_some();
            if let Some(group) = groups.last() {
                let span = self.units[group.start].start..self.units[group.end - 1].end;
                small =
                    self.max_tokens >= 4 && self.fits(&self.text[span], self.max_tokens / 4 - 1);
            }
        }
        groups
    }

    /// Cuts a range of units into chunks: as few as needed, of about the same size, because the short rest
    /// that greedy filling leaves is found for the wrong questions.
    fn cut(&self, group: Range<usize>, chunks: &mut Vec<Chunk>) {
        let end = self.units[group.end - 1].end;
        let mut unit = group.start;
        let mut at = self.units[unit].start;
        let (bytes, tokens) = (end - at, self.estimate(&self.text[at..end]));
        while at < end {
            // An estimate is enough: it moves the cut, and the bound holds in any case.
            let rest = (tokens as f64 * (end - at) as f64 / bytes as f64).ceil() as usize;
            let share = rest.div_ceil(rest.div_ceil(self.max_tokens).max(1));
            let limit = share.saturating_add(self.max_tokens / 8).min(self.max_tokens);
            let to = self.next(at, unit, group.end, limit);
            let piece = &self.text[at..to];
            if !piece.trim().is_empty() {
                let start = at + piece.len() - piece.trim_start().len();
                // White space before a heading belongs to the block before it.
                while unit + 1 < group.end && self.units[unit].end <= start {
                    unit += 1;
                }
                chunks.push(Chunk {
                    span: start..at + piece.trim_end().len(),
                    heading_path: self.units[unit].heading_path.clone(),
                    pages: None,
                });
            }
            at = to;
            while unit + 1 < group.end && self.units[unit].end <= at {
                unit += 1;
            }
        }
    }

    /// Where the chunk of about `limit` tokens that starts at `at`, in `unit`, ends.
    fn next(&self, at: usize, unit: usize, last: usize, limit: usize) -> usize {
        let ends = |limit: usize| {
            let mut ends = self.units[unit..last].iter().map(|u| u.end);
            furthest(|_| ends.next(), |to| self.fits(&self.text[at..to], limit))
        };
        // A block that is larger than its share still stays whole if it can.
        let whole = ends(limit).or_else(|| ends(self.max_tokens));
        let (from, split) = match whole {
            None => (at, unit),
            Some(to) => {
                let mut after = unit + self.units[unit..last].partition_point(|u| u.end <= to);
                if after == last {
                    return to;
                }
                let heading = |i: usize| self.units[i].level.is_some();
                if !(unit..after).all(heading) {
                    // A heading is not the end of a chunk but the start of the next.
                    while heading(after - 1) {
                        after -= 1;
                    }
                    return self.units[after].start;
                }
                // Nor does it stand alone before a block that has to be cut anyway.
                (to, after)
            }
        };
        let end = self.units[split].end;
        let order = if self.units[split].lines_first {
            [Cut::Line, Cut::Sentence, Cut::Word, Cut::Character]
        } else {
            [Cut::Sentence, Cut::Line, Cut::Word, Cut::Character]
        };
        for cut in order {
            let step = |last: Option<usize>| {
                let from = last.unwrap_or(from);
                let text = &self.text[from..end];
                // What does not end here does not fit: a long text is not searched for each of its chunks.
                let blank = text.len() - text.trim_start().len();
                let most =
                    blank.saturating_add(self.max_tokens.saturating_mul(MAX_BYTES_PER_TOKEN));
                let near = &text[..text.floor_char_boundary(most.saturating_add(1))];
                let found = (!near.is_empty()).then(|| length(near, cut))?;
                Some(if found < near.len() { from + found } else { end })
            };
            let share = |to: usize| self.fits(&self.text[at..to], limit);
            let most = |to: usize| self.fits(&self.text[at..to], self.max_tokens);
            if let Some(to) = furthest(step, share).or_else(|| furthest(step, most)) {
                return to;
            }
        }
        whole.unwrap_or(at + length(&self.text[at..end], Cut::Character))
    }
}

/// The last of the ascending positions that `next` yields (given the one before) that fits, or `None`
/// if the first does not: doubling steps, then bisection, so that a long text is not counted whole.
fn furthest(
    mut next: impl FnMut(Option<usize>) -> Option<usize>,
    fits: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut positions: Vec<usize> = Vec::new();
    let mut good = 0;
    let mut step = 1;
    let mut bad = loop {
        while positions.len() < good + step {
            match next(positions.last().copied()) {
                Some(position) => positions.push(position),
                None => break,
            }
        }
        if positions.len() == good {
            return positions.last().copied();
        }
        if !fits(positions[positions.len() - 1]) {
            break positions.len();
        }
        good = positions.len();
        step *= 2;
    };
    while good + 1 < bad {
        let middle = good.midpoint(bad);
        if fits(positions[middle - 1]) { good = middle } else { bad = middle }
    }
    good.checked_sub(1).map(|i| positions[i])
}

/// Bytes of `text` (not empty) up to the next place to cut, at least one character.
fn length(text: &str, cut: Cut) -> usize {
    match cut {
        Cut::Line => text.find('\n').map_or(text.len(), |i| i + 1),
        Cut::Sentence => sentence(text),
        Cut::Word => {
            let word = text.len() - text.trim_start().len();
            text[word..].find(char::is_whitespace).map_or(text.len(), |i| word + i)
        }
        Cut::Character => text.chars().next().map_or(0, char::len_utf8),
    }
}

/// Up to the end of the first sentence: a full stop, question or exclamation mark, with what closes it,
/// before white space; the marks of Chinese and Japanese need no space; a blank line ends one too.
fn sentence(text: &str) -> usize {
    let mut ended = false;
    let mut newlines = 0;
    let mut begun = false;
    for (i, c) in text.char_indices() {
        if begun && c.is_whitespace() {
            newlines += usize::from(c == '\n');
            if ended || newlines > 1 {
                return i;
            }
            continue;
        }
        newlines = 0;
        begun |= !c.is_whitespace();
        match c {
            '。' | '！' | '？' => return i + c.len_utf8(),
            '.' | '!' | '?' | '…' => ended = true,
            '"' | '\'' | ')' | ']' | '»' | '”' | '’' => {}
            _ => ended = false,
        }
    }
    text.len()
}
