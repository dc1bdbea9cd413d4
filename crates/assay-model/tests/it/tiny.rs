//! A tiny random model of the Llama family, written as GGUF, and its weights in Hugging Face's order.

use std::collections::HashMap;
use std::path::PathBuf;

use assay_model::{Adapter, Decoder, DecoderConfig, Gate, Module, PackedBatch, Precision};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

pub(crate) const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n\
    {{ message.content.strip() }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Deterministic values in ±1.
pub(crate) struct Values(u64);

impl Values {
    pub(crate) fn new(seed: u64) -> Self {
        Values(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn take(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * scale).collect()
    }
}

/// The model's file and weights.
pub(crate) struct Tiny {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) decoder: Decoder,
    /// By Hugging Face path, without `.weight`.
    pub(crate) weights: HashMap<String, Tensor>,
}

/// What may be wrong or different about a file.
pub(crate) struct Shape {
    pub(crate) config: DecoderConfig,
    pub(crate) tied: bool,
    pub(crate) metadata: Vec<(&'static str, Value)>,
    pub(crate) without_tensor: Option<&'static str>,
}

impl Default for Shape {
    fn default() -> Self {
        let config = DecoderConfig {
            layers: 2,
            hidden: 24,
            heads: 6,
            kv_heads: 2,
            head_dim: 4,
            feed_forward: 40,
            vocab: 261,
            context_length: 96,
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
            embedding_scale: 1.0,
            attention_scale: 0.5,
            gate: Gate::Silu,
            qkv_bias: false,
            qk_norm: false,
            post_norms: false,
            sliding_window: None,
        };
        Shape { config, tied: true, metadata: Vec::new(), without_tensor: None }
    }
}

impl Tiny {
    pub(crate) fn new(tied: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        let weights = write(&path, &Shape { tied, ..Shape::default() });
        let decoder = Decoder::open(&path, Precision::F32).unwrap();
        Tiny { _folder: folder, path, decoder, weights }
    }

    /// An adapter on `targets` whose `B` is not zero.
    pub(crate) fn adapter(&self, targets: &[Module], seed: u64) -> Adapter {
        adapter(&self.decoder, targets, seed)
    }
}

/// An adapter on `targets` whose `B` is not zero.
pub(crate) fn adapter(decoder: &Decoder, targets: &[Module], seed: u64) -> Adapter {
    let mut adapter = decoder.new_adapter(3, 6.0, targets, seed);
    let mut values = Values::new(seed);
    for pair in adapter.pairs_mut() {
        pair.b.fill_with(|| values.next() * 0.3);
    }
    adapter
}

/// Three documents of different lengths, one without targets.
pub(crate) fn batch() -> PackedBatch {
    let rows: Vec<(Vec<u32>, Vec<bool>)> = documents();
    PackedBatch::pack(rows.iter().map(|(t, s)| (&t[..], &s[..])))
}

pub(crate) fn documents() -> Vec<(Vec<u32>, Vec<bool>)> {
    let mut values = Values::new(77);
    [(13, 4), (5, 5), (21, 1)]
        .map(|(n, from)| {
            let tokens = (0..n).map(|_| ((values.next() + 1.0) * 130.0) as u32).collect();
            (tokens, (0..n).map(|i| i >= from).collect())
        })
        .to_vec()
}

/// Writes the file; returns the weights in Hugging Face's order.
pub(crate) fn write(path: &std::path::Path, shape: &Shape) -> HashMap<String, Tensor> {
    let c = &shape.config;
    let mut values = Values::new(5);
    let mut hugging_face = HashMap::new();
    let mut stored: Vec<(String, Tensor)> = Vec::new();
    let mut put = |hf: String, gguf: String, rows: usize, cols: usize, heads: Option<usize>| {
        let scale = 1.5 / (cols as f32).sqrt();
        let w =
            Tensor::from_vec(values.take(rows * cols, scale), (rows, cols), &Device::Cpu).unwrap();
        // llama.cpp's conversion: [heads, 2, head_dim / 2, cols], middle axes swapped.
        let file = match heads {
            Some(h) => w
                .reshape((h, 2, rows / h / 2, cols))
                .and_then(|w| w.transpose(1, 2)?.contiguous()?.reshape((rows, cols)))
                .unwrap(),
            None => w.clone(),
        };
        hugging_face.insert(hf, w);
        stored.push((gguf, file));
    };
    put("model.embed_tokens".into(), "token_embd.weight".into(), c.vocab, c.hidden, None);
    if !shape.tied {
        put("lm_head".into(), "output.weight".into(), c.vocab, c.hidden, None);
    }
    for layer in 0..c.layers {
        for module in Module::ALL {
            let (inputs, outputs) = c.shape(module);
            let heads = match module {
                Module::Q => Some(c.heads),
                Module::K => Some(c.kv_heads),
                _ => None,
            };
            put(module.hf_path(layer), module.gguf_name(layer), outputs, inputs, heads);
        }
    }
    let mut norm = |hf: String, gguf: String| {
        let w: Vec<f32> = values.take(c.hidden, 0.3).iter().map(|v| 1.0 + v).collect();
        let w = Tensor::from_vec(w, c.hidden, &Device::Cpu).unwrap();
        hugging_face.insert(hf, w.clone());
        stored.push((gguf, w));
    };
    for layer in 0..c.layers {
        norm(
            format!("model.layers.{layer}.input_layernorm"),
            format!("blk.{layer}.attn_norm.weight"),
        );
        norm(
            format!("model.layers.{layer}.post_attention_layernorm"),
            format!("blk.{layer}.ffn_norm.weight"),
        );
    }
    norm("model.norm".into(), "output_norm.weight".into());
    stored.retain(|(name, _)| Some(name.as_str()) != shape.without_tensor);

    let metadata = metadata(shape);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    let stored: Vec<(String, QTensor)> = stored
        .into_iter()
        .map(|(name, w)| (name, QTensor::quantize(&w, GgmlDType::F32).unwrap()))
        .collect();
    let tensors: Vec<(&str, &QTensor)> = stored.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mut file = fs_err::File::create(path).unwrap();
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    hugging_face
}

pub(crate) fn metadata(shape: &Shape) -> Vec<(&'static str, Value)> {
    let c = &shape.config;
    let number = |n: usize| Value::U32(n as u32);
    // Four control tokens, the 256 bytes in GPT-2's spelling, one merge.
    let mut tokens: Vec<String> =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"].map(String::from).to_vec();
    let mut next = 0x100;
    for byte in 0..=255u8 {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let c = if printable { u32::from(byte) } else { next };
        next += u32::from(!printable);
        tokens.push(char::from_u32(c).unwrap().to_string());
    }
    tokens.push("he".into());
    let types = (0..tokens.len()).map(|i| Value::I32(if i < 4 { 3 } else { 1 })).collect();
    let strings = |s: Vec<String>| Value::Array(s.into_iter().map(Value::String).collect());
    let mut metadata = vec![
        ("general.architecture", Value::String("llama".into())),
        ("llama.block_count", number(c.layers)),
        ("llama.context_length", number(c.context_length)),
        ("llama.embedding_length", number(c.hidden)),
        ("llama.feed_forward_length", number(c.feed_forward)),
        ("llama.attention.head_count", number(c.heads)),
        ("llama.attention.head_count_kv", number(c.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(c.norm_eps)),
        ("llama.rope.freq_base", Value::F32(c.rope_theta)),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("smollm".into())),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(types)),
        ("tokenizer.ggml.merges", strings(vec!["h e".into()])),
        ("tokenizer.ggml.bos_token_id", number(1)),
        ("tokenizer.ggml.eos_token_id", number(2)),
        ("tokenizer.chat_template", Value::String(TEMPLATE.into())),
    ];
    for (key, value) in &shape.metadata {
        metadata.retain(|(k, _)| k != key);
        metadata.push((key, value.clone()));
    }
    metadata
}
