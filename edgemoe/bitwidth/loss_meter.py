"""Measures plans: packs the model by each, and scores the profile's held-out windows with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.bitwidth.importance import Importance
from edgemoe.bitwidth.loss import Loss
from edgemoe.bitwidth.packing import PackOptions, pack_model
from edgemoe.bitwidth.plan_file import Plan
from edgemoe.bitwidth.profile_file import Profile
from edgemoe.errors import ArgumentError
from edgemoe.model import Model
from edgemoe.options import LoadOptions
from edgemoe.perplexity import Divergence, MemoryBase, Perplexity, measure_windows

_MOST_BASE_BYTES = 256 << 20

# Called with what is done now.
Report = Callable[[str], None]


class LossMeter:
    """Holds what the source model says of the held-out windows; plans are compared with that.

    Packed models are written into a folder of their own, one at a time, and removed.
    """

    def __init__(
        self,
        model_path: str,
        profile: Profile,
        importance: Importance,
        options: LoadOptions,
        *,
        folder: str | None = None,
        dense: Mapping[str, str] | None = None,
        windows: int = 0,
        report: Report = lambda text: None,
    ) -> None:
        """Measures the source model. `dense` are the types of dense tensors of every plan,
        `windows` are measured of each text, spread evenly (0: all that were held out).

        Raises what Model does, ArgumentError without windows.
        """
        if len(profile.held_out) == 0:
            raise ArgumentError(
                "the profile has no held-out windows to measure plans on: profile more text, or "
                "with --held-out, or plan with --no-measure"
            )
        self._model_path = model_path
        self._importance = importance
        self._options = replace(
            options, context=profile.held_out.shape[1], cache_folder="none", governor="off"
        )
        self._folder = folder
        self._dense = dict(dense or {})
        self._report = report
        self._source = _core.PackSource(model_path)
        texts = profile.held_out_text
        self._names = [profile.meta["texts"][i]["name"] for i in np.unique(texts)]
        held_out = (np.array(profile.held_out[texts == i]) for i in np.unique(texts))
        self._windows = [_spread(one, windows) for one in held_out]
        self.count = 0
        report("scoring the source model")
        with Model(model_path, self._options) as model:
            self._base = self._base_for(model.vocabulary_size)
            measure_windows(model, self._windows, save_base=self._base)

    def _base_for(self, vocabulary_size: int) -> MemoryBase | Path:
        """In memory what is small, in a file what a large vocabulary makes of many tokens."""
        rows = sum(one.size for one in self._windows) // 2
        if 2 * rows * vocabulary_size <= _MOST_BASE_BYTES:
            return MemoryBase()
        self._kept = tempfile.TemporaryDirectory(dir=self._folder, prefix="edgemoe-base-")
        return Path(self._kept.name) / "base"

    @property
    def source(self) -> _core.PackSource:
        return self._source

    def measure(self, plan: Plan) -> Loss:
        """Packs and scores. Raises what pack_model and Model do."""
        self.count += 1
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="edgemoe-plan-") as folder:
            path = os.path.join(folder, "candidate.gguf")
            self._report("packing a candidate")
            pack_model(
                self._source,
                replace(plan, dense=self._dense),
                path,
                importance=self._importance,
                options=PackOptions(threads=self._options.threads),
            )
            self._report("scoring a candidate")
            with Model(path, self._options) as model:
                return _loss_of(self._names, measure_windows(model, self._windows, base=self._base))


def _spread(windows: npt.NDArray[np.int32], most: int) -> npt.NDArray[np.int32]:
    """At most so many of them, evenly spread; 0: all."""
    count = len(windows)
    if most == 0 or most >= count:
        return windows
    return windows[(2 * np.arange(most) + 1) * count // (2 * most)]


def _loss_of(names: list[str], measured: Perplexity) -> Loss:
    kl: dict[str, float] = {}
    growth: dict[str, float] = {}
    variance = 0.0
    for name, one in zip(names, measured.texts, strict=True):
        key = name if name not in kl else f"{name} ({len(kl)})"
        divergence = _divergence_of(one)
        kl[key] = divergence.kl_mean
        growth[key] = divergence.perplexity_ratio - 1
        variance += np.nan_to_num(divergence.kl_mean_error) ** 2
    return Loss(
        kl=kl,
        error=float(np.sqrt(variance)) / len(kl),
        growth=growth,
        same_top1=_divergence_of(measured).same_top1,
    )


def _divergence_of(measured: Perplexity) -> Divergence:
    if measured.divergence is None:
        raise ArgumentError("there is nothing to compare with")
    return measured.divergence
