//! Every family of decoders on tiny random weights, in Hugging Face folders and as GGUF: equality with
//! transformers and PEFT (`tests/golden/make_families.py`), gradients, and the laws of decoding.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use assay_model::{Adapter, Continuation, Decoder, GenerateRequest, ModelError, Module, Precision};
use assay_types::{Message, Role};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use crate::decoding::{check_batch_equals_single, check_scores, request};
use crate::gradients::{check_autograd, check_differences, gradients};
use crate::oracle::Stored;
use crate::tiny;

const FAMILIES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gemma3"];

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
    runs: Vec<Run>,
    chat: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

/// Every seventh logit of every second position.
#[derive(Deserialize)]
struct Run {
    ids: Vec<u32>,
    plain: Vec<Vec<f32>>,
    adapted: Vec<Vec<f32>>,
}

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(family)
}

fn open(family: &str) -> Decoder {
    Decoder::open(&folder(family), Precision::F32).unwrap()
}

fn golden(family: &str) -> Golden {
    let json = fs_err::read(folder(family).join("golden.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn adapter(decoder: &Decoder) -> Adapter {
    Adapter::load_peft(&decoder.path().join("adapter"), decoder.config()).unwrap()
}

#[track_caller]
fn assert_sample(logits: &[f32], vocab: usize, expected: &[Vec<f32>], what: &str) {
    let largest = expected.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
    let got = logits.chunks(vocab).skip(1).step_by(2);
    for (row, (got, expected)) in got.zip(expected).enumerate() {
        for (got, expected) in got.iter().step_by(7).zip(expected) {
            let error = (got - expected).abs();
            assert!(error < 1e-4 * (1.0 + largest), "{what}, row {row}: {got}, not {expected}");
        }
    }
}

#[test]
fn logits_equal_transformers_and_peft() {
    for family in FAMILIES {
        let decoder = open(family);
        let adapter = adapter(&decoder);
        let vocab = decoder.config().vocab;
        for run in golden(family).runs {
            let plain = decoder.logits(&run.ids, None).unwrap();
            assert_sample(&plain, vocab, &run.plain, family);
            let adapted = decoder.logits(&run.ids, Some(&adapter)).unwrap();
            assert_sample(&adapted, vocab, &run.adapted, &format!("{family}, adapted"));
        }
    }
}

#[test]
fn tokens_equal_transformers() {
    for family in FAMILIES {
        let decoder = open(family);
        let tokenizer = decoder.tokenizer();
        let golden = golden(family);
        for Text { text, ids, decoded } in golden.texts {
            assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{family}: {text:?}");
            assert_eq!(tokenizer.decode(&ids, false), decoded, "{family}");
            let mut stream = tokenizer.stream();
            let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
            streamed += &stream.finish();
            assert_eq!(streamed, tokenizer.decode(&ids, true), "{family}: {text:?}");
        }
        let messages = [Message::new(Role::User, "Hi there")];
        assert_eq!(decoder.template().render(&messages, false).unwrap(), golden.chat);
        let ids = decoder.chat_tokens(&messages, false).unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == 0).count(), 1, "{family}: one BOS");
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(1)));
        assert_eq!(decoder.stop_tokens(), [1, 3]);
    }
}

#[test]
fn backward_is_right_in_every_family() {
    for family in FAMILIES {
        let decoder = open(family);
        check_differences(&decoder);
        let adapter = tiny::adapter(&decoder, &Module::ALL, 11);
        // Llama 3's divisors differ by frequency, which the oracle does not know.
        if family != "llama" {
            let rope_factor = if family == "gemma3" { 4.0 } else { 1.0 };
            let weights = weights(family);
            check_autograd(&decoder, &Stored { weights, rope_factor }, &adapter);
        }
        let (nll, plain) = gradients(&decoder, &adapter, &tiny::batch(), 7.0, false);
        let (again, checkpointed) = gradients(&decoder, &adapter, &tiny::batch(), 7.0, true);
        assert_eq!(nll, again, "{family}");
        assert_eq!(plain.parameters(), checkpointed.parameters(), "{family}");
    }
}

