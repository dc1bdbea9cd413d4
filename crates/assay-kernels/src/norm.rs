//! RMSNorm and LayerNorm over the last dimension.

use crate::activation::task_len;
use crate::dispatch::{Path, kernel};
use crate::simd::LANES;
use crate::team;
use crate::values::Value;

/// RMSNorm: `out = x / sqrt(mean(x²) + eps) · weight`, per row of `weight.len()` values.
///
/// `x` and `out` are `[t, h]`; `inv_rms [t]` receives each row's `1 / sqrt(mean(x²) + eps)` for
/// [`rms_norm_backward`]. Source: Zhang and Sennrich 2019, as in Llama.
///
/// # Panics
/// When a length does not match its shape.
pub fn rms_norm<T: Value>(x: &[f32], weight: &[f32], eps: f32, out: &mut [T], inv_rms: &mut [f32]) {
    let h = weight.len();
    assert_eq!(x.len(), inv_rms.len() * h, "rms_norm: input length");
    assert_eq!(out.len(), x.len(), "rms_norm: output length");
    if h == 0 {
        return inv_rms.fill(1.0 / eps.sqrt());
    }
    let (path, rows) = (Path::current(), task_len(h) / h);
    let outs = out.chunks_mut(rows * h).zip(inv_rms.chunks_mut(rows));
    team::consume(x.chunks(rows * h).zip(outs), |(x, (out, inv_rms))| {
        // SAFETY: the path is available and the lengths agree.
        unsafe { rms_norm_rows(path, x, weight, eps, out, inv_rms) };
    });
}

kernel! {
    fn rms_norm_rows<V, T: Value>(
        x: &[f32], weight: &[f32], eps: f32, out: &mut [T], inv_rms: &mut [f32],
    ) {
        unsafe {
            let h = weight.len();
            let (whole, rest) = (h / LANES * LANES, h % LANES);
            for (i, inv) in inv_rms.iter_mut().enumerate() {
                let (x, out) = (x.as_ptr().add(i * h), out.as_mut_ptr().add(i * h));
                let mut sum = V::splat(0.0);
                for j in (0..whole).step_by(LANES) {
                    let v = V::load(x.add(j));
                    sum = v.mul_add(v, sum);
                }
                if rest > 0 {
                    let v = V::load_partial(x.add(whole), rest);
                    sum = v.mul_add(v, sum);
                }
                *inv = 1.0 / (sum.sum() / h as f32 + eps).sqrt();
                let scale = V::splat(*inv);
                for j in (0..whole).step_by(LANES) {
                    let w = V::load(weight.as_ptr().add(j));
                    T::store(out.add(j), LANES, V::load(x.add(j)).mul(scale).mul(w));
                }
                if rest > 0 {
                    let w = V::load_partial(weight.as_ptr().add(whole), rest);
                    let v = V::load_partial(x.add(whole), rest).mul(scale).mul(w);
                    T::store(out.add(whole), rest, v);
                }
            }
        }
    }
}

/// Backward of [`rms_norm`] with a frozen weight: **adds** the gradient of `x` to `dx`, which so
/// may already hold the gradient of the residual branch.
///
/// # Panics
/// When a length does not match its shape.
pub fn rms_norm_backward(dy: &[f32], x: &[f32], weight: &[f32], inv_rms: &[f32], dx: &mut [f32]) {
    let h = weight.len();
    assert_eq!(x.len(), inv_rms.len() * h, "rms_norm_backward: input length");
    assert_eq!(dy.len(), x.len(), "rms_norm_backward: gradient length");
    assert_eq!(dx.len(), x.len(), "rms_norm_backward: output length");
    if h == 0 {
        return;
    }
    let (path, rows) = (Path::current(), task_len(h) / h);
    let inputs = dy.chunks(rows * h).zip(x.chunks(rows * h)).zip(inv_rms.chunks(rows));
    team::consume(inputs.zip(dx.chunks_mut(rows * h)), |(((dy, x), inv_rms), dx)| {
        // SAFETY: the path is available and the lengths agree.
        unsafe { rms_norm_backward_rows(path, dy, x, weight, inv_rms, dx) };
    });
}

