"""edgemoe pack: give every expert the quantisation type of a plan."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from edgemoe import _core
from edgemoe.bitwidth.importance import (
    NO_IMPORTANCE,
    Importance,
    imatrix_importance,
    profile_importance,
)
from edgemoe.bitwidth.low_copies import add_low_copies
from edgemoe.bitwidth.packing import PackOptions, PackReport, check_plan, pack_model, uniform_plan
from edgemoe.bitwidth.plan_file import Plan, file_checksum, load_plan, profile_path
from edgemoe.cli.parameters import QuantType, _Parameter, model_argument
from edgemoe.cli.progress import progress_bar
from edgemoe.errors import ArgumentError
from edgemoe.sizes import format_size, parse_size

_PROGRESS_STEPS = 1000


class _Size(_Parameter):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


def _check_usage(values: dict[str, Any]) -> None:
    if (values["plan"] is None) == (values["uniform"] is None):
        raise click.UsageError("give either --plan PLAN or --uniform TYPE")
    if values["plan"] is not None:
        for name in ("dense", "imatrix"):
            if values[name] is not None:
                raise click.UsageError(f"--{name} goes with --uniform; a plan says that itself")
        if values["format"] == "gguf":
            raise click.UsageError("--format gguf goes with --uniform: it has one type per tensor")
    if values["low_copy"] is not None and values["format"] == "gguf":
        raise click.UsageError("--low-copy goes with the packed container, not with --format gguf")
    given = [name for name in ("imatrix", "profile") if values[name] is not None]
    if len(given) + values["no_importance"] > 1:
        raise click.UsageError("--imatrix, --profile and --no-importance exclude each other")


def _plan_importance(plan: Plan, values: dict[str, Any], source: _core.PackSource) -> Importance:
    """Of the profile that the plan names, unless another one or none is asked for."""
    if values["no_importance"]:
        return NO_IMPORTANCE
    path = values["profile"]
    named = profile_path(plan, values["plan"])
    if path is None:
        if named is None or plan.profile is None:
            return NO_IMPORTANCE
        path = named
        if not os.path.exists(path):
            raise ArgumentError(
                f"{path}: the profile that the plan names is not there; say where it is with"
                " --profile, or pack with --no-importance"
            )
        if file_checksum(path) != plan.profile.checksum:
            raise ArgumentError(
                f"{path}: is not the profile that the plan was made from (its checksum differs);"
                " plan again, or say --profile to use it all the same"
            )
    return profile_importance(path, source)


def _prepare(
    values: dict[str, Any], source: _core.PackSource
) -> tuple[Plan, Importance, list[str]]:
    if values["plan"] is not None:
        plan = load_plan(values["plan"])
        check_plan(plan, source)
        return plan, _plan_importance(plan, values, source), []
    plan, notes = uniform_plan(source, values["uniform"], values["dense"])
    importance = NO_IMPORTANCE
    if values["imatrix"] is not None:
        importance = imatrix_importance(values["imatrix"])
    elif values["profile"] is not None:
        importance = profile_importance(values["profile"], source)
    return plan, importance, notes


def _rates(report: PackReport) -> dict[str, float]:
    """Per second of this run, which may have gone on where another one stopped."""
    result = report.result
    seconds = max(result["seconds"], 1e-9)
    return {
        "read_mb_per_second": result["read_bytes"] / seconds / 1e6,
        "written_mb_per_second": result["written_bytes"] / seconds / 1e6,
        "million_weights_per_second": result["weights"] / seconds / 1e6,
    }


def _figures(report: PackReport) -> dict[str, Any]:
    result = report.result
    return {
        "files": result["paths"],
        "source_bytes": report.source_bytes,
        "output_bytes": result["output_bytes"],
        "bits_per_weight": {part: report.bits(part) for part in ("expert", "dense", "all")},
        "expert_bytes": result["expert_bytes"],
        "low_copies": result["low_copies"],
        "low_copy_bytes": result["low_copy_bytes"],
        "dense_bytes": result["dense_bytes"],
        "relative_error": {one["type"]: one["relative_error"] for one in result["losses"]},
        "seconds": result["seconds"],
        "resumed_weights": result["resumed_weights"],
        **_rates(report),
        "notes": report.notes,
        "warnings": report.warnings,
    }


def _print(report: PackReport) -> None:
    result = report.result
    count = len(result["paths"])
    first = result["paths"][0].encode("utf-8", "backslashreplace").decode("utf-8")
    files = f"{count} files from {first} on" if count > 1 else first
    print(
        f"{files}: {format_size(report.source_bytes)} -> {format_size(result['output_bytes'])} "
        f"({result['output_bytes'] / report.source_bytes:.3f})"
    )
    bits = {part: report.bits(part) for part in ("expert", "dense", "all")}
    names = {"expert": "experts", "dense": "dense tensors", "all": "all"}
    shown = [f"{names[part]} {value:.3f}" for part, value in bits.items() if value is not None]
    print(f"bits per weight: {', '.join(shown)}")
    if result["low_copies"]:
        low_bits = 8 * result["low_copy_bytes"] / result["low_copy_weights"]
        print(
            f"low copies: {result['low_copies']}, {format_size(result['low_copy_bytes'])} more, "
            f"{low_bits:.3f} bits per weight"
        )
    for one in result["losses"]:
        print(
            f"  {one['type']}: {one['weights'] / 1e6:.1f} M weights, relative error "
            f"{100 * one['relative_error']:.2f} %"
        )
    rates = _rates(report)
    print(
        f"{result['seconds']:.1f} s: {rates['read_mb_per_second']:.0f} MB/s read, "
        f"{rates['written_mb_per_second']:.0f} MB/s written, "
        f"{rates['million_weights_per_second']:.1f} M weights/s"
    )
    if result["resumed_weights"]:
        print(f"{result['resumed_weights'] / 1e6:.1f} M weights were there from an earlier run")


@click.command()
@model_argument(required=True)
@click.option("--plan", type=click.Path(), help="Types by expert, from edgemoe plan.")
@click.option("--uniform", type=QuantType(), help="One type for all experts, e.g. Q4_K.")
@click.option(
    "--low-copy",
    type=QuantType(),
    help="A second copy of each expert, e.g. Q2_K, for --lossy-low-copy.",
)
@click.option("--dense", type=QuantType(), help="With --uniform: for the other matrices too.")
@click.option("-o", "--out", required=True, type=click.Path(), help="The file to write.")
@click.option("--profile", type=click.Path(), help="What columns matter, from edgemoe profile.")
@click.option("--imatrix", type=click.Path(), help="The same from llama.cpp (.gguf or .dat).")
@click.option("--no-importance", is_flag=True, help="All columns matter alike.")
@click.option(
    "--format",
    type=click.Choice(("edgemoe", "gguf")),
    default="edgemoe",
    show_default=True,
    help="gguf: tensors as every engine reads them (with --uniform).",
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="0: all CPUs.")
@click.option(
    "--memory", type=_Size(), default="1GiB", show_default=True, help="Bound of the process."
)
@click.option("--max-shard-size", type=_Size(), help="Write several files of at most that size.")
@click.option("--force", is_flag=True, help="Replace OUT, when the new file is whole.")
@click.option("--no-resume", is_flag=True, help="Do not go on where an earlier run stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def pack(**values: Any) -> None:
    """Quantise a model into the packed container, in which experts have types of their own.

    OUT appears when it is whole. An interrupted run leaves OUT.part, and the same command goes on
    where it stopped.
    """
    _check_usage(values)
    source = _core.PackSource(values["model"])
    plan, importance, notes = _prepare(values, source)
    low_copies = None
    if values["low_copy"] is not None:
        plan, low_copies, low_notes = add_low_copies(plan, source, values["low_copy"])
        notes += low_notes
    options = PackOptions(
        threads=values["threads"],
        memory=values["memory"],
        overwrite=values["force"],
        resume=not values["no_resume"],
        max_shard=values["max_shard_size"] or 0,
    )
    with progress_bar("packing", _PROGRESS_STEPS) as advance:
        shown = 0

        def show(done: int, total: int, _resumed: int) -> None:
            nonlocal shown
            steps = _PROGRESS_STEPS * done // max(total, 1) - shown
            advance(steps)
            shown += steps

        report = pack_model(
            source,
            plan,
            values["out"],
            importance=importance,
            options=options,
            low_copies=low_copies,
            stock_layout=values["format"] == "gguf",
            progress=show,
        )
    report.notes = notes
    for note in notes:
        print(f"edgemoe: note: {note}", file=sys.stderr)
    for warning in report.warnings:
        print(f"edgemoe: warning: {warning}", file=sys.stderr)
    if values["as_json"]:
        print(json.dumps(_figures(report)))
    else:
        _print(report)
