//! Word: paragraphs with their styles, lists with their numbers, tables, notes and comments.
//!
//! Text that was deleted or moved away under change tracking is left out, text in boxes and formulas is
//! kept. Headers, footers, notes and comments follow the text, each once.

use std::collections::{BTreeSet, HashMap};

use crate::package::Package;
use crate::write::{Writer, row};
use crate::xml::Event;
use crate::{BlockKind, Format, Limits, ParseError, Parsed};

pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    let mut package = Package::open(bytes, Format::Docx.name(), limits)?;
    let main = package
        .relations("")?
        .into_iter()
        .find(|r| r.kind == "officeDocument")
        .map_or_else(|| "word/document.xml".to_owned(), |r| r.part);
    let text = package.required(&main)?;
    let styles = styles(&mut package)?;
    let numbering = numbering(&mut package)?;
    let mut body = Body::new(&styles, &numbering);
    package.walk(&text, &mut |event| body.see(event))?;

    // A header is repeated for each section and kind of page.
    let mut seen = BTreeSet::new();
    let notes = ["header", "footer", "footnotes", "endnotes", "comments"];
    let mut parts = package.relations(&main)?;
    parts.sort_by_key(|r| notes.iter().position(|n| *n == r.kind));
    for part in parts.iter().filter(|r| notes.contains(&r.kind.as_str())) {
        let Some(text) = package.text(&part.part)? else { continue };
        let mut own = Body::new(&styles, &numbering);
        package.walk(&text, &mut |event| own.see(event))?;
        let own = own.finish(None);
        if seen.insert(own.text.clone()) {
            body.writer.document(&own);
        }
    }
    let title = core_title(&mut package)?;
    Ok(body.finish(title))
}

/// The title that the document's properties give.
pub(crate) fn core_title(package: &mut Package<'_>) -> Result<Option<String>, ParseError> {
    let Some(text) = package.text("docProps/core.xml")? else { return Ok(None) };
    let mut title = String::new();
    let mut inside = false;
    package.walk(&text, &mut |event| match event {
        Event::Open(e) => inside = e.name() == "title",
        Event::Close(_) => inside = false,
        Event::Text(text) if inside => title.push_str(text),
        Event::Text(_) => {}
    })?;
    Ok(Some(title).filter(|t| !t.trim().is_empty()))
}

/// What a paragraph style says about structure.
#[derive(Clone, Default)]
struct Style {
    based_on: Option<String>,
    /// Level of heading, from 1.
    level: Option<u8>,
    code: bool,
    list: Option<String>,
    list_level: Option<usize>,
}

fn styles(package: &mut Package<'_>) -> Result<HashMap<String, Style>, ParseError> {
    let mut styles: HashMap<String, Style> = HashMap::new();
    let Some(text) = package.text("word/styles.xml")? else { return Ok(styles) };
    let mut id = String::new();
    let mut own = Style::default();
    package.walk(&text, &mut |event| match event {
        Event::Open(e) => match e.name() {
            "style" => (id, own) = (e.attr("styleId").unwrap_or_default(), Style::default()),
            "name" => {
                let name = e.attr("val").unwrap_or_default().to_lowercase();
                own.level = match name.strip_prefix("heading ") {
                    Some(level) => level.trim().parse().ok(),
                    None if name == "title" => Some(1),
                    None => None,
                };
                own.code =
                    ["code", "source", "preformatted", "macro"].iter().any(|w| name.contains(w));
            }
            "basedOn" => own.based_on = e.attr("val"),
            "outlineLvl" => own.level = outline(&e.attr("val")),
            "numId" => own.list = e.attr("val"),
            "ilvl" => own.list_level = e.attr("val").and_then(|v| v.parse().ok()),
            _ => {}
        },
        Event::Close("style") => {
            styles.insert(std::mem::take(&mut id), std::mem::take(&mut own));
        }
        _ => {}
    })?;
    Ok(styles)
}

/// Word counts outline levels from 0, and running text is 9.
fn outline(value: &Option<String>) -> Option<u8> {
    value.as_ref()?.parse::<u8>().ok().filter(|level| *level < 9).map(|level| level + 1)
}

