//! Files to rows, rows to items.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use assay_types::{Item, RowRef, Split};
use serde_json::{Map, Value};

use crate::shape::{Fault, is_preference, read_row};
use crate::{ReadError, RowError, Shape};

/// How rows are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line. Lines end in `\n` only: U+2028 is text.
    Jsonl,
    /// Comma-separated values with a header (RFC 4180).
    ///
    /// A cell that is empty is absent. Cells of list or object fields hold JSON or, for `answers` and
    /// `doc_ids`, a single value; a column `tags.type` sets the tag `type`.
    Csv,
}

impl Format {
    /// The format that a file's name tells: `.jsonl`, `.ndjson` or `.csv`.
    pub fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "csv" => Some(Format::Csv),
            _ => None,
        }
    }
}

/// A file of labelled items.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The items, in the order of the file; ids are unique.
    pub items: Vec<Item>,
    /// The split that each row names, if it names one; as long as `items`.
    pub splits: Vec<Option<Split>>,
    /// The shape of the rows.
    pub shape: Shape,
    /// BLAKE3 of the file's bytes, 64 hex digits.
    pub hash: String,
    /// Fields that stand in rows and were not read.
    pub ignored: BTreeSet<String>,
}

impl Dataset {
    /// The items whose row names `split`.
    pub fn of_split(&self, split: Split) -> Vec<Item> {
        let named = self.items.iter().zip(&self.splits).filter(|(_, s)| **s == Some(split));
        named.map(|(item, _)| item.clone()).collect()
    }
}

/// Reads a dataset. `name` is how the file is called in messages and in [`RowRef`]s; `pinned` is the
/// shape that the rows must have, else it is the one that most rows have.
///
/// # Errors
/// [`ReadError::Rows`] lists every row that cannot be used.
pub fn read(path: &Path, name: &str, pinned: Option<Shape>) -> Result<Dataset, ReadError> {
    let format =
        Format::of(path).ok_or_else(|| ReadError::UnknownFormat { path: path.to_path_buf() })?;
    parse(&fs_err::read(path)?, name, format, pinned)
}

/// [`read`] on the bytes of a file.
pub fn parse(
    bytes: &[u8],
    name: &str,
    format: Format,
    pinned: Option<Shape>,
) -> Result<Dataset, ReadError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(ReadError::Utf16 { file: name.to_owned() });
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let skipped = bytes.len() - text.len();
    let mut rows = match format {
        Format::Jsonl => jsonl_rows(text, skipped),
        Format::Csv => csv_rows(text, skipped, name)?,
    };
    let total = rows.good.len() + rows.bad.len();
    if total == 0 {
        return Err(ReadError::Empty { file: name.to_owned() });
    }
    let at = |row| RowRef { file: name.to_owned(), row };
    if let Some((row, _)) = rows.good.iter().find(|(_, r)| is_preference(r)) {
        return Err(ReadError::Preference { at: at(*row) });
    }
    let shape = pinned.or_else(|| most_common_shape(&rows.good));
    let (items, splits) = items(&mut rows, shape, pinned.is_some(), &at);
    if let (Some(shape), true) = (shape, rows.bad.is_empty()) {
        let ignored = rows.good.iter().flat_map(|(_, row)| row.keys());
        let ignored = ignored.filter(|field| !shape.reads(field)).cloned().collect();
        let hash = blake3::hash(bytes).to_hex().to_string();
        return Ok(Dataset { items, splits, shape, hash, ignored });
    }
    rows.bad.sort_by_key(|(row, _)| *row);
    let error =
        |(row, fault): (usize, Fault)| RowError { at: at(row), what: fault.what, hint: fault.hint };
    let errors = rows.bad.into_iter().map(error).collect();
    Err(ReadError::Rows { file: name.to_owned(), errors, total, shape })
}

/// The rows of a file by their numbers: those that are objects, and those that are not.
#[derive(Default)]
struct Rows {
    good: Vec<(usize, Map<String, Value>)>,
    bad: Vec<(usize, Fault)>,
}

