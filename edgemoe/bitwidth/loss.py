"""How much worse a plan makes a model: what was measured, and who measures.

The loss that a plan is held to is the growth of the perplexity on new text. It is not the growth on
the calibration text that is taken for it: where the model was trained on that text its perplexity
grows more than that of any other (the gradient is zero there, so every change hurts; on the demo
model by 1.8 % where new text of the same kind loses 0.1 %). On text that the model itself would
write the logarithm of the perplexity grows by exactly the divergence of the next token's
distribution. So that is measured, with a margin for text that suits the model less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgemoe.bitwidth.plan_file import Plan

# What new text may lose beyond what the divergence says.
MARGIN = 1.1
# No text may lose more than this times what the mean may.
WORST_TEXT = 1.5


@dataclass(frozen=True)
class Loss:
    """Measured on held-out windows of the calibration texts, against the source model.

    kl       by text: mean Kullback-Leibler divergence of the next token's distribution, in nats
    error    standard error of the mean of those
    growth   by text: relative growth of the perplexity (0.02: 2 %)
    """

    kl: Mapping[str, float]
    error: float
    growth: Mapping[str, float]
    same_top1: float

    @property
    def kl_mean(self) -> float:
        return sum(self.kl.values()) / len(self.kl)

    @property
    def expected(self) -> float:
        """Growth of the perplexity to be expected of new text, chance and margin included."""
        return math.expm1(MARGIN * (self.kl_mean + self.error))

    @property
    def worst(self) -> float:
        """The same of the text that loses most."""
        return math.expm1(MARGIN * max(self.kl.values()))

    def to_json(self) -> dict[str, Any]:
        return {
            "loss": self.expected,
            "kl_mean": self.kl_mean,
            "kl_error": self.error,
            "kl_by_text": dict(self.kl),
            "perplexity_growth_by_text": dict(self.growth),
            "same_top1": self.same_top1,
        }


def excess(loss: Loss, most: float) -> float:
    """What is to be expected over what is allowed; at most 1 holds."""
    return max(loss.expected / most, loss.worst / (WORST_TEXT * most))


def holds(loss: Loss, most: float) -> bool:
    return excess(loss, most) <= 1


class Meter(Protocol):
    """Measures plans; each costs a pass over the held-out text."""

    def measure(self, plan: Plan) -> Loss: ...
