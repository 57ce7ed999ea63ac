"""The JSON files of a checkpoint folder, typed and checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from edgemoe.errors import ModelFormatError
from edgemoe.input_file import read_at_most

_MAX_BYTES = 64 << 20
_MAX_COUNT = 1 << 30


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ReadError or ModelFormatError naming the file."""
    data = read_at_most(path, _MAX_BYTES)
    if data is None:
        raise ModelFormatError(f"{path}: is larger than {_MAX_BYTES} bytes; it is no such file")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ModelFormatError(f"{path}: is not valid JSON; the file is damaged") from None
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path}: does not hold a JSON object")
    return value


class ConfigFile:
    """Values by key; a missing key or one of the wrong kind is a ModelFormatError naming both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = read_json(path)

    def refuse(self, key: str, what: str) -> ModelFormatError:
        return ModelFormatError(f"{self.path}: key '{key}' {what}")

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def _value(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        if value is not None:
            return value
        if default is None:
            raise self.refuse(key, "is missing")
        return default

    def count(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number from `least` on."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(key, "is not a whole number")
        if not least <= value <= _MAX_COUNT:
            raise self.refuse(key, f"is {value}, which is out of range")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(key, "is not a number")
        if not math.isfinite(value) or abs(value) > 1e30:
            raise self.refuse(key, f"is {value}, which is out of range")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, "is not a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "is neither true nor false")
        return value
