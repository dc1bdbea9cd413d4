//! SentencePiece vocabularies in GGUF files: equality with sentencepiece itself; see
//! `tests/golden/make_pieces.py`.

use assay_model::{Decoder, Precision};
use candle_core::quantized::gguf_file::Value;
use serde::Deserialize;

use crate::tiny::{Shape, write};

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/pieces.json")).unwrap()
}

/// The tiny decoder with the golden vocabulary.
pub(crate) fn decoder(space_prefix: Option<bool>) -> Decoder {
    let Golden { tokens, scores, types, .. } = golden();
    let mut shape = Shape::default();
    shape.config.vocab = tokens.len();
    let array = |values: Vec<Value>| Value::Array(values);
    shape.metadata = vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.pre", Value::String("default".into())),
        ("tokenizer.ggml.tokens", array(tokens.into_iter().map(Value::String).collect())),
        ("tokenizer.ggml.scores", array(scores.into_iter().map(Value::F32).collect())),
        ("tokenizer.ggml.token_type", array(types.into_iter().map(Value::I32).collect())),
    ];
    let space = space_prefix.map(|flag| ("tokenizer.ggml.add_space_prefix", Value::Bool(flag)));
    shape.metadata.extend(space);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write(&path, &shape);
    Decoder::open(&path, Precision::F32).unwrap()
}

#[test]
fn tokens_equal_sentencepiece() {
    let decoder = decoder(None);
    let tokenizer = decoder.tokenizer();
    assert!(tokenizer.adds_bos(), "as llama.cpp reads files that do not say");
    for Text { text, ids, decoded } in golden().texts {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true), decoded, "{text:?}");
        // What stands for a space in pieces comes back as one.
        assert_eq!(decoded, text.replace('\u{2581}', " "));
        let mut stream = tokenizer.stream();
        let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
        streamed += &stream.finish();
        assert_eq!(streamed, decoded);
    }
}

#[test]
fn literals_are_taken_out_first() {
    let (decoder, id) = (decoder(Some(false)), |name: &str| {
        golden().tokens.iter().position(|t| t == name).unwrap() as u32
    });
    let tokenizer = decoder.tokenizer();
    let encode = |text: &str| tokenizer.encode(text).unwrap();
    assert_eq!(encode("</s><s>"), [id("</s>"), id("<s>")]);
    let ids = encode("xfn main()</s>x");
    assert_eq!(ids, [id("x"), id("fn main()"), id("</s>"), id("x")]);
    assert_eq!(tokenizer.decode(&ids, true), "xfn main()x");
    assert_eq!(encode("<0x0A>"), [encode("<"), encode("0x0A>")].concat(), "no byte by its name");
    assert_eq!(encode("\n"), [id("<0x0A>")]);
    assert!(encode("").is_empty());
    assert_eq!(tokenizer.decode(&encode(" x"), true), " x", "no space of its own");
}
