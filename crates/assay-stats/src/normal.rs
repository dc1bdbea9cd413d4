use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// `P(Z ≤ z)` of the standard normal distribution. `libm` gives the same bits on every platform.
pub(crate) fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

fn density(z: f64) -> f64 {
    libm::exp(-0.5 * z * z) / (2.0 * PI).sqrt()
}

/// Inverse of [`cdf`] for `0 < p < 1`.
///
/// Newton's method from 0: the distribution function bends towards its mean on both sides, so the steps go straight
/// to the root without passing it.
pub(crate) fn quantile(p: f64) -> f64 {
    let mut z = 0.0;
    for _ in 0..200 {
        let step = (p - cdf(z)) / density(z);
        z += step;
        if step.abs() <= 1e-15 * z.abs().max(1e-3) {
            break;
        }
    }
    z
}
