"""What is known of every scored token, and the figures that come of it.

Errors are standard errors of the mean. Those of a ratio are paired: both models scored the same
tokens, so the error is that of the differences, as llama-perplexity has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

_Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Divergence:
    """How far a model is from the base whose log-probabilities were saved.

    kl_*              Kullback-Leibler divergence from the base, per token, in nats: mean, median,
                      percentiles (kl_999: 99.9 %), maximum
    same_top1         share of the tokens whose likeliest next token is the base's
    perplexity_ratio  perplexity over that of the base
    nll_correlation   of the two models' negative log-likelihoods; nan where one is constant
    delta_p_*         change of the probability of the token that came: mean and root mean square
    """

    kl_mean: float
    kl_mean_error: float
    kl_median: float
    kl_90: float
    kl_95: float
    kl_99: float
    kl_999: float
    kl_max: float
    same_top1: float
    same_top1_error: float
    perplexity_ratio: float
    perplexity_ratio_error: float
    base_perplexity: float
    base_perplexity_error: float
    nll_correlation: float
    delta_p_mean: float
    delta_p_mean_error: float
    delta_p_rms: float
    delta_p_rms_error: float


@dataclass(frozen=True)
class Perplexity:
    """`nll` is the mean negative log-likelihood of the `tokens` that were scored, in nats.

    Of several texts: each in `texts`, and here the mean of their figures; the tokens are all of
    them, kl_max is the largest.
    """

    perplexity: float
    perplexity_error: float
    nll: float
    nll_error: float
    tokens: int
    divergence: Divergence | None = None
    texts: tuple[Perplexity, ...] = ()


@dataclass(frozen=True)
class TokenScores:
    """One value per scored token; with a base all arrays are equally long, else only nll has any.

    nll, base_nll  negative log-likelihoods of the token that came
    kl             divergence from the base
    same           the likeliest next token is the base's
    """

    nll: _Values
    base_nll: _Values
    kl: _Values
    same: npt.NDArray[np.bool_]

    @staticmethod
    def joined(parts: Sequence[TokenScores]) -> TokenScores:
        return TokenScores(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(TokenScores)
            )
        )


def _error_of_mean(values: _Values) -> float:
    """nan for a single value, which says nothing of its spread."""
    if values.size < 2:
        return math.nan
    return float(values.std(ddof=1)) / math.sqrt(values.size)


def _correlation(first: _Values, second: _Values) -> float:
    spread = float(first.std() * second.std())
    if spread == 0:
        return math.nan
    return float(((first - first.mean()) * (second - second.mean())).mean()) / spread


def _exp(value: float) -> float:
    """inf where a model is so bad that its perplexity is no float."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _divergence(scores: TokenScores) -> Divergence:
    count = scores.nll.size
    base = _exp(float(scores.base_nll.mean()))
    difference = scores.nll - scores.base_nll
    ratio = _exp(float(difference.mean()))
    same = float(scores.same.mean())
    median, *percentiles = map(float, np.percentile(scores.kl, (50, 90, 95, 99, 99.9)))
    change = np.exp(-scores.nll) - np.exp(-scores.base_nll)
    rms = math.sqrt(float((change**2).mean()))
    return Divergence(
        kl_mean=float(scores.kl.mean()),
        kl_mean_error=_error_of_mean(scores.kl),
        kl_median=median,
        **dict(zip(("kl_90", "kl_95", "kl_99", "kl_999"), percentiles, strict=True)),
        kl_max=float(scores.kl.max()),
        same_top1=same,
        same_top1_error=math.sqrt(same * (1 - same) / (count - 1)) if count > 1 else math.nan,
        perplexity_ratio=ratio,
        perplexity_ratio_error=ratio * _error_of_mean(difference),
        base_perplexity=base,
        base_perplexity_error=base * _error_of_mean(scores.base_nll),
        nll_correlation=_correlation(scores.nll, scores.base_nll),
        delta_p_mean=float(change.mean()),
        delta_p_mean_error=_error_of_mean(change),
        delta_p_rms=rms,
        # d sqrt(m) = dm / (2 sqrt(m))
        delta_p_rms_error=_error_of_mean(change**2) / (2 * rms) if rms > 0 else 0.0,
    )


def perplexity_of(scores: TokenScores) -> Perplexity:
    """The figures of one text."""
    nll = float(scores.nll.mean())
    error = _error_of_mean(scores.nll)
    return Perplexity(
        _exp(nll),
        _exp(nll) * error,
        nll,
        error,
        scores.nll.size,
        _divergence(scores) if scores.kl.size else None,
    )


def _mean(name: str, values: Sequence[float]) -> float:
    if name == "kl_max":
        return max(values)
    if name.endswith("_error"):  # of independent texts
        return math.sqrt(math.fsum(value**2 for value in values)) / len(values)
    return math.fsum(values) / len(values)


def mean_of(texts: Sequence[Perplexity]) -> Perplexity:
    """The mean over texts, each of which counts alike however long it is."""
    names = ("perplexity", "perplexity_error", "nll", "nll_error")
    means = {name: _mean(name, [getattr(text, name) for text in texts]) for name in names}
    divergences = [text.divergence for text in texts if text.divergence is not None]
    divergence = None
    if divergences:
        divergence = Divergence(
            **{
                field.name: _mean(field.name, [getattr(one, field.name) for one in divergences])
                for field in fields(Divergence)
            }
        )
    tokens = sum(text.tokens for text in texts)
    return Perplexity(**means, tokens=tokens, divergence=divergence, texts=tuple(texts))
