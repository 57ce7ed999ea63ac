"""Choosing types: the allocation, the closed loop, the paper's algorithm, predicted speed."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.bitwidth import paper
from edgemoe.bitwidth.allocation import allocate_bytes, allocate_loss, choose
from edgemoe.bitwidth.cost_table import Choice, CostTable
from edgemoe.bitwidth.covariance import DAMPING, factored, symmetric
from edgemoe.bitwidth.loss import WORST_TEXT, Loss, excess, holds
from edgemoe.bitwidth.plan_file import Plan, PlanModel
from edgemoe.bitwidth.planner import Planner, Target
from edgemoe.bitwidth.sensitivity import MOST_GROUPS, layer_groups, measured_factors
from edgemoe.errors import ArgumentError

TYPES = ("F16", "Q8_0", "Q4_K", "Q3_K", "Q2_K")
BITS = np.array([16, 8.5, 4.5, 3.4375, 2.625])
LAYERS, EXPERTS = 5, 8
MODEL = PlanModel("test", "test", LAYERS, EXPERTS)


def table_of(seed: int = 0, *, dense: tuple[int, ...] = (0,)) -> CostTable:
    """Errors that fall by four for each bit, from experts of very different weight."""
    random = np.random.default_rng(seed)
    strength = np.exp(1.2 * random.standard_normal((LAYERS, EXPERTS, 3)))
    errors = strength[..., None] * 4.0 ** (2.625 - BITS)
    errors[..., 0] = 0.0
    is_moe = np.ones(LAYERS, dtype=np.bool_)
    is_moe[list(dense)] = False
    errors[~is_moe] = 0.0
    weights = np.full((LAYERS, 3), 65536, dtype=np.int64)
    weights[~is_moe] = 0
    sizes = weights[..., None] * BITS / 8
    return CostTable(TYPES, sizes, weights, errors, is_moe)


class FakeMeter:
    """The loss is what the table's errors say, of layers that matter differently than it thinks."""

    def __init__(self, table: CostTable, factors: np.ndarray, *, floor: float = 0.0005) -> None:
        self.table, self.factors, self.floor = table, factors, floor
        self.count = 0

    def measure(self, plan: Plan) -> Loss:
        self.count += 1
        total = self.floor
        for layer, experts in enumerate(plan.experts):
            for expert, types in enumerate(experts or ()):
                for matrix, name in enumerate(types):
                    index = self.table.types.index(name)
                    total += self.factors[layer] * self.table.errors[layer, expert, matrix, index]
        total += 3 * total**2  # errors are not quite independent
        return Loss({"a": 0.9 * total, "b": 1.1 * total}, 0.01 * total, {"a": 1.2 * total}, 0.9)


def planner_of(seed: int = 0, *, floor: float = 0.0005) -> tuple[Planner, FakeMeter]:
    table = table_of(seed)
    factors = np.array([0.0, 3.0, 1.0, 0.5, 1.0]) * 0.02 / table.errors[..., 4].sum()
    meter = FakeMeter(table, factors, floor=floor)
    return Planner(table, MODEL, meter), meter


def test_allocation_is_the_best_of_many_random_ones_of_its_size() -> None:
    table = table_of()
    random = np.random.default_rng(1)
    for bits in (2.7, 3.2, 4.0, 6.0):
        size = int(bits * table.num_weights / 8)
        choice = allocate_bytes(table, size)
        assert table.bytes_of(choice) <= size
        best = float(table.errors_of(choice).sum())
        for _ in range(200):
            other = choice.copy()
            place = tuple(random.integers((LAYERS, EXPERTS, 3)))
            other[place] = random.integers(len(TYPES))
            if table.bytes_of(other) <= size:
                assert table.errors_of(other).sum() >= best - 1e-12


def test_allocation_spends_nearly_all_bytes() -> None:
    table = table_of(3)
    size = int(3.3 * table.num_weights / 8)
    left = size - table.bytes_of(allocate_bytes(table, size))
    assert 0 <= left < 65536 * 4 / 8


def test_sensitive_experts_get_more_bits() -> None:
    table = table_of(4)
    choice = allocate_bytes(table, int(3.2 * table.num_weights / 8))
    bits = BITS[choice][1:].ravel()
    strength = table.errors[1:, ..., 4].ravel()
    assert np.corrcoef(np.log(strength), bits)[0, 1] > 0.8


def test_a_type_that_does_not_fit_is_never_chosen() -> None:
    table = table_of(5)
    table.sizes[2, 1, 3:] = np.inf
    for price in (0.0, 1e-9, 1e-6, 1e3):
        assert (choose(table, price)[2, :, 1] < 3).all()


def test_no_bytes_and_no_error_are_refused() -> None:
    table = table_of()
    with pytest.raises(ArgumentError, match="take .* bytes at least"):
        allocate_bytes(table, 1000)
    assert (choose(table, 0.0)[1:] == 0).all()
    assert allocate_loss(table, 0.0)[1:].max() == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [0.005, 0.01, 0.02, 0.05])
def test_the_closed_loop_meets_the_target_by_measurement(seed: int, most: float) -> None:
    planner, meter = planner_of(seed)
    planned = planner.allocate(Target(max_loss=most))
    assert planned.loss is not None
    assert holds(planned.loss, most)
    # And does not waste it, unless everything has the smallest type already.
    assert excess(planned.loss, most) > 0.8 or (planned.choice[1:] == len(TYPES) - 1).all()
    assert meter.count <= MOST_GROUPS + 1 + 6


