//! The record: its stable form, and what of it the clock may touch.

use assay_decide::*;
use serde_json::{Value, json};

use crate::{candidate, input, noise, timed};

/// The four canonical candidates with everything measured.
fn whole() -> DecisionInput {
    let n = 120;
    let gains = [
        ("prompt", 0.0, 300.0),
        ("rag", 0.3, 420.0),
        ("tuned", 0.15, 120.0),
        ("hybrid", 0.32, 380.0),
    ];
    let candidates = gains.map(|(name, gain, ms)| {
        let (mut base, mut own) = (noise(1), noise(ms as u64));
        let scored = candidate(name, n, |_| (0.4 * base() + gain + 0.3 * own()).min(1.0));
        let mut measured = timed(scored, ms, 0.5);
        let before: Vec<bool> = (0..120).map(|i| i % 3 != 0).collect();
        let after =
            (0..120).map(|i| i % 3 != 0 && !(measured.uses_training && i % 40 == 1)).collect();
        measured.general = Some(GeneralAnswers { before, after });
        measured
    });
    let mut whole = input(n, candidates.to_vec());
    whole.facts = Facts { train_labels: 600, dev_labels: 100, documents: 40 };
    whole.stated = Stated {
        knowledge_changes_per_month: Some(4.0),
        queries_per_month: Some(50_000.0),
        citations_needed: Some(true),
        strict_format: Some(false),
        latency_budget_ms: Some(2_000.0),
        target: Some(0.8),
        max_risk: None,
    };
    whole.prices.hardware_usd_per_hour = 0.4;
    whole.constraints.max_p95_latency_ms = Some(2_000.0);
    whole.constraints.max_forgetting_points = Some(1.0);
    whole.inputs.hashes.insert("corpus".into(), "blake3:00".into());
    whole.inputs.counts.insert("test".into(), n);
    whole.times.insert("score".into(), 12.5);
    whole
}

/// Six decimals, so that the last bits of the platform do not matter.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => json!((n.as_f64().unwrap() * 1e6).round() / 1e6),
        Value::Array(a) => a.into_iter().map(rounded).collect(),
        Value::Object(o) => o.into_iter().map(|(k, v)| (k, rounded(v))).collect(),
        other => other,
    }
}

#[test]
fn decision_json_is_stable() {
    let decision = decide(&whole()).unwrap();
    let value = serde_json::to_value(&decision).unwrap();
    insta::assert_json_snapshot!(rounded(value));
}

#[test]
fn decision_json_reads_back() {
    let decision = decide(&whole()).unwrap();
    let text = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
    assert_eq!(decide(&whole()).unwrap(), decision, "the same input gives the same bits");
}

#[test]
fn only_marked_fields_depend_on_the_clock() {
    let mut slower = whole();
    for candidate in &mut slower.candidates {
        candidate.timed.iter_mut().for_each(|(t, _)| t.decode_ms *= 1.5);
        candidate.training_seconds = candidate.training_seconds.map(|s| 2.0 * s);
    }
    slower.times.insert("score".into(), 99.0);
    let (a, b) = (decide(&whole()).unwrap(), decide(&slower).unwrap());
    assert_ne!(a, b);
    assert_eq!(a.without_times(), b.without_times());
    assert_eq!(a.verdict, b.verdict);
}

#[test]
fn a_threshold_comes_from_dev_and_is_judged_on_test() {
    // Surer answers lose less: those above 0.5 nothing, the others all.
    let answers = |n: usize| SureAnswers {
        items: n + n / 4,
        answers: (0..n)
            .map(|i| (format!("doc{i}"), i as f64 / n as f64, f64::from(u8::from(2 * i < n))))
            .collect(),
    };
    let mut input = whole();
    input.candidates[1].sure = Some(Sure { test: answers(120), dev: answers(200) });
    input.candidates[2].sure = Some(Sure { test: answers(120), dev: answers(20) });
    input.stated.max_risk = Some(0.1);
    let decision = decide(&input).unwrap();
    assert!(decision.candidates[0].selective.is_none());
    let rag = decision.candidates[1].selective.as_ref().unwrap();
    assert!(rag.curve.len() <= 61 && rag.curve.iter().all(|p| p.coverage <= 0.8 + 1e-12));
    assert_eq!(rag.curve.last(), Some(&RiskPoint { coverage: 0.8, risk: 0.5 }));
    let promise = rag.promise.unwrap();
    assert_eq!((promise.threshold, promise.dev_items), (Some(0.5), 250));
    assert_eq!(promise.dev, Some(RiskPoint { coverage: 0.4, risk: 0.0 }));
    assert_eq!(promise.test, Some(RiskPoint { coverage: 0.4, risk: 0.0 }));
    // Ten sure and right answers promise nothing.
    let few = decision.candidates[2].selective.as_ref().unwrap().promise.unwrap();
    assert_eq!((few.threshold, few.dev, few.test), (None, None, None));
}
