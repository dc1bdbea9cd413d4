//! Values separated by commas and the like: rows as lines with ` | ` between cells.

use crate::write::{Writer, row};
use crate::{BlockKind, Parsed};

/// Reads rows whose cells `separator` separates, else the one of `,;\t|` that cuts the first rows best.
pub(crate) fn parse(source: &str, separator: Option<u8>) -> Parsed {
    let separator = separator.unwrap_or_else(|| guess(source));
    let mut lines = String::new();
    for cells in records(source, separator) {
        let row = row(&cells);
        if !row.is_empty() {
            lines.push_str(&row);
            lines.push('\n');
        }
    }
    let mut writer = Writer::default();
    writer.block(BlockKind::Table, &lines);
    writer.finish(None)
}

fn records(source: &str, separator: u8) -> impl Iterator<Item = csv::StringRecord> {
    csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .from_reader(source.as_bytes())
        .into_records()
        // From a string in memory, with rows of any length, there is no error left.
        .map_while(Result::ok)
}

/// The separator that gives the most cells, and the same number in most of the first rows.
fn guess(source: &str) -> u8 {
    let score = |separator: u8| {
        let counts: Vec<usize> = records(source, separator).take(20).map(|r| r.len()).collect();
        let most =
            counts.iter().copied().max_by_key(|n| (counts.iter().filter(|m| *m == n).count(), *n));
        let most = most.unwrap_or(1);
        let same = counts.iter().filter(|n| **n == most).count();
        (most > 1, same, most)
    };
    // The first of equals, so that a comma wins.
    [b',', b';', b'\t', b'|'].into_iter().rev().max_by_key(|s| score(*s)).unwrap_or(b',')
}
