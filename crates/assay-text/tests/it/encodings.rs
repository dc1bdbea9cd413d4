//! From bytes to text.

use assay_text::{Format, ParseError};

use super::parse;

#[track_caller]
fn check(bytes: &[u8], format: Format, text: &str, note: Option<&str>) {
    let parsed = parse(bytes, format).unwrap();
    assert_eq!(parsed.text, text);
    assert_eq!(parsed.notes.first().map(String::as_str), note);
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

#[test]
fn a_byte_order_mark_decides() {
    let text = "Grüße, 世界";
    check(format!("\u{feff}{text}").as_bytes(), Format::Text, text, None);
    let marked = format!("\u{feff}{text}");
    check(&utf16(&marked, u16::to_le_bytes), Format::Text, text, None);
    check(&utf16(&marked, u16::to_be_bytes), Format::Text, text, None);
}

#[test]
fn utf16_without_a_mark_is_noted() {
    let note = |name| format!("read as {name}, which it does not say");
    let text = "plain words";
    check(&utf16(text, u16::to_le_bytes), Format::Text, text, Some(&note("UTF-16LE")));
    check(&utf16(text, u16::to_be_bytes), Format::Text, text, Some(&note("UTF-16BE")));
}

#[test]
fn other_encodings_are_guessed_and_noted() {
    let guessed = |name| format!("read as {name}, by a guess from its letters");
    check(
        b"Das Stra\xdfencaf\xe9 \xf6ffnet",
        Format::Text,
        "Das Straßencafé öffnet",
        Some(&guessed("windows-1252")),
    );
    // "Привет, как дела" in KOI8-R.
    check(
        b"\xf0\xd2\xc9\xd7\xc5\xd4, \xcb\xc1\xcb \xc4\xc5\xcc\xc1",
        Format::Text,
        "Привет, как дела",
        Some(&guessed("KOI8-U")),
    );
}

#[test]
fn html_declares_its_encoding() {
    check(b"<meta charset=iso-8859-2><p>\xb1\xe6", Format::Html, "ąć", None);
    let declared: &[u8] =
        b"<meta http-equiv='Content-Type' content='text/html; charset=windows-1251'><p>\xc4\xe0";
    check(declared, Format::Html, "Да", None);
    // What is UTF-8 is UTF-8, whatever it says.
    check("<meta charset=iso-8859-1><p>ä".as_bytes(), Format::Html, "ä", None);
}

#[test]
fn what_an_encoding_does_not_allow_is_refused() {
    // Half a surrogate pair.
    let broken = [&b"\xff\xfea\0\0\xd8b\0"[..]].concat();
    let error = parse(&broken, Format::Text).unwrap_err();
    assert!(matches!(error, ParseError::Encoding { encoding: "UTF-16LE", .. }), "{error}");
}
