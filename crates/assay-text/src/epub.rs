//! EPUB: the pages of HTML that make the book, in the order of its spine.

use std::collections::HashMap;

use crate::package::{Package, resolve};
use crate::write::Writer;
use crate::xml::Event;
use crate::{Format, Limits, ParseError, Parsed, encoding, html};

pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, ParseError> {
    let mut package = Package::open(bytes, Format::Epub.name(), limits)?;
    let encryption = package.text("META-INF/encryption.xml")?.unwrap_or_default();
    let container = package.required("META-INF/container.xml")?;
    let mut root = None;
    package.walk(&container, &mut |event| {
        if let Event::Open(e) = event
            && e.name() == "rootfile"
            && root.is_none()
        {
            root = e.attr("full-path");
        }
    })?;
    let missing = || ParseError::Damaged {
        format: Format::Epub.name(),
        what: "its container names no book".to_owned(),
    };
    let root = root.ok_or_else(missing)?;
    let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);

    let book = package.required(&root)?;
    let mut parts: HashMap<String, String> = HashMap::new();
    let mut spine: Vec<String> = Vec::new();
    let mut title = String::new();
    let mut in_title = false;
    package.walk(&book, &mut |event| match event {
        Event::Open(e) => {
            in_title = e.name() == "title" && title.is_empty();
            match e.name() {
                "item" => {
                    if let (Some(id), Some(href)) = (e.attr("id"), e.attr("href")) {
                        parts.insert(id, resolve(folder, &unescape(&href)));
                    }
                }
                "itemref" => spine.extend(e.attr("idref")),
                _ => {}
            }
        }
        Event::Close(_) => in_title = false,
        Event::Text(text) if in_title => title.push_str(text),
        Event::Text(_) => {}
    })?;

    let mut writer = Writer::default();
    let mut notes = Vec::new();
    for id in spine {
        let part = parts.get(&id).cloned().unwrap_or_default();
        if encryption.contains(&part) && !part.is_empty() {
            return Err(ParseError::Password);
        }
        match package.part(&part)? {
            Some(bytes) => match encoding::decode_html(&bytes) {
                Ok(decoded) => {
                    let page = decoded.parsed(html::parse);
                    writer.document(&page);
                    notes.extend(page.notes);
                }
                Err(e) => notes.push(format!("{part} was left out: {e}")),
            },
            None => notes.push(format!("{id} is in the spine, but not in the book")),
        }
    }
    let mut parsed = writer.finish(Some(title));
    parsed.notes = notes;
    Ok(parsed)
}

/// Percent-encoded bytes of a path.
fn unescape(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, others @ ..] = rest {
        let code = (*first == b'%')
            .then(|| others.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}
