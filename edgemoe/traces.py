"""Traces of a run as CSV files: which experts it used, and where its time went.

docs/traces.md describes both formats. Files come from anywhere, so everything in them is checked;
errors name the file and the line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ArgumentError, ModelFormatError
from edgemoe.input_file import read_at_most

PREFILL, DECODE = 0, 1

ROUTE_COLUMNS = (
    "turn",
    "phase",
    "step",
    "layer",
    "slot",
    "expert",
    "weight",
    "residency",
    "expert_bytes",
)
TOKEN_COLUMN = "token"  # may follow
TIMELINE_COLUMNS = (
    "turn",
    "phase",
    "step",
    "layer",
    "tokens",
    "start_seconds",
    "compute_seconds",
    "overlap_seconds",
    "stall_seconds",
    "bytes_read",
    "demands",
    "hits",
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_LAYERS = 4096
MAX_EXPERTS = 1 << 16
_MAX_USED = 1024
_MAX_FILE_BYTES = 256 << 20
_MAX_SECONDS, _LEAST_SECONDS = 1e9, 1e-12
# Steps until uniform routing begins again: enough for any cache to have forgotten the first.
_UNIFORM_STEPS = 256

_MAX_SCRIPT_CELLS = 1 << 28
# Largest value of each column of whole numbers; columns that are not here hold any finite number.
_LARGEST = {
    "turn": (1 << 31) - 1,
    "phase": 1,
    "step": (1 << 31) - 1,
    "layer": MAX_LAYERS - 1,
    "slot": _MAX_USED - 1,
    "expert": MAX_EXPERTS - 1,
    "residency": 1,
    "expert_bytes": 1 << 50,
    "token": (1 << 32) - 2,
    "tokens": (1 << 31) - 1,
    "bytes_read": 1 << 50,
    "demands": (1 << 31) - 1,
    "hits": (1 << 31) - 1,
}
_OPTIONAL = ("slot", "weight", "residency", "expert_bytes", TOKEN_COLUMN)
_HEADER_LIMITS = {"n_layer": MAX_LAYERS, "n_expert": MAX_EXPERTS, "n_expert_used": _MAX_USED}


@dataclass(frozen=True)
class RouteTrace:
    """One element of each array for every expert of every token and layer, in the file's order.

    phase       0 prefill, 1 decode
    step        position of the token in its sequence
    slot        rank of the expert for the token, best first
    weight      of the expert in the token's sum, or None
    residency   1 when it was resident as its layer asked for it, or None
    expert_bytes  bytes that were read for it (0 when none), or None
    token       id of the token, or None
    num_layers, num_experts, num_used   of the model: the header's, or 1 + the largest number seen
    layer_expert_bytes, layer_dense_bytes   the header's, by layer; empty when it does not say
    """

    turn: Ints
    phase: Ints
    step: Ints
    layer: Ints
    slot: Ints
    expert: Ints
    num_layers: int
    num_experts: int
    num_used: int
    arch: str = ""
    model: str = ""
    weight: Floats | None = None
    residency: Ints | None = None
    expert_bytes: Ints | None = None
    token: Ints | None = None
    layer_expert_bytes: Mapping[int, int] = field(default_factory=dict)
    layer_dense_bytes: Mapping[int, int] = field(default_factory=dict)

    @property
    def all_experts(self) -> int:
        """Experts of all layers that the trace names."""
        return len(np.unique(self.layer)) * self.num_experts

    @property
    def mean_expert_bytes(self) -> float:
        """Size of an expert of those layers, as the header says it; 0 where it does not."""
        layers = set(self.layer.tolist()) & self.layer_expert_bytes.keys()
        return sum(self.layer_expert_bytes[layer] for layer in layers) / max(1, len(layers))


@dataclass(frozen=True)
class Timeline:
    """One element of each array for every layer of every step. Seconds and bytes.

    `tokens` of them were evaluated together, from position `step` on. `compute_seconds` (alone),
    `overlap_seconds` (computing while experts were read) and `stall_seconds` (waiting for storage)
    add up to the time that the layer took.
    """

    turn: Ints
    phase: Ints
    step: Ints
    layer: Ints
    tokens: Ints
    start_seconds: Floats
    compute_seconds: Floats
    overlap_seconds: Floats
    stall_seconds: Floats
    bytes_read: Ints
    demands: Ints
    hits: Ints


def _fail(path: str, line: int, problem: str) -> NoReturn:
    raise ModelFormatError(f"{path}:{line}: {problem}")


def _read_lines(path: str) -> list[str]:
    data = read_at_most(path, _MAX_FILE_BYTES)
    if data is None:
        raise ArgumentError(
            f"{path}: is larger than {_MAX_FILE_BYTES >> 20} MiB; cut the trace to fewer steps"
        )
    nul = data.find(b"\0")
    try:
        if nul >= 0:
            raise UnicodeDecodeError("utf-8", data, nul, nul + 1, "a zero byte")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _fail(path, line, "this is not text; a trace is a CSV file")
    return [line.rstrip("\r") for line in text.split("\n")]


class _Table:
    """A CSV file with comments before its column names: the comments, and columns of numbers."""

    def __init__(self, path: str, kind: str, columns: Sequence[str]) -> None:
        self.path = path
        lines = _read_lines(path)
        at = next((i for i, line in enumerate(lines) if line.strip() and line[0] != "#"), None)
        if at is None:
            _fail(path, len(lines), f"there are no column names; a {kind} has {columns[0]}, ...")
        self.comments = [(i + 1, line[1:].strip()) for i, line in enumerate(lines[:at]) if line]
        self._check_version(kind)
        self._names = [name.strip() for name in lines[at].split(",")]
        for name in columns:
            count = self._names.count(name)
            if count > 1:
                _fail(path, at + 1, f"column {name!r} comes {count} times")
            if count == 0 and name not in _OPTIONAL:
                _fail(path, at + 1, f"column {name!r} is missing; is this a {kind}?")
        self._wanted = [name for name in columns if name in self._names]
        # Numbers of the lines that hold rows, and those lines.
        self._numbers = [
            i for i, line in enumerate(lines[at + 1 :], at + 2) if line.strip() and line[0] != "#"
        ]
        if not self._numbers:
            _fail(path, at + 1, "there are no rows after the column names")
        self._values = self._parse([lines[number - 1] for number in self._numbers])

    def _check_version(self, kind: str) -> None:
        word = kind.replace(" ", "_")
        for number, comment in self.comments:
            match = re.match(r"(\w+) v(\d+)$", comment)
            if match and match[1] != word:
                _fail(self.path, number, f"this is a {match[1].replace('_', ' ')}, not a {kind}")
            if match and match[2] != "1":
                _fail(self.path, number, f"version {match[2]} of the format is not known; 1 is")

    def _parse(self, rows: list[str]) -> Floats:
        indices = [self._names.index(name) for name in self._wanted]
        # Columns that we do not know may hold anything.
        only = None if len(indices) == len(self._names) else indices
        try:
            values = np.loadtxt(
                rows, delimiter=",", comments=None, ndmin=2, dtype=np.float64, usecols=only
            )
        except (ValueError, OverflowError):
            self._find_bad_row(rows, indices)
        if only is None:
            if values.shape[1] != len(self._names):
                self._find_bad_row(rows, indices)
            values = values[:, indices]
        return values

    def _find_bad_row(self, rows: list[str], indices: list[int]) -> NoReturn:
        for number, row in zip(self._numbers, rows, strict=True):
            cells = row.split(",")
            if len(cells) != len(self._names):
                wanted = len(self._names)
                _fail(self.path, number, f"{len(cells)} values for {wanted} columns")
            for index in indices:
                try:
                    float(cells[index])
                except ValueError:
                    name = self._names[index]
                    _fail(self.path, number, f"{name} is {cells[index][:40]!r}, not a number")
        _fail(self.path, self._numbers[0], "the rows cannot be read as numbers")

    def fail_at(self, row: int, problem: str) -> NoReturn:
        _fail(self.path, self._numbers[row], problem)

    def has(self, name: str) -> bool:
        return name in self._wanted

    def numbers(self, name: str) -> Floats:
        """A column of finite numbers."""
        values = self._values[:, self._wanted.index(name)]
        bad = ~np.isfinite(values)
        if bad.any():
            self.fail_at(int(bad.argmax()), f"{name} is not a finite number")
        return values

    def counts(self, name: str) -> Ints:
        """A column of whole numbers from 0 to the largest that makes sense for it."""
        values = self.numbers(name)
        largest = _LARGEST[name]
        bad = (values < 0) | (values > largest) | (values != np.floor(values))
        if bad.any():
            row = int(bad.argmax())
            self.fail_at(row, f"{name} is {values[row]:g}; a whole number up to {largest} is meant")
        return values.astype(np.int64)

    def seconds(self, name: str) -> Floats:
        """A column of durations; what is less than any clock sees is 0."""
        values = self.numbers(name)
        if (values < 0).any():
            self.fail_at(int((values < 0).argmax()), f"{name} is negative")
        bad = values > _MAX_SECONDS
        if bad.any():
            row = int(bad.argmax())
            self.fail_at(row, f"{name} is {values[row]:g}; at most {_MAX_SECONDS:g} s are meant")
        return np.where(values < _LEAST_SECONDS, 0.0, values)


@dataclass
class _RouteHeader:
    arch: str = ""
    model: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    expert_bytes: dict[int, int] = field(default_factory=dict)
    dense_bytes: dict[int, int] = field(default_factory=dict)


def _route_header(table: _Table) -> _RouteHeader:
    header = _RouteHeader()

    def count(line: int, name: str, text: str, largest: int) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) > largest:
            _fail(table.path, line, f"{name}={text[:40]}: a number up to {largest} is meant")
        return int(text)

    for line, comment in table.comments:
        fields = dict(re.findall(r"(\w+)=(\S*)", comment))
        if "layer" in fields:
            layer = count(line, "layer", fields["layer"], MAX_LAYERS - 1)
            for name, found in (
                ("expert_bytes", header.expert_bytes),
                ("dense_bytes", header.dense_bytes),
            ):
                if name in fields:
                    found[layer] = count(line, name, fields[name], _LARGEST["expert_bytes"])
            continue
        for name, largest in _HEADER_LIMITS.items():
            if name in fields:
                header.counts[name] = count(line, name, fields[name], largest)
        header.arch = fields.get("arch", header.arch)
        # The name may have spaces in it.
        named = re.match(r"model=(.*?)(?: arch=| n_layer=|$)", comment)
        if named:
            header.model = named[1]
    return header


def _new_groups(ints: Mapping[str, Ints]) -> npt.NDArray[np.bool_]:
    """Whether a row is the first of its token and layer."""
    new = np.ones(len(ints["step"]), bool)
    new[1:] = False
    for name in ("turn", "phase", "step", "layer"):
        new[1:] |= ints[name][1:] != ints[name][:-1]
    return new


def _ranks(new_groups: npt.NDArray[np.bool_]) -> Ints:
    """The place of each row in its group."""
    rows = np.arange(len(new_groups))
    return rows - np.maximum.accumulate(np.where(new_groups, rows, 0))


def _check_order(table: _Table, ints: Mapping[str, Ints]) -> None:
    """Tokens follow each other: layer by layer in a prompt, token by token in decoding."""
    fall = {name: ints[name][1:] < ints[name][:-1] for name in ("turn", "step", "layer")}
    same = {name: ints[name][1:] == ints[name][:-1] for name in ("turn", "phase", "step", "layer")}
    decode = ints["phase"][1:] == DECODE
    part = same["turn"] & same["phase"]
    problems = {
        "turn": fall["turn"],
        "step": part & fall["step"] & (decode | same["layer"]),
        "layer": part & fall["layer"] & decode & same["step"],
    }
    bad = problems["turn"] | problems["step"] | problems["layer"]
    if not bad.any():
        return
    before = int(bad.argmax())
    name = next(name for name, rows in problems.items() if rows[before])
    now, then = (f"{name} {ints[name][row]}" for row in (before + 1, before))
    table.fail_at(before + 1, f"{now} comes after {then}" + " of the same step" * (name == "layer"))


def _check_distinct(
    table: _Table, new_groups: npt.NDArray[np.bool_], expert: npt.NDArray[np.int64]
) -> None:
    """No token uses an expert twice in a layer."""
    keys = np.cumsum(new_groups) * MAX_EXPERTS + expert
    order = np.argsort(keys, kind="stable")
    again = order[1:][keys[order][1:] == keys[order][:-1]]
    if len(again) > 0:
        row = int(again.min())
        table.fail_at(row, f"expert {expert[row]} is there twice for one token and layer")


def read_trace(path: str | os.PathLike[str]) -> RouteTrace:
    """Reads a route trace. Columns may come in any order; slot, weight, residency, expert_bytes and
    token may be missing, and so may the comments. Without slots the order of the rows is the rank.

    Raises ReadError when the file cannot be read, ModelFormatError naming file and line when it is
    no route trace or has a value that makes no sense, ArgumentError when it is too large.
    """
    table = _Table(os.fspath(path), "route trace", (*ROUTE_COLUMNS, TOKEN_COLUMN))
    header = _route_header(table)
    ints = {name: table.counts(name) for name in ROUTE_COLUMNS[:6] if table.has(name)}
    new_groups = _new_groups(ints)
    ints.setdefault("slot", _ranks(new_groups))
    _check_order(table, ints)
    _check_distinct(table, new_groups, ints["expert"])
    sizes = {}
    for column, name in (("layer", "n_layer"), ("expert", "n_expert"), ("slot", "n_expert_used")):
        seen = int(ints[column].max())
        sizes[name] = header.counts.get(name, seen + 1)
        if seen >= sizes[name]:
            table.fail_at(
                int(ints[column].argmax()),
                f"{column} is {seen}; the header says {name}={sizes[name]}",
            )
    return RouteTrace(
        **ints,
        num_layers=sizes["n_layer"],
        num_experts=sizes["n_expert"],
        num_used=sizes["n_expert_used"],
        arch=header.arch,
        model=header.model,
        weight=table.numbers("weight") if table.has("weight") else None,
        residency=table.counts("residency") if table.has("residency") else None,
        expert_bytes=table.counts("expert_bytes") if table.has("expert_bytes") else None,
        token=table.counts(TOKEN_COLUMN) if table.has(TOKEN_COLUMN) else None,
        layer_expert_bytes=header.expert_bytes,
        layer_dense_bytes=header.dense_bytes,
    )


def read_timeline(path: str | os.PathLike[str]) -> Timeline:
    """Reads a layer timeline. Errors as those of read_trace."""
    table = _Table(os.fspath(path), "layer timeline", TIMELINE_COLUMNS)
    columns: dict[str, Any] = {
        name: table.counts(name) if name in _LARGEST else table.seconds(name)
        for name in TIMELINE_COLUMNS
    }
    if (columns["tokens"] == 0).any():
        table.fail_at(int((columns["tokens"] == 0).argmax()), "tokens is 0")
    return Timeline(**columns)


def route_script(trace: RouteTrace, phase: int | None = None) -> npt.NDArray[np.int32]:
    """The trace's experts as [steps, layers, ranks], -1 where a step has fewer ranks.

    Steps and layers that the trace does not name are left out. A step without a layer that others
    have takes the experts of the step before (or else after) it. With `phase`, only that phase's
    steps, or all when there are none.

    Raises ArgumentError when the table would be too large.
    """
    chosen = np.ones(len(trace.step), bool) if phase is None else trace.phase == phase
    if not chosen.any():
        chosen[:] = True
    turn_and_step = (trace.turn[chosen] << 32) | trace.step[chosen]
    steps, step_index = np.unique(turn_and_step, return_inverse=True)
    layers, layer_index = np.unique(trace.layer[chosen], return_inverse=True)
    ranks = int(trace.slot[chosen].max()) + 1
    if len(steps) * len(layers) * ranks > _MAX_SCRIPT_CELLS:
        raise ArgumentError(
            f"{len(steps)} steps x {len(layers)} layers x {ranks} ranks are too many to route by"
        )
    script = np.full((len(steps), len(layers), ranks), -1, dtype=np.int32)
    script[step_index, layer_index, trace.slot[chosen]] = trace.expert[chosen]
    for layer in range(len(layers)):
        known = np.flatnonzero((script[:, layer] >= 0).any(axis=1))
        before = np.searchsorted(known, np.arange(len(steps)), side="right") - 1
        script[:, layer] = script[known[np.maximum(before, 0)], layer]
    return script


def uniform_script(layers: int, experts: int, used: int) -> npt.NDArray[np.int32]:
    """Experts without any locality, as [steps, layers, used]: every token takes distinct ones, all
    equally likely. The worst case of a cache, whose hit rate is then the share of experts that it
    holds. The same in every run."""
    keys = np.random.default_rng(1).random((_UNIFORM_STEPS, layers, experts), dtype=np.float32)
    return np.argpartition(keys, used - 1, axis=2)[:, :, :used].astype(np.int32)
