//! Laws of generation and scoring: what else is in a batch changes nothing.

use std::ops::ControlFlow;

use assay_model::{
    Adapter, Continuation, Decoder, GenerateRequest, Generation, ModelError, Module, Precision,
    Sampling,
};
use assay_types::{FinishReason, Message, Role};
use proptest::prelude::*;

use crate::tiny::Tiny;

pub(crate) fn request(tokens: &[u32], max_new_tokens: usize, seed: u64) -> GenerateRequest {
    let sampling = match seed {
        0 => Sampling::GREEDY,
        1 => Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, seed, ..Sampling::GREEDY },
        seed => Sampling {
            temperature: 1.2,
            min_p: 0.01,
            repetition_penalty: 1.1,
            presence_penalty: 0.2,
            frequency_penalty: 0.3,
            seed,
            ..Sampling::GREEDY
        },
    };
    GenerateRequest {
        sampling,
        log_probs: Some(3),
        ..GenerateRequest::greedy(tokens.to_vec(), max_new_tokens)
    }
}

fn generate(
    decoder: &Decoder,
    requests: &[GenerateRequest],
    adapter: Option<&Adapter>,
) -> Vec<Generation> {
    decoder.generate(requests, adapter, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

pub(crate) fn check_batch_equals_single(
    decoder: &Decoder,
    requests: &[GenerateRequest],
    adapter: Option<&Adapter>,
) {
    let together = generate(decoder, requests, adapter);
    assert_eq!(together.len(), requests.len());
    for (request, together) in requests.iter().zip(together) {
        let alone = generate(decoder, std::slice::from_ref(request), adapter).remove(0);
        assert_eq!(together.tokens, alone.tokens);
        assert_eq!(together.text, alone.text);
        assert_eq!(together.log_probs, alone.log_probs);
        assert_eq!(together.finish, alone.finish);
    }
}

pub(crate) fn check_scores(decoder: &Decoder, rows: &[Continuation], adapter: Option<&Adapter>) {
    let scores = decoder.log_likelihoods(rows, adapter).unwrap();
    let vocab = decoder.config().vocab;
    for (row, score) in rows.iter().zip(&scores) {
        let text = [&row.context[..], &row.continuation[..]].concat();
        let logits = decoder.logits(&text, adapter).unwrap();
        let mut sum = 0.0;
        let mut greedy = true;
        for (i, &token) in row.continuation.iter().enumerate() {
            let logits = &logits[(row.context.len() + i - 1) * vocab..][..vocab];
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = logits.iter().map(|&l| f64::from(l - largest).exp()).sum();
            sum += f64::from(logits[token as usize] - largest) - total.ln();
            greedy &= logits[token as usize] == largest;
        }
        assert!((score.sum - sum).abs() < 1e-3, "{} from logits {sum}", score.sum);
        assert_eq!((score.tokens, score.greedy), (row.continuation.len(), greedy));
        let alone = decoder.log_likelihoods(std::slice::from_ref(row), adapter).unwrap()[0];
        assert_eq!(alone, *score, "a score does not depend on the other rows");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn batch_equals_single_on_tiny_weights(
        shared in prop::collection::vec(0u32..261, 0..20),
        tails in prop::collection::vec(prop::collection::vec(0u32..261, 1..30), 1..40),
        with_adapter: bool,
        precision in prop_oneof![Just(Precision::F32), Just(Precision::Bf16)],
    ) {
        let tiny = Tiny::new(true);
        let adapter = tiny.adapter(&Module::ALL, 8);
        let adapter = with_adapter.then_some(&adapter);
        let decoder = Decoder::open(&tiny.path, precision).unwrap();
        let requests: Vec<GenerateRequest> = tails
            .iter()
            .enumerate()
            .map(|(i, tail)| request(&[&shared[..], tail].concat(), 1 + i % 9, i as u64 % 3))
            .collect();
        check_batch_equals_single(&decoder, &requests, adapter);
        let rows: Vec<Continuation> = tails
            .iter()
            .enumerate()
            .map(|(i, tail)| Continuation {
                context: [&[1], &shared[..i.min(shared.len()) / 2]].concat(),
                continuation: tail.clone(),
            })
            .collect();
        check_scores(&decoder, &rows, adapter);
    }

    #[test]
    fn streams_equal_whole_decoding(ids in prop::collection::vec(0u32..300, 0..60)) {
        let tiny = Tiny::new(true);
        let tokenizer = tiny.decoder.tokenizer();
        let mut stream = tokenizer.stream();
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        prop_assert_eq!(text, tokenizer.decode(&ids, true));
    }

    #[test]
    fn any_text_survives(text: String) {
        let tiny = Tiny::new(true);
        let tokenizer = tiny.decoder.tokenizer();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap(), false), text);
    }
}

/// Prompts with a long common prefix, as an evaluation with a fixed system message has.
fn prompts(decoder: &Decoder) -> Vec<Vec<u32>> {
    let system = "You answer questions about a small shop. ".repeat(12);
    ["When do you open?", "Where are you? I come by bus.", "Do you sell tea?", "Name 3 colours."]
        .map(|question| {
            let messages =
                [Message::new(Role::System, &system), Message::new(Role::User, question)];
            decoder.prompt_tokens(&messages).unwrap()
        })
        .to_vec()
}

#[test]
fn batch_equals_single_on_real_weights() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let prompts = prompts(&decoder);
    let mut adapter = decoder.new_adapter(8, 16.0, &Module::ALL, 3);
    let mut values = crate::tiny::Values::new(4);
    for pair in adapter.pairs_mut() {
        pair.b.fill_with(|| values.next() * 0.02);
    }
    let requests: Vec<GenerateRequest> =
        prompts.iter().zip(0..).map(|(p, i)| request(p, 6 + 3 * i as usize, i % 2)).collect();
    check_batch_equals_single(&decoder, &requests, None);
    check_batch_equals_single(&decoder, &requests[..3], Some(&adapter));
    decoder.forget_prompts();
    let shared: Vec<usize> =
        generate(&decoder, &requests, None).iter().map(|g| g.shared_tokens).collect();
    // Another test of this process may have left the template's first tokens.
    assert!(shared[0] < 32 && shared[1..].iter().all(|&s| s > 100), "{shared:?} tokens shared");

    let text = decoder.tokenizer().encode(" We open at nine in the morning.").unwrap();
    let choices = prompts.iter().flat_map(|p| {
        [2, 1, text.len()]
            .map(|n| Continuation { context: p.clone(), continuation: text[..n].into() })
    });
    check_scores(&decoder, &choices.take(5).collect::<Vec<_>>(), None);
}

