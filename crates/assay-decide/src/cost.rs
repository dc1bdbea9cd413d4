//! Time and tokens into money.

use crate::{Cost, Prices};

/// US dollars for one answer: the machine for as long as it takes, plus the tokens where they have a price.
pub fn cost_per_query_usd(
    latency_ms: f64,
    input_tokens: f64,
    output_tokens: f64,
    prices: &Prices,
) -> f64 {
    machine_usd(latency_ms / 1_000.0, prices)
        + input_tokens / 1e6 * prices.input_usd_per_million_tokens.unwrap_or(0.0)
        + output_tokens / 1e6 * prices.output_usd_per_million_tokens.unwrap_or(0.0)
}

/// US dollars for the priced machine over so many seconds.
pub fn machine_usd(seconds: f64, prices: &Prices) -> f64 {
    seconds / 3_600.0 * prices.hardware_usd_per_hour
}

/// Queries after which a one-time `training_usd` is repaid by answering at `cheaper_usd` instead of `dearer_usd`
/// per query; `None` when the answer is not cheaper, so that it never is.
pub fn break_even_queries(training_usd: f64, dearer_usd: f64, cheaper_usd: f64) -> Option<f64> {
    let saved = dearer_usd - cheaper_usd;
    (saved > 0.0).then(|| training_usd / saved)
}

/// Fills in what repays the training: the best candidate that needs none.
pub(crate) fn set_break_even(cost: &mut Cost, against: Option<(&str, Option<f64>)>) {
    let (Some((name, Some(dearer))), Some(cheaper), Some(training)) =
        (against, cost.per_query_usd, cost.training_usd)
    else {
        return;
    };
    cost.break_even_queries = break_even_queries(training, dearer, cheaper);
    cost.break_even_against = Some(name.to_owned());
}
