"""The routing that a profile recorded, as the traces that `edgemoe replay` reads."""

from __future__ import annotations

import os

import numpy as np

from edgemoe.bitwidth.profile_file import Profile
from edgemoe.output_file import output_file
from edgemoe.traces import DECODE, ROUTE_COLUMNS, RouteTrace

_TOKENS = 256  # whose rows are text at a time


def route_trace(profile: Profile, *, phase: int = DECODE) -> RouteTrace:
    """Every window as a turn, token by token as decoding would ask for experts.

    With phase PREFILL the rows say that the tokens of a window were evaluated together.
    """
    routes = np.asarray(profile.routes)
    tokens, layers, used = routes.shape
    starts = np.asarray(profile.route_starts)
    turn_of_token = np.searchsorted(starts, np.arange(tokens), side="right") - 1
    step_of_token = np.arange(tokens) - starts[turn_of_token]
    token, layer, slot = np.indices(routes.shape, dtype=np.int64).reshape(3, -1)
    order = np.arange(routes.size)
    if phase != DECODE:
        order = np.lexsort((slot, token, layer, turn_of_token[token]))
    order = order[routes.reshape(-1)[order] >= 0]
    token, layer, slot = token[order], layer[order], slot[order]
    return RouteTrace(
        turn=turn_of_token[token],
        phase=np.full(len(order), phase, dtype=np.int64),
        step=step_of_token[token],
        layer=layer,
        slot=slot,
        expert=routes.reshape(-1)[order].astype(np.int64),
        num_layers=layers,
        num_experts=int(profile.meta["num_experts"]),
        num_used=used,
        arch=str(profile.meta["architecture"]),
        model=str(profile.meta["model"]),
        layer_expert_bytes={
            index: size for index, size in enumerate(profile.meta["expert_bytes"]) if size
        },
    )


def write_route_trace(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Writes the windows as the CSV file of docs/traces.md, decode steps. Raises ReadError."""
    meta = profile.meta
    model = "".join(one if one.isprintable() else "_" for one in str(meta["model"]))
    lines = [
        "# route_trace v1",
        f"# model={model} arch={meta['architecture']} n_layer={meta['num_layers']} "
        f"n_expert={meta['num_experts']} n_expert_used={meta['num_used']}",
        *(
            f"# layer={layer} expert_bytes={size}"
            for layer, size in enumerate(meta["expert_bytes"])
        ),
        ",".join(ROUTE_COLUMNS[:6]),
    ]
    starts = np.asarray(profile.route_starts)
    routes = np.asarray(profile.routes)
    with output_file(os.fspath(path)) as file:
        file.write(("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
        for first in range(0, len(routes), _TOKENS):
            piece = routes[first : first + _TOKENS]
            token, layer, slot = np.nonzero(piece >= 0)
            turn = np.searchsorted(starts, token + first, side="right") - 1
            columns = (turn, token + first - starts[turn], layer, slot, piece[token, layer, slot])
            file.write(
                "".join(
                    f"{one},{DECODE},{step},{at},{rank},{expert}\n"
                    for one, step, at, rank, expert in zip(
                        *(column.tolist() for column in columns), strict=True
                    )
                ).encode()
            )