#[test]
fn long_prompts_are_read_in_passes() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let text: Vec<u32> = (0..700).map(|i| 50 + (i * 37) % 4000).collect();
    let first = generate(&decoder, &[request(&text, 1, 0)], None).remove(0).tokens[0];
    let logits = decoder.logits(&text, None).unwrap();
    let last = &logits[699 * decoder.config().vocab..];
    assert!(last.iter().all(|&l| l <= last[first as usize]), "cached and uncached agree");
}

#[test]
fn many_scores_are_computed_in_batches() {
    let tiny = Tiny::new(true);
    let rows: Vec<Continuation> = (0..120u32)
        .map(|i| Continuation {
            context: (0..80).map(|t| (t * 7 + i / 2) % 261).collect(),
            continuation: (0..1 + i % 9).map(|t| (t * 31 + i) % 261).collect(),
        })
        .collect();
    check_scores(&tiny.decoder, &rows, None);
}

#[test]
fn limits_of_generation() {
    let tiny = Tiny::new(true);
    let tokens: Vec<u32> = (0..90).map(|i| 10 + i % 200).collect();
    let generate = |request| generate(&tiny.decoder, &[request], None).remove(0);
    let room = generate(request(&tokens, 50, 5));
    assert!(room.tokens.len() <= 6, "context of 96");
    assert!(generate(request(&tokens, 0, 0)).tokens.is_empty());
    let check = |tokens: &[u32], expected: &str| {
        let error = tiny
            .decoder
            .generate(&[request(tokens, 5, 0)], None, &mut |_, _| ControlFlow::Continue(()));
        assert!(error.unwrap_err().to_string().contains(expected));
    };
    check(&[], "prompt is empty");
    check(&[5; 96], "97 tokens do not fit into a context of 96");
    check(&[999], "token 999");
    assert!(
        tiny.decoder.generate(&[], None, &mut |_, _| ControlFlow::Continue(())).unwrap().is_empty()
    );
    let row = Continuation { context: vec![4; 90], continuation: vec![4; 8] };
    let error = tiny.decoder.log_likelihoods(&[row], None).unwrap_err();
    assert!(matches!(error, ModelError::TooLong { tokens: 97, limit: 96 }));
}

