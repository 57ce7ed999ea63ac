#!/usr/bin/env python3
"""Speed of edgemoe, llama.cpp and ik_llama.cpp with everything in memory, by turns.

    compare_peers.py MODEL [--llama-bench PATH] [--ik-llama-bench PATH] [--rounds 3]
                     [--prompt 512] [--tokens 128] [--depth 0] [--threads N] [--json]

Builds nothing: it takes the peers' llama-bench programs (README.md says how to build them) and runs
each with and without repacked weights. Every run is a process of its own; a round runs all of them.
Prints one line per run on standard error, then for each test the medians, the ratio of edgemoe to
each peer, and the share of the limit: tokens per second that memory and compute allow, measured by
edgemoe-bench in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

OURS = "edgemoe"
# Name -> (option with the program, arguments). ik_llama.cpp has attention of its own behind -fa.
PEERS = {
    "llama.cpp, repacked": ("llama_bench", ("--repack", "1")),
    "llama.cpp": ("llama_bench", ("--repack", "0")),
    "ik_llama.cpp, repacked": ("ik_llama_bench", ("-rtr", "1", "-fa", "1")),
    "ik_llama.cpp": ("ik_llama_bench", ("-rtr", "0", "-fa", "1")),
}


@dataclass
class Rates:
    """Tokens per second of every run: test -> name -> figures; the limits of edgemoe's runs."""

    measured: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    limits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def share_of_limit(self, test: str, name: str) -> float:
        """The median over rounds: a shared machine's bandwidth changes between them."""
        rounds = zip(self.measured[test][name], self.limits[test], strict=True)
        return statistics.median(rate / limit for rate, limit in rounds)

    def medians(self, test: str) -> dict[str, float]:
        return {name: statistics.median(runs) for name, runs in self.measured[test].items()}


class RunError(Exception):
    """A program that did not end well."""


def run_json(command: list[str]) -> Any:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RunError(f"{command[0]} cannot run: {error.strerror}") from error
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise RunError(f"{command[0]} failed ({result.returncode}): {lines[-1][:300]}")
    try:
        return json.loads(result.stdout)
    except ValueError as error:
        raise RunError(f"{command[0]} printed something else than JSON") from error


def tests_of(arguments: argparse.Namespace) -> dict[str, tuple[str, int]]:
    """Name of a test -> (command of edgemoe-bench, tokens)."""
    behind = f"@d{arguments.depth}" if arguments.depth else ""
    tests = {
        f"pp{arguments.prompt}{behind}": ("prefill", arguments.prompt),
        f"tg{arguments.tokens}{behind}": ("decode", arguments.tokens),
    }
    return {name: test for name, test in tests.items() if test[1] > 0}


def run_ours(arguments: argparse.Namespace, rates: Rates) -> None:
    for name, (command, count) in tests_of(arguments).items():
        options = ["--tokens", str(count), "--depth", str(arguments.depth)]
        options += ["--threads", str(arguments.threads), "--repetitions", "1"]
        words = [arguments.edgemoe_bench, command, arguments.model, *options]
        result = run_json([*words, *arguments.edgemoe_arguments.split()])["results"][0]
        if result["hit_rate"] < 1:
            raise RunError(
                "the experts do not all fit into memory; compare_streaming.py is for that"
            )
        rates.measured[name][OURS].append(result["tokens_per_second"]["median"])
        rates.limits[name].append(min(v for v in result["limit"].values() if v is not None))


def run_peer(arguments: argparse.Namespace, name: str, rates: Rates) -> None:
    option, options = PEERS[name]
    words = [getattr(arguments, option), "-m", arguments.model, "-r", "1", "-o", "json", *options]
    words += ["-p", str(arguments.prompt), "-n", str(arguments.tokens)]
    words += ["-t", str(arguments.threads)]
    if arguments.depth:
        words += ["-d", str(arguments.depth)]
    names = {"prefill": "", "decode": ""}
    for test, (kind, _) in tests_of(arguments).items():
        names[kind] = test
    for result in run_json(words):
        kind = "prefill" if result["n_prompt"] > 0 else "decode"
        rates.measured[names[kind]][name].append(float(result["avg_ts"]))


Run = Callable[[Rates], None]


def contestants(arguments: argparse.Namespace) -> dict[str, Run]:
    runs: dict[str, Run] = {OURS: partial(run_ours, arguments)}
    for name, (option, _) in PEERS.items():
        if getattr(arguments, option) is not None:
            runs[name] = partial(run_peer, arguments, name)
    return runs


def measure(arguments: argparse.Namespace) -> Rates:
    """All rounds. A peer that fails, for instance on a model that it does not know, is left out."""
    rates = Rates()
    runs = contestants(arguments)
    for number in range(1, arguments.rounds + 1):
        for name, run in list(runs.items()):
            try:
                run(rates)
            except RunError as error:
                if name == OURS:
                    sys.exit(str(error))
                del runs[name]
                for measured in rates.measured.values():
                    measured.pop(name, None)
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            figures = {test: measured[name][-1] for test, measured in rates.measured.items()}
            text = ", ".join(f"{test} {rate:.2f}" for test, rate in figures.items())
            print(f"round {number}: {name}: {text} tok/s", file=sys.stderr, flush=True)
    return rates


def report(rates: Rates) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for test in rates.measured:
        medians = rates.medians(test)
        limit = statistics.median(rates.limits[test])
        rows = {
            name: {
                "median": median,
                "runs": rates.measured[test][name],
                "edgemoe_ratio": medians[OURS] / median,
                "of_limit": rates.share_of_limit(test, name),
            }
            for name, median in medians.items()
        }
        best = max((m for name, m in medians.items() if name != OURS), default=None)
        ratio = None if best is None else medians[OURS] / best
        table[test] = {"limit": limit, "rates": rows, "edgemoe_to_best_peer": ratio}
    return table


def print_report(table: dict[str, Any]) -> None:
    for test, figures in table.items():
        print(f"{test}: limit {figures['limit']:.1f} tok/s")
        for name, row in figures["rates"].items():
            print(
                f"  {name:24} {row['median']:8.2f} tok/s  {row['of_limit']:5.0%} of the limit  "
                f"edgemoe / this {row['edgemoe_ratio']:5.2f}"
            )
        if figures["edgemoe_to_best_peer"] is not None:
            print(f"  edgemoe / best of the others: {figures['edgemoe_to_best_peer']:.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--llama-bench", help="program of llama.cpp")
    parser.add_argument("--ik-llama-bench", help="program of ik_llama.cpp")
    parser.add_argument("--edgemoe-bench", default=shutil.which("edgemoe-bench"))
    parser.add_argument("--edgemoe-arguments", default="", help="more for edgemoe-bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens; 0: no prefill test")
    parser.add_argument("--tokens", type=int, default=128, help="tokens; 0: no decode test")
    parser.add_argument("--depth", type=int, default=0, help="tokens in the context before")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.edgemoe_bench is None:
        parser.error("edgemoe-bench is not on the PATH; install the package or name it")
    if not tests_of(arguments):
        parser.error("there is nothing to measure: --prompt and --tokens are both 0")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    table = report(measure(arguments))
    if arguments.json:
        print(json.dumps(table))
    else:
        print_report(table)


if __name__ == "__main__":
    main()
