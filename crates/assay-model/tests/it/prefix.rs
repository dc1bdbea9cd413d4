//! Laws of kept prompts and of the running batch: what was read before, and who else is answered,
//! changes no bit.

use std::ops::ControlFlow;

use assay_model::{
    Adapter, Continuation, Decoder, GenerateRequest, Generation, Module, Precision, Sampling,
};
use proptest::prelude::*;

use crate::tiny::{Shape, Values, write};

/// A tiny decoder whose context holds several pages.
fn long_tiny() -> (tempfile::TempDir, Decoder) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.gguf");
    let mut shape = Shape::default();
    shape.config.context_length = 800;
    write(&path, &shape);
    let decoder = Decoder::open(&path, Precision::Bf16).unwrap();
    (folder, decoder)
}

fn adapter(decoder: &Decoder, seed: u64) -> Adapter {
    let mut adapter = decoder.new_adapter(3, 6.0, &Module::ALL, seed);
    let mut values = Values::new(seed);
    for pair in adapter.pairs_mut() {
        pair.b.fill_with(|| values.next() * 0.3);
    }
    adapter
}

fn request(tokens: Vec<u32>, max_new_tokens: usize) -> GenerateRequest {
    GenerateRequest { log_probs: Some(2), ..GenerateRequest::greedy(tokens, max_new_tokens) }
}