def test_a_loss_below_the_floor_of_rounded_activations_is_refused() -> None:
    planner, _ = planner_of(0, floor=0.05)
    with pytest.raises(ArgumentError, match="no plan was found"):
        planner.allocate(Target(max_loss=0.01))


def test_probes_find_how_much_each_layer_matters() -> None:
    planner, meter = planner_of(1)
    factors = measured_factors(
        planner.table, planner.largest(), lambda choice: planner.measure(choice).kl_mean
    )
    assert factors[0] == 0
    np.testing.assert_allclose(factors[1:], meter.factors[1:], rtol=0.1)


def test_many_layers_are_probed_in_groups() -> None:
    table = table_of()
    wide = CostTable(
        TYPES,
        np.repeat(table.sizes, 10, axis=0),
        np.repeat(table.weights, 10, axis=0),
        np.repeat(table.errors, 10, axis=0),
        np.repeat(table.is_moe, 10),
    )
    groups = layer_groups(wide)
    assert len(groups) == MOST_GROUPS
    assert sorted(sum(groups, [])) == list(range(10, 50))


@pytest.mark.parametrize("bits", [2.7, 3.0, 3.5, 4.2, 6.0])
def test_allocation_is_never_worse_than_the_paper_or_one_type(bits: float) -> None:
    planner, meter = planner_of(2)
    target = Target(size=int(bits * planner.table.num_weights / 8))
    ours = planner.allocate(target).loss
    theirs = planner.paper(target).loss
    assert ours is not None and theirs is not None
    assert ours.kl_mean <= theirs.kl_mean
    for name, own in zip(TYPES, BITS, strict=True):
        if own <= bits:
            uniform = planner.uniform(name).loss
            assert uniform is not None and ours.kl_mean <= uniform.kl_mean


def test_the_paper_grows_k_up_to_the_loss() -> None:
    planner, _ = planner_of(3)
    planned = planner.paper(Target(max_loss=0.02))
    assert planned.loss is not None and holds(planned.loss, 0.02)
    kinds = {planner.table.types[i] for i in np.unique(planned.choice[1:])}
    assert kinds <= {"Q2_K", "Q4_K"}
    # An expert has one width.
    assert (planned.choice == planned.choice[..., :1]).all()


def test_the_paper_sorts_by_harm_at_two_bits() -> None:
    table = table_of(6)
    order = paper.importance_order(table)
    harm = (table.errors[..., 4] - table.errors[..., 2]).sum(axis=2).ravel()
    assert sorted(order) == list(range(EXPERTS, LAYERS * EXPERTS))  # layer 0 is dense
    assert (np.diff(harm[order]) >= 0).all()
    by_measuring = paper.measured_order(table, lambda one: float(table.errors_of(one).sum()))
    assert (order == by_measuring).all()


def test_the_paper_s_bounds_bracket_the_loss() -> None:
    losses = {"Q2_K": 0.05, "Q4_K": 0.01, "Q8_0": 0.0001}
    assert paper.find_bounds(losses, 0.02) == paper.Bounds("Q2_K", "Q4_K")
    assert paper.find_bounds(losses, 0.005) == paper.Bounds("Q4_K", "Q8_0")
    assert paper.find_bounds(losses, 0.06) == paper.Bounds("Q2_K", "Q2_K")
    with pytest.raises(ArgumentError, match="even Q8_0"):
        paper.find_bounds(losses, 0.00001)


def test_the_paper_at_a_size_takes_no_more() -> None:
    table = table_of(7)
    order = paper.importance_order(table)
    for bits in (2.625, 2.7, 3.3, 4.5, 5.0, 8.4):
        size = int(bits * table.num_weights / 8)
        choice = paper.of_bytes(table, order, size)
        assert table.bytes_of(choice) <= size
    with pytest.raises(ArgumentError, match="lowest width"):
        paper.of_bytes(table, order, 1000)


def test_a_loss_holds_only_with_its_margin_and_for_every_text() -> None:
    assert holds(Loss({"a": 0.016, "b": 0.018}, 0.0005, {}, 0.9), 0.02)
    assert not holds(Loss({"a": 0.018, "b": 0.019}, 0.0005, {}, 0.9), 0.02)
    assert not holds(Loss({"a": 0.0, "b": 0.02 * WORST_TEXT}, 0.0, {}, 0.9), 0.02)


def test_a_factored_covariance_is_what_it_was_and_a_little_on_the_diagonal() -> None:
    random = np.random.default_rng(2)
    rows = random.standard_normal((200, 40)) @ random.standard_normal((40, 40))
    whole = rows.T @ rows
    upper, pivots, diagonal = factored(symmetric(np.triu(whole).astype(np.float32))[None])
    unit = np.eye(40) + upper[0]
    again = unit @ np.diag(pivots[0]) @ unit.T
    damped = whole + np.eye(40) * DAMPING * np.trace(whole) / 40
    np.testing.assert_allclose(again, damped, rtol=1e-3, atol=1e-3 * np.abs(damped).max())
    np.testing.assert_allclose(diagonal[0], np.diag(damped), rtol=1e-5)
    assert (np.tril(upper[0]) == 0).all()


def test_nothing_known_is_the_identity() -> None:
    upper, pivots, diagonal = factored(np.zeros((2, 8, 8)))
    assert (upper == 0).all() and (pivots == 1).all() and (diagonal == 1).all()


def test_choices_become_names() -> None:
    table = table_of()
    choice: Choice = table.uniform("Q4_K")
    names = table.names_of(choice)
    assert names[0] is None and names[1] == (("Q4_K",) * 3,) * EXPERTS
    with pytest.raises(ArgumentError, match="not among the profile's types"):
        table.uniform("Q6_K")
