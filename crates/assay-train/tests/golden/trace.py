"""Loss and gradient norm of 50 steps of LoRA training with PyTorch + PEFT, in f32: `trace.json`.

    python trace.py SmolLM2-135M-Instruct.Q4_1.gguf > trace.json

Rows, tokens, mask, first weights, learning rate: all are made here, without Assay. What is Assay's is the
generator behind the first weights (SplitMix64) and their order, restated in `first_weights`.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

SETTINGS = {"rank": 8, "alpha": 16.0, "seed": 7, "rate": 2e-4, "warmup": 5, "steps": 50, "batch": 2, "clip": 1.0, "weight_decay": 0.01}
SYSTEM = "Answer in one word."
ROWS = [
    ("Which planet is red?", "Mars"),
    ("What melts at zero degrees?", "Ice"),
    ("Who wrote Hamlet?", "Shakespeare"),
    ("What do bees make?", "Honey"),
    ("The opposite of left?", "Right"),
    ("Which metal is liquid?", "Mercury"),
    ("Colour of a ripe lemon?", "Yellow"),
    ("What is 7 plus 5?", "Twelve"),
]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def uniform(seed, start, n):
    """SplitMix64 is a hash of a counter: numbers start..start+n of its stream, as f32 in [0, 1)."""
    with np.errstate(over="ignore"):
        i = np.arange(start + 1, start + n + 1, dtype=np.uint64)
        z = np.uint64(seed) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def first_weights(model, seed):
    """A uniform in ±1/sqrt(inputs), layer by layer, module by module; B zero."""
    used = 0
    for layer in model.base_model.model.model.layers:
        for name in TARGETS:
            part = layer.self_attn if hasattr(layer.self_attn, name) else layer.mlp
            pair = getattr(part, name)
            a, b = pair.lora_A["default"].weight, pair.lora_B["default"].weight
            bound = np.float32(1) / np.sqrt(np.float32(a.shape[1]))
            values = (np.float32(2) * uniform(seed, used, a.numel()) - np.float32(1)) * bound
            used += a.numel()
            with torch.no_grad():
                a.copy_(torch.from_numpy(values).reshape(a.shape))
                b.zero_()


def example(tokenizer, question, answer):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    text = f"{prompt}{answer}<|im_end|>\n"
    messages.append({"role": "assistant", "content": answer})
    assert text == tokenizer.apply_chat_template(messages, tokenize=False)
    start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    end = len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return ids, start, end


def main():
    gguf, s = Path(sys.argv[1]), SETTINGS
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    base = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    config = peft.LoraConfig(r=s["rank"], lora_alpha=s["alpha"], target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    model.train()
    first_weights(model, s["seed"])
    rows = [example(tokenizer, *row) for row in ROWS]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=s["rate"], weight_decay=s["weight_decay"])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1, (i + 1) / s["warmup"]) * (1 - i / s["steps"])
    )
    losses, norms, rates = [], [], []
    for step in range(s["steps"]):
        part = [rows[(step * s["batch"] + i) % len(rows)] for i in range(s["batch"])]
        learned = sum(end - start for _, start, end in part)
        total = 0.0
        for ids, start, end in part:
            logits = model(input_ids=torch.tensor([ids])).logits[0]
            target = torch.tensor(ids[start:end])
            nll = torch.nn.functional.cross_entropy(logits[start - 1 : end - 1], target, reduction="sum")
            (nll / learned).backward()
            total += nll.item()
        losses.append(total / learned)
        norms.append(torch.nn.utils.clip_grad_norm_(weights, s["clip"]).item())
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    out = {
        "made_by": "trace.py",
        "versions": versions,
        "settings": s,
        "system": SYSTEM,
        "rows": [{"question": q, "answer": a, "tokens": r[0], "start": r[1], "end": r[2]} for (q, a), r in zip(ROWS, rows)],
        "losses": losses,
        "grad_norms": norms,
        "rates": rates,
    }
    json.dump(out, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
