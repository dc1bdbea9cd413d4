//! What this decoder computes for given prompts, for `agreement.py` beside it to compare with PyTorch.
//!
//!     agreement MODEL.gguf f32|bf16 < prompts.jsonl
//!
//! The first line that it writes is `{"vocab": ..}`. Then, for each line `{"ids": [..], "new": 24}` that
//! it reads, one with the greedy answer and the log-probability of each of its tokens, `{"tokens": [..], "log_probs":
//! [..]}`; behind its newline follow the logits of every position of the prompt, row-major, as little-endian f32.

#![expect(clippy::print_stdout, reason = "an example that answers its caller on standard output")]

use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::Path;

use assay_model::{Decoder, GenerateRequest, Precision};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    ids: Vec<u32>,
    /// Limit on new tokens.
    new: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (path, precision) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path, "f32"] => (path, Precision::F32),
        [path, "bf16"] => (path, Precision::Bf16),
        _ => return Err("usage: agreement MODEL.gguf f32|bf16 < prompts.jsonl".into()),
    };
    let decoder = Decoder::open(Path::new(path), precision)?;
    println!("{}", json!({ "vocab": decoder.config().vocab }));
    for line in std::io::stdin().lock().lines() {
        let Prompt { ids, new } = serde_json::from_str(&line?)?;
        let logits = decoder.logits(&ids, None)?;
        let request = GenerateRequest { log_probs: Some(0), ..GenerateRequest::greedy(ids, new) };
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let answer = decoder.generate(&[request], None, go_on)?.remove(0);
        let log_probs: Vec<f32> = answer.log_probs.iter().map(|step| step.log_prob).collect();
        println!("{}", json!({ "tokens": answer.tokens, "log_probs": log_probs }));
        let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()?;
    }
    Ok(())
}
