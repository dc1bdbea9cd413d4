//! What the chunker promises, on examples and on random documents.

use std::path::{Path, PathBuf};

use assay_text::{Format, Parsed, chunk};
use proptest::prelude::*;

use super::parse;

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Roughly what a sub-word tokenizer does: more tokens for longer words.
fn pieces(text: &str) -> usize {
    text.split_whitespace().map(|w| w.chars().count().div_ceil(4)).sum()
}

#[track_caller]
fn check(source: &str, max_tokens: usize, expected: &[(&str, &str)]) {
    let parsed = parse(source.as_bytes(), Format::Markdown).unwrap();
    let chunks = chunk(&parsed, max_tokens, &words);
    let got: Vec<(String, &str)> =
        chunks.iter().map(|c| (c.heading_path.join(" > "), &parsed.text[c.span.clone()])).collect();
    let got: Vec<(&str, &str)> = got.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    assert_eq!(got, expected);
}

#[test]
fn a_chunk_per_section() {
    check(
        "# A\n\na b c d\n\n## B\n\ne f g h\n\ni j\n\n# C\n\nk l m n\n",
        8,
        &[("A", "# A\n\na b c d"), ("A > B", "## B\n\ne f g h\n\ni j"), ("C", "# C\n\nk l m n")],
    );
}

#[test]
fn small_sections_join_their_siblings_and_children_but_not_their_parents() {
    check(
        "## A\n\na\n\n## B\n\nb\n\n# C\n\nc\n",
        24,
        &[("A", "## A\n\na\n\n## B\n\nb"), ("C", "# C\n\nc")],
    );
}

#[test]
fn a_heading_without_text_goes_with_what_follows() {
    check(
        "# A\n\n## B\n\na b c d e f\n\n# C\n",
        8,
        &[("A", "# A\n\n## B\n\na b"), ("A > B", "c d e f"), ("C", "# C")],
    );
}

#[test]
fn lists_tables_and_code_stay_whole_where_they_fit() {
    check("a b c\n\n- d e\n- f g\n\nh\n", 7, &[("", "a b c"), ("", "- d e\n- f g\n\nh")]);
    check(
        "```\na b c d\ne f g h\ni j k l\n```\n",
        9,
        &[("", "```\na b c d"), ("", "e f g h\ni j k l\n```")],
    );
}

#[test]
fn a_long_paragraph_is_cut_at_sentences_then_words_then_characters() {
    check(
        "One two three. Four \"five!\" Six seven eight nine ten.",
        5,
        &[("", "One two three. Four \"five!\""), ("", "Six seven eight nine ten.")],
    );
    check("a b c d e", 2, &[("", "a b"), ("", "c d"), ("", "e")]);

    let parsed = parse("ääääääääää".as_bytes(), Format::Text).unwrap();
    let chunks = chunk(&parsed, 1, &pieces);
    let texts: Vec<&str> = chunks.iter().map(|c| &parsed.text[c.span.clone()]).collect();
    assert_eq!(texts, ["ääää", "ääää", "ää"]);
}

#[test]
fn what_does_not_fit_is_cut_into_equal_parts() {
    check("a. b. c. d. e. f. g. h. i. j.", 8, &[("", "a. b. c. d. e. f."), ("", "g. h. i. j.")]);
    check("a. b. c. d. e. f. g. h. i. j.", 9, &[("", "a. b. c. d. e. f."), ("", "g. h. i. j.")]);
}

#[test]
fn nothing_comes_from_nothing() {
    check("", 4, &[]);
    check(" \n\n ", 4, &[]);
}

#[test]
fn a_long_text_without_blocks_is_cut_in_reasonable_time() {
    let text = "lorem ipsum dolor. ".repeat(50_000);
    let parsed = parse(text.as_bytes(), Format::Text).unwrap();
    let counted = std::cell::Cell::new(0);
    let chunks = chunk(&parsed, 200, &|t: &str| {
        counted.set(counted.get() + t.len());
        words(t)
    });
    assert_eq!(chunks.len(), 758);
    // Bytes counted, not time.
    assert!(counted.get() < 20 * text.len(), "{} of {}", counted.get(), text.len());
}

