"""edgemoe run: continue a prompt, or answer it where the model has an encoder."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import click

from edgemoe.cli.generating import (
    Meter,
    closing_line,
    print_pressure,
    read_text_file,
    sampling_from,
    tokens_from,
    unescape,
)
from edgemoe.cli.lossy import lossy_figures, print_lossy
from edgemoe.cli.parameters import (
    Utf8Text,
    load_options,
    load_options_from,
    model_argument,
    sampling_options,
)
from edgemoe.demo import DEMO_PROMPT, demo_memory, demo_path
from edgemoe.model import Model

_DEFAULT_TOKENS = 200


def _prompt(values: dict[str, Any]) -> str:
    if values["prompt"] is not None:
        text: str = values["prompt"]
        return unescape(text) if values["escape"] else text
    if values["file"] is not None:
        return read_text_file(values["file"])
    if values["model"] is None:
        return DEMO_PROMPT
    raise click.UsageError("there is no prompt; give one with -p TEXT or -f FILE")


def _load(values: dict[str, Any]) -> Model:
    options = load_options_from(values)
    if values["model"] is not None:
        return Model(values["model"], options)
    if options.memory == "auto":
        options = replace(options, memory=demo_memory(options.as_core()))
    return Model(str(demo_path()), options)


@click.command()
@model_argument(required=False)
@click.option("-p", "--prompt", type=Utf8Text(), help="The text to continue.")
@click.option("-f", "--file", type=click.Path(), help="A UTF-8 file with the text to continue.")
@click.option("--escape/--no-escape", default=True, help=r"Read \n, \t, ... in -p. Default: yes.")
@click.option("--special", is_flag=True, help="Names of control tokens in the prompt count.")
@sampling_options
@load_options()
@click.option("--stats", is_flag=True, help="Close with one line of figures.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def run(**values: Any) -> None:
    """Continue a prompt; a model with an encoder (Switch Transformers) answers it instead.

    Without MODEL the bundled demo tells a story.
    """
    prompt = _prompt(values)
    sampling = sampling_from(values)
    with _load(values) as model:
        meter = Meter(model)
        generation = model.generate(
            prompt,
            max_tokens=tokens_from(values["max_tokens"], _DEFAULT_TOKENS),
            sampling=sampling,
            stop=values["stops"],
            parse_special=values["special"],
        )
        if values["as_json"]:
            text = "".join(generation)
            figures = {"text": text, **meter.figures(generation), **lossy_figures(model)}
            print(json.dumps(figures))
            print_pressure(meter)
            return
        if not model.has_encoder:
            sys.stdout.write(prompt)
        for piece in generation:
            sys.stdout.write(piece)
            sys.stdout.flush()
        print(flush=True)
        if values["stats"] or values["model"] is None:
            print(closing_line(meter.figures(generation), model.stats()), file=sys.stderr)
        print_lossy(model)
        print_pressure(meter)