fn generate(
    decoder: &Decoder,
    requests: &[GenerateRequest],
    adapter: Option<&Adapter>,
) -> Vec<Generation> {
    decoder.generate(requests, adapter, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

#[track_caller]
fn assert_same(a: &Generation, b: &Generation) {
    assert_eq!((&a.tokens, &a.text, a.finish), (&b.tokens, &b.text, b.finish));
    // Equal as floats: the logits behind them had the same bits.
    assert_eq!(a.log_probs, b.log_probs);
}

/// A text of which others begin alike: `shared` tokens of one of three, then its own.
fn text(which: u32, shared: usize, own: u32, len: usize) -> Vec<u32> {
    let common = (0..shared as u32).map(|i| (i * 7 + which * 50) % 261);
    common.chain((0..len as u32).map(|i| (i * 13 + own * 31) % 261)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    /// One decoder that remembers, and one that forgets before every request, say the same.
    #[test]
    fn what_is_kept_changes_no_bit(
        calls in prop::collection::vec(
            (0usize..3, prop::collection::vec((0u32..3, 0usize..300, 0u32..4, 1usize..40), 1..5), any::<bool>()),
            1..6,
        ),
        megabytes in 0usize..3,
    ) {
        let (_folder, warm) = long_tiny();
        let cold = Decoder::open(warm.path(), Precision::Bf16).unwrap();
        warm.set_cache_bytes(megabytes << 18);
        let mut adapters = [adapter(&warm, 1), adapter(&warm, 2)];
        for (which, texts, change) in calls {
            let adapter = which.checked_sub(1).map(|i| &adapters[i]);
            let texts: Vec<Vec<u32>> =
                texts.into_iter().map(|(a, b, c, d)| text(a, b, c, d)).collect();
            let requests: Vec<_> = texts.iter().map(|t| request(t.clone(), 5)).collect();
            for (request, warm) in requests.iter().zip(generate(&warm, &requests, adapter)) {
                cold.forget_prompts();
                let cold = generate(&cold, std::slice::from_ref(request), adapter).remove(0);
                assert_same(&warm, &cold);
            }
            let rows: Vec<Continuation> = texts
                .iter()
                .zip(1..)
                .map(|(t, n)| Continuation { context: t.clone(), continuation: text(9, 0, 5, n) })
                .collect();
            for (row, warm) in rows.iter().zip(warm.log_likelihoods(&rows, adapter).unwrap()) {
                cold.forget_prompts();
                let cold = cold.log_likelihoods(std::slice::from_ref(row), adapter).unwrap()[0];
                prop_assert_eq!(warm, cold);
            }
            if change && which > 0 {
                adapters[which - 1].parameters_mut().iter_mut().for_each(|v| *v *= 1.01);
            }
        }
    }
}

#[test]
fn prompts_are_read_once() {
    let (_folder, decoder) = long_tiny();
    let shared = |adapter: Option<&Adapter>, tokens: Vec<u32>| {
        generate(&decoder, &[request(tokens, 3)], adapter)[0].shared_tokens
    };
    let mut first = adapter(&decoder, 1);
    let second = adapter(&decoder, 2);
    let prompt = text(0, 300, 1, 20);
    assert_eq!(shared(None, prompt.clone()), 0);
    assert_eq!(shared(None, prompt.clone()), 319, "all but the last token, which is always read");
    assert_eq!(shared(None, text(0, 300, 2, 20)), 300);
    assert_eq!(shared(None, text(0, 7, 3, 20)), 7);
    // What one adapter computed is of no use to another, nor to the base, nor to itself once changed.
    assert_eq!(shared(Some(&first), prompt.clone()), 0);
    assert_eq!(shared(Some(&second), prompt.clone()), 0);
    assert_eq!(shared(Some(&first), prompt.clone()), 319);
    assert_eq!(shared(Some(&first.clone()), prompt.clone()), 319);
    first.parameters_mut()[0] += 0.1;
    assert_eq!(shared(Some(&first), prompt.clone()), 0);
    assert_eq!(shared(None, prompt.clone()), 319);
    // Contexts of scores and prompts serve each other.
    let row = |context| Continuation { context, continuation: vec![4, 5] };
    decoder.log_likelihoods(&[row(text(2, 200, 1, 9)), row(text(2, 200, 2, 9))], None).unwrap();
    assert_eq!(shared(None, text(2, 200, 3, 9)), 200);
    decoder.forget_prompts();
    assert_eq!(decoder.cache_bytes(), 0);
    assert_eq!(shared(None, prompt), 0);
}

#[test]
fn a_call_reads_a_common_beginning_once() {
    let (_folder, decoder) = long_tiny();
    let requests: Vec<_> = (0..40).map(|i| request(text(1, 290, i, 5), 4)).collect();
    let together = generate(&decoder, &requests, None);
    assert_eq!(together[0].shared_tokens, 0);
    assert!(together[1..].iter().all(|g| g.shared_tokens >= 290), "{together:?}");
    for (request, together) in requests.iter().zip(&together) {
        decoder.forget_prompts();
        assert_same(&generate(&decoder, std::slice::from_ref(request), None)[0], together);
    }
}

#[test]
fn memory_stays_within_its_limit() {
    let (_folder, decoder) = long_tiny();
    let config = decoder.config();
    let token_bytes = 8 * config.layers * config.kv_heads * config.head_dim;
    let limit = 1000 * token_bytes;
    decoder.set_cache_bytes(limit);
    let mut most = 0;
    for round in 0..4 {
        let requests: Vec<_> =
            (0..9).map(|i| request(text(i % 3, 120, i + 9 * round, 30), 20)).collect();
        let found = decoder.generate(&requests, None, &mut |_, _| {
            most = most.max(decoder.cache_bytes());
            ControlFlow::Continue(())
        });
        assert_eq!(found.unwrap().len(), 9);
    }
    assert!(most > limit / 2 && most <= limit, "{most} of {limit}");
    assert!(decoder.cache_bytes() > 0);
    decoder.set_cache_bytes(100 * token_bytes);
    assert!(decoder.cache_bytes() <= 100 * token_bytes);
    // A request that does not fit runs alone, and nothing of it is kept.
    let large = generate(&decoder, &[request(text(0, 300, 1, 1), 3)], None).remove(0);
    assert!(!large.tokens.is_empty());
    generate(&decoder, &[request(vec![1, 2, 3], 3)], None);
    assert!(decoder.cache_bytes() <= 100 * token_bytes);
}

#[test]
fn a_long_prompt_does_not_hold_up_the_others() {
    let (_folder, decoder) = long_tiny();
    let free = Sampling { temperature: 1.0, seed: 4, ..Sampling::GREEDY };
    let requests = [
        GenerateRequest { sampling: free, ..request(vec![5; 5], 12) },
        request(text(0, 700, 1, 50), 1),
    ];
    let mut order = Vec::new();
    decoder
        .generate(&requests, None, &mut |request, _| {
            order.push(request);
            ControlFlow::Continue(())
        })
        .unwrap();
    // 507 tokens beside the short prompt, then 128 and 115 beside one generated token each.
    assert_eq!(order.iter().position(|r| *r == 1), Some(3), "{order:?}");
}

/// Threads with different adapters, all at once on one decoder: each gets what it would get alone.
#[test]
fn concurrent_calls_join_one_batch() {
    let (_folder, decoder) = long_tiny();
    let cold = Decoder::open(decoder.path(), Precision::Bf16).unwrap();
    let adapters = [adapter(&decoder, 1), adapter(&decoder, 2)];
    std::thread::scope(|scope| {
        for thread in 0..12u32 {
            let (decoder, cold, adapters) = (&decoder, &cold, &adapters);
            scope.spawn(move || {
                let adapter = (thread % 3).checked_sub(1).map(|i| &adapters[i as usize]);
                for round in 0..3 {
                    let requests: Vec<_> = (0..3)
                        .map(|i| request(text(round % 2, 150, thread + i, 10), 6 + i as usize))
                        .collect();
                    let mut seen = vec![Vec::new(); 3];
                    let found = decoder
                        .generate(&requests, adapter, &mut |i, token| {
                            seen[i].push(token);
                            match (i, seen[i].len()) {
                                (1, 2) => ControlFlow::Break(()),
                                _ => ControlFlow::Continue(()),
                            }
                        })
                        .unwrap();
                    let alone = generate(cold, &requests, adapter);
                    assert_same(&found[0], &alone[0]);
                    assert_same(&found[2], &alone[2]);
                    assert_eq!(found[1].tokens, alone[1].tokens[..2]);
                    assert_eq!(found[1].log_probs, alone[1].log_probs[..2]);
                    assert!(found.iter().zip(&seen).all(|(g, seen)| g.tokens == *seen));
                }
            });
        }
    });
}

/// Whoever stops listening takes only its own requests along.
#[test]
fn a_caller_that_panics_leaves_the_others_alone() {
    let (_folder, decoder) = long_tiny();
    std::thread::scope(|scope| {
        let bad = scope.spawn(|| {
            let requests: Vec<_> = (0..4).map(|i| request(text(0, 100, i, 9), 30)).collect();
            decoder.generate(&requests, None, &mut |_, _| panic!("an observer may"))
        });
        let good = scope.spawn(|| generate(&decoder, &[request(text(0, 100, 7, 9), 30)], None));
        assert!(bad.join().is_err());
        let good = good.join().unwrap().remove(0);
        decoder.forget_prompts();
        assert_same(&generate(&decoder, &[request(text(0, 100, 7, 9), 30)], None)[0], &good);
    });
}
