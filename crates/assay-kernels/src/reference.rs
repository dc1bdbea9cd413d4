//! Scalar references: what the kernels compute, written to be read. For tests.
#![allow(missing_docs, reason = "hidden; documented at the kernel of the same name")]

use crate::{AdamW, Gate, Heads, Rope, RopeTable, Scores};

pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub fn gemm(
    alpha: f32,
    a: &[f32],
    ta: bool,
    b: &[f32],
    tb: bool,
    beta: f32,
    out: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) {
    for i in 0..m {
        for j in 0..n {
            let mut sum = 0.0;
            for p in 0..k {
                let x = if ta { a[p * m + i] } else { a[i * k + p] };
                let y = if tb { b[j * k + p] } else { b[p * n + j] };
                sum += x * y;
            }
            let old = if beta == 0.0 { 0.0 } else { beta * out[i * n + j] };
            out[i * n + j] = alpha * sum + old;
        }
    }
}

pub fn log_sum_exp(x: &[f32]) -> f32 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return max;
    }
    max + x.iter().map(|v| (v - max).exp()).sum::<f32>().ln()
}

pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], inv_rms: &mut [f32]) {
    let h = weight.len();
    for (i, inv) in inv_rms.iter_mut().enumerate() {
        let row = &x[i * h..][..h];
        *inv = 1.0 / (dot(row, row) / h as f32 + eps).sqrt();
        for j in 0..h {
            out[i * h + j] = row[j] * *inv * weight[j];
        }
    }
}

pub fn rms_norm_backward(dy: &[f32], x: &[f32], weight: &[f32], inv_rms: &[f32], dx: &mut [f32]) {
    let h = weight.len();
    for (i, &inv) in inv_rms.iter().enumerate() {
        let at = i * h;
        let projection: f32 = (0..h).map(|j| dy[at + j] * weight[j] * x[at + j]).sum();
        let c = projection * inv * inv / h as f32;
        for j in 0..h {
            dx[at + j] += inv * (dy[at + j] * weight[j] - x[at + j] * c);
        }
    }
}

pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let h = weight.len();
    for (row, out) in x.chunks(h).zip(out.chunks_mut(h)) {
        let mean = row.iter().sum::<f32>() / h as f32;
        let var = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / h as f32;
        let inv = 1.0 / (var + eps).sqrt();
        for j in 0..h {
            out[j] = (row[j] - mean) * inv * weight[j] + bias[j];
        }
    }
}

pub fn rotate(
    x: &mut [f32],
    heads: usize,
    positions: &[u32],
    table: &RopeTable,
    style: Rope,
    sign: f32,
) {
    let (d, half) = (table.head_dim(), table.head_dim() / 2);
    for (i, &position) in positions.iter().enumerate() {
        let (cos, sin) = table.at(position);
        for head in x[i * heads * d..][..heads * d].chunks_mut(d) {
            for j in 0..half {
                let (a, b) = match style {
                    Rope::Halves => (j, j + half),
                    Rope::Interleaved => (2 * j, 2 * j + 1),
                };
                let (c, s) = (cos[j], sin[j] * sign);
                let (x, y) = (head[a], head[b]);
                head[a] = x * c - y * s;
                head[b] = y * c + x * s;
            }
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The activation and its slope at `g`.
fn activate(activation: Gate, g: f32) -> (f32, f32) {
    let (a, b) = activation.coefficients();
    let (s, du) = (sigmoid(g * (a + b * g * g)), a + 3.0 * b * g * g);
    (g * s, s + g * s * (1.0 - s) * du)
}

pub fn gate_mul(activation: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) {
    for i in 0..out.len() {
        out[i] = activate(activation, gate[i]).0 * up[i];
    }
}

pub fn gate_mul_backward(
    activation: Gate,
    dy: &[f32],
    gate: &[f32],
    up: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    for i in 0..dy.len() {
        let (y, slope) = activate(activation, gate[i]);
        dup[i] = dy[i] * y;
        dgate[i] = dy[i] * up[i] * slope;
    }
}

/// Error function: Abramowitz and Stegun 7.1.26 in `f64`, |error| ≤ 1.5e-7.
pub fn erf(x: f32) -> f32 {
    let z = f64::from(x.abs());
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    ((1.0 - poly * (-z * z).exp()) as f32).copysign(x)
}

pub fn gelu(x: &mut [f32]) {
    for v in x {
        *v = 0.5 * *v * (1.0 + erf(*v * std::f32::consts::FRAC_1_SQRT_2));
    }
}

pub fn gelu_tanh(x: &mut [f32]) {
    for v in x {
        let u = (2.0 / std::f32::consts::PI).sqrt() * (*v + 0.044_715 * v.powi(3));
        *v = 0.5 * *v * (1.0 + u.tanh());
    }
}

pub fn softmax_rows(x: &mut [f32], cols: usize) {
    for row in x.chunks_mut(cols.max(1)) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if max == f32::NEG_INFINITY {
            row.fill(0.0);
            continue;
        }
        let mut sum = 0.0;
        for v in row.iter_mut() {
            *v = (*v - max).exp();
            sum += *v;
        }
        for v in row.iter_mut() {
            *v /= sum;
        }
    }
}

/// Turns logits into `softmax - one_hot(target)` and returns the negative log-likelihood.
pub fn cross_entropy_row(row: &mut [f32], target: u32) -> f32 {
    let target = target as usize;
    assert!(target < row.len(), "target {target} of a vocabulary of {}", row.len());
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|v| (v - max).exp()).sum();
    let nll = max + sum.ln() - row[target];
    for v in row.iter_mut() {
        *v = (*v - max).exp() / sum;
    }
    row[target] -= 1.0;
    nll
}

fn query(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    keys: std::ops::Range<usize>,
    h: usize,
    heads: Heads,
    scale: f32,
    out: &mut [f32],
) -> f32 {
    let (d, kw, kh) = (heads.head_dim, heads.kv_width(), h / heads.group());
    let mut p: Vec<f32> =
        keys.clone().map(|j| scale * dot(q, &k[j * kw + kh * d..][..d])).collect();
    let max = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = p.iter().map(|s| (s - max).exp()).sum();
    softmax_rows(&mut p, keys.len());
    out.fill(0.0);
    for (j, p) in keys.zip(p) {
        for (o, v) in out.iter_mut().zip(&v[j * kw + kh * d..][..d]) {
            *o += p * v;
        }
    }
    max + sum.ln()
}

/// First key that is seen where `end` is the first that is not.
fn first_seen(scores: Scores, end: usize) -> usize {
    scores.window.map_or(0, |window| end.saturating_sub(window))
}

pub fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    segments: &[usize],
    heads: Heads,
    scores: Scores,
    causal: bool,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let d = heads.head_dim;
    for segment in segments.windows(2) {
        for i in segment[0]..segment[1] {
            let end = if causal { i + 1 } else { segment[1] };
            let start = first_seen(scores, end).max(segment[0]);
            for h in 0..heads.heads {
                let at = (i * heads.heads + h) * d;
                lse[i * heads.heads + h] = query(
                    &q[at..][..d],
                    k,
                    v,
                    start..end,
                    h,
                    heads,
                    scores.scale,
                    &mut out[at..][..d],
                );
            }
        }
    }
}

