//! Which format a file has: by its content first, then by its extension.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// How a file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// CommonMark with tables, footnotes and front matter.
    Markdown,
    /// HTML as browsers read it, whatever its errors.
    Html,
    /// Paragraphs separated by blank lines.
    Text,
    /// Source code and configuration files.
    Code,
    /// Values separated by commas, semicolons, tabs or bars.
    Csv,
    /// Values separated by tabs.
    Tsv,
    /// One JSON value, or one after the other (JSON Lines).
    Json,
    /// Jupyter notebook.
    Notebook,
    /// Portable Document Format.
    Pdf,
    /// Word, since 2007.
    Docx,
    /// PowerPoint, since 2007.
    Pptx,
    /// Excel, since 2007.
    Xlsx,
    /// Excel, binary, since 2007.
    Xlsb,
    /// Excel, until 2003.
    Xls,
    /// OpenDocument text.
    Odt,
    /// OpenDocument presentation.
    Odp,
    /// OpenDocument spreadsheet.
    Ods,
    /// Electronic book.
    Epub,
}

/// Extensions of formats that say nothing about themselves in their first bytes.
const TEXTS: &[(Format, &[&str])] = &[
    (Format::Markdown, &["md", "markdown", "mdown", "mkd"]),
    (Format::Html, &["html", "htm", "xhtml"]),
    (Format::Text, &["txt", "text", "log", "rst", "adoc", "asciidoc", "asc", "org", "tex"]),
    (Format::Csv, &["csv"]),
    (Format::Tsv, &["tsv", "tab"]),
    (Format::Json, &["json", "jsonl", "ndjson"]),
    (Format::Notebook, &["ipynb"]),
    (
        Format::Code,
        &[
            "c", "cc", "cfg", "conf", "cpp", "cs", "css", "cxx", "go", "h", "hh", "hpp", "hs",
            "ini", "java", "jl", "js", "jsx", "kt", "lua", "m", "mjs", "ml", "php", "pl", "proto",
            "ps1", "py", "r", "rb", "rs", "scala", "sh", "bash", "sql", "swift", "tf", "toml",
            "ts", "tsx", "vue", "xml", "yaml", "yml", "zig",
        ],
    ),
];

/// Extensions of formats that can be told by their content.
const BINARIES: &[(Format, &[&str])] = &[
    (Format::Pdf, &["pdf"]),
    (Format::Docx, &["docx", "docm", "dotx", "dotm"]),
    (Format::Pptx, &["pptx", "pptm", "ppsx", "ppsm", "potx"]),
    (Format::Xlsx, &["xlsx", "xlsm", "xltx", "xltm"]),
    (Format::Xlsb, &["xlsb"]),
    (Format::Xls, &["xls", "xlt"]),
    (Format::Odt, &["odt", "ott"]),
    (Format::Odp, &["odp", "otp"]),
    (Format::Ods, &["ods", "ots"]),
    (Format::Epub, &["epub"]),
];

const ZIP: &[u8] = b"PK\x03\x04";
const COMPOUND: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

impl Format {
    /// By the extension, whose case does not matter; `None` if it is of no format that is read.
    pub fn of_path(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        let known = |(_, names): &&(Format, &[&str])| names.contains(&extension.as_str());
        TEXTS.iter().chain(BINARIES).find(known).map(|(format, _)| *format)
    }

    /// As users call it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Markdown => "Markdown",
            Format::Html => "HTML",
            Format::Text => "text",
            Format::Code => "code",
            Format::Csv => "CSV",
            Format::Tsv => "TSV",
            Format::Json => "JSON",
            Format::Notebook => "notebook",
            Format::Pdf => "PDF",
            Format::Docx => "DOCX",
            Format::Pptx => "PPTX",
            Format::Xlsx => "XLSX",
            Format::Xlsb => "XLSB",
            Format::Xls => "XLS",
            Format::Odt => "ODT",
            Format::Odp => "ODP",
            Format::Ods => "ODS",
            Format::Epub => "EPUB",
        }
    }

    /// Whether a hostile file can make its parser use much memory or time, or crash.
    pub fn is_risky(self) -> bool {
        match self {
            Format::Markdown
            | Format::Text
            | Format::Code
            | Format::Csv
            | Format::Tsv
            | Format::Json
            | Format::Notebook => false,
            Format::Html
            | Format::Pdf
            | Format::Docx
            | Format::Pptx
            | Format::Xlsx
            | Format::Xlsb
            | Format::Xls
            | Format::Odt
            | Format::Odp
            | Format::Ods
            | Format::Epub => true,
        }
    }
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// It can be read.
    Known {
        /// How.
        format: Format,
        /// What a user should know: that the extension says something else.
        note: Option<String>,
    },
    /// It is of a format that is not read.
    Unread {
        /// Which, and what to do.
        reason: String,
    },
    /// It is an Office file that opens with a password only.
    Protected,
    /// Its extension names a format that it does not have, and it is no text.
    Broken {
        /// What the extension says.
        format: Format,
    },
}

