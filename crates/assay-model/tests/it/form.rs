//! Answers of a given form, checked by what knows nothing of the decoder: the crates `jsonschema` and `regex`.

use std::ops::ControlFlow;

use assay_model::{Decoder, Form, GenerateRequest, Generation, ModelError, Precision, Sampling};
use assay_types::{FinishReason, Message, Role};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::decoding::{check_batch_equals_single, request};
use crate::tiny::Tiny;

/// Greedy with seed 0, else sampled in one of two ways.
fn ask(tokens: &[u32], form: Form, seed: u64, limit: usize) -> GenerateRequest {
    let free = request(tokens, limit, seed.min(2));
    let sampling = Sampling { seed, ..free.sampling };
    GenerateRequest { sampling, form: Some(form), ..free }
}

fn generate(
    decoder: &Decoder,
    requests: &[GenerateRequest],
) -> Result<Vec<Generation>, ModelError> {
    decoder.generate(requests, None, &mut |_, _| ControlFlow::Continue(()))
}

fn prompt(decoder: &Decoder, question: &str) -> Vec<u32> {
    decoder.prompt_tokens(&[Message::new(Role::User, question)]).unwrap()
}

/// Schemas of different kinds, each with a question that invites such an answer.
fn schemas() -> Vec<(&'static str, Value)> {
    let order = json!({
        "type": "object",
        "properties": {
            "product": { "type": "string", "minLength": 1, "maxLength": 30 },
            "count": { "type": "integer", "minimum": 1, "maximum": 99 },
            "express": { "type": "boolean" },
        },
        "required": ["product", "count", "express"],
        "additionalProperties": false,
    });
    let colours = json!({
        "type": "array", "items": { "enum": ["red", "green", "blue"] }, "minItems": 2, "maxItems": 4,
    });
    let person = json!({
        "$defs": {
            "place": {
                "type": "object",
                "properties": {
                    "city": { "type": "string", "maxLength": 20 },
                    "zip": { "type": "string", "pattern": "^[0-9]{5}$" },
                },
                "required": ["city", "zip"],
                "additionalProperties": false,
            },
        },
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 20 },
            "born": { "type": "string", "format": "date" },
            "homes": { "type": "array", "items": { "$ref": "#/$defs/place" }, "minItems": 1, "maxItems": 2 },
            "nickname": { "anyOf": [{ "type": "string", "maxLength": 10 }, { "type": "null" }] },
        },
        "required": ["name", "born", "homes", "nickname"],
        "additionalProperties": false,
    });
    let number = json!({ "type": "number", "minimum": -2.5, "maximum": 1000 });
    let escapes = json!({
        "type": "object",
        "properties": {
            "größe \"in\" \\": { "enum": ["klein\n", "groß \u{1F99C}", "\"\\/"] },
            "日本": { "const": { "é": [1, 2.5, null, "\u{7}"] } },
            "free": { "type": "string", "maxLength": 12 },
        },
        "required": ["größe \"in\" \\", "日本", "free"],
        "additionalProperties": false,
    });
    let either = json!({
        "oneOf": [
            {
                "type": "object",
                "properties": { "kind": { "const": "refund" }, "euros": { "type": "number", "minimum": 0, "maximum": 50 } },
                "required": ["kind", "euros"],
                "additionalProperties": false,
            },
            {
                "type": "object",
                "properties": { "kind": { "const": "other" }, "why": { "type": "string", "maxLength": 20 } },
                "required": ["kind", "why"],
                "additionalProperties": false,
            },
        ],
    });
    vec![
        ("I want three lamps by tomorrow. Extract the order as JSON.", order),
        ("Which colours has a traffic light? Reply with a JSON list.", colours),
        ("Ada Lovelace was born on 1815-12-10 and lived in London. Extract as JSON.", person),
        ("How many days has a year? Reply with a number.", number),
        ("Welche Größe? Antworte mit JSON.", escapes),
        ("The lamp is broken, I want my 12 euros back. Reply with JSON.", either),
    ]
}