pub fn attention_cached(
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    past: usize,
    heads: Heads,
    scores: Scores,
    out: &mut [f32],
) {
    let d = heads.head_dim;
    for i in 0..q.len() / heads.width() {
        for h in 0..heads.heads {
            let at = (i * heads.heads + h) * d;
            let keys = first_seen(scores, past + i + 1)..past + i + 1;
            let out = &mut out[at..][..d];
            query(&q[at..][..d], k_cache, v_cache, keys, h, heads, scores.scale, out);
        }
    }
}

pub fn attention_backward(
    dout: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    segments: &[usize],
    heads: Heads,
    scores: Scores,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let (d, kw) = (heads.head_dim, heads.kv_width());
    dq.fill(0.0);
    dk.fill(0.0);
    dv.fill(0.0);
    for segment in segments.windows(2) {
        for i in segment[0]..segment[1] {
            for h in 0..heads.heads {
                let at = (i * heads.heads + h) * d;
                let delta = dot(&dout[at..][..d], &out[at..][..d]);
                let start = first_seen(scores, i + 1).max(segment[0]);
                for j in start..=i {
                    let kv = j * kw + h / heads.group() * d;
                    let s = scores.scale * dot(&q[at..][..d], &k[kv..][..d]);
                    let p = (s - lse[i * heads.heads + h]).exp();
                    let ds = scores.scale * p * (dot(&dout[at..][..d], &v[kv..][..d]) - delta);
                    for c in 0..d {
                        dv[kv + c] += p * dout[at + c];
                        dq[at + c] += ds * k[kv + c];
                        dk[kv + c] += ds * q[at + c];
                    }
                }
            }
        }
    }
}

pub fn adamw_step(
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    o: &AdamW,
    step: u64,
) {
    let c1 = 1.0 - f64::from(o.beta1).powf(step as f64);
    let c2 = 1.0 - f64::from(o.beta2).powf(step as f64);
    let (rate, root) = ((f64::from(o.lr) / c1) as f32, (1.0 / c2.sqrt()) as f32);
    for i in 0..param.len() {
        param[i] *= 1.0 - o.lr * o.weight_decay;
        m[i] = o.beta1 * m[i] + (1.0 - o.beta1) * grad[i];
        v[i] = o.beta2 * v[i] + (1.0 - o.beta2) * grad[i] * grad[i];
        param[i] -= rate * m[i] / (v[i].sqrt() * root + o.eps);
    }
}

pub fn sum_of_squares(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

/// What [`quant_matmul`](crate::quant_matmul) makes of its inputs: per 32 of a row the nearest of 255 steps.
pub fn quantised_inputs(x: &[f32], cols: usize) -> Vec<f32> {
    let mut rounded = Vec::with_capacity(x.len());
    for row in x.chunks(cols) {
        for block in row.chunks(32) {
            let largest = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let scale = largest / 127.0;
            rounded.extend(block.iter().map(|v| match largest {
                0.0 => 0.0,
                _ => (v * (127.0 / largest)).round_ties_even() * scale,
            }));
        }
    }
    rounded
}

/// Inputs in 256 steps of each row, weights in 255 of each of theirs.
pub fn linear_int8(x: &[f32], m: usize, w: &[f32], n: usize, bias: &[f32]) -> Vec<f32> {
    let k = w.len() / n;
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        let row = &x[i * k..][..k];
        let low = row.iter().fold(0.0f32, |a, &v| a.min(v));
        let high = row.iter().fold(0.0f32, |a, &v| a.max(v));
        let inverse = if high > low { 255.0 / (high - low) } else { 0.0 };
        let zero = (-low * inverse).round_ties_even() as i32;
        let q = |v: f32| ((v * inverse).round_ties_even() as i32 + zero).min(255);
        for j in 0..n {
            let w = &w[j * k..][..k];
            let largest = w.iter().fold(0.0f32, |a, v| a.max(v.abs()));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let r = |v: f32| (v * inverse).round_ties_even() as i32;
            let sum: i32 = row.iter().zip(w).map(|(&x, &w)| (q(x) - zero) * r(w)).sum();
            let scale = (high - low) / 255.0 * (largest / 127.0);
            out.push(sum as f32 * scale + bias[j]);
        }
    }
    out
}
