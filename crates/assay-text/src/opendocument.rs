//! OpenDocument text and presentations: headings, paragraphs, lists, tables; a page for each slide.

use crate::package::Package;
use crate::write::{Writer, row};
use crate::xml::{Element, Event};
use crate::{BlockKind, Format, Limits, ParseError, Parsed};

pub(crate) fn parse(bytes: &[u8], format: Format, limits: &Limits) -> Result<Parsed, ParseError> {
    let mut package = Package::open(bytes, format.name(), limits)?;
    let manifest = package.text("META-INF/manifest.xml")?.unwrap_or_default();
    if manifest.contains("encryption-data") {
        return Err(ParseError::Password);
    }
    let text = package.required("content.xml")?;
    let mut body = Body::default();
    package.walk(&text, &mut |event| body.see(event))?;
    let title = title(&mut package)?;
    Ok(body.writer.finish(title))
}

fn title(package: &mut Package<'_>) -> Result<Option<String>, ParseError> {
    let Some(text) = package.text("meta.xml")? else { return Ok(None) };
    let mut title = String::new();
    let mut inside = false;
    package.walk(&text, &mut |event| match event {
        Event::Open(e) => inside = e.name() == "title",
        Event::Close(_) => inside = false,
        Event::Text(text) if inside => title.push_str(text),
        Event::Text(_) => {}
    })?;
    Ok(Some(title))
}

#[derive(Default)]
struct Body {
    writer: Writer,
    in_body: bool,
    /// Open paragraphs and headings (with their level): notes and boxes are within others.
    open: Vec<(Option<u8>, String)>,
    /// Open lists, and the lines of the outermost one.
    lists: usize,
    items: Vec<String>,
    item_begins: bool,
    tables: usize,
    rows: Vec<String>,
    cells: Vec<String>,
    left_out: usize,
    in_slide: bool,
}

/// Changes that were tracked, what a reader does not see, and what is said twice.
const LEFT_OUT: [&str; 5] =
    ["tracked-changes", "forms", "sequence-decls", "note-citation", "annotation-end"];

impl Body {
    fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Open(e) if LEFT_OUT.contains(&e.name()) => self.left_out += 1,
            Event::Close(name) if LEFT_OUT.contains(&name) => {
                self.left_out = self.left_out.saturating_sub(1);
            }
            _ if self.left_out > 0 => {}
            Event::Open(e) => self.open(&e),
            Event::Close(name) => self.close(name),
            Event::Text(text) => self.push(text),
        }
    }

    /// White space is collapsed when the paragraph ends.
    fn push(&mut self, text: &str) {
        if let Some((_, paragraph)) = self.open.last_mut() {
            paragraph.push_str(text);
        }
    }

    fn open(&mut self, e: &Element<'_>) {
        match e.name() {
            "body" => self.in_body = true,
            "page" if self.in_body => {
                self.in_slide = true;
                self.writer.begin_page();
            }
            "p" | "h" if self.in_body => {
                let level = (e.name() == "h")
                    .then(|| e.attr("outline-level").and_then(|l| l.parse().ok()).unwrap_or(1));
                self.open.push((level, String::new()));
            }
            "s" | "tab" => self.push(" "),
            "line-break" => self.push("\n"),
            "list" if self.in_body => self.lists += 1,
            "list-item" | "list-header" => self.item_begins = true,
            "table" if self.in_body => self.tables += 1,
            "table-cell" | "covered-table-cell" if self.tables == 1 => {
                self.cells.push(String::new());
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "body" => self.in_body = false,
            "page" if self.in_slide => {
                self.in_slide = false;
                self.writer.end_page();
            }
            "p" | "h" => {
                if let Some((level, text)) = self.open.pop() {
                    self.paragraph(level, &text);
                }
            }
            "list" if self.lists > 0 => {
                self.lists -= 1;
                if self.lists == 0 && self.tables == 0 {
                    let items = std::mem::take(&mut self.items).join("\n");
                    self.writer.block(BlockKind::List, &items);
                }
            }
            "table-row" if self.tables == 1 => {
                let row = row(std::mem::take(&mut self.cells));
                if !row.is_empty() {
                    self.rows.push(row);
                }
            }
            "table" if self.tables > 0 => {
                self.tables -= 1;
                if self.tables == 0 {
                    let rows = std::mem::take(&mut self.rows).join("\n");
                    self.writer.block(BlockKind::Table, &rows);
                }
            }
            _ => {}
        }
    }

    fn paragraph(&mut self, level: Option<u8>, text: &str) {
        let lines: Vec<String> = text.lines().map(crate::write::one_line).collect();
        let text = lines.join("\n");
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        if self.tables > 0 {
            match self.cells.last_mut() {
                Some(cell) => {
                    cell.push(' ');
                    cell.push_str(text);
                }
                None => self.cells.push(text.to_owned()),
            }
        } else if let Some(level) = level {
            self.writer.heading(level, text);
        } else if self.lists > 0 {
            let mark = if std::mem::take(&mut self.item_begins) { "- " } else { "  " };
            self.items.push(format!("{}{mark}{text}", "  ".repeat((self.lists - 1).min(8))));
        } else {
            self.writer.block(BlockKind::Paragraph, text);
        }
    }
}
