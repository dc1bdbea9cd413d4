//! Packed products, small products and dot.

use assay_kernels::{
    Linear, LowRank, Outer, PackedMatrix, Precision, Values, add_outer, dot, gemm, linear, matmul,
    matmul_add, reference,
};
use half::bf16;
use proptest::prelude::*;

use crate::{assert_close, assert_same_bits, on_every_path, values};

fn rounded(x: &[f32], precision: Precision) -> Vec<f32> {
    x.iter()
        .map(|&v| match precision {
            Precision::F32 => v,
            Precision::Bf16 => bf16::from_f32(v).to_f32(),
        })
        .collect()
}

fn check_packed(m: usize, n: usize, k: usize, precision: Precision) {
    let (x, w) = (values(m * k, 1), values(n * k, 2));
    let mut want = vec![0.0; m * n];
    let (xr, wr) = (rounded(&x, precision), rounded(&w, precision));
    reference::gemm(1.0, &xr, false, &wr, true, 0.0, &mut want, m, n, k);
    let tolerance = 2e-6 * (k as f32).sqrt().max(1.0);
    on_every_path(|path| {
        let packed = PackedMatrix::pack(&w, n, k, precision);
        assert_eq!((packed.rows(), packed.cols()), (n, k));
        let mut got = vec![f32::NAN; m * n];
        matmul(&x, m, &packed, &mut got);
        assert_close(&got, &want, tolerance, &format!("{path:?} matmul {m}x{n}x{k}"));
        if precision == Precision::Bf16 {
            let halves: Vec<bf16> = x.iter().map(|&v| bf16::from_f32(v)).collect();
            let mut same = vec![f32::NAN; m * n];
            let product = Linear { w: &packed, pair: None, bias: None, out: &mut same };
            linear(Values::Bf16(&halves), m, &mut [product], false);
            assert_same_bits(&same, &got, &format!("{path:?} matmul of bf16 {m}x{n}x{k}"));
        }
        matmul_add(&x, m, &packed, &mut got);
        let twice: Vec<f32> = want.iter().map(|v| 2.0 * v).collect();
        assert_close(&got, &twice, 2.0 * tolerance, &format!("{path:?} matmul_add {m}x{n}x{k}"));
    });
}

/// `x·(W + B·A)ᵀ + bias` in one go, against its parts.
fn check_low_rank(m: usize, n: [usize; 2], k: usize, rank: usize, precision: Precision) {
    let x = values(m * k, 1);
    let weights = n.map(|n| values(n * k, 2));
    let (a, b, bias) = (values(rank * k, 3), values(n[0] * rank, 4), values(n[0], 5));
    let tolerance = 4e-6 * ((k + rank) as f32).sqrt().max(1.0);
    // The pair's middle is rounded too.
    let middle_tolerance = if precision == Precision::F32 { tolerance } else { 4e-2 };
    on_every_path(|path| {
        let packed: Vec<_> =
            n.iter().zip(&weights).map(|(&n, w)| PackedMatrix::pack(w, n, k, precision)).collect();
        let down = PackedMatrix::pack(&a, rank, k, precision);
        let up = PackedMatrix::pack(&b, n[0], rank, precision);
        let mut want = n.map(|n| vec![0.5; m * n]);
        let mut want_z = vec![0.0; m * rank];
        for (want, w) in want.iter_mut().zip(&packed) {
            matmul_add(&x, m, w, want);
        }
        matmul(&x, m, &down, &mut want_z);
        matmul_add(&want_z, m, &up, &mut want[0]);
        for row in want[0].chunks_exact_mut(n[0]) {
            row.iter_mut().zip(&bias).for_each(|(y, b)| *y += b);
        }
        let mut got = n.map(|n| vec![0.5; m * n]);
        let mut z = vec![f32::NAN; m * rank];
        let [first, second] = &mut got;
        let pair = Some(LowRank { down: &down, up: &up, z: &mut z });
        let both = &mut [
            Linear { w: &packed[0], pair, bias: Some(&bias), out: first },
            Linear { w: &packed[1], pair: None, bias: None, out: second },
        ];
        linear(Values::F32(&x), m, both, true);
        let what = format!("{path:?} {precision:?} {m}x{n:?}x{k}, rank {rank}");
        assert_close(&z, &want_z, tolerance, &what);
        assert_close(&got[0], &want[0], middle_tolerance, &what);
        assert_close(&got[1], &want[1], tolerance, &what);
    });
}

#[test]
fn packed_products_at_model_shapes() {
    for precision in [Precision::F32, Precision::Bf16] {
        check_packed(1, 192, 576, precision);
        check_packed(70, 576, 576, precision);
        check_packed(5, 96, 4100, precision);
        check_low_rank(300, [576, 192], 576, 16, precision);
        check_low_rank(40, [96, 17], 4100, 16, precision);
    }
}

