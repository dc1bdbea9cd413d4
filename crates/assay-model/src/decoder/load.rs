//! From a GGUF file to packed weights.

use std::path::Path;

use assay_kernels::{PackedMatrix, Precision, QuantMatrix, RopeTable};
use rayon::prelude::*;

use super::Inner;
use super::block::{Block, Frozen};
use super::pool::Pool;
use crate::config::{DecoderConfig, Module};
use crate::error::ModelError;
use crate::gguf::Gguf;
use crate::template::ChatTemplate;
use crate::tokenizer::{Splitting, Tokenizer, Vocabulary};

const ARCHITECTURES: &[&str] = &["llama"];
/// Beyond this the tables of positions alone would take more memory than the weights; a damaged
/// header would take all of it.
const LONGEST_CONTEXT: usize = 1 << 20;
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

pub(super) fn load(path: &Path, precision: Precision) -> Result<Inner, ModelError> {
    let gguf = Gguf::open(path)?;
    let config = config(&gguf)?;
    let (tokenizer, template) = tokenizer_and_template(&gguf)?;
    let (weights, file_hash) = rayon::join(|| weights(&gguf, &config, precision), || gguf.sha256());
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
        final_norm: gguf.tensor("output_norm.weight", &[config.hidden])?,
        rope: rope_table(&gguf, &config)?,
        pool: Pool::default(),
        config,
    })
}

/// What a file says about text, without its weights.
pub(crate) fn tokenizer_and_template(gguf: &Gguf) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    let tokenizer = Tokenizer::new(vocabulary(gguf)?)?;
    let text = |id: Option<u32>| {
        let bytes = id.map_or(&[][..], |id| tokenizer.token_bytes(id));
        String::from_utf8_lossy(bytes).into_owned()
    };
    let template = ChatTemplate::new(
        gguf.text_or_none("tokenizer.chat_template").unwrap_or_default(),
        &text(tokenizer.bos()),
        &text(tokenizer.eos()),
    )?;
    Ok((tokenizer, template))
}

fn config(gguf: &Gguf) -> Result<DecoderConfig, ModelError> {
    let architecture = gguf.text("general.architecture")?;
    if !ARCHITECTURES.contains(&architecture) {
        return Err(ModelError::UnsupportedArchitecture {
            path: gguf.path().to_owned(),
            architecture: architecture.to_owned(),
            supported: ARCHITECTURES,
        });
    }
    let key = |name: &str| format!("{architecture}.{name}");
    let hidden = gguf.size(&key("embedding_length"))?;
    let heads = gguf.size(&key("attention.head_count"))?;
    let kv_heads = gguf.size_or_none(&key("attention.head_count_kv")).unwrap_or(heads);
    let head_dim = gguf.size_or_none(&key("attention.key_length")).unwrap_or(hidden / heads);
    let refuse = |name: &str, expected| {
        let (path, key) = (gguf.path().to_owned(), key(name));
        Err(ModelError::Metadata { path, key, expected })
    };
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return refuse("attention.head_count_kv", "a divisor of the number of heads");
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return refuse("attention.key_length", "an even number");
    }
    let rotated = gguf.size_or_none(&key("rope.dimension_count")).unwrap_or(head_dim);
    if rotated != head_dim {
        return refuse("rope.dimension_count", "the size of a head");
    }
    let scaling = gguf.text_or_none(&key("rope.scaling.type"));
    if scaling.is_some_and(|s| s != "none") {
        return refuse("rope.scaling.type", "absent (scaled positions are not supported)");
    }
    let context_length = gguf.size(&key("context_length"))?;
    if context_length > LONGEST_CONTEXT {
        return refuse("context_length", "at most 1,048,576");
    }
    Ok(DecoderConfig {
        layers: gguf.size(&key("block_count"))?,
        hidden,
        heads,
        kv_heads,
        head_dim,
        feed_forward: gguf.size(&key("feed_forward_length"))?,
        vocab: gguf.texts("tokenizer.ggml.tokens")?.len(),
        context_length,
        rope_theta: gguf.float(&key("rope.freq_base")).unwrap_or(10_000.0),
        norm_eps: gguf.float(&key("attention.layer_norm_rms_epsilon"))?,
    })
}

