//! `cargo xtask bench documents`: what becomes of four collections of documents and one of hostile files,
//! and how like the expected text ours is where there is one.
//!
//! Both texts are lowercased and cut into words of letters and digits, so markup and layout count for
//! nothing. *Words* is the F1 of the two multisets of words; *order* is 1 − the Levenshtein distance of the
//! two sequences of words, divided by the length of the longer one.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

const FOLDERS: [&str; 5] =
    ["docs-docling", "docs-markitdown", "docs-pypdf", "docs-tika", "docs-hostile"];
/// Longer texts would take the table of distances out of proportion.
const MOST_WORDS: usize = 20_000;

pub(crate) fn documents(assay: &Path, data: &Path) -> Result<()> {
    println!(
        "| collection | files | parsed | empty | skipped | failed | pages | empty | failed | s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut likeness: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut pages = (0, 0);
    for folder in FOLDERS {
        let files = below(&data.join(folder))?;
        let began = Instant::now();
        let read = parse(assay, &files)?;
        let seconds = began.elapsed().as_secs_f64();
        let count =
            |outcome: &str| read.iter().filter(|r| r["outcome"]["outcome"] == outcome).count();
        let page = |outcome: &str| {
            let all = read.iter().filter_map(|r| r["pages"].as_array()).flatten();
            all.filter(|p| p["outcome"] == outcome).count()
        };
        println!(
            "| `{folder}` | {} | {} | {} | {} | {} | {} | {} | {} | {seconds:.1} |",
            read.len(),
            count("parsed"),
            count("empty"),
            count("skipped"),
            count("failed"),
            page("parsed"),
            page("empty"),
            page("failed"),
        );
        for (file, entry) in files.iter().zip(&read) {
            if let (Some(expected), Some(text)) = (expected(file)?, entry["text"].as_str()) {
                let format = entry["format"].as_str().unwrap_or("?").to_owned();
                likeness.entry(format).or_default().push(like(text, &expected));
            }
            if let Some(expected) = expected_pages(&data.join(folder), file)? {
                let found = entry["pages"].as_array().map_or(0, Vec::len);
                pages = (pages.0 + usize::from(found == expected), pages.1 + 1);
            }
        }
    }
    println!("\npages as `docs-pypdf/files.json` counts them: {} of {} files\n", pages.0, pages.1);
    println!("| format | files | words, median | lowest | order, median | lowest |");
    println!("|---|---|---|---|---|---|");
    for (format, pairs) in &likeness {
        let (words, order): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let ((words, least_words), (order, least_order)) = (middle(words), middle(order));
        println!(
            "| {format} | {} | {words:.3} | {least_words:.3} | {order:.3} | {least_order:.3} |",
            pairs.len()
        );
    }
    Ok(())
}

/// Documents below a folder, without what describes them.
fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs_err::read_dir(&folder)
            .with_context(|| format!("{}: set ASSAY_TEST_DATA", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "expected_outputs" {
                    folders.push(path);
                }
            } else if !name.starts_with("LICENSE")
                && !name.ends_with("README.md")
                && !name.ends_with(".expected.md")
                && name != "files.json"
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn parse(assay: &Path, files: &[PathBuf]) -> Result<Vec<Value>> {
    let mut child = Command::new(assay)
        .args(["parse", "--json"])
        .args(files)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{}", assay.display()))?;
    let out = child.stdout.take().context("no output")?;
    let lines: Vec<Value> = BufReader::new(out)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<_>>()?;
    child.wait()?;
    if lines.len() != files.len() {
        bail!("{} of {} files are accounted for", lines.len(), files.len());
    }
    Ok(lines)
}

/// The text that a file should give, if its collection has it.
fn expected(file: &Path) -> Result<Option<String>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let folder = file.parent().unwrap_or(file);
    let beside = folder.join(format!("{name}.expected.md"));
    let other = folder.join("expected_outputs").join(format!("{stem}.md"));
    let pdf = file.extension().is_some_and(|e| e == "pdf");
    for path in [Some(beside), pdf.then_some(other)].into_iter().flatten() {
        if path.is_file() {
            return Ok(Some(fs_err::read_to_string(path)?));
        }
    }
    Ok(None)
}

fn expected_pages(folder: &Path, file: &Path) -> Result<Option<usize>> {
    let list = folder.join("files.json");
    if !list.is_file() {
        return Ok(None);
    }
    let list: Value = serde_json::from_str(&fs_err::read_to_string(list)?)?;
    let name = file.strip_prefix(folder)?.to_string_lossy().into_owned();
    let rows = list["data"].as_array().context("files.json has no data")?;
    let row = rows.iter().find(|r| r["path"] == name.as_str() && r["encrypted"] == false);
    Ok(row.and_then(|r| r["pages"].as_u64()).map(|n| n as usize))
}

/// Words and order, each from 0 to 1.
fn like(ours: &str, expected: &str) -> (f64, f64) {
    let (a, b) = (words(ours), words(expected));
    if a.is_empty() || b.is_empty() {
        let same = f64::from(u8::from(a.is_empty() && b.is_empty()));
        return (same, same);
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &b {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0;
    for word in &a {
        if let Some(n @ 1..) = left.get_mut(word.as_str()) {
            *n -= 1;
            common += 1;
        }
    }
    let f1 = 2.0 * f64::from(common) / (a.len() + b.len()) as f64;
    let (a, b) = (&a[..a.len().min(MOST_WORDS)], &b[..b.len().min(MOST_WORDS)]);
    (f1, 1.0 - distance(a, b) as f64 / a.len().max(b.len()) as f64)
}

fn words(text: &str) -> Vec<String> {
    let text = text
        .replace("<!-- image -->", " ")
        .replace("&amp;", " ")
        .replace("&lt;", " ")
        .replace("&gt;", " ")
        .to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    words.map(str::to_owned).collect()
}

/// Levenshtein, by words.
fn distance(a: &[String], b: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, word) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(word != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Median and minimum.
fn middle(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    ((values[(n - 1) / 2] + values[n / 2]) / 2.0, values[0])
}
