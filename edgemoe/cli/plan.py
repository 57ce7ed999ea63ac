"""edgemoe plan: choose the quantisation type of every expert."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from typing import Any

import click

from edgemoe import _core
from edgemoe.bitwidth.cost_table import CostTable, cost_table
from edgemoe.bitwidth.importance import profile_importance
from edgemoe.bitwidth.loss_meter import LossMeter
from edgemoe.bitwidth.packing import dense_types
from edgemoe.bitwidth.plan_file import Plan, PlanModel, save_plan, with_profile
from edgemoe.bitwidth.planner import Planned, Planner, Target
from edgemoe.bitwidth.profile_file import Profile
from edgemoe.bitwidth.profile_options import source_checksum
from edgemoe.bitwidth.speed import Machine, SpeedModel
from edgemoe.cli.parameters import MemorySize, _Parameter
from edgemoe.errors import ArgumentError
from edgemoe.options import LoadOptions
from edgemoe.sizes import format_size, parse_size

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%?")
_DEFAULT_LOSS = 0.02
_RUNNING_PROCESS_BYTES = 48 << 20


class _Loss(_Parameter):
    """2% or 2: percent of the perplexity."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = _PERCENT.fullmatch(str(value).strip())
        percent = float(found[1]) if found else 0.0
        if not 0 < percent <= 1000:
            self.fail(f"{value!r} is no loss; write 2% for two percent more perplexity", param, ctx)
        return percent / 100


class _Bytes(_Parameter):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


def _check_usage(values: dict[str, Any]) -> None:
    targets = [name for name in ("size", "bits", "for_memory") if values[name] is not None]
    if len(targets) + (values["max_loss"] is not None and values["for_memory"] is None) > 1:
        raise click.UsageError(
            "give one of --max-loss, --size, --bits and --for-memory (which takes --max-loss too)"
        )
    if values["out"] is None and not values["table"]:
        raise click.UsageError("say where the plan goes with -o PLAN, or ask for --table")
    if (values["method"] == "uniform") != (values["type"] is not None):
        raise click.UsageError("--method uniform and --type TYPE go together")
    if values["method"] != "allocate" and values["for_memory"] is not None:
        raise click.UsageError("--for-memory is what the method allocate does")


def _model_path(profile: Profile, path: str, given: str | None) -> str:
    """The profiled model; ArgumentError when it is not there, or another one."""
    model = given or str(profile.meta.get("model_path") or "")
    if not model or not os.path.exists(model):
        raise ArgumentError(
            f"{path}: the model that it was measured on ({model or 'unknown'}) is not there; say "
            "where it is with --model"
        )
    if source_checksum(model) != profile.meta["source_checksum"]:
        raise ArgumentError(
            f"{model}: is not the model that {path} was measured on; profile this one"
        )
    return model


def _target(values: dict[str, Any], table: CostTable, dense_bytes: int) -> Target:
    if values["size"] is not None:
        experts = values["size"] - dense_bytes
        if experts <= 0:
            raise ArgumentError(
                f"{format_size(values['size'])} are less than the {format_size(dense_bytes)} of "
                "weights that are no experts; --dense TYPE makes those smaller"
            )
        return Target(size=experts)
    if values["bits"] is not None:
        return Target(size=int(values["bits"] * table.num_weights / 8))
    loss = values["max_loss"] if values["max_loss"] is not None else _DEFAULT_LOSS
    return Target(max_loss=loss, memory=values["for_memory"])


def _dense_bytes(source: _core.PackSource, types: dict[str, str]) -> int:
    total = 0
    for name, type_, columns, rows, _ in source.dense_tensors():
        elements, size = _core.block_shape(types.get(name, type_))
        total += rows * columns // elements * size
    return total


def _speed_model(profile: Profile, model: str, values: dict[str, Any], dense: int) -> SpeedModel:
    file = _core.ModelFile(model)
    options = LoadOptions(memory=values["for_memory"], threads=values["threads"]).as_core()
    if not isinstance(values["for_memory"], str):
        # What this process takes by now is not what one takes that only runs the model.
        more = file.plan(options)["process_bytes"] - _RUNNING_PROCESS_BYTES
        options["memory"] = values["for_memory"] + max(0, more)
    plan = file.plan(options)
    measured = {"storage": values["storage_speed"], "memory": 0.0}
    rates = _core.bandwidth(file, options)
    pool = plan["expert_pool_bytes"] + plan["dense_bytes"] - min(dense, plan["dense_bytes"])
    if plan["budget_bytes"] < plan["least_bytes"]:
        pool = plan["budget_bytes"] - plan["least_bytes"]
    return SpeedModel(
        profile,
        Machine(
            storage=measured["storage"] or rates["storage"],
            memory=rates["memory"],
            pool=pool,
            dense=dense,
        ),
    )


def _print_table(planner: Planner) -> None:
    """Sizes and predicted divergences from the smallest types to the largest that pay."""
    print(f"{'bits':>6}  {'experts':>12}  {'divergence':>10}")
    for bits, divergence in planner.curve():
        size = format_size(bits * planner.table.num_weights / 8)
        print(f"{bits:6.3f}  {size:>12}  {divergence:10.5f}")