fn vocabulary(gguf: &Gguf) -> Result<Vocabulary, ModelError> {
    let refuse = |field, got: &str, supported| {
        let (path, got) = (gguf.path().to_owned(), got.to_owned());
        Err(ModelError::UnsupportedTokenizer { path, field, got, supported })
    };
    let model = gguf.text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return refuse("tokenizer.ggml.model", model, &["gpt2"]);
    }
    let splitting = match gguf.text_or_none("tokenizer.ggml.pre").unwrap_or("gpt-2") {
        "smollm" | "starcoder" => Splitting::DigitsThenGpt2,
        "gpt-2" => Splitting::Gpt2,
        other => {
            return refuse("tokenizer.ggml.pre", other, &["gpt-2", "smollm", "starcoder"]);
        }
    };
    let merges = gguf.texts("tokenizer.ggml.merges")?;
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect::<Option<Vec<_>>>();
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let known = |key: &str| gguf.id(key).filter(|&id| (id as usize) < tokens.len());
    let (bos, eos) = (known("tokenizer.ggml.bos_token_id"), known("tokenizer.ggml.eos_token_id"));
    let turn_ends = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    Ok(Vocabulary {
        types: gguf.integers("tokenizer.ggml.token_type")?,
        merges: merges.ok_or_else(|| ModelError::Metadata {
            path: gguf.path().to_owned(),
            key: "tokenizer.ggml.merges".into(),
            expected: "pairs of tokens with a space between",
        })?,
        splitting,
        bos,
        eos,
        add_bos: gguf.flag("tokenizer.ggml.add_bos_token").unwrap_or(false),
        stop: turn_ends.into_iter().filter_map(known).chain(eos).collect(),
        tokens,
    })
}

/// Plain frequencies, divided by the factors of Llama 3's long contexts where the file has them.
fn rope_table(gguf: &Gguf, config: &DecoderConfig) -> Result<RopeTable, ModelError> {
    const FACTORS: &str = "rope_freqs.weight";
    let (head_dim, theta) = (config.head_dim, config.rope_theta);
    if !gguf.has_tensor(FACTORS) {
        return Ok(RopeTable::new(head_dim, theta, config.context_length));
    }
    let factors = gguf.tensor(FACTORS, &[head_dim / 2])?;
    let frequency =
        |(i, factor): (usize, &f32)| 1.0 / theta.powf((2 * i) as f32 / head_dim as f32) / factor;
    let frequencies: Vec<f32> = factors.iter().enumerate().map(frequency).collect();
    Ok(RopeTable::from_frequencies(&frequencies, config.context_length))
}

type Weights = (Frozen, Option<PackedMatrix>, Vec<Block>);

fn weights(
    gguf: &Gguf,
    config: &DecoderConfig,
    precision: Precision,
) -> Result<Weights, ModelError> {
    let (vocab, hidden) = (config.vocab, config.hidden);
    let table = |name| -> Result<PackedMatrix, ModelError> {
        let values = gguf.tensor(name, &[vocab, hidden])?;
        Ok(PackedMatrix::pack(&values, vocab, hidden, precision))
    };
    let head = |name| -> Result<Frozen, ModelError> {
        Ok(Frozen::new(table(name)?, quantised(gguf, name, [vocab, hidden], precision, |r| r)?))
    };
    let (tables, blocks) = rayon::join(
        || -> Result<_, ModelError> {
            Ok(match gguf.has_tensor(HEAD) {
                true => (head(HEAD)?, Some(table(EMBEDDING)?)),
                false => (head(EMBEDDING)?, None),
            })
        },
        || -> Result<Vec<Block>, ModelError> {
            let layers = (0..config.layers).into_par_iter();
            layers.map(|layer| block(gguf, config, layer, precision)).collect()
        },
    );
    let (head, embedding) = tables?;
    Ok((head, embedding, blocks?))
}

fn block(
    gguf: &Gguf,
    config: &DecoderConfig,
    layer: usize,
    precision: Precision,
) -> Result<Block, ModelError> {
    let norm = |name: &str| gguf.tensor(&format!("blk.{layer}.{name}.weight"), &[config.hidden]);
    let linear = |module: Module| -> Result<Frozen, ModelError> {
        let (inputs, outputs) = config.shape(module);
        let name = module.gguf_name(layer);
        let values = gguf.tensor(&name, &[outputs, inputs])?;
        let order = |row| match module {
            Module::Q | Module::K => stored_row(row, config.head_dim),
            _ => row,
        };
        let packed = PackedMatrix::pack_with(outputs, inputs, precision, |row, out| {
            out.copy_from_slice(&values[order(row) * inputs..][..inputs]);
        });
        Ok(Frozen::new(packed, quantised(gguf, &name, [outputs, inputs], precision, order)?))
    };
    let [q, k, v, o, gate, up, down] = Module::ALL.map(linear);
    Ok(Block {
        attention_norm: norm("attn_norm")?,
        feed_forward_norm: norm("ffn_norm")?,
        linears: [q?, k?, v?, o?, gate?, up?, down?],
    })
}

/// The weight in the integers of its file. A decoder of [`Precision::F32`] has none: it computes with the
/// dequantised weights exactly.
fn quantised(
    gguf: &Gguf,
    name: &str,
    shape: [usize; 2],
    precision: Precision,
    order: impl Fn(usize) -> usize + Sync,
) -> Result<Option<QuantMatrix>, ModelError> {
    match precision {
        Precision::F32 => Ok(None),
        Precision::Bf16 => Ok(gguf.quantised(name, shape)?.and_then(|tensor| tensor.pack(order))),
    }
}

/// Where a GGUF `llama` file keeps row `row` of the query or key projection.
///
/// The file interleaves the halves of each head, so that neighbours rotate together; we keep
/// Hugging Face's order, in which adapters are written: row `i` and `i + head_dim/2` rotate
/// together.
fn stored_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * i + half
}
