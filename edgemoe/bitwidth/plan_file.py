"""The plan: which quantisation type every expert matrix and dense tensor of a model gets, as JSON.

`edgemoe plan` writes it and `edgemoe pack` reads it; people read and edit it, so a mistake is an
error that names the place, such as "experts[3][7][2]".
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from edgemoe import _core
from edgemoe.errors import ModelFormatError, ReadError, UnsupportedModelError
from edgemoe.input_file import read_at_most
from edgemoe.output_file import output_file

FORMAT = "edgemoe-plan"
VERSION = 1
METHODS = ("allocate", "paper", "uniform")
MATRICES = ("gate", "up", "down")

# The types of one expert's gate, up and down matrix.
ExpertTypes = tuple[str, str, str]

_MAX_FILE_BYTES = 256 << 20
_MAX_LAYERS = 4096
_MAX_EXPERTS = 1 << 16
_MAX_NESTING = 16
_MAX_TEXT = 1 << 16
_KEYS = (
    "format",
    "version",
    "model",
    "method",
    "target",
    "profile",
    "experts",
    "dense",
    "predicted",
    "measured",
    "reasons",
)


@dataclass(frozen=True)
class PlanModel:
    """The model that a plan was made for."""

    architecture: str
    name: str
    num_layers: int
    num_experts: int


@dataclass(frozen=True)
class PlanProfile:
    """The profile that a plan was made from; `path` is relative to the plan's folder."""

    path: str
    checksum: str


@dataclass(frozen=True)
class Plan:
    """A type for every expert matrix, and for the dense tensors that change theirs.

    experts   one element per layer: None for a dense layer, else the types of every expert
    dense     tensor name -> type; tensors that are not named keep the source's
    target, predicted, measured, reasons   what was asked for and what is known: JSON values
    """

    model: PlanModel
    method: str
    experts: tuple[tuple[ExpertTypes, ...] | None, ...]
    dense: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)
    profile: PlanProfile | None = None
    predicted: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[Any, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The plan as JSON without its big tables, for the metadata of a packed model."""
        value = plan_to_json(self)
        del value["experts"], value["dense"], value["reasons"]
        return value


def validate_plan(plan: Plan, where: str = "plan") -> Plan:
    """The plan, checked as if it had been read; raises ModelFormatError naming the place."""
    return plan_from_json(plan_to_json(plan), where)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The JSON object of a plan."""
    model, profile = plan.model, plan.profile
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {
            "architecture": model.architecture,
            "name": model.name,
            "num_layers": model.num_layers,
            "num_experts": model.num_experts,
        },
        "method": plan.method,
        "target": dict(plan.target),
        "profile": profile and {"path": profile.path, "checksum": profile.checksum},
        "experts": [layer and [list(types) for types in layer] for layer in plan.experts],
        "dense": dict(plan.dense),
        "predicted": dict(plan.predicted),
        "measured": dict(plan.measured),
        "reasons": list(plan.reasons),
    }


def plan_from_json(value: Any, where: str) -> Plan:
    """Checks a JSON value. `where` is the file, for messages.

    Raises ModelFormatError naming the place, UnsupportedModelError for a newer version.
    """
    return _Reader(where).plan(value)


