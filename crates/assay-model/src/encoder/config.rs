//! What a `sentence-transformers` folder says about its model.

use std::path::Path;

use serde::Deserialize;

use super::{EncoderError, Files};

/// How the states of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean of all tokens, special ones included.
    Mean,
    /// The state of the first token.
    First,
}

/// Everything the encoder needs to know, checked.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) positions: usize,
    pub(super) types: usize,
    pub(super) eps: f32,
    pub(super) max_tokens: usize,
    pub(super) lowercase: bool,
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
}

/// `config.json`.
#[derive(Deserialize)]
struct BertJson {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".into()
}

/// `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct SentenceJson {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

/// One step of `modules.json`.
#[derive(Deserialize)]
struct ModuleJson {
    path: String,
    r#type: String,
}

/// `config.json` of the pooling module. Newer versions of the library write `pooling_mode`, older ones flags.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingJson {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

impl Config {
    pub(super) fn read(files: &mut Files<'_>) -> Result<Self, EncoderError> {
        let Some(bert) = files.json::<BertJson>("config.json")? else {
            // Reading it again gives the error that names the file.
            return Err(files.read("config.json").err().unwrap_or_else(|| {
                unsupported(files.dir, "config.json", "not a file".into(), "a file")
            }));
        };
        check_bert(files.dir, &bert)?;
        let sentence: SentenceJson = files.json("sentence_bert_config.json")?.unwrap_or_default();
        let (pooling, normalize) = read_modules(files)?;
        let positions = bert.max_position_embeddings;
        Ok(Config {
            vocabulary: bert.vocab_size,
            hidden: bert.hidden_size,
            inner: bert.intermediate_size,
            layers: bert.num_hidden_layers,
            heads: bert.num_attention_heads,
            positions,
            types: bert.type_vocab_size,
            eps: bert.layer_norm_eps,
            max_tokens: sentence.max_seq_length.map_or(positions, |n| n.min(positions)),
            lowercase: sentence.do_lower_case,
            pooling,
            normalize,
        })
    }
}

fn unsupported(
    path: &Path,
    key: &'static str,
    got: String,
    supported: &'static str,
) -> EncoderError {
    EncoderError::Unsupported { path: path.into(), key, got, supported }
}

fn check_bert(dir: &Path, bert: &BertJson) -> Result<(), EncoderError> {
    let path = dir.join("config.json");
    let texts = [
        ("model_type", &bert.model_type, "bert"),
        ("hidden_act", &bert.hidden_act, "gelu"),
        ("position_embedding_type", &bert.position_embedding_type, "absolute"),
    ];
    for (key, got, supported) in texts {
        if got != supported {
            return Err(unsupported(&path, key, got.clone(), supported));
        }
    }
    let heads = bert.num_attention_heads;
    if heads == 0 || bert.hidden_size == 0 || !bert.hidden_size.is_multiple_of(heads) {
        return Err(unsupported(
            &path,
            "num_attention_heads",
            heads.to_string(),
            "a divisor of hidden_size",
        ));
    }
    if bert.type_vocab_size == 0 {
        return Err(unsupported(&path, "type_vocab_size", "0".into(), "at least 1"));
    }
    Ok(())
}

/// Transformer, then pooling, then perhaps normalisation: any other step is refused.
fn read_modules(files: &mut Files<'_>) -> Result<(Pooling, bool), EncoderError> {
    let Some(modules) = files.json::<Vec<ModuleJson>>("modules.json")? else {
        return Ok((Pooling::Mean, false));
    };
    let path = files.dir.join("modules.json");
    let (mut pooling, mut normalize) = (Pooling::Mean, false);
    for module in modules {
        // Class paths differ between versions of the library; the class name does not.
        match module.r#type.rsplit('.').next().unwrap_or_default() {
            "Transformer" if module.path.is_empty() => {}
            "Pooling" => pooling = read_pooling(files, &module.path)?,
            "Normalize" => normalize = true,
            _ => {
                let known = "Transformer at the top, Pooling, Normalize";
                return Err(unsupported(&path, "type", module.r#type, known));
            }
        }
    }
    Ok((pooling, normalize))
}

fn read_pooling(files: &mut Files<'_>, module: &str) -> Result<Pooling, EncoderError> {
    let name = format!("{module}/config.json");
    let json: PoolingJson = files.json(&name)?.unwrap_or_default();
    let flags = [
        ("cls", json.pooling_mode_cls_token),
        ("mean", json.pooling_mode_mean_tokens),
        ("max", json.pooling_mode_max_tokens),
        ("mean_sqrt_len_tokens", json.pooling_mode_mean_sqrt_len_tokens),
        ("weightedmean", json.pooling_mode_weightedmean_tokens),
        ("lasttoken", json.pooling_mode_lasttoken),
    ];
    let set: Vec<&str> = flags.iter().filter(|(_, on)| *on).map(|(mode, _)| *mode).collect();
    let mode = json.pooling_mode.unwrap_or_else(|| set.join("+"));
    match mode.as_str() {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::First),
        _ => Err(unsupported(&files.dir.join(name), "pooling_mode", mode, "mean, cls")),
    }
}