def _print_plan(plan: Plan, dense_bytes: int) -> None:
    predicted, measured = plan.predicted, plan.measured
    print(
        f"experts: {format_size(predicted['expert_bytes'])}, "
        f"{predicted['bits_per_weight']:.3f} bits per weight; everything else: "
        f"{format_size(dense_bytes)}"
    )
    if measured:
        print(
            f"expected loss on new text: {100 * measured['loss']:.2f} %, by a divergence of "
            f"{measured['kl_mean']:.5f} (+- {measured['kl_error']:.5f}) on held-out text; same "
            f"first choice {100 * measured['same_top1']:.1f} %"
        )
        growth = measured["perplexity_growth_by_text"]
        shown = ", ".join(f"{name} {100 * value:+.2f} %" for name, value in growth.items())
        print(f"perplexity of the calibration text itself: {shown}")
    else:
        print("nothing was measured: the sizes hold, the loss is unknown")
    for reason in plan.reasons:
        print(f"  {reason}")


def _planned(planner: Planner, target: Target, values: dict[str, Any], speed: Any) -> Planned:
    if values["method"] == "uniform":
        return planner.uniform(values["type"])
    if values["method"] == "paper":
        return planner.paper(target)
    return planner.allocate(target, speed)


@click.command()
@click.argument("profile", type=click.Path())
@click.option("--max-loss", type=_Loss(), help="Perplexity that may be lost; 2% without a target.")
@click.option("--size", type=_Bytes(), help="Of the whole packed model, e.g. 6GiB.")
@click.option("--bits", type=click.FloatRange(1, 32), help="Bits per weight of the experts.")
@click.option(
    "--for-memory",
    type=MemorySize(),
    help="Fastest under that budget within --max-loss, by a prediction.",
)
@click.option("--storage-speed", type=_Bytes(), help="Bytes per second, with --for-memory.")
@click.option(
    "--method",
    type=click.Choice(("allocate", "paper", "uniform")),
    default="allocate",
    show_default=True,
    help="paper: the algorithm of EdgeMoE, for comparison.",
)
@click.option(
    "--measure-importance",
    is_flag=True,
    help="With --method paper: measure each expert by itself, as the paper does (slow), in place "
    "of the profile's errors.",
)
@click.option("--type", "type", metavar="TYPE", help="Of all experts, with --method uniform.")
@click.option("--dense", metavar="TYPE", help="A type for the matrices that are no experts.")
@click.option("--model", type=click.Path(), help="Where the profiled model is now.")
@click.option(
    "--no-measure", is_flag=True, help="Predict from the profile alone; no loss is known."
)
@click.option(
    "--windows",
    type=click.IntRange(0),
    default=0,
    help="Held-out windows of each text that are measured; 0: all. Few make large models quick.",
)
@click.option("--folder", type=click.Path(), help="Where candidates are written; the system's own.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="0: all CPUs.")
@click.option(
    "--memory", type=MemorySize(), default="auto", help="Bound of the process while it measures."
)
@click.option("-o", "--out", type=click.Path(), help="The plan to write, JSON.")
@click.option("--table", is_flag=True, help="Print sizes and what they cost, smallest first.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan's figures as JSON.")
def plan(profile: str, **values: Any) -> None:
    """Choose a type for every expert from PROFILE, which `edgemoe profile` measured.

    Plans are packed into a temporary folder and measured on the text that the profile kept apart,
    so that the loss that the plan states is measured. See docs/bitwidth.md.
    """
    _check_usage(values)
    known = Profile.load(profile)
    model = _model_path(known, profile, values["model"])
    source = _core.PackSource(model)
    dense, notes = dense_types(source, values["dense"] and values["dense"].upper())
    dense_bytes = _dense_bytes(source, dense)
    table = cost_table(known, source)
    target = _target(values, table, dense_bytes)
    say = (lambda text: None) if values["as_json"] else _say
    meter = None
    if not values["no_measure"]:
        options = LoadOptions(memory=values["memory"], threads=values["threads"])
        importance = profile_importance(profile, source)
        meter = LossMeter(
            model,
            known,
            importance,
            options,
            folder=values["folder"],
            dense=dense,
            windows=values["windows"],
            report=say,
        )
    described = PlanModel(source.architecture, source.name, source.num_layers, source.num_experts)
    planner = Planner(table, described, meter, say, values["measure_importance"])
    if values["table"]:
        _print_table(planner)
    if values["out"] is None:
        return
    speed = None
    if values["for_memory"] is not None:
        speed = _speed_model(known, model, values, dense_bytes)
    planned = _planned(planner, target, values, speed)
    result = planner.result(planned, values["method"], target)
    result = replace(result, dense=dense, reasons=(*result.reasons, *notes))
    result = with_profile(result, values["out"], profile)
    save_plan(result, values["out"])
    if values["as_json"]:
        print(json.dumps({**result.summary(), "dense_bytes": dense_bytes}))
    else:
        _print_plan(result, dense_bytes)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
