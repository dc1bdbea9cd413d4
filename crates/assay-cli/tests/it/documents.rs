//! Real and hostile documents through the binary: everything is accounted for, nothing crashes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{assay, folder, run};

/// `assay parse --json` on files.
fn parse(dir: &Path, files: &[PathBuf], more: &[&str]) -> Vec<Value> {
    let mut command = assay(dir, &["parse", "--json"]);
    let out = command.args(more).args(files).output().expect("assay starts");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), files.len(), "{}", String::from_utf8_lossy(&out.stderr));
    let failed = lines.iter().any(|l| outcome(l) == "failed");
    assert_eq!(out.status.code(), Some(i32::from(failed)));
    lines
}

fn outcome(entry: &Value) -> &str {
    entry["outcome"]["outcome"].as_str().expect("an outcome")
}

fn reason(entry: &Value) -> &str {
    entry["outcome"]["reason"].as_str().unwrap_or_default()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every file and page of a collection ends as something, and what is parsed is in chunks to the last
/// character. The counts are a snapshot: a change in them is to be looked at.
fn check(collection: &str) {
    let Some(data) = assay_testkit::dataset(collection) else { return };
    let dir = folder(&[]);
    let read = parse(dir.path(), &files_below(&data), &[]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in &read {
        *counts.entry(format!("files {}", outcome(entry))).or_default() += 1;
        for page in entry["pages"].as_array().into_iter().flatten() {
            let outcome = page["outcome"].as_str().expect("an outcome");
            *counts.entry(format!("pages {outcome}")).or_default() += 1;
        }
        match outcome(entry) {
            "parsed" => {
                let outcome = &entry["outcome"];
                assert_eq!(outcome["chars"], outcome["chars_in_chunks"], "{}", entry["path"]);
                assert!(outcome["chunks"].as_u64() > Some(0), "{}", entry["path"]);
            }
            "empty" => {}
            _ => {
                assert!(!reason(entry).is_empty(), "{}", entry["path"]);
                assert!(
                    !reason(entry).contains("panicked"),
                    "{}: {}",
                    entry["path"],
                    reason(entry)
                );
            }
        }
    }
    insta::assert_debug_snapshot!(collection, counts);
}

#[test]
fn documents_of_docling() {
    check("docs-docling");
}

#[test]
fn documents_of_markitdown() {
    check("docs-markitdown");
}

#[test]
fn documents_of_pypdf() {
    check("docs-pypdf");
}

#[test]
fn documents_of_tika() {
    check("docs-tika");
}

#[test]
fn hostile_documents_cannot_crash_or_hang_it() {
    let Some(data) = assay_testkit::dataset("docs-hostile") else { return };
    let dir = folder(&[]);
    let limits = ["--parse-seconds=60", "--parse-mib=1024"];
    let read = parse(dir.path(), &files_below(&data), &limits);
    let of = |name: &str| {
        let found = read.iter().find(|e| e["path"].as_str().is_some_and(|p| p.ends_with(name)));
        found.unwrap_or_else(|| panic!("{name}"))
    };
    for name in [
        "testEXCEL_protected_passtika.xls",
        "testEXCEL_protected_passtika.xlsx",
        "testODTEncrypted.odt",
        "protected_upper_case.docx",
    ] {
        assert!(reason(of(name)).contains("password"), "{name}: {}", of(name)["outcome"]);
    }
    for entry in &read {
        assert!(!reason(entry).contains("more than 60 s"), "{}", entry["path"]);
    }
}

#[test]
fn a_parser_that_takes_too_much_is_one_failed_file() {
    // A page that expands to more memory than is allowed, between two that do not.
    let large = "<p>x".repeat(8_000_000);
    let dir = folder(&[("a.html", "<p>first"), ("b.html", &large), ("c.html", "<p>last")]);
    let files: Vec<PathBuf> = ["a", "b", "c"].map(|n| dir.path().join(format!("{n}.html"))).into();
    let read = parse(dir.path(), &files, &["--parse-mib=256", "--parse-seconds=60"]);
    let outcomes: Vec<&str> = read.iter().map(outcome).collect();
    assert_eq!(outcomes, ["parsed", "failed", "parsed"], "{read:?}");
    let why = reason(&read[1]);
    assert!(why.contains("256 MiB of memory") || why.contains("60 s"), "{why}");

    let read = parse(dir.path(), &files[1..2], &["--parse-seconds=0"]);
    assert_eq!(reason(&read[0]), "parsing took more than 0 s; split the file or allow more");
}

/// A project whose documents are these, or `None` without the embedder.
fn project(files: &[(&str, &[u8])]) -> Option<tempfile::TempDir> {
    let embedder = assay_testkit::model("all-minilm-l6-v2")?;
    let toml =
        format!("[project]\nname = \"a\"\ntask = \"qa\"\n[model]\nembedder = {embedder:?}\n");
    let dir = folder(&[("assay.toml", &toml)]);
    fs_err::create_dir(dir.path().join("docs")).expect("a folder");
    for (name, bytes) in files {
        fs_err::write(dir.path().join("docs").join(name), bytes).expect("a file");
    }
    Some(dir)
}

#[test]
fn the_ledger_names_every_kind_of_bad_file() {
    let page = b"<html><head><title>T</title></head><body><p>text".as_slice();
    let Some(dir) = project(&[
        ("a.md", b"# One\n\nSome words.\n"),
        ("b.md", b"# One\n\nSome words.\n"),
        ("cut.docx", b"PK\x03\x04 word/document.xml and no more"),
        ("empty.pdf", b""),
        ("latin.txt", b"Das Stra\xdfencaf\xe9"),
        ("page.docx", page),
        ("picture.md", b"\x89PNG\r\n\x1a\n"),
        ("secret.xlsx", &secret()),
        ("tool.exe", b"MZ"),
    ]) else {
        return;
    };
    let ran = run(dir.path(), &["ingest"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    insta::assert_snapshot!("ledger_of_bad_files", ran.stdout);

    // It is kept, and an ingest that finds nothing new says the same.
    for args in [&["ledger"][..], &["ingest"]] {
        assert_eq!(run(dir.path(), args).stdout, ran.stdout);
    }
    let json = run(dir.path(), &["ledger", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["counts"]["failed"], 2);
    assert_eq!(json["files"][1]["same_as"], "a.md");

    // What is gone is gone from the ledger too.
    for name in ["cut.docx", "secret.xlsx", "b.md"] {
        fs_err::remove_file(dir.path().join("docs").join(name)).expect("a file");
    }
    let ran = run(dir.path(), &["ingest"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(!ran.stdout.contains("b.md"), "{}", ran.stdout);
}

/// As Office encrypts a file: an OLE container with the stream `EncryptedPackage`.
fn secret() -> Vec<u8> {
    let name = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes);
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".iter().copied().chain([0; 504]).chain(name).collect()
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_taken_half() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = folder(&[]);
    let path = dir.path().join("log.txt");
    // Large enough that something is appended during each reading of it.
    fs_err::write(&path, "words and words\n".repeat(3 << 20)).expect("a file");
    let done = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs_err::OpenOptions::new().append(true).open(&path).expect("the file");
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"more\n").expect("appended");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let read = parse(dir.path(), std::slice::from_ref(&path), &[]);
        done.store(true, Ordering::Relaxed);
        read
    });
    assert!(reason(&read[0]).starts_with("changed while it was read"), "{}", read[0]["outcome"]);
    // When it has come to rest, it is read.
    assert_eq!(outcome(&parse(dir.path(), &[path], &[])[0]), "parsed");
}

#[test]
fn watching_says_what_changed() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    let Some(dir) = project(&[("a.md", b"one"), ("b.md", b"two")]) else { return };
    let mut child = assay(dir.path(), &["ingest", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("assay starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut next = |wanted: &str| {
        let found = lines.by_ref().map(|l| l.expect("UTF-8")).find(|l| l.starts_with(wanted));
        found.unwrap_or_else(|| panic!("{wanted:?} was not said"))
    };
    next("characters in chunks");
    let docs = dir.path().join("docs");
    fs_err::write(docs.join("c.md"), "three").expect("a file");
    assert_eq!(next("added"), "added c.md: parsed (1 chunks, 5 characters)");
    fs_err::write(docs.join("a.md"), "one more").expect("a file");
    assert_eq!(next("changed"), "changed a.md: parsed (1 chunks, 7 characters)");
    fs_err::remove_file(docs.join("b.md")).expect("a file");
    assert_eq!(next("removed"), "removed b.md");
    child.kill().expect("killed");
    child.wait().expect("ended");
}
