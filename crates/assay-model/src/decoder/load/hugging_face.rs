//! Decoders in Hugging Face folders, as transformers reads them; also as older versions wrote them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use assay_kernels::{Gate, QuantMatrix};
use serde::Deserialize;

use super::{Checkpoint, Family, Norm, Part, Weights, complaint, frequencies};
use crate::config::{DecoderConfig, SlidingWindow};
use crate::error::ModelError;
use crate::fetch::{combined, sha256_file};
use crate::shards::{Shards, read_json};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

const MODEL_TYPES: &[&str] = &["llama", "mistral", "qwen2", "qwen3", "gemma3_text"];
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const GENERATION_CONFIG: &str = "generation_config.json";

/// `config.json`, as far as it bears on what is computed.
#[derive(Deserialize)]
struct ConfigJson {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f32>,
    rope_local_base_freq: Option<f32>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeJson>,
    query_pre_attn_scalar: Option<f32>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    sliding_window_pattern: Option<usize>,
    _sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_bidirectional_attention: Option<bool>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    quantization_config: Option<serde_json::Value>,
    #[serde(default)]
    eos_token_id: Ids,
}

/// `rope_scaling` of older versions, `rope_parameters` of newer ones.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct RopeJson {
    rope_type: Option<String>,
    /// The older name of `rope_type`.
    r#type: Option<String>,
    rope_theta: Option<f32>,
    partial_rotary_factor: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
    full_attention: Option<Box<RopeJson>>,
    sliding_attention: Option<Box<RopeJson>>,
}

/// No id, one or several.
#[derive(Clone, Default, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
    #[default]
    None,
}

