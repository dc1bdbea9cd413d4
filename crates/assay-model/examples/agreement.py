"""How far the decoder lies from PyTorch in f32 on 200 real prompts: logits, and where greedy answers part.

    cargo build --release --workspace --examples
    HF_HUB_OFFLINE=1 python agreement.py MODEL_FOLDER DATA ../../../target/release/examples/agreement RECORDS.jsonl

Needs torch, transformers and gguf. MODEL_FOLDER holds SmolLM2's GGUF file, whose weights transformers expands to f32;
DATA holds the public datasets (`xquad`, `banking77`, `gsm8k`, `ifeval`). Prompts are rendered by the chat template and
tokenised here, without Assay, and all sides get the same token ids.

Compared with PyTorch f32: `f32` and `bf16`, the two precisions of Assay; and, as a yardstick, PyTorch in bf16. One line
per prompt goes to RECORDS.jsonl; a run that was broken off goes on behind its last line. The summary is printed.

PyTorch generates nothing: it reads each prompt with the answer that Assay gave. Where its most likely token is the
answer's at every position, it would have given that answer; at the first other position, its answer parts. The margin
is by how much the first of PyTorch's f32 logits leads the second there, the gap by how much it leads that of the token
that the other side chose.
"""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
COUNTS = {"xquad.en": 80, "xquad.de": 20, "banking77": 40, "gsm8k": 30, "ifeval": 30}
LONGEST = 300
NEW = 24
SEED = 20


