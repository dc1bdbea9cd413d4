//! HTML: the readable text, written out with its blocks.
//!
//! Scripts, styles, navigation and hidden elements are left out. Lists become lines with `-` or a
//! number, tables become lines with ` | ` between cells, preformatted text stays as it is, other white
//! space is collapsed as browsers do.

use scraper::{ElementRef, Html, Node, Selector};

use crate::{Block, BlockKind, Parsed};

/// Elements whose content is not shown, or is not part of the text.
const LEFT_OUT: &[&str] =
    &["head", "script", "style", "template", "noscript", "svg", "iframe", "nav", "object"];

/// Elements that flow within a line; every other element ends the line before and after it.
const INLINE: &[&str] = &[
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "button", "cite", "code", "data", "del",
    "dfn", "em", "font", "i", "img", "input", "ins", "kbd", "label", "mark", "q", "s", "samp",
    "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
];

pub(crate) fn parse(source: &str) -> Parsed {
    let html = Html::parse_document(source);
    let mut writer = Writer::default();
    // Without recursion: hostile nesting must not exhaust the stack.
    let root = html.tree.root();
    let mut node = root;
    'walk: loop {
        if writer.open(node.value())
            && let Some(child) = node.first_child()
        {
            node = child;
            continue;
        }
        loop {
            writer.close(node.value());
            if node == root {
                break 'walk;
            }
            if let Some(next) = node.next_sibling() {
                node = next;
                continue 'walk;
            }
            match node.parent() {
                Some(parent) => node = parent,
                None => break 'walk,
            }
        }
    }
    writer.end_block();
    let heading = writer.blocks.iter().find_map(|b| match &b.kind {
        BlockKind::Heading { level: 1, text } => Some(text.clone()),
        _ => None,
    });
    Parsed {
        title: title(&html).or(heading),
        text: writer.text,
        blocks: writer.blocks,
        ..Parsed::default()
    }
}

fn title(html: &Html) -> Option<String> {
    let selector = Selector::parse("head > title").ok()?;
    let text: String = html.select(&selector).next().map(|e: ElementRef<'_>| e.text().collect())?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

#[derive(Default)]
struct Writer {
    text: String,
    blocks: Vec<Block>,
    /// Start of the block being written, once it has a character.
    start: Option<usize>,
    /// What it is, if not a paragraph.
    kind: Option<BlockKind>,
    /// Open lists and tables; the outermost one is the block.
    containers: usize,
    /// For each open list, the number of its next item if it is ordered.
    lists: Vec<Option<usize>>,
    pre: usize,
    /// The next cell is the first of its row.
    row_begins: bool,
    /// What goes before the next character.
    pending: Pending,
    /// Marker of the list item that has just begun.
    marker: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Pending {
    #[default]
    Nothing,
    Space,
    Cell,
    Line,
}

impl Writer {
    /// Begins an element or writes a text; whether to go into its children.
    fn open(&mut self, node: &Node) -> bool {
        match node {
            Node::Text(text) => {
                self.write(text);
                false
            }
            Node::Element(element) => {
                let name = element.name();
                if LEFT_OUT.contains(&name) || element.attr("hidden").is_some() {
                    return false;
                }
                self.open_element(name);
                true
            }
            _ => true,
        }
    }

    fn open_element(&mut self, name: &str) {
        match name {
            "br" => self.pend(Pending::Line),
            "tr" => {
                self.break_line();
                self.row_begins = true;
            }
            // Paragraphs within cells do not move a cell to a line of its own.
            "td" | "th" if !std::mem::take(&mut self.row_begins) => self.pending = Pending::Cell,
            "td" | "th" => {}
            "pre" | "textarea" => {
                self.break_line();
                self.pre += 1;
                self.set_kind(BlockKind::Code);
            }
            "ul" | "ol" | "menu" | "dl" => {
                self.break_line();
                self.set_kind(BlockKind::List);
                self.containers += 1;
                self.lists.push((name == "ol").then_some(1));
            }
            "table" => {
                self.break_line();
                self.set_kind(BlockKind::Table);
                self.containers += 1;
            }
            "li" => {
                self.break_line();
                let indent = "  ".repeat(self.lists.len().saturating_sub(1).min(8));
                self.marker = Some(match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{indent}{}. ", *number - 1)
                    }
                    _ => format!("{indent}- "),
                });
            }
            _ if INLINE.contains(&name) => {}
            _ => {
                self.break_line();
                if let Some(level) = heading_level(name) {
                    self.set_kind(BlockKind::Heading { level, text: String::new() });
                }
            }
        }
    }

    fn close(&mut self, node: &Node) {
        let Node::Element(element) = node else { return };
        let name = element.name();
        if LEFT_OUT.contains(&name) || element.attr("hidden").is_some() {
            return;
        }
        match name {
            "br" | "td" | "th" => {}
            "pre" | "textarea" => {
                self.pre = self.pre.saturating_sub(1);
                self.break_line();
            }
            "ul" | "ol" | "menu" | "dl" | "table" => {
                if name != "table" {
                    self.lists.pop();
                }
                self.pending = self.pending.min(Pending::Space);
                self.containers = self.containers.saturating_sub(1);
                self.marker = None;
                self.break_line();
            }
            _ if INLINE.contains(&name) => {}
            _ => self.break_line(),
        }
    }

    /// The next block is of this kind, unless a list or table holds it.
    fn set_kind(&mut self, kind: BlockKind) {
        if self.containers == 0 && self.start.is_none() {
            self.kind = Some(kind);
        }
    }

    fn pend(&mut self, pending: Pending) {
        self.pending = self.pending.max(pending);
    }

    /// Ends the line inside a list or table, the block elsewhere.
    fn break_line(&mut self) {
        match self.pending {
            Pending::Cell => {}
            _ if self.containers > 0 => self.pend(Pending::Line),
            _ => self.end_block(),
        }
    }

    fn end_block(&mut self) {
        self.pending = Pending::Nothing;
        let kind = self.kind.take();
        let Some(start) = self.start.take() else { return };
        self.text.truncate(self.text.trim_end().len());
        if self.text.len() <= start {
            return;
        }
        let kind = match kind {
            Some(BlockKind::Heading { level, .. }) => BlockKind::Heading {
                level,
                text: self.text[start..].split_whitespace().collect::<Vec<_>>().join(" "),
            },
            Some(kind) => kind,
            None => BlockKind::Paragraph,
        };
        self.blocks.push(Block { kind, span: start..self.text.len() });
    }

    fn write(&mut self, text: &str) {
        if self.pre > 0 {
            if self.start.is_some() || !text.trim().is_empty() {
                self.begin();
                self.text.push_str(text);
            }
            return;
        }
        for c in text.chars() {
            if c.is_whitespace() {
                self.pend(Pending::Space);
            } else {
                self.begin();
                self.text.push(c);
            }
        }
    }

    /// Writes what stands between the previous character and the next.
    fn begin(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if self.start.is_none() {
            if !self.text.is_empty() {
                self.text.push_str("\n\n");
            }
            self.start = Some(self.text.len());
        } else {
            match pending {
                Pending::Nothing => {}
                Pending::Space => self.text.push(' '),
                Pending::Cell => self.text.push_str(" | "),
                Pending::Line => self.text.push('\n'),
            }
        }
        if let Some(marker) = self.marker.take() {
            self.text.push_str(&marker);
        }
    }
}

fn heading_level(name: &str) -> Option<u8> {
    match name.as_bytes() {
        [b'h', digit @ b'1'..=b'6'] => Some(digit - b'0'),
        _ => None,
    }
}
