#!/usr/bin/env python3
"""Speed of edgemoe, llama.cpp (mmap) and BigMoeOnEdge under the same memory limit, by turns.

    compare_streaming.py MODEL --llama-bench PATH [--bmoe PATH] [--memory 2GiB] [--rounds 3]
                         [--prompt 0]

Each run is a process in a memory control group of its own, with a cold page cache: root is needed.
Decode is measured, or with --prompt the prefill of so many tokens, which BigMoeOnEdge is left out
of. Prints one line per run, then the medians and edgemoe's ratio to each of the others.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
from collections.abc import Callable

from limits import LimitError, Limits, parse_size, run_limited
from program_output import RunError, at_least, llama_bench_rate, member, parse_json, positive

OURS = "edgemoe"


def edgemoe_rate(arguments: argparse.Namespace, program: str) -> float:
    budget = str(int(arguments.memory * 0.98))  # the group also pays for page tables of the kernel
    name = "prefill" if arguments.prompt else "decode"
    tokens = arguments.prompt or arguments.tokens
    command = [program, name, arguments.model, "--memory", budget, "--tokens", str(tokens)]
    command += ["--repetitions", "1", "--threads", str(arguments.threads)]
    report = parse_json(program, run_limited(command, Limits(arguments.memory)))
    rate = member(program, report, "results", 0, "tokens_per_second", "median")
    return positive(program, rate, "tokens_per_second")


def llama_rate(arguments: argparse.Namespace) -> float:
    tokens = 0 if arguments.prompt else arguments.llama_tokens
    command = [arguments.llama_bench, "-m", arguments.model, "-r", "1", "-o", "json", "--no-warmup"]
    command += ["-p", str(arguments.prompt), "-n", str(tokens), "-t", str(arguments.threads)]
    command += arguments.llama_arguments.split()
    program = arguments.llama_bench
    rows = parse_json(program, run_limited(command, Limits(arguments.memory)))
    return llama_bench_rate(program, rows, arguments.prompt, tokens)


def bmoe_rate(arguments: argparse.Namespace) -> float:
    command = [arguments.bmoe, "-m", arguments.model, "-p", "Once upon a time", "--moe-stream"]
    command += ["-n", str(arguments.tokens), "-t", str(arguments.threads)]
    command += arguments.bmoe_arguments.split()
    output = run_limited(command, Limits(arguments.memory))
    rate = re.search(r"generation: .*\(([0-9.]+) tok/s\)", output)
    if rate is None:
        raise RunError(f"{arguments.bmoe} printed no rate")
    return positive(arguments.bmoe, rate[1], "its rate")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--llama-bench", help="program of llama.cpp")
    parser.add_argument("--bmoe", help="program of BigMoeOnEdge, bmoe-cli")
    parser.add_argument("--memory", type=parse_size, default="2GiB")
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument(
        "--prompt", type=at_least(0), default=0, help="tokens of prefill instead of decode"
    )
    parser.add_argument("--tokens", type=at_least(1), default=32, help="of decode")
    parser.add_argument(
        "--llama-tokens", type=at_least(1), default=4, help="of a llama.cpp run: it is slow"
    )
    parser.add_argument(
        "--llama-arguments",
        default="--repack 0 --load-mode mmap",
        help="more for llama-bench; a repacked copy of the weights would not fit the limit",
    )
    parser.add_argument("--bmoe-arguments", default="", help="more for bmoe-cli: its cache")
    parser.add_argument("--threads", type=at_least(1), default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    if arguments.llama_bench is None and (arguments.bmoe is None or arguments.prompt):
        parser.error("there is nobody to compare with; name --llama-bench or --bmoe")
    return arguments


def contestants(arguments: argparse.Namespace) -> dict[str, Callable[[], float]]:
    program = shutil.which("edgemoe-bench")
    if program is None:
        sys.exit("edgemoe-bench is not on the PATH; install the package")
    runs: dict[str, Callable[[], float]] = {OURS: lambda: edgemoe_rate(arguments, program)}
    if arguments.llama_bench is not None:
        runs["llama.cpp"] = lambda: llama_rate(arguments)
    if arguments.bmoe is not None and not arguments.prompt:
        runs["BigMoeOnEdge"] = lambda: bmoe_rate(arguments)
    return runs


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """All rounds. A peer that fails is left out, and the rest goes on."""
    runs = contestants(arguments)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(1, arguments.rounds + 1):
        for name, run in list(runs.items()):
            try:
                rate = run()
            except LimitError as error:
                sys.exit(str(error))
            except RunError as error:
                if name == OURS:
                    sys.exit(str(error))
                del runs[name], rates[name]
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            rates[name].append(rate)
            print(f"round {number}: {name} {rate:.3f} tok/s", flush=True)
    return rates


def main() -> None:
    rates = measure(parse_arguments())
    medians = {name: statistics.median(figures) for name, figures in rates.items()}
    for name, median in medians.items():
        times = f": edgemoe is {medians[OURS] / median:.1f} times as fast" if name != OURS else ""
        print(f"median: {name} {median:.3f} tok/s{times}")


if __name__ == "__main__":
    main()