#[test]
fn cached_equals_uncached_and_batch_equals_single() {
    for family in FAMILIES {
        for precision in [Precision::F32, Precision::Bf16] {
            let decoder = Decoder::open(&folder(family), precision).unwrap();
            let adapter = tiny::adapter(&decoder, &Module::ALL, 8);
            let text = |n: u32, seed: u32| (0..n).map(move |i| (i * i * 7 + seed * 31) % 300);
            let requests: Vec<GenerateRequest> = (0..5u32)
                .map(|i| {
                    let tokens: Vec<u32> = text(9, 0).chain(text(1 + 6 * i, i + 1)).collect();
                    request(&tokens, 4 + 2 * i as usize, u64::from(i % 3))
                })
                .collect();
            let rows: Vec<Continuation> = (0..5u32)
                .map(|i| Continuation {
                    context: text(4 + 5 * i, 2).collect(),
                    continuation: text(1 + 3 * i, i).collect(),
                })
                .collect();
            for adapter in [None, Some(&adapter)] {
                check_batch_equals_single(&decoder, &requests, adapter);
                check_scores(&decoder, &rows, adapter);
            }
        }
    }
}

/// All tensors in f32, by path without `.weight`, norms as factors.
fn weights(family: &str) -> HashMap<String, Tensor> {
    let mut weights = HashMap::new();
    for entry in fs_err::read_dir(folder(family)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            weights.extend(candle_core::safetensors::load(&path, &Device::Cpu).unwrap());
        }
    }
    weights
        .into_iter()
        .map(|(name, w)| {
            let w = w.to_dtype(DType::F32).unwrap();
            let offset = f64::from(family == "gemma3" && name.contains("norm"));
            (name.trim_end_matches(".weight").to_owned(), (w + offset).unwrap())
        })
        .collect()
}

/// Writes a folder's model as GGUF, with the tokenizer of the tiny one.
fn write_gguf(path: &Path, family: &str) {
    let decoder = open(family);
    let c = decoder.config();
    let mut names = HashMap::from([
        ("model.embed_tokens".to_owned(), "token_embd.weight".to_owned()),
        ("model.norm".into(), "output_norm.weight".into()),
        ("lm_head".into(), "output.weight".into()),
    ]);
    for layer in 0..c.layers {
        for module in Module::ALL {
            let (hf, gguf) = (module.hf_path(layer), module.gguf_name(layer));
            names.insert(format!("{hf}.bias"), gguf.replace("weight", "bias"));
            names.insert(hf, gguf);
        }
        let feed_forward =
            if c.post_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        let norms = [
            ("post_attention_layernorm", "post_attention_norm"),
            (feed_forward, "ffn_norm"),
            ("input_layernorm", "attn_norm"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
        ];
        for (hf, gguf) in norms {
            let hf = format!("model.layers.{layer}.{hf}");
            names.insert(hf, format!("blk.{layer}.{gguf}.weight"));
        }
    }
    let mut tensors: Vec<(String, QTensor)> = weights(family)
        .into_iter()
        .map(|(name, w)| {
            let heads = if name.ends_with("q_proj") { c.heads } else { c.kv_heads };
            let permuted = name.ends_with("q_proj") || name.ends_with("k_proj");
            let w = if family == "llama" && permuted { interleave(&w, heads) } else { w };
            (names[&name].clone(), QTensor::quantize(&w, GgmlDType::F32).unwrap())
        })
        .collect();
    if family == "llama" {
        tensors.push(("rope_freqs.weight".into(), llama3_factors(c.head_dim)));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let metadata = metadata(family, &decoder);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut file = fs_err::File::create(path).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
}

fn metadata(family: &str, decoder: &Decoder) -> Vec<(String, Value)> {
    let c = decoder.config();
    let number = |n: usize| Value::U32(n as u32);
    let mut own = vec![
        ("block_count", number(c.layers)),
        ("context_length", number(c.context_length)),
        ("embedding_length", number(c.hidden)),
        ("feed_forward_length", number(c.feed_forward)),
        ("attention.head_count", number(c.heads)),
        ("attention.head_count_kv", number(c.kv_heads)),
        ("attention.key_length", number(c.head_dim)),
        ("attention.value_length", number(c.head_dim)),
        ("attention.layer_norm_rms_epsilon", Value::F32(c.norm_eps)),
        ("rope.freq_base", Value::F32(c.rope_theta)),
    ];
    if let Some(window) = &c.sliding_window {
        own.push(("attention.sliding_window", number(window.tokens)));
        own.push(("rope.freq_base_swa", Value::F32(window.rope_theta)));
        own.push(("rope.scaling.type", Value::String("linear".into())));
        own.push(("rope.scaling.factor", Value::F32(4.0)));
    }
    let mut metadata: Vec<(String, Value)> =
        own.into_iter().map(|(key, value)| (format!("{family}.{key}"), value)).collect();
    metadata.push(("general.architecture".into(), Value::String(family.into())));
    let shape = tiny::Shape::default();
    let tokens = (0..c.vocab).map(|i| Value::String(format!("t{i}"))).collect();
    for (key, value) in tiny::metadata(&shape) {
        if key.starts_with("tokenizer.") {
            metadata.push((key.into(), value));
        }
    }
    let replaced = [
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1); c.vocab])),
        ("tokenizer.ggml.merges", Value::Array(Vec::new())),
    ];
    for (key, value) in replaced {
        metadata.retain(|(k, _)| k != key);
        metadata.push((key.into(), value));
    }
    metadata
}