fn check_satisfies(schema: &Value, text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    assert!(validator.is_valid(&value), "{text} against {schema}");
}

fn check_schemas(decoder: &Decoder, seeds: std::ops::Range<u64>) {
    let schemas = schemas();
    let requests: Vec<_> = schemas
        .iter()
        .flat_map(|(question, schema)| {
            let tokens = prompt(decoder, question);
            let form = Form::JsonSchema(schema.clone());
            seeds.clone().map(move |seed| ask(&tokens, form.clone(), seed, 300))
        })
        .collect();
    let answers = generate(decoder, &requests).unwrap();
    let mut ended = 0;
    for (i, answer) in answers.iter().enumerate() {
        let schema = &schemas[i / seeds.clone().count()].1;
        match answer.finish {
            FinishReason::Stop => check_satisfies(schema, &answer.text),
            // A number may have digits without end.
            FinishReason::Length => assert!(answer.text.ends_with(|c: char| c.is_ascii_digit())),
        }
        ended += usize::from(answer.finish == FinishReason::Stop);
    }
    assert!(10 * ended >= 9 * answers.len(), "{ended} of {} have ended", answers.len());
}

#[test]
fn answers_satisfy_their_schemas() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    check_schemas(&decoder, 0..5);
}

/// Byte-level pairs with a large vocabulary, and SentencePiece's pieces.
#[test]
fn answers_of_other_families_satisfy_their_schemas() {
    let qwen = assay_testkit::optional_model("qwen2.5-coder-0.5b-instruct");
    let gemma = assay_testkit::optional_model("gemma-3-270m");
    for folder in [qwen, gemma].into_iter().flatten() {
        let files = folder.read_dir().unwrap().map(|f| f.unwrap().path());
        let Some(gguf) = files.into_iter().find(|f| f.extension().is_some_and(|e| e == "gguf"))
        else {
            continue;
        };
        let decoder = Decoder::open(&gguf, Precision::Bf16).unwrap();
        let question = decoder.tokenizer().encode("Order: three lamps. As JSON: ").unwrap();
        let mut asked = schemas();
        asked.retain(|(question, _)| question.contains("lamp"));
        let requests: Vec<_> = asked
            .iter()
            .flat_map(|(_, schema)| {
                [0, 1].map(|seed| ask(&question, Form::JsonSchema(schema.clone()), seed, 300))
            })
            .collect();
        for (i, answer) in generate(&decoder, &requests).unwrap().iter().enumerate() {
            assert_eq!(answer.finish, FinishReason::Stop, "{}", answer.text);
            check_satisfies(&asked[i / 2].1, &answer.text);
        }
    }
}

#[test]
fn objects_patterns_and_choices() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let labels = ["refund", "refund status", "c++ (help)", "Größe?", " / \n"].map(str::to_owned);
    let patterns = [
        r"[12][0-9]{3}-[01][0-9]-[0-3][0-9]",
        r"(ja|nein), (weil|obwohl) \w{1,12}[.!]",
        r"\+49 \d{2,4}/\d{3,6}",
        "[^a-z\\s]{3,5}é?",
        "^[a-c]{2,4}$",
    ];
    let (cat, war) = (prompt(&decoder, "Describe a cat as JSON."), prompt(&decoder, "When?"));
    for seed in 0..5 {
        let mut requests = vec![
            ask(&cat, Form::JsonObject, seed, 200),
            ask(&war, Form::OneOf(labels.to_vec()), seed, 30),
        ];
        requests.extend(patterns.map(|p| ask(&war, Form::Regex(p.into()), seed, 60)));
        let answers = generate(&decoder, &requests).unwrap();
        if answers[0].finish == FinishReason::Stop {
            check_satisfies(&json!({ "type": "object" }), &answers[0].text);
        }
        assert!(answers[0].text.starts_with('{'), "{}", answers[0].text);
        assert_eq!(answers[1].finish, FinishReason::Stop);
        assert!(labels.contains(&answers[1].text), "{:?}", answers[1].text);
        for (pattern, answer) in patterns.iter().zip(&answers[2..]) {
            assert_eq!(answer.finish, FinishReason::Stop, "{}", answer.text);
            let whole = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
            assert!(whole.is_match(&answer.text), "{pattern}: {:?}", answer.text);
        }
    }
}

