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
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from program_output import (
    RunError,
    at_least,
    llama_bench_rate,
    member,
    number,
    parse_json,
    positive,
    run_program,
)

OURS = "edgemoe"
# Name -> (option with the program, arguments). ik_llama.cpp has attention of its own behind -fa.
PEERS = {
    "llama.cpp, repacked": ("llama_bench", ("--repack", "1")),
    "llama.cpp": ("llama_bench", ("--repack", "0")),
    "ik_llama.cpp, repacked": ("ik_llama_bench", ("-rtr", "1", "-fa", "1")),
    "ik_llama.cpp": ("ik_llama_bench", ("-rtr", "0", "-fa", "1")),
}


@dataclass(frozen=True)
class Sample:
    """Tokens per second of a run, and what memory and compute allow, of edgemoe's."""

    rate: float
    limit: float | None = None


Samples = dict[str, Sample]  # of every test


@dataclass
class Rates:
    """Tokens per second of every run: test -> name -> figures; the limits of edgemoe's runs."""

    measured: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    limits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, samples: Samples) -> None:
        for test, sample in samples.items():
            self.measured[test][name].append(sample.rate)
            if sample.limit is not None:
                self.limits[test].append(sample.limit)

    def share_of_limit(self, test: str, name: str) -> float:
        """The median over rounds: a shared machine's bandwidth changes between them."""
        rounds = zip(self.measured[test][name], self.limits[test], strict=True)
        return statistics.median(rate / limit for rate, limit in rounds)

    def medians(self, test: str) -> dict[str, float]:
        return {name: statistics.median(runs) for name, runs in self.measured[test].items()}


def tests_of(arguments: argparse.Namespace) -> dict[str, tuple[str, int]]:
    """Name of a test -> (command of edgemoe-bench, tokens)."""
    behind = f"@d{arguments.depth}" if arguments.depth else ""
    tests = {
        f"pp{arguments.prompt}{behind}": ("prefill", arguments.prompt),
        f"tg{arguments.tokens}{behind}": ("decode", arguments.tokens),
    }
    return {name: test for name, test in tests.items() if test[1] > 0}


def run_ours(arguments: argparse.Namespace) -> Samples:
    program = arguments.edgemoe_bench
    samples = {}
    for name, (command, count) in tests_of(arguments).items():
        options = ["--tokens", str(count), "--depth", str(arguments.depth)]
        options += ["--threads", str(arguments.threads), "--repetitions", "1"]
        words = [program, command, arguments.model, *options]
        output = run_program([*words, *arguments.edgemoe_arguments.split()])
        result = member(program, parse_json(program, output), "results", 0)
        if number(program, member(program, result, "hit_rate"), "hit_rate") < 1:
            raise RunError(
                "the experts do not all fit into memory; compare_streaming.py is for that"
            )
        rate = member(program, result, "tokens_per_second", "median")
        allowed = [
            positive(program, member(program, result, "limit", key), "limit")
            for key in ("storage", "memory", "compute")
            if member(program, result, "limit", key) is not None  # not used by this test
        ]
        if not allowed:
            raise RunError(f"{program} printed no limit")
        samples[name] = Sample(positive(program, rate, "tokens_per_second"), min(allowed))
    return samples


def run_peer(arguments: argparse.Namespace, name: str) -> Samples:
    option, options = PEERS[name]
    program = getattr(arguments, option)
    words = [program, "-m", arguments.model, "-r", "1", "-o", "json", *options]
    words += ["-p", str(arguments.prompt), "-n", str(arguments.tokens)]
    words += ["-t", str(arguments.threads)]
    if arguments.depth:
        words += ["-d", str(arguments.depth)]
    rows = parse_json(program, run_program(words))
    samples = {}
    for test, (kind, count) in tests_of(arguments).items():
        prompt, tokens = (count, 0) if kind == "prefill" else (0, count)
        samples[test] = Sample(llama_bench_rate(program, rows, prompt, tokens))
    return samples


Run = Callable[[], Samples]


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
    for round_number in range(1, arguments.rounds + 1):
        for name, run in list(runs.items()):
            try:
                samples = run()
            except RunError as error:
                if name == OURS:
                    sys.exit(str(error))
                del runs[name]
                for measured in rates.measured.values():
                    measured.pop(name, None)
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            rates.add(name, samples)
            text = ", ".join(f"{test} {sample.rate:.2f}" for test, sample in samples.items())
            print(f"round {round_number}: {name}: {text} tok/s", file=sys.stderr, flush=True)
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
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument(
        "--prompt", type=at_least(0), default=512, help="tokens; 0: no prefill test"
    )
    parser.add_argument("--tokens", type=at_least(0), default=128, help="tokens; 0: no decode test")
    parser.add_argument("--depth", type=at_least(0), default=0, help="tokens in the context before")
    parser.add_argument("--threads", type=at_least(1), default=len(os.sched_getaffinity(0)))
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