/// Names the format of a file by its path and its content (all of it: some formats say it at the end).
pub fn detect(path: &Path, bytes: &[u8]) -> Detected {
    let named = Format::of_path(path);
    let known = |format: Format| {
        let note = path
            .extension()
            .filter(|_| named != Some(format))
            .map(|e| format!("named *.{}, but it is {}", e.to_string_lossy(), format.name()));
        Detected::Known { format, note }
    };
    let unread = |reason: String| Detected::Unread { reason };
    match content(bytes) {
        Content::Format(format) => return known(format),
        Content::Other(what) => return unread(what.to_owned()),
        Content::Protected => return Detected::Protected,
        Content::Text => {}
    }
    let Some(format) = named else {
        return unread(match path.extension() {
            Some(e) => format!("*.{} is not read", e.to_string_lossy()),
            None => "no extension".to_owned(),
        });
    };
    let binary = BINARIES.iter().any(|(f, _)| *f == format);
    let late_pdf = format == Format::Pdf && find(&bytes[..bytes.len().min(1024)], b"%PDF-");
    if !binary || bytes.is_empty() || late_pdf {
        Detected::Known { format, note: None }
    } else if is_html(bytes) {
        known(Format::Html)
    } else if is_text(bytes) {
        known(Format::Text)
    } else {
        Detected::Broken { format }
    }
}

enum Content {
    Format(Format),
    /// Something that is not read.
    Other(&'static str),
    Protected,
    /// Or something unknown.
    Text,
}

/// By the first bytes and what else is sure.
fn content(bytes: &[u8]) -> Content {
    const OTHERS: &[(&[u8], &str)] = &[
        (b"{\\rtf", "RTF is not read: save it as DOCX"),
        (b"\x89PNG", "an image is not read: there is no OCR"),
        (b"\xff\xd8\xff", "an image is not read: there is no OCR"),
        (b"GIF8", "an image is not read: there is no OCR"),
        (b"II*\0", "an image is not read: there is no OCR"),
        (b"MM\0*", "an image is not read: there is no OCR"),
        (b"7z\xbc\xaf\x27\x1c", "an archive is not read: unpack it"),
        (b"Rar!", "an archive is not read: unpack it"),
        (b"\x1f\x8b", "an archive is not read: unpack it"),
        (b"BZh", "an archive is not read: unpack it"),
        (b"\xfd7zXZ", "an archive is not read: unpack it"),
        (b"\x7fELF", "a program is not read"),
    ];
    if bytes.starts_with(b"%PDF") {
        return Content::Format(Format::Pdf);
    }
    if bytes.starts_with(ZIP) {
        return package(bytes);
    }
    if bytes.starts_with(COMPOUND) {
        return compound(bytes);
    }
    match OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, what)) => Content::Other(what),
        None => Content::Text,
    }
}

/// A ZIP file, by the names in it, which are not compressed.
fn package(bytes: &[u8]) -> Content {
    let named = |name: &[u8]| find(bytes, name);
    // The type of OpenDocument and EPUB comes first, and is not compressed.
    let start = &bytes[..bytes.len().min(200)];
    let typed = |kind: &[u8]| find(start, b"mimetype") && find(start, kind);
    if typed(b"application/epub+zip") || named(b"META-INF/container.xml") {
        Content::Format(Format::Epub)
    } else if typed(b"opendocument.text") {
        Content::Format(Format::Odt)
    } else if typed(b"opendocument.presentation") {
        Content::Format(Format::Odp)
    } else if typed(b"opendocument.spreadsheet") {
        Content::Format(Format::Ods)
    } else if named(b"word/document") {
        Content::Format(Format::Docx)
    } else if named(b"ppt/presentation.xml") {
        Content::Format(Format::Pptx)
    } else if named(b"xl/workbook.bin") {
        Content::Format(Format::Xlsb)
    } else if named(b"xl/workbook") || named(b"xl/worksheets/") {
        Content::Format(Format::Xlsx)
    } else if named(b"Index/Document.iwa") || named(b"index.apxl") || named(b"index.xml") {
        Content::Other("an iWork file is not read: export it as PDF")
    } else {
        Content::Other("an archive is not read: unpack it")
    }
}

/// An OLE compound file, by the names of its streams, which are UTF-16.
fn compound(bytes: &[u8]) -> Content {
    let stream = |name: &str| {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        find(bytes, &name)
    };
    if stream("EncryptedPackage") || stream("EncryptionInfo") {
        Content::Protected
    } else if stream("__properties_version1.0") {
        Content::Other("an Outlook message is not read: save it as text")
    } else if stream("WordDocument") {
        Content::Other("Word 97 files are not read: save it as DOCX")
    } else if stream("PowerPoint Document") {
        Content::Other("PowerPoint 97 files are not read: save it as PPTX")
    } else if stream("Workbook") || stream("Book") {
        Content::Format(Format::Xls)
    } else {
        Content::Other("an OLE file of unknown kind is not read")
    }
}

/// Whether a file that begins so holds others, so that only the whole tells what it is.
pub fn is_container(start: &[u8]) -> bool {
    start.starts_with(ZIP) || start.starts_with(COMPOUND)
}

fn is_html(bytes: &[u8]) -> bool {
    let start: Vec<u8> =
        bytes.trim_ascii_start().iter().take(20).map(u8::to_ascii_lowercase).collect();
    start.starts_with(b"<!doctype html") || start.starts_with(b"<html")
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()))
}

fn find(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}
