"""The profile of a model: what calibration text says about every expert. See docs/bitwidth.md."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bitwidth.array_file import checksum_of, read_arrays, write_arrays
from edgemoe.errors import ModelFormatError, UnsupportedModelError

FORMAT = "edgemoe-profile"
VERSION = 1
MATRICES = ("gate", "up", "down")

Array = npt.NDArray[Any]

_DIMENSIONS = ("num_layers", "num_experts", "num_used", "width", "expert_width", "tokens")
_MOST = 1 << 31
# Type and shape of each array; names are keys of meta, numbers are sizes, None is any size.
_SHAPES: dict[str, tuple[type[np.generic], tuple[str | int | None, ...]]] = {
    "counts": (np.int64, ("num_layers", "num_experts")),
    "mass": (np.float64, ("num_layers", "num_experts")),
    "mass_squared": (np.float64, ("num_layers", "num_experts")),
    "reached": (np.bool_, ("num_layers", "num_experts")),
    "input_importance": (np.float32, ("num_layers", "num_experts", "width")),
    "hidden_importance": (np.float32, ("num_layers", "num_experts", "expert_width")),
    "gate_row_weight": (np.float32, ("num_layers", "num_experts", "expert_width")),
    "up_row_weight": (np.float32, ("num_layers", "num_experts", "expert_width")),
    "error": (np.float64, ("num_layers", "num_experts", 3, "candidates")),
    "routes": (np.int16, ("tokens", "num_layers", "num_used")),
    "route_starts": (np.int64, (None,)),
    "input_upper": (np.float32, ("num_layers", None, None, None)),
    "input_pivots": (np.float32, ("num_layers", None, None)),
    "input_diagonal": (np.float32, ("num_layers", None, None)),
    "hidden_upper": (np.float32, ("num_layers", None, None, None)),
    "hidden_pivots": (np.float32, ("num_layers", None, None)),
    "hidden_diagonal": (np.float32, ("num_layers", None, None)),
    "held_out": (np.int32, (None, None)),
    "held_out_text": (np.int32, (None,)),
    "output_power": (np.float64, ("num_layers",)),
    "residual_power": (np.float64, ("num_layers",)),
}


@dataclass(frozen=True)
class Profile:
    """Arrays of L layers and E experts; dense layers hold zeros.

    meta               what was measured and how, see docs/bitwidth.md
    counts             [L, E] tokens that used the expert
    mass               [L, E] sum of their routing weights
    mass_squared       [L, E] sum of the squared weights of its output, prior tokens included
    reached            [L, E] whether enough tokens used it to know it
    input_importance   [L, E, width] for each input channel of gate and up
    hidden_importance  [L, E, expert_width] for each input channel of down
    gate_row_weight, up_row_weight  [L, E, expert_width] for each row of gate and up
    error              [L, E, 3, candidates] squared output error that each type would cause as
                       that of gate, up or down alone; infinity where it cannot hold the matrix
    routes             [tokens, L, num_used] the experts of each token, best first, -1: dense layer
    route_starts       the tokens that begin a window
    input_upper, input_pivots, input_diagonal  [L, C, width, width], [L, C, width] twice: factors
                       of the covariance of the inputs, and its diagonal; C is E, 1 (of the layer's
                       inputs, for all its experts) or 0. See covariance.py
    hidden_upper, hidden_pivots, hidden_diagonal  [L, C, expert_width, ...] of hidden units
    held_out           [windows, context] tokens that took no part, to measure plans on
    held_out_text      [windows] the text that each is of, an index into meta's texts
    output_power       [L] mean squared norm of what the layer's experts add
    residual_power     [L] mean squared norm of the stream that it is added to
    """

    meta: Mapping[str, Any]
    counts: Array
    mass: Array
    mass_squared: Array
    reached: Array
    input_importance: Array
    hidden_importance: Array
    gate_row_weight: Array
    up_row_weight: Array
    error: Array
    routes: Array
    route_starts: Array
    input_upper: Array
    input_pivots: Array
    input_diagonal: Array
    hidden_upper: Array
    hidden_pivots: Array
    hidden_diagonal: Array
    held_out: Array
    held_out_text: Array
    output_power: Array
    residual_power: Array

    @property
    def candidates(self) -> tuple[str, ...]:
        return tuple(self.meta["candidates"])

    @property
    def moe_layers(self) -> list[int]:
        return [layer for layer in range(len(self.counts)) if self.counts[layer].any()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file; it takes its name when it is whole. Raises ReadError."""
        arrays = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "meta"}
        write_arrays(os.fspath(path), {"meta": encoded_meta(self.meta), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Profile:
        """Reads a profile; its arrays are mapped into memory, read-only.

        Raises ReadError when it cannot be read, ModelFormatError when it is damaged or no profile,
        UnsupportedModelError when it is of a later version.
        """
        name = os.fspath(path)
        arrays = read_arrays(name, verify=verify)
        meta = decoded_meta(name, arrays.pop("meta", None), FORMAT, VERSION)
        _check(name, meta, arrays)
        return cls(meta, **{key: arrays[key] for key in _SHAPES})


def profile_checksum(path: str | os.PathLike[str]) -> str:
    """What a plan keeps to know the profile again that it was made from."""
    return checksum_of(os.fspath(path))


def encoded_meta(meta: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    text = json.dumps(meta, sort_keys=True, ensure_ascii=False)
    return np.frombuffer(text.encode("utf-8", "backslashreplace"), dtype=np.uint8)


def decoded_meta(path: str, data: Array | None, form: str, version: int) -> dict[str, Any]:
    """The JSON of an array file. Raises as Profile.load does."""
    try:
        if data is None or data.dtype != np.uint8:
            raise ValueError("there is no meta")
        meta = json.loads(data.tobytes())
        if not isinstance(meta, dict) or meta.get("format") != form:
            raise ValueError(f"meta does not say format {form}")
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: is no {form} ({error})") from None
    found = meta.get("version")
    if found != version:
        raise UnsupportedModelError(
            f"{path}: is {form} of version {found}; this edgemoe reads version {version}"
        )
    return meta


def _check(path: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    def fail(problem: str) -> None:
        raise ModelFormatError(f"{path}: {problem}; make the profile anew")

    sizes: dict[str, int] = {}
    for key in _DIMENSIONS:
        value = meta.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
            fail(f"meta has no sensible {key}")
        sizes[key] = int(meta[key])
    names = meta.get("candidates")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        fail("meta has no list of candidates")
    sizes["candidates"] = len(meta["candidates"])
    for name, (dtype, dimensions) in _SHAPES.items():
        if name not in arrays:
            fail(f"array {name} is missing")
        array = arrays[name]
        wanted = tuple(sizes[one] if isinstance(one, str) else one for one in dimensions)
        fits = len(array.shape) == len(wanted) and all(
            size in (None, found) for size, found in zip(wanted, array.shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            fail(f"array {name} is {array.dtype} {list(array.shape)}")
    _check_values(arrays, sizes, fail)


def _check_values(arrays: Mapping[str, Array], sizes: Mapping[str, int], fail: Any) -> None:
    for name in ("counts", "mass", "mass_squared", "error", "output_power", "residual_power"):
        values = arrays[name]
        if np.isnan(values).any() or (values < 0).any():
            fail(f"array {name} has a value that is negative or no number")
    for name in ("input_importance", "hidden_importance", "gate_row_weight", "up_row_weight"):
        for layer in arrays[name]:  # one at a time: they are large
            if not np.isfinite(layer).all() or (layer < 0).any():
                fail(f"array {name} has a value that is negative or not finite")
    routes, starts = arrays["routes"], arrays["route_starts"]
    if routes.size and (routes.min() < -1 or routes.max() >= sizes["num_experts"]):
        fail("array routes names an expert that the model lacks")
    if len(starts) and (
        starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= sizes["tokens"]
    ):
        fail("array route_starts is not in order")
