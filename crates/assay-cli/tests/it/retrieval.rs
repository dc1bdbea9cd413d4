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

/// A small random cross-encoder: it orders chunks by nothing, but always the same.
fn reranker() -> String {
    let golden = assay_testkit::workspace().join("crates/assay-model/tests/golden/encoders");
    golden.join("cross-bert").display().to_string()
}

#[test]
fn ways_to_retrieve_are_compared_with_what_is_configured() {
    let Some(dir) = project(60) else { return };
    let reranker = reranker();
    let args = ["retrieval", "tune", "--chunk-tokens", "48", "--reranker", &reranker, "--json"];
    let ran = run(dir.path(), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let tried: Vec<Value> = serde_json::from_str(&ran.stdout).expect("JSON");
    // Two sizes, with and without headers, four rankings; a reranker, three lambdas, two windows.
    assert_eq!(tried.len(), 16 + 6, "{}", ran.stdout);
    let ndcg = |t: &Value| t["ndcg_at_10"].as_f64().expect("a figure");
    assert!(tried.windows(2).all(|w| ndcg(&w[0]) >= ndcg(&w[1])), "{}", ran.stdout);
    let configured: Vec<&Value> = tried.iter().filter(|t| t["configured"] == true).collect();
    assert_eq!(configured.len(), 1);
    let own = configured[0];
    assert_eq!((&own["chunk_tokens"], &own["mode"]), (&110.into(), &"hybrid".into()));
    assert_eq!((&own["contextual_headers"], &own["window"]), (&true.into(), &0.into()));
    for t in &tried {
        assert!(t["ms_per_query"].as_f64().expect("a time") > 0.0);
        let Some(d) = t.get("difference") else { continue };
        let at = |key: &str| d[key].as_f64().expect("a figure");
        let value = |t: &Value| t[d["of"].as_str().expect("a metric")].as_f64().expect("a figure");
        assert!((at("mean") - (value(t) - value(own))).abs() < 1e-9, "{t}");
        assert!(at("ci_low") <= at("mean") && at("mean") <= at("ci_high"));
        assert!(at("p_adjusted") >= at("p_value"));
    }
    // What shows more holds no fewer answers.
    let windows: Vec<&Value> = tried.iter().filter(|t| t["window"] != 0).collect();
    assert_eq!(windows.len(), 2);
    for t in windows {
        assert_eq!(t["difference"]["of"], "answer_recall");
        assert!(t["difference"]["mean"].as_f64().expect("a figure") >= 0.0);
        assert!(t["context_tokens"].as_f64() > own["context_tokens"].as_f64());
    }
    // A random model orders worse, and the tool must see it.
    let reranked = tried.iter().find(|t| t.get("reranker").is_some()).expect("a reranked one");
    assert!(reranked["difference"]["p_adjusted"].as_f64() < Some(0.05), "{reranked}");
    assert!(ndcg(reranked) < ndcg(own));
    // Words and meaning find most of what is there.
    assert!(ndcg(&tried[0]) > 0.7, "{}", ran.stdout);
    // The second time nothing is embedded, and people get a table.
    let again = run(dir.path(), &args[..4]);
    assert!(again.stdout.contains("as configured"), "{}", again.stdout);
    assert!(again.stdout.contains("answer@2"), "{}", again.stdout);
    assert!(again.stdout.contains("no reranker was tried"), "{}", again.stdout);
}

#[test]
fn what_is_significantly_better_is_printed_as_lines_of_the_file() {
    let Some(dir) = project(120) else { return };
    // Configured is a way that loses.
    let bad = format!("retrieval.reranker={}", reranker());
    let args =
        ["retrieval", "tune", "--chunk-tokens", "110", "--set", &bad, "--set", "retrieval.mmr=0.5"];
    let ran = run(dir.path(), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("significantly more found than as configured"), "{}", ran.stdout);
    assert!(ran.stdout.contains("[retrieval]\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("# and without reranker\n"), "{}", ran.stdout);
}

#[test]
fn a_search_is_refined_as_the_project_says() {
    let Some(dir) = project(20) else { return };
    let found = |sets: &[&str]| -> Vec<Value> {
        let mut args = vec!["search", "how do I reset it", "-k", "6", "--json"];
        for set in sets {
            args.extend(["--set", set]);
        }
        let ran = run(dir.path(), &args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    let texts = |hits: &[Value]| hits.iter().map(|h| h["text"].clone()).collect::<Vec<_>>();
    let scores = |hits: &[Value]| {
        hits.iter().map(|h| h["score"].as_f64().expect("a score")).collect::<Vec<_>>()
    };
    let plain = found(&[]);
    let reranker = format!("retrieval.reranker={}", reranker());
    let reranked = found(&[&reranker]);
    assert_ne!(texts(&plain), texts(&reranked));
    assert!(scores(&reranked).windows(2).all(|w| w[0] >= w[1]), "{:?}", scores(&reranked));
    // Of one chunk there is one order.
    let first = found(&[&reranker, "retrieval.rerank_depth=1"]);
    assert_eq!(texts(&plain), texts(&first));
    assert_eq!(texts(&plain), texts(&found(&["retrieval.mmr=1.0"])));
    assert_ne!(texts(&plain), texts(&found(&["retrieval.mode=bm25"])));
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
    let set = |pair: &str, expected: &str| check(&["check", "--set", pair], expected);
    set("retrieval.mmr=1.5", "retrieval.mmr is 1.5: expected 0 to 1");
    set("retrieval.mmr=-0.1", "retrieval.mmr is -0.1: expected 0 to 1");
    set("retrieval.mmr=nan", "expected 0 to 1");
    set("retrieval.rerank_depth=0", "retrieval.rerank_depth is 0: expected at least 1");
    set("retrieval.rerank_depth=100000", "expected at most 1000");
    set("retrieval.rewrite_queries=0", "retrieval.rewrite_queries is 0");
    set("retrieval.window=11", "retrieval.window is 11: expected at most 10");
    set("retrieval.rewrite=hide", "did you mean `hyde`?");
    let hyde = ["check", "--set", "retrieval.rewrite=hyde", "--set", "retrieval.mode=bm25"];
    check(&hyde, "retrieval.rewrite is hyde, which changes the ranking by meaning");
    // No reranker: there is none of that name, a folder of something else, and one that classifies.
    let search = |reranker: String, expected: &[&str]| {
        let pair = format!("retrieval.reranker={reranker}");
        for expected in expected {
            check(&["search", "reset", "--set", &pair], expected);
        }
    };
    search("no-such-model".into(), &["retrieval.reranker `no-such-model`"]);
    let of = |name: &str| reranker().replace("cross-bert", name);
    search(of("bert-cls"), &["retrieval.reranker `", "hint: a reranker is a folder"]);
    search(of("cross-roberta"), &["gives a pair 3 scores instead of one"]);
}

#[test]
fn too_few_questions_are_refused() {
    let Some(dir) = project(6) else { return };
    let ran = run(dir.path(), &["retrieval", "tune"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("at least 10 are needed"), "{}", ran.stderr);
    assert!(ran.stderr.contains("doc_ids"), "{}", ran.stderr);
}
