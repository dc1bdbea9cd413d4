//! Equality with transformers and sentencepiece on the real weights of Qwen2.5 and Gemma 3; see
//! `tests/golden/make_real.py`.

use std::path::PathBuf;

use assay_model::{Decoder, GenerateRequest, Precision};
use assay_types::{Message, Role};
use serde::Deserialize;
use std::ops::ControlFlow;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    /// Most likely token at every position, and by how much its logit leads.
    best: Vec<u32>,
    margins: Vec<f32>,
    /// Logits of some tokens at the last position.
    last: Vec<(u32, f32)>,
}

fn qwen() -> Option<PathBuf> {
    let folder = assay_testkit::optional_model("qwen2.5-coder-0.5b-instruct")?;
    Some(folder.join("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"))
}

fn gemma() -> Option<PathBuf> {
    Some(assay_testkit::optional_model("gemma-3-270m")?.join("gemma-3-270m-q4_k_m.gguf"))
}

#[expect(clippy::print_stderr, reason = "states how near the logits are")]
fn check(path: Option<PathBuf>, golden: &str) -> Option<Decoder> {
    let decoder = Decoder::open(&path?, Precision::F32).unwrap();
    let Golden { texts, prompts } = serde_json::from_str(golden).unwrap();
    let tokenizer = decoder.tokenizer();
    for Text { text, ids } in texts {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        // Qwen composes characters and U+2581 is Gemma's space; apart from that a text comes back.
        if !text.contains(['\u{301}', '\u{2581}']) {
            assert_eq!(tokenizer.decode(&ids, false), text);
        }
    }
    let vocab = decoder.config().vocab;
    let mut largest = 0f32;
    for Prompt { ids, best, margins, last } in prompts {
        let logits = decoder.logits(&ids, None).unwrap();
        for (position, row) in logits.chunks(vocab).enumerate() {
            let ours = (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            let same = ours as u32 == best[position];
            assert!(same || margins[position] < 1e-3, "position {position}: {ours}");
        }
        let row = &logits[logits.len() - vocab..];
        for (id, expected) in last {
            largest = largest.max((row[id as usize] - expected).abs());
        }
    }
    eprintln!("largest difference of a logit: {largest:e}");
    assert!(largest < 5e-3, "{largest}");
    Some(decoder)
}

#[test]
fn qwen2_equals_transformers() {
    let Some(exact) = check(qwen(), include_str!("../golden/qwen2.json")) else { return };
    // In bf16 the answer is written from the integers of the file.
    let fast = Decoder::open(exact.path(), Precision::Bf16).unwrap();
    for decoder in [exact, fast] {
        let question = "What is the capital of France? Answer in one word.";
        let tokens = decoder.prompt_tokens(&[Message::new(Role::User, question)]).unwrap();
        let request = GenerateRequest::greedy(tokens, 16);
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let answer = decoder.generate(&[request], None, go_on).unwrap().remove(0).text;
        assert!(answer.starts_with("Paris"), "{answer}");
    }
}

#[test]
fn gemma3_equals_transformers() {
    check(gemma(), include_str!("../golden/gemma3.json"));
}
