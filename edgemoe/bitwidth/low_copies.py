"""Low copies: a second copy of each expert at fewer bits, for runs that allow it on a miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgemoe import _core
from edgemoe.bitwidth.packing import fitting_type
from edgemoe.bitwidth.plan_file import ExpertTypes, Plan
from edgemoe.errors import ArgumentError

# Per layer None, or for each expert None or the types of its low copy.
LowCopies = tuple[tuple[ExpertTypes | None, ...] | None, ...]


def add_low_copies(
    plan: Plan, source: _core.PackSource, type_: str
) -> tuple[Plan, LowCopies, list[str]]:
    """The plan with `type_` named as its target for low copies, their types, and notes.

    A matrix that is no wider than `type_` has its own type in the copy too, and an expert of such
    matrices alone has no copy. Raises ArgumentError where that leaves none, and for a type that
    cannot be written.
    """
    layers: list[tuple[ExpertTypes | None, ...] | None] = []
    replaced: set[str] = set()
    for types, matrices in zip(plan.experts, source.expert_matrices(), strict=True):
        if types is None or matrices is None:
            layers.append(None)
            continue
        columns = [matrix[0] if matrix else 0 for matrix in matrices]
        fitting = [fitting_type(type_, count, []) for count in columns]
        replaced |= {
            f"low copies of matrices with rows of {count} weights get {found}: no whole blocks of"
            f" {type_}"
            for count, found in zip(columns, fitting, strict=True)
            if count and found != type_
        }
        present = [matrix is not None for matrix in matrices]
        layers.append(tuple(_types_of(one, fitting, present) for one in types))
    experts = [one for layer in layers for one in layer or ()]
    without = experts.count(None)
    if without == len(experts):
        raise ArgumentError(
            f"no expert is wider than {type_}, so low copies would save nothing; name a narrower"
            " type with --low-copy"
        )
    notes = sorted(replaced)
    if without:
        notes.append(f"{without} of {len(experts)} experts are no wider than their low copy: none")
    return replace(plan, target={**plan.target, "low_copies": type_}), tuple(layers), notes


def _types_of(full: ExpertTypes, low: Sequence[str], present: Sequence[bool]) -> ExpertTypes | None:
    chosen = [
        narrow if _core.bits_per_weight(narrow) < _core.bits_per_weight(wide) else wide
        for wide, narrow in zip(full, low, strict=True)
    ]
    changes = [one != other for one, other in zip(chosen, full, strict=True)]
    if not any(change and there for change, there in zip(changes, present, strict=True)):
        return None
    gate, up, down = chosen
    return gate, up, down
