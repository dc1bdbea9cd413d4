//! Decoders in GGUF files. What the keys mean where the format's description leaves it open is
//! llama.cpp's reading of them.

use std::collections::HashSet;
use std::path::Path;

use assay_kernels::{Gate, QuantMatrix};

use super::{Checkpoint, Family, Norm, Part, Weights, complaint};
use crate::config::{DecoderConfig, Module, SlidingWindow};
use crate::error::ModelError;
use crate::gguf::Gguf;
use crate::template::ChatTemplate;
use crate::tokenizer::{Pieces, Splitting, Tokenizer, Vocabulary};

const ARCHITECTURES: &[&str] = &["llama", "qwen2", "qwen3", "gemma3"];
/// Divisors of the rotary frequencies, of Llama 3's long contexts.
const ROPE_FACTORS: &str = "rope_freqs.weight";

pub(super) fn open(path: &Path) -> Result<Checkpoint, ModelError> {
    let gguf = Gguf::open(path)?;
    let family = family(&gguf)?;
    let config = config(&gguf, family)?;
    let tokenizer = Tokenizer::new(vocabulary(&gguf)?)?;
    let text = |id: Option<u32>| {
        let bytes = id.map_or(&[][..], |id| tokenizer.token_bytes(id));
        String::from_utf8_lossy(bytes).into_owned()
    };
    let template = ChatTemplate::new(
        gguf.text_or_none("tokenizer.chat_template").unwrap_or_default(),
        &text(tokenizer.bos()),
        &text(tokenizer.eos()),
    )?;
    let rope_factors = rope_factors(&gguf, &config)?;
    let interleaved = (family == Family::Llama).then_some(config.head_dim);
    let weights = Box::new(Stored { gguf, interleaved });
    Ok(Checkpoint { config, rope_factors, tokenizer, template, weights })
}

fn family(gguf: &Gguf) -> Result<Family, ModelError> {
    match gguf.text("general.architecture")? {
        "llama" => Ok(Family::Llama),
        "qwen2" => Ok(Family::Qwen2),
        "qwen3" => Ok(Family::Qwen3),
        "gemma3" => Ok(Family::Gemma3),
        other => Err(ModelError::UnsupportedArchitecture {
            path: gguf.path().to_owned(),
            architecture: other.to_owned(),
            supported: ARCHITECTURES,
        }),
    }
}

fn config(gguf: &Gguf, family: Family) -> Result<DecoderConfig, ModelError> {
    let key = |name: &str| key(gguf, name);
    let layers = gguf.size(&key("block_count"))?;
    let hidden = gguf.size(&key("embedding_length"))?;
    let heads = gguf.size(&key("attention.head_count"))?;
    let head_dim = gguf.size_or_none(&key("attention.key_length")).unwrap_or(hidden / heads);
    let mut config = DecoderConfig {
        layers,
        hidden,
        heads,
        kv_heads: gguf.size_or_none(&key("attention.head_count_kv")).unwrap_or(heads),
        head_dim,
        feed_forward: gguf.size(&key("feed_forward_length"))?,
        vocab: gguf.texts("tokenizer.ggml.tokens")?.len(),
        context_length: gguf.size(&key("context_length"))?,
        rope_theta: gguf.float(&key("rope.freq_base")).unwrap_or(10_000.0),
        norm_eps: gguf.float(&key("attention.layer_norm_rms_epsilon"))?,
        embedding_scale: 1.0,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        gate: Gate::Silu,
        qkv_bias: false,
        qk_norm: false,
        post_norms: false,
        sliding_window: None,
    };
    family.complete(&mut config);
    if family == Family::Gemma3 {
        gemma3(gguf, &mut config)?;
    }
    let names = ["attention.head_count_kv", "attention.key_length", "context_length"];
    let refuse = |name, expected| {
        let path = gguf.path().to_owned();
        Err(ModelError::Metadata { path, key: key(name), expected })
    };
    if let Some((name, expected)) = complaint(&config, names) {
        return refuse(name, expected);
    }
    for name in ["rope.dimension_count", "attention.value_length"] {
        if gguf.size_or_none(&key(name)).is_some_and(|size| size != head_dim) {
            return refuse(name, "the size of a head");
        }
    }
    for name in ["expert_count", "attn_logit_softcapping", "final_logit_softcapping"] {
        if gguf.has(&key(name)) && gguf.size_or_none(&key(name)) != Some(0) {
            return refuse(name, "absent (it is not supported)");
        }
    }
    Ok(config)
}

