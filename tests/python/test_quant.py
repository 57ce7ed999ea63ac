"""Dequantisation equals gguf-py's bit for bit; the in-memory layout is a permutation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from edgemoe._core import testing

TYPES = {name: (ggml_id, elements, size) for name, ggml_id, elements, size in testing.quant_types()}
# gguf-py does not decode these two.
OWN = {"Q1_0", "Q2_0"}


def random_blocks(name: str, count: int) -> np.ndarray:
    size = TYPES[name][2]
    return np.random.default_rng(len(name) * 1000 + count).integers(
        0, 256, (count, size), dtype=np.uint8
    )


@pytest.mark.parametrize("name", sorted(set(TYPES) - OWN))
def test_dequantisation_equals_gguf_py(name: str) -> None:
    ggml_id, elements, _ = TYPES[name]
    # Random bytes: scales of any value, infinities and NaN among them.
    data = random_blocks(name, 65536 if elements == 1 else 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = quants.dequantize(data, GGMLQuantizationType(ggml_id)).reshape(-1)
    expected = expected.astype(np.float32)
    found = testing.dequantize(name, data.tobytes(), data.shape[0] * elements)
    same = expected.view(np.uint32) == found.view(np.uint32)
    assert (same | (np.isnan(expected) & np.isnan(found))).all()


def test_q1_0_is_a_sign_per_bit() -> None:
    block = np.float16(0.5).tobytes() + bytes([0b00000101]) + bytes(15)
    found = testing.dequantize("Q1_0", block, 128)
    assert found[:4].tolist() == [0.5, -0.5, 0.5, -0.5]
    assert (found[4:] == -0.5).all()


def test_q2_0_is_two_bits_less_one() -> None:
    block = np.float16(2.0).tobytes() + bytes([0b11100100]) + bytes(15)
    found = testing.dequantize("Q2_0", block, 64)
    assert found[:4].tolist() == [-2.0, 0.0, 2.0, 4.0]
    assert (found[4:] == -2.0).all()


@pytest.mark.parametrize("name", sorted(TYPES))
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 21])
def test_regrouping_is_undone_by_ungrouping(name: str, rows: int) -> None:
    _, elements, _ = TYPES[name]
    columns = 3 * max(elements, 256)
    data = random_blocks(name, rows * columns // elements).tobytes()
    grouped = testing.regroup(name, data, rows, columns)
    assert sorted(grouped) == sorted(data)
    assert testing.ungroup(name, grouped, rows, columns) == data
