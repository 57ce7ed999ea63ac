"""What programs that are compared print: read with care, because anything may be at the other end.

Everything that is not as expected is a RunError of one line that names the program.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from typing import Any


class RunError(Exception):
    """A program that did not end well, or printed something else than it should."""


def decoded(output: bytes) -> str:
    return output.decode("utf-8", errors="replace")


def last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["no message"]
    return lines[-1][:300]


def run_program(command: Sequence[str]) -> str:
    """Standard output. Raises RunError where the program cannot run or fails."""
    try:
        result = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        raise RunError(f"{command[0]} cannot run: {error.strerror}") from error
    if result.returncode != 0:
        reason = last_line(decoded(result.stderr))
        raise RunError(f"{command[0]} failed ({result.returncode}): {reason}")
    return decoded(result.stdout)


def parse_json(program: str, output: str) -> Any:
    try:
        return json.loads(output)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{program} printed something else than JSON") from error


def member(program: str, value: Any, *path: str | int) -> Any:
    """value[path[0]][path[1]]... Raises RunError where there is no such thing."""
    for step in path:
        try:
            value = value[step]
        except (TypeError, KeyError, IndexError) as error:
            raise RunError(f"{program} printed no '{path[-1]}' where it should be") from error
    return value


def number(program: str, value: Any, name: str) -> float:
    """A finite number. Raises RunError for everything else."""
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise RunError(f"{program} printed {str(value)[:40]!r} as {name}, which is no number")
    return result


def positive(program: str, value: Any, name: str) -> float:
    """A finite number above 0. Raises RunError for everything else."""
    result = number(program, value, name)
    if result <= 0:
        raise RunError(f"{program} printed {result} as {name}, which must be above 0")
    return result


def llama_bench_rate(program: str, rows: Any, prompt: int, tokens: int) -> float:
    """Tokens per second of one test, from the JSON of llama-bench. Raises RunError without it."""
    if not isinstance(rows, list):
        raise RunError(f"{program} printed no list of tests")
    for row in rows:
        if not isinstance(row, dict):
            raise RunError(f"{program} printed {str(row)[:40]!r} where a test should be")
        if row.get("n_prompt") == prompt and row.get("n_gen") == tokens:
            return positive(program, row.get("avg_ts"), "avg_ts")
    raise RunError(f"{program} printed no test of {prompt} + {tokens} tokens")


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option, for argparse."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return value

    return parse