/// llama.cpp's order of rows: `[heads, 2, head_dim / 2, cols]`, middle axes swapped.
fn interleave(w: &Tensor, heads: usize) -> Tensor {
    let (rows, cols) = w.dims2().unwrap();
    w.reshape((heads, 2, rows / heads / 2, cols))
        .and_then(|w| w.transpose(1, 2)?.contiguous()?.reshape((rows, cols)))
        .unwrap()
}

/// The divisors that llama.cpp's conversion stores, of the tiny Llama's scaling.
fn llama3_factors(head_dim: usize) -> QTensor {
    let (factor, low, high, context) = (8.0, 1.0, 4.0, 16.0);
    let divisor = |i: usize| {
        let wave = std::f64::consts::TAU * 10_000f64.powf((2 * i) as f64 / head_dim as f64);
        let smooth = ((context / wave - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    let divisors: Vec<f32> = (0..head_dim / 2).map(divisor).collect();
    let divisors = Tensor::from_vec(divisors, head_dim / 2, &Device::Cpu).unwrap();
    QTensor::quantize(&divisors, GgmlDType::F32).unwrap()
}

#[test]
fn gguf_and_folder_hold_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    for family in ["llama", "qwen2", "qwen3", "gemma3"] {
        let path = dir.path().join(format!("{family}.gguf"));
        write_gguf(&path, family);
        let gguf = Decoder::open(&path, Precision::F32).unwrap();
        let folder = copy(family);
        if family == "gemma3" {
            // GGUF does not say by what Gemma scales queries: it follows from the size of a head.
            let scalar = ["\"query_pre_attn_scalar\": 24", "\"query_pre_attn_scalar\": 10"];
            edit(folder.path(), "config.json", scalar[0], scalar[1]);
        }
        let folder = Decoder::open(folder.path(), Precision::F32).unwrap();
        assert_eq!(gguf.config(), folder.config());
        assert_ne!(gguf.file_hash(), folder.file_hash());
        let ids: Vec<u32> = (0..30).map(|i| i * 9 % 300).collect();
        let adapter = adapter(&open(family));
        for adapter in [None, Some(&adapter)] {
            let (a, b) = (gguf.logits(&ids, adapter).unwrap(), folder.logits(&ids, adapter));
            let largest = a.iter().zip(b.unwrap()).map(|(a, b)| (a - b).abs());
            let largest = largest.fold(0.0, f32::max);
            assert!(largest < 1e-4, "{family}: {largest}");
        }
    }
}

/// Assay answers with an adapter beside its base and merges none; others may, and then get the same.
#[test]
fn an_adapter_beside_its_base_equals_merged_weights() {
    for family in ["llama", "mistral", "qwen2", "gemma3"] {
        let decoder = open(family);
        let adapter = tiny::adapter(&decoder, &Module::ALL, 11);
        let path = folder(family).join("model.safetensors");
        let mut merged = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        for tensor in merged.values_mut() {
            *tensor = tensor.to_dtype(DType::F32).unwrap();
        }
        let rank = adapter.spec().rank;
        for pair in adapter.pairs() {
            let a = Tensor::from_slice(pair.a, (rank, pair.inputs), &Device::Cpu).unwrap();
            let b = Tensor::from_slice(pair.b, (pair.outputs, rank), &Device::Cpu).unwrap();
            let change = (b.matmul(&a).unwrap() * f64::from(adapter.scale())).unwrap();
            let name = format!("{}.weight", pair.module.hf_path(pair.layer));
            let weight = merged.get_mut(&name).unwrap();
            *weight = (&*weight + change).unwrap();
        }
        let dir = copy(family);
        let path = dir.path().join("model.safetensors");
        candle_core::safetensors::save(&merged, &path).unwrap();
        let merged = Decoder::open(dir.path(), Precision::F32).unwrap();
        let ids: Vec<u32> = (0..30).map(|i| i * 9 % 300).collect();
        let beside = decoder.logits(&ids, Some(&adapter)).unwrap();
        let largest = beside.iter().fold(0f32, |m, v| m.max(v.abs()));
        let difference = beside.iter().zip(merged.logits(&ids, None).unwrap());
        let difference = difference.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-5 * largest, "{family}: {difference} of {largest}");
    }
}

/// A copy of a folder to change.
fn copy(family: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(folder(family)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs_err::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn edit(dir: &Path, file: &str, from: &str, to: &str) {
    let path = dir.join(file);
    let text = fs_err::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs_err::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn hashes_of_folders() {
    let same = copy("qwen3");
    let hash = |dir: &Path| Decoder::open(dir, Precision::Bf16).unwrap().file_hash().to_owned();
    assert_eq!(hash(same.path()), hash(&folder("qwen3")), "the place does not matter");
    edit(same.path(), "config.json", "1e-05", "2e-05");
    assert_ne!(hash(same.path()), hash(&folder("qwen3")), "the configuration does");
}

#[test]
fn unsuitable_folders_are_refused() {
    let check = |family: &str, from: &str, to: &str, expected: &str| {
        let dir = copy(family);
        edit(dir.path(), "config.json", from, to);
        let error = Decoder::open(dir.path(), Precision::F32).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&*dir.path().to_string_lossy()), "names the place: {error}");
    };
    check("llama", "\"llama\"", "\"mixtral\"", "architecture `mixtral` is not supported");
    check("llama", "\"llama3\"", "\"yarn\"", "`rope_parameters` is missing or not of type");
    check("llama", "\"mlp_bias\": false", "\"mlp_bias\": true", "`mlp_bias`");
    check("llama", "silu", "relu", "`hidden_act` is missing or not `silu`");
    check("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "layers.1.");
    check("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "layers.2.");
    check("llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", "a positive integer");
    check("llama", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "a divisor");
    check("qwen2", "\"intermediate_size\": 48", "\"intermediate_size\": 40", "expected [40, 32]");
    check("qwen3", "\"hidden_size\"", "\"size\"", "hidden_size");
    let softcapped = "\"final_logit_softcapping\": 30.0";
    check("gemma3", "\"final_logit_softcapping\": null", softcapped, "final_logit_softcapping");

    let dir = copy("qwen3");
    fs_err::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = Decoder::open(dir.path(), Precision::F32).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors"), "{error}");

    let dir = copy("qwen2");
    let path = dir.path().join("model.safetensors");
    let whole = fs_err::read(&path).unwrap();
    for cut in [0, 7, 40, 2000, whole.len() - 1] {
        fs_err::write(&path, &whole[..cut]).unwrap();
        let error = Decoder::open(dir.path(), Precision::F32).unwrap_err();
        let expected = matches!(error, ModelError::Truncated { .. } | ModelError::Malformed { .. });
        assert!(expected, "{error}");
    }
}

/// Configurations as versions of transformers before 5 wrote them mean the same.
#[test]
fn older_configurations_are_understood() {
    let rewrite = |family: &str, rope: serde_json::Value| {
        let dir = copy(family);
        let path = dir.path().join("config.json");
        let mut json: serde_json::Value =
            serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        let fields = json.as_object_mut().unwrap();
        fields.remove("rope_parameters");
        fields.remove("layer_types");
        fields.extend(rope.as_object().unwrap().clone());
        fs_err::write(&path, json.to_string()).unwrap();
        let (old, new) = (Decoder::open(dir.path(), Precision::F32).unwrap(), open(family));
        assert_eq!(old.config(), new.config());
        let ids = [5, 9, 200, 14, 17, 3, 3, 80, 81, 82];
        assert_eq!(old.logits(&ids, None).unwrap(), new.logits(&ids, None).unwrap());
    };
    let llama3 = serde_json::json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    rewrite("llama", serde_json::json!({ "rope_theta": 10000.0, "rope_scaling": llama3 }));
    let linear = serde_json::json!({ "type": "linear", "rope_type": "linear", "factor": 4.0 });
    let gemma = serde_json::json!({
        "rope_theta": 50000.0, "rope_local_base_freq": 1000.0, "rope_scaling": linear,
    });
    rewrite("gemma3", gemma);
    rewrite("qwen3", serde_json::json!({ "rope_theta": 10000.0, "rope_scaling": null }));
}
