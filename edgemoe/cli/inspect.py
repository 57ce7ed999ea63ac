"""edgemoe inspect: what a model is, and what running it would take."""

from __future__ import annotations

import json
from typing import Any

import click

from edgemoe import _core
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.cli.progress import progress_bar
from edgemoe.errors import ModelFormatError
from edgemoe.sizes import format_size


def _parsed(text: str) -> Any:
    """JSON that a container carries; what is none stays text."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _packed(file: _core.ModelFile) -> dict[str, Any] | None:
    packed = file.packed()
    if packed is None:
        return None
    return {**packed, "plan": _parsed(packed["plan"]), "source": _parsed(packed["source"])}


def _verified(file: _core.ModelFile) -> dict[str, Any]:
    with progress_bar("checksums", file.checksum_bytes()) as advance:
        return file.verify(advance)


def _description(file: _core.ModelFile, plan: dict[str, int]) -> dict[str, Any]:
    return {
        "model": file.spec(),
        "files": file.paths,
        "file_bytes": file.file_bytes,
        "bytes_by_type": file.bytes_by_type(),
        "experts": file.experts(),
        "low_copies": file.low_copies(),
        "packed": _packed(file),
        "memory_plan": plan,
        "fits": plan["budget_bytes"] >= plan["least_bytes"],
    }


def _expert_lines(experts: list[dict[str, Any]]) -> list[str]:
    """One line for each run of layers whose experts are alike."""
    lines: list[tuple[int, int, str]] = []
    for layer in experts:
        types = ", ".join(f"{count} x {name}" for name, count in layer["matrices"].items())
        bits = f"{layer['bits_per_weight']:.2f} bits per weight"
        least, most = min(layer["bits_by_expert"]), max(layer["bits_by_expert"])
        if least != most:
            bits += f", {least:.2f} to {most:.2f} by expert"
        text = f"{format_size(layer['bytes_per_expert'])} per expert, {bits} ({types})"
        if lines and lines[-1][2] == text and lines[-1][1] == layer["layer"] - 1:
            lines[-1] = (lines[-1][0], layer["layer"], text)
        else:
            lines.append((layer["layer"], layer["layer"], text))
    return [
        f"  layer {first}: {text}" if first == last else f"  layers {first}-{last}: {text}"
        for first, last, text in lines
    ]


def _mean_bits(experts: list[dict[str, Any]]) -> float:
    """Of all layers; they may have experts of different sizes, so weights are what counts."""
    size = sum(layer["bytes_per_expert"] for layer in experts)
    weights = sum(layer["bytes_per_expert"] / layer["bits_per_weight"] for layer in experts)
    return float(size / weights)


def _packed_line(packed: dict[str, Any]) -> str:
    line = f"packed: format {packed['format_version']}, layout {packed['layout_version']}"
    plan = packed["plan"]
    if isinstance(plan, dict):
        target = plan.get("target")
        named = (
            ", ".join(f"{key} {value}" for key, value in target.items())
            if isinstance(target, dict)
            else ""
        )
        line += f"; plan {plan.get('method', 'of an unknown method')}"
        line += f" ({named})" if named else ""
    return line


def _low_copies_line(low: dict[str, Any], experts: int) -> str:
    types = ", ".join(f"{count} x {name}" for name, count in low["matrices"].items())
    return (
        f"low copies: {low['copies']} of {experts} experts, {format_size(low['bytes'])} in all, "
        f"{low['bits_per_weight']:.2f} bits per weight ({types}), for --lossy-low-copy"
    )


def _verification_line(verification: dict[str, Any]) -> str:
    size = format_size(verification["bytes"])
    counts = {"experts": "experts", "low_copies": "low copies", "dense_tensors": "dense tensors"}
    parts = ", ".join(
        f"{verification[key]} {name}"
        for key, name in counts.items()
        if verification[key] or key != "low_copies"
    )
    damaged = verification["damaged"]
    found = f"{damaged} damaged" if damaged else "all as they were packed"
    return f"checksums: {parts}, {size} read: {found}"


def _layers(model: dict[str, Any]) -> str:
    encoder = model["encoder_layers"]
    if not encoder:
        return f"{model['layers']} layers"
    return f"{encoder} layers of the encoder and {model['layers'] - encoder} of the decoder"


def _print(description: dict[str, Any], plan_text: str) -> None:
    model = description["model"]
    print(
        f"{model['name'] or 'unnamed'}: {model['architecture']}, {_layers(model)}, "
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
        print(f"mean of all experts: {_mean_bits(description['experts']):.2f} bits per weight")
        if description["low_copies"] is not None:
            experts = model["experts"] * len(description["experts"])
            print(_low_copies_line(description["low_copies"], experts))
    else:
        print("experts: none (a dense model: everything stays in memory)")
    sizes = ", ".join(
        f"{name} {format_size(size)}" for name, size in description["bytes_by_type"].items()
    )
    if description["packed"] is not None:
        print(_packed_line(description["packed"]))
    print(f"files: {len(description['files'])}, {format_size(description['file_bytes'])} ({sizes})")
    print(plan_text)
    if not description["fits"]:
        print("this budget is too small")


@click.command()
@model_argument(required=True)
@load_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def inspect(**values: Any) -> None:
    """Show a model's structure, sizes, bits per expert and memory plan; load nothing.

    With --verify all of a packed file is read and compared with its checksums; the exit status is 1
    when a part is damaged.
    """
    file = _core.ModelFile(values["model"])
    options = load_options_from(values).as_core()
    description = _description(file, file.plan(options))
    verification = _verified(file) if values["verify"] else None
    if verification is not None:
        description["verification"] = verification
    if values["as_json"]:
        print(json.dumps(description))
    else:
        _print(description, file.describe_plan(options))
        if verification is not None:
            print(_verification_line(verification))
    if verification is not None and verification["damaged"]:
        raise ModelFormatError(verification["first_damaged"]["message"])