#[test]
fn generation_ends_at_stop_texts_and_observers() {
    let tiny = Tiny::new(true);
    // Greedy decoding of random weights soon repeats itself; find what it says first.
    let free = generate(&tiny.decoder, &[request(&[40, 41, 42], 12, 7)], None).remove(0);
    assert!(free.tokens.len() > 4, "{free:?}");
    let text = tiny.decoder.tokenizer().decode(&free.tokens[2..3], true);
    let mut stopping = request(&[40, 41, 42], 12, 7);
    stopping.stop = vec!["never said".into(), text.clone()];
    let stopped = generate(&tiny.decoder, &[stopping], None).remove(0);
    assert!(stopped.tokens.len() <= 3);
    assert_eq!(stopped.finish, FinishReason::Stop);
    assert!(!stopped.text.contains(&text) && free.text.starts_with(&stopped.text));

    let requests = [request(&[40, 41, 42], 12, 7), request(&[40, 41, 43], 12, 7)];
    let mut seen = [0, 0];
    let broken = tiny.decoder.generate(&requests, None, &mut |request, _| {
        seen[request] += 1;
        if request == 0 && seen[0] == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let broken = broken.unwrap();
    assert_eq!(broken[0].tokens, free.tokens[..2]);
    assert_eq!(broken[0].finish, FinishReason::Stop);
    assert_eq!(broken[1].tokens, generate(&tiny.decoder, &requests[1..], None)[0].tokens);
}

#[test]
fn sampling_follows_its_restrictions() {
    let tiny = Tiny::new(true);
    let draw = |sampling| {
        let request = GenerateRequest { sampling, ..request(&[9, 8, 7], 20, 1) };
        generate(&tiny.decoder, &[request], None).remove(0).tokens
    };
    let greedy = draw(Sampling::GREEDY);
    let free = Sampling { temperature: 1.0, seed: 1, ..Sampling::GREEDY };
    assert_eq!(draw(Sampling { top_k: 1, ..free }), greedy);
    assert_eq!(draw(Sampling { top_p: 1e-6, ..free }), greedy);
    assert_eq!(draw(Sampling { min_p: 1.0, ..free }), greedy);
    assert_eq!(draw(Sampling { temperature: 1e-4, ..free }), greedy);
    // A token that was chosen is not chosen again, where the penalty exceeds all logits.
    let once = draw(Sampling { presence_penalty: 1e6, ..Sampling::GREEDY });
    let distinct: std::collections::HashSet<u32> = once.iter().copied().collect();
    assert_eq!(distinct.len(), once.len(), "{once:?}");
    assert_eq!(draw(Sampling { frequency_penalty: 1e6, ..Sampling::GREEDY }), once);
    assert_eq!(draw(free), draw(free));
    assert_ne!(draw(free), draw(Sampling { seed: 2, ..free }));
}

/// Generated tokens go through integer products, read ones through bf16: how far apart are they? Of what
/// is generated, nearly all is what reading the same text would choose, and the rest are near ties.
#[test]
fn generated_tokens_are_those_that_reading_would_choose() {
    let Some(decoder) = crate::smollm(Precision::Bf16) else { return };
    let questions = [
        "What is the capital of France?",
        "Explain photosynthesis in two sentences.",
        "Write a short poem about the sea.",
        "List five uses of a paper clip.",
        "Translate 'good morning' into Spanish, German and Italian.",
        "Why is the sky blue?",
        "Give me a recipe for pancakes.",
        "What does HTTP status 404 mean?",
    ];
    let prompts: Vec<Vec<u32>> = questions
        .iter()
        .map(|q| decoder.prompt_tokens(&[Message::new(Role::User, *q)]).unwrap())
        .collect();
    let requests: Vec<_> = prompts.iter().map(|p| request(p, 64, 0)).collect();
    let (mut same, mut all, mut widest) = (0, 0, 0.0f32);
    for (prompt, generation) in prompts.iter().zip(generate(&decoder, &requests, None)) {
        let text = [&prompt[..], &generation.tokens[..]].concat();
        let logits = decoder.logits(&text, None).unwrap();
        for (i, &token) in generation.tokens.iter().enumerate() {
            let row = &logits[(prompt.len() + i - 1) * decoder.config().vocab..]
                [..decoder.config().vocab];
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let behind = largest - row[token as usize];
            same += usize::from(behind == 0.0);
            all += 1;
            widest = widest.max(behind);
        }
    }
    let share = same as f64 / f64::from(all);
    let found = format!("{same} of {all} agree, the widest gap is {widest}");
    assert!(share > 0.94, "{found}");
    assert!(widest < 1.0, "{found}");
}

/// Laws of the restrictions, from the log-probabilities that a request is told.
#[test]
fn log_probabilities_and_penalties() {
    let tiny = Tiny::new(true);
    let vocab = tiny.decoder.config().vocab;
    let ask = |sampling, log_probs| GenerateRequest {
        sampling,
        log_probs,
        ..GenerateRequest::greedy(vec![9, 8, 7], 12)
    };
    let one = |request| generate(&tiny.decoder, &[request], None).remove(0);
    assert!(one(ask(Sampling::GREEDY, None)).log_probs.is_empty());
    let free = Sampling { temperature: 1.0, seed: 3, ..Sampling::GREEDY };
    let told = one(ask(free, Some(vocab)));
    assert_eq!(told.log_probs.len(), told.tokens.len());
    for (step, &token) in told.log_probs.iter().zip(&told.tokens) {
        assert_eq!((step.token, step.top.len()), (token, vocab));
        assert!(step.top.is_sorted_by(|a, b| a.1 >= b.1));
        let total: f64 = step.top.iter().map(|(_, l)| f64::from(*l).exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        assert!(step.top.contains(&(token, step.log_prob)));
    }
    // The first row follows from the prompt alone, so each restriction can be checked against it.
    let row = &told.log_probs[0].top;
    let first = |sampling| one(ask(sampling, Some(1))).tokens[0];
    for seed in 1..40 {
        let min_p = first(Sampling { min_p: 0.5, seed, ..free });
        let log_prob = row.iter().find(|(t, _)| *t == min_p).unwrap().1;
        assert!(log_prob >= row[0].1 + 0.5f32.ln() - 1e-5);
        let top_k = first(Sampling { top_k: 5, seed, ..free });
        assert!(row[..5].iter().any(|(t, _)| *t == top_k));
        let top_p = first(Sampling { top_p: 0.6, seed, ..free });
        let before = row.iter().take_while(|(t, _)| *t != top_p);
        assert!(before.map(|(_, l)| f64::from(*l).exp()).sum::<f64>() < 0.6 + 1e-5);
    }
    // A repetition penalty pushes the tokens of the prompt away, and tells what the model thought.
    let likeliest = row[0].0;
    let mut repeated = ask(Sampling { repetition_penalty: 1e6, ..Sampling::GREEDY }, Some(1));
    repeated.tokens = vec![likeliest, 9, 8, 7];
    let penalised = one(repeated.clone());
    repeated.sampling = Sampling::GREEDY;
    let plain = one(repeated);
    assert_eq!(plain.log_probs[0].top, penalised.log_probs[0].top);
    let prompt = [likeliest, 9, 8, 7];
    let positive = penalised.tokens.iter().filter(|t| prompt.contains(t)).count();
    assert_eq!(positive, 0, "{penalised:?}");

    for (sampling, says) in [
        (Sampling { temperature: f32::NAN, ..free }, "temperature is NaN"),
        (Sampling { temperature: -1.0, ..free }, "temperature is -1, expected at least 0"),
        (Sampling { top_p: 0.0, ..free }, "top_p is 0, expected above 0 and up to 1"),
        (Sampling { min_p: 2.0, ..free }, "min_p is 2, expected 0 to 1"),
        (Sampling { repetition_penalty: 0.0, ..free }, "repetition_penalty is 0"),
        (Sampling { presence_penalty: f32::INFINITY, ..free }, "presence_penalty is inf"),
    ] {
        let error = tiny
            .decoder
            .generate(&[ask(sampling, None)], None, &mut |_, _| ControlFlow::Continue(()));
        assert!(error.unwrap_err().to_string().contains(says), "{says}");
    }
}
