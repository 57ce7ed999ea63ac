#!/usr/bin/env python3
"""Compares the quantisers with ggml's: error on the same rows and importance, and speed.

    bench/compare_quantizers.py LIBGGML [--model MODEL] [--types Q4_K IQ3_S ...]

prints, per type, our importance-weighted squared error divided by that of `ggml_quantize_chunk`
(below 1 is better), with equal importance and with random importance, for Gaussian weights, for
heavy tails (Student's t with 3 degrees of freedom) and for expert matrices of MODEL (F16, F32 or
BF16; the demo model's type does as well, by its dequantised values), and the speed of both on one
thread, in million weights per second of processor time.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gguf import GGUFReader, quants

from edgemoe import _core

ROWS, COLUMNS = 64, 2048
TYPES = {name: ggml_id for name, ggml_id, *_ in _core.testing.quant_types()}
DEFAULT_TYPES = [
    name
    for name, _, block, _ in _core.testing.quant_types()
    if _core.can_quantize(name) and block > 1
]


class InitParameters(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = [
        ("memory_bytes", ctypes.c_size_t),
        ("memory", ctypes.c_void_p),
        ("no_allocation", ctypes.c_bool),
    ]


class Ggml:
    """The part of libggml that quantises."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.ggml_init.argtypes = [InitParameters]
        self.library.ggml_init.restype = ctypes.c_void_p
        # Fills the tables of half floats, without which scales are zero.
        self.library.ggml_init(InitParameters(1 << 20, None, False))
        self.library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
        chunk = self.library.ggml_quantize_chunk
        chunk.restype = ctypes.c_size_t
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        chunk.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]

    def needs_importance(self, name: str) -> bool:
        return bool(self.library.ggml_quantize_requires_imatrix(TYPES[name]))

    def quantize(self, name: str, weights: np.ndarray, importance: np.ndarray | None) -> bytes:
        rows, columns = weights.shape
        out = np.zeros(len(_core.quantize(name, weights[:1])) * rows, np.uint8)
        column = None if importance is None else importance.ctypes.data
        self.library.ggml_quantize_chunk(
            TYPES[name], weights.ctypes.data, out.ctypes.data, 0, rows, columns, column
        )
        return out.tobytes()


@dataclass
class Sample:
    name: str
    weights: np.ndarray
    importance: np.ndarray


def samples(model: str | None) -> Iterator[Sample]:
    random = np.random.default_rng(1)

    def sample(name: str, weights: np.ndarray) -> Sample:
        importance = random.standard_gamma(0.5, weights.shape[1]) + 1e-3
        return Sample(
            name, np.ascontiguousarray(weights, np.float32), importance.astype(np.float32)
        )

    yield sample("Gaussian", random.standard_normal((ROWS, COLUMNS)) * 0.02)
    yield sample("Student t", random.standard_t(3, (ROWS, COLUMNS)) * 0.02)
    if model is None:
        return
    for tensor in GGUFReader(model).tensors:
        if ".ffn_down_exps." in tensor.name or ".ffn_gate_exps." in tensor.name:
            rows = quants.dequantize(tensor.data, tensor.tensor_type)
            rows = rows.reshape(-1, rows.shape[-1])
            kind = tensor.name.split(".")[2].removesuffix("_exps").removeprefix("ffn_")
            yield sample(f"model {kind}", rows[:: max(1, len(rows) // ROWS)][:ROWS])
            if kind == "down":
                return


def error(weights: np.ndarray, found: np.ndarray, importance: np.ndarray | None) -> float:
    squares = (weights.astype(np.float64) - found) ** 2
    return float((squares if importance is None else squares * importance).sum())


@dataclass
class Comparison:
    ratio: float
    our_seconds: float
    their_seconds: float


def compare(ggml: Ggml, name: str, sample: Sample, importance: np.ndarray | None) -> Comparison:
    rows, columns = sample.weights.shape
    start = time.process_time()
    ours = _core.quantize(name, sample.weights, importance, threads=1)
    middle = time.process_time()
    theirs = ggml.quantize(name, sample.weights, importance)
    end = time.process_time()
    errors = [
        error(sample.weights, _core.dequantize(name, data, rows, columns), importance)
        for data in (ours, theirs)
    ]
    return Comparison(errors[0] / errors[1], middle - start, end - middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", help="libggml-base.so, or a library that has it inside")
    parser.add_argument("--model", help="GGUF file with experts")
    parser.add_argument("--types", nargs="+", default=DEFAULT_TYPES, metavar="TYPE")
    arguments = parser.parse_args()
    ggml = Ggml(arguments.library)
    data = list(samples(arguments.model))
    heads = [f"{sample.name}{way}" for sample in data for way in ("", " weighted")]
    print("| type | " + " | ".join(heads) + " | M weights/s | ggml's |")
    print("|---|" + "---|" * (len(heads) + 2))
    worst = 0.0
    for name in arguments.types:
        ggml.library.ggml_quantize_init(TYPES[name])  # its tables are not part of the speed
        cells, ours, theirs, weights = [], 0.0, 0.0, 0
        for sample in data:
            for importance in (None, sample.importance):
                if importance is None and ggml.needs_importance(name):
                    cells.append("needs it")
                    continue
                found = compare(ggml, name, sample, importance)
                worst = max(worst, found.ratio)
                ours += found.our_seconds
                theirs += found.their_seconds
                weights += sample.weights.size
                cells.append(f"{found.ratio:.3f}")
        speeds = [f"{weights / 1e6 / max(seconds, 1e-9):.1f}" for seconds in (ours, theirs)]
        print(f"| {name} | " + " | ".join(cells + speeds) + " |", flush=True)
    print(f"\nworst: {worst:.3f}")


if __name__ == "__main__":
    main()