fn assert_promises(parsed: &Parsed, max_tokens: usize, count: fn(&str) -> usize) {
    let chunks = chunk(parsed, max_tokens, &count);
    let mut covered = 0;
    for c in &chunks {
        assert!(c.span.start >= covered && c.span.end > c.span.start, "order");
        assert!(c.span.end <= parsed.text.len(), "bounds");
        assert!(parsed.text[covered..c.span.start].trim().is_empty(), "coverage");
        let text = &parsed.text[c.span.clone()];
        assert_eq!(text, text.trim());
        assert!(
            (count(text) <= max_tokens && text.len() <= 32 * max_tokens)
                || text.chars().count() == 1,
            "size of {text:?}"
        );
        covered = c.span.end;
    }
    assert!(parsed.text[covered..].trim().is_empty(), "coverage of the end");
}

fn assert_blocks_in_order(parsed: &Parsed) {
    let mut end = 0;
    for block in &parsed.blocks {
        assert!(block.span.start >= end && block.span.end > block.span.start);
        assert!(!parsed.text[block.span.clone()].trim().is_empty());
        end = block.span.end;
    }
    assert!(end <= parsed.text.len());
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Real documentation, and HTML pages in many encodings.
#[test]
fn real_documents_keep_the_promises() {
    for name in ["corpus-rust-book", "corpus-prometheus-docs", "docs-tika", "docs-docling"] {
        let Some(folder) = assay_testkit::dataset(name) else { continue };
        let mut files = Vec::new();
        files_below(&folder, &mut files);
        let mut parsed_files = 0;
        for file in files {
            let Some(format) =
                Format::of_path(&file).filter(|f| !f.is_risky() || *f == Format::Html)
            else {
                continue;
            };
            let Ok(parsed) = parse(&fs_err::read(&file).unwrap(), format) else { continue };
            assert_blocks_in_order(&parsed);
            assert_promises(&parsed, 200, pieces);
            assert_promises(&parsed, 17, pieces);
            parsed_files += 1;
        }
        assert!(parsed_files > 0, "{name}");
    }
}

/// Documents made of markup fragments, so that structure is hit far more often than by random bytes.
fn document() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just("# ".to_owned()),
        Just("\n\n## ".to_owned()),
        Just("\n- ".to_owned()),
        Just("\n  1. ".to_owned()),
        Just("\n| a | b |\n|---|---|\n| c | d |\n".to_owned()),
        Just("\n```\n".to_owned()),
        Just("\n\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\n---\n".to_owned()),
        Just("[^1]: note\n".to_owned()),
        Just("> ".to_owned()),
        Just("<ul><li>".to_owned()),
        Just("</li></ul><p>".to_owned()),
        Just("<table><tr><td>".to_owned()),
        Just("</table><pre> ".to_owned()),
        Just("</pre><h2>".to_owned()),
        Just("<br>".to_owned()),
        "[a-zäß。!?. ]{0,30}",
        "\\PC{0,6}",
    ];
    proptest::collection::vec(fragment, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_character_is_in_one_chunk_of_bounded_size(
        source in document(),
        max_tokens in 1usize..40,
        format in prop_oneof![
            Just(Format::Markdown), Just(Format::Html), Just(Format::Text), Just(Format::Code),
            Just(Format::Csv),
        ],
    ) {
        // A NUL is refused, and so not part of this law.
        let source = source.replace('\0', "");
        let parsed = parse(source.as_bytes(), format).unwrap();
        assert_blocks_in_order(&parsed);
        assert_promises(&parsed, max_tokens, words);
        assert_promises(&parsed, max_tokens, pieces);
        if !matches!(format, Format::Html | Format::Csv) {
            prop_assert_eq!(&parsed.text, source.strip_prefix('\u{feff}').unwrap_or(&source));
        }
    }

    #[test]
    fn the_parsers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [
            Format::Markdown, Format::Html, Format::Text, Format::Code, Format::Csv, Format::Json,
            Format::Notebook,
        ] {
            let _ = parse(&bytes, format);
        }
    }
}