/// For each list and level, whether it is numbered, and from where.
type Numbering = HashMap<(String, usize), Option<usize>>;

fn numbering(package: &mut Package<'_>) -> Result<Numbering, ParseError> {
    let mut lists = Numbering::new();
    let Some(text) = package.text("word/numbering.xml")? else { return Ok(lists) };
    let mut kinds: HashMap<String, HashMap<usize, Option<usize>>> = HashMap::new();
    let (mut kind, mut list, mut level) = (String::new(), String::new(), 0);
    package.walk(&text, &mut |event| {
        let Event::Open(e) = event else { return };
        match e.name() {
            "abstractNum" => kind = e.attr("abstractNumId").unwrap_or_default(),
            "lvl" => level = e.attr("ilvl").and_then(|v| v.parse().ok()).unwrap_or(0),
            "start" => {
                let start = e.attr("val").and_then(|v| v.parse().ok()).unwrap_or(1);
                kinds.entry(kind.clone()).or_default().insert(level, Some(start));
            }
            "numFmt" => {
                let levels = kinds.entry(kind.clone()).or_default();
                if matches!(e.attr("val").as_deref(), Some("bullet" | "none")) {
                    levels.insert(level, None);
                } else {
                    levels.entry(level).or_insert(Some(1));
                }
            }
            "num" => list = e.attr("numId").unwrap_or_default(),
            "abstractNumId" => {
                let levels = kinds.get(&e.attr("val").unwrap_or_default());
                for (level, start) in levels.into_iter().flatten() {
                    lists.insert((list.clone(), *level), *start);
                }
            }
            _ => {}
        }
    })?;
    Ok(lists)
}

/// A paragraph that is being read.
#[derive(Default)]
struct Paragraph {
    text: String,
    style: Option<String>,
    level: Option<u8>,
    list: Option<String>,
    list_level: Option<usize>,
}

/// A story of the document: its text, a note, a header.
struct Body<'a> {
    styles: &'a HashMap<String, Style>,
    numbering: &'a Numbering,
    writer: Writer,
    /// Open paragraphs: a box within a paragraph holds others.
    open: Vec<Paragraph>,
    /// Open tables; only the outermost is a table of the text.
    tables: usize,
    rows: Vec<String>,
    cells: Vec<String>,
    /// How deep within something that is left out.
    left_out: usize,
    in_text: bool,
    /// The list or code that the last paragraphs are part of.
    run: Option<(BlockKind, String)>,
    counters: HashMap<(String, usize), usize>,
}

impl<'a> Body<'a> {
    fn new(styles: &'a HashMap<String, Style>, numbering: &'a Numbering) -> Self {
        Body {
            styles,
            numbering,
            writer: Writer::default(),
            open: Vec::new(),
            tables: 0,
            rows: Vec::new(),
            cells: Vec::new(),
            left_out: 0,
            in_text: false,
            run: None,
            counters: HashMap::new(),
        }
    }

    fn finish(mut self, title: Option<String>) -> Parsed {
        self.end_run();
        self.writer.finish(title)
    }

    fn see(&mut self, event: Event<'_>) {
        // A fallback says again what the choice before it says.
        const LEFT_OUT: [&str; 3] = ["Fallback", "del", "moveFrom"];
        match event {
            Event::Open(e) if LEFT_OUT.contains(&e.name()) => self.left_out += 1,
            Event::Close(name) if LEFT_OUT.contains(&name) => {
                self.left_out = self.left_out.saturating_sub(1);
            }
            _ if self.left_out > 0 => {}
            Event::Open(e) => self.open(&e),
            Event::Close(name) => self.close(name),
            Event::Text(text) if self.in_text => self.push(text),
            Event::Text(_) => {}
        }
    }

    fn push(&mut self, text: &str) {
        if let Some(paragraph) = self.open.last_mut() {
            paragraph.text.push_str(text);
        }
    }

