//! Optimiser step and gradient norm.

use rayon::prelude::*;

use crate::activation::task_len;
use crate::dispatch::{Path, kernel};
use crate::simd::LANES;

/// Values of one partial sum. Fixed, since it decides the order of the sums.
const SUM_LEN: usize = 1 << 15;

/// Hyper-parameters of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay; multiplied with `lr`.
    pub weight_decay: f32,
}

/// One AdamW step (Loshchilov and Hutter 2019, in PyTorch's order: decay, moments, bias
/// correction). `step` counts from 1; `m` and `v` start as zeros.
///
/// # Panics
/// When the lengths differ or `step` is 0.
pub fn adamw_step(
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    options: &AdamW,
    step: u64,
) {
    assert!(step > 0, "adamw_step: steps count from 1");
    for len in [grad.len(), m.len(), v.len()] {
        assert_eq!(len, param.len(), "adamw_step: lengths");
    }
    let &AdamW { lr, beta1, beta2, eps, weight_decay } = options;
    let correction1 = 1.0 - f64::from(beta1).powf(step as f64);
    let correction2 = 1.0 - f64::from(beta2).powf(step as f64);
    let rate = (f64::from(lr) / correction1) as f32;
    let root = (1.0 / correction2.sqrt()) as f32;
    let (path, len) = (Path::current(), task_len(LANES));
    let states = m.par_chunks_mut(len).zip(v.par_chunks_mut(len));
    let tasks = param.par_chunks_mut(len).zip(grad.par_chunks(len)).zip(states);
    let factors = [1.0 - lr * weight_decay, beta1, beta2, eps, rate, root];
    tasks.for_each(|((param, grad), (m, v))| {
        // SAFETY: the path is available and the lengths agree.
        unsafe { adamw_kernel(path, param, grad, m, v, factors) };
    });
}

kernel! {
    /// `factors`: kept share of the parameter, beta1, beta2, eps, corrected rate, and what corrects
    /// the root of the second moment.
    fn adamw_kernel<V>(
        param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], factors: [f32; 6],
    ) {
        unsafe {
            let [keep, beta1, beta2, eps, rate, root] = factors;
            let mut i = 0;
            while i < param.len() {
                let n = (param.len() - i).min(LANES);
                let load = |p: *const f32| {
                    if n == LANES { V::load(p.add(i)) } else { V::load_partial(p.add(i), n) }
                };
                let store = |value: V, p: *mut f32| {
                    if n == LANES { value.store(p.add(i)) } else { value.store_partial(p.add(i), n) }
                };
                let g = load(grad.as_ptr());
                let first = load(m.as_ptr()).mul(V::splat(beta1));
                let first = g.mul_add(V::splat(1.0 - beta1), first);
                let second = load(v.as_ptr()).mul(V::splat(beta2));
                let second = g.mul(g).mul_add(V::splat(1.0 - beta2), second);
                let scale = second.sqrt().mul_add(V::splat(root), V::splat(eps));
                let step = first.mul(V::splat(rate)).div(scale);
                let kept = load(param.as_ptr()).mul(V::splat(keep));
                store(kept.sub(step), param.as_mut_ptr());
                store(first, m.as_mut_ptr());
                store(second, v.as_mut_ptr());
                i += LANES;
            }
        }
    }
}

/// Sum of squares, in `f64`, in a fixed order whatever the number of threads.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x
        .par_chunks(SUM_LEN)
        .map(|x| {
            let (blocks, rest) = x.as_chunks::<LANES>();
            let mut lanes = [0.0f64; LANES];
            for block in blocks {
                for (lane, &value) in lanes.iter_mut().zip(block) {
                    *lane += f64::from(value) * f64::from(value);
                }
            }
            let rest: f64 = rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            lanes.iter().sum::<f64>() + rest
        })
        .collect();
    parts.iter().sum()
}
