"""Packing a model by a plan: what each tensor becomes, what the output says of its origin."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgemoe import _core
from edgemoe.bitwidth.importance import Importance
from edgemoe.bitwidth.plan_file import MATRICES, ExpertTypes, Plan, PlanModel
from edgemoe.errors import ArgumentError

# progress(weights done, weights in all, of those done by an earlier run)
Progress = Callable[[int, int, int], None]

# What takes the place of a type whose blocks do not fit the rows: the next larger that does.
_FALLBACKS = {
    "Q2_K": ("IQ4_NL",),
    "Q3_K": ("IQ4_NL",),
    "Q4_K": ("Q5_0", "IQ4_NL"),
    "Q5_K": ("Q5_1", "Q8_0"),
    "Q6_K": ("Q8_0",),
}
_LAST_FALLBACKS = ("IQ4_NL", "F16")

# general.file_type of files whose matrices have mostly one type.
_FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 14,
    "Q5_K": 16,
    "Q6_K": 18,
    "IQ2_XXS": 19,
    "IQ2_XS": 20,
    "IQ3_XXS": 23,
    "IQ4_NL": 25,
    "IQ3_S": 26,
    "IQ2_S": 28,
    "IQ4_XS": 30,
    "BF16": 32,
    "MXFP4": 38,
}
_QUANTIZATION_VERSION = 2


@dataclass(frozen=True)
class PackOptions:
    """How packing goes about it; none of this changes the result."""

    threads: int = 0  # 0: all CPUs
    memory: int = 1 << 30
    overwrite: bool = False
    resume: bool = True
    max_shard: int = 0  # 0: one file


@dataclass
class PackReport:
    """What became of a model. `result` is what the core counted."""

    source_bytes: int
    result: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def bits(self, part: str) -> float | None:
        """Bits per weight of "expert" or "dense" tensors, or of "all"."""
        parts = ("expert", "dense") if part == "all" else (part,)
        weights = sum(self.result[f"{one}_weights"] for one in parts)
        size = sum(self.result[f"{one}_bytes"] for one in parts)
        return 8 * size / weights if weights else None


def pack_model(
    source: _core.PackSource,
    plan: Plan,
    output: str,
    *,
    importance: Importance,
    options: PackOptions,
    low_copies: Sequence[Sequence[ExpertTypes | None] | None] | None = None,
    stock_layout: bool = False,
    progress: Progress | None = None,
) -> PackReport:
    """Packs `source` by `plan` into `output`; raises what docs/format.md and the core say.

    low_copies  of low_copies.add_low_copies; None packs none
    """
    check_plan(plan, source)
    request = {
        "output": output,
        "stock_layout": stock_layout,
        "experts": [layer and [list(types) for types in layer] for layer in plan.experts],
        "low_copies": low_copies,
        "dense": dict(plan.dense),
        "input_importance": importance.expert_input,
        "hidden_importance": importance.expert_hidden,
        "input_feedback": importance.input_feedback,
        "hidden_feedback": importance.hidden_feedback,
        "tensor_importance": dict(importance.tensors),
        "metadata": _metadata(source, plan, importance, stock_layout),
        "threads": options.threads or _core.cpus(),
        "memory": options.memory,
        "max_shard": options.max_shard,
        "overwrite": options.overwrite,
        "resume": options.resume,
    }
    report = PackReport(source.file_bytes, _core.pack_model(source, request, progress))
    report.warnings = _losses(source, report.result)
    return report


def uniform_plan(
    source: _core.PackSource, expert_type: str, dense_type: str | None
) -> tuple[Plan, list[str]]:
    """One type for all experts, and one for the dense matrices if it is given.

    Also returns what had to get another type because its rows are no whole blocks of that one.
    Raises ArgumentError for a type that cannot be written.
    """
    notes: list[str] = []
    matrices = source.expert_matrices()
    experts: list[tuple[ExpertTypes, ...] | None] = []
    columns_of: dict[str, set[int]] = {}
    for layer in matrices:
        if layer is None:
            experts.append(None)
            continue
        chosen = []
        for name, matrix in zip(MATRICES, layer, strict=True):
            columns = matrix[0] if matrix else 0
            chosen.append(fitting_type(expert_type, columns, matrix[2] if matrix else []))
            if chosen[-1] != expert_type:
                columns_of.setdefault(f"{name} matrices get {chosen[-1]}", set()).add(columns)
        gate, up, down = chosen
        experts.append(((gate, up, down),) * source.num_experts)
    for what, sizes in columns_of.items():
        rows = " or ".join(map(str, sorted(sizes)))
        notes.append(f"{what}: rows of {rows} weights are no whole blocks of {expert_type}")
    dense, dense_notes = dense_types(source, dense_type)
    notes += dense_notes
    target = {"experts": expert_type, **({"dense": dense_type} if dense_type else {})}
    model = PlanModel(source.architecture, source.name, source.num_layers, source.num_experts)
    return Plan(model, "uniform", tuple(experts), dense, target), notes


def dense_types(
    source: _core.PackSource, dense_type: str | None
) -> tuple[dict[str, str], list[str]]:
    """The types of a plan's dense matrices that get another one, and what got a replacement."""
    dense: dict[str, str] = {}
    notes: list[str] = []
    for name, type_, columns, _, may_quantize in source.dense_tensors():
        if dense_type is None or not may_quantize or type_ == dense_type:
            continue
        dense[name] = fitting_type(dense_type, columns, [type_])
        if dense[name] != dense_type:
            notes.append(
                f"{name} gets {dense[name]}: rows of {columns} weights are no whole blocks of"
                f" {dense_type}"
            )
    return dense, notes


