//! Products with weights of eight bits.

use assay_kernels::{Int8Linear, Int8Matrix, linear_int8, reference};
use proptest::prelude::*;

use crate::{assert_same_bits, on_every_path, values};

fn run(x: &[f32], m: usize, w: &Int8Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * w.rows()];
    linear_int8(x, m, &mut [Int8Linear { w, bias, out: &mut out }], false);
    out
}

/// Inputs as they come behind a GELU: mostly small, some large, hardly any negative.
fn inputs(len: usize, seed: u64) -> Vec<f32> {
    values(len, seed).iter().map(|v| v.max(-0.1) * v * v * 4.0).collect()
}

fn check(m: usize, n: usize, k: usize) {
    let (x, w, bias) = (inputs(m * k, 1), values(n * k, 2), values(n, 3));
    let packed = Int8Matrix::pack(&w, n, k);
    let want = reference::linear_int8(&x, m, &w, n, &bias);
    on_every_path(|path| {
        let what = format!("{path:?} {m}x{n}x{k}");
        let got = run(&x, m, &packed, Some(&bias));
        assert_same_bits(&got, &want, &what);
        for i in 0..m {
            let row = &x[i * k..][..k];
            let range = row.iter().fold(0.0f32, |a, &v| a.max(v))
                - row.iter().fold(0.0f32, |a, &v| a.min(v));
            for j in 0..n {
                let w = &w[j * k..][..k];
                let largest = w.iter().fold(0.0f32, |a, v| a.max(v.abs()));
                let exact: f64 =
                    row.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                // Half a step of each factor times the other.
                let bound = (k as f32) * (range / 255.0 * largest + range * largest / 254.0);
                let error = f64::from(got[i * n + j]) - exact - f64::from(bias[j]);
                assert!(error.abs() <= f64::from(bound) + 1e-4, "{what} [{i}, {j}]: {error}");
            }
        }
        let mut twice = got.clone();
        let part = Int8Linear { w: &packed, bias: Some(&bias), out: &mut twice };
        linear_int8(&x, m, &mut [part], true);
        let sums: Vec<f32> = got.iter().map(|v| v + v).collect();
        assert_same_bits(&twice, &sums, &format!("{what} added"));
    });
}

#[test]
fn int8_products_at_model_shapes() {
    check(128, 384, 384);
    check(40, 1536, 384);
    check(19, 384, 1536);
}

#[test]
fn a_row_and_a_weight_do_not_depend_on_their_company() {
    let (m, k) = (37, 96);
    let x = inputs(m * k, 4);
    let first = Int8Matrix::pack(&values(80 * k, 5), 80, k);
    let second = Int8Matrix::pack(&values(33 * k, 6), 33, k);
    on_every_path(|path| {
        let (mut a, mut b) = (vec![0.0; m * 80], vec![0.0; m * 33]);
        let mut both = [
            Int8Linear { w: &first, bias: None, out: &mut a },
            Int8Linear { w: &second, bias: None, out: &mut b },
        ];
        linear_int8(&x, m, &mut both, false);
        for (start, rows) in [(0, 1), (36, 1), (4, 3), (10, 27)] {
            let own = run(&x[start * k..][..rows * k], rows, &first, None);
            assert_same_bits(&a[start * 80..][..rows * 80], &own, &format!("{path:?} {start}"));
        }
        assert_same_bits(&b, &run(&x, m, &second, None), &format!("{path:?} second"));
    });
}

#[test]
fn what_is_not_finite_spoils_its_own_row_and_shows() {
    let k = 40;
    let w = Int8Matrix::pack(&values(20 * k, 7), 20, k);
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = inputs(3 * k, 8);
        let clean = run(&x, 3, &w, None);
        x[k + 17] = odd;
        on_every_path(|_| {
            let got = run(&x, 3, &w, None);
            assert!(got[20..40].iter().all(|v| v.is_nan()), "{odd}: {:?}", &got[20..40]);
            assert_same_bits(&got[..20], &clean[..20], "row before");
            assert_same_bits(&got[40..], &clean[40..], "row behind");
        });
    }
}

#[test]
fn zeros_stay_zeros() {
    let w = Int8Matrix::pack(&vec![0.0; 64], 4, 16);
    assert_eq!(run(&values(16, 9), 1, &w, None), [0.0; 4]);
    let w = Int8Matrix::pack(&values(64, 9), 4, 16);
    assert_eq!(run(&[0.0; 16], 1, &w, Some(&[1.0, 2.0, 3.0, 4.0])), [1.0, 2.0, 3.0, 4.0]);
    // Without a column, the bias is all there is.
    let w = Int8Matrix::pack(&[], 2, 0);
    assert_eq!(run(&[], 3, &w, Some(&[1.0, 2.0])), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn odd_shapes(m in 0usize..40, n in 1usize..70, k in 1usize..130) {
        check(m, n, k);
    }
}
