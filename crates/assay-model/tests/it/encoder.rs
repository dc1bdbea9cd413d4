//! MiniLM and MPNet against sentence-transformers (`tests/golden/make_encoder.py`), and what an encoder refuses.

use std::path::Path;
use std::sync::OnceLock;

use assay_model::{Encoder, EncoderError, EncoderPrecision};
use fs_err as fs;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    text: String,
    tokens: usize,
    vector: Vec<f32>,
}

fn golden() -> Vec<Golden> {
    serde_json::from_str(include_str!("../golden/encoder.json")).unwrap()
}

fn golden_mpnet() -> Vec<Golden> {
    serde_json::from_str(include_str!("../golden/mpnet.json")).unwrap()
}

/// Opened once for all tests of this file.
fn minilm() -> Option<&'static Encoder> {
    static ENCODER: OnceLock<Option<Encoder>> = OnceLock::new();
    let open = || {
        Some(
            Encoder::open(&assay_testkit::model("all-minilm-l6-v2")?, EncoderPrecision::Int8)
                .unwrap(),
        )
    };
    ENCODER.get_or_init(open).as_ref()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[track_caller]
fn check_parity(encoder: &Encoder, golden: &[Golden], at_least: f64) {
    let texts: Vec<&str> = golden.iter().map(|g| g.text.as_str()).collect();
    let vectors = encoder.embed(&texts).unwrap();
    for (g, vector) in golden.iter().zip(&vectors) {
        assert_eq!(encoder.tokens(&g.text).unwrap(), g.tokens, "{:?}", g.text);
        let cosine = cosine(&g.vector, vector);
        assert!(cosine >= at_least, "cosine {cosine} for {:?}", g.text);
        let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "length {length} for {:?}", g.text);
    }
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let Some(encoder) = minilm() else { return };
    assert_eq!((encoder.dims(), encoder.max_tokens(), encoder.hash().len()), (384, 256, 64));
    check_parity(encoder, &golden(), 0.99);
}

#[test]
fn more_bits_are_nearer_and_have_another_hash() {
    let Some(folder) = assay_testkit::model("all-minilm-l6-v2") else { return };
    let mut hashes: Vec<String> = minilm().map(|e| e.hash().to_owned()).into_iter().collect();
    for (precision, at_least) in
        [(EncoderPrecision::Bf16, 0.9999), (EncoderPrecision::F32, 0.999_99)]
    {
        let encoder = Encoder::open(&folder, precision).unwrap();
        check_parity(&encoder, &golden(), at_least);
        assert!(!hashes.iter().any(|hash| hash == encoder.hash()));
        hashes.push(encoder.hash().to_owned());
    }
}

#[test]
fn mpnet_is_that_of_sentence_transformers() {
    let Some(folder) = assay_testkit::optional_model("all-mpnet-base-v2") else { return };
    for (precision, at_least) in
        [(EncoderPrecision::Bf16, 0.9999), (EncoderPrecision::F32, 0.999_99)]
    {
        let encoder = Encoder::open(&folder, precision).unwrap();
        assert_eq!((encoder.dims(), encoder.max_tokens()), (768, 384));
        check_parity(&encoder, &golden_mpnet(), at_least);
    }
}

#[test]
fn a_text_has_the_same_bits_alone_and_in_any_batch() {
    let Some(encoder) = minilm() else { return };
    let golden = golden();
    let mut texts: Vec<&str> = golden.iter().map(|g| g.text.as_str()).collect();
    let together = encoder.embed(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        assert!(encoder.embed(&[text]).unwrap()[0] == *vector, "{text:?}");
    }
    texts.reverse();
    let mut reversed = encoder.embed(&texts).unwrap();
    reversed.reverse();
    assert!(together == reversed);
    assert!(encoder.embed(&[]).unwrap().is_empty());
}

#[test]
fn what_stands_behind_the_limit_changes_nothing() {
    let Some(encoder) = minilm() else { return };
    let long = "sensor ".repeat(300);
    let [a, b] = [format!("{long} valve"), format!("{long} orchid and more")];
    assert!(encoder.tokens(&a).unwrap() > encoder.max_tokens());
    let vectors = encoder.embed(&[&a, &b]).unwrap();
    assert!(vectors[0] == vectors[1]);
}

/// A copy of the model's small files in a new folder, with one of them changed.
fn altered(folder: &Path, name: &str, content: &[u8]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("1_Pooling")).unwrap();
    let small = [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
        "tokenizer.json",
    ];
    for file in small {
        fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    fs::write(copy.path().join(name), content).unwrap();
    copy
}

#[test]
fn refuses_what_it_cannot_do_and_names_the_file() {
    let Some(folder) = assay_testkit::model("all-minilm-l6-v2") else { return };
    let weights = fs::read(folder.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let modules = br#"[{"path":"","type":"a.Transformer"},{"path":"2_Lstm","type":"a.LSTM"}]"#;
    let wrong_type = config.replace(r#""model_type": "bert""#, r#""model_type": "deberta-v2""#);
    let wrong_size = config.replace("1536", "1535");
    let cases: [(&str, &[u8], &str); 7] = [
        ("model.safetensors", &weights[..1000], "model.safetensors: "),
        ("model.safetensors", &weights[..weights.len() - 1], "model.safetensors: "),
        (
            "config.json",
            wrong_type.as_bytes(),
            "config.json: model_type is deberta-v2, supported: bert",
        ),
        ("config.json", b"{", "config.json: EOF"),
        ("modules.json", modules, "modules.json: type is a.LSTM"),
        (
            "1_Pooling/config.json",
            br#"{"pooling_mode":"median"}"#,
            "config.json: pooling_mode is median",
        ),
        ("tokenizer.json", b"{}", "tokenizer.json: "),
    ];
    for (name, content, expected) in cases {
        let copy = altered(&folder, name, content);
        let error = Encoder::open(copy.path(), EncoderPrecision::Bf16).err().unwrap().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let copy = altered(&folder, "config.json", wrong_size.as_bytes());
    fs::write(copy.path().join("model.safetensors"), &weights).unwrap();
    let error = Encoder::open(copy.path(), EncoderPrecision::Bf16).err().unwrap();
    assert!(matches!(error, EncoderError::Shape { .. }), "{error}");
    let missing =
        Encoder::open(&copy.path().join("nowhere"), EncoderPrecision::Bf16).err().unwrap();
    assert!(matches!(missing, EncoderError::Io(_)) && missing.to_string().contains("nowhere"));
}
