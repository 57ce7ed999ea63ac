"""Characters that a SentencePiece vocabulary replaces before it cuts a text: its "charsmap".

Four bytes with the size of a trie; the trie, a double array (Darts) of 32-bit units over the UTF-8
bytes of what is replaced; and what it is replaced with, strings that end with a zero byte. The
longest match counts. Everything is untrusted: a place outside the trie matches nothing.
"""

from __future__ import annotations

import struct

from edgemoe.errors import ModelFormatError
from edgemoe.text.metadata import Metadata

_KEY = "tokenizer.ggml.precompiled_charsmap"
_VALUE_BITS = 0x7FFFFFFF
_LABEL_BITS = 0x800000FF  # of a unit that is no leaf: its byte


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


class Replacements:
    """Immutable, and safe to share between threads."""

    def __init__(self, charsmap: bytes) -> None:
        size = int.from_bytes(charsmap[:4], "little")
        if len(charsmap) < 4 or size % 4 != 0 or size > len(charsmap) - 4 or size == 0:
            raise ModelFormatError(f"{_KEY} does not hold the trie that it begins with")
        self._units = struct.unpack_from(f"<{size // 4}I", charsmap, 4)
        self._texts = charsmap[4 + size :]

    @staticmethod
    def from_metadata(metadata: Metadata) -> Replacements | None:
        """None when the file has none."""
        values = metadata.raw_bytes(_KEY)
        return None if not values else Replacements(values)

    def apply(self, text: str) -> str:
        """The text with every longest match replaced."""
        data = text.encode()
        parts = []
        kept = place = 0  # data[kept:place] stays as it is
        while place < len(data):
            found = self._longest(data, place)
            if found is None:
                place += _character_bytes(data[place])
                continue
            length, replacement = found
            parts += [data[kept:place], replacement]
            place += length
            kept = place
        parts.append(data[kept:])
        return b"".join(parts).decode("utf-8", "replace")

    def _longest(self, data: bytes, place: int) -> tuple[int, bytes] | None:
        units = self._units
        node = _offset(units[0])
        value = None
        length = 0
        for end in range(place, len(data)):
            node ^= data[end]
            if node >= len(units) or units[node] & _LABEL_BITS != data[end]:
                break
            unit = units[node]
            node ^= _offset(unit)
            if unit >> 8 & 1 and node < len(units):
                value, length = units[node] & _VALUE_BITS, end - place + 1
        if value is None:
            return None
        text_end = self._texts.find(b"\0", value)
        return length, self._texts[value : text_end if text_end >= 0 else len(self._texts)]


def _character_bytes(first: int) -> int:
    """Of the UTF-8 character that begins so."""
    if first < 0x80:
        return 1
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4
