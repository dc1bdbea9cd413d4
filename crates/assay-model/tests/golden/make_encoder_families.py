#!/usr/bin/env python3
"""Writes encoders/: tiny random encoders and rerankers of each family, each with golden.json, what
sentence-transformers computes with it in f32 on the CPU.

    HF_HUB_OFFLINE=1 make_encoder_families.py FOLDER_OF_THIS_FILE/encoders

Needs: sentence-transformers (6.2.0 was used), transformers, tokenizers, torch. Weights are stored in the
precision that each case names and are those of the golden values.
"""
import json
import math
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WORDS = "how do i reset the sensor hold button for ten seconds valve shut red amber light pump oil".split()
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789.,:?")
QUERY = "How do I reset the sensor?"
TEXTS = [
    "",
    "a",
    "Hold the button for ten seconds.",
    "the valve is shut , the pump 42 takes oil",
    "Red light: reset. Amber light: hold.",
    "[PAD] <pad> stands in the text",
    "hold the red button until the light shows amber and the pump has oil " * 12,
]


def wordpiece(first, last):
    """Words and letters, with `first`/`last` around a text as BERT has [CLS] and [SEP]."""
    special = {"[CLS]": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "<s>": ["<s>", "<pad>", "</s>", "<unk>"]}[first]
    vocabulary = special + WORDS + LETTERS + ["##" + c for c in LETTERS]
    unknown = "[UNK]" if "[UNK]" in special else "<unk>"
    ids = {w: i for i, w in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    if first == "[CLS]":
        pair = f"{first}:0 $A:0 {last}:0 $B:1 {last}:1"
    else:
        pair = f"{first} $A {last} {last} $B {last}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=pair,
        special_tokens=[(first, ids[first]), (last, ids[last])],
    )
    return tokenizer, len(ids)


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def randomise(model, seed):
    """Larger than a trained model starts with, so that every part leaves its mark."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        scale = 0.3 if "LayerNorm" in name or "bias" in name else 1.5 / math.sqrt(p.shape[-1])
        p.data = torch.randn_like(p) * scale + (1.0 if "LayerNorm.weight" in name else 0.0)


def save(folder, model, first, last, dtype, limit, seed):
    tokenizer, _ = wordpiece(first, last)
    randomise(model, seed)
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    # In the file's precision, so that the golden values are of the same weights.
    tensors = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"dtype": "float32"}
    write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"))
    pad, unknown = ("[PAD]", "[UNK]") if first == "[CLS]" else ("<pad>", "<unk>")
    names = {"cls_token": first, "sep_token": last, "pad_token": pad, "unk_token": unknown}
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit}
    if first == "[CLS]":
        own["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    else:
        own["model_input_names"] = ["input_ids", "attention_mask"]
    write_json(folder / "tokenizer_config.json", own | names)


def shape(first, **more):
    _, vocabulary = wordpiece(first, {"[CLS]": "[SEP]", "<s>": "</s>"}[first])
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    return {"vocab_size": vocabulary} | sizes | more


def modules(folder, pooling, *more):
    listed = ["Transformer", "Pooling", *more]
    rows = []
    for i, kind in enumerate(listed):
        path = "" if i == 0 else f"{i}_{kind}"
        rows.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
    write_json(folder / "modules.json", rows)
    write_json(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": 24, f"pooling_mode_{pooling}": True}
        | ({} if pooling == "mean_tokens" else {"pooling_mode_mean_tokens": False}),
    )


def embeddings(folder):
    model = SentenceTransformer(str(folder), device="cpu").float()
    texts = TEXTS
    documents = model.encode_document(texts, convert_to_numpy=True)
    queries = model.encode_query([QUERY], convert_to_numpy=True)
    row = lambda v: [round(float(x), 6) for x in v]
    golden = {"texts": texts, "documents": [row(v) for v in documents], "query": QUERY}
    golden |= {"query_vector": row(queries[0]), "max_tokens": model.max_seq_length}
    write_json(folder / "golden.json", golden)


def scores(folder):
    model = CrossEncoder(str(folder), device="cpu")
    model.model.float()
    long = TEXTS[-1]
    pairs = [[QUERY, t] for t in TEXTS] + [[long, t] for t in TEXTS]
    values = model.predict(pairs, convert_to_numpy=True).reshape(len(pairs), -1)
    half = len(TEXTS)
    flat = lambda part: [round(float(x), 6) for x in part.reshape(-1)]
    golden = {"texts": TEXTS, "queries": [QUERY, long], "scores": [flat(values[:half]), flat(values[half:])]}
    golden |= {"labels": values.shape[1]}
    write_json(folder / "golden.json", golden)


def main():
    root = Path(sys.argv[1])
    shutil.rmtree(root, ignore_errors=True)
    torch.set_num_threads(1)

    # BERT with mean pooling, a dense layer and prompts in its file.
    folder = root / "bert-dense"
    config = BertConfig(**shape("[CLS]", max_position_embeddings=40, type_vocab_size=2))
    save(folder, BertModel(config, add_pooling_layer=False), "[CLS]", "[SEP]", torch.float32, 32, 1)
    modules(folder, "mean_tokens", "Dense", "Normalize")
    torch.manual_seed(11)
    dense = {"linear.weight": torch.randn(10, 24) * 0.2, "linear.bias": torch.randn(10) * 0.2}
    (folder / "2_Dense").mkdir()
    save_file(dense, folder / "2_Dense/model.safetensors")
    function = "torch.nn.modules.activation.Tanh"
    write_json(
        folder / "2_Dense/config.json",
        {"in_features": 24, "out_features": 10, "bias": True, "activation_function": function},
    )
    prompts = {"query": "hold: ", "document": "oil pump ", "other": "no"}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})

    # The first token of a BERT in half precision, tanh GELU, a limit of its own.
    folder = root / "bert-cls"
    config = BertConfig(**shape("[CLS]", max_position_embeddings=200, hidden_act="gelu_new"))
    save(folder, BertModel(config, add_pooling_layer=False), "[CLS]", "[SEP]", torch.float16, 512, 2)
    modules(folder, "cls_token", "Normalize")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 150, "do_lower_case": False})

    # XLM-R: positions behind the padding token, bf16, the largest value of each dimension, ReLU.
    folder = root / "xlm-roberta-max"
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = XLMRobertaConfig(**shape("<s>", max_position_embeddings=70, type_vocab_size=1, hidden_act="relu", **ids))
    save(folder, XLMRobertaModel(config, add_pooling_layer=False), "<s>", "</s>", torch.bfloat16, 68, 3)
    modules(folder, "max_tokens")

    # MPNet: far distances fall into one bucket, so the longest text is longer than 128 tokens.
    folder = root / "mpnet"
    config = MPNetConfig(**shape("<s>", max_position_embeddings=170, **ids))
    save(folder, MPNetModel(config, add_pooling_layer=False), "<s>", "</s>", torch.float32, 160, 4)
    modules(folder, "weightedmean_tokens", "Normalize")

    for name in ["bert-dense", "bert-cls", "xlm-roberta-max", "mpnet"]:
        embeddings(root / name)

    # Rerankers: BERT's pooler and one label, with the raw logit; RoBERTa's head and three labels; one label
    # without a word about its activation.
    folder = root / "cross-bert"
    config = BertConfig(**shape("[CLS]", max_position_embeddings=48, num_labels=1))
    config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    save(folder, BertForSequenceClassification(config), "[CLS]", "[SEP]", torch.float32, 512, 5)
    folder = root / "cross-bert-sigmoid"
    config = BertConfig(**shape("[CLS]", max_position_embeddings=48, num_labels=1))
    save(folder, BertForSequenceClassification(config), "[CLS]", "[SEP]", torch.float32, 40, 6)
    folder = root / "cross-roberta"
    config = RobertaConfig(**shape("<s>", max_position_embeddings=60, type_vocab_size=1, num_labels=3, **ids))
    save(folder, RobertaForSequenceClassification(config), "<s>", "</s>", torch.float32, 58, 7)
    for name in ["cross-bert", "cross-bert-sigmoid", "cross-roberta"]:
        scores(root / name)


main()
