//! Adapters as PEFT folders: `adapter_config.json`, `adapter_model.safetensors`, and our
//! `assay.json` beside them, which says what the adapter was made for.
//!
//! Written is plain LoRA only: one rank, one α, scale α/r, Hugging Face module names. That is what
//! PEFT, vLLM, mistral.rs and llama.cpp's converter all read. What cannot be expressed so is
//! refused on reading, by name, rather than half-loaded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use fs_err as fs;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::adapter::{Adapter, AdapterSpec};
use crate::config::{DecoderConfig, Module};
use crate::shards::widen;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const SIDECAR: &str = "assay.json";
const PREFIX: &str = "base_model.model.";

/// Why an adapter folder could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file operation failed; the message names the file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The folder is there already; adapters are never overwritten.
    #[error("{path} exists already")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Not JSON, or a field of the wrong type.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{path}: {source}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// A setting that plain LoRA cannot express.
    #[error("{path}: {setting} = {value} is not supported, only plain LoRA is")]
    Unsupported {
        /// The configuration.
        path: PathBuf,
        /// Its key.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// A tensor that belongs to no linear module of the decoder, e.g. a trained embedding.
    #[error("{path}: tensor {tensor} is not a LoRA half of a linear module of this model")]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// Its name there.
        tensor: String,
    },
    /// A module has one half only, or is adapted in some layers only.
    #[error("{path}: {} tensors are missing, e.g. {}", tensors.len(), tensors[0])]
    Missing {
        /// The file.
        path: PathBuf,
        /// All of them; never empty.
        tensors: Vec<String>,
    },
    /// A tensor of another shape than the model and the rank ask for.
    #[error("{path}: tensor {tensor} is {got:?}, expected {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Its name there.
        tensor: String,
        /// By the model and the adapter's rank.
        expected: [usize; 2],
        /// By the file.
        got: Vec<usize>,
    },
    /// A tensor that is neither f32, f16 nor bf16, or holds infinities or NaN.
    #[error("{path}: tensor {tensor} is {what}")]
    Values {
        /// The file.
        path: PathBuf,
        /// Its name there.
        tensor: String,
        /// What it holds.
        what: String,
    },
}

impl AdapterError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            AdapterError::Unsupported { setting: "use_dora" | "init_lora_weights", .. } => {
                Some("merge the adapter into its base with PEFT and load the merged model")
            }
            AdapterError::Unsupported { .. } | AdapterError::UnknownTensor { .. } => Some(
                "train with one rank on linear layers only, without bias, embeddings or lm_head",
            ),
            _ => None,
        }
    }
}

