/// Holm's step-down adjustment of a family of p-values, in input order, each at most 1.
///
/// Rejecting where the adjusted p is at most α keeps the chance of any false rejection in the family below α.
/// Source: S. Holm, Scandinavian Journal of Statistics 6 (1979).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let m = p_values.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&i, &j| p_values[i].total_cmp(&p_values[j]));
    let mut adjusted = vec![0.0; m];
    let mut running = 0.0_f64;
    for (rank, &i) in order.iter().enumerate() {
        running = running.max((p_values[i] * (m - rank) as f64).min(1.0));
        adjusted[i] = running;
    }
    adjusted
}
