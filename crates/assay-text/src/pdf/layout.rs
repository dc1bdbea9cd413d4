//! From glyphs to words, lines and blocks.
//!
//! Coordinates are points, turned so that text runs to the right (`u`) and lines follow downwards (`v`).
//! All thresholds are in units of the font size, as typographers give them: a space between words is about
//! a quarter, and text set in justified lines stretches it to about one.

use hayro_interpret::kurbo::{Point, Vec2};

use crate::BlockKind;
use crate::write::{Writer, one_line};

/// Wider gaps are spaces.
const SPACE: f64 = 0.16;
/// Wider gaps are borders between cells.
const CELL: f64 = 1.5;

/// A character, or a few, and where they stand.
#[derive(Clone, Debug)]
pub(crate) struct Glyph {
    text: String,
    /// Quarter turns clockwise by which the text is rotated.
    turns: u8,
    /// From where to where along the line.
    u: [f64; 2],
    /// The baseline.
    v: f64,
    size: f64,
}

impl Glyph {
    /// `None` if it has no place on a page.
    pub(super) fn new(
        text: String,
        from: Point,
        to: Point,
        along: Vec2,
        size: f64,
    ) -> Option<Self> {
        if ![from.x, from.y, to.x, to.y, size].iter().all(|v| v.is_finite()) || size <= 0.0 {
            return None;
        }
        let turns = match (along.x.abs() >= along.y.abs(), along.x >= 0.0, along.y >= 0.0) {
            (true, true, _) => 0,
            (false, _, true) => 1,
            (true, false, _) => 2,
            (false, _, false) => 3,
        };
        let turned = |p: Point| match turns {
            0 => (p.x, p.y),
            1 => (p.y, -p.x),
            2 => (-p.x, -p.y),
            _ => (-p.y, p.x),
        };
        let ((u0, v), (u1, _)) = (turned(from), turned(to));
        Some(Glyph { text, turns, u: [u0.min(u1), u0.max(u1)], v, size })
    }

