//! From a model's files to packed weights.

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;

use assay_kernels::{Gate, PackedMatrix, Precision, QuantMatrix, RopeTable};
use rayon::prelude::*;

use super::Inner;
use super::block::{Block, Frozen, Ropes};
use super::engine::Engine;
use super::pool::Pool;
use crate::config::{DecoderConfig, Module};
use crate::error::ModelError;
use crate::memory::Outline;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

mod gguf;
mod hugging_face;

/// Beyond this the tables of positions alone would take more memory than the weights; a damaged
/// header would take all of it.
const LONGEST_CONTEXT: usize = 1 << 20;

/// A model as its files describe it.
struct Checkpoint {
    config: DecoderConfig,
    /// Divisors `[head_dim / 2]` of the rotary frequencies of layers without window, where contexts
    /// were lengthened.
    rope_factors: Option<Vec<f32>>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    weights: Box<dyn Weights>,
}

/// Where the weights lie.
trait Weights: Sync {
    fn has(&self, part: Part) -> bool;

    /// A tensor, row-major, after checking its shape (rows first). Rows of queries and keys are in
    /// Hugging Face's order, in which adapters are written too: component `i` of a head rotates
    /// together with `i + head_dim / 2`. Norms are the factors themselves.
    fn tensor(&self, part: Part, shape: &[usize]) -> Result<Vec<f32>, ModelError>;

    /// A matrix in the integers of its file, in the same order; `None` where it has none.
    fn quantised(&self, part: Part, shape: [usize; 2]) -> Result<Option<QuantMatrix>, ModelError>;

    /// Bytes of [`Self::quantised`], without padding; 0 where there is none.
    fn quantised_bytes(&self, part: Part, shape: [usize; 2]) -> usize;

    /// Refuses a tensor that is none of `parts` and would be ignored.
    fn check_names(&self, parts: &HashSet<Part>) -> Result<(), ModelError>;

    /// SHA-256 of all that makes the model, in hex.
    fn hash(&self) -> Result<String, ModelError>;
}

/// The families of architectures; what one has beside Llama's parts stands in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// With TinyLlama, SmolLM and Mistral.
    Llama,
    /// With Qwen2.5.
    Qwen2,
    Qwen3,
    Gemma3,
}

/// A tensor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Embedding,
    Head,
    FinalNorm,
    Linear(usize, Module),
    Bias(usize, Module),
    Norm(usize, Norm),
}

/// The norms of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Norm {
    Attention,
    Query,
    Key,
    PostAttention,
    FeedForward,
    PostFeedForward,
}

const QKV: [Module; 3] = [Module::Q, Module::K, Module::V];
const QK_NORMS: [Norm; 2] = [Norm::Query, Norm::Key];
const POST_NORMS: [Norm; 2] = [Norm::PostAttention, Norm::PostFeedForward];

impl Family {
    /// Adds the parts that the family has to a configuration of Llama's.
    fn complete(self, config: &mut DecoderConfig) {
        match self {
            Family::Llama => {}
            Family::Qwen2 => config.qkv_bias = true,
            Family::Qwen3 => config.qk_norm = true,
            Family::Gemma3 => {
                config.qk_norm = true;
                config.post_norms = true;
                config.gate = Gate::GeluTanh;
                config.embedding_scale = (config.hidden as f32).sqrt();
            }
        }
    }
}

pub(super) fn load(path: &Path, precision: Precision) -> Result<Inner, ModelError> {
    let Checkpoint { config, rope_factors, tokenizer, template, weights } = open(path)?;
    let source = &*weights;
    source.check_names(&parts(&config, source.has(Part::Head)))?;
    let (weights, file_hash) = rayon::join(|| pack(source, &config, precision), || source.hash());
    let (head, embedding, blocks) = weights?;
    Ok(Inner {
        path: path.to_owned(),
        precision,
        tokenizer,
        template,
        file_hash: file_hash?,
        embedding,
        head,
        blocks,
        final_norm: source.tensor(Part::FinalNorm, &[config.hidden])?,
        ropes: ropes(&config, rope_factors.as_deref()),
        pool: Pool::default(),
        engine: Engine::new(&config),
        grammars: OnceLock::new(),
        config,
    })
}

