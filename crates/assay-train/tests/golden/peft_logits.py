"""Logits of an adapter folder through transformers + PEFT, in f32.

    python peft_logits.py BASE.gguf ADAPTER ids.json OUT [--resave FOLDER]

OUT gets the logits of every position, row-major, as little-endian f32. --resave writes the adapter back as
PEFT itself writes it.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import peft
import torch
from transformers import AutoModelForCausalLM

p = argparse.ArgumentParser()
p.add_argument("gguf", type=Path)
p.add_argument("adapter", type=Path)
p.add_argument("ids", type=Path)
p.add_argument("out", type=Path)
p.add_argument("--resave", type=Path)
args = p.parse_args()

base = AutoModelForCausalLM.from_pretrained(str(args.gguf.parent), gguf_file=args.gguf.name, dtype=torch.float32)
model = peft.PeftModel.from_pretrained(base, str(args.adapter)).eval()
if args.resave:
    model.save_pretrained(str(args.resave), save_embedding_layers=False)
with torch.no_grad():
    logits = model(input_ids=torch.tensor([json.loads(args.ids.read_text())])).logits[0]
args.out.write_bytes(logits.contiguous().numpy().astype("<f4").tobytes())