    fn is_space(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// Cells on one baseline.
#[derive(Debug)]
pub(crate) struct Line {
    cells: Vec<String>,
    turns: u8,
    u: [f64; 2],
    v: f64,
    size: f64,
    /// Width of a character where all are of the same.
    mono: Option<f64>,
}

impl Line {
    fn text(&self) -> String {
        self.cells.join(" ")
    }
}

/// Lines in the order in which they are drawn; text in other directions after the one that prevails.
pub(super) fn lines(glyphs: &[Glyph]) -> Vec<Line> {
    let mut by_turns: Vec<Vec<&Glyph>> = vec![Vec::new(); 4];
    for glyph in glyphs {
        by_turns[usize::from(glyph.turns)].push(glyph);
    }
    by_turns.sort_by_key(|glyphs| std::cmp::Reverse(glyphs.len()));
    let mut lines = Vec::new();
    for glyphs in by_turns {
        let mut line: Vec<&Glyph> = Vec::new();
        for glyph in glyphs {
            if line.iter().rev().take(8).any(|g| overprints(g, glyph)) {
                continue;
            }
            if line.last().is_some_and(|last| !continues(&line, last, glyph)) {
                lines.extend(finish(std::mem::take(&mut line)));
            }
            line.push(glyph);
        }
        lines.extend(finish(line));
    }
    lines
}

/// Bold is sometimes made by drawing the same character twice.
fn overprints(a: &Glyph, b: &Glyph) -> bool {
    let near = 0.1 * a.size;
    a.text == b.text && !a.is_space() && (a.u[0] - b.u[0]).abs() < near && (a.v - b.v).abs() < near
}

/// Whether `next` stands on the line that ends with `last`.
fn continues(line: &[&Glyph], last: &Glyph, next: &Glyph) -> bool {
    let first = line.iter().find(|g| !g.is_space()).unwrap_or(&line[0]);
    let size = first.size.max(next.size).max(last.size);
    // Raised or lowered letters are smaller.
    let shift = if (first.size - next.size).abs() > 0.1 * size { 0.6 } else { 0.3 };
    let level = (next.v - first.v).abs().min((next.v - last.v).abs());
    let rtl = is_rtl(&next.text) || is_rtl(&last.text);
    level < shift * size && (next.u[0] > last.u[0] - 0.6 * size || rtl)
}

fn is_rtl(text: &str) -> bool {
    text.chars().any(
        |c| matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}'),
    )
}

fn finish(mut glyphs: Vec<&Glyph>) -> Option<Line> {
    let visible = || glyphs.iter().filter(|g| !g.is_space());
    let first = visible().next()?;
    let (turns, v) = (first.turns, first.v);
    let size = visible().map(|g| g.size).fold(0.0, f64::max);
    let u = visible().fold([f64::MAX, f64::MIN], |u, g| [u[0].min(g.u[0]), u[1].max(g.u[1])]);
    let mono = mono(&glyphs);
    if glyphs.iter().any(|g| is_rtl(&g.text)) {
        logical_order(&mut glyphs);
    }
    let mut cells = vec![String::new()];
    let mut last: Option<&Glyph> = None;
    let mut spaced = false;
    for glyph in glyphs {
        if glyph.is_space() {
            spaced = true;
            continue;
        }
        if let Some(last) = last {
            let gap = (glyph.u[0] - last.u[1]).max(last.u[0] - glyph.u[1]);
            let size = last.size.max(glyph.size);
            if gap > CELL * size {
                cells.push(String::new());
            } else if let Some(cell) = cells.last_mut()
                && (spaced || gap > SPACE * size)
            {
                cell.push(' ');
            }
        }
        if let Some(cell) = cells.last_mut() {
            cell.push_str(&glyph.text);
        }
        (last, spaced) = (Some(glyph), false);
    }
    Some(Line { cells, turns, u, v, size, mono })
}

/// From the order of places to that of reading: right to left, but numbers and Latin words left to right.
fn logical_order(glyphs: &mut [&Glyph]) {
    glyphs.sort_by(|a, b| b.u[0].total_cmp(&a.u[0]));
    let ltr = |g: &Glyph| g.text.chars().any(|c| c.is_alphanumeric()) && !is_rtl(&g.text);
    let mut at = 0;
    while at < glyphs.len() {
        let Some(begin) = glyphs[at..].iter().position(|g| ltr(g)).map(|i| at + i) else { break };
        let right = glyphs[begin..].iter().position(|g| is_rtl(&g.text));
        let mut end = right.map_or(glyphs.len(), |i| begin + i);
        while end > begin && !ltr(glyphs[end - 1]) {
            end -= 1;
        }
        glyphs[begin..end].reverse();
        at = end.max(begin + 1);
    }
}

/// The width of a character, if the line is long enough to tell and all have it.
fn mono(glyphs: &[&Glyph]) -> Option<f64> {
    let widths: Vec<f64> =
        glyphs.iter().filter(|g| !g.is_space()).map(|g| g.u[1] - g.u[0]).collect();
    let first = *widths.first()?;
    let same = widths.iter().all(|w| (w - first).abs() < 0.01 * first);
    (same && widths.len() >= 6 && first > 0.0).then_some(first)
}

/// Sizes of fonts in a document, by how much is written in them.
pub(super) struct Sizes {
    body: f64,
    /// Of headings, largest first.
    headings: Vec<i64>,
}

/// Halves of points: sizes differ by rounding.
fn rounded(size: f64) -> i64 {
    (2.0 * size).round() as i64
}

impl Sizes {
    pub(super) fn of<'a>(lines: impl Iterator<Item = &'a Line>) -> Self {
        let mut written = std::collections::BTreeMap::<i64, usize>::new();
        for line in lines {
            *written.entry(rounded(line.size)).or_default() += line.text().len();
        }
        let body = written.iter().max_by_key(|(_, n)| **n).map_or(0, |(size, _)| *size);
        let body_size = body as f64 / 2.0;
        let headings = written
            .keys()
            .rev()
            .copied()
            .filter(|&size| size as f64 / 2.0 >= 1.15 * body_size && size > body)
            .collect();
        Sizes { body: body_size, headings }
    }

    /// Of a heading, from 1; `None` for running text.
    fn level(&self, line: &Line) -> Option<u8> {
        if line.size < 1.15 * self.body || line.cells.len() > 1 || line.text().len() > 200 {
            return None;
        }
        if !line.text().chars().any(char::is_alphabetic) {
            return None;
        }
        let rank = self.headings.iter().position(|&size| size == rounded(line.size))?;
        Some(rank.min(5) as u8 + 1)
    }
}