    fn open(&mut self, e: &crate::xml::Element<'_>) {
        match e.name() {
            "p" => self.open.push(Paragraph::default()),
            "t" => self.in_text = true,
            "tab" | "ptab" => self.push(" "),
            "br" | "cr" => self.push("\n"),
            "noBreakHyphen" => self.push("-"),
            "tbl" => {
                if self.tables == 0 {
                    self.end_run();
                }
                self.tables += 1;
            }
            "tc" if self.tables == 1 => self.cells.push(String::new()),
            name => {
                let value = e.attr("val");
                let Some(paragraph) = self.open.last_mut() else { return };
                match name {
                    "pStyle" => paragraph.style = value,
                    "outlineLvl" => paragraph.level = outline(&value),
                    "numId" => paragraph.list = value,
                    "ilvl" => paragraph.list_level = value.and_then(|v| v.parse().ok()),
                    // A ticked or empty box.
                    "checked" if !paragraph.text.starts_with(['☐', '☒']) => {
                        let on = !matches!(value.as_deref(), Some("0" | "false"));
                        paragraph.text.insert_str(0, if on { "☒ " } else { "☐ " });
                    }
                    _ => {}
                }
            }
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "t" => self.in_text = false,
            "p" => {
                if let Some(paragraph) = self.open.pop() {
                    self.paragraph(paragraph);
                }
            }
            "tr" if self.tables == 1 => {
                let row = row(std::mem::take(&mut self.cells));
                if !row.is_empty() {
                    self.rows.push(row);
                }
            }
            "tbl" => {
                self.tables = self.tables.saturating_sub(1);
                if self.tables == 0 {
                    let rows = std::mem::take(&mut self.rows).join("\n");
                    self.writer.block(BlockKind::Table, &rows);
                }
            }
            _ => {}
        }
    }

    fn paragraph(&mut self, paragraph: Paragraph) {
        let text = paragraph.text.trim();
        if self.tables > 0 {
            match self.cells.last_mut() {
                Some(cell) => {
                    cell.push(' ');
                    cell.push_str(text);
                }
                None => self.cells.push(text.to_owned()),
            }
            return;
        }
        if text.is_empty() {
            return;
        }
        let style = self.style(&paragraph);
        if let Some(level) = style.level {
            self.end_run();
            self.writer.heading(level, text);
        } else if let Some(list) = style.list {
            let level = style.list_level.unwrap_or(0);
            let line = format!("{}{}{text}", "  ".repeat(level.min(8)), self.marker(&list, level));
            self.extend_run(BlockKind::List, &line);
        } else if style.code {
            self.extend_run(BlockKind::Code, paragraph.text.trim_end());
        } else {
            self.end_run();
            self.writer.block(BlockKind::Paragraph, text);
        }
    }

    /// What the paragraph says, else its style, else those it is based on.
    fn style(&self, paragraph: &Paragraph) -> Style {
        let mut found = Style {
            level: paragraph.level,
            list: paragraph.list.clone(),
            list_level: paragraph.list_level,
            ..Style::default()
        };
        let mut next = paragraph.style.as_ref();
        // Styles that are based on each other end here.
        for _ in 0..10 {
            let Some(style) = next.and_then(|id| self.styles.get(id)) else { break };
            found.level = found.level.or(style.level);
            found.code |= style.code;
            found.list = found.list.or_else(|| style.list.clone());
            found.list_level = found.list_level.or(style.list_level);
            next = style.based_on.as_ref();
        }
        // List 0 is how a paragraph leaves the list of its style.
        found.list = found.list.filter(|list| list != "0");
        found
    }

    fn marker(&mut self, list: &str, level: usize) -> String {
        let key = (list.to_owned(), level);
        let Some(Some(start)) = self.numbering.get(&key) else { return "- ".to_owned() };
        self.counters.retain(|(other, deeper), _| other != list || *deeper <= level);
        let number = self.counters.entry(key).and_modify(|n| *n += 1).or_insert(*start);
        format!("{number}. ")
    }

    fn extend_run(&mut self, kind: BlockKind, line: &str) {
        match &mut self.run {
            Some((same, lines)) if *same == kind => {
                lines.push('\n');
                lines.push_str(line);
            }
            _ => {
                self.end_run();
                self.run = Some((kind, line.to_owned()));
            }
        }
    }

    fn end_run(&mut self) {
        if let Some((kind, lines)) = self.run.take() {
            self.writer.block(kind, &lines);
        }
    }
}
