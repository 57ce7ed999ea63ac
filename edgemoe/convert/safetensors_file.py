"""Reads safetensors files piece by piece: a length, a JSON header, and the bytes of the tensors."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ModelFormatError, ReadError, UnsupportedModelError

_MAX_HEADER_BYTES = 100_000_000  # as the format's own library has it
_COMPARED_BYTES = 4 << 20
_DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of a file: [rows, columns], or [columns] of a vector."""

    path: Path
    name: str
    dtype: str  # F32, F16 or BF16
    shape: tuple[int, ...]
    offset: int  # in the file

    def read_rows(self, first: int, count: int) -> npt.NDArray[np.float32]:
        """Rows [first, first + count) as float32. Raises ReadError."""
        columns = self.shape[-1]
        row_bytes = columns * _DTYPE_BYTES[self.dtype]
        data = bytearray(count * row_bytes)
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset + first * row_bytes)
                got = file.readinto(data)
        except OSError as error:
            raise ReadError(
                f"{self.path}: tensor '{self.name}' cannot be read: {error.strerror or error}"
            ) from None
        if got != len(data):
            raise ModelFormatError(f"{self.path}: tensor '{self.name}' ends early")
        values = np.frombuffer(data, dtype=_DTYPES[self.dtype]).reshape(count, columns)
        if self.dtype == "BF16":  # the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False)


def have_same_values(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether two matrices are equal, read a few rows at a time. Raises ReadError."""
    if one.shape != other.shape:
        return False
    step = max(1, _COMPARED_BYTES // (4 * one.shape[-1]))
    return all(
        np.array_equal(
            one.read_rows(first, min(step, one.shape[0] - first)),
            other.read_rows(first, min(step, one.shape[0] - first)),
        )
        for first in range(0, one.shape[0], step)
    )


def read_entries(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file. Raises ReadError and ModelFormatError naming what is
    wrong, UnsupportedModelError for a type that is no float of 16 or 32 bits."""
    header, data_start, file_bytes = _read_header(path)
    entries = {}
    for name, fields in header.items():
        if name != "__metadata__":
            entries[name] = _entry(path, name, fields, data_start, file_bytes)
    return entries


def _read_header(path: Path) -> tuple[dict[str, object], int, int]:
    try:
        with open(path, "rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            size = int.from_bytes(file.read(8), "little")
            if file_bytes < 8 or size > min(_MAX_HEADER_BYTES, file_bytes - 8):
                raise ModelFormatError(f"{path}: is not a safetensors file, or was cut off")
            text = file.read(size)
    except OSError as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ModelFormatError(f"{path}: its header is not a JSON object; the file is damaged")
    return header, 8 + size, file_bytes


def _entry(path: Path, name: str, fields: object, data_start: int, file_bytes: int) -> TensorEntry:
    where = f"{path}: tensor '{name}'"
    if not isinstance(fields, dict):
        raise ModelFormatError(f"{where} is not described by an object; the file is damaged")
    dtype = fields.get("dtype")
    shape, offsets = _counts(fields.get("shape")), _counts(fields.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise ModelFormatError(f"{where} has no valid shape or data_offsets; the file is damaged")
    if dtype not in _DTYPE_BYTES:
        known = ", ".join(_DTYPE_BYTES)
        raise UnsupportedModelError(f"{where} has the type {dtype!r}; known: {known}")
    begin, end = offsets
    if end - begin != math.prod(shape) * _DTYPE_BYTES[dtype] or data_start + end > file_bytes:
        raise ModelFormatError(
            f"{where} has data_offsets that do not fit its shape or the file; the file is damaged "
            "or was cut off"
        )
    return TensorEntry(path, name, dtype, tuple(shape), data_start + begin)


def _counts(values: object) -> list[int] | None:
    """The values, if they are whole numbers that a file can have."""
    if not isinstance(values, list):
        return None
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 48:
            return None
    return values
