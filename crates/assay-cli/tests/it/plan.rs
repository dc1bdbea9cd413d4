//! `assay plan`: the table, and the refusal of what cannot fit.

use serde_json::Value;

use super::end_to_end::{project, run};

/// Memory of a candidate in a plan, in bytes.
fn memory(plan: &Value, name: &str) -> f64 {
    let candidates = plan["candidates"].as_array().expect("candidates");
    let found = candidates.iter().find(|c| c["name"] == name).expect("the candidate");
    found["memory_bytes"].as_f64().expect("bytes")
}

#[test]
fn a_plan_says_what_every_candidate_takes() {
    let Some(dir) = project() else { return };
    let planned = run(dir.path(), &["plan"]);
    let filters = [
        (r"\d+(\.\d+)? (s|min|h)\b", "[TIME]"),
        (r"\d+(\.\d+)? [GM]B", "[SIZE]"),
        (r"\$\d+\.\d+", "[USD]"),
        (" +", " "),
    ];
    insta::with_settings!({ filters => filters }, {
        insta::assert_snapshot!("plan", planned.stdout);
    });
    let plan = run(dir.path(), &["plan", "--json"]);
    let plan: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert!(memory(&plan, "tuned") > memory(&plan, "prompt") + 3e8);
    assert!(plan["total_s"].as_f64().is_some_and(|s| s > 0.0));
    assert!(!dir.path().join("decision.json").exists());
}

#[test]
fn what_cannot_fit_is_refused_before_the_run_with_what_can() {
    let Some(dir) = project() else { return };
    let plan = run(dir.path(), &["plan", "--json"]);
    let plan: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    // Room for answers, and not for what training adds: the second orientation of all weights.
    let limit = format!("limits.memory_gb={}", (memory(&plan, "prompt") + 1.5e8) / 1e9);
    for command in ["plan", "run"] {
        let refused = super::run(dir.path(), &[command, "--set", &limit]);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        for part in [
            "error: tuned needs",
            "recomputing activations, and",
            "`--set 'project.candidates=[\"prompt\", \"rag\"]'` leaves out what does not fit",
        ] {
            assert!(refused.stderr.contains(part), "{part:?} is not in\n{}", refused.stderr);
        }
    }
    let refused = super::run(dir.path(), &["run", "--set", "limits.memory_gb=0.1"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("error: the weights of"), "{}", refused.stderr);
    assert!(!dir.path().join("decision.json").exists());
}
