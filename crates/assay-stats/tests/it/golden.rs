//! Against `metrics.json` of the shared golden folder, written by `make_metrics.py` beside it.

use assay_stats::*;
use serde_json::Value;

fn check_group(name: &str, check: impl Fn(&Value, &Value)) {
    let Some(path) = assay_testkit::golden_metrics() else { return };
    let text = fs_err::read_to_string(path).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let cases = golden["groups"][name]["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        check(&case["input"], &case["expected"]);
    }
}

#[track_caller]
fn near(got: f64, expected: &Value) {
    near_within(got, expected, 1e-12);
}

#[track_caller]
fn near_within(got: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{got} != {expected}");
}

fn count(v: &Value) -> usize {
    v.as_u64().unwrap() as usize
}

fn floats(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn clustered(values: &Value, clusters: &Value) -> Clustered {
    match clusters.as_array() {
        None => Clustered::independent(&floats(values)),
        Some(names) => {
            Clustered::new(names.iter().map(|n| n.as_str().unwrap()).zip(floats(values)))
        }
    }
}

#[test]
fn wilson_equals_statsmodels() {
    check_group("proportion_ci", |input, expected| {
        let interval = wilson(count(&input["successes"]), count(&input["n"]), 0.95).unwrap();
        near(interval.low, &expected["wilson"][0]);
        near(interval.high, &expected["wilson"][1]);
    });
}

#[test]
fn mcnemar_equals_statsmodels() {
    check_group("mcnemar", |input, expected| {
        let pair = Discordant { b: count(&input["b"]), c: count(&input["c"]) };
        near(mcnemar_exact(pair), &expected["exact_p"]);
        near(mcnemar_mid_p(pair), &expected["mid_p"]);
    });
}

#[test]
fn bonett_price_equals_its_definition() {
    check_group("paired_difference_ci", |input, expected| {
        let (b, c, n) = (count(&input["b"]), count(&input["c"]), count(&input["n"]));
        let interval = bonett_price(b, c, n, 0.95).unwrap();
        near(interval.low, &expected["ci95"][0]);
        near(interval.high, &expected["ci95"][1]);
    });
}

#[test]
fn sign_flip_equals_full_enumeration() {
    check_group("sign_flip", |input, expected| {
        let diffs = clustered(&input["diffs"], &input["clusters"]);
        near(sign_flip_p(&diffs, 7), &expected["p"]);
        near(diffs.mean().unwrap(), &expected["mean"]);
    });
}

#[test]
fn clustered_standard_error_equals_its_definition() {
    check_group("clustered_stderr", |input, expected| {
        let scores = clustered(&input["scores"], &input["clusters"]);
        near(scores.standard_error().unwrap(), &expected["corrected"]);
        let independent = Clustered::independent(&floats(&input["scores"]));
        near(independent.standard_error().unwrap(), &expected["iid"]);
    });
}

#[test]
fn mean_standard_error_equals_the_harness() {
    check_group("standard_error", |input, expected| {
        if input["kind"] == "mean" {
            let scores = Clustered::independent(&floats(&input["scores"]));
            near(scores.mean().unwrap(), &expected["mean"]);
            near(scores.standard_error().unwrap(), &expected["stderr"]);
        }
    });
}

#[test]
fn holm_equals_statsmodels() {
    check_group("multiplicity", |input, expected| {
        for (got, want) in
            holm(&floats(&input["p"])).iter().zip(expected["holm"].as_array().unwrap())
        {
            near(*got, want);
        }
    });
}

#[test]
fn paired_power_equals_total_enumeration() {
    check_group("paired_power", |input, expected| {
        let number = |key: &str| input[key].as_f64().unwrap();
        let (discordant, delta, alpha) = (number("discordant"), number("delta"), number("alpha"));
        let n = n_for_paired_proportions(discordant, delta, alpha, number("power")).ceil();
        near(n, &expected["n_normal"]);
        let power = |delta, mid| mcnemar_power(n as usize, discordant, delta, alpha, mid);
        // The reference leaves out the same tails, but sums in another order.
        near_within(power(delta, false), &expected["power_exact_at_n_normal"], 1e-10);
        near_within(power(delta, true), &expected["power_mid_p_at_n_normal"], 1e-10);
        near_within(power(0.0, false), &expected["size_exact_at_n_normal"], 1e-10);
        near_within(power(0.0, true), &expected["size_mid_p_at_n_normal"], 1e-10);
        let exact = mcnemar_power(count(&expected["n_exact"]), discordant, delta, alpha, false);
        assert!(exact >= 0.8, "{exact}");
    });
}

#[test]
fn unpaired_n_equals_its_definition() {
    check_group("unpaired_n", |input, expected| {
        let (p1, p2) = (input["p1"].as_f64().unwrap(), input["p2"].as_f64().unwrap());
        near(n_for_unpaired_proportions(p1, p2, 0.05, 0.8), &expected["n_per_arm"]);
    });
}