/// What the files of Gemma 3 leave to the reader.
fn gemma3(gguf: &Gguf, config: &mut DecoderConfig) -> Result<(), ModelError> {
    // The 27B model alone scales queries by the hidden size per head, not by the size of a head.
    const LAYERS_OF_27B: usize = 62;
    if config.layers == LAYERS_OF_27B {
        config.attention_scale = 1.0 / ((config.hidden / config.heads) as f32).sqrt();
    }
    if gguf.float(&key(gguf, "rope.freq_base")).is_err() {
        config.rope_theta = 1e6;
    }
    let global_every = 6;
    config.sliding_window = Some(SlidingWindow {
        tokens: gguf.size(&key(gguf, "attention.sliding_window"))?,
        rope_theta: gguf.float(&key(gguf, "rope.freq_base_swa")).unwrap_or(10_000.0),
        local: (1..=config.layers).map(|layer| layer % global_every != 0).collect(),
    });
    Ok(())
}

/// A key of the architecture.
fn key(gguf: &Gguf, name: &str) -> String {
    format!("{}.{name}", gguf.text_or_none("general.architecture").unwrap_or_default())
}

fn rope_factors(gguf: &Gguf, config: &DecoderConfig) -> Result<Option<Vec<f32>>, ModelError> {
    let half = config.head_dim / 2;
    if gguf.has_tensor(ROPE_FACTORS) {
        return gguf.tensor(ROPE_FACTORS, &[half]).map(Some);
    }
    match gguf.text_or_none(&key(gguf, "rope.scaling.type")) {
        None | Some("none") => Ok(None),
        Some("linear") => {
            let factor = gguf.float(&key(gguf, "rope.scaling.factor"))?;
            Ok(Some(vec![factor; half]))
        }
        Some(_) => Err(ModelError::Metadata {
            path: gguf.path().to_owned(),
            key: key(gguf, "rope.scaling.type"),
            expected: "`linear` or absent (other scaled positions are not supported)",
        }),
    }
}

fn vocabulary(gguf: &Gguf) -> Result<Vocabulary, ModelError> {
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let known = |key: &str| gguf.id(key).filter(|&id| (id as usize) < tokens.len());
    let (bos, eos) = (known("tokenizer.ggml.bos_token_id"), known("tokenizer.ggml.eos_token_id"));
    let turn_ends = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
    let pieces = pieces(gguf)?;
    let add_bos = gguf.flag("tokenizer.ggml.add_bos_token");
    Ok(Vocabulary {
        types: gguf.integers("tokenizer.ggml.token_type")?,
        bos,
        eos,
        add_bos: add_bos.unwrap_or(matches!(pieces, Pieces::Scored { .. })),
        stop: turn_ends.into_iter().filter_map(known).chain(eos).collect(),
        pieces,
        tokens,
    })
}

