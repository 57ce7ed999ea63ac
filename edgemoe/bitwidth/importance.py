"""How much the error of each column of a matrix counts, from a profile or an importance matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.bitwidth.imatrix import read_imatrix
from edgemoe.bitwidth.plan_file import file_checksum
from edgemoe.bitwidth.profile_file import Profile
from edgemoe.errors import ArgumentError

Floats = npt.NDArray[np.float32]
Factors = tuple[Floats, Floats, Floats]


@dataclass(frozen=True)
class Importance:
    """Non-negative numbers of which only the ratios within a row matter.

    expert_input, expert_hidden   [layers, experts, columns], of gate and up, and of down
    tensors   by the names of the source's tensors
    input_feedback, hidden_feedback   (upper, pivots, diagonal) of covariances for error feedback,
              see covariance.py
    origin    what the metadata of a packed model say about it
    """

    expert_input: Floats | None = None
    expert_hidden: Floats | None = None
    tensors: Mapping[str, Floats] = field(default_factory=dict)
    input_feedback: Factors | None = None
    hidden_feedback: Factors | None = None
    origin: Mapping[str, str] | None = None


NO_IMPORTANCE = Importance()


def imatrix_importance(path: str) -> Importance:
    """Of an importance matrix file. Raises ReadError and ModelFormatError."""
    return Importance(tensors=read_imatrix(path), origin=_origin("imatrix", path))


def profile_importance(path: str, source: _core.PackSource) -> Importance:
    """Of a profile, whose large arrays stay in the file.

    Raises ReadError, ModelFormatError, and ArgumentError for a profile of another model.
    """
    profile = Profile.load(path, verify=False)
    _check_model(profile.meta, path, source)
    factors: dict[str, Factors | None] = {}
    for kind in ("input", "hidden"):
        upper, pivots, diagonal = (
            getattr(profile, f"{kind}_{part}") for part in ("upper", "pivots", "diagonal")
        )
        factors[kind] = (upper, pivots, diagonal) if upper.shape[1] else None
    return Importance(
        profile.input_importance,
        profile.hidden_importance,
        input_feedback=factors["input"],
        hidden_feedback=factors["hidden"],
        origin=_origin("profile", path),
    )


def _origin(kind: str, path: str) -> dict[str, str]:
    return {"kind": kind, "name": os.path.basename(path), "checksum": file_checksum(path)}


def _check_model(meta: Mapping[str, Any], path: str, source: _core.PackSource) -> None:
    for key in ("architecture", "num_layers", "num_experts"):
        wanted = getattr(source, key)
        if meta.get(key) != wanted:
            raise ArgumentError(
                f"{path}: is the profile of another model: its {key} is {meta.get(key)!r}, the"
                f" model's {wanted!r}"
            )
