"""How the inputs of experts vary together, as the quantisers' error feedback takes it.

A covariance H is factored as (I + U) D (I + U)^T, U strictly upper triangular: an error of column c
can be made up for by the columns after it (csrc/quant/error_feedback.h).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.errors import ArgumentError

Floats = npt.NDArray[np.float32]

# What is added to the diagonal, relative to its mean. Measured on the demo model: 0.01 suits types
# of 4 bits (0.5 to 3 % less error than with 0.03), 0.1 those of 2 bits (up to 6 % less); less is
# too little for both.
DAMPING = 0.03
SCOPES = ("auto", "experts", "layers", "none")
# More than this is not spent, whatever the budget: a profile does not depend on that.
_MOST_BYTES = {"experts": 256 << 20, "layers": 1 << 30}


def choose_scope(file: _core.ModelFile, wanted: str) -> str:
    """Covariances of every expert where they are small, of every layer's inputs where those are.

    Raises ArgumentError for a name that is no scope.
    """
    if wanted not in SCOPES:
        raise ArgumentError(f"covariance is one of {', '.join(SCOPES)}, not {wanted!r}")
    if wanted != "auto":
        return wanted
    for scope in ("experts", "layers"):
        extra = _core.ExpertStatistics.bytes(file, 0, 0, scope)
        if extra - _core.ExpertStatistics.bytes(file, 0, 0, "none") <= _MOST_BYTES[scope]:
            return scope
    return "none"


def symmetric(upper: Floats) -> npt.NDArray[np.float64]:
    """The whole of matrices [..., n, n] whose upper triangle is given."""
    wide = np.triu(upper.astype(np.float64))
    return wide + np.triu(wide, 1).swapaxes(-1, -2)


def factored(covariance: npt.NDArray[np.float64]) -> tuple[Floats, Floats, Floats]:
    """U, D and the diagonal of covariances [..., n, n], damped; of the identity where nothing is
    known."""
    size = covariance.shape[-1]
    diagonal = np.arange(size)
    damped = covariance.copy()
    mean = damped[..., diagonal, diagonal].mean(axis=-1)
    known = mean > 0
    damped[..., diagonal, diagonal] += np.where(known, DAMPING * mean, 1.0)[..., None]
    flipped = np.ascontiguousarray(damped[..., ::-1, ::-1])
    lower = np.linalg.cholesky(flipped)
    pivots = lower[..., diagonal, diagonal]
    unit = (lower / pivots[..., None, :])[..., ::-1, ::-1]
    upper = np.triu(unit, 1)
    parts = (upper, pivots[..., ::-1] ** 2, damped[..., diagonal, diagonal])
    first, second, third = (np.ascontiguousarray(part.astype(np.float32)) for part in parts)
    return first, second, third
