//! What happens to the states of a text, as `modules.json` lists it: pooling, dense layers, normalisation.

use std::collections::HashMap;

use serde::Deserialize;

use super::EncoderPrecision;
use super::error::{EncoderError, unsupported};
use super::files::Files;
use super::weights::{Linear, Weights};

/// How the states of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    /// The mean of all tokens, special ones included.
    Mean,
    /// Their sum over the root of their number.
    MeanSqrt,
    /// The mean, weighted by the position from 1.
    Weighted,
    /// The largest value of each dimension.
    Max,
    /// The state of the first token.
    First,
    /// The state of the last token.
    Last,
}

/// What follows the pooling.
enum Step {
    Dense(Linear, Function),
    Normalize,
}

#[derive(Clone, Copy)]
enum Function {
    Identity,
    Tanh,
    Relu,
}

/// From the states of a text to its vector.
pub(super) struct Modules {
    hidden: usize,
    pooling: Pooling,
    steps: Vec<Step>,
}

/// What is put before a text, which an encoder may have been trained with: `query: ` and `passage: ` for E5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// Before what is searched for.
    pub query: String,
    /// Before what is found.
    pub document: String,
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
    include_prompt: Option<bool>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// `config.json` of a dense module.
#[derive(Deserialize)]
struct DenseJson {
    in_features: usize,
    out_features: usize,
    bias: bool,
    activation_function: String,
    #[serde(default)]
    use_residual: bool,
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct PromptsJson {
    #[serde(default)]
    prompts: HashMap<String, Option<String>>,
}

impl Modules {
    /// Without `modules.json`, the mean, not normalised: what the library does with a bare transformer.
    pub(super) fn read(files: &mut Files<'_>, hidden: usize) -> Result<Self, EncoderError> {
        let mut modules = Modules { hidden, pooling: Pooling::Mean, steps: Vec::new() };
        let listed: Vec<ModuleJson> = files.json_if_any("modules.json")?.unwrap_or_default();
        let path = files.dir.join("modules.json");
        for module in listed {
            // Class paths differ between versions of the library; the class name does not.
            match module.r#type.rsplit('.').next().unwrap_or_default() {
                "Transformer" if module.path.is_empty() => {}
                "Pooling" if modules.steps.is_empty() => {
                    modules.pooling = read_pooling(files, &module.path)?;
                }
                "Dense" => {
                    let dense = read_dense(files, &module.path, modules.dims())?;
                    modules.steps.push(dense);
                }
                "Normalize" => modules.steps.push(Step::Normalize),
                _ => {
                    let known = "Transformer at the top, Pooling, Dense, Normalize";
                    return Err(unsupported(&path, "type", module.r#type, known));
                }
            }
        }
        Ok(modules)
    }

    /// Length of a vector.
    pub(super) fn dims(&self) -> usize {
        let outputs = |step: &Step| match step {
            Step::Dense(linear, _) => Some(linear.outputs()),
            Step::Normalize => None,
        };
        self.steps.iter().rev().find_map(outputs).unwrap_or(self.hidden)
    }

    /// The vector of a text, of its states `[tokens, hidden]`.
    pub(super) fn vector(&self, states: &[f32]) -> Vec<f32> {
        let mut vector = self.pooling.pool(states, self.hidden);
        for step in &self.steps {
            match step {
                Step::Normalize => normalize(&mut vector),
                Step::Dense(linear, function) => {
                    let mut out = vec![0.0; linear.outputs()];
                    linear.apply(&vector, &mut out);
                    match function {
                        Function::Identity => {}
                        Function::Tanh => out.iter_mut().for_each(|v| *v = v.tanh()),
                        Function::Relu => out.iter_mut().for_each(|v| *v = v.max(0.0)),
                    }
                    vector = out;
                }
            }
        }
        vector
    }
}

impl Prefixes {
    /// Those that `encode_query` and `encode_document` of `sentence-transformers` take from the folder; empty
    /// where it names none.
    pub(super) fn read(files: &Files<'_>) -> Result<Self, EncoderError> {
        let json: PromptsJson = files.peek("config_sentence_transformers.json")?;
        let prompt = |name: &str| json.prompts.get(name).cloned().flatten().unwrap_or_default();
        Ok(Prefixes { query: prompt("query"), document: prompt("document") })
    }
}

impl Pooling {
    fn pool(self, states: &[f32], hidden: usize) -> Vec<f32> {
        let rows = || states.chunks_exact(hidden);
        let n = (states.len() / hidden).max(1);
        let copy = |row: Option<&[f32]>| row.map_or_else(|| vec![0.0; hidden], <[f32]>::to_vec);
        let sum = |weight: fn(usize) -> f32, divisor: f32| {
            let mut sum = vec![0.0; hidden];
            for (i, row) in rows().enumerate() {
                let weight = weight(i);
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
            }
            sum.iter_mut().for_each(|s| *s /= divisor);
            sum
        };
        match self {
            Pooling::Mean => sum(|_| 1.0, n as f32),
            Pooling::MeanSqrt => sum(|_| 1.0, (n as f32).sqrt()),
            Pooling::Weighted => sum(|i| (i + 1) as f32, (n * (n + 1) / 2) as f32),
            Pooling::First => copy(rows().next()),
            Pooling::Last => copy(rows().next_back()),
            Pooling::Max => {
                let mut max = copy(rows().next());
                for row in rows() {
                    max.iter_mut().zip(row).for_each(|(m, v)| *m = m.max(*v));
                }
                max
            }
        }
    }
}

/// Scales to length 1; a vector of zeros stays. The floor is that of `torch.nn.functional.normalize`.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v /= length);
}

fn read_pooling(files: &mut Files<'_>, module: &str) -> Result<Pooling, EncoderError> {
    let name = format!("{module}/config.json");
    let json: PoolingJson = files.json_if_any(&name)?.unwrap_or_default();
    let path = files.dir.join(name);
    if json.include_prompt == Some(false) {
        return Err(unsupported(&path, "include_prompt", "false", "true"));
    }
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
        "mean_sqrt_len_tokens" => Ok(Pooling::MeanSqrt),
        "weightedmean" => Ok(Pooling::Weighted),
        "max" => Ok(Pooling::Max),
        "cls" => Ok(Pooling::First),
        "lasttoken" => Ok(Pooling::Last),
        _ => {
            let known = "one of mean, mean_sqrt_len_tokens, weightedmean, max, cls, lasttoken";
            Err(unsupported(&path, "pooling_mode", mode, known))
        }
    }
}

