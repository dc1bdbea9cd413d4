//! One optimizer step over any number of packed micro-batches.

use assay_kernels::{AdamW, adamw_step, sum_of_squares};
use assay_model::{Adapter, Decoder, PackedBatch};

use crate::pack::pack;
use crate::{Example, SftConfig, TrainError};

/// PyTorch's `clip_grad_norm_` adds this to the norm it divides by.
const CLIP_EPSILON: f64 = 1e-6;

/// An adapter with the moments of its optimizer, one step at a time.
///
/// [`Trainer`](crate::Trainer) drives this over epochs; use it directly for another order of rows.
#[derive(Clone, Debug)]
pub struct Learner {
    /// The weights being trained.
    pub adapter: Adapter,
    pub(crate) m: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) steps: u64,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Sum of the negative log-likelihood over the learned tokens, in nats, before the step.
    pub nll: f64,
    /// Learned tokens.
    pub supervised: usize,
    /// All tokens, prompts included.
    pub tokens: usize,
    /// Global L2 norm of the gradient of the mean loss, before clipping.
    pub grad_norm: f64,
}

impl StepReport {
    /// Mean loss per learned token, in nats.
    pub fn loss(&self) -> f64 {
        self.nll / self.supervised as f64
    }
}

impl Learner {
    /// Starts from `adapter` with an optimizer that has seen nothing.
    pub fn new(adapter: Adapter) -> Self {
        let n = adapter.parameters().len();
        Learner { adapter, m: vec![0.0; n], v: vec![0.0; n], steps: 0 }
    }

    /// One AdamW step on `rows` at learning rate `rate`.
    ///
    /// The loss is the sum over the learned tokens of all rows divided by their number, however the
    /// rows are packed: a token weighs the same in a short row and in a long one, in the first
    /// micro-batch and in the last. Of `config`, the packing, checkpointing, clip and weight decay
    /// count here. AdamW and clipping follow PyTorch's (`torch.optim.AdamW` with β 0.9 and 0.999,
    /// ε 1e-8; `clip_grad_norm_`).
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] with the rows at fault; the adapter is then as before the step.
    /// [`TrainError::NoRows`] if no token of `rows` is learned.
    pub fn step(
        &mut self,
        decoder: &Decoder,
        rows: &[&Example],
        config: &SftConfig,
        rate: f64,
    ) -> Result<StepReport, TrainError> {
        let supervised: usize = rows.iter().map(|r| r.supervised_tokens()).sum();
        if supervised == 0 {
            return Err(TrainError::NoRows);
        }
        let mut gradients = self.adapter.zeros_like();
        let mut nll = 0.0;
        for (batch, members) in pack(rows, config.micro_batch_tokens) {
            let sum = decoder.loss_and_gradients(
                &batch,
                &self.adapter,
                supervised as f64,
                &mut gradients,
                config.checkpointing,
            )?;
            if !sum.nll.is_finite() {
                return Err(self.not_finite(decoder, members, "loss"));
            }
            nll += sum.nll;
        }
        let grads = gradients.parameters_mut();
        let grad_norm = sum_of_squares(grads).sqrt();
        if !grad_norm.is_finite() {
            return Err(self.not_finite(decoder, rows, "gradient"));
        }
        let scale = config.clip / (grad_norm + CLIP_EPSILON);
        if scale < 1.0 {
            grads.iter_mut().for_each(|g| *g *= scale as f32);
        }
        self.steps += 1;
        let options = AdamW {
            lr: rate as f32,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: config.weight_decay as f32,
        };
        let weights = self.adapter.parameters_mut();
        adamw_step(weights, grads, &mut self.m, &mut self.v, &options, self.steps);
        let tokens = rows.iter().map(|r| r.tokens.len()).sum();
        Ok(StepReport { nll, supervised, tokens, grad_norm })
    }

    /// The error that names those of `rows` whose loss alone is not finite, or all of them.
    fn not_finite(&self, decoder: &Decoder, rows: &[&Example], what: &'static str) -> TrainError {
        let alone = |row: &&&Example| {
            let batch = PackedBatch::pack([(row.tokens.as_slice(), row.supervised.as_slice())]);
            decoder.loss(&batch, Some(&self.adapter)).is_ok_and(|sum| !sum.nll.is_finite())
        };
        let mut culprits: Vec<_> = rows.iter().filter(alone).collect();
        if culprits.is_empty() {
            culprits = rows.iter().collect();
        }
        TrainError::NonFinite {
            step: self.steps as usize,
            what,
            rows: culprits.into_iter().map(|r| r.source.clone()).collect(),
        }
    }
}

/// Mean loss per learned token over `rows`, in nats; sums are streamed, no logits are kept.
///
/// # Errors
/// [`TrainError::NoRows`] if no token of `rows` is learned; [`TrainError::NonFinite`] naming the
/// rows of the micro-batch.
pub fn mean_loss(
    decoder: &Decoder,
    rows: &[Example],
    adapter: Option<&Adapter>,
    micro_batch_tokens: usize,
) -> Result<f64, TrainError> {
    let rows: Vec<&Example> = rows.iter().collect();
    let (mut nll, mut tokens) = (0.0, 0);
    for (batch, members) in pack(&rows, micro_batch_tokens) {
        let sum = decoder.loss(&batch, adapter)?;
        if !sum.nll.is_finite() {
            let rows = members.iter().map(|r| r.source.clone()).collect();
            return Err(TrainError::NonFinite { step: 0, what: "dev loss", rows });
        }
        nll += sum.nll;
        tokens += sum.tokens;
    }
    if tokens == 0 { Err(TrainError::NoRows) } else { Ok(nll / tokens as f64) }
}
