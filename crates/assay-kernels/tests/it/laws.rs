//! Same bits for any number of threads and any batch.

use assay_kernels::{
    Heads, Outer, PackedMatrix, Path, Precision, Scores, Values, add_outer, attention_backward,
    attention_forward, gemm, linear_cross_entropy, matmul, on_one_thread, rms_norm, sum_of_squares,
    with_path,
};

use crate::{assert_same_bits, on_every_path, values};

#[test]
fn a_row_of_a_product_does_not_depend_on_the_batch() {
    for (n, k) in [(576, 576), (100, 1536), (50, 2500), (33, 31)] {
        let (x, w) = (values(100 * k, 1), values(n * k, 2));
        for precision in [Precision::F32, Precision::Bf16] {
            on_every_path(|path| {
                let packed = PackedMatrix::pack(&w, n, k, precision);
                let mut all = vec![0.0; 100 * n];
                matmul(&x, 100, &packed, &mut all);
                for (start, m) in [(0, 1), (3, 1), (99, 1), (5, 2), (10, 9), (40, 17), (60, 40)] {
                    let mut part = vec![0.0; m * n];
                    matmul(&x[start * k..][..m * k], m, &packed, &mut part);
                    let what = format!("{path:?} {precision:?} rows {start}+{m} of {n}x{k}");
                    assert_same_bits(&part, &all[start * n..][..m * n], &what);
                }
            });
        }
    }
}

/// Everything that reduces, at sizes that run in parallel.
fn results(path: Path) -> Vec<Vec<f32>> {
    with_path(path, || {
        let (m, n, k) = (310, 200, 576);
        let (x, w) = (values(m * k, 1), values(n * k, 2));
        let mut all = Vec::new();
        for precision in [Precision::F32, Precision::Bf16] {
            let mut out = vec![0.0; m * n];
            matmul(&x, m, &PackedMatrix::pack(&w, n, k, precision), &mut out);
            all.push(out);
        }
        let mut out = vec![0.0; k * 16];
        gemm(1.0, &x, true, &x[..m * 16], false, 0.0, &mut out, k, 16, m);
        all.push(out);
        let mut out = vec![0.0; 16 * k];
        gemm(1.0, &x[..m * 16], true, &x, false, 0.0, &mut out, 16, k, m);
        all.push(out);

        let mut out = vec![0.0; 16 * k];
        let shape = (m, 16, k);
        add_outer(
            1.0,
            &x[..m * 16],
            Values::F32(&x),
            shape,
            Precision::Bf16,
            Outer::AsIs,
            &mut out,
        );
        all.push(out);

        let heads = Heads { heads: 9, kv_heads: 3, head_dim: 64 };
        let kv = heads.kv_width() * m;
        let (mut out, mut lse) = (vec![0.0; m * k], vec![0.0; m * 9]);
        let (key, value, segments) = (&x[..kv], &x[kv..2 * kv], [0, 100, m]);
        for precision in [Precision::F32, Precision::Bf16] {
            let scores = Scores { scale: 0.125, window: Some(130), precision };
            attention_forward(&x, key, value, &segments, heads, scores, &mut out, &mut lse);
            let (mut dq, mut dk, mut dv) = (vec![0.0; m * k], vec![0.0; kv], vec![0.0; kv]);
            attention_backward(
                &x, &x, key, value, &out, &lse, &segments, heads, scores, &mut dq, &mut dk, &mut dv,
            );
            all.extend([out.clone(), lse.clone(), dq, dk, dv]);
        }

        let head = PackedMatrix::pack(&w, n, k, Precision::Bf16);
        let targets: Vec<u32> = (0..m as u32).map(|i| i % n as u32).collect();
        let mut dx = vec![0.0; m * k];
        let loss = linear_cross_entropy(&x, &head, &head.transposed(), &targets, 1.0, &mut dx);
        all.push(vec![loss as f32, sum_of_squares(&x) as f32]);
        let mut inv = vec![0.0; m];
        rms_norm(&x, &x[..k], 1e-5, &mut dx.clone(), &mut inv);
        all.extend([dx, inv]);
        all
    })
}

#[test]
fn bits_do_not_depend_on_the_threads() {
    for &path in Path::available() {
        let pool = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a pool")
        };
        let one = pool(1).install(|| results(path));
        let three = pool(3).install(|| results(path));
        let alone = pool(3).install(|| on_one_thread(|| results(path)));
        for (i, (one, (three, alone))) in one.iter().zip(three.iter().zip(&alone)).enumerate() {
            assert_same_bits(one, three, &format!("{path:?} result {i}"));
            assert_same_bits(one, alone, &format!("{path:?} result {i} alone"));
        }
    }
}