/// Writes the lines of a page as blocks.
pub(super) fn write(lines: &[Line], sizes: &Sizes, writer: &mut Writer) {
    let spacing = spacing(lines);
    let mut rest = lines;
    while let [first, others @ ..] = rest {
        let follows = |i: usize| {
            let (a, b) = (&rest[i - 1], &rest[i]);
            a.turns == b.turns && b.v > a.v && b.v - a.v < 2.5 * spacing.max(a.size)
        };
        let run = |same: &dyn Fn(&Line) -> bool| {
            1 + (1..rest.len()).take_while(|&i| same(&rest[i]) && follows(i)).count()
        };
        let taken = if let Some(level) = sizes.level(first) {
            let taken = run(&|l| sizes.level(l) == Some(level));
            let text: Vec<String> = rest[..taken].iter().map(Line::text).collect();
            writer.heading(level, &text.join(" "));
            taken
        } else if first.cells.len() > 1 && others.first().is_some_and(|l| l.cells.len() > 1) {
            let taken = run(&|l| l.cells.len() > 1);
            let rows: Vec<String> = rest[..taken].iter().map(|l| l.cells.join(" | ")).collect();
            writer.block(BlockKind::Table, &rows.join("\n"));
            taken
        } else if first.mono.is_some() && others.first().is_some_and(|l| l.mono.is_some()) {
            let taken = run(&|l| l.mono.is_some());
            writer.block(BlockKind::Code, &code(&rest[..taken]));
            taken
        } else {
            let ends = |i: usize| {
                let (a, b) = (&rest[i - 1], &rest[i]);
                let special = sizes.level(b).is_some()
                    || (b.cells.len() > 1 && rest.get(i + 1).is_some_and(|l| l.cells.len() > 1));
                special || !same_paragraph(a, b, spacing)
            };
            let taken = (1..rest.len()).find(|&i| ends(i)).unwrap_or(rest.len());
            let kind = if is_item(&first.text()) { BlockKind::List } else { BlockKind::Paragraph };
            writer.block(kind, &paragraph(&rest[..taken]));
            taken
        };
        rest = &rest[taken..];
    }
}

/// The usual distance between lines, which is that of a paragraph: the lower quartile.
fn spacing(lines: &[Line]) -> f64 {
    let mut steps: Vec<f64> = lines
        .windows(2)
        .filter(|w| w[0].turns == w[1].turns)
        .map(|w| w[1].v - w[0].v)
        .filter(|step| *step > 1.0 && *step < 60.0)
        .collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 4).copied().unwrap_or(0.0)
}

fn same_paragraph(a: &Line, b: &Line, spacing: f64) -> bool {
    if a.turns != b.turns || (a.size - b.size).abs() > 0.1 * a.size {
        return false;
    }
    let (text, next) = (a.text(), b.text());
    let ended = text.ends_with(['.', '!', '?', ':', '。']);
    if b.v <= a.v {
        // The next column or a new place; only a sentence that goes on is a sign.
        return !ended && next.starts_with(char::is_lowercase);
    }
    if is_item(&next) {
        return is_item(&text) && b.v - a.v < 1.3 * spacing.max(a.size);
    }
    let indented = b.u[0] > a.u[0] + 0.8 * a.size && !is_item(&text);
    b.v - a.v < 1.3 * spacing.max(a.size) && !(ended && indented)
}

/// Whether a line begins as an item of a list does.
fn is_item(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let Some(mark) = words.next() else { return false };
    if words.next().is_none() {
        return false;
    }
    let digits = mark.trim_end_matches(['.', ')']);
    matches!(mark, "•" | "‣" | "◦" | "▪" | "●" | "○" | "-" | "–" | "*" | "\u{f0b7}")
        || (digits.len() < mark.len() && digits.len() <= 3 && digits.parse::<u16>().is_ok())
}

/// Lines as running text, hyphenated words put together; items of a list begin a line.
fn paragraph(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let next = line.text();
        if is_item(&next) && !text.is_empty() {
            text.push('\n');
        } else if !text.is_empty() {
            let mut tail = text.chars().rev();
            let hyphen = tail.next() == Some('-') && tail.next().is_some_and(char::is_lowercase);
            if hyphen && next.starts_with(char::is_lowercase) {
                text.pop();
            } else {
                text.push(' ');
            }
        }
        text.push_str(&one_line(&next));
    }
    text
}

/// Lines as they are, with their indentation.
fn code(lines: &[Line]) -> String {
    let left = lines.iter().map(|l| l.u[0]).fold(f64::MAX, f64::min);
    let mut text = String::new();
    for line in lines {
        let width = line.mono.unwrap_or(line.size);
        let indent = ((line.u[0] - left) / width).round().clamp(0.0, 120.0) as usize;
        text.push_str(&" ".repeat(indent));
        text.push_str(&line.text());
        text.push('\n');
    }
    text
}
