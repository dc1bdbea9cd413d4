//! `assay search` and `assay index`, as the operator of a corpus uses them.

use serde_json::Value;

use super::{folder, run};

const LAMP: &str =
    "---\nyear: 2020\n---\n# Lamp\n\nThe red lamp may be returned within thirty days.\n";
const DOOR: &str = "---\nyear: 2024\n---\n# Door\n\nThe blue door opens with the brass key.\n";
const PAY: &str =
    "---\nallow: [staff]\n---\n# Pay\n\nSalaries are paid on the last day of the month.\n";

fn project() -> Option<tempfile::TempDir> {
    let embedder = assay_testkit::model("all-minilm-l6-v2")?;
    let toml = format!(
        "[project]\nname = \"a\"\ntask = \"qa\"\n[model]\nembedder = {embedder:?}\n\
         [retrieval]\nprincipals = [\"staff\"]\n"
    );
    Some(folder(&[
        ("assay.toml", &toml),
        ("docs/lamp.md", LAMP),
        ("docs/door.md", DOOR),
        ("docs/hr/pay.md", PAY),
    ]))
}

/// Documents that a search finds, best first.
fn found(dir: &std::path::Path, args: &[&str]) -> Vec<String> {
    let ran = run(dir, &[&["search", "--json"], args].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let hits: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let hits = hits.as_array().expect("a list");
    hits.iter().map(|h| h["document"].as_str().expect("a path").to_owned()).collect()
}

#[test]
fn what_is_filtered_deleted_or_forbidden_is_not_found() {
    let Some(dir) = project() else { return };
    let dir = dir.path();
    let ran = run(dir, &["index", "verify"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("`assay ingest` does it"), "{}", ran.stderr);

    assert_eq!(found(dir, &["return a lamp", "-k", "1"]), ["lamp.md"]);
    assert_eq!(found(dir, &["return a lamp", "--filter", "year >= 2022"]), ["door.md"]);
    assert_eq!(found(dir, &["when are salaries paid", "-k", "1"]), ["hr/pay.md"]);
    let ran = run(dir, &["search", "lamp", "--filter", "years = 2020"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("`years`") && ran.stderr.contains("`year`"), "{}", ran.stderr);

    assert_eq!(run(dir, &["index", "allow", "hr/pay.md", "--to", "board"]).code, Some(0));
    assert!(!found(dir, &["when are salaries paid"]).contains(&"hr/pay.md".to_owned()));
    assert_eq!(run(dir, &["index", "delete", "lamp.md"]).code, Some(0));
    assert_eq!(found(dir, &["return a lamp"]), ["door.md"]);
    // The folder still has it, and it stays away; a rebuild brings nothing back either.
    let ran = run(dir, &["ingest"]);
    assert!(ran.stdout.contains("lamp.md: skipped (deleted by hand"), "{}", ran.stdout);
    assert_eq!(run(dir, &["index", "rebuild"]).code, Some(0));
    assert_eq!(found(dir, &["return a lamp"]), ["door.md"]);

    let ran = run(dir, &["index", "snapshot"]);
    let lines: Vec<&str> = ran.stdout.lines().map(|l| &l[17..]).collect();
    assert_eq!(lines, ["everyone\t-\tdoor.md", "board\t-\thr/pay.md"]);
    let ran = run(dir, &["index", "verify"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("2 documents, 2 chunks") && ran.stderr.contains("all is well"));

    assert_eq!(run(dir, &["index", "restore", "lamp.md"]).code, Some(0));
    assert_eq!(found(dir, &["return a lamp", "-k", "1"]), ["lamp.md"]);
}

#[test]
fn a_file_of_queries_becomes_a_trec_run() {
    let Some(dir) = project() else { return };
    let dir = dir.path();
    fs_err::write(dir.join("queries.tsv"), "q1\treturn a lamp\nq2\tbrass key\n").expect("a file");
    let args = ["search", "--queries", "queries.tsv", "--run", "out.run", "--mode", "bm25"];
    let ran = run(dir, &args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let lines = fs_err::read_to_string(dir.join("out.run")).expect("the run");
    let fields: Vec<Vec<&str>> = lines.lines().map(|l| l.split(' ').collect()).collect();
    let best: Vec<_> = fields.iter().filter(|f| f[3] == "1").map(|f| (f[0], f[2])).collect();
    assert_eq!(best, [("q1", "lamp.md"), ("q2", "door.md")]);
    assert!(fields.iter().all(|f| f.len() == 6 && f[1] == "Q0" && f[5] == "assay-bm25"));

    fs_err::write(dir.join("queries.tsv"), "q1 no tab\n").expect("a file");
    let ran = run(dir, &args);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("queries.tsv") && ran.stderr.contains('1'), "{}", ran.stderr);
}