def load_plan(path: str) -> Plan:
    """Reads and checks a plan file. Raises ReadError, and the errors of plan_from_json."""
    data = read_at_most(path, _MAX_FILE_BYTES)
    if data is None:
        raise ModelFormatError(f"{path}: a plan has at most {_MAX_FILE_BYTES} bytes")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys(path))
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{path}: is not UTF-8 text at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ModelFormatError(f"{path}: is not JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise ModelFormatError(f"{path}: is nested too deeply for a plan") from None
    except ValueError as error:  # a number of thousands of digits
        raise ModelFormatError(f"{path}: is not a plan: {error}") from None
    return plan_from_json(value, path)


def save_plan(plan: Plan, path: str) -> None:
    """Writes a plan file, whole or not at all; one line for each expert. Raises ReadError."""
    value = plan_to_json(validate_plan(plan))
    layers = [_layer_text(layer) for layer in value["experts"]]
    members = []
    for key in _KEYS:
        text = json.dumps(value[key], ensure_ascii=False, allow_nan=False)
        if key == "experts":
            text = "[\n" + ",\n".join(layers) + "\n  ]" if layers else "[]"
        elif key == "reasons" and value[key]:
            lines = (json.dumps(one, ensure_ascii=False, allow_nan=False) for one in value[key])
            text = "[\n" + ",\n".join(f"    {line}" for line in lines) + "\n  ]"
        members.append(f'  "{key}": {text}')
    with output_file(path) as file:
        file.write(("{\n" + ",\n".join(members) + "\n}\n").encode("utf-8"))


def profile_path(plan: Plan, plan_path: str) -> str | None:
    """Where the plan's profile should lie; None for a plan without one."""
    if plan.profile is None:
        return None
    return os.path.normpath(os.path.join(os.path.dirname(plan_path), plan.profile.path))


def with_profile(plan: Plan, plan_path: str, path: str) -> Plan:
    """The plan with the profile at `path`, as the plan file at `plan_path` will name it.

    Raises ReadError.
    """
    folder = os.path.dirname(os.path.abspath(plan_path))
    relative = os.path.relpath(os.path.abspath(path), folder)
    return replace(plan, profile=PlanProfile(relative, file_checksum(path)))


def file_checksum(path: str) -> str:
    """The checksum by which a plan knows its profile. Raises ReadError."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()


def _layer_text(layer: list[list[str]] | None) -> str:
    if layer is None:
        return "    null"
    return "    [\n" + ",\n".join(f"      {json.dumps(types)}" for types in layer) + "\n    ]"


def _unique_keys(path: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ModelFormatError(f"{path}: {_shown(key)} appears twice in one object")
            found[key] = value
        return found

    return check


class _Reader:
    """Checks the parts of a plan; every error names the file and the place."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._types = frozenset(_core.quant_types())

    def _fail(self, place: str, what: str) -> NoReturn:
        raise ModelFormatError(f"{self._where}: {place} {what}")

    def plan(self, value: Any) -> Plan:
        if not isinstance(value, dict):
            self._fail("the plan", "is not a JSON object")
        if value.get("format") != FORMAT:
            self._fail("format", f"is {value.get('format')!r}, not {FORMAT!r}; this is no plan")
        version = self._count(value.get("version"), "version", 1, 1 << 31)
        if version > VERSION:
            raise UnsupportedModelError(
                f"{self._where}: version is {version}; this edgemoe reads plans of version"
                f" {VERSION}, make the plan again or use a newer edgemoe"
            )
        self._keys(value, _KEYS, "")
        model = self._model(value["model"])
        if value["method"] not in METHODS:
            self._fail("method", f"is {_shown(value['method'])}; known: {', '.join(METHODS)}")
        if not isinstance(value["reasons"], list):
            self._fail("reasons", "is not a list")
        return Plan(
            model=model,
            method=value["method"],
            experts=self._experts(value["experts"], model),
            dense=self._dense(value["dense"]),
            target=self._facts(value["target"], "target"),
            profile=self._profile(value["profile"]),
            predicted=self._facts(value["predicted"], "predicted"),
            measured=self._facts(value["measured"], "measured"),
            reasons=tuple(self._json(value["reasons"], "reasons", 0)),
        )

    def _keys(self, value: Any, names: Sequence[str], place: str) -> None:
        if not isinstance(value, dict):
            self._fail(place, "is not an object")
        prefix = f"{place}." if place else ""
        for name in names:
            if name not in value:
                self._fail(f"{prefix}{name}", "is missing")
        for name in value:
            if name not in names:
                self._fail(f"{prefix}{_shown(name)}", f"is not a key; known: {', '.join(names)}")

    def _count(self, value: Any, place: str, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            self._fail(place, f"is {_shown(value)}, not a whole number from {least} to {most}")
        return value

    def _text(self, value: Any, place: str) -> str:
        if not isinstance(value, str) or len(value) > _MAX_TEXT or "\0" in value:
            self._fail(place, f"is {_shown(value)}, not a text")
        return value

    def _model(self, value: Any) -> PlanModel:
        self._keys(value, ("architecture", "name", "num_layers", "num_experts"), "model")
        return PlanModel(
            architecture=self._text(value["architecture"], "model.architecture"),
            name=self._text(value["name"], "model.name"),
            num_layers=self._count(value["num_layers"], "model.num_layers", 1, _MAX_LAYERS),
            num_experts=self._count(value["num_experts"], "model.num_experts", 0, _MAX_EXPERTS),
        )

    def _profile(self, value: Any) -> PlanProfile | None:
        if value is None:
            return None
        self._keys(value, ("path", "checksum"), "profile")
        path = self._text(value["path"], "profile.path")
        if not path:
            self._fail("profile.path", "is empty")
        return PlanProfile(path, self._text(value["checksum"], "profile.checksum"))

    def _type(self, value: Any, place: str) -> str:
        if not isinstance(value, str) or value not in self._types:
            self._fail(place, f"is {_shown(value)}, not a quantisation type such as Q4_K")
        return value

    def _experts(self, value: Any, model: PlanModel) -> tuple[tuple[ExpertTypes, ...] | None, ...]:
        if not isinstance(value, list) or len(value) != model.num_layers:
            self._fail("experts", f"is not a list of {model.num_layers} layers")
        return tuple(
            None if layer is None else self._layer(layer, f"experts[{index}]", model.num_experts)
            for index, layer in enumerate(value)
        )

    def _layer(self, value: Any, place: str, num_experts: int) -> tuple[ExpertTypes, ...]:
        if not isinstance(value, list) or len(value) != num_experts or num_experts == 0:
            self._fail(place, f"is neither null nor a list of {num_experts} experts")
        return tuple(self._expert(types, f"{place}[{i}]") for i, types in enumerate(value))

    def _expert(self, value: Any, place: str) -> ExpertTypes:
        if not isinstance(value, list) or len(value) != len(MATRICES):
            self._fail(place, "is not the list of three types: gate, up, down")
        gate, up, down = (self._type(one, f"{place}[{i}]") for i, one in enumerate(value))
        return gate, up, down

    def _dense(self, value: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            self._fail("dense", "is not an object of tensor names and types")
        return {name: self._type(type_, f"dense[{_shown(name)}]") for name, type_ in value.items()}

    def _facts(self, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._fail(place, "is not an object")
        return {key: self._json(one, f"{place}.{key}", 0) for key, one in value.items()}

    def _json(self, value: Any, place: str, depth: int) -> Any:
        """A JSON value with finite numbers; tuples become lists."""
        if depth > _MAX_NESTING:
            self._fail(place, "is nested too deeply")
        if isinstance(value, list | tuple):
            return [self._json(one, f"{place}[{i}]", depth + 1) for i, one in enumerate(value)]
        if isinstance(value, dict):
            for key in value:
                self._text(key, f"a key of {place}")
            return {k: self._json(one, f"{place}.{k}", depth + 1) for k, one in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            self._fail(place, "is not a finite number")
        if value is not None and not isinstance(value, str | int | float):
            self._fail(place, f"is {_shown(value)}, which JSON cannot hold")
        return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
