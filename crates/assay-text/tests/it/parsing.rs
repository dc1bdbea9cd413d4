//! What files become.

use assay_text::{BlockKind, Format, ParseError};

use super::parse;

/// Blocks as `kind: text` lines.
#[track_caller]
fn check(source: &str, format: Format, title: Option<&str>, expected: &[&str]) {
    let parsed = parse(source.as_bytes(), format).unwrap();
    let blocks: Vec<String> = parsed
        .blocks
        .iter()
        .map(|b| {
            let kind = match &b.kind {
                BlockKind::Heading { level, text } => format!("h{level} {text}"),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("{kind}: {}", &parsed.text[b.span.clone()])
        })
        .collect();
    assert_eq!(blocks, expected);
    assert_eq!(parsed.title.as_deref(), title);
}

#[test]
fn markdown_blocks() {
    check(
        "Intro.\n\n# The *big* `one`\n\n- a\n  - b\n- c\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n\
         ```sh\n# no heading\n\nls\n```\n\n> quoted\n> # no heading\n\nSetext\n------\nText\nmore.\n",
        Format::Markdown,
        Some("The big one"),
        &[
            "paragraph: Intro.",
            "h1 The big one: # The *big* `one`",
            "list: - a\n  - b\n- c",
            "table: | x | y |\n|---|---|\n| 1 | 2 |",
            "code: ```sh\n# no heading\n\nls\n```",
            "other: > quoted\n> # no heading",
            "h2 Setext: Setext\n------",
            "paragraph: Text\nmore.",
        ],
    );
}

#[test]
fn markdown_with_carriage_returns_and_a_byte_order_mark() {
    check(
        "\u{feff}# Head\r\n\r\nOne\r\ntwo.\r\n\r\n* x\r\n* y\r\n",
        Format::Markdown,
        Some("Head"),
        &["h1 Head: # Head", "paragraph: One\r\ntwo.", "list: * x\r\n* y"],
    );
}

#[test]
fn markdown_front_matter_names_the_title() {
    check(
        "---\ntitle: \"A guide\"\ntags: x\n---\n\n## First\n",
        Format::Markdown,
        Some("A guide"),
        &["other: ---\ntitle: \"A guide\"\ntags: x\n---", "h2 First: ## First"],
    );
}

#[test]
fn plain_paragraphs() {
    check(
        "\n  one\ntwo \n \n\nthree",
        Format::Text,
        None,
        &["paragraph:   one\ntwo", "paragraph: three"],
    );
}

#[test]
fn html_is_written_out() {
    check(
        "<html><head><title> The\n page </title><style>p{}</style></head><body>\
         <nav>menu</nav><h1>Top</h1><p>Some <b>bold</b>\n text&amp;more<br>next<script>x()</script></p>\
         <ul><li>one</li><li>two<ol><li>deep</li></ol></li></ul>\
         <table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td><p>b</p></td></tr></table>\
         <pre>\n  keep\n    this</pre><p hidden>no</p>tail</body></html>",
        Format::Html,
        Some("The page"),
        &[
            "h1 Top: Top",
            "paragraph: Some bold text&more\nnext",
            "list: - one\n- two\n  1. deep",
            "table: k | v\na | b",
            "code:   keep\n    this",
            "paragraph: tail",
        ],
    );
}

#[test]
fn html_without_structure_is_a_paragraph() {
    check("just text", Format::Html, None, &["paragraph: just text"]);
    check("", Format::Html, None, &[]);
    check("<p></p><ul></ul><table></table>", Format::Html, None, &[]);
}

#[test]
fn hostile_nesting_does_not_exhaust_the_stack() {
    let deep = format!("{}x{}", "<ul><li>".repeat(3_000), "</li></ul>".repeat(3_000));
    let parsed = parse(deep.as_bytes(), Format::Html).unwrap();
    assert!(parsed.text.ends_with("- x"));
    let quotes = format!("{}x", "> ".repeat(10_000));
    assert!(!parse(quotes.as_bytes(), Format::Markdown).unwrap().is_blank());
}

#[test]
fn what_is_no_text_is_refused_with_its_offset() {
    for format in [Format::Markdown, Format::Text, Format::Code] {
        assert_eq!(parse(b"ab\0cd", format), Err(ParseError::Nul { offset: 2 }));
    }
    // Nearly all of it is UTF-8, so what is not is damage.
    let damaged = ["ä".repeat(30).as_bytes(), b"\xff"].concat();
    for format in [Format::Markdown, Format::Html, Format::Text] {
        assert_eq!(parse(&damaged, format), Err(ParseError::NotUtf8 { offset: 60 }));
    }
    let error = ParseError::NotUtf8 { offset: 60 };
    assert_eq!(error.to_string(), "not UTF-8: the first invalid byte is at offset 60");
    assert!(error.hint().unwrap().contains("iconv"));
}

#[test]
fn blank_files_are_blank() {
    for bytes in [&b""[..], b"\xef\xbb\xbf", b" \r\n\t\n"] {
        for format in [Format::Markdown, Format::Html, Format::Text] {
            let parsed = parse(bytes, format).unwrap();
            assert!(parsed.is_blank() && parsed.blocks.is_empty());
        }
    }
}
