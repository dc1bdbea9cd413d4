//! Whole items through the scorer, and the metrics that no package defines.

use assay_eval::*;
use assay_types::*;
use serde_json::json;

pub(crate) fn output(text: &str, documents: &[&str]) -> Output {
    let retrieved = |(i, d): (usize, &&str)| Retrieved {
        document: (*d).to_owned(),
        start: 0,
        end: 10,
        score: 1.0 / (i + 1) as f64,
        in_context: i < 2,
    };
    Output {
        text: text.to_owned(),
        citations: Vec::new(),
        dropped_citations: 0,
        retrieved: documents.iter().enumerate().map(retrieved).collect(),
        abstained: false,
        finish: FinishReason::Stop,
        timing: Timing::default(),
        usage: None,
        confidence: None,
        log_probs: Vec::new(),
    }
}

fn item(references: &[&str], doc_ids: &[&str]) -> Item {
    Item {
        id: ItemId("q1".into()),
        input: "?".into(),
        system: None,
        references: references.iter().map(|r| (*r).to_owned()).collect(),
        doc_ids: doc_ids.iter().map(|d| (*d).to_owned()).collect(),
        answerable: Some(!references.is_empty()),
        slices: Default::default(),
        source: RowRef { file: "test.jsonl".into(), row: 1 },
    }
}

fn cite(document: &str) -> Citation {
    Citation {
        document: document.into(),
        start: 0,
        end: 3,
        quote: "abc".into(),
        source_number: 1,
        repaired: false,
        pages: None,
    }
}

#[track_caller]
fn check(scorer: &Scorer, item: &Item, output: &Output, expected: &[(&str, Option<f64>)]) {
    let got = scorer.score(item, Ok(output));
    assert!(got.keys().map(String::as_str).eq({
        let mut names: Vec<_> = scorer.metrics().collect();
        names.sort_unstable();
        names
    }));
    for (name, value) in expected {
        let close = match (got[*name].value(), value) {
            (Some(got), Some(value)) => (got - value).abs() < 1e-12,
            (got, value) => got == *value,
        };
        assert!(close, "{name}: {:?}, expected {value:?}", got[*name]);
    }
}

#[test]
fn qa_with_sources() {
    let scorer = Scorer::new(Task::Qa, Vec::new(), None).unwrap();
    assert_eq!(scorer.primary_metric(), "f1");
    let mut answer =
        output("Forty days [1], counted from delivery [2, 3].", &["b.md", "a.md", "a.md", "c.md"]);
    answer.citations = vec![cite("a.md"), cite("c.md")];
    answer.dropped_citations = 2;
    check(
        &scorer,
        &item(&["forty days counted from delivery"], &["a.md", "d.md"]),
        &answer,
        &[
            ("f1", Some(1.0)),
            ("em", Some(1.0)),
            ("abstention_accuracy", Some(1.0)),
            ("citation_validity", Some(0.5)),
            ("citation_precision", Some(0.5)),
            ("citation_recall", Some(0.5)),
            ("recall@5", Some(0.5)),
            ("context_recall", Some(0.5)),
            ("mrr", Some(0.5)),
            ("finished", Some(1.0)),
            ("repetition", Some(0.0)),
        ],
    );
}

#[test]
fn qa_without_sources_skips_what_does_not_apply() {
    let scorer = Scorer::new(Task::Qa, Vec::new(), None).unwrap();
    let answer = output("see [1]", &[]);
    check(
        &scorer,
        &item(&["see 1"], &["a.md"]),
        &answer,
        &[
            ("f1", Some(1.0)),
            ("recall@5", None),
            ("citation_recall", None),
            ("citation_validity", None),
            ("repetition", None),
        ],
    );
}

#[test]
fn an_unanswerable_question_wants_a_refusal() {
    let scorer = Scorer::new(Task::Qa, Vec::new(), None).unwrap();
    let question = item(&[], &[]);
    let mut refusal = output("I cannot find that in the documents.", &["a.md"]);
    refusal.abstained = true;
    check(
        &scorer,
        &question,
        &refusal,
        &[("f1", Some(1.0)), ("em", Some(1.0)), ("abstention_accuracy", Some(1.0))],
    );
    let guess = output("Forty days.", &["a.md"]);
    check(
        &scorer,
        &question,
        &guess,
        &[("f1", Some(0.0)), ("abstention_accuracy", Some(0.0)), ("recall@5", None)],
    );
    check(
        &scorer,
        &item(&["forty"], &[]),
        &refusal,
        &[("f1", Some(0.0)), ("abstention_accuracy", Some(0.0))],
    );
}

