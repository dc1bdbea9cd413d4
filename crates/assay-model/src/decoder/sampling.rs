use crate::rng::Rng;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token (the smallest id among equals).
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that reach this probability together; 1 for all.
    pub top_p: f32,
    /// The same seed draws the same tokens, whatever else is in the batch.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
}

/// Draws tokens for one request.
pub(super) struct Sampler {
    sampling: Sampling,
    rng: Rng,
}

impl Sampler {
    pub(super) fn new(sampling: Sampling) -> Self {
        Sampler { sampling, rng: Rng::new(sampling.seed) }
    }

    /// The next token. Restrictions apply in the order temperature, top-k, top-p, as in Hugging
    /// Face's `generate`.
    pub(super) fn sample(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        if temperature.is_nan() || temperature <= 0.0 {
            return argmax(logits);
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit =
            |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
        if top_k > 0 && top_k < order.len() {
            order.select_nth_unstable_by(top_k - 1, by_logit);
            order.truncate(top_k);
        }
        if top_p < 1.0 || top_k > 0 {
            order.sort_unstable_by(by_logit);
        }
        let largest = order.iter().map(|&t| logits[t as usize]).fold(f32::NEG_INFINITY, f32::max);
        let weight = |t: u32| f64::from((logits[t as usize] - largest) / temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(|&t| weight(t)).collect();
        if top_p < 1.0 {
            let enough = f64::from(top_p) * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().position(|w| {
                sum += w;
                sum >= enough
            });
            weights.truncate(kept.map_or(weights.len(), |k| k + 1));
        }
        let mut left = f64::from(self.rng.uniform()) * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        order[drawn.unwrap_or(weights.len() - 1)]
    }
}

/// Index of the largest value, the first among equals.
pub(super) fn argmax(values: &[f32]) -> u32 {
    let mut best = 0;
    for (i, &value) in values.iter().enumerate() {
        if value > values[best] {
            best = i;
        }
    }
    best as u32
}
