//! Products with quantised weights.

use assay_kernels::{QuantFormat, QuantMatrix, quant_matmul, reference};
use half::f16;
use proptest::prelude::*;

use crate::{assert_same_bits, on_every_path, values};

const FORMATS: [QuantFormat; 3] = [QuantFormat::Four, QuantFormat::Eight, QuantFormat::EightBy16];

/// A matrix and its dequantised values.
fn matrix(rows: usize, cols: usize, format: QuantFormat, seed: u64) -> (QuantMatrix, Vec<f32>) {
    let steps = if format == QuantFormat::Four { 15.999 } else { 255.999 };
    let block = format.block();
    let q: Vec<u8> =
        values(rows * cols, seed).iter().map(|v| ((v + 1.0) / 2.0 * steps) as u8).collect();
    let nearest = |v: f32| f16::from_f32(v).to_f32();
    let scale: Vec<f32> =
        values(rows * cols / block, seed + 1).iter().map(|v| nearest(v / steps)).collect();
    let min: Vec<f32> = values(scale.len(), seed + 2).iter().map(|v| nearest(*v)).collect();
    let packed = QuantMatrix::pack_with(rows, cols, format, |row, out| {
        out.q.copy_from_slice(&q[row * cols..][..cols]);
        let blocks = cols / block;
        out.scale.copy_from_slice(&scale[row * blocks..][..blocks]);
        out.min.copy_from_slice(&min[row * blocks..][..blocks]);
    });
    let weights = q.iter().enumerate().map(|(i, &q)| {
        let b = i / block;
        scale[b] * f32::from(q) + min[b]
    });
    (packed, weights.collect())
}

/// `Σ w·x` and `Σ |w·x|` of every output, in f64.
fn products(x: &[f32], w: &[f32], m: usize, n: usize, k: usize) -> Vec<(f64, f64)> {
    let mut all = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let terms = x[i * k..][..k].iter().zip(&w[j * k..][..k]);
            let terms = terms.map(|(x, w)| f64::from(*x) * f64::from(*w));
            all.push(terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs())));
        }
    }
    all
}

fn check(m: usize, n: usize, k: usize, format: QuantFormat) {
    let x: Vec<f32> = values(m * k, 7).iter().map(|v| v * v * v * 3.0).collect();
    let (packed, w) = matrix(n, k, format, 11);
    let want = products(&reference::quantised_inputs(&x, k), &w, m, n, k);
    let exact = products(&x, &w, m, n, k);
    on_every_path(|path| {
        let mut got = vec![f32::NAN; m * n];
        quant_matmul(&x, m, &mut [(&packed, &mut got)], false);
        for (i, ((&got, want), exact)) in got.iter().zip(&want).zip(&exact).enumerate() {
            // Scale and minimum are summed apart, so the terms may be far larger than the result.
            let size = 1.0 + want.1 + k as f64;
            let error = (f64::from(got) - want.0).abs();
            assert!(error <= 2e-6 * size, "{path:?} {format:?} {m}x{n}x{k} [{i}]: {got}, {want:?}");
            // Half a step of 127 per input, relative to the largest of its block.
            let bound = 3.0 * k as f64 * 1.0 / 254.0;
            assert!((f64::from(got) - exact.0).abs() <= bound, "{i}: {got} against {exact:?}");
        }
        let mut twice = got.clone();
        quant_matmul(&x, m, &mut [(&packed, &mut twice)], true);
        let sums: Vec<f32> = got.iter().map(|v| v + v).collect();
        assert_same_bits(&twice, &sums, &format!("{path:?} added"));
    });
}

#[test]
fn quantised_products_at_model_shapes() {
    for format in FORMATS {
        check(1, 192, 576, format);
        check(33, 49, 576, format);
        check(2, 40, 1536, format);
    }
}

#[test]
fn a_row_and_a_matrix_do_not_depend_on_their_company() {
    let (k, m) = (576, 37);
    let x = values(m * k, 3);
    for format in FORMATS {
        let (first, _) = matrix(576, k, format, 20);
        let (second, _) = matrix(100, k, format, 30);
        on_every_path(|path| {
            let (mut a, mut b) = (vec![0.0; m * 576], vec![0.0; m * 100]);
            quant_matmul(&x, m, &mut [(&first, &mut a), (&second, &mut b)], false);
            for (start, rows) in [(0, 1), (36, 1), (4, 3), (10, 8), (7, 30)] {
                let mut part = vec![0.0; rows * 100];
                let x = &x[start * k..][..rows * k];
                quant_matmul(x, rows, &mut [(&second, &mut part)], false);
                let what = format!("{path:?} {format:?} rows {start}+{rows}");
                assert_same_bits(&part, &b[start * 100..][..rows * 100], &what);
            }
        });
    }
}

#[test]
fn zeros_stay_zeros_and_what_is_not_finite_does_not_pass_for_a_number() {
    let (packed, _) = matrix(16, 64, QuantFormat::Four, 5);
    on_every_path(|path| {
        let mut out = [f32::NAN; 16];
        quant_matmul(&[0.0; 64], 1, &mut [(&packed, &mut out)], false);
        assert_eq!(out, [0.0; 16], "{path:?}");
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [0.5; 64];
            x[40] = bad;
            quant_matmul(&x, 1, &mut [(&packed, &mut out)], false);
            assert!(out.iter().all(|v| !v.is_finite()), "{path:?} {bad}: {out:?}");
        }
    });
}

#[test]
#[should_panic(expected = "four bits hold 0 to 15")]
fn integers_out_of_range_are_refused() {
    QuantMatrix::pack_with(1, 32, QuantFormat::Four, |_, row| row.q.fill(16));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn quantised_products_of_odd_shapes(m in 1usize..20, n in 1usize..70, blocks in 1usize..6, f in 0usize..3) {
        check(m, n, blocks * 32, FORMATS[f]);
    }
}
