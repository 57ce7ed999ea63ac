"""Importance matrices as llama.cpp's tools write them: GGUF, and the older .dat form.

Both hold, for each tensor, the mean squared activation that every column meets; a stack of experts
has one row for each expert. Files come from anywhere, so everything in them is checked.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.errors import ModelFormatError, ReadError

Floats = npt.NDArray[np.float32]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_ENTRIES = 1 << 18
_MAX_NAME_BYTES = 4096
_MAX_VALUES = 1 << 28


def read_imatrix(path: str) -> dict[str, Floats]:
    """Tensor name -> importance of its columns [matrices * columns]; zeros where nothing was seen.

    Raises ReadError and ModelFormatError.
    """
    try:
        with open(path, "rb") as file:
            is_gguf = file.read(4) == b"GGUF"
            return _read_gguf(path) if is_gguf else _read_dat(path, file)
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from None


def _fail(path: str, what: str) -> NoReturn:
    raise ModelFormatError(f"{path}: is no importance matrix that can be used: {what}")


def _checked(path: str, name: str, values: Floats) -> Floats:
    if not np.isfinite(values).all() or (values < 0).any():
        _fail(path, f"the values of {name!r} are not finite numbers of 0 or more")
    return values


def _read_gguf(path: str) -> dict[str, Floats]:
    file = _core.GgufFile(path)
    places = {}
    for name, type_, shape, shard, offset, size in file.tensors():
        if not name.endswith((_SUMS, _COUNTS)):
            continue
        if type_ != "F32":
            _fail(path, f"tensor {name!r} is {type_}, not F32")
        places[name] = (file.paths[shard], shape, offset, size // 4)

    def values(name: str) -> Floats:
        shard_path, _, offset, count = places[name]
        return np.fromfile(shard_path, dtype="<f4", count=count, offset=offset)

    found = {}
    for name in places:
        if not name.endswith(_SUMS):
            continue
        tensor = name.removesuffix(_SUMS)
        if tensor + _COUNTS not in places:
            _fail(path, f"tensor {tensor!r} has sums without counts")
        sums, counts = values(name), values(tensor + _COUNTS)
        if len(sums) % len(counts) != 0 or not np.isfinite(counts).all() or (counts < 0).any():
            _fail(path, f"the counts of {tensor!r} do not fit its sums")
        rows = sums.reshape(len(counts), -1)
        means = np.divide(rows, counts[:, None], out=np.zeros_like(rows), where=counts[:, None] > 0)
        found[tensor] = _checked(path, tensor, means.reshape(-1))
    if not found:
        _fail(path, f"it has no tensors NAME{_SUMS}")
    return found


def _read_dat(path: str, file: BinaryIO) -> dict[str, Floats]:
    """Entries of name, number of calls, and values that are sums over the calls."""
    file.seek(0)

    def number(what: str, least: int, most: int) -> int:
        data = file.read(4)
        if len(data) < 4:
            _fail(path, f"it ends in {what}")
        value: int = struct.unpack("<i", data)[0]
        if not least <= value <= most:
            _fail(path, f"{what} is {value} at offset {file.tell() - 4}")
        return value

    found = {}
    for index in range(number("the number of entries", 1, _MAX_ENTRIES)):
        where = f"entry {index + 1}"
        name_bytes = file.read(number(f"the length of the name of {where}", 1, _MAX_NAME_BYTES))
        name = name_bytes.rstrip(b"\0").decode("utf-8", "replace")
        calls = number(f"the calls of {where}", 0, (1 << 31) - 1)
        count = number(f"the number of values of {where}", 1, _MAX_VALUES)
        values = np.fromfile(file, dtype="<f4", count=count)
        if len(values) < count:
            _fail(path, f"it ends in the values of {where}")
        if name in found:
            _fail(path, f"{name!r} appears twice")
        means = (values / max(calls, 1) * (calls > 0)).astype(np.float32)
        found[name] = _checked(path, name, means)
    return found
