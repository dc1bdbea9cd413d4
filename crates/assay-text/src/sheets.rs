//! Spreadsheets: a page for each sheet, its name as a heading, rows as lines with ` | ` between cells.
//!
//! Cells show their values, not their formulas; dates are written as ISO 8601. Rows and columns without a
//! value leave no trace.

use std::collections::BTreeSet;
use std::io::Cursor;

use calamine::{
    Data, DataType as _, Ods, OdsError, Reader, Sheet, SheetType, Xls, XlsError, Xlsb, XlsbError,
    Xlsx, XlsxError,
};

use crate::package::Package;
use crate::write::{Writer, row};
use crate::{BlockKind, Format, Limits, ParseError, Parsed};

/// A cell with a value: row, column.
type Cell = (u32, u32, String);

pub(crate) fn parse(bytes: &[u8], format: Format, limits: &Limits) -> Result<Parsed, ParseError> {
    let damaged = |e: &dyn std::fmt::Display| ParseError::Damaged {
        format: format.name(),
        what: e.to_string(),
    };
    let source = Cursor::new(bytes);
    match format {
        Format::Xls => {
            let book = Xls::new(source).map_err(|e| match e {
                XlsError::Password => ParseError::Password,
                e => damaged(&e),
            })?;
            write(book, limits, |book, sheet| {
                book.worksheet_range(sheet).map(cells).map_err(|e| e.to_string())
            })
        }
        Format::Xlsb => {
            expands_within(bytes, format, limits)?;
            let book = Xlsb::new(source).map_err(|e| match e {
                XlsbError::Password => ParseError::Password,
                e => damaged(&e),
            })?;
            write(book, limits, |book, sheet| {
                book.worksheet_range(sheet).map(cells).map_err(|e| e.to_string())
            })
        }
        Format::Ods => {
            expands_within(bytes, format, limits)?;
            let book = Ods::new(source).map_err(|e| match e {
                OdsError::Password => ParseError::Password,
                e => damaged(&e),
            })?;
            write(book, limits, |book, sheet| {
                book.worksheet_range(sheet).map(cells).map_err(|e| e.to_string())
            })
        }
        _ => {
            expands_within(bytes, format, limits)?;
            let book = Xlsx::new(source).map_err(|e| match e {
                XlsxError::Password => ParseError::Password,
                e => damaged(&e),
            })?;
            // Cell by cell: a sheet with one value in its last row is small, its range is not.
            write(book, limits, |book, sheet| {
                let mut read = || -> Result<Vec<Cell>, XlsxError> {
                    let mut found = Vec::new();
                    let mut reader = book.worksheet_cells_reader(sheet)?;
                    while let Some(cell) = reader.next_cell()? {
                        let (row, column) = cell.get_position();
                        let value = show(&Data::from(cell.get_value().clone()));
                        if !value.is_empty() {
                            found.push((row, column, value));
                        }
                    }
                    Ok(found)
                };
                read().map_err(|e| e.to_string())
            })
        }
    }
}

/// The library reads the parts itself, so they are measured before.
fn expands_within(bytes: &[u8], format: Format, limits: &Limits) -> Result<(), ParseError> {
    let mut package = Package::open(bytes, format.name(), limits)?;
    for name in package.names() {
        package.part(&name)?;
    }
    Ok(())
}

fn write<R: Reader<Cursor<B>>, B>(
    mut book: R,
    limits: &Limits,
    mut read: impl FnMut(&mut R, &str) -> Result<Vec<Cell>, String>,
) -> Result<Parsed, ParseError>
where
    Cursor<B>: std::io::Read + std::io::Seek,
{
    let sheets = book.sheets_metadata().to_vec();
    if sheets.len() > limits.pages {
        return Err(ParseError::Limit { what: "sheets", limit: limits.pages as u64 });
    }
    let mut writer = Writer::default();
    for Sheet { name, typ, .. } in sheets {
        writer.begin_page();
        // Sheets of other kinds hold a chart or a program.
        let cells =
            if typ == SheetType::WorkSheet { read(&mut book, &name) } else { Ok(Vec::new()) };
        match cells {
            Ok(cells) if cells.is_empty() => {}
            Ok(cells) => {
                writer.heading(2, &name);
                writer.block(BlockKind::Table, &rows(cells));
            }
            Err(reason) => writer.fail_page(reason),
        }
        writer.end_page();
    }
    let mut parsed = writer.finish(None);
    // The name of the first sheet is not that of the document.
    parsed.title = None;
    Ok(parsed)
}

fn cells(range: calamine::Range<Data>) -> Vec<Cell> {
    let (top, left) = range.start().unwrap_or_default();
    range
        .used_cells()
        .map(|(row, column, value)| (top + row as u32, left + column as u32, show(value)))
        .filter(|(_, _, value)| !value.is_empty())
        .collect()
}

/// One line for each row that has a value, one cell for each column that has one.
fn rows(mut cells: Vec<Cell>) -> String {
    cells.sort_by_key(|(row, column, _)| (*row, *column));
    let columns: BTreeSet<u32> = cells.iter().map(|(_, column, _)| *column).collect();
    let columns: Vec<u32> = columns.into_iter().collect();
    let mut lines = Vec::new();
    for line in cells.chunk_by(|a, b| a.0 == b.0) {
        let mut values = Vec::new();
        for (_, column, value) in line {
            let at = columns.partition_point(|c| c < column);
            values.resize(at.max(values.len()), "");
            values.push(value.as_str());
        }
        lines.push(row(values));
    }
    lines.join("\n")
}

fn show(value: &Data) -> String {
    match value {
        Data::DateTime(at) if !at.is_duration() => {
            let (year, month, day, hour, minute, second, _) = at.to_ymd_hms_milli();
            let date = format!("{year:04}-{month:02}-{day:02}");
            let time = format!("{hour:02}:{minute:02}:{second:02}");
            match at.as_f64() {
                // Excel's day 0 is the time of no day.
                days if days < 1.0 => time,
                days if days.fract() == 0.0 => date,
                _ => format!("{date} {time}"),
            }
        }
        Data::DateTime(at) => {
            let seconds = (at.as_f64() * 86_400.0).round() as i64;
            format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
        Data::Bool(true) => "TRUE".to_owned(),
        Data::Bool(false) => "FALSE".to_owned(),
        other if other.is_empty() => String::new(),
        other => other.to_string().trim().to_owned(),
    }
}
