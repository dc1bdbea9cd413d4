//! What reuse of a common beginning saves: items with the same long prompt, with it and without.
//!
//!     cargo run --release -p assay-model --example prefix -- MODEL.gguf [ITEMS] [SHARED TOKENS]

#![expect(clippy::print_stdout, reason = "an example that talks to the person who runs it")]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use assay_model::{Decoder, GenerateRequest, Generation, Precision};

/// Tokens of an item behind the common beginning, and of its answer.
const OWN: usize = 24;
const ANSWER: usize = 4;
/// Items of one call, as an evaluation makes them.
const BATCH: usize = 64;
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: prefix MODEL.gguf [ITEMS] [SHARED TOKENS]")?;
    let items: usize = args.next().map_or(Ok(200), |n| n.parse())?;
    let shared: usize = args.next().map_or(Ok(1000), |n| n.parse())?;
    let decoder = Decoder::open(Path::new(&path), Precision::Bf16)?;
    let text = |n: usize, salt: usize| {
        (0..n).map(move |i| 20 + ((i * 7919 + salt * 104_729) % 40_000) as u32)
    };
    let requests: Vec<GenerateRequest> = (1..=items)
        .map(|i| GenerateRequest::greedy(text(shared, 0).chain(text(OWN, i)).collect(), ANSWER))
        .collect();
    let answer = |requests: &[GenerateRequest]| {
        decoder.generate(requests, None, &mut |_, _| ControlFlow::Continue(()))
    };
    let with = |_: usize| -> Result<(f64, Vec<Generation>), assay_model::ModelError> {
        decoder.forget_prompts();
        let (start, mut found) = (Instant::now(), Vec::new());
        for requests in requests.chunks(BATCH) {
            found.extend(answer(requests)?);
        }
        Ok((start.elapsed().as_secs_f64(), found))
    };
    // Without: nobody to share with. The same batches with prompts that differ from the first token on take
    // the same time as these would.
    let apart: Vec<GenerateRequest> = (1..=items)
        .map(|i| GenerateRequest::greedy(text(shared + OWN, i).collect(), ANSWER))
        .collect();
    let without = || -> Result<f64, assay_model::ModelError> {
        let start = Instant::now();
        for requests in apart.chunks(BATCH) {
            decoder.forget_prompts();
            answer(requests)?;
        }
        Ok(start.elapsed().as_secs_f64())
    };
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (seconds, found) = with(round)?;
        let reused: usize = found.iter().map(|g| g.shared_tokens).sum();
        let read: usize = found.iter().map(|g| g.input_tokens - g.shared_tokens).sum();
        fast.push(seconds);
        slow.push(without()?);
        println!(
            "round {round}: with {seconds:.2} s ({reused} tokens reused, {read} read), without {:.2} s",
            slow[round]
        );
    }
    let median = |v: &mut Vec<f64>| {
        v.sort_unstable_by(f64::total_cmp);
        v[v.len() / 2]
    };
    let (fast, slow) = (median(&mut fast), median(&mut slow));
    println!(
        "{items} items, {shared} shared tokens: {slow:.2} s / {fast:.2} s = {:.1} times",
        slow / fast
    );
    Ok(())
}
