//! The decision at its boundary: inputs in, record out.

mod cost;
mod null;
mod outcomes;
mod record;
mod refusals;

use std::collections::BTreeMap;

use assay_decide::*;
use assay_types::{ItemId, Score, Task, Timing, Usage};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Three questions about each document.
pub(crate) fn items(n: usize) -> Vec<TestItem> {
    (0..n)
        .map(|i| TestItem {
            id: ItemId(format!("q{i:04}")),
            cluster: format!("doc{:03}", i / 3),
            slices: BTreeMap::from([("type".to_owned(), ["fact", "procedure"][i % 2].to_owned())]),
        })
        .collect()
}

/// A candidate whose score on item `i` is `score(i)`; retrieval and training follow from its name.
pub(crate) fn candidate(name: &str, n: usize, mut score: impl FnMut(usize) -> f64) -> Measured {
    let scores = items(n).into_iter().enumerate().map(|(i, t)| (t.id, Score::Scored(score(i))));
    Measured {
        name: name.to_owned(),
        scores: BTreeMap::from([("f1".to_owned(), scores.collect())]),
        uses_retrieval: ["rag", "hybrid"].contains(&name),
        uses_training: ["tuned", "hybrid"].contains(&name),
        ..Measured::default()
    }
}

pub(crate) fn input(n: usize, candidates: Vec<Measured>) -> DecisionInput {
    let rule = Rule { bootstrap_samples: 1_000, ..Rule::new(Task::Qa, 17) };
    DecisionInput { items: items(n), candidates, ..DecisionInput::new(Task::Qa, "f1", rule) }
}

/// Gives a candidate times, tokens and, if it is trained, hours of training.
pub(crate) fn timed(mut candidate: Measured, decode_ms: f64, training_hours: f64) -> Measured {
    let n = candidate.scores["f1"].len();
    let input_tokens = if candidate.uses_retrieval { 900 } else { 120 };
    let usage = Usage { input_tokens, output_tokens: 24 };
    let timing = |i| Timing {
        retrieval_ms: if candidate.uses_retrieval { 8.0 } else { 0.0 },
        prefill_ms: 40.0,
        decode_ms: decode_ms + (i % 10) as f64,
    };
    candidate.timed = (0..n).map(|i| (timing(i), Some(usage))).collect();
    candidate.usage = vec![usage; n];
    candidate.training_seconds = candidate.uses_training.then_some(training_hours * 3_600.0);
    candidate
}

/// A source of scores in 0..1, steady per seed.
pub(crate) fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    move || rng.next_u32() as f64 / f64::from(u32::MAX)
}