#[test]
fn packed_rows_and_transposes_are_exact() {
    let (n, k) = (37, 45);
    let w = values(n * k, 3);
    for precision in [Precision::F32, Precision::Bf16] {
        let packed = PackedMatrix::pack(&w, n, k, precision);
        let want = rounded(&w, precision);
        let there_and_back = packed.transposed().transposed();
        let direct = PackedMatrix::pack_transposed(&w, n, k, precision);
        for row in 0..n {
            let mut got = vec![0.0; k];
            packed.row(row, &mut got);
            assert_eq!(got, want[row * k..][..k]);
            there_and_back.row(row, &mut got);
            assert_eq!(got, want[row * k..][..k]);
        }
        let mut column = vec![0.0; n];
        direct.row(7, &mut column);
        assert_eq!(column, (0..n).map(|row| want[row * k + 7]).collect::<Vec<_>>());
    }
}

#[test]
fn empty_products() {
    let w = PackedMatrix::pack(&[], 3, 0, Precision::Bf16);
    let mut out = [f32::NAN; 6];
    matmul(&[], 2, &w, &mut out);
    assert_eq!(out, [0.0; 6]);
    matmul(&[], 0, &w, &mut []);
    gemm(1.0, &[], false, &[], false, 0.0, &mut out, 2, 3, 0);
    assert_eq!(out, [0.0; 6]);
}

fn check_gemm(m: usize, n: usize, k: usize, ta: bool, tb: bool, alpha: f32, beta: f32) {
    let (a, b, old) = (values(m * k, 4), values(k * n, 5), values(m * n, 6));
    let mut want = old.clone();
    reference::gemm(alpha, &a, ta, &b, tb, beta, &mut want, m, n, k);
    on_every_path(|path| {
        let mut got = if beta == 0.0 { vec![f32::NAN; m * n] } else { old.clone() };
        gemm(alpha, &a, ta, &b, tb, beta, &mut got, m, n, k);
        let what = format!("{path:?} gemm {m}x{n}x{k} ta={ta} tb={tb}");
        assert_close(&got, &want, 2e-6 * (k as f32).sqrt().max(1.0), &what);
    });
}

#[test]
fn lora_products() {
    for (m, n, k, ta, tb) in [
        (100, 16, 576, false, true),
        (100, 576, 16, false, true),
        (576, 8, 100, true, false),
        (100, 4, 576, false, false),
        (16, 576, 100, true, false),
        (100, 576, 16, false, false),
    ] {
        check_gemm(m, n, k, ta, tb, 0.5, 1.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn packed_products(m in 1usize..80, n in 1usize..120, k in 1usize..150, bf16: bool) {
        check_packed(m, n, k, if bf16 { Precision::Bf16 } else { Precision::F32 });
    }

    #[test]
    fn products_with_a_low_rank_part(
        m in 1usize..80, n in 1usize..120, k in 1usize..150, rank in 1usize..40, bf16: bool,
    ) {
        let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
        check_low_rank(m, [n, 120 - n], k, rank, precision);
    }

    #[test]
    fn outer_products(t in 0usize..600, r in 1usize..40, n in 1usize..250, halved: bool) {
        let precision = if halved { Precision::Bf16 } else { Precision::F32 };
        let (z, y, old) = (values(t * r, 1), values(t * n, 2), values(r * n, 3));
        let mut want = old.clone();
        reference::gemm(0.5, &z, true, &y, false, 1.0, &mut want, r, n, t);
        let transposed = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
        };
        // Of bf16 factors, each off by 1/256 at most.
        let tolerance = (t as f32).sqrt().max(1.0) * if halved { 4e-3 } else { 2e-6 };
        on_every_path(|path| {
            let (mut got, mut got_t) = (old.clone(), transposed(&old, r, n));
            add_outer(0.5, &z, Values::F32(&y), (t, r, n), precision, Outer::AsIs, &mut got);
            add_outer(0.5, &z, Values::F32(&y), (t, r, n), precision, Outer::Transposed, &mut got_t);
            assert_close(&got, &want, tolerance, &format!("{path:?} outer {t}x{r}x{n}"));
            assert_close(&transposed(&got_t, n, r), &got, 1e-5, "transposed outer");
            if halved {
                let halves: Vec<_> = y.iter().map(|&v| bf16::from_f32(v)).collect();
                let (mut same, y) = (old.clone(), Values::Bf16(&halves));
                add_outer(0.5, &z, y, (t, r, n), precision, Outer::AsIs, &mut same);
                assert_close(&same, &want, tolerance, &format!("{path:?} outer of bf16"));
            }
        });
    }

    #[test]
    fn small_products(
        m in 1usize..70, n in 1usize..70, k in 0usize..70,
        ta: bool, tb: bool, beta in prop::sample::select(vec![0.0f32, 1.0, -0.5]),
    ) {
        check_gemm(m, n, k, ta, tb, 1.5, beta);
    }

    #[test]
    fn dots(len in 0usize..200) {
        let (a, b) = (values(len, 7), values(len, 8));
        on_every_path(|_| assert_close(&[dot(&a, &b)], &[reference::dot(&a, &b)], 1e-5, "dot"));
    }
}