def check_plan(plan: Plan, source: _core.PackSource) -> None:
    """Raises ArgumentError, naming the place, for a plan that does not fit the model."""
    for key in ("architecture", "num_layers", "num_experts"):
        planned, found = getattr(plan.model, key), getattr(source, key)
        if planned != found:
            raise ArgumentError(
                f"the plan is for another model: its {key} is {planned!r}, the model's {found!r}"
            )
    for layer, (types, matrices) in enumerate(
        zip(plan.experts, source.expert_matrices(), strict=True)
    ):
        place = f"experts[{layer}]"
        if (types is None) != (matrices is None):
            has = "has no experts" if matrices is None else "has experts"
            raise ArgumentError(f"the plan's {place} does not fit: this layer of the model {has}")
        for expert, chosen in enumerate(types or ()):
            for index, matrix in enumerate(matrices or ()):
                if matrix is not None:
                    where = f"{place}[{expert}][{index}]"
                    _check_type(chosen[index], matrix[0], matrix[2][expert], where)
    dense = {tensor[0]: tensor for tensor in source.dense_tensors()}
    for name, type_ in plan.dense.items():
        if name not in dense:
            raise ArgumentError(f"the plan's dense[{name!r}] is no dense tensor of the model")
        _, source_type, columns, _, may_quantize = dense[name]
        if not may_quantize and type_ != source_type:
            raise ArgumentError(f"the plan's dense[{name!r}] is no matrix; it stays {source_type}")
        _check_type(type_, columns, source_type, f"dense[{name!r}]")


def _fits(type_: str, columns: int) -> bool:
    return columns % _core.block_elements(type_) == 0


def _check_type(type_: str, columns: int, source_type: str, place: str) -> None:
    if type_ == source_type:
        return
    if not _core.can_quantize(type_):
        raise ArgumentError(f"the plan's {place} is {type_}, which edgemoe does not write")
    if not _fits(type_, columns):
        raise ArgumentError(
            f"the plan's {place} is {type_}, but rows of {columns} weights are no whole blocks of"
            f" it; {fitting_type(type_, columns, [])} would fit"
        )


def fitting_type(type_: str, columns: int, source_types: list[str]) -> str:
    """The type, or what takes its place. Sources that have it already keep it."""
    if source_types and all(one == type_ for one in source_types):
        return type_
    if not _core.can_quantize(type_):
        known = ", ".join(one for one in _core.quant_types() if _core.can_quantize(one))
        raise ArgumentError(f"edgemoe does not write {type_}; it writes {known}")
    for candidate in (type_, *_FALLBACKS.get(type_, ()), *_LAST_FALLBACKS):
        if _core.can_quantize(candidate) and _fits(candidate, columns):
            return candidate
    return "F32"


def _metadata(
    source: _core.PackSource, plan: Plan, importance: Importance, stock_layout: bool
) -> dict[str, int | str]:
    """What the output says beyond the source's metadata."""
    values: dict[str, int | str] = {"general.quantization_version": _QUANTIZATION_VERSION}
    if stock_layout:
        file_type = _FILE_TYPES.get(str(plan.target.get("experts")))
        if file_type is not None:
            values["general.file_type"] = file_type
        return values
    values["edgemoe.plan"] = json.dumps(plan.summary(), sort_keys=True)
    values["edgemoe.source"] = json.dumps(
        {
            "files": [
                {"name": os.path.basename(path), "bytes": os.path.getsize(path)}
                for path in source.paths
            ],
            "types": _source_types(source),
            "importance": importance.origin and dict(importance.origin),
        },
        sort_keys=True,
    )
    return values


def _source_types(source: _core.PackSource) -> dict[str, dict[str, int]]:
    """Weights by group and type."""
    experts: dict[str, int] = {}
    for layer in source.expert_matrices():
        for matrix in layer or ():
            if matrix is None:
                continue
            columns, rows, types = matrix
            for type_ in types:
                experts[type_] = experts.get(type_, 0) + columns * rows
    dense: dict[str, int] = {}
    for _, type_, columns, rows, _ in source.dense_tensors():
        dense[type_] = dense.get(type_, 0) + columns * rows
    return {"experts": experts, "dense": dense}


def _losses(source: _core.PackSource, result: Mapping[str, Any]) -> list[str]:
    """What was quantised a second time, and what that cost."""
    lost = [one for one in result["losses"] if one["from_quantized"]]
    if not lost:
        return []
    types = sorted({name for group in _source_types(source).values() for name in group})
    errors = ", ".join(f"{one['type']} {100 * one['relative_error']:.2f} %" for one in lost)
    return [
        f"the source is quantised already ({', '.join(types)}): the weights changed once more,"
        f" relative error by type: {errors}; pack from F16, BF16 or F32 where there is such a file"
    ]
