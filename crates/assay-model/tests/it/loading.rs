//! Files that are refused, and why; templates and BOS.

use assay_model::{ChatTemplate, Decoder, ModelError, Precision};
use assay_types::{Message, Role};
use candle_core::quantized::gguf_file::Value;

use crate::tiny::{Shape, Tiny, write};

fn check_refused(shape: &Shape, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write(&path, shape);
    let error = Decoder::open(&path, Precision::F32).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("tiny.gguf"), "names the file: {error}");
}

fn text(s: &str) -> Value {
    Value::String(s.into())
}

#[test]
fn unsuitable_files_are_refused() {
    let with = |key, value| Shape { metadata: vec![(key, value)], ..Shape::default() };
    check_refused(
        &with("general.architecture", text("mamba")),
        "architecture `mamba` is not supported (supported: llama, qwen2, qwen3, gemma3)",
    );
    check_refused(
        &with("tokenizer.ggml.model", text("t5")),
        "tokenizer.ggml.model `t5` is not supported (supported: gpt2, llama)",
    );
    check_refused(&with("tokenizer.ggml.model", text("llama")), "`tokenizer.ggml.scores`");
    check_refused(&with("tokenizer.ggml.pre", text("tekken")), "tokenizer.ggml.pre `tekken`");
    check_refused(&with("llama.expert_count", Value::U32(8)), "llama.expert_count");
    check_refused(
        &with("llama.block_count", text("many")),
        "`llama.block_count` is missing or not a positive integer",
    );
    check_refused(&with("llama.block_count", Value::U32(0)), "not a positive integer");
    check_refused(&with("llama.attention.head_count_kv", Value::U32(4)), "a divisor");
    check_refused(&with("llama.rope.dimension_count", Value::U32(2)), "the size of a head");
    check_refused(&with("llama.rope.scaling.type", text("yarn")), "rope.scaling.type");
    check_refused(&with("llama.context_length", Value::U32(u32::MAX)), "at most 1,048,576");
    check_refused(&with("llama.block_count", Value::U32(3)), "tensor `blk.2.");
    check_refused(&with("llama.block_count", Value::U32(1)), "is unknown to this architecture");
    check_refused(
        &with("llama.feed_forward_length", Value::U32(48)),
        "has shape [40, 24], expected [48, 24]",
    );
    check_refused(
        &Shape { without_tensor: Some("blk.1.attn_v.weight"), ..Shape::default() },
        "tensor `blk.1.attn_v.weight` is missing",
    );
}

#[test]
fn damaged_files_are_refused() {
    let tiny = Tiny::new(true);
    let bytes = fs_err::read(&tiny.path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let open = |bytes: &[u8]| {
        let path = folder.path().join("damaged.gguf");
        fs_err::write(&path, bytes).unwrap();
        Decoder::open(&path, Precision::F32).map(|_| ()).unwrap_err()
    };
    let cut = open(&bytes[..bytes.len() - 500]);
    let length = bytes.len() as u64 - 500;
    assert!(matches!(cut, ModelError::Truncated { got_bytes, .. } if got_bytes == length), "{cut}");
    assert!(matches!(open(&bytes[..400]), ModelError::Malformed { .. }));
    assert!(matches!(open(b"PK\x03\x04 something else"), ModelError::NotGguf { .. }));
    assert!(matches!(open(b""), ModelError::NotGguf { .. }));
    let missing = Decoder::open(&folder.path().join("absent.gguf"), Precision::F32).unwrap_err();
    assert!(missing.to_string().contains("absent.gguf"), "{missing}");

    // The number of a tensor format that nobody knows: it stands behind name, rank and shape.
    let mut unknown = bytes.clone();
    let name = b"blk.0.attn_norm.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8;
    unknown[at..at + 4].copy_from_slice(&39u32.to_le_bytes());
    let error = open(&unknown);
    assert!(matches!(error, ModelError::UnsupportedQuantisation { .. }), "{error}");
    assert!(error.to_string().contains("GGML type 39"), "{error}");
    // Nothing that a file may hold panics.
    for cut in (0..bytes.len() - 500).step_by(997) {
        open(&bytes[..cut]);
    }
}

#[test]
fn templates_render_as_jinja_in_python() {
    let user = |content: &str| Message::new(Role::User, content);
    let tiny = Tiny::new(true);
    let rendered = tiny.decoder.template().render(&[user("  hello ")], true).unwrap();
    assert_eq!(rendered, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    let ids = tiny.decoder.prompt_tokens(&[user("hello")]).unwrap();
    assert_eq!(ids[0], 1);
    assert!(ids.contains(&260), "the merge is applied: {ids:?}");

    let source = "{{ bos_token }}\n  {% if messages[0].role == 'system' %}\n\
        {{ raise_exception('no system message, please') }}\n  {% endif %}\n{{ eos_token }}";
    let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
    assert_eq!(template.render(&[user("x")], false).unwrap(), "<s>\n</s>");
    let refused = template.render(&[Message::new(Role::System, "x")], false).unwrap_err();
    assert!(refused.to_string().contains("no system message, please"), "{refused}");
    assert_ne!(template.hash(), tiny.decoder.template().hash());
    assert_eq!(template.hash().len(), 64);
    assert!(matches!(ChatTemplate::new("{% if", "", ""), Err(ModelError::Template(_))));
    let none = ChatTemplate::new("", "", "").unwrap();
    assert!(matches!(none.render(&[user("x")], true), Err(ModelError::NoTemplate)));
}

#[test]
fn prompts_begin_with_bos_once() {
    let open = |template: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        let metadata = vec![
            ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
            ("tokenizer.ggml.bos_token_id", Value::U32(3)),
            ("tokenizer.chat_template", text(template)),
        ];
        write(&path, &Shape { metadata, ..Shape::default() });
        Decoder::open(&path, Precision::F32).unwrap()
    };
    for template in ["{{ messages[0].content }}", "{{ bos_token }}{{ messages[0].content }}"] {
        let ids = open(template).prompt_tokens(&[Message::new(Role::User, "hi")]).unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == 3).count(), 1, "{template}: {ids:?}");
        assert_eq!(ids[0], 3);
    }
}

#[test]
fn facts_of_a_file() {
    let tiny = Tiny::new(false);
    let decoder = &tiny.decoder;
    assert_eq!(*decoder.config(), Shape::default().config);
    assert_eq!(decoder.stop_tokens(), [0, 2]);
    let sha256 = <sha2::Sha256 as sha2::Digest>::digest(fs_err::read(&tiny.path).unwrap());
    let hex: String = sha256.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(decoder.file_hash(), hex);
}
