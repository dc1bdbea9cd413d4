//! Data that are not fit: every finding names file and row, and nothing is measured on them.

use super::{folder, run};

const TOML: &str = "[project]\nname = \"bad\"\ntask = \"qa\"\n";

fn row(i: usize) -> String {
    format!(
        "{{\"question\": \"What is number {i} called?\", \"answers\": [\"name {i}\"], \"doc_ids\": [\"a.md\"]}}\n"
    )
}

fn rows(range: std::ops::Range<usize>) -> String {
    range.map(row).collect()
}

/// `assay check` on a project whose train and test files are these.
fn check(snapshot: &str, train: &str, test: &str, code: i32) {
    let dir = folder(&[
        ("assay.toml", TOML),
        ("docs/a.md", "# A\n\nText.\n"),
        ("data/train.jsonl", train),
        ("data/test.jsonl", test),
    ]);
    let ran = run(dir.path(), &["check"]);
    insta::assert_snapshot!(snapshot, ran.stdout);
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
}

#[test]
fn rows_that_are_no_json_or_of_another_shape_are_all_named() {
    let train = format!(
        "{}{{\"question\": \nnot json\n{{\"text\": \"x\", \"label\": \"y\"}}\n",
        rows(0..3)
    );
    check("bad_rows", &train, &rows(10..20), 1);
}

#[test]
fn test_rows_in_train_are_leaks() {
    check("leaks", &rows(0..12), &rows(10..20), 1);
}

#[test]
fn few_test_rows_are_a_warning() {
    check("few_test_rows", &rows(0..12), &rows(20..40), 0);
}

#[test]
fn unknown_documents_are_errors() {
    let train = rows(0..5).replace("a.md", "gone.md");
    check("unknown_documents", &train, &rows(20..40), 1);
}

#[test]
fn broken_utf8_is_named_by_row() {
    let dir = folder(&[
        ("assay.toml", TOML),
        ("docs/a.md", "# A\n\nText.\n"),
        ("data/test.jsonl", &rows(20..40)),
    ]);
    let mut train = rows(0..2).into_bytes();
    train.extend_from_slice(b"{\"question\": \"\xff\"}\n");
    fs_err::write(dir.path().join("data/train.jsonl"), train).expect("a file");
    let ran = run(dir.path(), &["check"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("data/train.jsonl:3"), "{}", ran.stdout);
}

#[test]
fn a_label_seen_once_is_a_warning() {
    let labelled = |range: std::ops::Range<usize>, label: &str| -> String {
        range
            .map(|i| {
                format!(
                    "{{\"text\": \"message number {i} about {label}\", \"label\": \"{label}\"}}\n"
                )
            })
            .collect()
    };
    let dir = folder(&[
        ("assay.toml", "[project]\nname = \"bad\"\ntask = \"classify\"\n"),
        (
            "data/train.jsonl",
            &(labelled(0..6, "red") + &labelled(10..16, "blue") + &labelled(20..21, "rare")),
        ),
        ("data/test.jsonl", &(labelled(30..40, "red") + &labelled(40..50, "blue"))),
    ]);
    let ran = run(dir.path(), &["check"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    insta::assert_snapshot!("rare_label", ran.stdout);
}

#[test]
fn findings_are_also_json() {
    let dir = folder(&[
        ("assay.toml", TOML),
        ("docs/a.md", "# A\n\nText.\n"),
        ("data/train.jsonl", &rows(0..12)),
        ("data/test.jsonl", &rows(11..20)),
    ]);
    let ran = run(dir.path(), &["check", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let leak = found.as_array().expect("a list").iter().find(|f| f["code"] == "leak");
    let leak = leak.expect("a leak");
    assert_eq!(leak["severity"], "error");
    assert_eq!(leak["location"]["file"], "data/test.jsonl");
    assert_eq!(leak["location"]["row"], 1);
}

#[test]
fn a_damaged_model_file_is_named() {
    let Some(gguf) = assay_testkit::smollm() else { return };
    let dir = folder(&[]);
    let whole = fs_err::read(gguf).expect("the model");
    fs_err::write(dir.path().join("cut.gguf"), &whole[..whole.len() / 2]).expect("a file");
    let ran = run(dir.path(), &["model", "probe", "./cut.gguf", "--text", "x"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("cut.gguf: truncated"), "{}", ran.stderr);
}
