//! The decoder: one implementation for training, evaluation and serving.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use assay_kernels::{PackedMatrix, Precision};
use assay_types::Message;

use crate::adapter::{Adapter, AdapterSpec, PackedAdapter};
use crate::config::{DecoderConfig, Module};
use crate::error::ModelError;
use crate::memory::Outline;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use block::{Block, Frozen, Pass, Ropes};
use engine::Engine;
use form::Grammars;
use pool::{Buffer, Pool};

mod block;
mod cache;
mod engine;
mod form;
mod generate;
mod load;
mod pool;
mod prefix;
mod sampling;
mod score;
mod train;

pub(crate) use load::text_of;

pub use form::Form;
pub use generate::{GenerateRequest, Generation};
pub use sampling::{Sampling, TokenLogProbs};
pub use score::{Continuation, LogLikelihood};

/// A language model with its tokenizer and chat template. Cheap to clone; all clones share the
/// weights, and any number of threads may use it at once.
#[derive(Clone)]
pub struct Decoder(Arc<Inner>);

struct Inner {
    path: PathBuf,
    config: DecoderConfig,
    precision: Precision,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    file_hash: String,
    /// `None` where the head serves as embedding too.
    embedding: Option<PackedMatrix>,
    head: Frozen,
    blocks: Vec<Block>,
    final_norm: Vec<f32>,
    ropes: Ropes,
    pool: Pool,
    engine: Engine,
    grammars: OnceLock<Grammars>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Decoder {
    /// Reads a GGUF file, or a Hugging Face folder (`config.json`, `tokenizer.json`, safetensors
    /// whole or in shards), and packs its weights in `precision`: `Bf16` for speed, `F32` to compute
    /// with the (dequantised) weights exactly.
    ///
    /// # Errors
    /// [`ModelError`] naming the file: not GGUF, truncated, another architecture, tokenizer or
    /// quantisation, a tensor missing, misshapen or unknown.
    pub fn open(path: &Path, precision: Precision) -> Result<Decoder, ModelError> {
        Ok(Decoder(Arc::new(load::load(path, precision)?)))
    }

    /// Shape and size of a model, from the headers of its files.
    ///
    /// # Errors
    /// As [`Self::open`], as far as headers tell.
    pub fn outline(path: &Path) -> Result<Outline, ModelError> {
        load::outline(path)
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Shape of the model.
    pub fn config(&self) -> &DecoderConfig {
        &self.0.config
    }

    /// Precision of the packed weights.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// The file's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.0.tokenizer
    }

    /// The file's chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.0.template
    }

    /// Tokens that end generation.
    pub fn stop_tokens(&self) -> &[u32] {
        self.0.tokenizer.stop_tokens()
    }

    /// SHA-256 of the model file, in hex; of a folder, that of the list of its files' hashes.
    pub fn file_hash(&self) -> &str {
        &self.0.file_hash
    }

    /// Memory held by packed weights, in bytes; grows once when the first gradient is computed.
    pub fn weight_bytes(&self) -> usize {
        let inner = &self.0;
        let linears = inner.blocks.iter().flat_map(|b| &b.linears);
        let frozen = linears.chain([&inner.head]).map(Frozen::bytes).sum::<usize>();
        frozen + inner.embedding.as_ref().map_or(0, PackedMatrix::bytes)
    }

    /// The most memory that activations have taken at once, in bytes.
    pub fn activation_bytes(&self) -> usize {
        self.0.pool.most_used() * size_of::<f32>()
    }

    /// Tokens of a conversation, ready for the assistant's answer; the renderer of training and
    /// serving alike. Begins with the BOS token at most once.
    ///
    /// # Errors
    /// [`ModelError::NoTemplate`], [`ModelError::Template`].
    pub fn prompt_tokens(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.chat_tokens(messages, true)
    }

    /// [`Self::prompt_tokens`], or the conversation alone when not `add_generation_prompt`.
    ///
    /// # Errors
    /// [`ModelError::NoTemplate`], [`ModelError::Template`].
    pub fn chat_tokens(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, ModelError> {
        let text = self.0.template.render(messages, add_generation_prompt)?;
        let mut tokens = self.0.tokenizer.encode(&text)?;
        if let Some(bos) = self.0.tokenizer.bos().filter(|_| self.0.tokenizer.adds_bos())
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// An untrained adapter for this model, bound to its file and template.
    pub fn new_adapter(&self, rank: usize, alpha: f32, targets: &[Module], seed: u64) -> Adapter {
        let spec = AdapterSpec {
            rank,
            alpha,
            targets: targets.to_vec(),
            base_hash: Some(self.file_hash().to_owned()),
            template_hash: Some(self.template().hash().to_owned()),
        };
        Adapter::new(self.config(), spec, seed)
    }

    /// Whether an adapter fits: base model, template and shapes.
    ///
    /// # Errors
    /// [`ModelError::AdapterMismatch`] naming what differs.
    pub fn check_adapter(&self, adapter: &Adapter) -> Result<(), ModelError> {
        adapter.check(self.config(), self.file_hash(), self.template().hash())
    }

    fn pack(&self, adapter: &Adapter) -> Result<Arc<PackedAdapter>, ModelError> {
        self.check_adapter(adapter)?;
        Ok(adapter.packed(self.0.precision))
    }

    fn packed(&self, adapter: Option<&Adapter>) -> Result<Option<Arc<PackedAdapter>>, ModelError> {
        adapter.map(|a| self.pack(a)).transpose()
    }

    fn pass<'p>(&'p self, positions: &'p [u32], generated: usize) -> Pass<'p> {
        let inner = &*self.0;
        Pass {
            precision: inner.precision,
            config: &inner.config,
            pool: &inner.pool,
            ropes: &inner.ropes,
            positions,
            generated,
            keep: false,
        }
    }

    /// `[tokens, hidden]`.
    fn embed(&self, tokens: &[u32]) -> Buffer<'_> {
        let width = self.config().hidden;
        let table = self.0.embedding.as_ref().unwrap_or_else(|| self.0.head.weight());
        let mut x = self.0.pool.take(tokens.len() * width);
        for (row, &token) in x.chunks_mut(width).zip(tokens) {
            table.row(token as usize, row);
            if self.config().embedding_scale != 1.0 {
                row.iter_mut().for_each(|v| *v *= self.config().embedding_scale);
            }
        }
        x
    }
}
