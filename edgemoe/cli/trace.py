"""edgemoe trace: record which experts a run uses."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import click

from edgemoe.cli.generating import read_text_file
from edgemoe.cli.lossy import print_lossy
from edgemoe.cli.parameters import Utf8Text, load_options, load_options_from, model_argument
from edgemoe.model import Model
from edgemoe.options import Sampling
from edgemoe.output_file import is_written_directly, output_file
from edgemoe.recording import TraceRecorder, route_header
from edgemoe.traces import DECODE, PREFILL


def _prompt(values: dict[str, Any]) -> str:
    if (values["prompt"] is None) == (values["file"] is None):
        raise click.UsageError("give a prompt with either -p TEXT or -f FILE")
    if values["file"] is not None:
        return read_text_file(values["file"])
    text: str = values["prompt"]
    return text


def _check_outputs(values: dict[str, Any]) -> None:
    seen: dict[str, str] = {}
    for name in ("model", "file", "out", "timeline"):
        if values[name] is None:
            continue
        if is_written_directly(values[name]):
            continue
        path = os.path.realpath(values[name])
        if path in seen:
            raise click.UsageError(f"{name} and {seen[path]} are the same file")
        seen[path] = name


def _is_standard_output(path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def _shares(recall: list[float | None]) -> str:
    return ", ".join(
        f"{100 * share:.4g} % {f'{distance} layers ahead' if distance else 'in their own layer'}"
        for distance, share in enumerate(recall)
        if share is not None
    )


@click.command()
@model_argument(required=True)
@click.option("-p", "--prompt", type=Utf8Text(), help="The text to continue.")
@click.option("-f", "--file", type=click.Path(), help="A UTF-8 file with the text to continue.")
@click.option(
    "-n",
    "--max-tokens",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Tokens to generate; with 1 only the prompt is evaluated.",
)
@click.option(
    "--temp",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="0: always the most likely token.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--out", required=True, type=click.Path(), help="The route trace to write.")
@click.option("--timeline", type=click.Path(), help="Also write the times of every layer.")
@load_options()
def trace(**values: Any) -> None:
    """Record which experts a prompt and its continuation use, as CSV (docs/traces.md)."""
    prompt = _prompt(values)
    _check_outputs(values)
    lossy = {name: values[name] for name in ("lossy_routing", "lossy_low_copy")}
    header = route_header(values["model"], lossy)
    options = replace(load_options_from(values), trace=True)
    # A file that goes to standard output has it for itself.
    aside = any(_is_standard_output(values[name]) for name in ("out", "timeline") if values[name])
    report = sys.stderr if aside else sys.stdout
    with ExitStack() as stack:
        timeline = None
        if values["timeline"]:
            timeline = stack.enter_context(output_file(values["timeline"]))
        routing = stack.enter_context(output_file(values["out"]))
        model = stack.enter_context(Model(values["model"], options))
        recorder = TraceRecorder(header, routing, timeline)
        model.record(recorder.take)
        sampling = Sampling(temperature=values["temp"], seed=values["seed"])
        for _ in model.generate(prompt, max_tokens=values["max_tokens"], sampling=sampling):
            pass
        print_lossy(model)
        recall = model.router_recall()
    print(
        f"{values['out']}: {recorder.tokens[PREFILL]} tokens of the prompt and "
        f"{recorder.tokens[DECODE]} decoded, {recorder.num_rows} rows",
        file=report,
    )
    if recall[0] is not None:
        print(f"experts that routers asked early named: {_shares(recall)}", file=report)
