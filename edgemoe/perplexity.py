"""Perplexity as llama-perplexity counts it, and the comparison with a base model.

The tokens are cut into windows of `context` without overlap; the first token of each is replaced
by BOS where the vocabulary adds one; the second half of each window is scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemoe.base_logits import (
    BaseFile,
    BaseKey,
    BaseRows,
    MemoryBase,
    RowReader,
    Rows,
    RowWriter,
    ScoredText,
    decode_rows,
    encode_rows,
)
from edgemoe.divergence import Divergence, Perplexity, TokenScores, mean_of, perplexity_of
from edgemoe.errors import ArgumentError, ModelFormatError, UnsupportedModelError
from edgemoe.model import Model

__all__ = ["Divergence", "MemoryBase", "Perplexity", "measure_perplexity", "measure_windows"]

Progress = Callable[[int, int], None]
_Ids = npt.NDArray[np.int32]
_Logits = npt.NDArray[np.float32]

# Logits that are scored at a time: arrays of that many float32 stay in the cache of a core.
_BLOCK = 1 << 17
# Less likely than e^-10000 is nothing.
_MOST_NATS = 10000.0


@dataclass(frozen=True)
class _Windows:
    """Windows of one text, [windows, context]; `prefix` replaces the first token of each."""

    ids: _Ids
    prefix: int | None

    @property
    def key(self) -> ScoredText:
        context = self.ids.shape[1]
        digest = hashlib.sha256(f"{context} {self.prefix} ".encode())
        digest.update(self.ids.astype("<i4").tobytes())
        return ScoredText(digest.hexdigest(), len(self.ids) * (context - 1 - context // 2))


def _windows(model: Model, text: str, context: int, most: int | None) -> _Windows:
    if model.has_encoder:
        raise UnsupportedModelError(
            "perplexity is that of models that continue a text; this one has an encoder and answers"
        )
    tokens = model.tokenize(text)
    count = len(tokens) // context
    if count == 0:
        raise ArgumentError(
            f"the text has {len(tokens)} tokens; one window takes {context}: give a longer text "
            "or a smaller --context"
        )
    ids = np.asarray(tokens[: count * context], dtype=np.int32).reshape(count, context)
    if most is not None and most < count:
        # The middles of equal parts.
        ids = ids[(2 * np.arange(most) + 1) * count // (2 * most)]
    tokenizer = model.tokenizer
    return _Windows(ids, tokenizer.bos_id if tokenizer.add_bos else None)


def _scored(
    model: Model, windows: _Windows, one_by_one: bool, done: Callable[[], None]
) -> Iterator[tuple[_Ids, _Logits]]:
    """The ids to be predicted and the logits at their places, a few rows at a time."""
    context = windows.ids.shape[1]
    most = max(1, _BLOCK // model.vocabulary_size)
    for window in windows.ids:
        tokens = window.tolist()
        if windows.prefix is not None:
            tokens[0] = windows.prefix
        position = 0
        for rows in model.logit_rows(tokens, one_by_one=one_by_one):
            first = max(context // 2, position)
            last = min(context - 1, position + len(rows))
            for begin in range(first, last, most):
                end = min(begin + most, last)
                yield window[begin + 1 : end + 1], rows[begin - position : end - position]
            position += len(rows)
        done()


class _Block:
    """Log-probabilities of some rows. Elements are float32, sums over a row float64."""

    def __init__(self, targets: _Ids, logits: _Logits) -> None:
        top = logits.max(axis=1)
        if not np.isfinite(top).all():
            raise ModelFormatError(
                "the model's logits are not numbers; its weights are damaged or overflow"
            )
        # A token that is ruled out (minus infinity) must not make 0 * infinity of a sum.
        self.below_top = np.maximum(logits - top[:, None], np.float32(-_MOST_NATS))
        self.log_sum = np.log(np.exp(self.below_top).sum(axis=1, dtype=np.float64))
        self.best = logits.argmax(axis=1)
        chosen = self.below_top[np.arange(len(targets)), targets]
        self.nll: npt.NDArray[np.float64] = self.log_sum - chosen

    def rows(self) -> Rows:
        return encode_rows(self.below_top, self.best, -self.nll)

    def divergence_from(self, base: Rows) -> npt.NDArray[np.float64]:
        """Sum of p (log p - log q). It is not negative; what rounding makes so is 0."""
        other = decode_rows(base)
        weights = np.exp(other)
        total = weights.sum(axis=1, dtype=np.float64)
        other -= self.below_top
        other *= weights
        expected = other.sum(axis=1, dtype=np.float64) / total
        divergence: npt.NDArray[np.float64] = expected - np.log(total) + self.log_sum
        return divergence.clip(min=0.0)


def _score(block: _Block, base: RowReader | None) -> TokenScores:
    if base is None:
        nothing = np.empty(0)
        return TokenScores(block.nll, nothing, nothing, np.empty(0, dtype=np.bool_))
    rows = base.read(len(block.best))
    return TokenScores(
        block.nll,
        -rows["target"],
        block.divergence_from(rows),
        rows["best"] == block.best,
    )


def _measure(
    pieces: Iterator[tuple[_Ids, _Logits]], base: RowReader | None, out: RowWriter | None
) -> Perplexity:
    parts = []
    for targets, logits in pieces:
        block = _Block(targets, logits)
        if out is not None:
            out.write(block.rows())
        parts.append(_score(block, base))
    return perplexity_of(TokenScores.joined(parts))


def _storage(base: Path | MemoryBase) -> BaseFile | MemoryBase:
    return base if isinstance(base, MemoryBase) else BaseFile(base)


@dataclass(frozen=True)
class _Job:
    windows: Sequence[_Windows]
    base: Path | MemoryBase | None
    save_base: Path | MemoryBase | None
    one_by_one: bool
    progress: Progress

    def run(self, model: Model) -> list[Perplexity]:
        """One result for each text."""
        keys = [one.key for one in self.windows]
        context = self.windows[0].ids.shape[1]
        key = BaseKey(model.vocabulary_size, context, tuple(keys))
        total = sum(len(one.ids) for one in self.windows)
        finished = 0

        def count_window() -> None:
            nonlocal finished
            finished += 1
            self.progress(finished, total)

        self.progress(0, total)
        with ExitStack() as stack:
            saved: BaseRows | None = None
            if self.base is not None:
                saved = stack.enter_context(_storage(self.base).reading(key))
            out: RowWriter | None = None
            if self.save_base is not None:
                out = stack.enter_context(_storage(self.save_base).saving(key))
            return [
                _measure(
                    _scored(model, one, self.one_by_one, count_window),
                    None if saved is None else saved.of(one_key),
                    out,
                )
                for one, one_key in zip(self.windows, keys, strict=True)
            ]


def measure_perplexity(
    model: Model,
    text: str | Sequence[str],
    *,
    context: int = 512,
    base: Path | MemoryBase | None = None,
    save_base: Path | MemoryBase | None = None,
    max_windows: int | None = None,
    one_by_one: bool = False,
    progress: Progress = lambda done, total: None,
) -> Perplexity:
    """Scores one text, or several and their mean.

    base        compare with the log-probabilities that `save_base` took from another model, of
                these texts or more
    max_windows of each text, spread evenly over it
    one_by_one  evaluate token by token, as generation does: only then do lossy options that act on
                generation have an effect

        measure_perplexity(model, text, context=256).perplexity

    Raises ArgumentError when a text is shorter than a window, `context` is below 4 or the base is
    of something else, and what BaseFile raises for files.
    """
    if max_windows is not None and max_windows < 1:
        raise ArgumentError("max_windows must be at least 1")
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise ArgumentError("there is no text to score")
    if context < 4:
        raise ArgumentError("context must be at least 4")
    windows = [_windows(model, one, context, max_windows) for one in texts]
    job = _Job(windows, base, save_base, one_by_one, progress)
    results = job.run(model)
    return results[0] if isinstance(text, str) else mean_of(results)


def measure_windows(
    model: Model,
    texts: Sequence[_Ids],
    *,
    base: Path | MemoryBase | None = None,
    save_base: Path | MemoryBase | None = None,
    progress: Progress = lambda done, total: None,
) -> Perplexity:
    """As measure_perplexity, of texts that are windows of tokens already, [windows, context] each.

    The first token of a window is what stands there: BOS where the vocabulary wants one.
    """
    windows = [_Windows(np.asarray(one, dtype=np.int32), None) for one in texts]
    if not windows or any(len(one.ids) == 0 or one.ids.shape[1] < 4 for one in windows):
        raise ArgumentError("there are no windows of at least 4 tokens to score")
    if len({one.ids.shape[1] for one in windows}) != 1:
        raise ArgumentError("the windows have several lengths")
    return mean_of(_Job(windows, base, save_base, False, progress).run(model))
