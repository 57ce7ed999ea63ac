"""What `run` and `chat` have in common: sampling from options, and the closing line."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import Any

import click

from edgemoe.errors import ArgumentError
from edgemoe.generation import Generation
from edgemoe.model import Model
from edgemoe.options import Sampling
from edgemoe.sizes import format_size
from edgemoe.stats import Stats


def _logit_bias(items: Sequence[str]) -> dict[int, float]:
    biases = {}
    for item in items:
        token, equals, value = item.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError:
            raise click.BadParameter(
                f"{item!r} is not ID=VALUE", param_hint="--logit-bias"
            ) from None
    return biases


def sampling_from(values: dict[str, Any]) -> Sampling:
    """The Sampling that the values of sampling_options() describe."""
    return Sampling(
        temperature=values["temp"],
        top_k=values["top_k"],
        top_p=values["top_p"],
        min_p=values["min_p"],
        repetition_penalty=values["repeat_penalty"],
        presence_penalty=values["presence_penalty"],
        frequency_penalty=values["frequency_penalty"],
        penalty_window=values["repeat_last_n"],
        logit_bias=_logit_bias(values["logit_biases"]),
        seed=secrets.randbits(63) if values["seed"] < 0 else values["seed"],
    )


def tokens_from(max_tokens: int | None, default: int | None) -> int | None:
    """The number of tokens to generate; None: no limit of its own."""
    if max_tokens is None:
        return default
    return None if max_tokens < 0 else max_tokens


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class Meter:
    """What one generation took, from the counters before and after it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._before = model.stats()

    def figures(self, generation: Generation) -> dict[str, Any]:
        """Keys of `run --stats --json`, text excluded."""
        before, after = self._before, self._model.stats()
        demands = after.expert_demands - before.expert_demands
        hits = after.expert_hits - before.expert_hits
        evaluated = max(after.tokens - before.tokens, 1)
        return {
            "tokens": len(generation.tokens),
            "prompt_tokens": generation.prompt_tokens,
            "finish_reason": generation.finish_reason,
            "tokens_per_second": generation.tokens_per_second,
            "prompt_seconds": generation.prompt_seconds,
            "hit_rate": hits / demands if demands else 1.0,
            "bytes_read_per_token": (after.bytes_read - before.bytes_read) / evaluated,
            "stall_seconds": after.stall_seconds - before.stall_seconds,
            "pool_shrinks": after.pool_shrinks - before.pool_shrinks,
            "pool_grows": after.pool_grows - before.pool_grows,
            "memory": dict(after.memory),
        }

    def pressure_line(self) -> str | None:
        """What memory pressure did to the expert pool meanwhile; None when it did nothing."""
        before, after = self._before, self._model.stats()
        shrinks = after.pool_shrinks - before.pool_shrinks
        grows = after.pool_grows - before.pool_grows
        if shrinks == grows == 0:
            return None
        planned = self._model.memory_plan()["expert_pool_bytes"]
        return (
            f"memory pressure: the expert pool shrank {_times(shrinks)} and grew {_times(grows)}; "
            f"it may hold {format_size(after.memory['expert_pool_bytes'])} "
            f"of {format_size(planned)} now"
        )


def closing_line(figures: dict[str, Any], stats: Stats) -> str:
    """The one line that ends a run."""
    return (
        f"{figures['tokens_per_second']:.1f} tok/s, "
        f"{figures['hit_rate']:.1%} expert hits, "
        f"{format_size(figures['bytes_read_per_token'])} read per token, "
        f"{format_size(stats.memory['peak_bytes'])} of "
        f"{format_size(stats.memory['budget_bytes'])} memory used"
    )


def print_pressure(meter: Meter) -> None:
    """Says on standard error when memory pressure changed the pool."""
    line = meter.pressure_line()
    if line is not None:
        print(line, file=sys.stderr)


def unescape(text: str) -> str:
    r"""\n, \t, \r, \\, \" and \' as llama.cpp reads them in a prompt; others stay as they are."""
    escapes = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
    out = []
    characters = iter(text)
    for character in characters:
        if character != "\\":
            out.append(character)
            continue
        following = next(characters, "")
        out.append(escapes.get(following, "\\" + following))
    return "".join(out)


def read_text_file(path: str) -> str:
    """A UTF-8 file. Raises ArgumentError naming the byte that is not, OSError otherwise."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path}: not valid UTF-8 at byte {error.start}") from None