fn open(path: &Path) -> Result<Checkpoint, ModelError> {
    if path.is_dir() { hugging_face::open(path) } else { gguf::open(path) }
}

pub(super) fn outline(path: &Path) -> Result<Outline, ModelError> {
    let Checkpoint { config, weights, .. } = open(path)?;
    let (vocab, hidden) = (config.vocab, config.hidden);
    let linears = (0..config.layers).flat_map(|layer| {
        let shape = |module| {
            let (inputs, outputs) = config.shape(module);
            [outputs, inputs]
        };
        Module::ALL.map(|module| (Part::Linear(layer, module), shape(module)))
    });
    let own_head = weights.has(Part::Head);
    let head = (if own_head { Part::Head } else { Part::Embedding }, [vocab, hidden]);
    let bytes = |(part, [rows, cols]): (Part, [usize; 2])| {
        rows * cols * 2 + weights.quantised_bytes(part, [rows, cols])
    };
    let embedding = if own_head { vocab * hidden * 2 } else { 0 };
    let weight_bytes = linears.chain([head]).map(bytes).sum::<usize>() + embedding;
    Ok(Outline { config, weight_bytes })
}

/// What a model's files say about text, and their hash; its weights are not packed.
pub(crate) fn text_of(path: &Path) -> Result<(Tokenizer, ChatTemplate, String), ModelError> {
    let Checkpoint { tokenizer, template, weights, .. } = open(path)?;
    Ok((tokenizer, template, weights.hash()?))
}

/// All tensors of a model.
fn parts(config: &DecoderConfig, head: bool) -> HashSet<Part> {
    let norms = [Norm::Attention, Norm::FeedForward].into_iter();
    let norms = norms.chain(QK_NORMS.into_iter().filter(|_| config.qk_norm));
    let norms = norms.chain(POST_NORMS.into_iter().filter(|_| config.post_norms));
    let biases = QKV.into_iter().filter(|_| config.qkv_bias);
    let in_block = |layer| {
        let linears = Module::ALL.into_iter().map(move |m| Part::Linear(layer, m));
        let biases = biases.clone().map(move |m| Part::Bias(layer, m));
        linears.chain(biases).chain(norms.clone().map(move |n| Part::Norm(layer, n)))
    };
    let mut parts: HashSet<Part> = (0..config.layers).flat_map(in_block).collect();
    parts.extend([Part::Embedding, Part::FinalNorm]);
    parts.extend(head.then_some(Part::Head));
    parts
}

fn ropes(config: &DecoderConfig, factors: Option<&[f32]>) -> Ropes {
    let (head_dim, positions) = (config.head_dim, config.context_length);
    let global = match factors {
        None => RopeTable::new(head_dim, config.rope_theta, positions),
        Some(factors) => {
            let plain = frequencies(head_dim, config.rope_theta);
            let scaled: Vec<f32> = plain.zip(factors).map(|(f, factor)| f / factor).collect();
            RopeTable::from_frequencies(&scaled, positions)
        }
    };
    let window = config.sliding_window.as_ref();
    let local = window
        .filter(|w| factors.is_some() || w.rope_theta != config.rope_theta)
        .map(|w| RopeTable::new(head_dim, w.rope_theta, positions));
    Ropes { global, local }
}

/// Radians per position, for each pair of components of a head.
fn frequencies(head_dim: usize, theta: f32) -> impl Iterator<Item = f32> {
    (0..head_dim / 2).map(move |i| 1.0 / theta.powf((2 * i) as f32 / head_dim as f32))
}

type Packed = (Frozen, Option<PackedMatrix>, Vec<Block>);

