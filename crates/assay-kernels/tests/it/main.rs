//! Every kernel, on every path this machine has, against its scalar reference and its laws.
mod activations;
mod attention;
mod int8;
mod laws;
mod losses;
mod products;
mod quants;
mod scan;

use assay_kernels::{Path, with_path};

/// Runs `f` once per path of this machine.
fn on_every_path(mut f: impl FnMut(Path)) {
    for &path in Path::available() {
        with_path(path, || f(path));
    }
}

#[test]
fn the_environment_names_a_path_of_this_machine() {
    assert!(assay_kernels::forced().is_ok(), "{:?}", assay_kernels::forced());
}

/// Reproducible values in [-1, 1), different for each seed.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// Asserts `|got - want| ≤ tolerance · (1 + |want|)`.
#[track_caller]
fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!(
            (got - want).abs() <= tolerance * (1.0 + want.abs()),
            "{what}[{i}]: got {got}, want {want}"
        );
    }
}

#[track_caller]
fn assert_same_bits(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}: lengths");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}[{i}]: {a} and {b}");
    }
}

/// Checks `gradient` of `loss` at `x` by central differences along a few coordinates.
#[track_caller]
fn assert_gradient(x: &[f32], gradient: &[f32], mut loss: impl FnMut(&[f32]) -> f64, what: &str) {
    let step = 1e-2f32;
    let stride = (x.len() / 23).max(1);
    for i in (0..x.len()).step_by(stride) {
        let mut at = x.to_vec();
        at[i] = x[i] + step;
        let up = loss(&at);
        at[i] = x[i] - step;
        let down = loss(&at);
        let numeric = ((up - down) / (2.0 * f64::from(step))) as f32;
        assert!(
            (numeric - gradient[i]).abs() <= 1e-3 * (1.0 + numeric.abs()),
            "{what}[{i}]: analytic {}, numeric {numeric}",
            gradient[i]
        );
    }
}

/// `Σ w·y` in `f64`: a scalar loss whose gradient by `y` is `w`.
fn weighted(y: &[f32], w: &[f32]) -> f64 {
    y.iter().zip(w).map(|(&y, &w)| f64::from(y) * f64::from(w)).sum()
}
