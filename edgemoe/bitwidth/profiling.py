"""Measures a profile: one pass over calibration text, then the errors of every candidate type.

The run can be stopped at any moment, by a kill too, and goes on when it is started again: its
state is in OUT.part, whole at all times, until OUT is there. Sums are continued in float64 and in
the same order, so that a run that was stopped gives the same file as one that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.bitwidth.calibration import Calibration, Ids
from edgemoe.bitwidth.covariance import choose_scope, factored, symmetric
from edgemoe.bitwidth.part_file import PartFile, PartState
from edgemoe.bitwidth.profile_file import FORMAT, VERSION, Profile
from edgemoe.bitwidth.profile_options import (
    ProfileOptions,
    choose_candidates,
    choose_rows,
    source_checksum,
)
from edgemoe.bitwidth.rare_experts import (
    LEAST_TOKENS,
    PRIOR_TOKENS,
    TREATMENT,
    raise_errors,
    reached_experts,
    with_prior,
    with_prior_covariance,
)
from edgemoe.errors import ArgumentError

# Called with "tokens" or "bytes", how many of them are done, and how many there are.
Progress = Callable[[str, int, int], None]
Array = npt.NDArray[Any]

_STEP_TOKENS = 2048
_EXPERTS_AT_ONCE = 16
_FACTOR_PARTS = ("upper", "pivots", "diagonal")
_PASS, _ERRORS = "pass", "errors"  # the stages
# What QuantizationError.measure takes of a layer.
_MEASURED = (
    "input_importance",
    "hidden_importance",
    "gate_row_weight",
    "up_row_weight",
    "mass_squared",
)


@dataclass(frozen=True)
class ProfileReport:
    """What a run did. Rates are of this run; 0 where an earlier one had done that part."""

    tokens: int
    resumed_tokens: int
    tokens_per_second: float
    error_bytes_per_second: float
    seconds: float
    unreached: Mapping[int, Sequence[int]]  # layer -> experts that too few tokens used
    never_used: int
    num_experts: int
    memory: Mapping[str, int]


@dataclass(frozen=True)
class _Running:
    """What the stages work with."""

    engine: _core.Engine
    plan: Mapping[str, int]
    progress: Progress


class ProfileRun:
    """One run of `edgemoe profile`: checks everything first, then measures."""

    def __init__(
        self, model_path: str, calibration: Calibration, out: str, options: ProfileOptions
    ) -> None:
        """Raises as _core.ModelFile does, ArgumentError for options that make no sense."""
        self._path = model_path
        self._calibration = calibration
        self._out = out
        self._options = options
        self._file = _core.ModelFile(model_path)
        self._spec = self._file.spec()
        if not self._spec["experts"]:
            raise ArgumentError(f"{model_path}: the model has no experts; nothing to profile")
        self._candidates = choose_candidates(self._file, options.candidates)
        self._rows = choose_rows(self._file, options.rows)
        self._expert_bytes = [size for size, _ in self._file.layer_bytes()]
        self._layers = [layer["layer"] for layer in self._file.experts()]
        self._source = source_checksum(model_path)
        self._scope = choose_scope(self._file, options.covariance)
        key = {
            "source": self._source,
            "calibration": calibration.checksum(),
            "candidates": self._candidates,
            "rows": self._rows,
            "covariance": self._scope,
            "held_out": len(calibration.held_out),
            "kv_type": options.load.kv_type,
            "prior": [PRIOR_TOKENS, LEAST_TOKENS],
        }
        self._part = PartFile(out + ".part", key, options.save_seconds)

    def measure(self, progress: Progress, *, start_over: bool = False) -> ProfileReport:
        """Measures and writes the profile.

        Goes on from OUT.part unless `start_over`. Raises ArgumentError when that is of another run,
        MemoryBudgetError, ReadError, ModelFormatError.
        """
        started = time.monotonic()
        state = None if start_over else self._part.load()
        running = _Running(*self._load_engine(), progress)
        tokens = self._calibration.num_tokens
        done_tokens, done_experts = tokens, 0
        if state is not None and state.stage == _ERRORS:
            arrays, done_experts = state.arrays, state.done
        else:
            done_tokens = 0 if state is None else state.done
            arrays = self._pass(running, state)
        del state
        passed = time.monotonic()
        measured = self._errors(running, arrays, done_experts)
        ended = time.monotonic()
        profile = self._finish(arrays)
        profile.save(self._out)
        self._part.remove()
        return ProfileReport(
            tokens=tokens,
            resumed_tokens=done_tokens,
            tokens_per_second=_rate(tokens - done_tokens, passed - started),
            error_bytes_per_second=_rate(measured, ended - passed),
            seconds=time.monotonic() - started,
            unreached=_unreached(profile, self._layers),
            never_used=int((profile.counts[self._layers] == 0).sum()),
            num_experts=len(self._layers) * self._spec["experts"],
            memory={
                "budget_bytes": running.plan["budget_bytes"],
                "peak_bytes": running.engine.stats()["peak_resident_bytes"],
            },
        )

    # --- memory and engine

    def _reserved_bytes(self, rows: int, threads: int) -> int:
        """What the profile takes beside the model: sums, their float32 copy, routes, scratch."""
        sums = _core.ExpertStatistics.bytes(self._file, rows, threads, self._scope)
        used: int = self._spec["experts_used"]
        routes = self._calibration.num_tokens * len(self._expert_bytes) * used
        errors = _core.QuantizationError.bytes(self._file, len(self._candidates), threads)
        # Factors are as large as the sums; those of one layer are in float64 for a while, thrice.
        factors = self._covariance_bytes() + 6 * self._covariance_bytes() // len(self._layers)
        return sums + sums // 2 + 2 * routes + errors + factors

    def _covariance_bytes(self) -> int:
        of_scope = [
            _core.ExpertStatistics.bytes(self._file, 0, 0, scope) for scope in (self._scope, "none")
        ]
        return of_scope[0] - of_scope[1]

    def _load_engine(self) -> tuple[_core.Engine, dict[str, int]]:
        """With as many windows to a step as memory allows: each reads most experts once."""
        window = self._calibration.context
        threads = self._options.load.threads or _core.cpus()
        count = max(1, min(_STEP_TOKENS // window, len(self._calibration.windows)))
        while True:
            context = count * window
            options = replace(self._options.load, context=context, trace=False).as_core()
            options["reserved_bytes"] = self._reserved_bytes(context, threads)
            plan = self._file.plan(options)
            fits = plan["budget_bytes"] >= plan["least_bytes"] and plan["batch"] >= context
            if fits or count == 1:
                break
            count //= 2
        engine = _core.Engine(self._file, options)
        return engine, engine.plan()

    # --- the pass over the text

    def _pass(self, running: _Running, state: PartState | None) -> dict[str, Array]:
        """Evaluates the windows that are left; the arrays of the profile without errors."""
        plan = running.plan
        total = self._calibration.num_tokens
        window = self._calibration.context
        statistics = _core.ExpertStatistics(
            self._file, plan["context"], plan["threads"], self._scope
        )
        sums = statistics.sums()
        shape = (total, self._spec["layers"], self._spec["experts_used"])
        routes = np.full(shape, -1, dtype=np.int16)
        done = 0
        if state is not None:
            done = state.done
            routes[:done] = state.arrays["routes"]
            for name, values in sums.items():
                values[...] = state.arrays[name]
        session = _core.Session(running.engine)
        running.engine.observe_experts(statistics)
        running.progress("tokens", done, total)
        for windows in self._groups(done, max(1, plan["batch"] // window)):
            tokens = np.concatenate(windows)
            session.evaluate_windows(tokens, window)
            routes[done : done + len(tokens)] = statistics.take_routes()
            done += len(tokens)
            running.progress("tokens", done, total)
            if done < total:
                self._part.save(_PASS, done, {**sums, "routes": routes[:done]})
        running.engine.observe_experts(None)
        return self._with_priors(sums, routes)

    def _groups(self, done: int, group: int) -> Iterator[list[Ids]]:
        """Windows that are evaluated by one call, all but the last of full length."""
        chosen: list[Ids] = []
        start = 0
        for window in self._calibration.windows:
            start += len(window)
            if start <= done:
                continue
            chosen.append(window)
            if len(chosen) == group or len(window) < self._calibration.context:
                yield chosen
                chosen = []
        if chosen:
            yield chosen

    # --- the errors

    def _with_priors(self, sums: dict[str, Array], routes: Array) -> dict[str, Array]:
        """The arrays of the profile; slopes stand where row weights will."""
        tokens = self._calibration.num_tokens
        arrays: dict[str, Array] = {
            "counts": sums["counts"].astype(np.int64),
            "mass": sums["mass"].copy(),
            "mass_squared": np.zeros_like(sums["mass"]),
            "reached": np.zeros(sums["counts"].shape, dtype=np.bool_),
            "input_importance": np.zeros(sums["input"].shape, dtype=np.float32),
            "hidden_importance": np.zeros(sums["hidden"].shape, dtype=np.float32),
            "gate_row_weight": np.zeros(sums["hidden"].shape, dtype=np.float32),
            "up_row_weight": np.zeros(sums["hidden"].shape, dtype=np.float32),
            "error": np.zeros((*sums["counts"].shape, 3, len(self._candidates))),
            "routes": routes,
            "output_power": sums["output_power"] / tokens,
            "residual_power": sums["residual_power"] / tokens,
        }
        for kind in ("input", "hidden"):
            covariance = sums[f"{kind}_covariance"]
            layers = len(sums["counts"])
            count, size = len(covariance) // layers, covariance.shape[1]
            arrays[f"{kind}_upper"] = np.zeros((layers, count, size, size), dtype=np.float32)
            arrays[f"{kind}_pivots"] = np.ones((layers, count, size), dtype=np.float32)
            arrays[f"{kind}_diagonal"] = np.ones((layers, count, size), dtype=np.float32)
        for layer in self._layers:
            arrays["reached"][layer] = reached_experts(arrays["counts"][layer])
            blended = with_prior(sums, layer)
            for to, name in (
                ("mass_squared", "weight_squared"),
                ("input_importance", "input"),
                ("hidden_importance", "hidden"),
                ("gate_row_weight", "gate_slope"),
                ("up_row_weight", "up_slope"),
            ):
                arrays[to][layer] = blended[name]
            for kind in ("input", "hidden"):
                count = arrays[f"{kind}_upper"].shape[1]
                if count:
                    mine = slice(layer * count, (layer + 1) * count)
                    whole = symmetric(sums[f"{kind}_covariance"][mine])
                    whole = with_prior_covariance(whole, sums, layer, kind)
                    for name, part in zip(_FACTOR_PARTS, factored(whole), strict=True):
                        arrays[f"{kind}_{name}"][layer] = part
        return arrays

    def _errors(self, running: _Running, arrays: dict[str, Array], done: int) -> int:
        """Returns the bytes of the experts that were measured here."""
        meter = _core.QuantizationError(
            self._file, self._candidates, self._rows, running.plan["threads"]
        )
        experts = self._spec["experts"]
        total = sum(self._expert_bytes[layer] for layer in self._layers) * experts
        measured = before = 0
        for index, layer in enumerate(self._layers):
            for first in range(0, experts, _EXPERTS_AT_ONCE):
                count = min(_EXPERTS_AT_ONCE, experts - first)
                size = count * self._expert_bytes[layer]
                if index * experts + first < done:
                    before += size
                    continue
                running.progress("bytes", before + measured, total)
                sums = tuple(arrays[name][layer] for name in _MEASURED)
                error, weights = meter.measure(
                    running.engine, layer, first, count, sums, _factors(arrays, layer)
                )
                chosen = slice(first, first + count)
                arrays["error"][layer, chosen] = error
                arrays["gate_row_weight"][layer, chosen] = weights[0]
                arrays["up_row_weight"][layer, chosen] = weights[1]
                measured += size
                self._part.save(_ERRORS, index * experts + first + count, arrays)
        running.progress("bytes", total, total)
        return measured

    def _finish(self, arrays: dict[str, Array]) -> Profile:
        for layer in self._layers:
            raise_errors(arrays["error"][layer], arrays["reached"][layer])
        starts = np.cumsum([0, *(len(one) for one in self._calibration.windows[:-1])])
        held_out = self._calibration.held_out
        return Profile(
            meta=self._meta(),
            route_starts=starts.astype(np.int64),
            held_out=np.array(held_out, dtype=np.int32).reshape(-1, self._calibration.context),
            held_out_text=np.array(self._calibration.held_out_text, dtype=np.int32),
            **arrays,
        )

    def _meta(self) -> dict[str, Any]:
        shape = _core.ExpertStatistics.shape(self._file)
        types: list[Any] = [None] * self._spec["layers"]
        for layer in self._file.experts():
            types[layer["layer"]] = layer["matrices"]
        return {
            "format": FORMAT,
            "version": VERSION,
            "architecture": self._spec["architecture"],
            "model": self._spec["name"] or os.path.basename(self._path),
            "num_layers": self._spec["layers"],
            "num_experts": self._spec["experts"],
            "num_used": self._spec["experts_used"],
            "width": shape["width"],
            "expert_width": shape["expert_width"],
            "residual_scale": shape["residual_scale"],
            "candidates": self._candidates,
            "tokens": self._calibration.num_tokens,
            "context": self._calibration.context,
            "texts": list(self._calibration.texts),
            "source_types": types,
            "source_checksum": self._source,
            "expert_bytes": [
                size if i in self._layers else 0 for i, size in enumerate(self._expert_bytes)
            ],
            "kv_type": self._options.load.kv_type,
            "rows": self._rows,
            "covariance": self._scope,
            "model_path": os.path.abspath(self._path),
            "prior_tokens": PRIOR_TOKENS,
            "least_tokens": LEAST_TOKENS,
            "treatment": TREATMENT,
        }


def _factors(arrays: Mapping[str, Array], layer: int) -> tuple[tuple[Array, ...], ...] | None:
    """What QuantizationError.measure takes; None without covariances."""
    if not arrays["input_upper"].shape[1]:
        return None
    return tuple(
        tuple(arrays[f"{kind}_{name}"][layer] for name in _FACTOR_PARTS)
        for kind in ("input", "hidden")
    )


def _unreached(profile: Profile, layers: Sequence[int]) -> dict[int, list[int]]:
    found = {layer: np.flatnonzero(~profile.reached[layer]).tolist() for layer in layers}
    return {layer: experts for layer, experts in found.items() if experts}


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if amount and seconds > 0 else 0.0
