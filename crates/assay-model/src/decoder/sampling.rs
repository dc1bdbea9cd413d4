//! From the logits of one row to the next token.

use std::collections::{HashMap, HashSet};

use assay_kernels::log_sum_exp;

use crate::error::ModelError;
use crate::rng::Rng;

/// Tokens of the most likely ones that are sorted first, where only few will be needed.
const SORTED_FIRST: usize = 64;

/// How the next token is chosen.
///
/// Applied in the order in which Hugging Face's `generate` does: penalties, the form, temperature,
/// top-k, top-p, min-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token (the smallest id among equals).
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that reach this probability together; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this share as likely as the most likely one; 0 for all.
    pub min_p: f32,
    /// Divides the logit of each token in prompt or answer where it is positive, else multiplies it
    /// (Keskar et al. 2019); 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of each token in the answer, as OpenAI defines it; 0 for none.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it is in the answer, as OpenAI defines it; 0 for
    /// none.
    pub frequency_penalty: f32,
    /// The same seed draws the same tokens, whatever else is in the batch.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
    };

    /// Refuses values that have no meaning.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        let ranges = [
            ("temperature", self.temperature, self.temperature >= 0.0, "at least 0"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and up to 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
                "above 0",
            ),
            ("presence_penalty", self.presence_penalty, true, "a number"),
            ("frequency_penalty", self.frequency_penalty, true, "a number"),
        ];
        for (parameter, got, fits, expected) in ranges {
            if !fits || !got.is_finite() {
                return Err(ModelError::Sampling { parameter, got, expected });
            }
        }
        Ok(())
    }
}

/// How likely the model found a token, before penalties, temperature and form.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogProbs {
    /// The token that was chosen.
    pub token: u32,
    /// Its log-probability, in nats.
    pub log_prob: f32,
    /// The most likely tokens, best first, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogProbs {
    pub(super) fn new(mut logits: Vec<f32>, token: u32, top: usize) -> Self {
        let mut order: Vec<u32> = Vec::new();
        if top > 0 {
            order.extend(0..logits.len() as u32);
            keep_likeliest(&mut order, &logits, top);
        }
        let chosen = logits[token as usize];
        let mut top: Vec<(u32, f32)> = order.into_iter().map(|t| (t, logits[t as usize])).collect();
        let total = log_sum_exp(&mut logits);
        top.iter_mut().for_each(|(_, logit)| *logit -= total);
        TokenLogProbs { token, log_prob: chosen - total, top }
    }
}

/// Draws tokens for one request.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    rng: Rng,
    /// Tokens of the prompt, where they are penalised.
    prompt: HashSet<u32>,
    /// How often each token was chosen.
    chosen: HashMap<u32, u32>,
}

impl Sampler {
    pub(super) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let prompt = match sampling.repetition_penalty {
            1.0 => HashSet::new(),
            _ => prompt.iter().copied().collect(),
        };
        Sampler { sampling, rng: Rng::new(sampling.seed), prompt, chosen: HashMap::new() }
    }

    /// The next token; tokens with a logit of -∞ are never drawn. Overwrites the logits.
    pub(super) fn sample(&mut self, logits: &mut [f32]) -> u32 {
        self.penalise(logits);
        let token = self.draw(logits);
        *self.chosen.entry(token).or_default() += 1;
        token
    }

    fn penalise(&self, logits: &mut [f32]) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } =
            self.sampling;
        if repetition_penalty != 1.0 {
            let answer = self.chosen.keys().filter(|t| !self.prompt.contains(t));
            for &token in self.prompt.iter().chain(answer) {
                let logit = &mut logits[token as usize];
                *logit = if *logit > 0.0 {
                    *logit / repetition_penalty
                } else {
                    *logit * repetition_penalty
                };
            }
        }
        if presence_penalty != 0.0 || frequency_penalty != 0.0 {
            for (&token, &times) in &self.chosen {
                logits[token as usize] -= presence_penalty + frequency_penalty * times as f32;
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        if temperature <= 0.0 {
            return argmax(logits);
        }
        let possible = |&t: &u32| logits[t as usize] > f32::NEG_INFINITY;
        let mut order: Vec<u32> = (0..logits.len() as u32).filter(possible).collect();
        let largest = order.iter().map(|&t| logits[t as usize]).fold(f32::NEG_INFINITY, f32::max);
        let weight = |t: u32| f64::from((logits[t as usize] - largest) / temperature).exp();
        if top_k > 0 {
            keep_likeliest(&mut order, logits, top_k);
        }
        if top_p < 1.0 {
            let total: f64 = order.iter().map(|&t| weight(t)).sum();
            keep_nucleus(&mut order, logits, weight, f64::from(top_p) * total);
        }
        if min_p > 0.0 {
            order.retain(|&t| weight(t) >= f64::from(min_p));
        }
        let mut left =
            f64::from(self.rng.uniform()) * order.iter().map(|&t| weight(t)).sum::<f64>();
        let drawn = order.iter().position(|&t| {
            left -= weight(t);
            left < 0.0
        });
        match drawn.or(order.len().checked_sub(1)) {
            Some(drawn) => order[drawn],
            None => argmax(logits),
        }
    }
}

/// Larger logits first, among equals the smaller id.
fn by_likelihood(logits: &[f32]) -> impl Fn(&u32, &u32) -> std::cmp::Ordering + Copy + '_ {
    |&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
}

/// Cuts `order` to the `k` most likely tokens, sorted.
fn keep_likeliest(order: &mut Vec<u32>, logits: &[f32], k: usize) {
    if 0 < k && k < order.len() {
        order.select_nth_unstable_by(k - 1, by_likelihood(logits));
    }
    order.truncate(k);
    order.sort_unstable_by(by_likelihood(logits));
}

/// Cuts `order` to the most likely tokens whose weights reach `enough` together, sorted. Sorts only as
/// far as is needed.
fn keep_nucleus(order: &mut Vec<u32>, logits: &[f32], weight: impl Fn(u32) -> f64, enough: f64) {
    let (mut sorted, mut step, mut sum) = (0, SORTED_FIRST, 0.0);
    while sorted < order.len() {
        let end = order.len().min(sorted + step);
        if end < order.len() {
            order[sorted..].select_nth_unstable_by(end - sorted, by_likelihood(logits));
        }
        order[sorted..end].sort_unstable_by(by_likelihood(logits));
        for i in sorted..end {
            sum += weight(order[i]);
            if sum >= enough {
                order.truncate(i + 1);
                return;
            }
        }
        (sorted, step) = (end, 8 * step);
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