/// What a PEFT configuration may say, as far as it bears on the values. The rest is ignored.
#[derive(Deserialize)]
struct PeftConfig {
    #[serde(default)]
    peft_type: Value,
    /// PEFT's own default where the field is missing.
    #[serde(default = "eight")]
    r: usize,
    #[serde(default = "eight_f32")]
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn eight() -> usize {
    8
}

fn eight_f32() -> f32 {
    8.0
}

/// Settings under which the pairs alone do not say what the adapter computes.
const MUST_BE_UNSET: [&str; 20] = [
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "layers_to_transform",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "megatron_config",
    "loftq_config",
    "corda_config",
    "lora_ga_config",
    "kasa_config",
    "monteclora_config",
];

/// Initialisations that leave the base weights as they are.
const HARMLESS_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

impl PeftConfig {
    fn complaint(&self) -> Option<(&'static str, String)> {
        if self.peft_type.as_str() != Some("LORA") {
            return Some(("peft_type", self.peft_type.to_string()));
        }
        if self.r == 0 {
            return Some(("r", "0".into()));
        }
        let set = |key: &&&str| self.rest.get(**key).is_some_and(is_set);
        if let Some(key) = MUST_BE_UNSET.iter().find(set) {
            return Some((key, self.rest[*key].to_string()));
        }
        if let Some(bias) = self.rest.get("bias").filter(|b| b.as_str() != Some("none")) {
            return Some(("bias", bias.to_string()));
        }
        match self.rest.get("init_lora_weights") {
            Some(Value::String(init)) if !HARMLESS_INITS.contains(&init.as_str()) => {
                Some(("init_lora_weights", init.clone()))
            }
            _ => None,
        }
    }
}

/// Neither null, false nor empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
        Value::String(s) => !s.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// What the adapter was made for.
#[derive(Serialize, Deserialize)]
struct Sidecar {
    tool: String,
    version: String,
    base_hash: Option<String>,
    template_hash: Option<String>,
}

impl Adapter {
    /// Writes the adapter as the folder `dir`, in f32, whole or not at all.
    ///
    /// `base_model` is what other tools show as its base: a hub name or a path.
    ///
    /// # Errors
    /// [`AdapterError::Exists`] if `dir` is there already (an empty folder is not in the way).
    pub fn save_peft(&self, dir: &Path, base_model: &str) -> Result<(), AdapterError> {
        if dir.exists() && fs::read_dir(dir)?.next().is_some() {
            return Err(AdapterError::Exists { path: dir.into() });
        }
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
        fs::create_dir_all(&partial)?;
        let written = self.write_files(&partial, base_model).and_then(|()| {
            if dir.exists() {
                fs::remove_dir(dir)?;
            }
            Ok(fs::rename(&partial, dir)?)
        });
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        written
    }