fn pieces(gguf: &Gguf) -> Result<Pieces, ModelError> {
    let refuse = |field, got: &str, supported| {
        let (path, got) = (gguf.path().to_owned(), got.to_owned());
        Err(ModelError::UnsupportedTokenizer { path, field, got, supported })
    };
    match gguf.text("tokenizer.ggml.model")? {
        "gpt2" => {}
        "llama" => {
            let space = gguf.flag("tokenizer.ggml.add_space_prefix");
            let scores = gguf.floats("tokenizer.ggml.scores")?;
            return Ok(Pieces::Scored { scores, space_prefix: space.unwrap_or(true) });
        }
        other => return refuse("tokenizer.ggml.model", other, &["gpt2", "llama"]),
    }
    let splitting = match gguf.text_or_none("tokenizer.ggml.pre").unwrap_or("gpt-2") {
        "smollm" | "starcoder" => Splitting::DigitsThenGpt2,
        "gpt-2" => Splitting::Gpt2,
        "qwen2" => Splitting::Qwen2,
        "llama-bpe" => Splitting::Llama3,
        other => {
            let supported = &["gpt-2", "smollm", "starcoder", "qwen2", "llama-bpe"];
            return refuse("tokenizer.ggml.pre", other, supported);
        }
    };
    let merges = gguf.texts("tokenizer.ggml.merges")?;
    let merges = merges
        .iter()
        .map(|merge| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect::<Option<Vec<_>>>();
    let merges = merges.ok_or_else(|| ModelError::Metadata {
        path: gguf.path().to_owned(),
        key: "tokenizer.ggml.merges".into(),
        expected: "pairs of tokens with a space between",
    })?;
    Ok(Pieces::Merged { merges, splitting })
}

/// The tensors of a file.
struct Stored {
    gguf: Gguf,
    /// Size of a head where its halves are interleaved in rows of queries and keys.
    interleaved: Option<usize>,
}

impl Weights for Stored {
    fn has(&self, part: Part) -> bool {
        self.gguf.has_tensor(&name(part))
    }

    fn tensor(&self, part: Part, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let values = self.gguf.tensor(&name(part), shape)?;
        Ok(match (self.interleaved(part), shape) {
            (Some(head_dim), &[rows, cols]) => {
                let stored = (0..rows).map(|row| stored_row(row, head_dim));
                stored.flat_map(|row| &values[row * cols..][..cols]).copied().collect()
            }
            _ => values,
        })
    }

    fn quantised(&self, part: Part, shape: [usize; 2]) -> Result<Option<QuantMatrix>, ModelError> {
        let interleaved = self.interleaved(part);
        let order = |row| interleaved.map_or(row, |head_dim| stored_row(row, head_dim));
        Ok(self.gguf.quantised(&name(part), shape)?.and_then(|tensor| tensor.pack(order)))
    }

    fn quantised_bytes(&self, part: Part, shape: [usize; 2]) -> usize {
        self.gguf.quantised_bytes(&name(part), shape)
    }

    fn check_names(&self, parts: &HashSet<Part>) -> Result<(), ModelError> {
        let known: HashSet<String> = parts.iter().map(|&part| name(part)).collect();
        let mut names = self.gguf.tensor_names();
        match names.find(|&name| name != ROPE_FACTORS && !known.contains(name)) {
            Some(name) => Err(ModelError::UnknownTensor {
                path: self.gguf.path().to_owned(),
                name: name.to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn hash(&self) -> Result<String, ModelError> {
        self.gguf.sha256()
    }
}

impl Stored {
    /// Size of a head where its halves are interleaved in the rows of a tensor.
    fn interleaved(&self, part: Part) -> Option<usize> {
        let rotated = matches!(part, Part::Linear(_, Module::Q | Module::K));
        self.interleaved.filter(|_| rotated)
    }
}

fn name(part: Part) -> String {
    let (layer, name) = match part {
        Part::Embedding => return "token_embd.weight".into(),
        Part::Head => return "output.weight".into(),
        Part::FinalNorm => return "output_norm.weight".into(),
        Part::Linear(layer, module) => return module.gguf_name(layer),
        Part::Bias(layer, module) => return module.gguf_name(layer).replace("weight", "bias"),
        Part::Norm(layer, Norm::Attention) => (layer, "attn_norm"),
        Part::Norm(layer, Norm::Query) => (layer, "attn_q_norm"),
        Part::Norm(layer, Norm::Key) => (layer, "attn_k_norm"),
        Part::Norm(layer, Norm::PostAttention) => (layer, "post_attention_norm"),
        Part::Norm(layer, Norm::FeedForward) => (layer, "ffn_norm"),
        Part::Norm(layer, Norm::PostFeedForward) => (layer, "post_ffw_norm"),
    };
    format!("blk.{layer}.{name}.weight")
}

/// Where a file of the architecture `llama` keeps row `row` of the query or key projection.
///
/// It interleaves the halves of each head, so that neighbours rotate together; we keep Hugging
/// Face's order, where row `i` and `i + head_dim/2` do.
fn stored_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * i + half
}
