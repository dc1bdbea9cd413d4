//! PowerPoint: a page for each slide, its title as a heading, then shapes, tables, charts and notes.

use crate::docx::core_title;
use crate::package::Package;
use crate::write::{Writer, row};
use crate::xml::Event;
use crate::{BlockKind, Format, Limits, ParseError, Parsed};

pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    let mut package = Package::open(bytes, Format::Pptx.name(), limits)?;
    let main = "ppt/presentation.xml";
    let text = package.required(main)?;
    let mut ids = Vec::new();
    package.walk(&text, &mut |event| {
        if let Event::Open(e) = event
            && e.name() == "sldId"
        {
            ids.extend(e.relation());
        }
    })?;
    if ids.len() > limits.pages {
        return Err(ParseError::Limit { what: "slides", limit: limits.pages as u64 });
    }
    let relations = package.relations(main)?;
    let mut writer = Writer::default();
    for id in ids {
        writer.begin_page();
        match relations.iter().find(|r| r.id == id) {
            Some(slide) => {
                if let Err(e) = slide_page(&mut package, &slide.part, &mut writer) {
                    match e {
                        ParseError::Damaged { what, .. } => writer.fail_page(what),
                        other => return Err(other),
                    }
                }
            }
            None => writer.fail_page("the slide is missing"),
        }
        writer.end_page();
    }
    let title = core_title(&mut package)?.filter(|t| t != "PowerPoint Presentation");
    Ok(writer.finish(title))
}

fn slide_page(
    package: &mut Package<'_>,
    part: &str,
    writer: &mut Writer,
) -> Result<(), ParseError> {
    let missing =
        || ParseError::Damaged { format: Format::Pptx.name(), what: format!("{part} is missing") };
    let text = package.text(part)?.ok_or_else(missing)?;
    write_slide(package, &text, writer)?;
    for relation in package.relations(part)? {
        let Some(text) = (match relation.kind.as_str() {
            "notesSlide" | "chart" | "comments" | "diagramData" => package.text(&relation.part)?,
            _ => None,
        }) else {
            continue;
        };
        match relation.kind.as_str() {
            "chart" => writer.block(BlockKind::Table, &chart(package, &text)?),
            "comments" => writer.block(BlockKind::Other, &comments(package, &text)?),
            _ => write_slide(package, &text, writer)?,
        }
    }
    Ok(())
}

/// A shape that is being read.
#[derive(Default)]
struct Shape {
    placeholder: Option<String>,
    /// Whether it is one of a list, and the text.
    lines: Vec<(bool, String)>,
}

fn write_slide(package: &Package<'_>, text: &str, writer: &mut Writer) -> Result<(), ParseError> {
    let mut shapes: Vec<Shape> = Vec::new();
    let mut line: Option<(bool, String)> = None;
    let (mut rows, mut cells): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut in_table = false;
    let mut in_text = false;
    let mut left_out = 0usize;
    package.walk(text, &mut |event| match event {
        Event::Open(e) if e.name() == "Fallback" => left_out += 1,
        Event::Close("Fallback") => left_out = left_out.saturating_sub(1),
        _ if left_out > 0 => {}
        Event::Open(e) => match e.name() {
            // In diagrams, a point is what holds text.
            "sp" | "pt" => shapes.push(Shape::default()),
            "ph" => {
                if let Some(shape) = shapes.last_mut() {
                    shape.placeholder = Some(e.attr("type").unwrap_or_else(|| "body".to_owned()));
                }
            }
            "tbl" => in_table = true,
            "tc" => cells.push(String::new()),
            "p" => line = Some((false, String::new())),
            "pPr" => {
                let deeper = e.attr("lvl").is_some_and(|level| level != "0");
                line.iter_mut().for_each(|l| l.0 |= deeper);
            }
            "buChar" | "buAutoNum" => line.iter_mut().for_each(|l| l.0 = true),
            "t" => in_text = true,
            "br" => line.iter_mut().for_each(|l| l.1.push('\n')),
            "tab" => line.iter_mut().for_each(|l| l.1.push(' ')),
            _ => {}
        },
        Event::Text(text) if in_text => line.iter_mut().for_each(|l| l.1.push_str(text)),
        Event::Text(_) => {}
        Event::Close(name) => match name {
            "t" => in_text = false,
            "p" => {
                if let Some((item, text)) = line.take() {
                    if in_table {
                        if let Some(cell) = cells.last_mut() {
                            cell.push_str(&text);
                            cell.push(' ');
                        }
                    } else if let Some(shape) = shapes.last_mut() {
                        shape.lines.push((item, text));
                    } else {
                        writer.block(BlockKind::Paragraph, &text);
                    }
                }
            }
            "tr" => rows.push(row(std::mem::take(&mut cells))),
            "tbl" => {
                in_table = false;
                let rows = std::mem::take(&mut rows);
                writer.block(BlockKind::Table, &rows.join("\n"));
            }
            "sp" | "pt" => {
                if let Some(shape) = shapes.pop() {
                    write_shape(&shape, writer);
                }
            }
            _ => {}
        },
    })
}

