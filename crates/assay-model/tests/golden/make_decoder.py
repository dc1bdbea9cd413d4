"""Golden values of the decoder: token ids, logits and greedy continuations from transformers.

    HF_HUB_OFFLINE=1 python make_decoder.py FOLDER_WITH_GGUF > decoder.json

Needs torch, transformers and gguf. The weights are the GGUF's, expanded to f32 by transformers.
transformers builds the tokenizer from the GGUF without the step that isolates digits, which the
published SmolLM2 tokenizer (and llama.cpp's `smollm`) has: it is put back here.
"""

import json
import sys

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

TEXTS = [
    "Hello, world!",
    "The year 1984 had 366 days? No: 365.25 on average.",
    "  two  spaces\n\n\ttab and trailing   ",
    "1.\n\n2.  3\n\n   44",
    "don't I'll we've THEY'RE it's",
    "Größenwahn über Ærøskøbing, façade, naïve",
    "日本語のテキストと、中文文本和한국어",
    "emoji 👩‍👩‍👧‍👦 flags 🇩🇪 and a lone \u200b zero width",
    "fn main() {\n    let x: Vec<u32> = vec![1, 2, 3];\n}\n",
    "<|im_start|>user\nhi<|im_end|>\n",
    "x²+½y₃ = Ⅷ ٣٤ ५",
    "a\u00a0b\u2028c\r\nd\u0085e",
    "https://example.org/path?query=1&b=%20#frag",
    "",
]

CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "Colour of the sky?"},
        {"role": "assistant", "content": "Blue"},
        {"role": "user", "content": "And of grass?\n"},
    ],
    [{"role": "user", "content": "Write a story about a dog who learns to count."}],
    [{"role": "user", "content": "List three fruits, then count to 12."}],
]


def main():
    folder = sys.argv[1]
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    model.eval()

    def encode(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    texts = [{"text": t, "ids": encode(t), "decoded": tokenizer.decode(encode(t))} for t in TEXTS]
    chats = []
    for messages in CHATS:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        ids = encode(rendered)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            top = logits.topk(10)
            greedy = model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=24,
                do_sample=False,
                repetition_penalty=1.0,
            )[0, len(ids) :]
        chats.append(
            {
                "messages": messages,
                "rendered": rendered,
                "ids": ids,
                "top": [[i, round(v, 5)] for i, v in zip(top.indices.tolist(), top.values.tolist())],
                "greedy": greedy.tolist(),
            }
        )
    print(json.dumps({"texts": texts, "chats": chats}, ensure_ascii=True))


if __name__ == "__main__":
    main()
