//! Sequences through the transformer, in batches on all threads.

use assay_kernels::on_one_thread;
use rayon::prelude::*;

use super::tokens::Tokens;
use super::transformer::{Scratch, Transformer};

/// Tokens that go through the layers together: enough to keep the kernels busy, few enough that the
/// activations stay in the cache.
const BATCH_TOKENS: usize = 128;

/// `read` of the states `[tokens, hidden]` of each sequence, in order. A sequence has the same states alone
/// and in any batch.
pub(super) fn each_states<T: Send>(
    transformer: &Transformer,
    hidden: usize,
    sequences: &[Tokens],
    read: impl Fn(&[f32]) -> T + Sync,
) -> Vec<T> {
    // Longest first, so that the threads end together.
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].len()));
    let run = |scratch: &mut Scratch, batch: &[usize]| -> Vec<(usize, T)> {
        let packed: Vec<&Tokens> = batch.iter().map(|&i| &sequences[i]).collect();
        let mut states = transformer.forward(&packed, scratch);
        let one = |&i: &usize| {
            let (own, rest) = states.split_at(sequences[i].len() * hidden);
            states = rest;
            (i, read(own))
        };
        batch.iter().map(one).collect()
    };
    let batches = batches(&order, sequences);
    let mut results: Vec<(usize, T)> = if batches.len() < rayon::current_num_threads() {
        let mut scratch = Scratch::default();
        batches.into_iter().flat_map(|batch| run(&mut scratch, batch)).collect()
    } else {
        // Each thread takes batches of its own: that is less waiting than sharing each product.
        let alone = |scratch: &mut Scratch, batch| on_one_thread(|| run(scratch, batch));
        batches.into_par_iter().map_init(Scratch::default, alone).flatten_iter().collect()
    };
    results.sort_unstable_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Splits the sequences so that no batch has more than [`BATCH_TOKENS`] unless one sequence alone has.
fn batches<'a>(order: &'a [usize], sequences: &[Tokens]) -> Vec<&'a [usize]> {
    let (mut batches, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (at, &i) in order.iter().enumerate() {
        if tokens > 0 && tokens + sequences[i].len() > BATCH_TOKENS {
            batches.push(&order[start..at]);
            (start, tokens) = (at, 0);
        }
        tokens += sequences[i].len();
    }
    if start < order.len() {
        batches.push(&order[start..]);
    }
    batches
}