/// `generation_config.json`.
#[derive(Default, Deserialize)]
struct GenerationJson {
    #[serde(default)]
    eos_token_id: Ids,
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerJson {
    bos_token: Option<TokenJson>,
    eos_token: Option<TokenJson>,
    chat_template: Option<TemplatesJson>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenJson {
    Text(String),
    Token { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TemplatesJson {
    One(String),
    Named(Vec<TemplateJson>),
}

#[derive(Deserialize)]
struct TemplateJson {
    name: String,
    template: String,
}

impl Ids {
    fn list(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
            Ids::None => Vec::new(),
        }
    }
}

impl TokenJson {
    fn text(&self) -> &str {
        match self {
            TokenJson::Text(text) | TokenJson::Token { content: text } => text,
        }
    }
}

pub(super) fn open(dir: &Path) -> Result<Checkpoint, ModelError> {
    let path = dir.join(CONFIG);
    let json: ConfigJson = read_json(&path)?;
    let refuse = |key: &str, expected| ModelError::Metadata {
        path: path.clone(),
        key: key.into(),
        expected,
    };
    let Some(family) = family(&json) else {
        return Err(ModelError::UnsupportedArchitecture {
            path,
            architecture: json.model_type,
            supported: MODEL_TYPES,
        });
    };
    if let Some((key, expected)) = unsupported(&json) {
        return Err(refuse(key, expected));
    }
    let config = config(&json, family).map_err(|(key, expected)| refuse(key, expected))?;
    let rope_factors =
        rope_factors(&json, &config).map_err(|(key, expected)| refuse(key, expected))?;
    let tied = json.tie_word_embeddings.unwrap_or(family == Family::Gemma3);
    let (tokenizer, template) = texts(dir, json.eos_token_id)?;
    let weights = Folder { dir: dir.into(), shards: Shards::open(dir)?, family, tied };
    Ok(Checkpoint { config, rope_factors, tokenizer, template, weights: Box::new(weights) })
}

/// A key, and what it had to be.
type Complaint = (&'static str, &'static str);

fn family(json: &ConfigJson) -> Option<Family> {
    match json.model_type.as_str() {
        "llama" | "mistral" => Some(Family::Llama),
        "qwen2" => Some(Family::Qwen2),
        "qwen3" => Some(Family::Qwen3),
        "gemma3_text" => Some(Family::Gemma3),
        _ => None,
    }
}

fn unsupported(json: &ConfigJson) -> Option<Complaint> {
    let sizes = [
        ("hidden_size", json.hidden_size),
        ("intermediate_size", json.intermediate_size),
        ("num_hidden_layers", json.num_hidden_layers),
        ("num_attention_heads", json.num_attention_heads),
        ("vocab_size", json.vocab_size),
        ("max_position_embeddings", json.max_position_embeddings),
    ];
    if let Some((key, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
        return Some((key, "a positive integer"));
    }
    let absent = "absent (it is not supported)";
    let flags = [
        ("attention_bias", json.attention_bias == Some(true)),
        ("mlp_bias", json.mlp_bias == Some(true)),
        ("use_bidirectional_attention", json.use_bidirectional_attention == Some(true)),
        ("attn_logit_softcapping", json.attn_logit_softcapping.is_some()),
        ("final_logit_softcapping", json.final_logit_softcapping.is_some()),
        ("quantization_config", json.quantization_config.is_some()),
    ];
    flags.into_iter().find(|(_, set)| *set).map(|(key, _)| (key, absent))
}

fn config(json: &ConfigJson, family: Family) -> Result<DecoderConfig, Complaint> {
    let (hidden, heads) = (json.hidden_size, json.num_attention_heads);
    // transformers' own values where a key is missing.
    let default_head = match family {
        Family::Llama | Family::Qwen2 => hidden / heads,
        Family::Qwen3 => 128,
        Family::Gemma3 => 256,
    };
    let head_dim = json.head_dim.unwrap_or(default_head);
    let rope_theta = json.global_rope().rope_theta.or(json.rope_theta);
    let mut config = DecoderConfig {
        layers: json.num_hidden_layers,
        hidden,
        heads,
        kv_heads: json.num_key_value_heads.unwrap_or(heads),
        head_dim,
        feed_forward: json.intermediate_size,
        vocab: json.vocab_size,
        context_length: json.max_position_embeddings,
        rope_theta: rope_theta.unwrap_or(if family == Family::Gemma3 { 1e6 } else { 1e4 }),
        norm_eps: json.rms_norm_eps,
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
        config.attention_scale = 1.0 / json.query_pre_attn_scalar.unwrap_or(256.0).sqrt();
    }
    config.gate = match json.hidden_activation.as_deref().or(json.hidden_act.as_deref()) {
        Some("silu" | "swish") => Gate::Silu,
        Some("gelu_pytorch_tanh") => Gate::GeluTanh,
        None => config.gate,
        Some(_) => return Err(("hidden_act", "`silu` or `gelu_pytorch_tanh`")),
    };
    config.sliding_window = sliding_window(json, family, config.rope_theta)?;
    let names = ["num_key_value_heads", "head_dim", "max_position_embeddings"];
    complaint(&config, names).map_or(Ok(config), Err)
}

fn sliding_window(
    json: &ConfigJson,
    family: Family,
    rope_theta: f32,
) -> Result<Option<SlidingWindow>, Complaint> {
    let layers = json.num_hidden_layers;
    let local: Vec<bool> = match (&json.layer_types, family) {
        (Some(types), _) => {
            let known = |t: &String| matches!(t.as_str(), "sliding_attention" | "full_attention");
            if types.len() != layers || !types.iter().all(known) {
                return Err(("layer_types", "`sliding_attention` or `full_attention` per layer"));
            }
            types.iter().map(|t| t == "sliding_attention").collect()
        }
        (None, Family::Gemma3) => {
            let global_every =
                json.sliding_window_pattern.or(json._sliding_window_pattern).unwrap_or(6).max(1);
            (1..=layers).map(|layer| layer % global_every != 0).collect()
        }
        (None, Family::Llama) => {
            vec![json.model_type == "mistral" && json.sliding_window.is_some(); layers]
        }
        (None, Family::Qwen2 | Family::Qwen3) => {
            let used = json.use_sliding_window == Some(true);
            let first = json.max_window_layers.unwrap_or(layers);
            (0..layers).map(|layer| used && layer >= first).collect()
        }
    };
    if !local.contains(&true) {
        return Ok(None);
    }
    let tokens = json.sliding_window.filter(|&n| n > 0);
    let own = json.rope_parameters.as_ref().and_then(|r| r.sliding_attention.as_ref());
    let own = own.and_then(|r| r.rope_theta).or(json.rope_local_base_freq);
    let default = if family == Family::Gemma3 { 1e4 } else { rope_theta };
    Ok(Some(SlidingWindow {
        tokens: tokens.ok_or(("sliding_window", "a positive integer"))?,
        rope_theta: own.unwrap_or(default),
        local,
    }))
}

impl ConfigJson {
    /// The rotary embedding of layers without window.
    fn global_rope(&self) -> RopeJson {
        let all = self.rope_parameters.clone().or_else(|| self.rope_scaling.clone());
        let all = all.unwrap_or_default();
        all.full_attention.clone().map_or(all, |own| *own)
    }
}

fn rope_factors(json: &ConfigJson, config: &DecoderConfig) -> Result<Option<Vec<f32>>, Complaint> {
    let rope = json.global_rope();
    let key = if json.rope_parameters.is_some() { "rope_parameters" } else { "rope_scaling" };
    if rope.partial_rotary_factor.is_some_and(|part| part != 1.0) {
        return Err((key, "without partial_rotary_factor (it is not supported)"));
    }
    match rope.rope_type.as_deref().or(rope.r#type.as_deref()) {
        None | Some("default") => Ok(None),
        Some("linear") => {
            let factor = rope.factor.ok_or((key, "with a factor"))?;
            Ok(Some(vec![factor; config.head_dim / 2]))
        }
        // In layers with a window, Llama 3's would apply too; no model has both.
        Some("llama3") if config.sliding_window.is_none() => {
            let parameters = rope.factor.zip(rope.low_freq_factor).zip(rope.high_freq_factor);
            let ((factor, low), high) =
                parameters.ok_or((key, "with factor, low_freq_factor and high_freq_factor"))?;
            let context = rope.original_max_position_embeddings;
            let context = context.ok_or((key, "with original_max_position_embeddings"))?;
            Ok(Some(llama3_factors(config, factor, low, high, context)))
        }
        Some(_) => Err((key, "of type `default`, `linear` or `llama3` (others are not supported)")),
    }
}

/// Llama 3.1's: waves longer than the original context over `low` are stretched by `factor`, those
/// shorter than it over `high` are kept, and between the two it goes smoothly.
fn llama3_factors(
    config: &DecoderConfig,
    factor: f32,
    low: f32,
    high: f32,
    context: f32,
) -> Vec<f32> {
    let divisor = |frequency: f32| {
        let wave = 2.0 * std::f32::consts::PI / frequency;
        if wave > context / low {
            factor
        } else if wave < context / high {
            1.0
        } else {
            let smooth = (context / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    frequencies(config.head_dim, config.rope_theta).map(divisor).collect()
}

fn texts(dir: &Path, eos_ids: Ids) -> Result<(Tokenizer, ChatTemplate), ModelError> {
    let config: TokenizerJson = read_or_default(&dir.join(TOKENIZER_CONFIG))?;
    let generation: GenerationJson = read_or_default(&dir.join(GENERATION_CONFIG))?;
    let stop = [eos_ids.list(), generation.eos_token_id.list()].concat();
    let text = |token: &Option<TokenJson>| token.as_ref().map(|t| t.text().to_owned());
    let (bos, eos) = (text(&config.bos_token), text(&config.eos_token));
    let tokenizer =
        Tokenizer::from_file(&dir.join(TOKENIZER), bos.as_deref(), eos.as_deref(), stop)?;
    let own = dir.join(TEMPLATE);
    let source = match config.chat_template {
        _ if own.is_file() => fs_err::read_to_string(&own)?,
        Some(TemplatesJson::One(source)) => source,
        Some(TemplatesJson::Named(named)) => {
            let default = named.into_iter().find(|t| t.name == "default");
            default.map(|t| t.template).unwrap_or_default()
        }
        None => String::new(),
    };
    let template = ChatTemplate::new(&source, &bos.unwrap_or_default(), &eos.unwrap_or_default())?;
    Ok((tokenizer, template))
}

fn read_or_default<T: for<'a> Deserialize<'a> + Default>(path: &Path) -> Result<T, ModelError> {
    if path.is_file() { read_json(path) } else { Ok(T::default()) }
}

/// The tensors of a folder.
struct Folder {
    dir: PathBuf,
    shards: Shards,
    family: Family,
    tied: bool,
}

impl Weights for Folder {
    fn has(&self, part: Part) -> bool {
        match part {
            // A head that is stored and not tied must be there.
            Part::Head => !self.tied,
            _ => self.shards.has(&self.name(part)),
        }
    }

    fn tensor(&self, part: Part, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let mut values = self.shards.tensor(&self.name(part), shape)?;
        if self.family == Family::Gemma3 && matches!(part, Part::FinalNorm | Part::Norm(..)) {
            // Its norms are stored as what is added to 1.
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        Ok(values)
    }

    fn quantised(&self, _: Part, _: [usize; 2]) -> Result<Option<QuantMatrix>, ModelError> {
        Ok(None)
    }

    fn quantised_bytes(&self, _: Part, _: [usize; 2]) -> usize {
        0
    }

    fn check_names(&self, parts: &HashSet<Part>) -> Result<(), ModelError> {
        let mut known: HashSet<String> = parts.iter().map(|&part| self.name(part)).collect();
        if self.tied {
            known.insert(self.name(Part::Head));
        }
        // Tables that old versions stored and that are computed anew.
        let computed = |name: &str| name.ends_with("rotary_emb.inv_freq");
        match self.shards.names().find(|&name| !computed(name) && !known.contains(name)) {
            Some(name) => {
                Err(ModelError::UnknownTensor { path: self.dir.clone(), name: name.into() })
            }
            None => Ok(()),
        }
    }

    fn hash(&self) -> Result<String, ModelError> {
        let others = [CONFIG, GENERATION_CONFIG, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG];
        let others = others.map(|name| self.dir.join(name)).into_iter().filter(|p| p.is_file());
        let sums = others.chain(self.shards.files().iter().cloned()).map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, sha256_file(&path)?))
        });
        Ok(combined(&sums.collect::<std::io::Result<Vec<_>>>()?))
    }
}

impl Folder {
    fn name(&self, part: Part) -> String {
        let gemma = self.family == Family::Gemma3;
        let (layer, name) = match part {
            Part::Embedding => return "model.embed_tokens.weight".into(),
            Part::Head => return "lm_head.weight".into(),
            Part::FinalNorm => return "model.norm.weight".into(),
            Part::Linear(layer, module) => return format!("{}.weight", module.hf_path(layer)),
            Part::Bias(layer, module) => return format!("{}.bias", module.hf_path(layer)),
            Part::Norm(layer, Norm::Attention) => (layer, "input_layernorm"),
            Part::Norm(layer, Norm::Query) => (layer, "self_attn.q_norm"),
            Part::Norm(layer, Norm::Key) => (layer, "self_attn.k_norm"),
            Part::Norm(layer, Norm::PostAttention) => (layer, "post_attention_layernorm"),
            Part::Norm(layer, Norm::FeedForward) if gemma => (layer, "pre_feedforward_layernorm"),
            Part::Norm(layer, Norm::FeedForward) => (layer, "post_attention_layernorm"),
            Part::Norm(layer, Norm::PostFeedForward) => (layer, "post_feedforward_layernorm"),
        };
        format!("model.layers.{layer}.{name}.weight")
    }
}
