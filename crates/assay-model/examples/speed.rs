//! Tokens per second of the decoder on this machine.
//!
//!     cargo run --release -p assay-model --example speed -- MODEL.gguf [PART OF A NAME]

#![expect(clippy::print_stdout, reason = "an example that talks to the person who runs it")]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use assay_model::{Decoder, Form, GenerateRequest, Module, PackedBatch, Precision};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: speed MODEL.gguf")?;
    let only = std::env::args().nth(2).unwrap_or_default();
    let start = Instant::now();
    let decoder = Decoder::open(Path::new(&path), Precision::Bf16)?;
    println!("open                 {:8.2} s", start.elapsed().as_secs_f64());
    println!("weights              {:8.1} MB", decoder.weight_bytes() as f64 / 1e6);
    let text = |n: usize, salt: usize| -> Vec<u32> {
        (0..n).map(|i| 20 + ((i * 7919 + salt * 104_729) % 40_000) as u32).collect()
    };
    let request = |prompt, new, salt: usize| GenerateRequest::greedy(text(prompt, salt), new);
    let best = |name: &str, tokens: usize, work: &mut dyn FnMut() -> f64| {
        if !name.contains(&only) {
            return;
        }
        let rates: Vec<f64> = (0..3).map(|_| tokens as f64 / work()).collect();
        let best = rates.iter().copied().fold(0.0, f64::max);
        println!("{name:20} {best:8.0} tokens/s   {rates:.0?}");
    };
    let seconds = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    let generate = |requests: &[GenerateRequest]| {
        decoder.forget_prompts();
        let generations = decoder.generate(requests, None, &mut |_, _| ControlFlow::Continue(()));
        generations.expect("generation")
    };
    best("prefill 1024", 1024, &mut || seconds(&mut || drop(generate(&[request(1024, 1, 1)]))));
    let decoding = |requests: &[GenerateRequest]| {
        let generations = generate(requests);
        let tokens: usize = generations.iter().map(|g| g.tokens.len() - 1).sum();
        let ms: f64 = generations.iter().map(|g| g.decode_ms).sum();
        // Per token asked for, so that an early stop does not change the rate.
        ms / 1e3 / tokens as f64
    };
    best("decode, batch 1", 1, &mut || decoding(&[request(64, 64, 2)]));
    let many: Vec<GenerateRequest> = (0..32).map(|i| request(64, 32, i)).collect();
    best("decode, batch 32", 1, &mut || decoding(&many));
    // The same, with every token chosen from those that a form admits.
    let words = serde_json::json!({ "type": "string" });
    let list = serde_json::json!({ "type": "array", "items": words, "minItems": 64 });
    let held = |request: &GenerateRequest| GenerateRequest {
        form: Some(Form::JsonSchema(list.clone())),
        ..request.clone()
    };
    best("check a form", 1, &mut || {
        seconds(&mut || decoder.check_form(&Form::JsonSchema(list.clone())).expect("a form"))
    });
    best("held, batch 1", 1, &mut || decoding(&[held(&request(64, 64, 2))]));
    let many: Vec<GenerateRequest> = many.iter().map(held).collect();
    best("held, batch 32", 1, &mut || decoding(&many));

    let rows: Vec<Vec<u32>> = (0..4).map(|i| text(256, 100 + i)).collect();
    let supervised: Vec<bool> = (0..256).map(|i| i > 0).collect();
    let batch = PackedBatch::pack(rows.iter().map(|r| (&r[..], &supervised[..])));
    let mut adapter = decoder.new_adapter(16, 32.0, &Module::ALL, 1);
    let mut gradients = adapter.zeros_like();
    for checkpointing in [false, true] {
        let name = if checkpointing { "train, checkpointed" } else { "train 4x256, r16" };
        best(name, 1024, &mut || {
            // Changing the values forces the pairs to be packed anew, as each step does.
            adapter.parameters_mut();
            let divisor = batch.targets() as f64;
            seconds(&mut || {
                let step = decoder.loss_and_gradients(
                    &batch,
                    &adapter,
                    divisor,
                    &mut gradients,
                    checkpointing,
                );
                step.expect("step");
            })
        });
    }
    Ok(())
}