/// The items of the good rows; rows that make none join the bad ones.
fn items(
    rows: &mut Rows,
    shape: Option<Shape>,
    pinned: bool,
    at: &impl Fn(usize) -> RowRef,
) -> (Vec<Item>, Vec<Option<Split>>) {
    let mut items: Vec<Item> = Vec::new();
    let mut splits = Vec::new();
    let mut own_ids: HashMap<String, usize> = HashMap::new();
    let mut unnamed = Vec::new();
    for (number, row) in &rows.good {
        let read =
            shape_fault(row, shape, pinned).and_then(|shape| read_row(shape, row, at(*number)));
        let read = match read {
            Ok(read) => read,
            Err(fault) => {
                rows.bad.push((*number, fault));
                continue;
            }
        };
        if !read.own_id {
            unnamed.push(items.len());
        } else if let Some(first) = own_ids.insert(read.item.id.0.clone(), *number) {
            own_ids.insert(read.item.id.0.clone(), first);
            let fault = Fault::new(format!("has the `id` of row {first}: `{}`", read.item.id));
            rows.bad.push((*number, fault.hint("give each row its own, or none")));
        }
        items.push(read.item);
        splits.push(read.split);
    }
    // Rows that say the same have the same content id; later ones get a number.
    let mut taken: BTreeSet<String> = own_ids.into_keys().collect();
    for i in unnamed {
        let base = items[i].id.0.clone();
        let mut id = base.clone();
        let mut n = 1;
        while !taken.insert(id.clone()) {
            n += 1;
            id = format!("{base}-{n}");
        }
        items[i].id.0 = id;
    }
    (items, splits)
}

/// The shape to read a row in, or why it cannot be read in the file's.
fn shape_fault(
    row: &Map<String, Value>,
    shape: Option<Shape>,
    pinned: bool,
) -> Result<Shape, Fault> {
    match (shape, Shape::of(row)) {
        (Some(shape), Some(own)) if own != shape && !(pinned && row_begins(row, shape)) => {
            let what = format!("mixed shapes: has {own}, the file has {shape}");
            Err(Fault::new(what).hint("write all rows of a file in one shape"))
        }
        (Some(shape), _) => Ok(shape),
        (None, _) => {
            let fields: Vec<_> = row.keys().take(8).map(|k| format!("`{k}`")).collect();
            let what = match fields.is_empty() {
                true => "is an empty object".to_owned(),
                false => format!("has no known shape, only {}", fields.join(", ")),
            };
            Err(Fault::new(what).hint("use `question` and `answer`, `text` and `label`, `prompt` and `completion`, `instruction` and `output`, `messages`, or `conversations`"))
        }
    }
}

fn row_begins(row: &Map<String, Value>, shape: Shape) -> bool {
    row.keys().any(|field| shape.reads(field))
}

fn most_common_shape(rows: &[(usize, Map<String, Value>)]) -> Option<Shape> {
    let mut counts: BTreeMap<Shape, usize> = BTreeMap::new();
    for shape in rows.iter().filter_map(|(_, row)| Shape::of(row)) {
        *counts.entry(shape).or_default() += 1;
    }
    // Of equally common ones the first, hence the reversal.
    counts.into_iter().rev().max_by_key(|(_, n)| *n).map(|(shape, _)| shape)
}

fn jsonl_rows(text: &[u8], skipped: usize) -> Rows {
    let mut rows = Rows::default();
    let mut offset = skipped;
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            match json_line(line, offset) {
                Ok(row) => rows.good.push((i + 1, row)),
                Err(fault) => rows.bad.push((i + 1, fault)),
            }
        }
        offset += line.len() + 1;
    }
    rows
}