def lines_of(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def chats_of(name, data):
    """Conversations of a dataset, in its order."""
    user = lambda text: [{"role": "user", "content": text}]
    told = lambda system, text: [{"role": "system", "content": system}] + user(text)
    if name.startswith("xquad"):
        articles = json.loads(lines_of(data / "xquad" / f"{name}.dev.json.gz"))["data"]
        return [
            told("Answer from the text, in as few words as possible.", f"{p['context']}\n\n{q['question']}")
            for article in articles
            for p in article["paragraphs"]
            for q in p["qas"]
        ]
    if name == "banking77":
        rows = csv.DictReader(lines_of(data / name / "train.csv.gz").splitlines(keepends=True))
        return [told("Name the intent of the customer's message.", row["text"]) for row in rows]
    file, key = {"gsm8k": ("train.jsonl.gz", "question"), "ifeval": ("ifeval.jsonl", "prompt")}[name]
    rows = lines_of(data / name / file).split("\n")
    return [user(json.loads(row)[key]) for row in rows if row]


def tokenizer_of(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    # transformers leaves out of a GGUF that the published tokenizer isolates digits.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    return tokenizer


def prompts_of(folder, data):
    """`(dataset, token ids)`, as many of each as wanted, drawn from those that are short enough."""
    tokenizer, prompts = tokenizer_of(folder), []
    for name, count in COUNTS.items():
        chats = chats_of(name, data)
        random.Random(SEED).shuffle(chats)
        found = []
        while len(found) < count:
            text = tokenizer.apply_chat_template(chats.pop(), tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False).input_ids
            if len(ids) <= LONGEST:
                found.append((name, ids))
        prompts += found
    random.Random(SEED).shuffle(prompts)
    return prompts


class Assay:
    """The example `agreement` in one precision."""

    def __init__(self, program, model, precision):
        self.process = subprocess.Popen([program, model, precision], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.vocab = json.loads(self.process.stdout.readline())["vocab"]

    def answer(self, ids):
        """Logits of the prompt, new tokens, their log-probabilities."""
        self.process.stdin.write(json.dumps({"ids": ids, "new": NEW}).encode() + b"\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        values = bytearray(self.process.stdout.read(4 * len(ids) * self.vocab))
        logits = torch.frombuffer(values, dtype=torch.float32).view(len(ids), self.vocab)
        return logits, found["tokens"], found["log_probs"]


class PyTorch:
    def __init__(self, folder, dtype):
        self.model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=dtype).eval()

    @torch.inference_mode()
    def read(self, ids, answer):
        """Logits of the prompt's positions, and those that each token of the answer is chosen by."""
        logits = self.model(input_ids=torch.tensor([ids + answer[:-1]])).logits[0].float()
        return logits[: len(ids)], logits[len(ids) - 1 :]


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)


def error(difference):
    return {"max": difference.max().item(), "sum": difference.double().sum().item(), "n": difference.numel()}


def logit_errors(right, logits):
    """Of the prompt's last position and of all, and how many have the same most likely token."""
    difference = (logits - right).abs()
    same = (logits.argmax(-1) == right.argmax(-1)).sum().item()
    return {"last": error(difference[-1]), "all": error(difference), "top1": same, "positions": len(right)}


def parting(rows, at, token):
    """Where an answer parts, given PyTorch's logits for each of its tokens."""
    if at is None:
        return None
    best = rows[at].topk(2).values
    return {"at": at, "margin": (best[0] - best[1]).item(), "gap": (best[0] - rows[at][token]).item()}


def compare(reference, ids, found):
    """An answer of Assay against PyTorch; and PyTorch's own, as far as this reading shows it."""
    logits, tokens, log_probs = found
    right, rows = reference.read(ids, tokens)
    best = rows.argmax(-1).tolist()
    at = first_difference(best, tokens)
    same = len(tokens) if at is None else at
    # The first new token is read off the prompt; written are those behind it.
    told = rows.log_softmax(-1)
    written = [abs(told[i, tokens[i]].item() - log_probs[i]) for i in range(1, same)]
    record = logit_errors(right, logits) | {
        "parts": parting(rows, at, tokens[same] if same < len(tokens) else None),
        "new": len(tokens),
        "written": {"max": max(written, default=0.0), "sum": sum(written), "n": len(written)},
    }
    return record, best[: same + 1]


def yardstick(reference, other, ids, answer):
    """PyTorch in another precision, on PyTorch's answer."""
    (right, rows), (logits, own) = reference.read(ids, answer), other.read(ids, answer)
    chosen = own.argmax(-1).tolist()
    at = first_difference(answer, chosen)
    parts = parting(rows, at, chosen[at] if at is not None else None)
    return logit_errors(right, logits) | {"parts": parts, "new": len(answer)}


def summary(records):
    for side in records[0]["sides"]:
        sides = [record["sides"][side] for record in records]
        parts = [s["parts"] for s in sides if s["parts"]]
        print(f"\n{side}: {len(sides) - len(parts)} of {len(sides)} answers are the same")
        for key in ("last", "all", "written"):
            of = [s[key] for s in sides if key in s]
            if of:
                mean = sum(e["sum"] for e in of) / sum(e["n"] for e in of)
                print(f"  {key}: max {max(e['max'] for e in of):.3g}, mean {mean:.3g}")
        print(f"  top-1: {sum(s['top1'] for s in sides)} of {sum(s['positions'] for s in sides)}")
        if not parts:
            continue
        for what in ("margin", "gap"):
            values = sorted(p[what] for p in parts)
            middle, most = values[len(values) // 2], values[len(values) * 9 // 10]
            print(f"  {what}: median {middle:.3g}, 90% {most:.3g}, max {values[-1]:.3g}")
        print(f"  parted at {sorted(p['at'] for p in parts)}")


def main():
    folder, data, program, path = sys.argv[1:]
    prompts = prompts_of(folder, Path(data))
    lengths = sorted(len(ids) for _, ids in prompts)
    print(f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, {sum(lengths)} in all")
    assay = {p: Assay(program, str(Path(folder) / FILE), p) for p in ("f32", "bf16")}
    reference, bf16 = PyTorch(folder, torch.float32), PyTorch(folder, torch.bfloat16)
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        records = [json.loads(line) for line in file]
        for name, ids in prompts[len(records) :]:
            sides, answer = {}, []
            for side, program in assay.items():
                sides[side], known = compare(reference, ids, program.answer(ids))
                answer = max(answer, known, key=len)
            sides["PyTorch bf16"] = yardstick(reference, bf16, ids, answer)
            records.append({"dataset": name, "tokens": len(ids), "sides": sides})
            file.write(json.dumps(records[-1]) + "\n")
            file.flush()
    summary(records)


if __name__ == "__main__":
    main()