fn write_shape(shape: &Shape, writer: &mut Writer) {
    let kind = shape.placeholder.as_deref();
    if kind == Some("sldNum") {
        return;
    }
    let lines = shape.lines.iter().filter(|(_, text)| !text.trim().is_empty());
    let lines: Vec<String> = lines
        .map(|(item, text)| {
            let text = text.trim();
            if *item { format!("- {text}") } else { text.to_owned() }
        })
        .collect();
    let text = lines.join("\n");
    match kind {
        Some("title" | "ctrTitle") if text.len() <= 300 => writer.heading(1, &text),
        _ if shape.lines.iter().any(|(item, _)| *item) => writer.block(BlockKind::List, &text),
        _ => writer.block(BlockKind::Paragraph, &text),
    }
}

/// Title, and a row for each category with the value of each series.
fn chart(package: &Package<'_>, text: &str) -> Result<String, ParseError> {
    let mut title = String::new();
    let mut names: Vec<String> = Vec::new();
    let mut categories: Vec<String> = Vec::new();
    let mut values: Vec<Vec<String>> = Vec::new();
    let mut within: Vec<String> = Vec::new();
    package.walk(text, &mut |event| match event {
        Event::Open(e) => {
            if e.name() == "ser" {
                names.push(String::new());
                values.push(Vec::new());
            }
            within.push(e.name().to_owned());
        }
        Event::Close(_) => {
            within.pop();
        }
        Event::Text(text) => {
            let inside = |name: &str| within.iter().any(|w| w == name);
            match within.last().map(String::as_str) {
                Some("t") if inside("title") => title.push_str(text),
                Some("v") if inside("cat") && names.len() == 1 => categories.push(text.to_owned()),
                Some("v") if inside("val") || inside("yVal") => {
                    values.last_mut().into_iter().for_each(|v| v.push(text.to_owned()));
                }
                Some("v") if inside("tx") => {
                    names.last_mut().into_iter().for_each(|n| n.push_str(text));
                }
                _ => {}
            }
        }
    })?;
    let mut lines = vec![title];
    lines.push(row(std::iter::once(&String::new()).chain(&names)));
    for i in 0..values.iter().map(Vec::len).max().unwrap_or(0) {
        let at = |column: &Vec<String>| column.get(i).cloned().unwrap_or_default();
        lines.push(row(std::iter::once(at(&categories)).chain(values.iter().map(at))));
    }
    lines.retain(|line| !line.is_empty());
    Ok(lines.join("\n"))
}

fn comments(package: &Package<'_>, text: &str) -> Result<String, ParseError> {
    let mut lines = Vec::new();
    let mut inside = false;
    package.walk(text, &mut |event| match event {
        Event::Open(e) => inside = matches!(e.name(), "text" | "t"),
        Event::Close(_) => inside = false,
        Event::Text(text) if inside => lines.push(text.trim().to_owned()),
        Event::Text(_) => {}
    })?;
    Ok(lines.join("\n"))
}
