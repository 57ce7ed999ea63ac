"""Typed, checked access to the metadata values of a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ModelFormatError


class Metadata:
    """Reads keys from untrusted metadata; a value of the wrong type is a ModelFormatError.

    Strings may carry surrogate escapes for bytes that are not UTF-8. Arrays of strings are
    lists of bytes, arrays of numbers are NumPy arrays.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        if not isinstance(value, str):
            raise _wrong_type(key, "a string", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, (bool, np.bool_)):
            raise _wrong_type(key, "a boolean", value)
        return bool(value)

    def integer(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise _wrong_type(key, "an integer", value)
        return int(value)

    def strings(self, key: str) -> Sequence[bytes] | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, bytes) for item in value):
            raise _wrong_type(key, "an array of strings", value)
        return value

    def raw_bytes(self, key: str) -> bytes | None:
        """An array of whole numbers from 0 to 255, or of signed bytes."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iu":
            raise _wrong_type(key, "an array of bytes", value)
        if value.size and not -128 <= int(value.min()) <= int(value.max()) <= 255:
            raise _wrong_type(key, "an array of bytes", value)
        return value.astype(np.int64).astype(np.uint8).tobytes()

    def integers(self, key: str, count: int) -> npt.NDArray[np.int64] | None:
        """At least `count` whole numbers, cut to `count`."""
        array = self._numbers(key, count)
        if array is None:
            return None
        if array.dtype.kind not in "iu":
            raise _wrong_type(key, "an array of whole numbers", self._values[key])
        return array.astype(np.int64)

    def floats(self, key: str, count: int) -> npt.NDArray[np.float32] | None:
        """At least `count` finite numbers, cut to `count`."""
        array = self._numbers(key, count)
        if array is None:
            return None
        floats = array.astype(np.float32)
        if not bool(np.isfinite(floats).all()):
            raise ModelFormatError(
                f"{key} holds a value that is not a finite number; the file is damaged"
            )
        return floats

    def _numbers(self, key: str, count: int) -> npt.NDArray[np.generic] | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iuf":
            raise _wrong_type(key, "an array of numbers", value)
        if value.size < count:
            raise ModelFormatError(
                f"{key} has {value.size} entries for {count} tokens; the file is damaged"
            )
        return value[:count]


def _wrong_type(key: str, wanted: str, value: object) -> ModelFormatError:
    return ModelFormatError(
        f"{key} must be {wanted}, found {type(value).__name__}; the file is damaged or was "
        "written by a broken converter"
    )
