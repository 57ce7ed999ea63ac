"""What a profile says about experts that calibration used seldom or never.

Every expert is treated as if PRIOR_TOKENS more tokens had used it that look like the layer's mean
token: those hardly count where thousands did, and are everything that is known where none did. An
expert that fewer than LEAST_TOKENS tokens used is not `reached`: its errors are raised to the
median of the layer's reached experts, so that no plan takes it for insensitive because nobody
looked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PRIOR_TOKENS = 8
LEAST_TOKENS = 16
TREATMENT = (
    f"every expert counts {PRIOR_TOKENS} tokens like the layer's mean token beside its own; "
    f"experts used by fewer than {LEAST_TOKENS} tokens are not reached, and their errors are at "
    "least the median of the layer's reached experts"
)

Floats = npt.NDArray[np.float64]


def reached_experts(counts: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return counts >= LEAST_TOKENS


def with_prior(sums: dict[str, Floats], layer: int) -> dict[str, npt.NDArray[Any]]:
    """The importance sums of a layer's experts with the prior tokens, float32; their weights.

    Input channels are those of the residual stream, the same for all experts, and keep their means
    apart. Hidden units of different experts have nothing to do with each other: one mean serves
    them all.
    """
    weight_squared = sums["weight_squared"][layer]
    tokens = sums["counts"][layer].sum()
    total = weight_squared.sum()
    # What PRIOR_TOKENS tokens of mean weight add to the sum of squared weights.
    prior = PRIOR_TOKENS * total / tokens if tokens > 0 else 0.0
    result: dict[str, npt.NDArray[Any]] = {"weight_squared": weight_squared + prior}
    for name in ("input", "hidden", "gate_slope", "up_slope"):
        values = sums[name][layer]
        mean = values.sum(axis=0) / total if total > 0 else np.zeros(values.shape[1])
        if name != "input":
            mean = np.full_like(mean, mean.mean())
        result[name] = (values + prior * mean).astype(np.float32)
    return result


def with_prior_covariance(
    covariance: Floats, sums: dict[str, Floats], layer: int, kind: str
) -> Floats:
    """Covariances [experts, n, n] of a layer with the prior tokens; [1, n, n], of all, as they are.

    Hidden units of different experts have nothing to do with each other: their prior is a diagonal.
    """
    weight_squared = sums["weight_squared"][layer]
    tokens, total = sums["counts"][layer].sum(), weight_squared.sum()
    if len(covariance) != len(weight_squared) or tokens == 0 or total == 0:
        return covariance
    prior = PRIOR_TOKENS * total / tokens
    mean = covariance.sum(axis=0) / total
    if kind == "hidden":
        mean = np.eye(len(mean)) * np.trace(mean) / len(mean)
    result: Floats = covariance + prior * mean
    return result


def raise_errors(error: Floats, reached: npt.NDArray[np.bool_]) -> None:
    """Raises the errors [experts, matrices, candidates] of a layer in place."""
    known = error[reached] if reached.any() else error
    if len(known) == 0:
        return
    floor = np.median(known, axis=0)
    error[~reached] = np.maximum(error[~reached], floor)
