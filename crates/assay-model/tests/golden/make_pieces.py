"""A small SentencePiece vocabulary as Llama 2 has it, and what sentencepiece makes of texts.

    python make_pieces.py > pieces.json

Needs sentencepiece. Byte-pair encoding with bytes for what is unknown and a space before every text.
"""

import io
import json

import sentencepiece
from make_decoder import TEXTS

MORE = ["   three spaces, then  two", "aaaaaaaaaaaaaaaaaaaa", "\u2581 a block", "tab\there\nand there"]
# Control, byte and other tokens in the numbers of GGUF.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def main():
    model = io.BytesIO()
    # Other letters than these are left to the bytes.
    corpus = [t.replace("\n", " ") for t in TEXTS if t.strip() and t.isascii()] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["fn main()"],
        num_threads=1,
        minloglevel=2,
    )
    words = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(words.get_piece_size())

    def kind(i):
        if words.is_unknown(i):
            return UNKNOWN
        if words.is_control(i):
            return CONTROL
        if words.is_byte(i):
            return BYTE
        return USER_DEFINED if words.id_to_piece(i) == "fn main()" else NORMAL

    # A literal inside a text is left to llama.cpp's reading, which differs from sentencepiece's.
    texts = [t for t in TEXTS + MORE if "fn main()" not in t]
    golden = {
        "tokens": [words.id_to_piece(i) for i in ids],
        "scores": [words.get_score(i) for i in ids],
        "types": [kind(i) for i in ids],
        "texts": [{"text": t, "ids": words.encode(t), "decoded": words.decode(words.encode(t))} for t in texts],
    }
    print(json.dumps(golden))


if __name__ == "__main__":
    main()
