//! From bytes to text, with nothing replaced.
//!
//! A byte order mark decides; else what a page of HTML declares; else UTF-8 if the bytes are; else UTF-16 if
//! every other byte is mostly zero; else a guess by the letters (chardetng, as in Firefox), which is noted.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::{ParseError, Parsed};

/// A text and how it was found.
pub(crate) struct Decoded {
    text: String,
    note: Option<String>,
}

impl Decoded {
    pub(crate) fn parsed(self, parse: impl FnOnce(&str) -> Parsed) -> Parsed {
        let mut parsed = parse(&self.text);
        parsed.notes.extend(self.note);
        parsed
    }

    pub(crate) fn try_parsed(
        self,
        parse: impl FnOnce(&str) -> Result<Parsed, ParseError>,
    ) -> Result<Parsed, ParseError> {
        let mut parsed = parse(&self.text)?;
        parsed.notes.extend(self.note);
        Ok(parsed)
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Decoded, ParseError> {
    let (text, note) = decode_as(bytes, None)?;
    match text.find('\0') {
        Some(offset) => Err(ParseError::Nul { offset }),
        None => Ok(Decoded { text, note }),
    }
}

/// As [`decode`], but HTML may name its encoding, and its parser knows what to do with a NUL.
pub(crate) fn decode_html(bytes: &[u8]) -> Result<Decoded, ParseError> {
    let (text, note) = decode_as(bytes, declared(bytes))?;
    let nul = text.bytes().filter(|b| *b == 0).count();
    match text.find('\0') {
        Some(offset) if nul > text.len() / 100 => Err(ParseError::Nul { offset }),
        _ => Ok(Decoded { text, note }),
    }
}

fn decode_as(
    bytes: &[u8],
    declared: Option<&'static Encoding>,
) -> Result<(String, Option<String>), ParseError> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return Ok((strict(&bytes[mark..], encoding, mark)?, None));
    }
    let utf8 = match std::str::from_utf8(bytes) {
        // Also where a page declares something else: Latin text is never UTF-8 by chance.
        Ok(text) if looks_utf16(bytes).is_none() => return Ok((text.to_owned(), None)),
        Ok(_) => None,
        Err(e) => Some(e.valid_up_to()),
    };
    if let Some(encoding) = looks_utf16(bytes) {
        let note = format!("read as {}, which it does not say", encoding.name());
        return Ok((strict(bytes, encoding, 0)?, Some(note)));
    }
    if let Some(encoding) = declared
        && let Ok(text) = strict(bytes, encoding, 0)
    {
        return Ok((text, None));
    }
    if let Some(offset) = utf8
        && mostly_utf8(bytes)
    {
        return Err(ParseError::NotUtf8 { offset });
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(bytes, true);
    let encoding = detector.guess(None, Utf8Detection::Deny);
    let note = format!("read as {}, by a guess from its letters", encoding.name());
    Ok((strict(bytes, encoding, 0)?, Some(note)))
}

/// Decodes all of it, or says where that fails. `before` counts bytes before the given ones.
fn strict(bytes: &[u8], encoding: &'static Encoding, before: usize) -> Result<String, ParseError> {
    if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        return Ok(text.into_owned());
    }
    if encoding == UTF_8 {
        let valid = std::str::from_utf8(bytes).err().map_or(bytes.len(), |e| e.valid_up_to());
        return Err(ParseError::NotUtf8 { offset: before + valid });
    }
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(
        decoder.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(bytes.len()),
    );
    let (_, read) = decoder.decode_to_string_without_replacement(bytes, &mut text, true);
    Err(ParseError::Encoding { encoding: encoding.name(), offset: before + read })
}

/// UTF-16 without a mark: one half of the bytes is often zero, more than once, the other never.
fn looks_utf16(bytes: &[u8]) -> Option<&'static Encoding> {
    let pairs = bytes.len() / 2;
    if pairs < 2 || bytes.len() % 2 == 1 {
        return None;
    }
    let zeros = |at: usize| bytes.iter().skip(at).step_by(2).filter(|b| **b == 0).count();
    match (zeros(0), zeros(1)) {
        (0, n) if n > 1.max(pairs / 3) => Some(UTF_16LE),
        (n, 0) if n > 1.max(pairs / 3) => Some(UTF_16BE),
        _ => None,
    }
}

/// Whether nearly all that is not ASCII is UTF-8: then the rest is damage, not another encoding.
fn mostly_utf8(bytes: &[u8]) -> bool {
    let (mut valid, mut invalid) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        invalid += chunk.invalid().len();
    }
    valid > 10 * invalid
}

/// The encoding that the first kilobyte of a page declares.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = bytes[..bytes.len().min(1024)].to_ascii_lowercase();
    let mut rest = &start[..];
    while let Some(at) = memchr::memmem::find(rest, b"charset") {
        rest = &rest[at + 7..];
        let value = rest.trim_ascii_start().strip_prefix(b"=").unwrap_or_default();
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(value);
        let end = value
            .iter()
            .position(|b| !(b.is_ascii_alphanumeric() || b"-_:".contains(b)))
            .unwrap_or(value.len());
        if let Some(encoding) = Encoding::for_label(&value[..end]) {
            return Some(encoding);
        }
    }
    None
}
