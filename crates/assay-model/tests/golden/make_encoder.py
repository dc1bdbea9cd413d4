#!/usr/bin/env python3
"""Writes vectors of a model as sentence-transformers computes them in f32 on the CPU.

    HF_HUB_OFFLINE=1 make_encoder.py …/all-minilm-l6-v2 > encoder.json
    HF_HUB_OFFLINE=1 make_encoder.py …/all-mpnet-base-v2 3 > mpnet.json

The number is that of texts, from the longest on.

Needs: sentence-transformers (6.2.0 was used), torch.
"""
import json
import sys

from sentence_transformers import SentenceTransformer

TEXTS = [
    "",
    " \n\t ",
    "a",
    "How do I reset the greenhouse sensor after a power cut?",
    "Hold the button for ten seconds until the light turns amber, then let go.",
    "The quick brown fox jumps over the lazy dog. " * 40,
    "Ünïcödé: naïve café, Straße, ﬁnance, Ⅷ, x² + y² = z²",
    "你好,世界!これはテストです。",
    "emoji 🌱🔧 and\u200bzero\u00a0width, soft\u00adhyphen",
    "ERR-4012 at 0x7ffe: timeout=30s; retry -> https://example.org/a?b=c&d=%20e",
    "| port | use |\n|---|---|\n| 443 | HTTPS |\n\n```rust\nfn main() { println!(\"{}\", 1 + 1); }\n```",
    "[CLS] special [SEP] tokens [MASK] in the text [PAD] [UNK]",
    "Pneumonoultramicroscopicsilicovolcanoconiosis" * 4,
]


def main():
    model = SentenceTransformer(sys.argv[1], device="cpu")
    texts = TEXTS
    if len(sys.argv) > 2:
        texts = sorted(TEXTS, key=len)[-int(sys.argv[2]) :]
    vectors = model.encode(texts, convert_to_numpy=True)
    # The whole length, cut nowhere: what `tokens` answers.
    tokens = [len(model.tokenizer(t.strip(), truncation=False)["input_ids"]) for t in texts]
    rows = [
        {"text": t, "tokens": n, "vector": [round(float(x), 6) for x in v]}
        for t, n, v in zip(texts, tokens, vectors)
    ]
    print("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]")


main()