fn read_dense(files: &mut Files<'_>, module: &str, dims: usize) -> Result<Step, EncoderError> {
    let name = format!("{module}/config.json");
    let json: DenseJson = files.json(&name)?;
    let path = files.dir.join(name);
    if json.in_features != dims {
        let key = "in_features";
        let known = "the length of the vector before it";
        return Err(unsupported(&path, key, json.in_features.to_string(), known));
    }
    if json.use_residual {
        return Err(unsupported(&path, "use_residual", "true", "false"));
    }
    let function = match activation(&json.activation_function) {
        "Identity" => Function::Identity,
        "Tanh" => Function::Tanh,
        "ReLU" => Function::Relu,
        _ => {
            let known = "Identity, Tanh, ReLU";
            return Err(unsupported(&path, "activation_function", json.activation_function, known));
        }
    };
    let name = format!("{module}/model.safetensors");
    let bytes = files.read(&name)?;
    // One small product for each text: full precision costs nothing.
    let weights = Weights::new(files.dir.join(name), &bytes, EncoderPrecision::F32)?;
    let (rows, cols) = (json.out_features, json.in_features);
    let linear = if json.bias {
        weights.linear("linear", rows, cols)?
    } else {
        weights.unbiased("linear", rows, cols)?
    };
    Ok(Step::Dense(linear, function))
}

/// Name of a function of torch without its module's path, which differs between versions.
pub(super) fn activation(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