/// Some held to forms, some free: each says the same alone, to the bit.
#[test]
fn forms_do_not_depend_on_the_batch_nor_the_batch_on_them() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let mut requests = Vec::new();
    for (i, (question, schema)) in schemas().into_iter().enumerate() {
        let tokens = prompt(&decoder, question);
        requests.push(ask(&tokens, Form::JsonSchema(schema), i as u64, 24));
        if i % 2 == 0 {
            requests.push(request(&tokens, 24, i as u64 / 2));
        }
    }
    check_batch_equals_single(&decoder, &requests, None);
}

#[test]
fn a_limit_or_a_stop_text_within_a_form_is_told() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let tokens = prompt(&decoder, "Which lamp?");
    let form = || Form::Regex("(lamp )+switch".into());
    let one = |request: GenerateRequest| generate(&decoder, &[request]).unwrap().remove(0);
    let schema =
        json!({ "type": "array", "items": { "const": "lamp" }, "minItems": 3, "maxItems": 3 });
    let whole = one(ask(&tokens, Form::JsonSchema(schema.clone()), 0, 100));
    assert_eq!(whole.finish, FinishReason::Stop);
    // Nothing may follow, so no pass is spent on a token that says so.
    assert!(!decoder.stop_tokens().contains(whole.tokens.last().unwrap()));
    for limit in 1..=whole.tokens.len() {
        let cut = one(ask(&tokens, Form::JsonSchema(schema.clone()), 0, limit));
        assert_eq!(cut.tokens, whole.tokens[..limit]);
        let ended = limit == whole.tokens.len();
        assert_eq!(cut.finish == FinishReason::Stop, ended, "{}", cut.text);
        assert_eq!(serde_json::from_str::<Value>(&cut.text).is_ok(), ended, "{}", cut.text);
    }
    let stop = vec!["amp s".to_owned(), "mp l".to_owned()];
    let stopped = one(GenerateRequest { stop, ..ask(&tokens, form(), 0, 100) });
    assert_eq!((stopped.text.as_str(), stopped.finish), ("la", FinishReason::Stop));
    let mut seen = 0;
    let mut third = |_, _| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let broken = decoder.generate(&[ask(&tokens, form(), 0, 100)], None, &mut third).unwrap();
    assert_eq!(broken[0].tokens.len(), 3);
}

