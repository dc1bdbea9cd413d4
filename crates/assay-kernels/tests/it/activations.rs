//! Norms, rotary embedding, activations, softmax and the optimiser.

use assay_kernels::{
    AdamW, Gate, Rope, RopeTable, Values, adamw_step, gate_mul, gate_mul_backward, gelu, gelu_tanh,
    layer_norm, log_sum_exp, reference, rms_norm, rms_norm_backward, rope, rope_backward,
    round_to_bf16, softmax_rows, sum_of_squares,
};
use half::bf16;
use proptest::prelude::*;

use crate::{assert_close, assert_gradient, assert_same_bits, on_every_path, values, weighted};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn norms(t in 0usize..9, h in 1usize..100) {
        let (x, w, b) = (values(t * h, 1), values(h, 2), values(h, 3));
        let (dy, dx) = (values(t * h, 4), values(t * h, 5));
        let (mut want, mut inv) = (vec![0.0; t * h], vec![0.0; t]);
        reference::rms_norm(&x, &w, 1e-5, &mut want, &mut inv);
        let mut want_dx = dx.clone();
        reference::rms_norm_backward(&dy, &x, &w, &inv, &mut want_dx);
        let mut want_layer = vec![0.0; t * h];
        reference::layer_norm(&x, &w, &b, 1e-12, &mut want_layer);
        on_every_path(|_| {
            let (mut got, mut got_inv) = (vec![0.0; t * h], vec![0.0; t]);
            rms_norm(&x, &w, 1e-5, &mut got, &mut got_inv);
            assert_close(&got, &want, 1e-5, "rms_norm");
            assert_close(&got_inv, &inv, 1e-5, "inv_rms");
            let mut got_dx = dx.clone();
            rms_norm_backward(&dy, &x, &w, &inv, &mut got_dx);
            assert_close(&got_dx, &want_dx, 1e-4, "rms_norm_backward");
            if h > 1 {
                layer_norm(&x, &w, &b, 1e-12, &mut got);
                assert_close(&got, &want_layer, 1e-3, "layer_norm");
            }
        });
    }

    #[test]
    fn gates(
        len in 0usize..100,
        spread in 0.1f32..60.0,
        kind in prop_oneof![Just(Gate::Silu), Just(Gate::GeluTanh)],
    ) {
        let gate: Vec<f32> = values(len, 1).iter().map(|v| v * spread).collect();
        let (up, dy) = (values(len, 2), values(len, 3));
        let mut want = [vec![0.0; len], vec![0.0; len], vec![0.0; len], gate.clone(), gate.clone()];
        let mut got = want.clone();
        let [y, dg, du, g, t] = &mut want;
        reference::gate_mul(kind, &gate, &up, y);
        reference::gate_mul_backward(kind, &dy, &gate, &up, dg, du);
        reference::gelu(g);
        reference::gelu_tanh(t);
        on_every_path(|_| {
            let [y, dg, du, g, t] = &mut got;
            gate_mul(kind, &gate, &up, y, None);
            let mut again = vec![f32::NAN; y.len()];
            gate_mul_backward(kind, &dy, &gate, &up, &mut again, dg, du);
            assert_eq!(again, *y);
            g.copy_from_slice(&gate);
            gelu(g);
            t.copy_from_slice(&gate);
            gelu_tanh(t);
            for (got, want) in got.iter().zip(&want) {
                assert_close(got, want, 2e-6, "activation");
            }
        });
    }

    #[test]
    fn softmaxes(rows in 0usize..5, cols in 1usize..90) {
        let x: Vec<f32> = values(rows * cols, 1).iter().map(|v| v * 30.0).collect();
        let mut want = x.clone();
        reference::softmax_rows(&mut want, cols);
        on_every_path(|_| {
            let mut got = x.clone();
            softmax_rows(&mut got, cols);
            assert_close(&got, &want, 1e-6, "softmax");
            for row in x.chunks(cols) {
                let sum = reference::log_sum_exp(row);
                assert_close(&[log_sum_exp(&mut row.to_vec())], &[sum], 1e-6, "log-sum-exp");
            }
        });
    }

    #[test]
    fn rotations(t in 0usize..6, heads in 1usize..4, half in 1usize..20, interleaved: bool) {
        let table = RopeTable::new(2 * half, 10_000.0, 50);
        let style = if interleaved { Rope::Interleaved } else { Rope::Halves };
        let positions: Vec<u32> = (0..t as u32).map(|i| (i * 17) % 50).collect();
        let x = values(t * heads * 2 * half, 1);
        let (mut got, mut want) = (x.clone(), x.clone());
        rope(&mut got, heads, &positions, &table, style);
        reference::rotate(&mut want, heads, &positions, &table, style, 1.0);
        assert_close(&got, &want, 1e-6, "rope");
        rope_backward(&mut got, heads, &positions, &table, style);
        assert_close(&got, &x, 1e-5, "rope there and back");
    }

    #[test]
    fn optimiser_steps(len in 0usize..80, step in 1u64..2000) {
        let options = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
        let grad = values(len, 1);
        let squares: Vec<f32> = values(len, 2).iter().map(|v| v * v).collect();
        let start = [values(len, 3), values(len, 4), squares];
        let mut want = start.clone();
        let [p, m, v] = &mut want;
        reference::adamw_step(p, &grad, m, v, &options, step);
        on_every_path(|_| {
            let mut got = start.clone();
            let [p, m, v] = &mut got;
            adamw_step(p, &grad, m, v, &options, step);
            for (got, want) in got.iter().zip(&want) {
                assert_close(got, want, 1e-5, "adamw");
            }
        });
    }
}

