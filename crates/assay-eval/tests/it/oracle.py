"""Print 10,000 random cases with what the reference packages make of them, one JSON object per line.

Needs rouge-score 0.1.2 (with nltk 3.10.4), pytrec-eval-terrier 0.5.11 and scikit-learn; seeded.
SQuAD is the official script's definition, written with `re` and `string` as that script is.
"""

import json
import random
import re
import string
from collections import Counter

import pytrec_eval
from rouge_score import rouge_scorer
from sklearn.metrics import f1_score

rng = random.Random(4)
STEMS = "happi relat condition vari oper hop fall fil sky di nation agre plaster electr form adjust rat ceas ann by y control siz tr bl probab geo".split()
ENDINGS = [""] + "s es ies ied ed ing eed ational ization fulness alli bli logi fulli icate ative ness ement ment ion e ee l ll y ly ously ibility al ance er".split()
ODD = ["the", "a", "an", "The", "A.", "an-", "'", "“", "é", "İ", "ß", "ſ", "K", "\u00a0", "\u200b", "\u2028", "\x1c", "_", "1,000", "state-of-the-art",
       "日本", "½", "²", "a²", "the’s", "$", "...", "", "\u0301", "Ⅷ", "\t", "ﬁ", "a\u0301"]


def word():
    if rng.random() < 0.35:
        return rng.choice(ODD)
    return rng.choice(STEMS) + rng.choice(ENDINGS)


def text(n=8):
    return rng.choice([" ", "  ", "-", ""] if rng.random() < 0.1 else [" "]).join(word() for _ in range(rng.randrange(n)))


def related(other):
    words = other.split()
    rng.shuffle(words)
    return " ".join(w for w in words if rng.random() < 0.8) + " " + text(3)


def normalize(s):
    s = "".join(c for c in s.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", s).split()


def f1(p, g, v2):
    if v2 and (not p or not g):
        return float(p == g)
    same = sum((Counter(p) & Counter(g)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(p), same / len(g)
    return 2 * precision * recall / (precision + recall)


def squad():
    prediction = text()
    golds = [related(prediction) if rng.random() < 0.7 else text() for _ in range(rng.randrange(1, 4))]
    p, g = normalize(prediction), [normalize(x) for x in golds]
    g2 = [x for x in g if x] or [[]]
    return ({"prediction": prediction, "golds": golds},
            {"exact_match_v1": p in g, "f1_v1": max(f1(p, x, False) for x in g),
             "exact_match_v2": p in g2, "f1_v2": max(f1(p, x, True) for x in g2)})


scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def rouge():
    prediction = text(12)
    targets = [related(prediction) if rng.random() < 0.7 else text(12) for _ in range(rng.randrange(1, 3))]
    return {"prediction": prediction, "golds": targets}, {"f1": scorer.score_multi(targets, prediction)["rougeL"].fmeasure}


def trec():
    # Scores with few digits: many ties, and equal as 32-bit and 64-bit numbers.
    docs = [f"d{i}" for i in range(12)]
    grades = {d: rng.choice([-1, 0, 0, 1, 2, 3]) for d in rng.sample(docs, 6)}
    run = {d: rng.randrange(8) / 4 for d in rng.sample(docs, rng.randrange(1, 12))}
    wanted = {"map", "recip_rank", "recall.1,3,10", "ndcg", "ndcg_cut.1,3,10"}
    got = pytrec_eval.RelevanceEvaluator({"q": grades}, wanted).evaluate({"q": run})["q"]
    return {"grades": grades, "run": run}, got


def labels():
    names = ["a", "b", "c", "d"]
    gold = [rng.choice(names) for _ in range(rng.randrange(1, 15))]
    predicted = [rng.choice(names + [g] * 3) for g in gold]
    each = f1_score(gold, predicted, average=None, zero_division=0)
    return {"gold": gold, "predicted": predicted}, {"macro_f1": f1_score(gold, predicted, average="macro", zero_division=0), "f1": list(each)}


for i in range(10_000):
    kind = [squad, squad, rouge, rouge, trec, labels][i % 6] if i % 5 == 0 else [squad, rouge, trec][i % 3]
    case, expected = kind()
    print(json.dumps({"kind": kind.__name__, "input": case, "expected": expected}))
