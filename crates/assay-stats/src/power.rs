use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

use crate::{Discordant, mcnemar_exact, mcnemar_mid_p, normal};

/// Items needed to show a true difference of two paired proportions, by the usual normal formula, not rounded.
///
/// `discordant` is the share of items on which the two disagree, `delta` the difference (0 < |delta| ≤ discordant),
/// `alpha` two-sided. The exact McNemar test needs about 8 % more; the mid-p test reaches the power at this n.
/// Source: J. E. Connett, J. A. Smith and R. B. McHugh, Statistics in Medicine 6 (1987).
pub fn n_for_paired_proportions(discordant: f64, delta: f64, alpha: f64, power: f64) -> f64 {
    let (za, zb) = (normal::quantile(1.0 - alpha / 2.0), normal::quantile(power));
    let spread = za * discordant.sqrt() + zb * (discordant - delta * delta).max(0.0).sqrt();
    (spread / delta).powi(2)
}

/// Items needed to show a true mean difference `delta` of paired scores whose differences have variance
/// `variance`, not rounded. `alpha` two-sided, normal approximation, independent items.
pub fn n_for_paired_mean(variance: f64, delta: f64, alpha: f64, power: f64) -> f64 {
    (normal::quantile(1.0 - alpha / 2.0) + normal::quantile(power)).powi(2) * variance
        / (delta * delta)
}

/// Items per arm needed to tell two proportions apart on *different* items, normal approximation, not rounded.
pub fn n_for_unpaired_proportions(p1: f64, p2: f64, alpha: f64, power: f64) -> f64 {
    let (za, zb) = (normal::quantile(1.0 - alpha / 2.0), normal::quantile(power));
    let pooled = (p1 + p2) / 2.0;
    let spread = za * (2.0 * pooled * (1.0 - pooled)).sqrt()
        + zb * (p1 * (1.0 - p1) + p2 * (1.0 - p2)).sqrt();
    (spread / (p1 - p2)).powi(2)
}

/// Smallest true difference that a two-sided test at `alpha` shows with the given power, from the standard error
/// of the difference. Normal approximation.
pub fn minimum_detectable_effect(standard_error: f64, alpha: f64, power: f64) -> f64 {
    (normal::quantile(1.0 - alpha / 2.0) + normal::quantile(power)) * standard_error
}

/// Chance that McNemar's test rejects, in either direction, on `n` items of which a share `discordant` is expected to
/// disagree with difference `delta`; by summation over all outcomes above 10⁻¹³.
///
/// With `mid_p` the mid-p form is used, else the exact one. `delta` 0 gives the size of the test.
pub fn mcnemar_power(n: usize, discordant: f64, delta: f64, alpha: f64, mid_p: bool) -> f64 {
    let (Ok(disagreements), share) =
        (Binomial::new(discordant, n as u64), (discordant + delta) / 2.0 / discordant)
    else {
        return 0.0;
    };
    let p_value = if mid_p { mcnemar_mid_p } else { mcnemar_exact };
    let mut total = 0.0;
    for m in 1..=n {
        let weight = disagreements.pmf(m as u64);
        if weight < 1e-13 {
            continue;
        }
        // The rejection region is {0..=k} and its mirror image, for the largest k with p ≤ alpha.
        let rejected =
            (0..=m / 2).take_while(|&k| p_value(Discordant { b: k, c: m - k }) <= alpha).count();
        if let (Some(k), Ok(first)) = (rejected.checked_sub(1), Binomial::new(share, m as u64)) {
            total += weight * (first.cdf(k as u64) + first.sf((m - k - 1) as u64));
        }
    }
    total
}
