"""edgemoe bench: speed of prefill and decode against the limits of the machine."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from edgemoe import _core
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.sizes import format_size


def _measure(values: dict[str, Any]) -> dict[str, Any]:
    if values["depth"] > 0 and values["context"] == 0:
        values["context"] = values["depth"] + max(values["prompt_tokens"], values["max_tokens"])
    options = load_options_from(values).as_core()
    file = _core.ModelFile(values["model"])
    # Measured before the model takes its memory.
    bandwidth = _core.bandwidth(file, options)
    engine = _core.Engine(file, options)
    tests = (("prefill", values["prompt_tokens"]), ("decode", values["max_tokens"]))
    results = [
        _core.benchmark(
            engine,
            file,
            {
                "test": test,
                "num_tokens": count,
                "depth": values["depth"],
                "repetitions": values["repetitions"],
            },
            bandwidth["memory"],
            bandwidth["storage"],
        )
        for test, count in tests
        if count > 0
    ]
    return {
        "results": results,
        "memory": {
            "budget_bytes": engine.plan()["budget_bytes"],
            "peak_bytes": engine.stats()["peak_resident_bytes"],
        },
        "level": engine.level,
        "threads": engine.plan()["threads"],
        "io": engine.io,
        "bandwidth": bandwidth,
    }


def _print(report: dict[str, Any]) -> None:
    for result in report["results"]:
        rate = result["tokens_per_second"]
        limits = ", ".join(
            f"{name} {value:.1f}" for name, value in result["limit"].items() if value is not None
        )
        print(
            f"{result['test']}: {rate['median']:.2f} tok/s ({rate['min']:.2f} to "
            f"{rate['max']:.2f}), hits {result['hit_rate']:.1%}, "
            f"{format_size(result['bytes_read_per_token'])} read and "
            f"{result['stall_seconds_per_token'] * 1e3:.1f} ms waited per token; "
            f"{result['of_limit']:.0%} of the limit (tok/s: {limits})"
        )
    memory = report["memory"]
    print(
        f"level {report['level']}, {report['threads']} threads, io {report['io']}, "
        f"{format_size(memory['peak_bytes'])} of {format_size(memory['budget_bytes'])} memory used"
    )


@click.command()
@model_argument(required=True)
@click.option(
    "-p",
    "--prompt-tokens",
    type=click.IntRange(0),
    default=512,
    show_default=True,
    help="Tokens of the prefill test; 0: none.",
)
@click.option(
    "-n",
    "--max-tokens",
    type=click.IntRange(0),
    default=128,
    show_default=True,
    help="Tokens of the decode test; 0: none.",
)
@click.option(
    "-d",
    "--depth",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Tokens in the context before the measured ones; the context is made to hold them.",
)
@click.option("-r", "--repetitions", type=click.IntRange(1), default=3, show_default=True)
@load_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def bench(**values: Any) -> None:
    """Measure prefill and decode with random tokens, and the ratio to what the machine allows."""
    if values["prompt_tokens"] == 0 and values["max_tokens"] == 0:
        raise click.UsageError("there is nothing to measure: -p and -n are both 0")
    if sys.stderr.isatty():
        print("measuring ...", file=sys.stderr)
    report = _measure(values)
    if values["as_json"]:
        print(json.dumps(report))
    else:
        _print(report)
