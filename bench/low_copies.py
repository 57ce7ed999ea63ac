"""What a second copy of experts at fewer bits would save: recorded routing, replayed.

    low_copies.py TRACE.csv [--cache 0.25] [--low 0.58]

The rule of HOBBIT (arXiv 2411.01433): where an expert misses, and the experts before it in the
token's ranking have more than T of its routing weight, the low copy is read in its place. Copies
share an LRU cache and have sizes of their own. Compared with substitution by an expert in memory
that keeps an agreement (docs/quality.md; here whatever is in memory is close enough) and with all
experts at the low width, which have no second copy. Reads are relative to the exact run.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Iterator

from edgemoe.traces import DECODE, RouteTrace, read_trace

# Layer, and its experts with normalised weights, best first.
Choice = tuple[int, list[tuple[int, float]]]


def choices(trace: RouteTrace) -> Iterator[Choice]:
    """The decoded tokens, layer by layer."""
    if trace.weight is None:
        raise SystemExit("the trace has no weights")
    groups: dict[tuple[int, int, int], list[tuple[int, int, float]]] = {}
    for row in range(len(trace.step)):
        if trace.phase[row] == DECODE:
            key = (int(trace.turn[row]), int(trace.step[row]), int(trace.layer[row]))
            one = (int(trace.slot[row]), int(trace.expert[row]), float(trace.weight[row]))
            groups.setdefault(key, []).append(one)
    for (_, _, layer), experts in sorted(groups.items()):
        total = sum(weight for _, _, weight in experts)
        yield layer, [(expert, weight / total) for _, expert, weight in sorted(experts)]


class Cache:
    """LRU by bytes; an expert at full width has 1."""

    def __init__(self, size: float) -> None:
        self._left = size
        self._sizes: OrderedDict[tuple[int, int, bool], float] = OrderedDict()
        self.bytes_read = 0.0
        self.affected = 0.0  # share of the routing weight that is not exact

    def has(self, layer: int, expert: int, low: bool = False) -> bool:
        return (layer, expert, low) in self._sizes

    def use(self, layer: int, expert: int, size: float, low: bool = False) -> None:
        key = (layer, expert, low)
        if key in self._sizes:
            self._sizes.move_to_end(key)
            return
        self.bytes_read += size
        while self._left < size:
            self._left += self._sizes.popitem(last=False)[1]
        self._sizes[key] = size
        self._left -= size

    def drop(self, layer: int, expert: int, low: bool) -> None:
        self._left += self._sizes.pop((layer, expert, low), 0.0)


def low_copies(routing: list[Choice], size: float, low: float, threshold: float) -> Cache:
    cache = Cache(size)
    affected = 0.0
    for layer, experts in routing:
        before = 0.0
        for expert, weight in experts:
            if cache.has(layer, expert) or before <= threshold:
                cache.drop(layer, expert, True)
                cache.use(layer, expert, 1.0)
            else:
                affected += weight
                cache.use(layer, expert, low, True)
            before += weight
    cache.affected = affected / len(routing)
    return cache


def substitution(routing: list[Choice], size: float, agreement: float) -> Cache:
    cache = Cache(size)
    layers = len({layer for layer, _ in routing})
    most = (1 - agreement) * 16 * layers
    credit = affected = 0.0
    for layer, experts in routing:
        credit = min(credit + 1 - agreement, most)
        for rank in range(len(experts) - 1, -1, -1):
            expert, weight = experts[rank]
            absent = not cache.has(layer, expert)
            if rank > 0 and absent and weight <= min(credit, (credit / most) ** 2):
                credit -= weight
                affected += weight
            else:
                cache.use(layer, expert, 1.0)
    cache.affected = affected / len(routing)
    return cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    parser.add_argument("--cache", type=float, default=0.25, help="share of all experts")
    parser.add_argument("--low", type=float, default=0.58, help="bytes of the low copy")
    arguments = parser.parse_args()
    trace = read_trace(arguments.trace)
    routing = list(choices(trace))
    size = arguments.cache * trace.all_experts
    exact = low_copies(routing, size, arguments.low, 2.0).bytes_read
    for threshold in (0.4, 0.5, 0.6, 0.7, 0.8):
        cache = low_copies(routing, size, arguments.low, threshold)
        print(
            f"low copy above {threshold}: reads {cache.bytes_read / exact:.2f}, "
            f"{cache.affected:.1%} of the weight at low bits"
        )
    for agreement in (0.98, 0.95, 0.9, 0.85, 0.8):
        cache = substitution(routing, size, agreement)
        print(
            f"substitution, agreement {agreement}: reads {cache.bytes_read / exact:.2f}, "
            f"{cache.affected:.1%} of the weight substituted"
        )
    all_low = low_copies(routing, size / arguments.low, arguments.low, 2.0).bytes_read
    print(f"all at low bits: reads {all_low * arguments.low / exact:.2f}")


if __name__ == "__main__":
    main()
