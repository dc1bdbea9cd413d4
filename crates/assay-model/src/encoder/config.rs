//! What a model folder says about its transformer and tokenizer.

use std::path::Path;

use serde::Deserialize;

use super::error::{EncoderError, unsupported};
use super::files::Files;

/// Architectures, which differ in names of tensors, positions and token types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Devlin et al. 2019.
    Bert,
    /// Liu et al. 2019; also XLM-R (Conneau et al. 2020).
    Roberta,
    /// Song et al. 2020: relative positions besides the absolute ones.
    Mpnet,
}

/// Between the two matrices of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu,
    GeluTanh,
    Relu,
}

/// Everything the transformer needs to know, checked.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) family: Family,
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) positions: usize,
    /// Token types; 0 where the model has none.
    pub(super) types: usize,
    /// The padding token of a model that counts positions from behind it; in others they start at 0.
    pub(super) padding: Option<u32>,
    pub(super) eps: f32,
    pub(super) activation: Activation,
    pub(super) max_tokens: usize,
    pub(super) lowercase: bool,
}

/// Buckets of MPNet's distances; its reference implementation uses this number whatever the file says.
pub(super) const BUCKETS: usize = 32;

/// `config.json`.
#[derive(Deserialize)]
struct TransformerJson {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    pad_token_id: Option<u32>,
    layer_norm_eps: f32,
    hidden_act: String,
    position_embedding_type: Option<String>,
    relative_attention_num_buckets: Option<usize>,
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct SentenceJson {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

/// `tokenizer_config.json`. A limit that nobody set is written as 1e30.
#[derive(Default, Deserialize)]
struct TokenizerJson {
    model_max_length: Option<f64>,
}

impl Config {
    pub(super) fn read(files: &mut Files<'_>) -> Result<Self, EncoderError> {
        let json: TransformerJson = files.json("config.json")?;
        let path = files.dir.join("config.json");
        let family = match json.model_type.as_str() {
            "bert" => Family::Bert,
            "roberta" | "xlm-roberta" | "camembert" => Family::Roberta,
            "mpnet" => Family::Mpnet,
            _ => {
                let known = "bert, roberta, xlm-roberta, camembert, mpnet";
                return Err(unsupported(&path, "model_type", json.model_type, known));
            }
        };
        let activation = match json.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            _ => {
                let known = "gelu, gelu_new, gelu_pytorch_tanh, relu";
                return Err(unsupported(&path, "hidden_act", json.hidden_act, known));
            }
        };
        check(&path, family, &json)?;
        // The defaults are those of the families' configuration classes in transformers.
        let padding = match family {
            Family::Bert => None,
            Family::Roberta => Some(json.pad_token_id.unwrap_or(1)),
            Family::Mpnet => Some(1),
        };
        let types = match family {
            Family::Bert | Family::Roberta => json.type_vocab_size.unwrap_or(2),
            Family::Mpnet => 0,
        };
        let positions = json.max_position_embeddings;
        let usable = positions.saturating_sub(padding.map_or(0, |pad| pad as usize + 1));
        let sentence: SentenceJson =
            files.json_if_any("sentence_bert_config.json")?.unwrap_or_default();
        let limit = match sentence.max_seq_length {
            Some(limit) => limit,
            None => {
                let tokenizer: TokenizerJson =
                    files.json_if_any("tokenizer_config.json")?.unwrap_or_default();
                tokenizer.model_max_length.map_or(usable, |limit| limit as usize)
            }
        };
        Ok(Config {
            family,
            vocabulary: json.vocab_size,
            hidden: json.hidden_size,
            inner: json.intermediate_size,
            layers: json.num_hidden_layers,
            heads: json.num_attention_heads,
            positions,
            types,
            padding,
            eps: json.layer_norm_eps,
            activation,
            max_tokens: limit.min(usable),
            lowercase: sentence.do_lower_case,
        })
    }
}

fn check(path: &Path, family: Family, json: &TransformerJson) -> Result<(), EncoderError> {
    if let Some(kind) = json.position_embedding_type.as_ref().filter(|kind| *kind != "absolute") {
        return Err(unsupported(path, "position_embedding_type", kind, "absolute"));
    }
    let heads = json.num_attention_heads;
    if heads == 0 || json.hidden_size == 0 || !json.hidden_size.is_multiple_of(heads) {
        let known = "a divisor of hidden_size";
        return Err(unsupported(path, "num_attention_heads", heads.to_string(), known));
    }
    if family != Family::Mpnet && json.type_vocab_size == Some(0) {
        return Err(unsupported(path, "type_vocab_size", "0", "at least 1"));
    }
    match json.relative_attention_num_buckets {
        Some(buckets) if family == Family::Mpnet && buckets != BUCKETS => {
            let key = "relative_attention_num_buckets";
            Err(unsupported(path, key, buckets.to_string(), "32"))
        }
        _ => Ok(()),
    }
}
