//! A decoder of 2 layers with random weights, made here; rows for it.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;

use assay_model::{Decoder, Precision};
use assay_train::{BadRows, Example, Progress, TrainRow, prepare};
use assay_types::{Message, Role, RowRef};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

/// ChatML with a default system prompt, as SmolLM2's.
pub(crate) const CHATML: &str = "{% for message in messages %}\
{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const LAYERS: usize = 2;
const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 8;
const FF: usize = 48;
pub(crate) const CONTEXT: usize = 128;

pub(crate) fn tiny() -> Decoder {
    tiny_with(CHATML, None)
}

/// `broken`: a byte whose embedding is not a number.
pub(crate) fn tiny_with(template: &str, broken: Option<u8>) -> Decoder {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_gguf(&path, template, broken);
    Decoder::open(&path, Precision::F32).expect("the tiny decoder")
}

fn write_gguf(path: &Path, template: &str, broken: Option<u8>) {
    let text = |s: &str| Value::String(s.to_owned());
    let size = |n: usize| Value::U32(n as u32);
    let mut tokens: Vec<Value> = CONTROL.iter().map(|s| text(s)).collect();
    let mut types = vec![Value::I32(3); CONTROL.len()];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        next += u32::from(!printable);
        let char = if printable { u32::from(byte) } else { next - 1 };
        tokens.push(text(&char::from_u32(char).expect("a character").to_string()));
        types.push(Value::I32(1));
    }
    tokens.push(text("th"));
    types.push(Value::I32(1));
    let vocab = tokens.len();
    let metadata = [
        ("general.architecture", text("llama")),
        ("llama.block_count", size(LAYERS)),
        ("llama.embedding_length", size(HIDDEN)),
        ("llama.attention.head_count", size(HEADS)),
        ("llama.attention.head_count_kv", size(KV_HEADS)),
        ("llama.feed_forward_length", size(FF)),
        ("llama.context_length", size(CONTEXT)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        ("tokenizer.ggml.token_type", Value::Array(types)),
        ("tokenizer.ggml.merges", Value::Array(vec![text("t h")])),
        ("tokenizer.ggml.eos_token_id", size(2)),
        ("tokenizer.chat_template", text(template)),
    ];

    let mut state = 1;
    let (q, kv) = (HEADS * HEAD, KV_HEADS * HEAD);
    let mut shapes = vec![
        ("token_embd.weight".to_owned(), vec![vocab, HIDDEN]),
        ("output.weight".to_owned(), vec![vocab, HIDDEN]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("blk.{layer}.{name}.weight"), shape.to_vec()));
        };
        add("attn_norm", &[HIDDEN]);
        add("ffn_norm", &[HIDDEN]);
        add("attn_q", &[q, HIDDEN]);
        add("attn_k", &[kv, HIDDEN]);
        add("attn_v", &[kv, HIDDEN]);
        add("attn_output", &[HIDDEN, q]);
        add("ffn_gate", &[FF, HIDDEN]);
        add("ffn_up", &[FF, HIDDEN]);
        add("ffn_down", &[HIDDEN, FF]);
    }
    let tensors: Vec<(String, QTensor)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let mut values = match shape.as_slice() {
                [n] => vec![1.0; *n],
                [rows, cols] => noise(rows * cols, 1.0 / (*cols as f32).sqrt(), &mut state),
                _ => unreachable!(),
            };
            if let ("token_embd.weight", Some(byte)) = (name.as_str(), broken) {
                values[(CONTROL.len() + usize::from(byte)) * HIDDEN] = f32::NAN;
            }
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor");
            (name, QTensor::quantize(&tensor, GgmlDType::F32).expect("f32"))
        })
        .collect();
    let metadata: Vec<_> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).expect("writing GGUF");
    fs_err::write(path, file.into_inner()).expect("writing GGUF");
}

/// Uniform in ±`bound`, by a linear congruential generator.
pub(crate) fn noise(n: usize, bound: f32, state: &mut u64) -> Vec<f32> {
    let mut next = || {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| (2.0 * next() - 1.0) * bound).collect()
}

pub(crate) fn row(number: usize, turns: &[(Role, &str)]) -> TrainRow {
    TrainRow {
        messages: turns.iter().map(|(role, text)| Message::new(*role, *text)).collect(),
        source: RowRef { file: "train.jsonl".into(), row: number },
    }
}

pub(crate) fn qa(number: usize, question: &str, answer: &str) -> TrainRow {
    row(number, &[(Role::User, question), (Role::Assistant, answer)])
}

/// Seven rows of different lengths.
pub(crate) fn rows(decoder: &Decoder) -> Vec<Example> {
    let pairs = [
        ("one", "uno"),
        ("the second", "dos"),
        ("3", "tres!"),
        ("number four", "cuatro, of course"),
        ("five", "5"),
        ("six six six", "seis"),
        ("and seven", "siete"),
    ];
    let rows: Vec<TrainRow> = pairs.iter().enumerate().map(|(i, (q, a))| qa(i + 1, q, a)).collect();
    prepare(decoder, &rows, usize::MAX, BadRows::Refuse).expect("good rows").examples
}

pub(crate) fn quietly(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
