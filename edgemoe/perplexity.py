"""Perplexity as llama-perplexity counts it, and the comparison with a base model.

The tokens are cut into windows of `context` without overlap; the first token of each is replaced
by BOS where the vocabulary adds one; the second half of each window is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ArgumentError, ReadError
from edgemoe.model import Model

Progress = Callable[[int, int], None]
_Ids = npt.NDArray[np.int32]
# Ids that were to be predicted, and the log-probabilities [ids, vocabulary] at their places.
_Scored = tuple[_Ids, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Divergence:
    """How far a model is from the base whose log-probabilities were saved."""

    kl_mean: float
    same_top1: float
    perplexity_ratio: float


@dataclass(frozen=True)
class Perplexity:
    """`nll` is the mean negative log-likelihood of the `tokens` that were scored, in nats."""

    perplexity: float
    nll: float
    tokens: int
    divergence: Divergence | None = None


class BaseLogits:
    """Log-probabilities of a base model, float16 [scored, vocabulary], as an .npy file.

    Beside it, FILE.tokens.npy holds the ids of the windows, so that only equal texts are compared.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens_path = path.with_name(path.name + ".tokens.npy")

    def save(self, pieces: Iterator[_Scored], count: int, windows: _Ids) -> Iterator[_Scored]:
        """Writes the pieces that pass through. Raises ReadError when the file cannot be written."""
        try:
            np.save(self._tokens_path, windows)
            out: npt.NDArray[np.float16] | None = None
            at = 0
            for targets, rows in pieces:
                if out is None:
                    shape = (count, rows.shape[1])
                    out = np.lib.format.open_memmap(
                        self._path, mode="w+", dtype=np.float16, shape=shape
                    )
                out[at : at + len(rows)] = rows
                at += len(rows)
                yield targets, rows
        except OSError as error:
            raise ReadError(f"{self._path}: cannot be written: {error.strerror}") from None

    def load(self, windows: _Ids) -> npt.NDArray[np.float16]:
        """Raises ReadError when a file is missing and ArgumentError when it is of another text."""
        try:
            tokens = np.load(self._tokens_path)
            saved: npt.NDArray[np.float16] = np.load(self._path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ReadError(
                f"{self._path}: cannot be read ({error}); write it with --save-kl-base"
            ) from None
        if not np.array_equal(tokens, windows):
            raise ArgumentError(f"{self._path}: was made from another text, vocabulary or context")
        return saved


def _windows(model: Model, text: str, context: int) -> _Ids:
    tokens = model.tokenize(text)
    count = len(tokens) // context
    if count == 0:
        raise ArgumentError(
            f"the text has {len(tokens)} tokens; one window takes {context}: give a longer text "
            "or a smaller --context"
        )
    return np.asarray(tokens[: count * context], dtype=np.int32).reshape(count, context)


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide.astype(np.float32)


def _scored(model: Model, windows: _Ids, progress: Progress) -> Iterator[_Scored]:
    """The scored positions, a few rows at a time."""
    context = windows.shape[1]
    tokenizer = model.tokenizer
    for index, window in enumerate(windows):
        tokens = window.tolist()
        if tokenizer.add_bos and tokenizer.bos_id is not None:
            tokens[0] = tokenizer.bos_id
        progress(index, len(windows))
        position = 0
        for rows in model.logit_rows(tokens):
            first = max(context // 2, position)
            last = min(context - 1, position + len(rows))
            if first < last:
                scored = _log_softmax(rows[first - position : last - position])
                yield window[first + 1 : last + 1], scored
            position += len(rows)
    progress(len(windows), len(windows))


def measure_perplexity(
    model: Model,
    text: str,
    *,
    context: int = 512,
    base: Path | None = None,
    save_base: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Perplexity:
    """Scores `text`; with `base`, compares with log-probabilities that `save_base` wrote.

    Raises ArgumentError when the text is shorter than a window or `context` is below 4.
    """
    if context < 4:
        raise ArgumentError("context must be at least 4")
    windows = _windows(model, text, context)
    count = len(windows) * (context - 1 - context // 2)
    pieces = _scored(model, windows, progress)
    if save_base is not None:
        pieces = BaseLogits(save_base).save(pieces, count, windows)
    saved = None if base is None else BaseLogits(base).load(windows)
    return _score(pieces, saved)


def _score(pieces: Iterator[_Scored], saved: npt.NDArray[np.float16] | None) -> Perplexity:
    nll = base_nll = divergence = 0.0
    same = at = 0
    for targets, log_probabilities in pieces:
        index = np.arange(len(targets))
        nll -= float(log_probabilities[index, targets].sum(dtype=np.float64))
        if saved is not None:
            base = saved[at : at + len(targets)].astype(np.float32)
            base_nll -= float(base[index, targets].sum(dtype=np.float64))
            difference = (base - log_probabilities).astype(np.float64)
            divergence += float((np.exp(base.astype(np.float64)) * difference).sum())
            same += int((base.argmax(axis=1) == log_probabilities.argmax(axis=1)).sum())
        at += len(targets)
    mean = nll / at
    compared = None
    if saved is not None:
        compared = Divergence(divergence / at, same / at, math.exp(mean - base_nll / at))
    return Perplexity(math.exp(mean), mean, at, compared)
