//! Output head and cross-entropy in one pass, so that the logits of all tokens never exist at once.

use crate::activation::{exp_row, max_row, scale_row};
use crate::dispatch::Path;
use crate::gemm::matmul;
use crate::packed::PackedMatrix;
use crate::{scratch, team};

/// Rows whose logits exist at once: enough to pay for reading the head once per chunk.
const CHUNK: usize = 128;

/// Cross-entropy of `softmax(hidden · headᵀ)` against `targets`, and its gradient.
///
/// `hidden`, `dhidden`: `[t, h]`; `head`: `[vocab, h]`; `head_t`: its transpose, `[h, vocab]`
/// ([`PackedMatrix::transposed`]); `targets`: `[t]`. Pass supervised positions only. Returns the
/// **sum** of the negative log-likelihoods in nats, unscaled; `dhidden` is overwritten with the
/// gradient of `scale · sum` (`scale` = 1 / number of supervised tokens of the whole batch).
///
/// # Panics
/// When a length does not match its shape, or a target is not below the vocabulary size.
pub fn linear_cross_entropy(
    hidden: &[f32],
    head: &PackedMatrix,
    head_t: &PackedMatrix,
    targets: &[u32],
    scale: f32,
    dhidden: &mut [f32],
) -> f64 {
    let (vocab, h) = (head.rows(), head.cols());
    assert_eq!((head_t.rows(), head_t.cols()), (h, vocab), "head_t is not the transpose");
    assert_eq!(dhidden.len(), hidden.len(), "linear_cross_entropy: gradient length");
    let mut nll = vec![0.0; targets.len()];
    let path = Path::current();
    for_chunks(hidden, head, targets, &mut nll, |start, gradient, sums| {
        let dhidden = &mut dhidden[start * h..][..sums.len() * h];
        matmul(gradient, sums.len(), head_t, dhidden);
        for (row, sum) in dhidden.chunks_exact_mut(h.max(1)).zip(sums) {
            // SAFETY: the path is available.
            unsafe { scale_row(path, row, scale / sum) };
        }
    });
    nll.iter().map(|&v| f64::from(v)).sum()
}

/// Negative log-likelihood, in nats, of each target: [`linear_cross_entropy`] without gradient.
///
/// # Panics
/// When a length does not match its shape, or a target is not below the vocabulary size.
pub fn linear_nll(hidden: &[f32], head: &PackedMatrix, targets: &[u32], nll: &mut [f32]) {
    for_chunks(hidden, head, targets, nll, |_, _, _| {});
}

/// Writes `nll` chunk by chunk, and calls `then(first row, sum · (softmax - one_hot), sum)`, where
/// `sum` is each row's softmax denominator.
fn for_chunks(
    hidden: &[f32],
    head: &PackedMatrix,
    targets: &[u32],
    nll: &mut [f32],
    mut then: impl FnMut(usize, &[f32], &[f32]),
) {
    let (vocab, h) = (head.rows(), head.cols());
    assert_eq!(hidden.len(), targets.len() * h, "cross-entropy: hidden length");
    assert_eq!(nll.len(), targets.len(), "cross-entropy: nll length");
    for &target in targets {
        assert!((target as usize) < vocab, "target {target} of a vocabulary of {vocab}");
    }
    let (path, mut sums) = (Path::current(), [0.0; CHUNK]);
    scratch::with(CHUNK.min(targets.len()) * vocab, |logits: &mut [f32]| {
        for (c, (targets, nll)) in targets.chunks(CHUNK).zip(nll.chunks_mut(CHUNK)).enumerate() {
            let (start, rows) = (c * CHUNK, targets.len());
            let logits = &mut logits[..rows * vocab];
            matmul(&hidden[start * h..][..rows * h], rows, head, logits);
            let sums = &mut sums[..rows];
            let rows = logits.chunks_mut(vocab).zip(targets).zip(nll).zip(&mut *sums);
            team::consume(rows, |(((row, &target), nll), sum)| {
                *sum = loss_row(path, row, target, nll);
            });
            then(start, logits, sums);
        }
    });
}

/// Writes the negative log-likelihood of one row and turns its logits into
/// `sum · (softmax - one_hot)`; returns `sum`, the softmax denominator.
fn loss_row(path: Path, row: &mut [f32], target: u32, nll: &mut f32) -> f32 {
    let target = target as usize;
    let logit = row[target];
    // SAFETY: the path is available.
    let (max, sum) = unsafe {
        let max = max_row(path, row);
        (max, exp_row(path, row, 1.0, max))
    };
    *nll = max + sum.ln() - logit;
    row[target] -= sum;
    sum
}
