//! The fused head and cross-entropy.

use assay_kernels::{PackedMatrix, Precision, linear_cross_entropy, linear_nll, reference};

use crate::{assert_close, assert_gradient, assert_same_bits, on_every_path, values};

struct Case {
    hidden: Vec<f32>,
    head: Vec<f32>,
    targets: Vec<u32>,
    vocab: usize,
    h: usize,
}

fn case(t: usize, vocab: usize, h: usize) -> Case {
    let targets = (0..t).map(|i| (i * 7919 % vocab) as u32).collect();
    Case { hidden: values(t * h, 1), head: values(vocab * h, 2), targets, vocab, h }
}

impl Case {
    fn packed(&self, precision: Precision) -> (PackedMatrix, PackedMatrix) {
        let head = PackedMatrix::pack(&self.head, self.vocab, self.h, precision);
        let transposed = head.transposed();
        (head, transposed)
    }

    fn reference(&self, scale: f32) -> (f64, Vec<f32>) {
        let (t, vocab, h) = (self.targets.len(), self.vocab, self.h);
        let mut logits = vec![0.0; t * vocab];
        let (hidden, head) = (&self.hidden, &self.head);
        reference::gemm(1.0, hidden, false, head, true, 0.0, &mut logits, t, vocab, h);
        let mut sum = 0.0;
        for (row, &target) in logits.chunks_mut(vocab).zip(&self.targets) {
            sum += f64::from(reference::cross_entropy_row(row, target));
        }
        let mut dhidden = vec![0.0; t * h];
        reference::gemm(scale, &logits, false, head, false, 0.0, &mut dhidden, t, h, vocab);
        (sum, dhidden)
    }
}

#[test]
fn matches_the_reference() {
    for (t, vocab, h, precision, tolerance) in [
        (1, 33, 7, Precision::F32, 1e-5),
        (150, 301, 40, Precision::F32, 1e-5),
        (150, 301, 40, Precision::Bf16, 1e-2),
    ] {
        let case = case(t, vocab, h);
        let (want, want_gradient) = case.reference(0.01);
        on_every_path(|path| {
            let (head, head_t) = case.packed(precision);
            let mut gradient = vec![f32::NAN; t * h];
            let sum = linear_cross_entropy(
                &case.hidden,
                &head,
                &head_t,
                &case.targets,
                0.01,
                &mut gradient,
            );
            assert!((sum - want).abs() < f64::from(tolerance) * want, "{path:?}: {sum}, {want}");
            assert_close(&gradient, &want_gradient, tolerance, "gradient");
            let mut nll = vec![0.0; t];
            linear_nll(&case.hidden, &head, &case.targets, &mut nll);
            assert_eq!(nll.iter().map(|&v| f64::from(v)).sum::<f64>(), sum);
        });
    }
}

#[test]
fn gradient_by_differences() {
    let case = case(4, 50, 12);
    let (head, head_t) = case.packed(Precision::F32);
    on_every_path(|_| {
        let loss = |hidden: &[f32], gradient: &mut [f32]| {
            linear_cross_entropy(hidden, &head, &head_t, &case.targets, 1.0, gradient)
        };
        let mut gradient = vec![0.0; case.hidden.len()];
        loss(&case.hidden, &mut gradient);
        let mut unused = vec![0.0; case.hidden.len()];
        assert_gradient(&case.hidden, &gradient, |x| loss(x, &mut unused), "dhidden");
    });
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let case = case(200, 130, 20);
    on_every_path(|_| {
        let (head, _) = case.packed(Precision::Bf16);
        let mut all = vec![0.0; 200];
        linear_nll(&case.hidden, &head, &case.targets, &mut all);
        for i in [0, 1, 127, 128, 199] {
            let mut alone = [0.0];
            linear_nll(&case.hidden[i * 20..][..20], &head, &case.targets[i..=i], &mut alone);
            assert_same_bits(&alone, &all[i..=i], "nll");
        }
    });
}
