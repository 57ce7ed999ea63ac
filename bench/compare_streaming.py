#!/usr/bin/env python3
"""Decode speed of edgemoe and llama.cpp (mmap) under the same memory limit, by turns.

    compare_streaming.py MODEL --llama-bench PATH [--memory 2GiB] [--rounds 3]

Each run is a process in a memory control group of its own, with a cold page cache: root is needed.
Prints one line per run, then the medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys

from limits import LimitError, Limits, RunError, parse_size, run_limited


def edgemoe_decode(arguments: argparse.Namespace, program: str) -> float:
    budget = str(int(arguments.memory * 0.98))  # the group also pays for page tables of the kernel
    command = [program, "decode", arguments.model, "--memory", budget]
    command += ["--tokens", str(arguments.tokens), "--repetitions", "1"]
    command += ["--threads", str(arguments.threads)]
    report = json.loads(run_limited(command, Limits(arguments.memory)))
    return float(report["results"][0]["tokens_per_second"]["median"])


def llama_decode(arguments: argparse.Namespace) -> float:
    command = [arguments.llama_bench, "-m", arguments.model, "-p", "0", "-r", "1", "-o", "json"]
    command += ["-n", str(arguments.llama_tokens), "-t", str(arguments.threads), "--no-warmup"]
    command += arguments.llama_arguments.split()
    return float(json.loads(run_limited(command, Limits(arguments.memory)))[0]["avg_ts"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--llama-bench", required=True, help="program of llama.cpp")
    parser.add_argument("--memory", type=parse_size, default="2GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32, help="of an edgemoe run")
    parser.add_argument(
        "--llama-tokens", type=int, default=4, help="of a llama.cpp run: it is slow"
    )
    parser.add_argument(
        "--llama-arguments",
        default="--repack 0 --load-mode mmap",
        help="more for llama-bench; a repacked copy of the weights would not fit the limit",
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    program = shutil.which("edgemoe-bench")
    if program is None:
        sys.exit("edgemoe-bench is not on the PATH; install the package")
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(1, arguments.rounds + 1):
        try:
            ours.append(edgemoe_decode(arguments, program))
            theirs.append(llama_decode(arguments))
        except (LimitError, RunError) as error:
            sys.exit(str(error))
        line = f"round {number}: edgemoe {ours[-1]:.3f} tok/s, llama.cpp {theirs[-1]:.3f} tok/s"
        print(line, flush=True)
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"median: edgemoe {mine:.3f} tok/s, llama.cpp {other:.3f} tok/s: {mine / other:.1f} times"
    )


if __name__ == "__main__":
    main()