#[test]
fn the_log_sum_of_nothing_is_minus_infinity() {
    for mut x in [vec![], vec![f32::NEG_INFINITY; 19]] {
        on_every_path(|_| assert_eq!(log_sum_exp(&mut x), f32::NEG_INFINITY));
    }
}

#[test]
fn softmax_of_masked_rows() {
    on_every_path(|_| {
        let mut x = vec![f32::NEG_INFINITY; 40];
        x[3] = 1.0;
        softmax_rows(&mut x, 20);
        let mut want = vec![0.0; 40];
        want[3] = 1.0;
        assert_eq!(x, want);
    });
}

#[test]
fn gradients_by_differences() {
    let (t, h) = (3, 50);
    let (x, w, dy) = (values(t * h, 1), values(h, 2), values(t * h, 3));
    let (up, gate) = (values(t * h, 4), values(t * h, 5));
    on_every_path(|_| {
        let (mut y, mut inv) = (vec![0.0; t * h], vec![0.0; t]);
        rms_norm(&x, &w, 1e-5, &mut y, &mut inv);
        let mut dx = vec![0.0; t * h];
        rms_norm_backward(&dy, &x, &w, &inv, &mut dx);
        let loss = |x: &[f32]| {
            let (mut y, mut inv) = (vec![0.0; t * h], vec![0.0; t]);
            rms_norm(x, &w, 1e-5, &mut y, &mut inv);
            weighted(&y, &dy)
        };
        assert_gradient(&x, &dx, loss, "rms_norm");

        for kind in [Gate::Silu, Gate::GeluTanh] {
            let (mut dgate, mut dup) = (vec![0.0; t * h], vec![0.0; t * h]);
            gate_mul_backward(
                kind,
                &dy,
                &gate,
                &up,
                &mut vec![0.0; dy.len()],
                &mut dgate,
                &mut dup,
            );
            let loss = |gate: &[f32], up: &[f32]| {
                let mut y = vec![0.0; t * h];
                gate_mul(kind, gate, up, &mut y, None);
                weighted(&y, &dy)
            };
            assert_gradient(&gate, &dgate, |gate| loss(gate, &up), "gate_mul gate");
            assert_gradient(&up, &dup, |up| loss(&gate, up), "gate_mul up");
        }
    });
}

