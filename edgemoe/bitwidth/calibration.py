"""Calibration: which tokens a profile is measured on.

Every text gets the same share of the tokens, as windows of `context` tokens spread evenly over it;
what a short text leaves goes to the others. The first token of a window is replaced by BOS where
the vocabulary adds one, as `edgemoe perplexity` does.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.errors import ArgumentError
from edgemoe.text import Tokenizer

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CalibrationText:
    """A text as token ids; `bos_id` replaces the first one of a window, None leaves it."""

    name: str
    ids: Ids
    bos_id: int | None = None


@dataclass(frozen=True)
class Calibration:
    """The windows, and for each text its name, tokens, and the tokens of it that are used.

    held_out       windows that take no part, for measuring what comes of the others
    held_out_text  the text that each of them is of, an index into `texts`
    """

    context: int
    windows: tuple[Ids, ...]
    texts: tuple[dict[str, Any], ...]
    held_out: tuple[Ids, ...] = ()
    held_out_text: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(len(window) for window in self.windows)

    def checksum(self) -> str:
        """Of the ids and their division into windows."""
        hasher = blake2b(digest_size=8)
        for window in self.windows:
            hasher.update(len(window).to_bytes(8, "little"))
            hasher.update(np.ascontiguousarray(window, dtype="<i4").tobytes())
        return hasher.hexdigest()


def tokenized(model_path: str, texts: Sequence[tuple[str, str]]) -> list[CalibrationText]:
    """(name, text) pairs as ids by the model's own tokenizer, which is not kept.

    Raises UnsupportedModelError or ModelFormatError when the file's tokenizer cannot be used.
    """
    tokenizer = Tokenizer.from_metadata(_core.GgufFile(model_path).values("tokenizer."))
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    result = [
        CalibrationText(
            name, np.asarray(tokenizer.encode(text, add_bos=False), dtype=np.int32), bos
        )
        for name, text in texts
    ]
    del tokenizer
    gc.collect()
    _core.return_freed_memory()
    return result


def calibrate(
    texts: Sequence[CalibrationText], *, context: int, max_tokens: int, held_out: float = 0.0
) -> Calibration:
    """Chooses the windows. A text shorter than a window is one window of its own length.

    held_out   share of the windows of each text that are kept apart; none of fewer than four

    Raises ArgumentError for an empty text or when `max_tokens` does not hold a window of each.
    """
    if context < 1:
        raise ArgumentError("context must be at least 1")
    for text in texts:
        if len(text.ids) == 0:
            raise ArgumentError(f"{text.name}: there are no tokens in it")
    if max_tokens < len(texts) * context:
        raise ArgumentError(
            f"{max_tokens} tokens are too few for a window of {context} tokens of each of "
            f"{len(texts)} texts; raise --max-tokens or lower --context"
        )
    windows: list[Ids] = []
    apart: list[Ids] = []
    apart_text: list[int] = []
    rows = []
    counts = _window_counts(texts, context, max_tokens)
    for index, (text, count) in enumerate(zip(texts, counts, strict=True)):
        chosen, kept = _parted(_spread(text, context, count), held_out)
        windows += chosen
        apart += kept
        apart_text += [index] * len(kept)
        used = sum(len(window) for window in chosen)
        rows.append({"name": text.name, "tokens": len(text.ids), "used_tokens": used})
    return Calibration(context, tuple(windows), tuple(rows), tuple(apart), tuple(apart_text))


def _window_counts(texts: Sequence[CalibrationText], context: int, max_tokens: int) -> list[int]:
    """Windows of each text: equal shares, as far as there are windows."""
    most = [max(1, len(text.ids) // context) for text in texts]
    left = max_tokens // context
    counts = [0] * len(texts)
    by_length = sorted(range(len(texts)), key=lambda i: most[i])
    for done, index in enumerate(by_length):
        counts[index] = min(most[index], max(1, left // (len(texts) - done)))
        left -= counts[index]
    return counts


def _spread(text: CalibrationText, context: int, count: int) -> list[Ids]:
    room = max(0, len(text.ids) - context)
    windows = []
    for i in range(count):
        first = room * i // max(1, count - 1)
        window = text.ids[first : first + context].copy()
        if text.bos_id is not None:
            window[0] = text.bos_id
        windows.append(window)
    return windows


def _parted(windows: list[Ids], held_out: float) -> tuple[list[Ids], list[Ids]]:
    """The windows, and those of them that are kept apart, evenly spread."""
    if held_out <= 0 or len(windows) < 4:
        return windows, []
    every = max(2, round(1 / held_out))
    kept = set(range(every // 2, len(windows), every))
    return (
        [window for i, window in enumerate(windows) if i not in kept],
        [windows[i] for i in sorted(kept)],
    )
