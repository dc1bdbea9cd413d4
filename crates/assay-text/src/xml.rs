//! XML as a sequence of elements and texts, by local names: prefixes differ between programs.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event as Read};

pub(crate) enum Event<'a> {
    Open(Element<'a>),
    Close(&'a str),
    Text(&'a str),
}

pub(crate) struct Element<'a>(&'a BytesStart<'a>);

impl Element<'_> {
    pub(crate) fn name(&self) -> &str {
        self.0.local_name().into_inner()
    }

    /// Value of the first attribute with this local name.
    pub(crate) fn attr(&self, name: &str) -> Option<String> {
        let mut attributes = self.0.attributes();
        let found = attributes
            .with_checks(false)
            .filter_map(Result::ok)
            .find(|a| a.key.local_name().into_inner() == name)?;
        Some(match quick_xml::escape::unescape(&found.value) {
            Ok(value) => value.into_owned(),
            Err(_) => found.value.into_owned(),
        })
    }

    /// Value of the prefixed attribute `id`, which names a relation of the part.
    pub(crate) fn relation(&self) -> Option<String> {
        let mut attributes = self.0.attributes();
        let found = attributes
            .with_checks(false)
            .filter_map(Result::ok)
            .find(|a| a.key.local_name().into_inner() == "id" && a.key.prefix().is_some())?;
        Some(found.value.into_owned())
    }
}

pub(crate) enum XmlError {
    /// Deeper than allowed.
    Depth,
    /// With where.
    Malformed(String),
}

/// Bytes of a part as text: UTF-8, or UTF-16 with a byte order mark.
pub(crate) fn decode(bytes: &[u8]) -> Result<String, String> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = rest.as_chunks::<2>().0.iter().map(|b| unit(*b)).collect();
        String::from_utf16(&units).map_err(|e| e.to_string())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => {
            let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
            Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
        }
    }
}

/// Shows all elements and texts in order; an empty element is opened and closed. Entities that only a
/// document type defines are left out: nothing can be made to expand.
pub(crate) fn walk(
    text: &str,
    max_depth: usize,
    see: &mut dyn FnMut(Event<'_>),
) -> Result<(), XmlError> {
    let mut reader = Reader::from_str(text);
    let mut depth = 0;
    loop {
        let malformed = |at: u64, e: &dyn std::fmt::Display| {
            XmlError::Malformed(format!("XML at byte {at}: {e}"))
        };
        match reader.read_event().map_err(|e| malformed(reader.error_position(), &e))? {
            Read::Start(e) => {
                depth += 1;
                if depth > max_depth {
                    return Err(XmlError::Depth);
                }
                see(Event::Open(Element(&e)));
            }
            Read::Empty(e) => {
                see(Event::Open(Element(&e)));
                see(Event::Close(e.local_name().into_inner()));
            }
            Read::End(e) => {
                depth = depth.saturating_sub(1);
                see(Event::Close(e.local_name().into_inner()));
            }
            Read::Text(e) => see(Event::Text(&e.xml10_content())),
            Read::CData(e) => see(Event::Text(&e.xml10_content())),
            Read::GeneralRef(e) => {
                let character = e.resolve_char_ref().ok().flatten();
                let named: Option<Cow<'_, str>> = match character {
                    Some(c) => Some(c.to_string().into()),
                    None => quick_xml::escape::resolve_predefined_entity(&e).map(Into::into),
                };
                if let Some(text) = named {
                    see(Event::Text(&text));
                }
            }
            Read::Eof if depth > 0 => {
                return Err(malformed(text.len() as u64, &"it ends within an element"));
            }
            Read::Eof => return Ok(()),
            Read::Comment(_) | Read::Decl(_) | Read::PI(_) | Read::DocType(_) => {}
        }
    }
}
