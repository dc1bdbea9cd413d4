"""Tiny random decoders of every family, as transformers writes and computes them.

    python make_families.py OUT_FOLDER

Needs torch, transformers, tokenizers and peft. Writes one folder per case: the model as transformers
saves it, a random adapter as PEFT saves it, and `golden.json`: token ids of texts, and the logits of two
texts without and with the adapter, in f32 over the stored weights.
"""

import json
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from make_decoder import TEXTS
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SHAPE = dict(
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.2,
    rms_norm_eps=1e-5,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
}

# Name: configuration, type of the stored weights, tokenizer, largest shard.
CASES = {
    "llama": (
        LlamaConfig(**SHAPE, num_hidden_layers=2, rope_parameters=LLAMA3, tie_word_embeddings=False),
        torch.bfloat16,
        "pieces",
        "1GB",
    ),
    "mistral": (
        MistralConfig(**SHAPE, head_dim=8, num_hidden_layers=2, sliding_window=6, tie_word_embeddings=True),
        torch.bfloat16,
        "bytes",
        "1GB",
    ),
    "qwen2": (
        Qwen2Config(**SHAPE, num_hidden_layers=2, tie_word_embeddings=True),
        torch.float32,
        "bytes",
        "1GB",
    ),
    "qwen3": (
        Qwen3Config(**SHAPE, head_dim=12, num_hidden_layers=2, tie_word_embeddings=False),
        torch.float16,
        "bytes",
        "40KB",
    ),
    "gemma3": (
        Gemma3TextConfig(
            **(SHAPE | {"intermediate_size": 24}),
            head_dim=10,
            num_hidden_layers=7,
            sliding_window=6,
            query_pre_attn_scalar=24,
            rope_parameters=GEMMA_ROPE,
        ),
        torch.bfloat16,
        "pieces",
        "1GB",
    ),
}
CORPUS = [t for t in TEXTS if t] * 2 + ["the quick brown fox jumps over the lazy dog, then the other one"]
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
VOCAB = 296


def tokenizer(kind):
    if kind == "bytes":
        inner = Tokenizer(models.BPE())
        inner.normalizer = normalizers.NFC()
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        # As Llama 2's: a space before the text, bytes for what is unknown.
        inner = Tokenizer(models.BPE(unk_token="<s>", byte_fallback=True, fuse_unk=True))
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=VOCAB,
            special_tokens=SPECIAL + byte_tokens,
            limit_alphabet=20,
            show_progress=False,
        )
    inner.train_from_iterator(CORPUS, trainer)
    if kind == "pieces":
        # Bytes are pieces of the model, not added tokens.
        state = json.loads(inner.to_str())
        state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in SPECIAL]
        inner = Tokenizer.from_str(json.dumps(state))
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    return fast


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits[0]


def rounded(logits):
    """Every seventh vocabulary entry of every second position."""
    return [[round(v, 4) for v in row] for row in logits[1::2, ::7].tolist()]


def main():
    out = pathlib.Path(sys.argv[1])
    for seed, (name, (config, dtype, kind, shard)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        words = tokenizer(kind)
        config.vocab_size = VOCAB + 4
        config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, 1, None
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                centre = 0.0 if name == "gemma3" or "bias" in parameter_name else 1.0
                torch.nn.init.normal_(parameter, centre, 0.3)
        folder = out / name
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)
        words.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        texts = [
            {"text": t, "ids": words(t, add_special_tokens=False).input_ids} for t in TEXTS
        ]
        for text in texts:
            text["decoded"] = words.decode(text["ids"], skip_special_tokens=False)
        inputs = [torch.randint(0, VOCAB, (1, length)) for length in (40, 9)]
        plain = [logits(model, ids) for ids in inputs]
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        lora = LoraConfig(r=2, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM")
        adapted = get_peft_model(model, lora)
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, 0.0, 0.3)
        adapted.save_pretrained(folder / "adapter")
        (folder / "adapter/README.md").unlink()
        runs = [
            {"ids": ids[0].tolist(), "plain": rounded(a), "adapted": rounded(logits(adapted, ids))}
            for ids, a in zip(inputs, plain)
        ]
        chat = words.apply_chat_template([{"role": "user", "content": "Hi there"}], tokenize=False)
        golden = {"texts": texts, "runs": runs, "chat": chat}
        (folder / "golden.json").write_text(json.dumps(golden))


if __name__ == "__main__":
    main()
