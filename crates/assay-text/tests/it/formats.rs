//! Which format a file has, and the formats that are text.

use std::path::Path;

use assay_text::{Detected, Format, ParseError, detect};

use super::{blocks, parse};

#[test]
fn formats_are_known_by_their_extension() {
    let format = |name: &str| Format::of_path(name.as_ref());
    assert_eq!(format("a/b.MD"), Some(Format::Markdown));
    assert_eq!(format("b.htm"), Some(Format::Html));
    assert_eq!(format("b.Txt"), Some(Format::Text));
    assert_eq!(format("b.rs"), Some(Format::Code));
    assert_eq!(format("b.jsonl"), Some(Format::Json));
    assert_eq!(format("b.xlsm"), Some(Format::Xlsx));
    assert_eq!(format("md"), None);
    assert_eq!(format("b.exe"), None);
}

#[test]
fn content_decides_over_the_extension() {
    let found = |name: &str, bytes: &[u8]| detect(Path::new(name), bytes);
    let known =
        |format, note: Option<&str>| Detected::Known { format, note: note.map(str::to_owned) };
    assert_eq!(found("a.pdf", b"%PDF-1.7"), known(Format::Pdf, None));
    assert_eq!(found("a.txt", b"%PDF-1.7"), known(Format::Pdf, Some("named *.txt, but it is PDF")));
    assert_eq!(
        found("a.doc", b"<!DOCTYPE html><p>"),
        Detected::Unread { reason: "*.doc is not read".into() }
    );
    assert_eq!(
        found("a.docx", b" <html>x"),
        known(Format::Html, Some("named *.docx, but it is HTML"))
    );
    assert_eq!(
        found("a.pdf", b"Dear reader"),
        known(Format::Text, Some("named *.pdf, but it is text"))
    );
    assert_eq!(found("a.pdf", b"\x01\x02\xff"), Detected::Broken { format: Format::Pdf });
    assert_eq!(found("a.pdf", b""), known(Format::Pdf, None));
    // The header may come late.
    assert_eq!(found("a.pdf", b"\0\xffjunk %PDF-1.4"), known(Format::Pdf, None));
    assert_eq!(found("a.md", b"About %PDF-1.4"), known(Format::Markdown, None));
    let others: [(&str, &[u8]); 4] =
        [("a.rtf", b"{\\rtf1"), ("a.md", b"\x89PNG\r\n"), ("a", b"x"), ("a.zip", b"PK\x03\x04")];
    for (name, bytes) in others {
        assert!(matches!(found(name, bytes), Detected::Unread { .. }), "{name}");
    }
}

#[test]
fn source_code_is_cut_between_functions() {
    let source = "use a;\nuse b;\n\n/// Doc.\nfn f() {\n    x();\n\n    y();\n}\n\nfn g() {}\n";
    let parsed = parse(source.as_bytes(), Format::Code).unwrap();
    assert_eq!(parsed.text, source);
    assert_eq!(
        blocks(&parsed),
        [
            "code: use a;\nuse b;",
            "code: /// Doc.\nfn f() {\n    x();\n\n    y();\n}",
            "code: fn g() {}"
        ]
    );
}

#[test]
fn separated_values_are_rows_whatever_separates_them() {
    for source in ["a,b\n1,\"x, y\"\n", "a;b\n1;x, y\n", "a\tb\n1\tx, y\n", "a|b\r\n1|x, y\r\n"] {
        let parsed = parse(source.as_bytes(), Format::Csv).unwrap();
        assert_eq!(blocks(&parsed), ["table: a | b\n1 | x, y"], "{source:?}");
    }
    // Rows of other lengths, quoted line breaks, one column.
    let parsed = parse(b"a,b\n1\n2,3,\"4\n5\"\n", Format::Csv).unwrap();
    assert_eq!(blocks(&parsed), ["table: a | b\n1\n2 | 3 | 4 5"]);
    let parsed = parse(b"name\nOrla\nBrim\n", Format::Csv).unwrap();
    assert_eq!(blocks(&parsed), ["table: name\nOrla\nBrim"]);
}

#[test]
fn json_is_written_out_value_by_value() {
    let source = br#"{"a": {"b": ["x", 1.50]}, "a": null, "t": "two\nlines \u00e9"}"#;
    let parsed = parse(source, Format::Json).unwrap();
    assert_eq!(blocks(&parsed), ["other: a.b[0]: x\na.b[1]: 1.50\na: null\nt: two\nlines é"]);
    let rows = parse(b"{\"q\": 1}\n{\"q\": 12345678901234567890123}\n", Format::Json).unwrap();
    assert_eq!(blocks(&rows), ["other: q: 1", "other: q: 12345678901234567890123"]);
    let list = parse(br#"[{"q": 1}, {"q": [true, {}]}, "s"]"#, Format::Json).unwrap();
    assert_eq!(blocks(&list), ["other: q: 1", "other: q[0]: true", "other: s"]);
}

#[test]
fn damaged_and_deep_json_is_refused() {
    for source in ["{\"a\": ", "{]", "nul", &"[".repeat(100_000)] {
        let error = parse(source.as_bytes(), Format::Json).unwrap_err();
        assert!(matches!(error, ParseError::Damaged { format: "JSON", .. }), "{error}");
    }
}

#[test]
fn notebooks_keep_prose_code_and_output() {
    let source = br##"{"cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Prose."]},
        {"cell_type": "code", "source": "1 + 1", "outputs": [
            {"output_type": "stream", "text": ["printed\n"]},
            {"output_type": "execute_result", "data": {"text/plain": ["2"], "image/png": "AAAA"}}]}
    ], "metadata": {}}"##;
    let parsed = parse(source, Format::Notebook).unwrap();
    assert_eq!(
        blocks(&parsed),
        ["h1 Title: # Title", "paragraph: Prose.", "code: 1 + 1", "code: printed", "code: 2"]
    );
    assert_eq!(parsed.title.as_deref(), Some("Title"));
}
