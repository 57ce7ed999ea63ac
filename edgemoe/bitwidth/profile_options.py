"""What a profile measures: candidate types, and how much of each matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from edgemoe import _core
from edgemoe.errors import ArgumentError
from edgemoe.options import LoadOptions

CANDIDATES = (
    "Q8_0",
    "Q6_K",
    "Q5_K",
    "Q4_K",
    "Q4_0",
    "IQ4_NL",
    "MXFP4",
    "Q3_K",
    "IQ3_S",
    "IQ3_XXS",
    "Q2_K",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
)

# Rows of a matrix that stand for all of them, where experts have more weights than that together.
_ROWS_BY_WEIGHTS = ((1 << 33, 16), (1 << 28, 64))


@dataclass(frozen=True)
class ProfileOptions:
    """What is measured, and how.

    load          of the model; its context is ignored, calibration says how long windows are
    candidates    types whose errors are measured; empty: all that the model can be brought to
    rows          rows of each matrix that stand for all of them; 0: all; None: all of a small model
    covariance   what error feedback is prepared for: see covariance.choose_scope
    held_out     share of the windows that are kept apart, for `edgemoe plan` to measure plans on
    save_seconds  between two saved states
    """

    load: LoadOptions = LoadOptions()
    candidates: tuple[str, ...] = ()
    rows: int | None = None
    covariance: str = "auto"
    held_out: float = 0.25
    save_seconds: float = 30.0


def choose_candidates(file: _core.ModelFile, wanted: Sequence[str]) -> list[str]:
    """`wanted`, or all types that the experts can be quantised to without growing, and their own.

    Raises ArgumentError for a type that there is no quantiser for.
    """
    for name in wanted:
        if not _core.can_quantize(name):
            raise ArgumentError(f"there is no quantiser for {name!r}; choose of {list(CANDIDATES)}")
    if wanted:
        return list(dict.fromkeys(wanted))
    own = {name for layer in file.experts() for name in layer["matrices"]}
    most = max(_core.bits_per_weight(name) for name in own)
    known = [name for name in own if _core.can_quantize(name)]
    below = [name for name in CANDIDATES if _core.can_quantize(name)]
    names = {*known, *(name for name in below if _core.bits_per_weight(name) <= most)}
    return sorted(names, key=lambda name: (-_core.bits_per_weight(name), name))


def choose_rows(file: _core.ModelFile, rows: int | None) -> int:
    """Rows of each matrix that are measured; 0: all."""
    if rows is not None:
        return rows
    layers = file.experts()
    weights = sum(8 * one["bytes_per_expert"] / one["bits_per_weight"] for one in layers)
    weights *= file.spec()["experts"]
    return next((chosen for most, chosen in _ROWS_BY_WEIGHTS if weights > most), 0)


def source_checksum(path: str) -> str:
    """Of the model's files as their directory describes them, not of the weights."""
    directory = _core.GgufFile(path)
    text = repr((directory.tensors(), directory.file_bytes))
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
