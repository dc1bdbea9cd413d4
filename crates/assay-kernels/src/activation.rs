//! Element-wise activations and softmax.

use crate::dispatch::{Path, kernel};
use crate::simd::{LANES, Vector};
use crate::team;
use crate::values::{Lanes, Value};

/// Values per parallel task, a multiple of `row`: enough to pay for the thread.
pub(crate) fn task_len(row: usize) -> usize {
    if team::alone() {
        return usize::MAX / row * row;
    }
    (1usize << 15).div_ceil(row) * row
}

/// Activation of the gate of a feed-forward part (Shazeer 2020): `g · σ(u)` for some `u(g)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// SiLU, `u = g`: SwiGLU, as in Llama.
    Silu,
    /// GELU in its tanh form, `u = √(8/π) · (g + 0.044715 g³)` (Hendrycks and Gimpel 2016): GeGLU, as
    /// in Gemma.
    GeluTanh,
}

impl Gate {
    /// `(a, b)` of `u = g · (a + b · g²)`.
    pub(crate) fn coefficients(self) -> (f32, f32) {
        const ROOT: f32 = 1.595_769; // √(8/π)
        match self {
            Gate::Silu => (1.0, 0.0),
            Gate::GeluTanh => (ROOT, ROOT * 0.044_715),
        }
    }
}

/// `out = activation(gate) · up`, element by element. `kept` receives gate and up as they are to be kept for
/// [`gate_mul_backward`].
///
/// # Panics
/// When the lengths differ.
pub fn gate_mul<T: Value>(
    activation: Gate,
    gate: &[f32],
    up: &[f32],
    out: &mut [T],
    kept: Option<[&mut [T]; 2]>,
) {
    assert_eq!(gate.len(), up.len(), "gate_mul: lengths");
    assert_eq!(gate.len(), out.len(), "gate_mul: lengths");
    let (path, len) = (Path::current(), task_len(LANES));
    let inputs = gate.chunks(len).zip(up.chunks(len)).zip(out.chunks_mut(len));
    match kept {
        None => team::consume(inputs, |((gate, up), out)| {
            // SAFETY: the path is available and the lengths agree.
            unsafe { gate_mul_kernel(path, activation, gate, up, out, None) };
        }),
        Some([kept_gate, kept_up]) => {
            assert_eq!(kept_gate.len(), gate.len(), "gate_mul: lengths");
            assert_eq!(kept_up.len(), gate.len(), "gate_mul: lengths");
            let kept = kept_gate.chunks_mut(len).zip(kept_up.chunks_mut(len));
            team::consume(inputs.zip(kept), |(((gate, up), out), (kept_gate, kept_up))| {
                // SAFETY: the path is available and the lengths agree.
                unsafe {
                    gate_mul_kernel(path, activation, gate, up, out, Some([kept_gate, kept_up]));
                }
            });
        }
    }
}

/// `(σ(u), u')` of [`Gate::coefficients`]; beyond |g| = 100 the sigmoid has long saturated.
#[inline(always)]
unsafe fn sigmoid_and_slope<V: Vector>(g: V, (a, b): (V, V)) -> (V, V) {
    unsafe {
        let bg2 = b.mul(g.mul(g).min(V::splat(1e4)));
        (g.mul(a.add(bg2)).sigmoid(), bg2.mul_add(V::splat(3.0), a))
    }
}

kernel! {
    fn gate_mul_kernel<V, T: Value>(
        activation: Gate, gate: &[f32], up: &[f32], out: &mut [T], kept: Option<[&mut [T]; 2]>,
    ) {
        unsafe {
            let (a, b) = activation.coefficients();
            let u = (V::splat(a), V::splat(b));
            let len = out.len();
            let (gate, up, out) = (gate.as_ptr(), up.as_ptr(), out.as_mut_ptr());
            let kept = kept.map(|[gate, up]| (gate.as_mut_ptr(), up.as_mut_ptr()));
            for i in (0..len).step_by(LANES) {
                let n = len - i;
                let (g, up): (V, V) = (Lanes::load(gate.add(i), n), Lanes::load(up.add(i), n));
                T::store(out.add(i), n, g.mul(sigmoid_and_slope(g, u).0).mul(up));
                if let Some((kept_gate, kept_up)) = kept {
                    T::store(kept_gate.add(i), n, g);
                    T::store(kept_up.add(i), n, up);
                }
            }
        }
    }
}

