//! Jupyter notebooks: Markdown cells as Markdown, code cells and what they print as code.

use serde::Deserialize;

use crate::write::Writer;
use crate::{BlockKind, ParseError, Parsed, markdown};

#[derive(Deserialize)]
struct Notebook {
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Cell {
    cell_type: String,
    #[serde(default)]
    source: Lines,
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    /// Of a stream.
    #[serde(default)]
    text: Lines,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default, rename = "text/plain")]
    plain: Lines,
}

/// A text, or its lines with their ends.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lines {
    One(String),
    Many(Vec<String>),
}

impl Default for Lines {
    fn default() -> Self {
        Lines::Many(Vec::new())
    }
}

impl Lines {
    fn text(&self) -> String {
        match self {
            Lines::One(text) => text.clone(),
            Lines::Many(lines) => lines.concat(),
        }
    }
}

pub(crate) fn parse(source: &str) -> Result<Parsed, ParseError> {
    let notebook: Notebook = serde_json::from_str(source)
        .map_err(|e| ParseError::Damaged { format: "notebook", what: e.to_string() })?;
    let mut writer = Writer::default();
    for cell in notebook.cells {
        let text = cell.source.text();
        match cell.cell_type.as_str() {
            "markdown" => writer.document(&markdown::parse(&text)),
            "code" => writer.block(BlockKind::Code, &text),
            _ => writer.block(BlockKind::Other, &text),
        }
        for output in cell.outputs {
            writer.block(BlockKind::Code, &output.text.text());
            writer.block(BlockKind::Code, &output.data.plain.text());
        }
    }
    Ok(writer.finish(None))
}
