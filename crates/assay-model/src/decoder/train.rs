//! Loss and gradients over packed batches.

use assay_kernels::rms_norm_backward;
use assay_kernels::{attention_forward, linear_cross_entropy, linear_nll, matmul, rms_norm};

use super::Decoder;
use super::block::{Attention, Backward, Pass, Saved};
use super::pool::Buffer;
use crate::adapter::{Adapter, PackedAdapter};
use crate::batch::{LossSum, PackedBatch, check_tokens};
use crate::error::ModelError;

impl Decoder {
    /// Logits `[tokens, vocab]` of one text, f32.
    ///
    /// # Errors
    /// [`ModelError::TooLong`], [`ModelError::UnknownToken`], [`ModelError::AdapterMismatch`].
    pub fn logits(
        &self,
        tokens: &[u32],
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, ModelError> {
        let supervised = vec![false; tokens.len()];
        let batch = PackedBatch::pack([(tokens, supervised.as_slice())]);
        batch.check(self.config())?;
        let packed = self.packed(adapter)?;
        let positions = batch.positions();
        let x = self.hidden(self.pass(&positions, 0), &batch, packed.as_deref());
        let mut normed = self.0.pool.take(x.len());
        let mut inv_rms = self.0.pool.take(tokens.len());
        self.final_norm(&x, &mut normed, &mut inv_rms);
        let mut logits = vec![0.0; tokens.len() * self.config().vocab];
        matmul(&normed, tokens.len(), self.0.head.weight(), &mut logits);
        Ok(logits)
    }

    /// Sum of the negative log-likelihoods of the batch's targets, without gradients.
    ///
    /// # Errors
    /// [`ModelError::Batch`], [`ModelError::TooLong`], [`ModelError::UnknownToken`],
    /// [`ModelError::AdapterMismatch`].
    pub fn loss(
        &self,
        batch: &PackedBatch,
        adapter: Option<&Adapter>,
    ) -> Result<LossSum, ModelError> {
        batch.check(self.config())?;
        let packed = self.packed(adapter)?;
        let positions = batch.positions();
        let x = self.hidden(self.pass(&positions, 0), batch, packed.as_deref());
        let targets = Targets::of(batch);
        let hidden = self.predictors(&x, &targets);
        let mut nll = vec![0.0; targets.tokens.len()];
        linear_nll(&hidden.normed, self.0.head.weight(), &targets.tokens, &mut nll);
        Ok(LossSum { nll: nll.iter().map(|&v| f64::from(v)).sum(), tokens: targets.tokens.len() })
    }

    /// [`Self::loss`], and adds to `gradients` the gradient of `nll / divisor` with respect to the
    /// adapter. The divisor of an optimizer step is the number of targets of all its batches.
    ///
    /// With `checkpointing` only the blocks' inputs are kept and each block runs forward again:
    /// about a quarter of the memory or less, a half more work, the same bits.
    ///
    /// # Errors
    /// As [`Self::loss`]; [`ModelError::AdapterMismatch`] also when `gradients` has another layout.
    pub fn loss_and_gradients(
        &self,
        batch: &PackedBatch,
        adapter: &Adapter,
        divisor: f64,
        gradients: &mut Adapter,
        checkpointing: bool,
    ) -> Result<LossSum, ModelError> {
        batch.check(self.config())?;
        let packed = self.pack(adapter)?;
        if !adapter.same_layout(gradients) {
            return Err(ModelError::AdapterMismatch {
                what: "layout of the gradients",
                expected: format!("{:?}", adapter.spec()),
                got: format!("{:?}", gradients.spec()),
            });
        }
        let positions = batch.positions();
        let pass = Pass { keep: true, ..self.pass(&positions, 0) };
        let first = Pass { keep: !checkpointing, ..pass };
        let mut kept: Vec<Kept<'_>> = Vec::with_capacity(self.config().layers);
        let mut x = self.embed(&batch.tokens);
        for layer in 0..self.config().layers {
            let input = checkpointing.then(|| self.0.pool.copy(&x));
            let (y, saved) = self.block_forward(first, layer, x, batch, &packed);
            kept.extend(input.map(Kept::Input));
            kept.extend(saved.map(|saved| Kept::All(Box::new(saved))));
            x = y;
        }

        let targets = Targets::of(batch);
        let hidden = self.predictors(&x, &targets);
        let mut dnormed = self.0.pool.take(hidden.normed.len());
        let head = &self.0.head;
        let scale = (1.0 / divisor) as f32;
        let nll = linear_cross_entropy(
            &hidden.normed,
            head.weight(),
            head.transposed(),
            &targets.tokens,
            scale,
            &mut dnormed,
        );
        let mut dhidden = self.0.pool.take(hidden.rows.len());
        dhidden.fill(0.0);
        let norm = &self.0.final_norm;
        rms_norm_backward(&dnormed, &hidden.rows, norm, &hidden.inv_rms, &mut dhidden);
        let mut dx = x;
        dx.fill(0.0);
        let width = self.config().hidden;
        for (row, &position) in dhidden.chunks(width).zip(&targets.predictors) {
            dx[position * width..][..width].copy_from_slice(row);
        }
        for (layer, kept) in kept.into_iter().enumerate().rev() {
            let saved = match kept {
                Kept::All(saved) => Some(*saved),
                Kept::Input(x) => self.block_forward(pass, layer, x, batch, &packed).1,
            };
            let saved = saved.expect("the pass keeps what the way back needs");
            let backward = Backward {
                block: &self.0.blocks[layer],
                pass,
                segments: &batch.segments,
                pairs: packed.layer(layer),
                gradients: &mut *gradients,
            };
            backward.run(saved, &mut dx);
        }
        Ok(LossSum { nll, tokens: targets.tokens.len() })
    }

    /// Residual stream after the last block, `[t, hidden]`.
    fn hidden<'p>(
        &'p self,
        pass: Pass<'p>,
        batch: &PackedBatch,
        adapter: Option<&PackedAdapter>,
    ) -> Buffer<'p> {
        let mut x = self.embed(&batch.tokens);
        for (layer, block) in self.0.blocks.iter().enumerate() {
            let pairs = adapter.map(|a| a.layer(layer));
            x = block.forward(pass, x, None, pairs, |a| attend(pass, batch, a)).0;
        }
        x
    }

    fn block_forward<'p>(
        &self,
        pass: Pass<'p>,
        layer: usize,
        x: Buffer<'p>,
        batch: &PackedBatch,
        adapter: &PackedAdapter,
    ) -> (Buffer<'p>, Option<Saved<'p>>) {
        let pairs = Some(adapter.layer(layer));
        self.0.blocks[layer].forward(pass, x, None, pairs, |a| attend(pass, batch, a))
    }

    /// The rows of `x` from which targets are predicted, as they are and normed.
    fn predictors(&self, x: &[f32], targets: &Targets) -> Predictors<'_> {
        let (n, width) = (targets.predictors.len(), self.config().hidden);
        let mut rows = self.0.pool.take(n * width);
        for (row, &position) in rows.chunks_mut(width).zip(&targets.predictors) {
            row.copy_from_slice(&x[position * width..][..width]);
        }
        let mut normed = self.0.pool.take(n * width);
        let mut inv_rms = self.0.pool.take(n);
        self.final_norm(&rows, &mut normed, &mut inv_rms);
        Predictors { rows, normed, inv_rms }
    }

    pub(super) fn final_norm(&self, x: &[f32], out: &mut [f32], inv_rms: &mut [f32]) {
        rms_norm(x, &self.0.final_norm, self.config().norm_eps, out, inv_rms);
    }

    pub(super) fn check_text(&self, tokens: &[u32]) -> Result<(), ModelError> {
        check_tokens(tokens, self.config())
    }
}

fn attend(pass: Pass<'_>, batch: &PackedBatch, a: Attention<'_>) {
    attention_forward(a.q, a.k, a.v, &batch.segments, pass.heads(), a.scores, a.out, a.lse);
}

/// What is kept of a block until the backward pass.
enum Kept<'p> {
    All(Box<Saved<'p>>),
    Input(Buffer<'p>),
}

struct Predictors<'p> {
    rows: Buffer<'p>,
    normed: Buffer<'p>,
    inv_rms: Buffer<'p>,
}

/// Targets of a batch and the positions that predict them.
struct Targets {
    tokens: Vec<u32>,
    predictors: Vec<usize>,
}

impl Targets {
    fn of(batch: &PackedBatch) -> Self {
        let at = || (0..batch.tokens.len()).filter(|&i| batch.supervised[i]);
        Targets {
            tokens: at().map(|i| batch.tokens[i]).collect(),
            predictors: at().map(|i| i - 1).collect(),
        }
    }
}
