use assay_model::{Adapter, Decoder, Module};
use serde::{Deserialize, Serialize};

use crate::Schedule;

/// Settings of one supervised fine-tuning run.
///
/// A run is a function of these settings, the rows and the base model: they are what a checkpoint
/// is compared with before it is resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// Rank of every LoRA pair.
    pub rank: usize,
    /// LoRA's α: the product is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows per optimizer step; the last step of an epoch takes what is left.
    pub batch_size: usize,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Decay after the warm-up.
    pub schedule: Schedule,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// Largest global norm of a gradient; longer ones are scaled down to it.
    pub clip: f64,
    /// Seed of the adapter's first weights and of the order of rows.
    pub seed: u64,
    /// Token budget of one packed forward pass: bounds memory, changes results by rounding only.
    pub micro_batch_tokens: usize,
    /// Keep only block inputs and compute the rest again on the way back: less memory, same bits.
    pub checkpointing: bool,
    /// Stop after this many successive epochs worse than the best one; 0 never stops early.
    pub patience: usize,
}

impl Default for SftConfig {
    /// Rank 16, α 32 and learning rate 2e-4 on all linear layers: what the ablations of QLoRA
    /// (arXiv 2305.14314) and "LoRA Without Regret" (Thinking Machines, 2025) have in common.
    fn default() -> Self {
        SftConfig {
            rank: 16,
            alpha: 32.0,
            learning_rate: 2e-4,
            epochs: 3,
            batch_size: 16,
            warmup_steps: 20,
            schedule: Schedule::Linear,
            weight_decay: 0.0,
            clip: 1.0,
            seed: 0,
            micro_batch_tokens: 2048,
            checkpointing: false,
            patience: 2,
        }
    }
}

impl SftConfig {
    /// The adapter that training starts from, on all linear layers of `decoder`: it changes nothing
    /// yet.
    pub fn untrained(&self, decoder: &Decoder) -> Adapter {
        decoder.new_adapter(self.rank, self.alpha, &Module::ALL, self.seed)
    }

    /// The first setting that cannot work, in words.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        [
            (self.rank == 0, "rank is 0"),
            (self.alpha <= 0.0 || !self.alpha.is_finite(), "alpha is not a positive number"),
            (
                self.learning_rate <= 0.0 || !self.learning_rate.is_finite(),
                "learning_rate is not a positive number",
            ),
            (self.epochs == 0, "epochs is 0"),
            (self.batch_size == 0, "batch_size is 0"),
            (self.weight_decay < 0.0 || !self.weight_decay.is_finite(), "weight_decay is negative"),
            (self.clip.is_nan() || self.clip <= 0.0, "clip is not positive"),
            (self.micro_batch_tokens == 0, "micro_batch_tokens is 0"),
        ]
        .into_iter()
        .find_map(|(bad, what)| bad.then_some(what))
    }
}
