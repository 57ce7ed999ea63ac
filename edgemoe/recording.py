"""Writes what a model's steps did with experts, as the CSV files that edgemoe.traces reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from edgemoe import _core
from edgemoe.errors import ArgumentError, InternalError
from edgemoe.traces import DECODE, PREFILL, ROUTE_COLUMNS, TIMELINE_COLUMNS

# Rows that are text at a time: a step of many tokens has hundreds of thousands.
_ROWS = 4096


def _one_word_line(name: str) -> str:
    """A name that cannot end the header line that it stands in."""
    return "".join(character if character.isprintable() else "_" for character in name)


def route_header(path: str, lossy: Mapping[str, float | None] | None = None) -> str:
    """The comments and column names of a route trace of this model file, and of lossy options.

    Raises ArgumentError for a model without experts, and as _core.ModelFile does.
    """
    file = _core.ModelFile(path)
    spec = file.spec()
    if not spec["experts"]:
        raise ArgumentError(f"{path}: the model has no experts; there is no routing to trace")
    lines = [
        "# route_trace v1",
        f"# model={_one_word_line(os.path.basename(path))} arch={spec['architecture']} "
        f"n_layer={spec['layers']} n_expert={spec['experts']} "
        f"n_expert_used={spec['experts_used']}",
    ]
    for name, value in (lossy or {}).items():
        if value is not None:
            lines.append(f"# {name}={value:g}")
    for layer, (expert_bytes, dense_bytes) in enumerate(file.layer_bytes()):
        lines.append(f"# layer={layer} expert_bytes={expert_bytes} dense_bytes={dense_bytes}")
    return "\n".join([*lines, ",".join(ROUTE_COLUMNS)]) + "\n"


class TraceRecorder:
    """Writes the events of one sequence to open files as they come. Counts what it writes."""

    def __init__(self, header: str, routing: BinaryIO, timeline: BinaryIO | None = None) -> None:
        self._routing = routing
        self._timeline = timeline
        self.num_rows = 0
        self.tokens = {PREFILL: 0, DECODE: 0}  # evaluated, by phase
        routing.write(header.encode("utf-8", "backslashreplace"))
        if timeline is not None:
            timeline.write(f"# layer_timeline v1\n{','.join(TIMELINE_COLUMNS)}\n".encode())

    def take(self, phase: int, events: Mapping[str, Any]) -> None:
        """Writes what Engine.take_trace() gave after a step of that phase."""
        if not events["complete"]:
            raise InternalError("the trace of a step is not complete")
        routing, layers = events["routing"], events["layers"]
        for first in range(0, len(routing), _ROWS):
            rows = routing[first : first + _ROWS]
            columns = ("position", "layer", "rank", "expert", "weight", "resident", "bytes_read")
            text = "".join(
                f"0,{phase},{step},{layer},{slot},{expert},{weight:.6g},{resident},{read}\n"
                for step, layer, slot, expert, weight, resident, read in zip(
                    *(rows[name].tolist() for name in columns), strict=True
                )
            )
            self._routing.write(text.encode())
        self.num_rows += len(routing)
        self.tokens[phase] += int(layers["rows"][0])
        if self._timeline is not None:
            self._write_layers(phase, layers, self._timeline)

    def _write_layers(self, phase: int, layers: Any, out: BinaryIO) -> None:
        for event in layers:
            seconds = ",".join(
                f"{int(event[name]) * 1e-9:.9f}"
                for name in ("start_ns", "alone_ns", "overlap_ns", "stall_ns")
            )
            out.write(
                f"0,{phase},{event['position']},{event['layer']},{event['rows']},{seconds},"
                f"{event['bytes_read']},{event['demands']},{event['hits']}\n".encode()
            )
