//! Estimated similarities and their bounds; terms of BM25.

use assay_kernels::{
    CodedQuery, SCAN_ROWS, add_saturated, coarse_bytes, code_coarse, code_fine, dot, fine_bytes,
    scan_coarse, scan_fine,
};
use proptest::prelude::*;

use crate::{assert_same_bits, on_every_path, values};

/// What may be lost to rounding in `f32`, in the estimate and in [`dot`].
fn rounding(dims: usize) -> f64 {
    (dims as f64 + 32.0) / f64::from(1 << 23)
}

proptest! {
    #[test]
    fn estimates_are_within_their_bounds(dims in 1usize..150, seed: u64, scale in prop::sample::select(vec![0.0f32, 1e-20, 1.0, 3e7])) {
        // Two words of rows, the first value sometimes much larger than the rest.
        let row = |i: usize| -> Vec<f32> {
            let mut row = values(dims, seed.wrapping_add(i as u64));
            row.iter_mut().for_each(|v| *v *= scale);
            if i.is_multiple_of(3) { row[0] *= 100.0; }
            row
        };
        let query = values(dims, seed ^ 1);
        let rows: Vec<Vec<f32>> = (0..2 * SCAN_ROWS).map(row).collect();
        let mut coarse = vec![0; 2 * coarse_bytes(dims)];
        let mut fine = vec![0; rows.len() * fine_bytes(dims)];
        let coded: Vec<_> = rows.iter().enumerate().map(|(i, row)| {
            let (word, lane) = (i / SCAN_ROWS, i % SCAN_ROWS);
            let codes = &mut coarse[word * coarse_bytes(dims)..][..coarse_bytes(dims)];
            (code_coarse(row, lane, codes), code_fine(row, &mut fine[i * fine_bytes(dims)..][..fine_bytes(dims)]))
        }).collect();
        let steps: Vec<f32> = coded.iter().map(|c| c.0.step).collect();
        let fine_steps: Vec<f32> = coded.iter().map(|c| c.1.step).collect();
        let q = CodedQuery::new(&query);
        let mut first: Option<Vec<f32>> = None;
        on_every_path(|path| {
            let mut estimates = vec![f32::NAN; rows.len()];
            scan_coarse(&q, dims, &coarse, &steps, &[1, 1 << 63], &mut estimates);
            let backwards: Vec<u32> = (0..rows.len() as u32).rev().collect();
            let mut of_fine = vec![f32::NAN; rows.len()];
            scan_fine(&q, &fine, &fine_steps, &backwards, &mut of_fine);
            of_fine.reverse();
            for (i, row) in rows.iter().enumerate() {
                let exact = f64::from(dot(&query, row));
                for (estimate, coded) in [(estimates[i], coded[i].0), (of_fine[i], coded[i].1)] {
                    let norm = f64::from(coded.norm) + f64::from(coded.error);
                    let bound = f64::from(q.norm) * f64::from(coded.error) + f64::from(q.error) * f64::from(coded.norm)
                        + rounding(dims) * f64::from(q.norm) * norm;
                    let error = (f64::from(estimate) - exact).abs();
                    assert!(error <= bound, "{path:?} row {i} of {dims}: off by {error}, bound {bound}");
                }
            }
            estimates.extend(of_fine);
            let first = first.get_or_insert_with(|| estimates.clone());
            assert_same_bits(first, &estimates, "estimates");
        });
        // Words without a bit are left alone.
        let mut estimates = vec![f32::NAN; rows.len()];
        scan_coarse(&q, dims, &coarse, &steps, &[0, 1], &mut estimates);
        prop_assert!(estimates[..SCAN_ROWS].iter().all(|e| e.is_nan()));
        prop_assert!(estimates[SCAN_ROWS..].iter().all(|e| !e.is_nan()));
    }

    #[test]
    fn saturated_counts_are_the_plain_expression(counts in prop::collection::vec(0u8..=255, 0..200), seed: u64, weight in 0.01f32..20.0) {
        let norms: Vec<f32> = values(counts.len(), seed).iter().map(|v| v.abs() + 0.01).collect();
        let start = values(counts.len(), seed ^ 7);
        let expected: Vec<f32> = counts.iter().zip(&norms).zip(&start).map(|((c, n), s)| {
            let c = f32::from(*c);
            s + weight * (c / (c + n))
        }).collect();
        on_every_path(|_| {
            let mut scores = start.clone();
            add_saturated(&counts, &norms, weight, &mut scores);
            assert_same_bits(&expected, &scores, "scores");
        });
    }
}
