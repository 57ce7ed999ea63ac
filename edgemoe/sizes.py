"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

from edgemoe.errors import ArgumentError

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of "4GiB", "1.5G", "512MB" or "4096"; units are binary.

    Raises ArgumentError for anything else.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ArgumentError(f"{text!r} is not a size; write for instance 4GiB, 1.5GiB or 800MiB")
    size = int(float(match[1]) * _UNITS[match[2].lower()])
    if size >= 1 << 62:
        raise ArgumentError(f"{text!r} is larger than any memory")
    return size


def parse_memory(memory: str | int) -> str | int:
    """The memory option: "auto", "min", or a size as text or number.

    Raises ArgumentError for anything else.
    """
    if isinstance(memory, int) and not isinstance(memory, bool):
        if memory <= 0:
            raise ArgumentError(f"memory is {memory}; a budget is a positive number of bytes")
        if memory >= 1 << 62:
            raise ArgumentError("memory is a number of bytes that is larger than any memory")
        return memory
    if not isinstance(memory, str):
        raise ArgumentError(
            f"memory is {str(memory)[:40]} ({type(memory).__name__}); "
            "give 'auto', 'min', a size such as '4GiB', or a whole number of bytes"
        )
    return memory if memory in ("auto", "min") else parse_size(memory)


def format_size(size: float) -> str:
    """ "1.50 GiB": three significant digits."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    index = 0
    while size >= 1024 and index + 1 < len(units):
        size /= 1024
        index += 1
    digits = 0 if index == 0 or size >= 100 else 1 if size >= 10 else 2
    return f"{size:.{digits}f} {units[index]}"