fn json_line(line: &[u8], offset: usize) -> Result<Map<String, Value>, Fault> {
    let text = utf8(line, offset)?;
    match serde_json::from_str(text) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(Value::Array(_)) => Err(Fault::new("is a list, not an object")
            .hint("write one object per line, without [ and ] around them")),
        Ok(_) => Err(Fault::new("is not an object").hint("write one object per line")),
        Err(e) => {
            // The parser sees one line, so only its column says something.
            let message = e.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            let what = format!("not JSON: {message} at column {}", e.column());
            let opened = matches!(text.trim(), "{" | "[") || e.is_eof();
            let hint =
                if opened { "each object stands on one line" } else { "one JSON object per line" };
            Err(Fault::new(what).hint(hint))
        }
    }
}

fn utf8(bytes: &[u8], offset: usize) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        let what =
            format!("broken UTF-8: byte 0x{:02x} at offset {} of the file", bytes[at], offset + at);
        Fault::new(what).hint("save the file as UTF-8")
    })
}

fn csv_rows(text: &[u8], skipped: usize, name: &str) -> Result<Rows, ReadError> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text);
    let header_error = |what: String| ReadError::Header { file: name.to_owned(), what };
    let header = reader.byte_headers().map_err(|e| header_error(e.to_string()))?.clone();
    if header.is_empty() {
        return Err(ReadError::Empty { file: name.to_owned() });
    }
    let columns = columns(&header).map_err(header_error)?;
    let mut rows = Rows::default();
    // The header is record 1, as in a spreadsheet.
    for (i, record) in reader.byte_records().enumerate() {
        let row = match record {
            Ok(record) => csv_row(&columns, &record, skipped),
            Err(e) => Err(csv_fault(&e)),
        };
        match row {
            Ok(row) => rows.good.push((i + 2, row)),
            Err(fault) => rows.bad.push((i + 2, fault)),
        }
    }
    Ok(rows)
}

fn columns(header: &csv::ByteRecord) -> Result<Vec<String>, String> {
    let mut columns = Vec::with_capacity(header.len());
    for cell in header {
        let column = std::str::from_utf8(cell).map_err(|_| "the header is not UTF-8")?.trim();
        if columns.iter().any(|c| c == column) {
            return Err(format!("the column `{column}` stands twice"));
        }
        columns.push(column.to_owned());
    }
    match columns.as_slice() {
        [one] if one.contains([';', '\t']) => Err(format!("there is one column, `{one}`")),
        _ => Ok(columns),
    }
}

fn csv_fault(error: &csv::Error) -> Fault {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Fault::new(format!("has {len} cells, the header has {expected_len}"))
                .hint("put cells with commas or line breaks in double quotes")
        }
        _ => Fault::new(format!("not CSV: {error}")),
    }
}

fn csv_row(
    columns: &[String],
    record: &csv::ByteRecord,
    skipped: usize,
) -> Result<Map<String, Value>, Fault> {
    let begin = record.position().map_or(0, csv::Position::byte) as usize + skipped;
    let mut row = Map::new();
    for (column, cell) in columns.iter().zip(record) {
        let text = std::str::from_utf8(cell).map_err(|e| {
            let at = e.valid_up_to();
            let what = format!(
                "broken UTF-8: byte 0x{:02x} at offset {at} of `{column}`, in the record at offset {begin} of the file",
                cell[at]
            );
            Fault::new(what).hint("save the file as UTF-8")
        })?;
        if !text.is_empty() {
            row.insert(column.clone(), csv_value(column, text)?);
        }
    }
    Ok(row)
}

/// The value of a cell: text, but for the fields that hold something else.
fn csv_value(column: &str, text: &str) -> Result<Value, Fault> {
    let json = match column {
        "answerable" => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => return Ok(Value::Bool(true)),
            "false" | "no" | "0" => return Ok(Value::Bool(false)),
            _ => false,
        },
        "messages" | "conversations" | "tags" | "slices" => true,
        "answers" | "doc_ids" => text.trim_start().starts_with('['),
        _ => false,
    };
    if !json {
        return Ok(Value::String(text.to_owned()));
    }
    serde_json::from_str(text)
        .map_err(|e| Fault::new(format!("the cell `{column}` is not JSON: {e}")))
}
