"""Finds special tokens in text, before the rest of the text is tokenized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# What C's isspace() accepts in the default locale.
_ASCII_SPACES = " \t\n\v\f\r"


@dataclass(frozen=True)
class SpecialToken:
    """A token that is matched by its literal text."""

    token: int
    text: str
    only_when_parsing: bool  # control tokens; user-defined tokens are matched in any text
    strip_left: bool = False
    strip_right: bool = False


class SpecialTokenSplitter:
    """Splits text at special tokens.

    Longer tokens are matched first, over the whole text: a long token wins against a shorter one
    that overlaps it, even when the shorter one begins earlier.
    """

    def __init__(self, tokens: list[SpecialToken]) -> None:
        self._tokens = sorted(tokens, key=lambda special: -len(special.text.encode()))

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """Pieces of text and token ids, in order; no piece is empty."""
        parts: list[str | int] = [text] if text else []
        for special in self._candidates(text, parse_special):
            if special.text not in text:
                continue
            parts = [
                piece
                for part in parts
                for piece in (_cut(part, special) if isinstance(part, str) else (part,))
            ]
        return parts

    def _candidates(self, text: str, parse_special: bool) -> Iterator[SpecialToken]:
        """Tokens whose first two characters occur: vocabularies have up to thousands of them."""
        present: dict[str, bool] = {}
        for special in self._tokens:
            if special.only_when_parsing and not parse_special:
                continue
            start = special.text[:2]
            if start not in present:
                present[start] = start in text
            if present[start]:
                yield special


def _cut(text: str, special: SpecialToken) -> Iterator[str | int]:
    begin = 0
    while True:
        found = text.find(special.text, begin)
        if found < 0:
            break
        left = text[begin:found]
        if special.strip_left:
            left = left.rstrip(_ASCII_SPACES)
        if left:
            yield left
        yield special.token
        begin = found + len(special.text)
        while special.strip_right and begin < len(text) and text[begin] in _ASCII_SPACES:
            begin += 1
    if begin < len(text):
        yield text[begin:]
