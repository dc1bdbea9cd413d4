"""Golden values of the larger decoders with real weights: token ids and logits of a reference.

    HF_HUB_OFFLINE=1 python make_real.py FOLDER qwen2.5-coder-0.5b-instruct > qwen2.json
    HF_HUB_OFFLINE=1 python make_real.py FOLDER gemma-3-270m > gemma3.json

Needs torch, transformers and gguf; for Gemma sentencepiece too. The weights are the GGUF's, expanded
to f32 by transformers. Qwen's tokenizer is the one transformers builds from the GGUF, Gemma's is
sentencepiece itself over the file's pieces, scores and types.
"""

import json
import sys

import torch
from gguf import GGUFReader
from make_decoder import TEXTS
from tokenizers import normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer

FILES = {
    "qwen2.5-coder-0.5b-instruct": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "gemma-3-270m": "gemma-3-270m-q4_k_m.gguf",
}

MORE_TEXTS = TEXTS + [
    "a" * 40 + " " * 40 + "\n" * 5 + "\t\t\tb",
    "e\u0301 \u212b \ufb01 decomposed and compatible",
    "12345678901 3.14159e-10 0x1F",
    "<tool_call>{\"x\": 1}</tool_call><|endoftext|><bos><eos><start_of_turn>user\n<end_of_turn>",
    "\u2581 lower block, \ufffd and <0x0A>",
    "ΑΒΓ абв אבג कखग ไทย 🏳️‍🌈🧑🏽‍💻",
    " leading",
    "SELECT *\n  FROM t\n WHERE a >= 'it''s';\r\n",
]

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Water boils at 100 degrees Celsius at sea level. At higher altitudes, the boiling point",
]

CHAT = [{"role": "user", "content": "Write a Python function that reverses a string."}]


class Pieces:
    """sentencepiece over what the GGUF says, control and user-defined pieces taken out before it."""

    def __init__(self, reader):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as pb

        field = lambda key: reader.fields[f"tokenizer.ggml.{key}"].contents()
        model = pb.ModelProto()
        kinds = {1: 1, 2: 2, 3: 4, 4: 4, 5: 5, 6: 6}
        for token, score, kind in zip(field("tokens"), field("scores"), field("token_type")):
            piece = model.pieces.add()
            piece.piece, piece.score = token.replace(" ", "\u2581"), score
            piece.type = 2 if token == "<unk>" else kinds[kind]
        model.trainer_spec.model_type = 2
        model.trainer_spec.byte_fallback = True
        model.trainer_spec.vocab_size = len(model.pieces)
        model.normalizer_spec.name = "identity"
        model.normalizer_spec.add_dummy_prefix = False
        model.normalizer_spec.remove_extra_whitespaces = False
        self.inner = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())

    def encode(self, text):
        return self.inner.encode(text)


def main():
    folder, name = sys.argv[1:]
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILES[name], dtype=torch.float32)
    model.eval()
    print(model.config, file=sys.stderr)
    prompts = []
    if name.startswith("gemma"):
        encode = Pieces(GGUFReader(f"{folder}/{FILES[name]}")).encode
        prompts = [[2] + encode(p) for p in PROMPTS]
        # Longer than the window of 512.
        prompts.append([2] + encode(" ".join(PROMPTS * 13)))
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILES[name])
        # transformers leaves out of a GGUF what the published tokenizer begins with.
        tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
        encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids
        chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        prompts = [encode(p) for p in PROMPTS + [chat]]
    cases = []
    for ids in prompts:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        sample = list(range(0, logits.shape[-1], 487)) + logits[-1].topk(10).indices.tolist()
        cases.append(
            {
                "ids": ids,
                "best": logits.argmax(-1).tolist(),
                "margins": [
                    round(v, 5) for v in logits.topk(2).values.diff(dim=-1).neg()[:, 0].tolist()
                ],
                "last": [[i, round(logits[-1, i].item(), 5)] for i in sample],
            }
        )
    texts = [{"text": t, "ids": encode(t)} for t in MORE_TEXTS]
    print(json.dumps({"texts": texts, "prompts": cases}, ensure_ascii=True))


if __name__ == "__main__":
    main()
