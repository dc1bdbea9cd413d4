//! Against the reference packages, live, where a Python with them is at hand.

use std::process::Command;

use assay_eval::*;
use serde_json::Value;

use crate::golden::{check_query, check_squad, near, strings};

#[test]
fn ten_thousand_random_cases_equal_the_packages() {
    let packages = ["rouge_score", "pytrec_eval", "sklearn"];
    let Some(python) = assay_testkit::python_with(&packages) else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/oracle.py");
    let output = Command::new(python).arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 10_000);
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (input, expected) = (&case["input"], &case["expected"]);
        let text = || (input["prediction"].as_str().unwrap(), strings(&input["golds"]));
        match case["kind"].as_str().unwrap() {
            "squad" => check_squad(text().0, &text().1, expected),
            "rouge" => near(rouge_l(text().0, &text().1).unwrap(), &expected["f1"], input),
            "trec" => check_query(&input["grades"], &input["run"], expected),
            "labels" => check_labels(input, expected),
            other => panic!("unknown kind {other}"),
        }
    }
}

fn check_labels(input: &Value, expected: &Value) {
    let items: Vec<Labelled> = strings(&input["gold"])
        .into_iter()
        .zip(strings(&input["predicted"]))
        .map(|(gold, predicted)| Labelled {
            cluster: String::new(),
            gold,
            predicted: Some(predicted),
        })
        .collect();
    let confusion = Confusion::of(&items);
    near(confusion.macro_f1().unwrap(), &expected["macro_f1"], input);
    for (class, f1) in confusion.per_class().iter().zip(expected["f1"].as_array().unwrap()) {
        near(class.f1, f1, input);
    }
}