    fn write_files(&self, dir: &Path, base_model: &str) -> Result<(), AdapterError> {
        let spec = self.spec();
        let path = dir.join(WEIGHTS);
        let bytes: Vec<(String, [usize; 2], Vec<u8>)> = self
            .pairs()
            .flat_map(|p| {
                let (a, b) = tensor_names(p.layer, p.module);
                let halves = [(a, [spec.rank, p.inputs], p.a), (b, [p.outputs, spec.rank], p.b)];
                halves.map(|(name, shape, values)| (name, shape, to_bytes(values)))
            })
            .collect();
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let bad = |source| AdapterError::Safetensors { path: path.clone(), source };
        let views = bytes
            .iter()
            .map(|(name, shape, data)| {
                Ok((name, TensorView::new(Dtype::F32, shape.to_vec(), data)?))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        write_durably(&path, &safetensors::serialize(views, Some(format)).map_err(bad)?)?;

        let sidecar = Sidecar {
            tool: "assay".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            base_hash: spec.base_hash.clone(),
            template_hash: spec.template_hash.clone(),
        };
        for (name, value) in [(CONFIG, config_json(spec, base_model)), (SIDECAR, json!(sidecar))] {
            write_durably(&dir.join(name), format!("{value:#}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Reads the folder `dir`, written by us, by PEFT or by another tool, for a decoder of shape
    /// `config`.
    ///
    /// An rsLoRA scale (α/√r) is folded into α. f16 and bf16 are widened. The hashes of base and
    /// template are known only where our own `assay.json` is present; a decoder refuses an adapter
    /// whose hashes are not its own.
    ///
    /// # Errors
    /// Everything that is not plain LoRA with one rank on linear modules of all layers: see
    /// [`AdapterError`].
    pub fn load_peft(dir: &Path, config: &DecoderConfig) -> Result<Adapter, AdapterError> {
        let path = dir.join(CONFIG);
        let peft: PeftConfig = read_json(&path)?;
        if let Some((setting, value)) = peft.complaint() {
            return Err(AdapterError::Unsupported { path, setting, value });
        }
        let sidecar = dir.join(SIDECAR);
        let sidecar: Option<Sidecar> =
            if sidecar.exists() { Some(read_json(&sidecar)?) } else { None };
        let (base_hash, template_hash) =
            sidecar.map_or((None, None), |s| (s.base_hash, s.template_hash));

        let path = dir.join(WEIGHTS);
        let bytes = fs::read(&path)?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|source| AdapterError::Safetensors { path: path.clone(), source })?;
        let targets = targets(&path, &tensors, config)?;
        let folded = if peft.use_rslora { (peft.r as f32).sqrt() } else { 1.0 };
        let alpha = peft.lora_alpha * folded;
        let spec = AdapterSpec { rank: peft.r, alpha, targets, base_hash, template_hash };
        let mut adapter = Adapter::zeros(config, spec);
        let mut missing = Vec::new();
        for pair in adapter.pairs_mut() {
            let (a, b) = tensor_names(pair.layer, pair.module);
            let halves = [(a, [peft.r, pair.inputs], pair.a), (b, [pair.outputs, peft.r], pair.b)];
            for (name, expected, out) in halves {
                match tensors.tensor(&name) {
                    Ok(view) => read_tensor(&path, &name, &view, expected, out)?,
                    Err(_) => missing.push(name),
                }
            }
        }
        if missing.is_empty() {
            Ok(adapter)
        } else {
            Err(AdapterError::Missing { path, tensors: missing })
        }
    }
}

/// PEFT's keys of A and B.
fn tensor_names(layer: usize, module: Module) -> (String, String) {
    let path = module.hf_path(layer);
    (format!("{PREFIX}{path}.lora_A.weight"), format!("{PREFIX}{path}.lora_B.weight"))
}

/// The fields that every PEFT version knows; older ones fail on keys they do not.
fn config_json(spec: &AdapterSpec, base_model: &str) -> Value {
    // vLLM and others expect an integer where it is one.
    let alpha = match spec.alpha {
        a if a.fract() == 0.0 && a.abs() < 1e9 => json!(a as i64),
        a => json!(a),
    };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "revision": null,
        "r": spec.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": spec.targets.iter().map(|m| m.hf_name()).collect::<Vec<_>>(),
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": false,
        "init_lora_weights": true,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": null,
        "inference_mode": true,
    })
}

/// The modules that have a tensor, after a look at every name in the file.
fn targets(
    path: &Path,
    tensors: &SafeTensors<'_>,
    config: &DecoderConfig,
) -> Result<Vec<Module>, AdapterError> {
    let known: HashMap<String, Module> = (0..config.layers)
        .flat_map(|layer| Module::ALL.map(|m| (layer, m)))
        .flat_map(|(layer, m)| {
            let (a, b) = tensor_names(layer, m);
            [(a, m), (b, m)]
        })
        .collect();
    let mut found = BTreeSet::new();
    let mut names = tensors.names();
    names.sort_unstable();
    for name in names {
        match known.get(name) {
            Some(&module) => found.insert(module),
            None => {
                return Err(AdapterError::UnknownTensor { path: path.into(), tensor: name.into() });
            }
        };
    }
    if found.is_empty() {
        let all = (0..config.layers).map(|l| tensor_names(l, Module::Q).0).collect();
        return Err(AdapterError::Missing { path: path.into(), tensors: all });
    }
    Ok(found.into_iter().collect())
}

fn read_tensor(
    path: &Path,
    name: &str,
    view: &TensorView<'_>,
    expected: [usize; 2],
    out: &mut [f32],
) -> Result<(), AdapterError> {
    let tensor = name.to_owned();
    if view.shape() != expected {
        let got = view.shape().to_vec();
        return Err(AdapterError::Shape { path: path.into(), tensor, expected, got });
    }
    if !widen(view.dtype(), view.data(), out) {
        let what = format!("{:?}, expected F32, F16 or BF16", view.dtype());
        return Err(AdapterError::Values { path: path.into(), tensor, what });
    }
    if out.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    let what = "not finite everywhere".into();
    Err(AdapterError::Values { path: path.into(), tensor, what })
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), AdapterError> {
    let mut file = fs::File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    Ok(file.sync_all()?)
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, AdapterError> {
    serde_json::from_slice(&fs::read(path)?)
        .map_err(|source| AdapterError::Json { path: path.into(), source })
}
