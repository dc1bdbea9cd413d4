//! The main job on real weights, small: decide, find everything done, survive kills, ask, serve.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use assay_decide::Decision;

use super::{Ran, assay, folder};

const DOCUMENTS: [(&str, &str); 3] = [
    (
        "docs/lamps.md",
        "# Lamps\n\nThe lamp Orla costs 41 euros. It is made of copper.\n\nThe lamp Brim costs 63 euros.\n",
    ),
    (
        "docs/returns.md",
        "# Returns\n\nLamps may be returned within 19 days. Write to Petra Quell.\n",
    ),
    ("docs/hours.txt", "Opening hours\n\nThe shop opens at 07:40 and closes at 18:10.\n"),
];

const FACTS: [(&str, &str, &str); 12] = [
    ("What does the Orla cost?", "41 euros", "lamps.md"),
    ("price of an orla lamp please", "41 euros", "lamps.md"),
    ("Which metal is the Orla made of?", "copper", "lamps.md"),
    ("how much for the Brim", "63 euros", "lamps.md"),
    ("Until when may I give a lamp back?", "within 19 days", "returns.md"),
    ("Who handles returns?", "Petra Quell", "returns.md"),
    ("return window?", "19 days", "returns.md"),
    ("name of the person for returns", "Petra Quell", "returns.md"),
    ("When do you open?", "07:40", "hours.txt"),
    ("closing time today", "18:10", "hours.txt"),
    ("What time does the shop shut?", "18:10", "hours.txt"),
    ("from which hour can I come in", "07:40", "hours.txt"),
];

/// A tiny project over the real models, or `None` where they are not at hand.
pub(crate) fn project() -> Option<tempfile::TempDir> {
    let (base, embedder) = (assay_testkit::smollm()?, assay_testkit::model("all-minilm-l6-v2")?);
    let toml = format!(
        "[project]\nname = \"lamps\"\ntask = \"qa\"\n[data]\ndev_fraction = 0.3\n\
         [model]\nbase = {base:?}\nembedder = {embedder:?}\n\
         [prompt]\nshots = [0, 1]\nmax_new_tokens = 6\n[retrieval]\ntop_k = [1]\n\
         [training]\nepochs = 2\nbatch_size = 4\nwarmup_steps = 1\n[decision]\nbootstrap_samples = 200\n"
    );
    let row = |(q, a, d): &(&str, &str, &str)| {
        format!("{{\"question\": {q:?}, \"answers\": [{a:?}], \"doc_ids\": [{d:?}]}}\n")
    };
    let (test, train): (Vec<_>, Vec<_>) = FACTS.iter().enumerate().partition(|(i, _)| i % 3 == 1);
    let text = |rows: Vec<(usize, &(&str, &str, &str))>| -> String {
        rows.into_iter().map(|(_, r)| row(r)).collect()
    };
    let (train, test) = (text(train), text(test));
    let mut files: Vec<(&str, &str)> = DOCUMENTS.to_vec();
    files.extend([
        ("assay.toml", toml.as_str()),
        ("data/train.jsonl", &train),
        ("data/test.jsonl", &test),
    ]);
    Some(folder(&files))
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> Ran {
    let ran = super::run(dir, args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}{}", ran.stdout, ran.stderr);
    ran
}

pub(crate) fn decision(dir: &Path) -> Decision {
    let text = fs_err::read_to_string(dir.join("decision.json")).expect("decision.json");
    serde_json::from_str(&text).expect("a decision")
}

#[test]
fn a_run_decides_and_a_second_one_has_nothing_to_do() {
    let Some(dir) = project() else { return };
    run(dir.path(), &["run"]);
    let first = decision(dir.path());
    let names: Vec<&str> = first.candidates.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["prompt", "rag", "tuned", "hybrid"]);
    assert_eq!(first.comparisons.len(), 6);
    for c in &first.candidates {
        let f1 = &c.metrics["f1"];
        assert_eq!((f1.n, f1.failed), (4, 0), "{}", c.name);
        assert!(c.latency_ms.p50.is_some_and(|ms| ms > 0.0), "{}", c.name);
        assert!(c.general.before.is_some() && c.general.after.is_some(), "{}", c.name);
    }
    assert!(
        fs_err::read_to_string(dir.path().join("report.html"))
            .expect("a report")
            .contains("hybrid")
    );

    let bytes = fs_err::read(dir.path().join("decision.json")).expect("decision.json");
    let again = run(dir.path(), &["run"]);
    assert!(again.stderr.contains("nothing to do: all"), "{}", again.stderr);
    assert_eq!(bytes, fs_err::read(dir.path().join("decision.json")).expect("decision.json"));

    let plan = run(dir.path(), &["plan"]).stdout;
    assert!(plan.contains("done already: prompt, rag, tuned, hybrid"), "{plan}");

    // The tuned candidate answers with verified citations or none; any measured candidate can be asked.
    let asked = run(dir.path(), &["ask", "When do you open?", "--candidate", "hybrid", "--json"]);
    let output: assay_types::Output = serde_json::from_str(&asked.stdout).expect("an output");
    assert_eq!(output.retrieved.iter().filter(|r| r.in_context).count(), 1);
    for citation in &output.citations {
        let source = fs_err::read_to_string(dir.path().join("docs").join(&citation.document))
            .expect("a source");
        assert_eq!(source[citation.start..citation.end], citation.quote);
    }

    // A release knows the documents that it was measured with.
    assert!(!asked.stderr.contains("documents are not those"), "{}", asked.stderr);
    fs_err::write(dir.path().join("docs/new.md"), "# New\n\nWe open at noon.\n").expect("a file");
    assert_eq!(run(dir.path(), &["ingest"]).code, Some(0));
    let asked = run(dir.path(), &["ask", "When do you open?", "--candidate", "hybrid"]);
    assert!(asked.stderr.contains("1 added, 0 changed, 0 removed since"), "{}", asked.stderr);
}

#[test]
fn kills_at_three_moments_change_nothing_in_the_decision() {
    let (Some(whole), Some(killed)) = (project(), project()) else { return };
    run(whole.path(), &["run"]);
    for millis in [1500, 3500, 6000] {
        let mut child = assay(killed.path(), &["run"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("assay starts");
        std::thread::sleep(Duration::from_millis(millis));
        // SIGKILL on Unix; a run that was faster is no failure of the test.
        child.kill().expect("a kill");
        child.wait().expect("an end");
    }
    run(killed.path(), &["run"]);
    let plain =
        |dir: &Path| serde_json::to_string_pretty(&decision(dir).without_times()).expect("JSON");
    assert_eq!(plain(whole.path()), plain(killed.path()));
}

#[test]
fn a_second_run_at_the_same_time_is_refused() {
    let Some(dir) = project() else { return };
    let mut child = assay(dir.path(), &["run"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("assay starts");
    let pid = child.id().to_string();
    let lock = dir.path().join(".assay/run.pid");
    while fs_err::read_to_string(&lock).map(|t| t.trim() != pid).unwrap_or(true) {
        assert!(child.try_wait().expect("a child").is_none(), "the first run ended early");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = super::run(dir.path(), &["run"]);
    child.kill().expect("a kill");
    child.wait().expect("an end");
    assert_eq!(second.code, Some(2));
    assert!(second.stderr.contains(&pid), "{}", second.stderr);
}
