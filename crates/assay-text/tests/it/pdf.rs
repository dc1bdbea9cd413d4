//! PDF, written here by hand so that what stands on a page is known.

use assay_text::{Format, Limits, ParseError, chunk};

use super::{blocks, pages, parse};

/// A PDF with a page for each content stream, and Helvetica as /F.
fn pdf(streams: &[&str]) -> Vec<u8> {
    let kids: Vec<String> = (0..streams.len()).map(|i| format!("{} 0 R", 4 + 2 * i)).collect();
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        format!("<</Type/Pages/Kids[{}]/Count {}>>", kids.join(" "), kids.len()),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    for (i, stream) in streams.iter().enumerate() {
        objects.push(format!(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>\
             /Contents {} 0 R>>",
            5 + 2 * i
        ));
        objects.push(format!("<</Length {}>>\nstream\n{stream}\nendstream", stream.len()));
    }
    let mut file = "%PDF-1.4\n".to_owned();
    let mut offsets = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        offsets.push(file.len());
        file.push_str(&format!("{} 0 obj\n{object}\nendobj\n", i + 1));
    }
    let start = file.len();
    file.push_str(&format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1));
    for offset in offsets {
        file.push_str(&format!("{offset:010} 00000 n \n"));
    }
    file.push_str(&format!(
        "trailer<</Size {}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n",
        objects.len() + 1
    ));
    file.into_bytes()
}

fn at(x: u32, y: u32, size: u32, text: &str) -> String {
    format!("BT /F {size} Tf {x} {y} Td ({text}) Tj ET\n")
}

#[test]
fn pages_headings_paragraphs_and_tables() {
    let first = [
        at(50, 750, 20, "A heading"),
        at(50, 700, 10, "Running text that goes on to the sec-"),
        at(50, 688, 10, "tion after it."),
        at(50, 640, 10, "Another paragraph."),
        at(50, 600, 10, "name"),
        at(200, 600, 10, "price"),
        at(50, 588, 10, "Orla"),
        at(200, 588, 10, "41"),
    ]
    .concat();
    let third = at(50, 700, 10, "The last page.");
    let parsed = parse(&pdf(&[&first, "", &third]), Format::Pdf).unwrap();
    assert_eq!(
        blocks(&parsed),
        [
            "h1 A heading: A heading",
            "paragraph: Running text that goes on to the section after it.",
            "paragraph: Another paragraph.",
            "table: name | price\nOrla | 41",
            "paragraph: The last page.",
        ]
    );
    assert_eq!(parsed.pages.len(), 3);
    assert_eq!(pages(&parsed)[1..], ["", "The last page."]);
    assert_eq!(parsed.notes, ["1 of 3 pages have no text layer: scans need OCR"]);
    assert_eq!(parsed.title.as_deref(), Some("A heading"));

    // Chunks know their pages.
    let words = |text: &str| text.split_whitespace().count();
    let all = chunk(&parsed, 100, &words);
    assert_eq!(all.last().unwrap().pages, Some(1..=3));
    let small = chunk(&parsed, 4, &words);
    assert_eq!(small.first().unwrap().pages, Some(1..=1));
    assert_eq!(small.last().unwrap().pages, Some(3..=3));
}

#[test]
fn spaces_are_gaps_and_rotated_text_is_read() {
    let stream = "BT /F 10 Tf 50 700 Td [(two) -400 (words)] TJ ET\n\
                  BT /F 10 Tf 0 1 -1 0 300 300 Tm (turned) Tj ET\n";
    let parsed = parse(&pdf(&[stream]), Format::Pdf).unwrap();
    assert_eq!(blocks(&parsed), ["paragraph: two words", "paragraph: turned"]);
}

#[test]
fn bold_by_overprinting_is_read_once() {
    let stream =
        [at(50, 700, 10, "bold"), "BT /F 10 Tf 50.2 700 Td (bold) Tj ET".to_owned()].concat();
    let parsed = parse(&pdf(&[&stream]), Format::Pdf).unwrap();
    assert_eq!(parsed.text, "bold");
}

#[test]
fn damage_and_limits_are_named() {
    let whole = pdf(&[&at(50, 700, 10, "text")]);
    let error = parse(b"%PDF-1.7 and nothing else", Format::Pdf).unwrap_err();
    assert_eq!(error.to_string(), "damaged PDF file: no page tree could be read");
    let one = Limits { pages: 1, ..Limits::default() };
    let error = assay_text::parse(&pdf(&["", ""]), Format::Pdf, &one).unwrap_err();
    assert_eq!(error, ParseError::Limit { what: "pages", limit: 1 });
    // Every truncation gives a text or an error.
    for length in 0..whole.len() {
        let _ = parse(&whole[..length], Format::Pdf);
    }
}