/// Backward of [`gate_mul`]; `dgate` and `dup` are overwritten, and `out` with what [`gate_mul`] computed.
///
/// # Panics
/// When the lengths differ.
pub fn gate_mul_backward<T: Value>(
    activation: Gate,
    dy: &[f32],
    gate: &[T],
    up: &[T],
    out: &mut [T],
    dgate: &mut [T],
    dup: &mut [T],
) {
    for len in [gate.len(), up.len(), out.len(), dgate.len(), dup.len()] {
        assert_eq!(len, dy.len(), "gate_mul_backward: lengths");
    }
    let (path, len) = (Path::current(), task_len(LANES));
    let inputs = dy.chunks(len).zip(gate.chunks(len)).zip(up.chunks(len));
    let outputs = out.chunks_mut(len).zip(dgate.chunks_mut(len)).zip(dup.chunks_mut(len));
    team::consume(inputs.zip(outputs), |(((dy, gate), up), ((out, dgate), dup))| {
        // SAFETY: the path is available and the lengths agree.
        unsafe { gate_mul_backward_kernel(path, activation, dy, gate, up, out, dgate, dup) };
    });
}

kernel! {
    fn gate_mul_backward_kernel<V, T: Value>(
        activation: Gate, dy: &[f32], gate: &[T], up: &[T], out: &mut [T], dgate: &mut [T],
        dup: &mut [T],
    ) {
        unsafe {
            let (a, b) = activation.coefficients();
            let (u, one) = ((V::splat(a), V::splat(b)), V::splat(1.0));
            let len = dy.len();
            let (dy, gate, up) = (dy.as_ptr(), gate.as_ptr(), up.as_ptr());
            let (out, dgate, dup) = (out.as_mut_ptr(), dgate.as_mut_ptr(), dup.as_mut_ptr());
            for i in (0..len).step_by(LANES) {
                let n = len - i;
                let (dy, g): (V, V) = (Lanes::load(dy.add(i), n), T::load(gate.add(i), n));
                let up: V = T::load(up.add(i), n);
                let (s, du) = sigmoid_and_slope(g, u);
                let activated = g.mul(s);
                // (g · σ(u))' = s · (1 + g · (1 - s) · u')
                let slope = s.mul(g.mul(one.sub(s)).mul_add(du, one));
                T::store(out.add(i), n, activated.mul(up));
                T::store(dgate.add(i), n, dy.mul(up).mul(slope));
                T::store(dup.add(i), n, dy.mul(activated));
            }
        }
    }
}

/// GELU with the error function, as BERT has it, in place: `x · Φ(x)`.
///
/// The error function is Abramowitz and Stegun's 7.1.26, |error| ≤ 1.5e-7 before rounding.
pub fn gelu(x: &mut [f32]) {
    let path = Path::current();
    team::consume(x.chunks_mut(task_len(LANES)), |x| {
        // SAFETY: the path is available.
        unsafe { gelu_kernel(path, x) };
    });
}

kernel! {
    fn gelu_kernel<V>(x: &mut [f32]) {
        unsafe {
            #[inline(always)]
            unsafe fn step<V: Vector>(x: V) -> V {
                unsafe {
                    let (zero, one) = (V::splat(0.0), V::splat(1.0));
                    let z = x.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2));
                    let z = z.max(zero.sub(z));
                    let t = one.div(z.mul_add(V::splat(0.327_591_1), one));
                    let mut p = V::splat(1.061_405_4);
                    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
                        p = p.mul_add(t, V::splat(c));
                    }
                    // tail = 1 - erf(z), so that 1 + erf(±z) loses nothing for negative x.
                    let tail = p.mul(t).mul(zero.sub(z.mul(z)).exp());
                    let half = x.mul(V::splat(0.5));
                    let positive = half.mul(V::splat(2.0).sub(tail)).where_ge(x, zero);
                    let negative = half.mul(tail).where_ge(zero.sub(x), V::splat(f32::MIN_POSITIVE));
                    positive.add(negative)
                }
            }
            let whole = x.len() / LANES * LANES;
            let n = x.len() - whole;
            let x = x.as_mut_ptr();
            for i in (0..whole).step_by(LANES) {
                step(V::load(x.add(i))).store(x.add(i));
            }
            if n > 0 {
                step(V::load_partial(x.add(whole), n)).store_partial(x.add(whole), n);
            }
        }
    }
}

/// GELU in its tanh form, in place: [`Gate::GeluTanh`] without a second factor, called `gelu_new` and
/// `gelu_pytorch_tanh` in model files.
pub fn gelu_tanh(x: &mut [f32]) {
    let path = Path::current();
    team::consume(x.chunks_mut(task_len(LANES)), |x| {
        // SAFETY: the path is available.
        unsafe { gelu_tanh_kernel(path, x) };
    });
}

kernel! {
    fn gelu_tanh_kernel<V>(x: &mut [f32]) {
        unsafe {
            let (a, b) = Gate::GeluTanh.coefficients();
            let u = (V::splat(a), V::splat(b));
            let whole = x.len() / LANES * LANES;
            let n = x.len() - whole;
            let x = x.as_mut_ptr();
            for i in (0..whole).step_by(LANES) {
                let g = V::load(x.add(i));
                g.mul(sigmoid_and_slope(g, u).0).store(x.add(i));
            }
            if n > 0 {
                let g = V::load_partial(x.add(whole), n);
                g.mul(sigmoid_and_slope(g, u).0).store_partial(x.add(whole), n);
            }
        }
    }
}

