//! What a decoder takes in memory, from its shape alone: for those who plan before anything is computed.
//!
//! These are sums over what the passes of `decoder/` allocate; tests compare them with what is counted there.

use crate::config::{DecoderConfig, Module};

const F32: usize = size_of::<f32>();
const BF16: usize = 2;
/// Rows whose logits exist at once while a loss is computed.
const LOSS_ROWS: usize = 128;

/// A model as its files describe it, before its weights are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Shape.
    pub config: DecoderConfig,
    /// Memory of its packed weights as [`Decoder::open`](crate::Decoder::open) holds them in bf16, in bytes, without
    /// padding.
    pub weight_bytes: usize,
}

/// One pass forward and backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingPass {
    /// Tokens of all its rows.
    pub tokens: usize,
    /// Those that are learned.
    pub targets: usize,
    /// Rank of the adapter, on all linear modules.
    pub rank: usize,
    /// Whether blocks run forward again on the way back.
    pub checkpointing: bool,
}

impl DecoderConfig {
    /// Values of an adapter of that rank on all linear modules.
    pub fn adapter_parameters(&self, rank: usize) -> usize {
        let ends = |module| {
            let (inputs, outputs) = self.shape(module);
            inputs + outputs
        };
        self.layers * rank * Module::ALL.map(ends).iter().sum::<usize>()
    }

    /// Memory of an adapter as the kernels want it, both ways, in bytes: ranks are padded to 16 in one orientation and
    /// to 32 in the other.
    pub fn packed_adapter_bytes(&self, rank: usize) -> usize {
        self.adapter_parameters(rank.next_multiple_of(16) + rank.next_multiple_of(32)) * BF16
    }

    /// Memory of the second orientation of all weights, packed once a gradient is computed, in bytes.
    pub fn transposed_bytes(&self) -> usize {
        let size = |module| {
            let (inputs, outputs) = self.shape(module);
            inputs * outputs
        };
        let linears = self.layers * Module::ALL.map(size).iter().sum::<usize>();
        (linears + self.vocab * self.hidden) * BF16
    }

    /// Keys and values of one token, in bytes.
    pub fn cache_token_bytes(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim * F32
    }

    /// Activations and logits of a pass of [`Decoder::loss_and_gradients`](crate::Decoder::loss_and_gradients) at its
    /// peak, in bytes.
    pub fn training_bytes(&self, pass: TrainingPass) -> usize {
        self.activation_bytes(pass) + pass.targets.min(LOSS_ROWS) * self.vocab * F32
    }

    /// [`Self::training_bytes`] without the logits, which lie elsewhere.
    pub fn activation_bytes(&self, pass: TrainingPass) -> usize {
        let TrainingPass { tokens, targets, rank, checkpointing } = pass;
        let (h, ff) = (self.hidden, self.feed_forward);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let saved = self.saved_values(rank);
        let blocks =
            if checkpointing { saved + (self.layers - 1) * h } else { self.layers * saved };
        // Gradients on the way back through one block, and what is computed again there: at the gate, or at the
        // attention, when gate and up are gone.
        let mut back = (5 * ff / 2).max((3 * h / 2 + 3 * (q + kv)).saturating_sub(ff)) + rank;
        if self.qk_norm {
            back += q + kv;
        }
        if self.post_norms {
            back += 2 * h;
        }
        // The gradient of the stream, and the rows that predict with theirs.
        (tokens * (blocks + back + h) + targets * 4 * h) * F32
    }

    /// What one block keeps of a token until its backward pass, in values.
    fn saved_values(&self, rank: usize) -> usize {
        let (h, ff) = (self.hidden, self.feed_forward);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let adapter = Module::ALL.len() * rank;
        // What products read is bf16: half a value.
        let mut saved = 2 * (h + 1) + q + kv + self.heads + ff + adapter;
        if self.qk_norm {
            saved += q + kv + self.heads + self.kv_heads;
        }
        if self.post_norms {
            saved += 2 * (h + 1);
        }
        saved
    }

    /// Activations and logits while `rows` tokens are read or written in one pass, in bytes.
    pub fn reading_bytes(&self, rows: usize, logit_rows: usize) -> usize {
        let (h, ff) = (self.hidden, self.feed_forward);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let values = 7 * h / 2 + 5 * q / 2 + 2 * kv + 5 * ff / 2;
        (rows * values + logit_rows * self.vocab) * F32
    }
}
