//! Builds a [`Parsed`] block by block, for formats whose text has to be written out.

use std::ops::Range;

use crate::{Block, BlockKind, FailedPage, Parsed};

#[derive(Default)]
pub(crate) struct Writer {
    text: String,
    blocks: Vec<Block>,
    pages: Vec<Range<usize>>,
    failed_pages: Vec<FailedPage>,
    page_start: usize,
}

impl Writer {
    /// Adds a block, one blank line after the one before; nothing if it is blank.
    pub(crate) fn block(&mut self, kind: BlockKind, text: &str) {
        // The first line's indentation is part of code, and of nothing else.
        let text = match kind {
            BlockKind::Code => text.trim_end().trim_start_matches(['\n', '\r']),
            _ => text.trim(),
        };
        if text.trim().is_empty() {
            return;
        }
        self.gap();
        let start = self.text.len();
        self.text.push_str(text);
        self.blocks.push(Block { kind, span: start..self.text.len() });
    }

    /// Adds a heading of level 1 to 6, on one line.
    pub(crate) fn heading(&mut self, level: u8, text: &str) {
        let text = one_line(text);
        let kind = BlockKind::Heading { level: level.clamp(1, 6), text: text.clone() };
        self.block(kind, &text);
    }

    /// Adds all blocks of another document.
    pub(crate) fn document(&mut self, other: &Parsed) {
        for block in &other.blocks {
            self.block(block.kind.clone(), &other.text[block.span.clone()]);
        }
    }

    pub(crate) fn begin_page(&mut self) {
        self.gap();
        self.page_start = self.text.len();
    }

    pub(crate) fn end_page(&mut self) {
        self.pages.push(self.page_start..self.text.len());
    }

    /// Says why the page that is being written is not all there.
    pub(crate) fn fail_page(&mut self, reason: impl Into<String>) {
        let page = self.pages.len() as u32 + 1;
        self.failed_pages.push(FailedPage { page, reason: reason.into() });
    }

    pub(crate) fn finish(mut self, title: Option<String>) -> Parsed {
        self.text.truncate(self.text.trim_end().len());
        for page in &mut self.pages {
            page.start = page.start.min(self.text.len());
            page.end = page.end.min(self.text.len());
        }
        let heading = || {
            self.blocks.iter().find_map(|b| match &b.kind {
                BlockKind::Heading { text, .. } => Some(text.clone()),
                _ => None,
            })
        };
        let title = title.map(|t| one_line(&t)).filter(|t| !t.is_empty()).or_else(heading);
        Parsed {
            text: self.text,
            title,
            blocks: self.blocks,
            pages: self.pages,
            failed_pages: self.failed_pages,
            notes: Vec::new(),
        }
    }

    fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push_str("\n\n");
        }
    }
}

/// Words separated by single spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cells of a table row on one line, ` | ` between them, without empty ones at the end; empty if all are.
pub(crate) fn row(cells: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut row = String::new();
    let mut end = 0;
    for (i, cell) in cells.into_iter().enumerate() {
        if i > 0 {
            row.push_str(" | ");
        }
        let cell = one_line(cell.as_ref());
        row.push_str(&cell);
        if !cell.is_empty() {
            end = row.len();
        }
    }
    row[..end].trim_start().to_owned()
}
