//! `assay retrieval tune` on real documents.

use std::path::Path;

use serde_json::Value;

use super::{folder, run};

/// Documents and questions of the help desk, and of each article some.
fn project(rows: usize) -> Option<tempfile::TempDir> {
    let embedder = assay_testkit::model("all-minilm-l6-v2")?;
    let example = assay_testkit::workspace().join("examples/helpdesk");
    let toml = format!(
        "[project]\nname = \"desk\"\ntask = \"qa\"\n[model]\nembedder = {embedder:?}\n\
         [retrieval]\nchunk_tokens = 110\ntop_k = [1, 2]\n"
    );
    let lines = |file: &str, n: usize| {
        let text = fs_err::read_to_string(example.join("data").join(file)).expect("rows");
        text.split_inclusive('\n').take(n).collect::<String>()
    };
    let (train, test) = (lines("train.jsonl", rows), lines("test.jsonl", 5));
    let dir =
        folder(&[("assay.toml", &toml), ("data/train.jsonl", &train), ("data/test.jsonl", &test)]);
    copy(&example.join("docs"), &dir.path().join("docs"));
    Some(dir)
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a folder");
    for entry in fs_err::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs_err::copy(entry.path(), to).expect("a copy");
        }
    }
}

#[test]
fn chunk_sizes_and_rankings_are_compared_with_what_is_configured() {
    let Some(dir) = project(60) else { return };
    let args = ["retrieval", "tune", "--chunk-tokens", "48", "--json"];
    let ran = run(dir.path(), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let tried: Vec<Value> = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(tried.len(), 8, "two sizes, four rankings: {}", ran.stdout);
    let ndcg = |t: &Value| t["ndcg_at_10"].as_f64().expect("a figure");
    assert!(tried.windows(2).all(|w| ndcg(&w[0]) >= ndcg(&w[1])), "{}", ran.stdout);
    let configured: Vec<&Value> = tried.iter().filter(|t| t["configured"] == true).collect();
    assert_eq!(configured.len(), 1);
    assert_eq!(
        (&configured[0]["chunk_tokens"], &configured[0]["mode"]),
        (&110.into(), &"hybrid".into())
    );
    for t in &tried {
        let Some(d) = t.get("difference") else { continue };
        let at = |key: &str| d[key].as_f64().expect("a figure");
        assert!((at("mean") - (ndcg(t) - ndcg(configured[0]))).abs() < 1e-9);
        assert!(at("ci_low") <= at("mean") && at("mean") <= at("ci_high"));
        assert!(at("p_adjusted") >= at("p_value"));
    }
    // Words and meaning find most of what is there.
    assert!(ndcg(&tried[0]) > 0.7, "{}", ran.stdout);
    // The second time nothing is embedded, and people get a table.
    let again = run(dir.path(), &args[..4]);
    assert!(again.stdout.contains("as configured"), "{}", again.stdout);
    assert!(again.stdout.contains("answer@2"), "{}", again.stdout);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let Some(dir) = project(20) else { return };
    let check = |args: &[&str], expected: &str| {
        let ran = run(dir.path(), args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
    };
    check(
        &["retrieval", "tune", "--chunk-tokens", "0"],
        "chunks of 0 tokens: the embedder takes 16 to",
    );
    check(&["retrieval", "tune", "--chunk-tokens", "64,9999"], "chunks of 9999 tokens");
    check(&["check", "--set", "serve.max_risk=2"], "serve.max_risk is 2: expected between 0 and 1");
    check(&["search", "reset", "--filter", "lang ="], "at character");
}

#[test]
fn too_few_questions_are_refused() {
    let Some(dir) = project(6) else { return };
    let ran = run(dir.path(), &["retrieval", "tune"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("at least 10 are needed"), "{}", ran.stderr);
    assert!(ran.stderr.contains("doc_ids"), "{}", ran.stderr);
}
