//! Against `metrics.json` of the shared golden folder, written by `make_metrics.py` beside it.

use assay_eval::*;
use serde_json::Value;

fn check_group(name: &str, check: impl Fn(&Value, &Value)) {
    let Some(path) = assay_testkit::golden_metrics() else { return };
    let golden: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    let cases = golden["groups"][name]["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    cases.iter().for_each(|case| check(&case["input"], &case["expected"]));
}

#[track_caller]
pub(crate) fn near(got: f64, expected: &Value, what: &Value) {
    let expected = expected.as_f64().unwrap();
    let close = (got - expected).abs() <= 1e-12 * expected.abs().max(1.0);
    assert!(close, "{got} != {expected} for {what}");
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

/// Checks the keys of `expected` that name a SQuAD measure.
pub(crate) fn check_squad(prediction: &str, golds: &[String], expected: &Value) {
    for (rules, version) in [(SquadRules::V1, "v1"), (SquadRules::V2, "v2")] {
        let em = squad_exact_match(prediction, golds, rules);
        match expected.get(format!("exact_match_{version}")).and_then(Value::as_bool) {
            Some(right) => {
                assert_eq!(em, Some(f64::from(u8::from(right))), "{prediction} {golds:?}")
            }
            None => assert!(rules == SquadRules::V2 || em.is_none() || !golds.is_empty()),
        }
        if let Some(f1) = expected.get(format!("f1_{version}")) {
            near(squad_f1(prediction, golds, rules).unwrap(), f1, &prediction.into());
        }
    }
}

#[test]
fn squad_pairs_equal_the_official_scripts() {
    check_group("squad_pair", |input, expected| {
        let (prediction, gold) =
            (input["prediction"].as_str().unwrap(), input["gold"].as_str().unwrap());
        assert_eq!(squad_normalize(prediction), expected["normalized_prediction"]);
        assert_eq!(squad_normalize(gold), expected["normalized_gold"]);
        let golds = [gold.to_owned()];
        let em = squad_exact_match(prediction, &golds, SquadRules::V1);
        assert_eq!(em == Some(1.0), expected["exact_match"].as_bool().unwrap());
        check_squad(prediction, &golds, expected);
    });
}

#[test]
fn squad_takes_the_best_gold() {
    check_group("squad_max_over_golds", |input, expected| {
        check_squad(input["prediction"].as_str().unwrap(), &strings(&input["golds"]), expected);
    });
    assert_eq!(squad_f1("x", &[], SquadRules::V1), None);
}

#[test]
fn rouge_l_equals_rouge_score() {
    check_group("rouge_stem", |input, expected| {
        let target = [input["target"].as_str().unwrap().to_owned()];
        let got = rouge_l(input["prediction"].as_str().unwrap(), &target).unwrap();
        near(got, &expected["rougeL"]["f1"], input);
    });
    check_group("rouge_multi", |input, expected| {
        let got = rouge_l(input["prediction"].as_str().unwrap(), &strings(&input["targets"]));
        near(got.unwrap(), &expected["rougeL"]["f1"], input);
    });
    assert_eq!(rouge_l("x", &[]), None);
}

/// Checks one query; trec_eval prints 0 where nothing is relevant, and we say nothing.
pub(crate) fn check_query(grades: &Value, run: &Value, expected: &Value) {
    let grades: Grades = serde_json::from_value(grades.clone()).unwrap();
    let empty = serde_json::Map::new();
    let run = run.as_object().unwrap_or(&empty);
    let ranking = rank_documents(run.iter().map(|(d, s)| (d.as_str(), s.as_f64().unwrap())));
    let check = |name: &str, got: Option<f64>| {
        if let Some(value) = expected.get(name) {
            assert_eq!(got.is_none(), grades.values().all(|g| *g <= 0));
            near(got.unwrap_or(0.0), value, &format!("{name} of {grades:?}").into());
        }
    };
    check("map", average_precision(&ranking, &grades));
    check("recip_rank", reciprocal_rank(&ranking, &grades));
    check("ndcg", ndcg_at(&ranking, &grades, usize::MAX));
    for k in [1, 3, 10] {
        check(&format!("ndcg_cut_{k}"), ndcg_at(&ranking, &grades, k));
        check(&format!("recall_{k}"), recall_at(&ranking, &grades, k));
    }
}

#[test]
fn rankings_equal_trec_eval() {
    check_group("trec_eval", |input, expected| {
        for (query, grades) in input["qrels"].as_object().unwrap() {
            // The second case is about 32-bit scores; ours are doubles, as trec_eval's.
            let expected = expected.get("double").unwrap_or(&expected["per_query"][query]);
            check_query(grades, &input["run"][query], expected);
        }
    });
    let grades = Grades::from([("d".to_owned(), 1)]);
    assert_eq!(reciprocal_rank(&[], &grades), Some(0.0), "a query missing from the run scores 0");
}

#[test]
fn choices_equal_the_harness() {
    check_group("multiple_choice", |input, expected| {
        let logs: Vec<f64> = serde_json::from_value(input["loglik"].clone()).unwrap();
        let gold = input["gold"].as_u64().unwrap() as usize;
        let got = score_choices(&strings(&input["choices"]), gold, &logs);
        near(got.acc.value().unwrap(), &expected["acc"], input);
        near(got.acc_norm.value().unwrap(), &expected["acc_norm"], input);
    });
}