kernel! {
    fn rms_norm_backward_rows<V>(
        dy: &[f32], x: &[f32], weight: &[f32], inv_rms: &[f32], dx: &mut [f32],
    ) {
        unsafe {
            let h = weight.len();
            let (whole, rest) = (h / LANES * LANES, h % LANES);
            let w = weight.as_ptr();
            for (i, &inv) in inv_rms.iter().enumerate() {
                let (dy, x) = (dy.as_ptr().add(i * h), x.as_ptr().add(i * h));
                let dx = dx.as_mut_ptr().add(i * h);
                let mut sum = V::splat(0.0);
                for j in (0..whole).step_by(LANES) {
                    let g = V::load(dy.add(j)).mul(V::load(w.add(j)));
                    sum = g.mul_add(V::load(x.add(j)), sum);
                }
                if rest > 0 {
                    let g = V::load_partial(dy.add(whole), rest);
                    let g = g.mul(V::load_partial(w.add(whole), rest));
                    sum = g.mul_add(V::load_partial(x.add(whole), rest), sum);
                }
                let scale = V::splat(inv);
                let slope = V::splat(-inv * inv * inv * sum.sum() / h as f32);
                for j in (0..whole).step_by(LANES) {
                    let g = V::load(dy.add(j)).mul(V::load(w.add(j)));
                    let d = g.mul_add(scale, V::load(dx.add(j)));
                    V::load(x.add(j)).mul_add(slope, d).store(dx.add(j));
                }
                if rest > 0 {
                    let g = V::load_partial(dy.add(whole), rest);
                    let g = g.mul(V::load_partial(w.add(whole), rest));
                    let d = g.mul_add(scale, V::load_partial(dx.add(whole), rest));
                    let d = V::load_partial(x.add(whole), rest).mul_add(slope, d);
                    d.store_partial(dx.add(whole), rest);
                }
            }
        }
    }
}

/// LayerNorm: `out = (x - mean) / sqrt(var + eps) · weight + bias`, per row, with the biased
/// variance. `x` and `out` are `[t, h]`, `weight` and `bias` `[h]`.
///
/// # Panics
/// When a length does not match its shape.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let h = weight.len();
    assert_eq!(bias.len(), h, "layer_norm: bias length");
    assert_eq!(x.len() % h.max(1), 0, "layer_norm: input length");
    assert_eq!(out.len(), x.len(), "layer_norm: output length");
    let (path, len) = (Path::current(), task_len(h.max(1)));
    team::consume(x.chunks(len).zip(out.chunks_mut(len)), |(x, out)| {
        // SAFETY: the path is available and the lengths agree.
        unsafe { layer_norm_rows(path, x, weight, bias, eps, out) };
    });
}

kernel! {
    fn layer_norm_rows<V>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        unsafe {
            let h = weight.len();
            let (whole, rest) = (h / LANES * LANES, h % LANES);
            for (x, out) in x.chunks_exact(h).zip(out.chunks_exact_mut(h)) {
                let (x, out) = (x.as_ptr(), out.as_mut_ptr());
                let mut sum = V::splat(0.0);
                for j in (0..whole).step_by(LANES) {
                    sum = sum.add(V::load(x.add(j)));
                }
                if rest > 0 {
                    sum = sum.add(V::load_partial(x.add(whole), rest));
                }
                let mean = sum.sum() / h as f32;
                let center = V::splat(mean);
                let mut squares = V::splat(0.0);
                for j in (0..whole).step_by(LANES) {
                    let d = V::load(x.add(j)).sub(center);
                    squares = d.mul_add(d, squares);
                }
                let mut variance = squares.sum();
                for j in whole..h {
                    let d = *x.add(j) - mean;
                    variance += d * d;
                }
                let inv = 1.0 / (variance / h as f32 + eps).sqrt();
                let scale = V::splat(inv);
                for j in (0..whole).step_by(LANES) {
                    let w = V::load(weight.as_ptr().add(j)).mul(scale);
                    let b = V::load(bias.as_ptr().add(j));
                    V::load(x.add(j)).sub(center).mul_add(w, b).store(out.add(j));
                }
                for j in whole..h {
                    *out.add(j) = (*x.add(j) - mean) * (weight[j] * inv) + bias[j];
                }
            }
        }
    }
}