/// Softmax over each row of `cols` values, in place. A row whose maximum is `-inf` becomes zeros.
///
/// # Panics
/// When `x.len()` is not a multiple of `cols`.
pub fn softmax_rows(x: &mut [f32], cols: usize) {
    if cols == 0 {
        return assert!(x.is_empty(), "softmax_rows: length");
    }
    assert_eq!(x.len() % cols, 0, "softmax_rows: length");
    let path = Path::current();
    team::consume(x.chunks_mut(task_len(cols)), |x| {
        for row in x.chunks_exact_mut(cols) {
            // SAFETY: the path is available.
            unsafe {
                let max = max_row(path, row);
                if max == f32::NEG_INFINITY {
                    row.fill(0.0);
                    continue;
                }
                let sum = exp_row(path, row, 1.0, max);
                scale_row(path, row, 1.0 / sum);
            }
        }
    });
}

/// `ln Σ e^x`, which takes `x` as its scratch; `-inf` when empty.
pub fn log_sum_exp(x: &mut [f32]) -> f32 {
    let path = Path::current();
    // SAFETY: the path is available.
    unsafe {
        let max = max_row(path, x);
        if max == f32::NEG_INFINITY { max } else { max + exp_row(path, x, 1.0, max).ln() }
    }
}

kernel! {
    /// Largest value; `-inf` when empty.
    fn max_row<V>(x: &[f32]) -> f32 {
        unsafe {
            let whole = x.len() / LANES * LANES;
            let mut max = V::splat(f32::NEG_INFINITY);
            for i in (0..whole).step_by(LANES) {
                max = max.max(V::load(x.as_ptr().add(i)));
            }
            x[whole..].iter().copied().fold(max.largest(), f32::max)
        }
    }
}

kernel! {
    /// `x = exp(scale · x - max)`; returns the sum, by lanes and then as a tree, so that trailing zeros
    /// of another length do not change it.
    fn exp_row<V>(x: &mut [f32], scale: f32, max: f32) -> f32 {
        unsafe {
            let whole = x.len() / LANES * LANES;
            let n = x.len() - whole;
            let x = x.as_mut_ptr();
            let (scale, shift) = (V::splat(scale), V::splat(-max));
            let mut sum = V::splat(0.0);
            for i in (0..whole).step_by(LANES) {
                let e = V::load(x.add(i)).mul_add(scale, shift).exp();
                e.store(x.add(i));
                sum = sum.add(e);
            }
            if n > 0 {
                let x = x.add(whole);
                V::load_partial(x, n).mul_add(scale, shift).exp().store_partial(x, n);
                sum = sum.add(V::load_partial(x, n));
            }
            sum.sum()
        }
    }
}

kernel! {
    /// [`exp_row`] with a relative error below 1e-5.
    fn exp_rough_row<V>(x: &mut [f32], scale: f32, max: f32) -> f32 {
        unsafe {
            let (len, x) = (x.len(), x.as_mut_ptr());
            let (scale, shift) = (V::splat(scale), V::splat(-max));
            let mut sum = V::splat(0.0);
            for i in (0..len).step_by(LANES) {
                let n = len - i;
                let v: V = Lanes::load(x.add(i), n);
                Lanes::store(x.add(i), n, v.mul_add(scale, shift).exp_rough());
                let e: V = Lanes::load(x.add(i), n);
                sum = sum.add(e);
            }
            sum.sum()
        }
    }
}

kernel! {
    /// `x = x * factor + y`, where `y` is as long as `x`.
    fn scale_add_row<V>(x: &mut [f32], factor: f32, y: &[f32]) {
        unsafe {
            let whole = x.len() / LANES * LANES;
            let n = x.len() - whole;
            let (x, y, factor) = (x.as_mut_ptr(), y.as_ptr(), V::splat(factor));
            for i in (0..whole).step_by(LANES) {
                V::load(x.add(i)).mul_add(factor, V::load(y.add(i))).store(x.add(i));
            }
            if n > 0 {
                let (x, y) = (x.add(whole), y.add(whole));
                let sum = V::load_partial(x, n).mul_add(factor, V::load_partial(y, n));
                sum.store_partial(x, n);
            }
        }
    }
}

kernel! {
    /// `x *= factor`.
    fn scale_row<V>(x: &mut [f32], factor: f32) {
        unsafe {
            let whole = x.len() / LANES * LANES;
            let factor_lanes = V::splat(factor);
            for i in (0..whole).step_by(LANES) {
                let p = x.as_mut_ptr().add(i);
                V::load(p).mul(factor_lanes).store(p);
            }
            for value in &mut x[whole..] {
                *value *= factor;
            }
        }
    }
}
