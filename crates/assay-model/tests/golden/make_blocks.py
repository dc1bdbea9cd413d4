"""Blocks of every quantisation and what they stand for, by the gguf package.

    python make_blocks.py blocks.gguf

Needs numpy and gguf. Per format `q.NAME [2, 256]` in it and `f.NAME [2, 256]` in f32. The blocks are random
bytes, but for their half-precision scales, which are small numbers.
"""

import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, GGUFWriter
from gguf.quants import dequantize, quantize

# Name: offsets of the half-precision scales within a block.
SCALES = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "Q2_K": [80, 82],
    "Q3_K": [108],
}


def main():
    rng = np.random.default_rng(1)
    writer = GGUFWriter(sys.argv[1], "blocks")
    for name, offsets in SCALES.items():
        kind = Type[name]
        values, size = GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (2 * 256 // values, size), dtype=np.uint8)
        for offset in offsets:
            scale = rng.uniform(-0.1, 0.1, (len(blocks), 1)).astype(np.float16)
            blocks[:, offset : offset + 2] = scale.view(np.uint8)
        blocks = blocks.reshape(2, -1)
        writer.add_tensor(f"q.{name}", blocks, raw_dtype=kind)
        writer.add_tensor(f"f.{name}", dequantize(blocks, kind))
    for name in ("F16", "BF16"):
        kind = Type[name]
        blocks = quantize(rng.standard_normal((2, 256), dtype=np.float32), kind)
        writer.add_tensor(f"q.{name}", blocks, raw_dtype=kind)
        writer.add_tensor(f"f.{name}", dequantize(blocks, kind).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
