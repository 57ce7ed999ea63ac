"""Recorded routing: which experts each token used, read from CSV files."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ModelFormatError

# Bounds of what a file may make us allocate; far above any model.
_MAX_LAYERS = 1024
_MAX_EXPERTS = 4096
_MAX_ALL_EXPERTS = 1 << 18
_MAX_NUMBER = (1 << 32) - 2
_MAX_LINE_BYTES = 4096
_UNKNOWN_TOKEN = (1 << 32) - 1

_COLUMNS = ("turn", "phase", "step", "layer", "expert", "token")
_REQUIRED = _COLUMNS[:-1]
_LIMITS = {"phase": 1, "layer": _MAX_LAYERS - 1, "expert": _MAX_EXPERTS - 1}
_HEADER_LIMITS = {"n_layer": _MAX_LAYERS, "n_expert": _MAX_EXPERTS, "n_expert_used": _MAX_EXPERTS}
_SETTING = re.compile(r"(\w+)=(\S*)")


@dataclass(frozen=True)
class Trace:
    """One file of recorded routing.

    rows          turn, phase (0 prefill, 1 decode), step, layer, expert, token id
    expert_bytes  mean size of an expert; 0 where the file does not say
    """

    path: str
    rows: npt.NDArray[np.uint32]
    num_layers: int
    num_experts: int
    experts_used: int
    architecture: str
    expert_bytes: float

    @property
    def all_experts(self) -> int:
        """Experts of all layers that have some."""
        return len(np.unique(self.rows[:, 3])) * self.num_experts


@dataclass
class _Reader:
    path: str
    line: int = 0
    header: dict[str, int] = field(default_factory=dict)
    architecture: str = ""
    layer_bytes: dict[int, int] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)  # of the columns in a row
    fields: int = 0
    values: array[int] = field(default_factory=lambda: array("L"))
    # Of the row before: everything but expert and token; and the experts of that group.
    group: tuple[int, ...] = ()
    experts: set[int] = field(default_factory=set)

    def fail(self, problem: str) -> NoReturn:
        raise ModelFormatError(f"{self.path}:{self.line}: {problem}")

    def number(self, name: str, text: str, most: int) -> int:
        text = text.strip()
        if not (text.isascii() and text.isdigit()):
            self.fail(f"{name} is {text[:40]!r}, not a whole number")
        if len(text) > 20 or int(text) > most:
            self.fail(f"{name} is {text[:40]}; at most {most} is possible")
        return int(text)

    def lines(self, file: BinaryIO) -> Iterator[str]:
        while data := file.readline(_MAX_LINE_BYTES):
            self.line += 1
            if len(data) == _MAX_LINE_BYTES and not data.endswith(b"\n"):
                self.fail(f"the line is longer than {_MAX_LINE_BYTES} bytes; is this a trace?")
            yield data.decode("utf-8", "replace").strip()

    def comment(self, text: str) -> None:
        settings = dict(_SETTING.findall(text))
        self.architecture = settings.get("arch", self.architecture)
        for name, most in _HEADER_LIMITS.items():
            if name in settings:
                self.header[name] = self.number(name, settings[name], most)
        if "layer" in settings and "expert_bytes" in settings:
            layer = self.number("layer", settings["layer"], _MAX_LAYERS - 1)
            size = self.number("expert_bytes", settings["expert_bytes"], 1 << 50)
            self.layer_bytes[layer] = size

    def columns(self, text: str) -> None:
        names = [name.strip() for name in text.split(",")]
        missing = [name for name in _REQUIRED if name not in names]
        if missing:
            self.fail(f"no column {', '.join(missing)}; the first line names the columns")
        self.fields = len(names)
        self.positions = {name: names.index(name) for name in _COLUMNS if name in names}

    def row(self, text: str) -> None:
        parts = text.split(",")
        if len(parts) != self.fields:
            self.fail(f"{len(parts)} fields; the columns are {self.fields}")
        row = {
            name: self.number(name, parts[position], _LIMITS.get(name, _MAX_NUMBER))
            for name, position in self.positions.items()
        }
        for name, limit in (("layer", "n_layer"), ("expert", "n_expert")):
            if limit in self.header and row[name] >= self.header[limit]:
                self.fail(f"{name} is {row[name]}, but the model has {self.header[limit]}")
        self.check_order(row)
        self.values.extend(row.get(name, _UNKNOWN_TOKEN) for name in _COLUMNS)

    def check_order(self, row: dict[str, int]) -> None:
        """Tokens follow each other: layer by layer in a prompt, token by token in decoding."""
        group = (row["turn"], row["phase"], row["step"], row["layer"])
        if group != self.group:
            self.experts.clear()
            if self.group:
                turn, phase, step, layer = self.group
                if row["turn"] < turn:
                    self.fail(f"turn {row['turn']} comes after turn {turn}")
                same_part = (row["turn"], row["phase"]) == (turn, phase)
                if same_part and row["step"] < step and (phase == 1 or row["layer"] == layer):
                    self.fail(f"step {row['step']} comes after step {step}")
                if same_part and phase == 1 and row["step"] == step and row["layer"] < layer:
                    self.fail(f"layer {row['layer']} comes after layer {layer} of the same step")
            self.group = group
        if row["expert"] in self.experts:
            self.fail(f"expert {row['expert']} is there twice for one token and layer")
        self.experts.add(row["expert"])


def read_trace(path: str | Path) -> Trace:
    """Reads a trace: comments with the model's header, a line of column names, then rows.

    Raises ModelFormatError naming file and line, and OSError when the file cannot be read.
    """
    reader = _Reader(str(path))
    with open(path, "rb") as file:
        for text in reader.lines(file):
            if not text:
                continue
            if text.startswith("#"):
                reader.comment(text)
            elif not reader.positions:
                reader.columns(text)
            else:
                reader.row(text)
    rows = np.array(reader.values, dtype=np.uint32).reshape(-1, len(_COLUMNS))
    if len(rows) == 0:
        raise ModelFormatError(
            f"{path}: no rows; a trace is a CSV file with {', '.join(_REQUIRED)}"
        )
    num_layers = reader.header.get("n_layer", int(rows[:, 3].max()) + 1)
    num_experts = reader.header.get("n_expert", int(rows[:, 4].max()) + 1)
    if num_layers * num_experts > _MAX_ALL_EXPERTS:
        raise ModelFormatError(
            f"{path}: {num_layers} layers of {num_experts} experts; "
            f"at most {_MAX_ALL_EXPERTS} experts are possible"
        )
    sizes = [reader.layer_bytes[layer] for layer in set(rows[:, 3]) & reader.layer_bytes.keys()]
    groups = np.unique(rows[:, :4], axis=0, return_counts=True)[1]
    return Trace(
        path=str(path),
        rows=rows,
        num_layers=num_layers,
        num_experts=num_experts,
        experts_used=reader.header.get("n_expert_used", int(groups.max())),
        architecture=reader.architecture,
        expert_bytes=sum(sizes) / len(sizes) if sizes else 0.0,
    )
