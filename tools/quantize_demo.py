#!/usr/bin/env python3
"""Quantises the demo model for the package: experts Q4_K, everything else Q6_K (at most 14 MB).

    quantize_demo.py LLAMA_QUANTIZE F16.gguf OUT.gguf

LLAMA_QUANTIZE is the program of llama.cpp: gguf-py cannot write these types.
docs/demo-model.md says why these, and what they cost.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAX_BYTES = 14_000_000
TYPES = (
    ("--token-embedding-type", "q6_K"),
    ("--output-tensor-type", "q6_K"),
    ("--tensor-type", "attn=q6_K"),
    ("--tensor-type", "ffn_.*_exps=q4_K"),
)


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    program, source, out = sys.argv[1:]
    options = [word for option in TYPES for word in option]
    subprocess.run([program, *options, source, out, "Q4_K_S"], check=True)
    size = Path(out).stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{out} has {size} bytes; the package carries at most {MAX_BYTES}")


if __name__ == "__main__":
    main()
