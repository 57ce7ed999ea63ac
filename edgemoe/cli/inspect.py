"""edgemoe inspect: what a model is, and what running it would take."""

from __future__ import annotations

import json
from typing import Any

import click

from edgemoe import _core
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.sizes import format_size


def _description(file: _core.ModelFile, plan: dict[str, int]) -> dict[str, Any]:
    return {
        "model": file.spec(),
        "files": file.paths,
        "file_bytes": file.file_bytes,
        "bytes_by_type": file.bytes_by_type(),
        "experts": file.experts(),
        "memory_plan": plan,
        "fits": plan["budget_bytes"] >= plan["least_bytes"],
    }


def _expert_lines(experts: list[dict[str, Any]]) -> list[str]:
    """One line for each run of layers whose experts are alike."""
    lines: list[tuple[int, int, str]] = []
    for layer in experts:
        types = ", ".join(f"{count} x {name}" for name, count in layer["matrices"].items())
        text = (
            f"{format_size(layer['bytes_per_expert'])} per expert, "
            f"{layer['bits_per_weight']:.2f} bits per weight ({types})"
        )
        if lines and lines[-1][2] == text and lines[-1][1] == layer["layer"] - 1:
            lines[-1] = (lines[-1][0], layer["layer"], text)
        else:
            lines.append((layer["layer"], layer["layer"], text))
    return [
        f"  layer {first}: {text}" if first == last else f"  layers {first}-{last}: {text}"
        for first, last, text in lines
    ]


def _print(description: dict[str, Any], plan_text: str) -> None:
    model = description["model"]
    print(
        f"{model['name'] or 'unnamed'}: {model['architecture']}, {model['layers']} layers, "
        f"width {model['width']}, vocabulary {model['vocabulary']}, "
        f"trained for {model['trained_context']} tokens"
    )
    print(f"attention: {model['attention']}, {model['heads']} heads, {model['kv_heads']} KV heads")
    for kind, layers in model["attention_layers"].items():
        if kind != model["attention"]:
            print(f"  {kind} in {layers} of {model['layers']} layers")
    if model["experts"]:
        print(
            f"experts: {model['experts']} per layer, {model['experts_used']} used, "
            f"router {model['router']}"
        )
        print("\n".join(_expert_lines(description["experts"])))
    else:
        print("experts: none (a dense model: everything stays in memory)")
    sizes = ", ".join(
        f"{name} {format_size(size)}" for name, size in description["bytes_by_type"].items()
    )
    print(f"files: {len(description['files'])}, {format_size(description['file_bytes'])} ({sizes})")
    print(plan_text)
    if not description["fits"]:
        print("this budget is too small")


@click.command()
@model_argument(required=True)
@load_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def inspect(**values: Any) -> None:
    """Show a model's structure, sizes, bits per expert and memory plan; load nothing."""
    file = _core.ModelFile(values["model"])
    options = load_options_from(values).as_core()
    description = _description(file, file.plan(options))
    if values["as_json"]:
        print(json.dumps(description))
    else:
        _print(description, file.describe_plan(options))
