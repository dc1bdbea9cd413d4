//! Packages: Office, OpenDocument, EPUB.

use std::io::{Cursor, Write as _};

use assay_text::{Format, Limits, ParseError};
use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{blocks, pages, parse};

fn package(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in parts {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn relations(rows: &[(&str, &str, &str)]) -> String {
    let rows: String = rows
        .iter()
        .map(|(id, kind, target)| {
            format!(
                "<Relationship Id='{id}' Type='http://x/relationships/{kind}' Target='{target}'/>"
            )
        })
        .collect();
    format!("<Relationships>{rows}</Relationships>")
}

fn docx(body: &str) -> Vec<u8> {
    package(&[
        ("_rels/.rels", &relations(&[("r1", "officeDocument", "word/document.xml")])),
        (
            "word/_rels/document.xml.rels",
            &relations(&[
                ("r1", "footnotes", "footnotes.xml"),
                ("r2", "header", "/word/header1.xml"),
            ]),
        ),
        ("word/document.xml", &format!("<w:document><w:body>{body}</w:body></w:document>")),
        (
            "word/styles.xml",
            "<w:styles>
               <w:style w:styleId='H'><w:name w:val='heading 2'/></w:style>
               <w:style w:styleId='Own'><w:name w:val='own'/><w:basedOn w:val='H'/></w:style>
               <w:style w:styleId='Src'><w:name w:val='Source Code'/></w:style>
             </w:styles>",
        ),
        (
            "word/numbering.xml",
            "<w:numbering>
               <w:abstractNum w:abstractNumId='7'>
                 <w:lvl w:ilvl='0'><w:start w:val='3'/><w:numFmt w:val='decimal'/></w:lvl>
                 <w:lvl w:ilvl='1'><w:numFmt w:val='bullet'/></w:lvl>
               </w:abstractNum>
               <w:num w:numId='1'><w:abstractNumId w:val='7'/></w:num>
             </w:numbering>",
        ),
        (
            "word/footnotes.xml",
            "<w:footnotes><w:p><w:r><w:t>A note.</w:t></w:r></w:p></w:footnotes>",
        ),
        ("word/header1.xml", "<w:hdr><w:p><w:r><w:t>Head line</w:t></w:r></w:p></w:hdr>"),
        ("docProps/core.xml", "<p><dc:title>The &lt;title&gt;</dc:title></p>"),
    ])
}

fn p(properties: &str, text: &str) -> String {
    format!("<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>")
}

#[test]
fn word_paragraphs_lists_tables_and_notes() {
    let item = |level: u8, text| {
        p(&format!("<w:numPr><w:ilvl w:val='{level}'/><w:numId w:val='1'/></w:numPr>"), text)
    };
    let cell = |text| format!("<w:tc>{}</w:tc>", p("", text));
    let body = [
        p("<w:pStyle w:val='Own'/>", "A &amp; B"),
        "<w:p><w:r><w:t>Some</w:t><w:tab/><w:t>text</w:t></w:r>\
         <w:del><w:r><w:delText>gone</w:delText></w:r></w:del>\
         <w:r><w:br/><w:t>more&#228;</w:t></w:r></w:p>"
            .to_owned(),
        item(0, "one"),
        item(1, "in"),
        item(0, "two"),
        format!(
            "<w:tbl><w:tr>{}{}</w:tr><w:tr>{}<w:tc><w:tbl><w:tr>{}</w:tr></w:tbl></w:tc></w:tr></w:tbl>",
            cell("k"),
            cell("v"),
            cell("a"),
            cell("nested")
        ),
        p("<w:pStyle w:val='Src'/>", "let x;"),
        p("<w:pStyle w:val='Src'/>", "let y;"),
        "<mc:AlternateContent><mc:Choice><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Choice>\
         <mc:Fallback><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent>"
            .to_owned(),
    ];
    let parsed = parse(&docx(&body.concat()), Format::Docx).unwrap();
    assert_eq!(
        blocks(&parsed),
        [
            "h2 A & B: A & B",
            "paragraph: Some text\nmoreä",
            "list: 3. one\n  - in\n4. two",
            "table: k | v\na | nested",
            "code: let x;\nlet y;",
            "paragraph: box",
            "paragraph: Head line",
            "paragraph: A note.",
        ]
    );
    assert_eq!(parsed.title.as_deref(), Some("The <title>"));
    assert!(parsed.pages.is_empty());
}

#[test]
fn slides_are_pages() {
    let shape = |kind: &str, text: &str| {
        format!("<p:sp><p:nvPr><p:ph type='{kind}'/></p:nvPr><p:txBody>{text}</p:txBody></p:sp>")
    };
    let line = |text: &str| format!("<a:p><a:r><a:t>{text}</a:t></a:r></a:p>");
    let slide = |shapes: &str| format!("<p:sld>{shapes}</p:sld>");
    let bytes = package(&[
        (
            "ppt/presentation.xml",
            "<p:presentation><p:sldIdLst><p:sldId id='256' r:id='r2'/><p:sldId id='257' r:id='r1'/>\
             <p:sldId id='258' r:id='r9'/></p:sldIdLst></p:presentation>",
        ),
        (
            "ppt/_rels/presentation.xml.rels",
            &relations(&[("r1", "slide", "slides/slide1.xml"), ("r2", "slide", "slides/slide2.xml")]),
        ),
        (
            "ppt/slides/slide2.xml",
            &slide(&[
                shape("title", &line("Welcome")),
                shape("body", "<a:p><a:pPr lvl='1'/><a:r><a:t>point</a:t></a:r></a:p>"),
                shape("sldNum", &line("1")),
                "<a:tbl><a:tr><a:tc><a:p><a:r><a:t>x</a:t></a:r></a:p></a:tc><a:tc><a:p><a:r><a:t>y\
                 </a:t></a:r></a:p></a:tc></a:tr></a:tbl>"
                    .to_owned(),
            ]
            .concat()),
        ),
        ("ppt/slides/slide1.xml", &slide("")),
        ("ppt/slides/_rels/slide2.xml.rels", &relations(&[("r1", "chart", "../charts/c.xml")])),
        (
            "ppt/charts/c.xml",
            "<c:chart><c:ser><c:tx><c:v>Sold</c:v></c:tx><c:cat><c:v>May</c:v></c:cat>\
             <c:val><c:v>7</c:v></c:val></c:ser></c:chart>",
        ),
    ]);
    let parsed = parse(&bytes, Format::Pptx).unwrap();
    assert_eq!(pages(&parsed), ["Welcome\n\n- point\n\nx | y\n\n| Sold\nMay | 7", "", ""]);
    assert_eq!(parsed.failed_pages.len(), 1);
    assert_eq!(
        (parsed.failed_pages[0].page, &*parsed.failed_pages[0].reason),
        (3, "the slide is missing")
    );
    assert_eq!(parsed.title.as_deref(), Some("Welcome"));
}

#[test]
fn sheets_are_pages_of_rows() {
    let sheet = |rows: &str| format!("<worksheet><sheetData>{rows}</sheetData></worksheet>");
    let bytes = package(&[
        ("_rels/.rels", &relations(&[("r1", "officeDocument", "xl/workbook.xml")])),
        (
            "xl/workbook.xml",
            "<workbook xmlns:r='x'><sheets><sheet name='Prices' sheetId='1' r:id='r1'/>\
             <sheet name='Blank' sheetId='2' r:id='r2'/></sheets></workbook>",
        ),
        (
            "xl/_rels/workbook.xml.rels",
            &relations(&[
                ("r1", "worksheet", "worksheets/sheet1.xml"),
                ("r2", "worksheet", "worksheets/sheet2.xml"),
            ]),
        ),
        (
            "xl/worksheets/sheet1.xml",
            // The last cell of the largest sheet: cells are few, the range is not.
            &sheet(
                "<row r='1'><c r='A1' t='inlineStr'><is><t>lamp</t></is></c><c r='C1'><v>41.5</v></c></row>\
                 <row r='1048576'><c r='XFD1048576' t='b'><v>1</v></c></row>",
            ),
        ),
        ("xl/worksheets/sheet2.xml", &sheet("")),
    ]);
    let parsed = parse(&bytes, Format::Xlsx).unwrap();
    assert_eq!(pages(&parsed), ["Prices\n\nlamp | 41.5\n|  | TRUE", ""]);
    assert_eq!(parsed.title, None);
}

#[test]
fn open_document_text() {
    let bytes = package(&[
        ("mimetype", "application/vnd.oasis.opendocument.text"),
        (
            "content.xml",
            "<office:document-content><office:body><office:text>\
             <text:h text:outline-level='2'>Head</text:h>\
             <text:p>One<text:s/>two<text:note><text:note-citation>1</text:note-citation>\
             <text:note-body><text:p>Note.</text:p></text:note-body></text:note></text:p>\
             <text:list><text:list-item><text:p>a</text:p><text:list><text:list-item><text:p>b</text:p>\
             </text:list-item></text:list></text:list-item></text:list>\
             <table:table><table:table-row><table:table-cell><text:p>x</text:p></table:table-cell>\
             <table:table-cell><text:p>y</text:p></table:table-cell></table:table-row></table:table>\
             </office:text></office:body></office:document-content>",
        ),
        ("meta.xml", "<office:meta><dc:title>Named</dc:title></office:meta>"),
    ]);
    let parsed = parse(&bytes, Format::Odt).unwrap();
    assert_eq!(
        blocks(&parsed),
        [
            "h2 Head: Head",
            "paragraph: Note.",
            "paragraph: One two",
            "list: - a\n  - b",
            "table: x | y"
        ]
    );
    assert_eq!(parsed.title.as_deref(), Some("Named"));

    let locked =
        package(&[("META-INF/manifest.xml", "<m:encryption-data/>"), ("content.xml", "?")]);
    assert_eq!(parse(&locked, Format::Odt), Err(ParseError::Password));
}

#[test]
fn books_follow_their_spine() {
    let page =
        |text: &str| format!("<html><body><h1>{text}</h1><p>Text of {text}.</p></body></html>");
    let bytes = package(&[
        ("META-INF/container.xml", "<container><rootfile full-path='O/b.opf'/></container>"),
        (
            "O/b.opf",
            "<package><metadata><dc:title>Book</dc:title></metadata><manifest>\
             <item id='b' href='b%20b.xhtml'/><item id='a' href='../a.xhtml'/></manifest>\
             <spine><itemref idref='b'/><itemref idref='a'/><itemref idref='c'/></spine></package>",
        ),
        ("O/b b.xhtml", &page("B")),
        ("a.xhtml", &page("A")),
    ]);
    let parsed = parse(&bytes, Format::Epub).unwrap();
    assert_eq!(
        blocks(&parsed),
        ["h1 B: B", "paragraph: Text of B.", "h1 A: A", "paragraph: Text of A."]
    );
    assert_eq!(parsed.notes, ["c is in the spine, but not in the book"]);
    assert_eq!(parsed.title.as_deref(), Some("Book"));
}

#[test]
fn bombs_and_deep_nesting_meet_limits() {
    // 64 MiB of spaces in 64 kB.
    let bomb = docx(&" ".repeat(64 << 20));
    assert!(bomb.len() < 100_000);
    let error = parse(&bomb, Format::Docx).unwrap_err();
    assert!(matches!(error, ParseError::Limit { what: "bytes after expansion", .. }), "{error}");

    let deep = docx(&format!("{}{}", "<w:a>".repeat(1000), "</w:a>".repeat(1000)));
    let error = parse(&deep, Format::Docx).unwrap_err();
    assert_eq!(error, ParseError::Limit { what: "nested elements", limit: 512 });

    let many: Vec<(String, &str)> = (0..50).map(|i| (format!("{i}"), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let few = Limits { parts: 10, ..Limits::default() };
    let error = assay_text::parse(&package(&many), Format::Docx, &few).unwrap_err();
    assert_eq!(error, ParseError::Limit { what: "parts", limit: 10 });
}

#[test]
fn truncated_and_malformed_packages_are_named() {
    let whole = docx(&p("", "text"));
    for format in [Format::Docx, Format::Xlsx, Format::Epub] {
        let error = parse(&whole[..whole.len() - 100], format).unwrap_err();
        assert!(matches!(error, ParseError::Damaged { .. }), "{error}");
    }
    let error = parse(&docx("<w:p>"), Format::Docx).unwrap_err();
    assert!(error.to_string().starts_with("damaged DOCX file: XML at byte"), "{error}");
    // Wrong in kind, not in form.
    let error = parse(&whole, Format::Pptx).unwrap_err();
    assert_eq!(error.to_string(), "damaged PPTX file: ppt/presentation.xml is missing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The property is in what does not happen; whatever is returned is fine.
    #[test]
    fn damaged_packages_never_crash(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = docx(&p("<w:pStyle w:val='Own'/>", "text"));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        for format in [Format::Docx, Format::Pptx, Format::Xlsx, Format::Ods, Format::Odt, Format::Epub] {
            if let Ok(parsed) = parse(&bytes, format) {
                prop_assert!(parsed.pages.iter().all(|p| p.end <= parsed.text.len()));
            }
        }
    }
}
