//! Tiny random encoders and rerankers of each family against sentence-transformers
//! (`tests/golden/make_encoder_families.py`).

use std::path::PathBuf;

use assay_model::{CrossEncoder, Encoder, EncoderError, EncoderPrecision, Prefixes};
use fs_err as fs;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Embedded {
    texts: Vec<String>,
    documents: Vec<Vec<f32>>,
    query: String,
    query_vector: Vec<f32>,
    max_tokens: usize,
}

#[derive(Deserialize)]
struct Scored {
    texts: Vec<String>,
    queries: Vec<String>,
    /// `[queries][texts * labels]`.
    scores: Vec<Vec<f32>>,
    labels: usize,
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoders").join(name)
}

fn golden<T: DeserializeOwned>(name: &str) -> T {
    let file = fs::read_to_string(folder(name).join("golden.json")).unwrap();
    serde_json::from_str(&file).unwrap()
}

fn strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// Largest difference, relative to the size of the values.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    got.iter().zip(want).fold(0.0f32, |m, (g, w)| m.max((g - w).abs())) / largest
}

#[track_caller]
fn check_encoder(name: &str) {
    let golden: Embedded = golden(name);
    let texts = strs(&golden.texts);
    for (precision, tolerance) in [
        (EncoderPrecision::F32, 5e-6),
        (EncoderPrecision::Bf16, 0.01),
        (EncoderPrecision::Int8, 0.02),
    ] {
        let encoder = Encoder::open(&folder(name), precision).unwrap();
        assert_eq!(encoder.max_tokens(), golden.max_tokens);
        let vectors = encoder.embed(&texts).unwrap();
        for ((text, vector), want) in texts.iter().zip(&vectors).zip(&golden.documents) {
            assert_eq!(vector.len(), encoder.dims());
            let difference = difference(vector, want);
            assert!(difference < tolerance, "{name} {precision:?} {difference}: {text:?}");
            assert!(encoder.embed(&[text]).unwrap()[0] == *vector, "{name} alone: {text:?}");
        }
        let query = encoder.embed_queries(&[&golden.query]).unwrap().remove(0);
        let difference = difference(&query, &golden.query_vector);
        assert!(difference < tolerance, "{name} {precision:?} {difference}: the query");
    }
}

#[test]
fn bert_with_a_dense_layer_and_prompts() {
    check_encoder("bert-dense");
    let encoder = Encoder::open(&folder("bert-dense"), EncoderPrecision::F32).unwrap();
    let Prefixes { query, document } = encoder.prefixes();
    assert_eq!((query.as_str(), document.as_str()), ("hold: ", "oil pump "));
    assert_eq!(encoder.dims(), 10);
}

#[test]
fn bert_by_its_first_token_in_half_precision() {
    check_encoder("bert-cls");
}

#[test]
fn xlm_roberta_with_positions_behind_the_padding() {
    check_encoder("xlm-roberta-max");
}

#[test]
fn mpnet_with_relative_positions() {
    check_encoder("mpnet");
}

#[test]
fn prefixes_stand_before_the_text_and_count() {
    let plain = Encoder::open(&folder("bert-cls"), EncoderPrecision::F32).unwrap();
    let prefixes = Prefixes { query: "hold: ".into(), document: "oil ".into() };
    let open = || Encoder::open(&folder("bert-cls"), EncoderPrecision::F32).unwrap();
    let prefixed = open().with_prefixes(prefixes.clone());
    let texts = ["the pump", "hold the valve"];
    let by_hand = |prefix: &str| texts.map(|text| format!("{prefix}{text}"));
    let embed = |texts: &[String]| plain.embed(&strs(texts)).unwrap();
    assert!(prefixed.embed(&texts).unwrap() == embed(&by_hand("oil ")));
    assert!(prefixed.embed_queries(&texts).unwrap() == embed(&by_hand("hold: ")));
    assert_eq!(prefixed.tokens("the pump").unwrap(), plain.tokens("oil the pump").unwrap());
    assert_ne!(prefixed.hash(), plain.hash());
    assert_eq!(prefixed.hash(), open().with_prefixes(prefixes).hash());
    assert_eq!(prefixed.with_prefixes(Prefixes::default()).hash(), plain.hash());
}

#[track_caller]
fn check_cross_encoder(name: &str) {
    let golden: Scored = golden(name);
    let texts = strs(&golden.texts);
    for (precision, tolerance) in [
        (EncoderPrecision::F32, 5e-6),
        (EncoderPrecision::Bf16, 0.04),
        (EncoderPrecision::Int8, 0.08),
    ] {
        let reranker = CrossEncoder::open(&folder(name), precision).unwrap();
        assert_eq!(reranker.labels(), golden.labels);
        for (query, want) in golden.queries.iter().zip(&golden.scores) {
            let scores = reranker.score(query, &texts).unwrap();
            let difference = difference(&scores, want);
            assert!(difference < tolerance, "{name} {precision:?} {difference}: {query:?}");
            for (text, row) in texts.iter().zip(scores.chunks(golden.labels)) {
                assert!(reranker.score(query, &[text]).unwrap() == row, "{name} alone: {text:?}");
            }
        }
        assert!(reranker.score("hold", &[]).unwrap().is_empty());
    }
}

#[test]
fn bert_reranker_gives_raw_logits_where_its_file_asks() {
    check_cross_encoder("cross-bert");
}

#[test]
fn bert_reranker_with_one_label_gives_a_sigmoid_by_default() {
    check_cross_encoder("cross-bert-sigmoid");
}

#[test]
fn roberta_reranker_with_three_labels() {
    check_cross_encoder("cross-roberta");
}

#[test]
fn an_encoder_without_a_head_is_no_reranker() {
    let error = CrossEncoder::open(&folder("bert-cls"), EncoderPrecision::F32).err().unwrap();
    assert!(matches!(error, EncoderError::Weights { .. }), "{error}");
    assert!(error.to_string().contains("classifier"), "{error}");
}
