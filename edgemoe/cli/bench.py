"""edgemoe bench: speed of prefill and decode against the limits of the machine."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from edgemoe import _core
from edgemoe.cli.lossy import lossy_lines
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.errors import ArgumentError
from edgemoe.sizes import format_size
from edgemoe.traces import DECODE, PREFILL, RouteTrace, read_trace, route_script, uniform_script

UNIFORM = "uniform"  # routing of no trace; a file of this name is ./uniform


class _Routing:
    """A trace, or chance, that routes the tests in place of the model's router. Made before the
    engine plans: what it holds counts, and the engine's copy is smaller than the trace, which is
    dropped for it.
    """

    def __init__(self, path: str, model: str) -> None:
        spec = _core.ModelFile(model).spec()
        if not spec["experts"]:
            raise ArgumentError(f"{model}: the model has no experts; there is nothing to route")
        phases = {"prefill": PREFILL, "decode": DECODE}
        self._trace: RouteTrace | None = None
        if path == UNIFORM:
            script = uniform_script(spec["layers"], spec["experts"], spec["experts_used"])
            self._scripts = dict.fromkeys(phases, script)
        else:
            self._trace = trace = read_trace(path)
            self._scripts = {test: route_script(trace, phases[test]) for test in phases}
        _core.return_freed_memory()

    def apply(self, engine: _core.Engine, test: str) -> None:
        self._trace = None
        engine.set_routing(self._scripts[test])


def _measure(values: dict[str, Any]) -> dict[str, Any]:
    path = values["routing"]
    routing = None if path is None else _Routing(path, values["model"])
    if values["depth"] > 0 and values["context"] == 0:
        values["context"] = values["depth"] + max(values["prompt_tokens"], values["max_tokens"])
    options = load_options_from(values).as_core()
    file = _core.ModelFile(values["model"])
    # Measured before the model takes its memory.
    bandwidth = _core.bandwidth(file, options)
    engine = _core.Engine(file, options)
    results = []
    for test, count in (("prefill", values["prompt_tokens"]), ("decode", values["max_tokens"])):
        if count == 0:
            continue
        if routing is not None:
            routing.apply(engine, test)
        chosen = {
            "test": test,
            "num_tokens": count,
            "depth": values["depth"],
            "repetitions": values["repetitions"],
        }
        results.append(
            _core.benchmark(engine, file, chosen, bandwidth["memory"], bandwidth["storage"])
        )
    return {
        "results": results,
        "memory": {
            "budget_bytes": engine.plan()["budget_bytes"],
            "peak_bytes": engine.stats()["peak_resident_bytes"],
            # The peak may be that of measuring the machine before the model was loaded.
            "resident_bytes": engine.stats()["resident_bytes"],
        },
        "mode": options["mode"],
        "level": engine.level,
        "threads": engine.plan()["threads"],
        "io": engine.io,
        "bandwidth": bandwidth,
        **({} if path is None else {"routing": os.path.basename(path)}),
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
        for line in lossy_lines(result):
            print("  " + line)
    memory = report["memory"]
    print(
        f"mode {report['mode']}, level {report['level']}, {report['threads']} threads, "
        f"io {report['io']}, "
        f"{format_size(memory['peak_bytes'])} of {format_size(memory['budget_bytes'])} memory used"
        + (f", routing from {report['routing']}" if "routing" in report else "")
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
@click.option(
    "--routing",
    type=click.Path(),
    metavar="TRACE.csv|uniform",
    help="Experts are those of this trace instead of the router's: expert locality of a real run "
    "on random weights. Prefill takes its prefill tokens, decode those that it decoded. uniform: "
    "every expert is as likely as any other, the worst case.",
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