fn pack(
    weights: &dyn Weights,
    config: &DecoderConfig,
    precision: Precision,
) -> Result<Packed, ModelError> {
    let (vocab, hidden) = (config.vocab, config.hidden);
    let table = |part| -> Result<PackedMatrix, ModelError> {
        let values = weights.tensor(part, &[vocab, hidden])?;
        Ok(PackedMatrix::pack(&values, vocab, hidden, precision))
    };
    let head = |part| -> Result<Frozen, ModelError> {
        Ok(Frozen::new(table(part)?, quantised(weights, part, [vocab, hidden], precision)?))
    };
    let (tables, blocks) = rayon::join(
        || -> Result<_, ModelError> {
            Ok(match weights.has(Part::Head) {
                true => (head(Part::Head)?, Some(table(Part::Embedding)?)),
                false => (head(Part::Embedding)?, None),
            })
        },
        || -> Result<Vec<Block>, ModelError> {
            let layers = (0..config.layers).into_par_iter();
            layers.map(|layer| block(weights, config, layer, precision)).collect()
        },
    );
    let (head, embedding) = tables?;
    Ok((head, embedding, blocks?))
}

fn block(
    weights: &dyn Weights,
    config: &DecoderConfig,
    layer: usize,
    precision: Precision,
) -> Result<Block, ModelError> {
    let norm = |norm: Norm, len: usize| weights.tensor(Part::Norm(layer, norm), &[len]);
    let two =
        |[a, b]: [Norm; 2], len| -> Result<_, ModelError> { Ok([norm(a, len)?, norm(b, len)?]) };
    let bias = |module| weights.tensor(Part::Bias(layer, module), &[config.shape(module).1]);
    let biases =
        || -> Result<_, ModelError> { Ok([bias(Module::Q)?, bias(Module::K)?, bias(Module::V)?]) };
    let linear = |module: Module| -> Result<Frozen, ModelError> {
        let (inputs, outputs) = config.shape(module);
        let part = Part::Linear(layer, module);
        let values = weights.tensor(part, &[outputs, inputs])?;
        let packed = PackedMatrix::pack(&values, outputs, inputs, precision);
        Ok(Frozen::new(packed, quantised(weights, part, [outputs, inputs], precision)?))
    };
    let [q, k, v, o, gate, up, down] = Module::ALL.map(linear);
    Ok(Block {
        attention_norm: norm(Norm::Attention, config.hidden)?,
        feed_forward_norm: norm(Norm::FeedForward, config.hidden)?,
        linears: [q?, k?, v?, o?, gate?, up?, down?],
        qkv_bias: config.qkv_bias.then(biases).transpose()?,
        qk_norm: config.qk_norm.then(|| two(QK_NORMS, config.head_dim)).transpose()?,
        post_norms: config.post_norms.then(|| two(POST_NORMS, config.hidden)).transpose()?,
        window: config.window(layer),
    })
}

/// The weight in the integers of its file. A decoder of [`Precision::F32`] has none: it computes with the
/// dequantised weights exactly.
fn quantised(
    weights: &dyn Weights,
    part: Part,
    shape: [usize; 2],
    precision: Precision,
) -> Result<Option<QuantMatrix>, ModelError> {
    match precision {
        Precision::F32 => Ok(None),
        Precision::Bf16 => weights.quantised(part, shape),
    }
}

/// What is wrong with a configuration, whatever file it is from: the names of heads of keys, size of
/// a head and context in that file select what is reported.
fn complaint(
    config: &DecoderConfig,
    [kv_heads, head_dim, context_length]: [&'static str; 3],
) -> Option<(&'static str, &'static str)> {
    if config.kv_heads == 0 || !config.heads.is_multiple_of(config.kv_heads) {
        return Some((kv_heads, "a divisor of the number of heads"));
    }
    if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
        return Some((head_dim, "an even number"));
    }
    (config.context_length > LONGEST_CONTEXT).then_some((context_length, "at most 1,048,576"))
}
