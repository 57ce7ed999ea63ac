"""What each quantisation type costs each expert matrix: bytes, and output error of the expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgemoe import _core
from edgemoe.bitwidth.plan_file import ExpertTypes
from edgemoe.bitwidth.profile_file import Profile
from edgemoe.errors import ArgumentError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Choice = npt.NDArray[np.int64]  # [layers, experts, 3]: an index into CostTable.types


@dataclass(frozen=True)
class CostTable:
    """Costs of every candidate type.

    types    names of the candidate types, T of them
    sizes    [layers, 3, T] bytes of an expert's gate, up and down matrix; infinite where the type
             does not fit
    weights  [layers, 3] weights of those matrices, 0 in dense layers
    errors   [layers, experts, 3, T] squared output error of the expert, weighted by its use
    is_moe   [layers]
    """

    types: tuple[str, ...]
    sizes: Floats
    weights: npt.NDArray[np.int64]
    errors: Floats
    is_moe: Bools

    @property
    def num_experts(self) -> int:
        """All experts of all layers."""
        return int(self.is_moe.sum()) * int(self.errors.shape[1])

    @property
    def num_weights(self) -> int:
        """All weights of all experts."""
        return int(self.errors.shape[1]) * int(self.weights[self.is_moe].sum())

    @property
    def all_sizes(self) -> Floats:
        """[layers, experts, 3, T] bytes."""
        return np.broadcast_to(self.sizes[:, None], self.errors.shape)

    def expert_bytes(self, choice: Choice) -> Floats:
        """[layers, experts] bytes; zeros in dense layers."""
        chosen = np.take_along_axis(self.all_sizes, choice[..., None], axis=3)[..., 0]
        return np.where(self.is_moe[:, None], chosen.sum(axis=2), 0.0)

    def bytes_of(self, choice: Choice) -> int:
        """Bytes of all experts."""
        return int(self.expert_bytes(choice).sum())

    def bits_of(self, choice: Choice) -> float:
        """Mean bits per weight of all experts."""
        return 8 * self.bytes_of(choice) / self.num_weights

    def errors_of(self, choice: Choice) -> Floats:
        """[layers, experts, 3] errors of the chosen types."""
        return np.take_along_axis(self.errors, choice[..., None], axis=3)[..., 0]

    def sizes_least(self) -> Choice:
        """Every matrix in its smallest type."""
        choice: Choice = np.argmin(self.all_sizes, axis=-1)
        return choice

    def fits_all(self, name: str) -> bool:
        """Whether every expert matrix can have the type."""
        sizes = self.sizes[self.is_moe][..., self.types.index(name)]
        return bool(np.isfinite(sizes).all())

    def uniform(self, name: str) -> Choice:
        """Every matrix of one type. Raises ArgumentError when it is no candidate or no fit."""
        if name not in self.types:
            raise ArgumentError(f"{name} is not among the profile's types: {', '.join(self.types)}")
        index = self.types.index(name)
        if not self.fits_all(name):
            raise ArgumentError(
                f"{name}: its blocks do not divide the rows of this model's experts"
            )
        return np.full(self.errors.shape[:3], index, dtype=np.int64)

    def names_of(self, choice: Choice) -> tuple[tuple[ExpertTypes, ...] | None, ...]:
        """The choice as a plan lists it."""
        names = np.asarray(self.types, dtype=object)[choice]
        return tuple(
            tuple((str(gate), str(up), str(down)) for gate, up, down in layer) if is_moe else None
            for layer, is_moe in zip(names, self.is_moe, strict=True)
        )

    def scaled(self, layer_factors: Floats) -> CostTable:
        """The same with the errors of each layer multiplied."""
        return replace(self, errors=self.errors * layer_factors[:, None, None, None])

    def restricted(self, names: Sequence[str]) -> CostTable:
        """The same with these candidates only."""
        indices = [self.types.index(name) for name in names]
        return replace(
            self,
            types=tuple(names),
            sizes=self.sizes[..., indices],
            errors=self.errors[..., indices],
        )


def cost_table(profile: Profile, source: _core.PackSource) -> CostTable:
    """The costs that a profile measured, for the experts of its model.

    Errors are relative to the power of the stream that each layer's experts add to: that is what
    the next layers' norms make of them. Matrices that an architecture lacks cost nothing.
    """
    types = profile.candidates
    layers, experts = profile.counts.shape
    sizes = np.zeros((layers, 3, len(types)))
    weights = np.zeros((layers, 3), dtype=np.int64)
    is_moe = np.zeros(layers, dtype=np.bool_)
    for layer, matrices in enumerate(source.expert_matrices()):
        is_moe[layer] = matrices is not None
        for index, matrix in enumerate(matrices or ()):
            if matrix is None:
                continue
            columns, rows, _ = matrix
            weights[layer, index] = columns * rows
            for number, name in enumerate(types):
                elements, size = _core.block_shape(name)
                fits = columns % elements == 0
                sizes[layer, index, number] = rows * columns // elements * size if fits else np.inf
    errors = np.where(np.isfinite(profile.error), profile.error, 0.0)
    power = (profile.output_power + profile.residual_power) * profile.meta["tokens"]
    factors = np.divide(1.0, power, out=np.zeros(layers), where=power > 0)
    table = CostTable(types, sizes, weights, errors, is_moe)
    return table.scaled(factors)
