"""Quantisers against gguf-py's, which writes and reads the same types, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from edgemoe import ArgumentError, _core

BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"]
SUPER_BLOCKS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]
GRIDS = ["IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS"]  # bits per weight fall
FLOATS = ["F32", "F16", "BF16"]
ALL = FLOATS + BLOCKS + SUPER_BLOCKS + GRIDS
# gguf-py writes these as well; MXFP4 it does with a fixed rule for the scale.
PEER = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]
ROWS, COLUMNS = 24, 1024


def weights(kind: str) -> np.ndarray:
    random = np.random.default_rng(len(kind))
    if kind == "gaussian":
        found = random.standard_normal((ROWS, COLUMNS)) * 0.02
    else:
        found = random.standard_t(3, (ROWS, COLUMNS)) * 0.02
    return found.astype(np.float32)


def importance() -> np.ndarray:
    return (np.random.default_rng(1).standard_gamma(0.5, COLUMNS) + 1e-3).astype(np.float32)


def squared_error(wanted: np.ndarray, found: np.ndarray, column: np.ndarray | None = None) -> float:
    difference = wanted.astype(np.float64) - found
    weighted = difference**2 if column is None else difference**2 * column
    return float(weighted.sum())


def peer_dequantized(name: str, data: bytes) -> np.ndarray:
    rows = np.frombuffer(data, dtype=np.uint8).reshape(ROWS, -1)
    return quants.dequantize(rows, GGMLQuantizationType[name]).astype(np.float32)


@pytest.mark.parametrize("name", BLOCKS + SUPER_BLOCKS + GRIDS)
@pytest.mark.parametrize("kind", ["gaussian", "heavy tails"])
def test_gguf_py_reads_what_was_written(name: str, kind: str) -> None:
    wanted = weights(kind)
    for column in (None, importance()):
        data = _core.quantize(name, wanted, column)
        ours = _core.dequantize(name, data, ROWS, COLUMNS)
        assert (ours.view(np.uint32) == peer_dequantized(name, data).view(np.uint32)).all()
        assert squared_error(wanted, ours, column) < 0.3 * squared_error(wanted, 0 * ours, column)


@pytest.mark.parametrize("name", PEER)
@pytest.mark.parametrize("kind", ["gaussian", "heavy tails"])
def test_the_error_is_not_above_that_of_gguf_py(name: str, kind: str) -> None:
    wanted = weights(kind)
    peer = quants.dequantize(
        quants.quantize(wanted, GGMLQuantizationType[name]), GGMLQuantizationType[name]
    )
    for column in (None, importance()):
        ours = _core.dequantize(name, _core.quantize(name, wanted, column), ROWS, COLUMNS)
        assert squared_error(wanted, ours, column) <= 1.01 * squared_error(wanted, peer, column)


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_written_as_gguf_py_does(name: str) -> None:
    wanted = weights("gaussian")
    data = np.frombuffer(_core.quantize(name, wanted), dtype=np.uint8).reshape(ROWS, -1)
    peer = quants.quantize(wanted, GGMLQuantizationType[name])
    assert (data == np.ascontiguousarray(peer).view(np.uint8)).all()


def test_more_bits_lose_less() -> None:
    wanted = weights("gaussian")

    def error(name: str) -> float:
        data = _core.quantize(name, wanted, importance())
        return squared_error(wanted, _core.dequantize(name, data, ROWS, COLUMNS), importance())

    for falling in (GRIDS[::-1], SUPER_BLOCKS[:5], ["Q4_0", "Q5_0", "Q8_0"], ["Q4_1", "Q5_1"]):
        errors = [error(name) for name in falling]
        assert errors == sorted(errors, reverse=True), falling


@pytest.mark.parametrize("name", ALL)
def test_threads_do_not_change_the_bytes(name: str) -> None:
    wanted = np.tile(weights("gaussian"), (8, 1))
    one = _core.quantize(name, wanted, importance(), threads=1)
    assert _core.quantize(name, wanted, importance(), threads=3) == one
    assert _core.quantize(name, wanted, importance()) == one


def test_an_empty_matrix_has_no_bytes() -> None:
    assert _core.quantize("Q4_K", np.zeros((0, 256), np.float32)) == b""
    assert _core.dequantize("Q4_K", b"", 0, 256).shape == (0, 256)


def test_arrays_of_any_order_and_float_type_are_taken() -> None:
    wanted = weights("gaussian")
    plain = _core.quantize("Q4_0", wanted)
    assert _core.quantize("Q4_0", np.asfortranarray(wanted)) == plain
    assert _core.quantize("Q4_0", wanted.astype(np.float64)) == plain


def refusal(*arguments: object) -> str:
    with pytest.raises(ArgumentError) as caught:
        _core.quantize(*arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_cannot_be_quantised_is_refused_by_name() -> None:
    wanted = weights("gaussian")
    message = refusal("IQ1_S", wanted)
    assert "IQ1_S" in message and all(name in message for name in ALL)
    assert "nonsense" in refusal("nonsense", wanted)
    assert "256" in refusal("Q4_K", wanted[:, :100])
    assert "dimensions" in refusal("Q4_K", wanted[0])
    assert "array" in refusal("Q4_K", "text")
    assert "1024 columns" in refusal("Q4_K", wanted, np.ones(3, np.float32))
    assert "array" in refusal("Q4_K", wanted, "text")
    with pytest.raises(ArgumentError, match="nonsense"):
        _core.dequantize("nonsense", b"", 1, 256)
    with pytest.raises(ArgumentError, match="143 bytes"):
        _core.dequantize("Q4_K", bytes(143), 1, 256)
    with pytest.raises(ArgumentError, match="256"):
        _core.dequantize("Q4_K", b"", 1, 100)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_with_their_row(bad: float) -> None:
    wanted = weights("gaussian")
    wanted[17, 5] = bad
    wanted[20, 5] = bad
    assert "row 17" in refusal("Q4_K", wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-9])
def test_bad_importance_is_refused_with_its_column(bad: float) -> None:
    column = importance()
    column[33] = bad
    assert "column 33" in refusal("Q4_K", weights("gaussian"), column)


def test_the_list_of_quantisers() -> None:
    names = [name for name, *_ in _core.testing.quant_types() if _core.can_quantize(name)]
    assert sorted(names) == sorted(ALL)
    assert not _core.can_quantize("nonsense")