/// They are the model's own, whatever the form leaves to choose from.
#[test]
fn log_probabilities_are_those_before_the_form() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let tokens = prompt(&decoder, "Which colour has grass?");
    let held = ask(&tokens, Form::OneOf(vec!["#0f0".into(), "green".into()]), 0, 20);
    let free = GenerateRequest { form: None, ..held.clone() };
    let answers = generate(&decoder, &[held, free]).unwrap();
    let (held, free) = (&answers[0], &answers[1]);
    assert_eq!(held.log_probs[0].top, free.log_probs[0].top);
    assert_eq!(held.log_probs.len(), held.tokens.len());
    for (told, &token) in held.log_probs.iter().zip(&held.tokens) {
        assert_eq!((told.token, told.top.len()), (token, 3));
        assert!(told.log_prob.is_finite() && told.log_prob <= told.top[0].1, "{told:?}");
        assert!(told.top.iter().all(|(_, l)| l.is_finite() && *l <= 0.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// Random weights, which know nothing of the form, keep to it, whatever stands before texts.
    #[test]
    fn a_choice_is_one_of_the_texts(
        texts in prop::collection::vec("[a-z./\\\\\\[\"\n(ü][a-z./\\\\\\[\" )ü]{0,7}", 1..6),
        seed in 0u64..1000,
        tokenizer in 0..3,
    ) {
        let decoder = match tokenizer {
            0 => Tiny::new(true).decoder,
            1 => crate::pieces::decoder(Some(true)),
            _ => crate::pieces::decoder(Some(false)),
        };
        let request = ask(&[40, 41], Form::OneOf(texts.clone()), seed, 60);
        let answer = generate(&decoder, &[request]).unwrap().remove(0);
        prop_assert_eq!(answer.finish, FinishReason::Stop);
        prop_assert!(texts.contains(&answer.text), "{:?} of {:?}", answer.text, texts);
    }
}

#[test]
fn what_cannot_be_kept_is_refused_before_anything_is_generated() {
    let tiny = Tiny::new(true);
    #[track_caller]
    fn check(tiny: &Tiny, form: Form, says: &str) {
        let error = tiny.decoder.check_form(&form).unwrap_err();
        assert!(matches!(error, ModelError::Form { .. }));
        let error = error.to_string();
        assert!(error.contains(says), "{error:?} does not contain {says:?}");
        assert!(!error.contains(['\n', '<']), "{error}");
        let requests = [ask(&[4], Form::JsonObject, 0, 5), ask(&[4], form, 0, 5)];
        let mut nothing = |_, _| panic!("nothing is generated");
        assert!(tiny.decoder.generate(&requests, None, &mut nothing).is_err());
    }
    let schema = |schema: Value, says: &str| check(&tiny, Form::JsonSchema(schema), says);
    schema(json!({ "type": "strnig" }), "JSON schema: Invalid type: strnig");
    let inner = json!({ "type": "object", "properties": { "a/b": { "items": { "type": 5 } } } });
    schema(inner, "JSON schema at /properties/a~1b/items: ");
    schema(json!({ "anyOf": [{ "type": "null" }, { "not": {} }] }), "at /anyOf/1: ");
    schema(json!({ "type": "string", "format": "colour" }), "colour");
    let pattern = json!({ "properties": { "a": { "type": "string", "pattern": "(" } } });
    schema(pattern, "JSON schema at /properties/a: regex parse error: unclosed group");
    schema(json!([1]), "JSON schema: it is no object");
    schema(json!({ "$ref": "#/$defs/none" }), "none");
    schema(json!({ "$ref": "https://example.com/schema" }), "https://example.com/schema");
    schema(json!({ "type": "integer", "minimum": 5, "maximum": 4 }), "5");
    schema(json!({ "$ref": "#" }), "JSON schema: nothing satisfies it");
    let pattern = |regex: &str, says: &str| check(&tiny, Form::Regex(regex.into()), says);
    pattern("(", "unclosed group");
    pattern("a\\b", "lookarounds not supported");
    pattern("", "regular expression: it is empty");
    check(&tiny, Form::OneOf(Vec::new()), "choice: there is nothing to choose from");
    for form in [Form::JsonObject, Form::JsonSchema(json!({})), Form::Regex("a*".into())] {
        tiny.decoder.check_form(&form).unwrap();
    }
}

#[test]
fn a_form_keeps_the_order_of_properties_where_it_is_stored() {
    let schema = json!({ "properties": { "z": {}, "a": {} } });
    let text = serde_json::to_string(&Form::JsonSchema(schema.clone())).unwrap();
    assert_eq!(text, r#"{"json_schema":"{\"properties\":{\"z\":{},\"a\":{}}}"}"#);
    assert_eq!(serde_json::from_str::<Form>(&text).unwrap(), Form::JsonSchema(schema));
    let choice = Form::OneOf(vec!["a".into()]);
    assert_eq!(serde_json::to_string(&choice).unwrap(), r#"{"one_of":["a"]}"#);
}