#[test]
fn sums_of_squares() {
    let x = values(100_000, 1);
    let want = reference::sum_of_squares(&x);
    assert!((sum_of_squares(&x) - want).abs() < 1e-9 * want);
    assert_eq!(sum_of_squares(&[]), 0.0);
}

/// The extremes of the exponential: no NaN, exact zero for what is masked.
#[test]
fn gates_at_the_extremes() {
    on_every_path(|_| {
        for kind in [Gate::Silu, Gate::GeluTanh] {
            let gate = [-1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30];
            let mut y = [0.0; 7];
            gate_mul(kind, &gate, &[1.0; 7], &mut y, None);
            assert_close(&y, &[0.0, 0.0, 0.0, 0.0, 88.0, 200.0, 1e30], 1e-6, "gate");
            assert_same_bits(&y[3..4], &[0.0], "gate(0)");
            let (mut dgate, mut dup) = ([0.0; 7], [0.0; 7]);
            gate_mul_backward(
                kind,
                &[1.0; 7],
                &gate,
                &[1.0; 7],
                &mut [0.0; 7],
                &mut dgate,
                &mut dup,
            );
            assert_close(&dgate, &[0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0], 1e-4, "slope");
        }
    });
}

/// What is kept in bf16 is what was computed, rounded.
#[test]
fn values_in_bf16_are_the_rounded_ones() {
    for len in [1, 15, 16, 33, 70_000] {
        let [gate, up, dy] = [1, 2, 3].map(|seed| values(len, seed));
        let round = |x: &[f32]| -> Vec<bf16> { x.iter().map(|&v| bf16::from_f32(v)).collect() };
        let widen = |x: &[bf16]| -> Vec<f32> { x.iter().map(|v| v.to_f32()).collect() };
        on_every_path(|path| {
            let new = || vec![bf16::NAN; len];
            let mut wide = vec![0.0; len];
            gate_mul(Gate::Silu, &gate, &up, &mut wide, None);
            let (mut out, mut kept_gate, mut kept_up) = (new(), new(), new());
            let kept = Some([&mut kept_gate[..], &mut kept_up[..]]);
            gate_mul(Gate::Silu, &gate, &up, &mut out[..], kept);
            assert_eq!(out, round(&wide), "{path:?}");
            assert_eq!((kept_gate, kept_up), (round(&gate), round(&up)), "{path:?}");

            let (gate, up) = (round(&gate), round(&up));
            let (wide_gate, wide_up) = (widen(&gate), widen(&up));
            let mut want = [(); 3].map(|()| vec![0.0; len]);
            let [y, dg, du] = &mut want;
            gate_mul_backward(Gate::Silu, &dy, &wide_gate, &wide_up, &mut y[..], dg, du);
            let mut got = [new(), new(), new()];
            let [y, dg, du] = &mut got;
            gate_mul_backward(Gate::Silu, &dy, &gate, &up, &mut y[..], dg, du);
            assert_eq!(got, want.map(|x| round(&x)), "{path:?}");

            let (mut halves, mut there_and_back) = (new(), vec![f32::NAN; len]);
            round_to_bf16(&dy, &mut halves);
            assert_eq!(halves, round(&dy), "{path:?}");
            Values::Bf16(&halves).widen(&mut there_and_back);
            assert_eq!(there_and_back, widen(&halves), "{path:?}");

            let weight = values(len, 4);
            let (mut wide, mut inv_rms) = (vec![0.0; len], [0.0]);
            rms_norm(&dy, &weight, 1e-5, &mut wide[..], &mut inv_rms);
            rms_norm(&dy, &weight, 1e-5, &mut halves[..], &mut inv_rms);
            assert_eq!(halves, round(&wide), "{path:?}");
        });
    }
    on_every_path(|path| {
        let mut out = [bf16::ZERO; 5];
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX];
        round_to_bf16(&special, &mut out);
        assert!(out[0].is_nan(), "{path:?}");
        assert_eq!(out[1..], special.map(bf16::from_f32)[1..], "{path:?}");
    });
}