#[test]
fn a_failed_output_fails_every_metric() {
    let scorer = Scorer::new(Task::Qa, Vec::new(), None).unwrap();
    let scores = scorer.score(&item(&["x"], &[]), Err("out of memory"));
    assert_eq!(scores.len(), scorer.metrics().count());
    assert!(scores.values().all(|s| *s == Score::Failed("out of memory".into())));
}

#[test]
fn labels_match_whole() {
    let labels = vec!["billing".to_owned(), "card lost".to_owned()];
    let scorer = Scorer::new(Task::Classify, labels, None).unwrap();
    let gold = item(&["billing"], &[]);
    check(
        &scorer,
        &gold,
        &output(" billing\n", &[]),
        &[("accuracy", Some(1.0)), ("valid_label", Some(1.0))],
    );
    check(
        &scorer,
        &gold,
        &output("card lost", &[]),
        &[("accuracy", Some(0.0)), ("valid_label", Some(1.0))],
    );
    check(
        &scorer,
        &gold,
        &output("billing.", &[]),
        &[("accuracy", Some(0.0)), ("valid_label", Some(0.0))],
    );
    assert!(Scorer::new(Task::Classify, Vec::new(), None).is_err());
}

#[test]
fn extraction_is_strict_about_form_and_lenient_about_order() {
    let schema = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "tags": {"type": "array"}}});
    let scorer = Scorer::new(Task::Extract, Vec::new(), Some(&schema)).unwrap();
    let gold = item(&[r#"{"name": "Ada", "tags": ["x", "y"], "age": 36, "note": null}"#], &[]);
    for (text, f1, valid) in [
        (r#"{"tags": ["y", "x"], "age": 36.0, "name": " Ada "}"#, 1.0, 1.0),
        (r#"{"name": "Ada", "tags": ["x"], "age": "36"}"#, 4.0 / 7.0, 1.0),
        (r#"{"tags": []}"#, 0.0, 0.0),
        ("```json\n{\"name\": \"Ada\"}\n```", 0.0, 0.0),
        ("", 0.0, 0.0),
    ] {
        check(
            &scorer,
            &gold,
            &output(text, &[]),
            &[("slot_f1", Some(f1)), ("schema_valid", Some(valid))],
        );
    }
    assert!(matches!(slot_f1("{}", "not json"), Score::Failed(_)));
    assert_eq!(slot_f1("{}", "{}").value(), Some(1.0));
}

#[test]
fn a_broken_schema_says_where() {
    let error = Schema::new(&json!({"properties": {"a": {"type": "strnig"}}})).unwrap_err();
    assert!(error.to_string().contains("/properties/a/type"), "{error}");
    assert!(
        Schema::new(&json!({"$ref": "https://example.com/other.json"})).is_err(),
        "nothing is fetched"
    );
}

#[test]
fn generation_scores_the_best_reference() {
    let scorer = Scorer::new(Task::Generate, Vec::new(), None).unwrap();
    let gold = item(&["the dogs are running", "nothing alike"], &[]);
    check(
        &scorer,
        &gold,
        &output("a dog runs", &[]),
        &[("token_f1", Some(0.0)), ("rougeL", Some(4.0 / 7.0))],
    );
    let none = scorer.score(&item(&[], &[]), Ok(&output("x", &[])));
    assert!(matches!(none["rougeL"], Score::Failed(_)));
}

#[test]
fn a_loop_shows_as_repetition() {
    let looped = output(&"the same four words ".repeat(50), &[]);
    assert!(repetition(&looped).value().unwrap() > 0.95);
}

#[test]
fn macro_f1_has_an_interval_and_counts_invalid_outputs_as_misses() {
    let items: Vec<Labelled> = (0..60)
        .map(|i| Labelled {
            cluster: format!("{i}"),
            gold: ["a", "b", "c"][i % 3].into(),
            predicted: match i % 10 {
                0 => None,
                1 => Some("a".into()),
                _ => Some(["a", "b", "c"][i % 3].into()),
            },
        })
        .collect();
    let how = Resampling { samples: 500, seed: 1, level: 0.95 };
    let summary = macro_f1(&items, 2, how);
    let value = summary.value.unwrap();
    assert!(summary.ci_low.unwrap() < value && value < summary.ci_high.unwrap());
    assert_eq!((summary.n, summary.failed), (60, 2));
    assert_eq!(summary, macro_f1(&items, 2, how));
    let confusion = Confusion::of(&items);
    assert_eq!(confusion.labels, ["a", "b", "c"], "an invalid output is no class");
    assert_eq!(confusion.counts.iter().map(|row| row[3]).sum::<usize>(), 6);
    assert_eq!(macro_f1(&[], 0, how).value, None);
}
