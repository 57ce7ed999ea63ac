"""Bounds the work of a chat template: what it may compute, how large values get, how long it runs.

A template comes with the model file and is not trusted. Every operation that can make a value
larger is charged here first, in units of about one list element or 64 characters. A single
operation is therefore short, and the clock is read between operations, so that no template can
keep the process busy or fill its memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edgemoe.errors import ArgumentError

_CHARACTERS_PER_UNIT = 64
_MAX_NUMBER_BITS = 256


@dataclass(frozen=True)
class TemplateLimits:
    """What one rendering of a chat template may use."""

    source_characters: int = 1 << 18
    output_characters: int = 8 << 20
    work: int = 1_000_000  # units; the messages' own size is added to it
    seconds: float = 5.0


class TemplateLimitError(ArgumentError):
    """A template asked for more than the limits allow."""


class TemplateBudget:
    """The account of one rendering."""

    def __init__(self, limits: TemplateLimits, input_size: int) -> None:
        self._limits = limits
        # A rendering touches each message several times (conditions, trims, joins).
        self._work_left = limits.work + 32 * input_size
        self._deadline = time.monotonic() + limits.seconds

    def charge(self, units: int = 1) -> None:
        self._work_left -= units
        if self._work_left < 0:
            raise TemplateLimitError("it needs more work than the limit allows")
        if time.monotonic() > self._deadline:
            raise TemplateLimitError(f"it took longer than {self._limits.seconds:g} seconds")

    def weigh(self, value: object) -> object:
        """Charges the size of a computed value and returns it."""
        if isinstance(value, str):
            self.charge_text(len(value))
        else:
            self.charge(self._size(value))
        return value

    def count(self, items: Iterable[object]) -> Iterator[object]:
        """The items of a loop, one unit each."""
        for item in items:
            self.charge()
            yield item

    def join(self, parts: Iterable[object]) -> str:
        """The parts as one string, within the limit on output."""
        texts: list[str] = []
        total = 0
        for part in parts:
            text = str(part)
            total += len(text)
            self.charge_text(total if total > self._limits.output_characters else len(text))
            texts.append(text)
        return "".join(texts)

    def charge_text(self, characters: int) -> None:
        """Charges a string that is about to be made."""
        if characters > self._limits.output_characters:
            raise TemplateLimitError(
                f"it makes more than {self._limits.output_characters} characters of text"
            )
        self.charge(1 + characters // _CHARACTERS_PER_UNIT)

    def check_operator(self, operator: str, left: object, right: object) -> None:
        """Charges the result of an arithmetic operator before it is computed."""
        self.charge()
        if operator in ("+", "*", "**"):
            self._check_number(operator, left, right)
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
                    self._charge_copies(sequence, max(times, 0))
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.charge_text(len(left) + len(right))
        elif operator == "+" and isinstance(left, (list, tuple)):
            self.charge(self._size(left) + self._size(right))
        elif operator == "%" and isinstance(left, str):
            check_format(left)
            self.charge_format(left, left.count("%"), right)

    def charge_format(self, text: str, fields: int, values: object) -> None:
        """Charges a format that may name each of its values in every field."""
        self.charge_text(len(text) + fields * self._size(values) * _CHARACTERS_PER_UNIT)

    def _charge_copies(self, sequence: str | list[object] | tuple[object, ...], times: int) -> None:
        if isinstance(sequence, str):
            self.charge_text(len(sequence) * times)
        else:
            self.charge(self._size(sequence) * times)

    def _check_number(self, operator: str, left: object, right: object) -> None:
        if not isinstance(left, int) or not isinstance(right, (int, float)):
            return
        bits = left.bit_length()
        if isinstance(right, float):
            return
        if operator == "**":
            bits = bits * abs(right)
        else:
            bits += right.bit_length()
        if bits > _MAX_NUMBER_BITS:
            raise TemplateLimitError("it computes a number that is too large")

    def _size(self, value: object) -> int:
        """Units of a value; a list that is reached twice counts twice, as when it is printed."""
        units = 0
        pending: list[object] = [value]
        while pending:
            item = pending.pop()
            units += 1
            if isinstance(item, str):
                units += len(item) // _CHARACTERS_PER_UNIT
            elif isinstance(item, Mapping):
                pending.extend(item.keys())
                pending.extend(item.values())
            elif isinstance(item, (list, tuple)):
                pending.extend(item)
            if units + len(pending) > self._work_left:
                break
        return units + len(pending)


def check_format(text: str) -> None:
    """Refuses a format whose width or precision could blow up the result."""
    digits = 0
    for character in text:
        digits = digits + 1 if character.isdigit() else 0
        if digits > 3 or character == "*":
            raise TemplateLimitError("it formats with a width or precision that is too large")


def input_units(value: object) -> int:
    """Units of the values given to a template; raises ArgumentError when not plain data."""
    units = 0
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        units += 1
        if depth > 64:
            raise ArgumentError("the messages are nested deeper than 64 levels")
        if isinstance(item, str):
            units += len(item) // _CHARACTERS_PER_UNIT
        elif isinstance(item, Mapping):
            pending.extend((key, depth + 1) for key in item)
            pending.extend((entry, depth + 1) for entry in item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend((entry, depth + 1) for entry in item)
        elif item is not None and not isinstance(item, (bool, int, float)):
            raise ArgumentError(
                f"messages and template variables must be plain data, not {type(item).__name__}"
            )
    return units
