"""edgemoe replay: recorded routing through the cache, for any policy and pool."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from edgemoe import _core
from edgemoe.cli.parameters import _Parameter
from edgemoe.errors import ArgumentError
from edgemoe.options import EVICTION_POLICIES
from edgemoe.sizes import parse_size
from edgemoe.traces import RouteTrace, read_trace

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_EXPERTS = re.compile(r"(\d+)x")


@dataclass(frozen=True)
class Budget:
    """A pool: a share of all experts, a number of them, or bytes."""

    text: str
    share: float = 0.0
    experts: int = 0
    size: int = 0

    def slots(self, path: str, trace: RouteTrace) -> int:
        """Experts that fit; at least one, at most all."""
        count = self.experts
        if self.share:
            # A little more, or 30 % of 10 experts would be 2.
            count = int(self.share * trace.all_experts + 1e-6)
        elif self.size:
            if not trace.mean_expert_bytes:
                raise ArgumentError(
                    f"{path}: the trace does not say how large experts are; "
                    f"give {self.text} in percent or as a number of experts (10x)"
                )
            count = int(self.size / trace.mean_expert_bytes)
        return max(1, min(count, trace.all_experts))


def _budget_from(text: str) -> Budget:
    if percent := _PERCENT.fullmatch(text):
        share = float(percent[1]) / 100
        if not 0 < share <= 1:
            raise ArgumentError(f"{text!r} is not a share; write 0.1% to 100%")
        return Budget(text, share=share)
    if experts := _EXPERTS.fullmatch(text):
        count = int(experts[1][:18])
        if count == 0:
            raise ArgumentError("'0x' holds no expert")
        return Budget(text, experts=count)
    size = parse_size(text)
    if size == 0:
        raise ArgumentError(f"{text!r} holds no expert")
    return Budget(text, size=size)


class _Budgets(_Parameter):
    name = "budgets"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Budget]:
        try:
            return [_budget_from(text.strip()) for text in value.split(",")]
        except ArgumentError as error:
            self.fail(f"{error}; or a share (20%), or experts (10x)", param, ctx)


class _Policies(_Parameter):
    name = "policies"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in value.split(",")))
        for name in names:
            if name not in EVICTION_POLICIES:
                self.fail(f"{name!r} is not one of {', '.join(EVICTION_POLICIES)}", param, ctx)
        return names


def _with_rates(result: dict[str, Any]) -> dict[str, Any]:
    hits = demands = 0
    for phase in ("prefill", "decode"):
        counts = result[phase]
        hits += counts["hits"]
        demands += counts["demands"]
        counts["hit_rate"] = counts["hits"] / counts["demands"] if counts["demands"] else None
    return {"hit_rate": hits / demands, **result}


def _shares(recall: dict[str, int]) -> dict[str, float | None]:
    def share(name: str, total: str) -> float | None:
        return recall[name] / recall[total] if recall[total] else None

    names = ("popular", "transitions", "transitions_twice")
    return {
        **{name: share(name, "wanted") for name in names},
        "token_table": share("token_table", "token_wanted"),
    }


# Transition counts take layers x experts^2 bytes twice; beyond this they are left out.
_MAX_TRANSITION_BYTES = 256 << 20
# Far above any model; each has counters.
_MAX_EXPERTS = 1 << 18
_UNKNOWN_TOKEN = (1 << 32) - 1


def _routing(path: str, trace: RouteTrace) -> _core.RoutingTrace:
    if trace.num_layers * trace.num_experts > _MAX_EXPERTS:
        raise ArgumentError(
            f"{path}: {trace.num_layers} layers of {trace.num_experts} experts; "
            f"replay takes at most {_MAX_EXPERTS} experts"
        )
    token = np.full(len(trace.step), _UNKNOWN_TOKEN) if trace.token is None else trace.token
    columns = (trace.turn, trace.phase, trace.step, trace.layer, trace.expert, token)
    rows = np.stack(columns, axis=1).astype(np.uint32)
    return _core.RoutingTrace(trace.num_layers, trace.num_experts, rows)


def _report(path: str, policies: list[str], budgets: list[Budget]) -> dict[str, Any]:
    trace = read_trace(path)
    slots = [budget.slots(path, trace) for budget in budgets]
    core = _routing(path, trace)
    predictable = 2 * trace.num_layers * trace.num_experts**2 <= _MAX_TRANSITION_BYTES
    return {
        "trace": path,
        "architecture": trace.arch,
        "layers": trace.num_layers,
        "experts": trace.num_experts,
        "experts_used": trace.num_used,
        "budgets": [
            {"budget": budget.text, "slots": count}
            for budget, count in zip(budgets, slots, strict=True)
        ],
        "policies": {
            name: [_with_rates(core.replay(name, count)) for count in slots] for name in policies
        },
        "belady": [_with_rates(core.optimum(count)) for count in slots],
        "predictor_recall": _shares(core.predictor_recall()) if predictable else None,
    }


def _printable(text: str) -> str:
    """A trace comes from anywhere: nothing in it moves the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def _print(report: dict[str, Any]) -> None:
    print(
        f"{report['trace']}: {_printable(report['architecture']) or 'unknown model'}, "
        f"{report['layers']} layers, "
        f"{report['experts_used']} of {report['experts']} experts used"
    )
    print("hits of all demands in % (prefill, decode)")
    lines = [["pool", *(budget["budget"] for budget in report["budgets"])]]
    lines.append(["slots", *(str(budget["slots"]) for budget in report["budgets"])])
    for name, results in [*report["policies"].items(), ("belady", report["belady"])]:
        cells = [
            f"{_percent(one['hit_rate'])} ({_percent(one['prefill']['hit_rate'])}, "
            f"{_percent(one['decode']['hit_rate'])})"
            for one in results
        ]
        lines.append([name, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *cells]))
    if recall := report["predictor_recall"]:
        print(
            "experts of decoded tokens that were predicted, in %: "
            f"most used {_percent(recall['popular'])}, "
            f"transitions {_percent(recall['transitions'])} "
            f"(naming twice as many {_percent(recall['transitions_twice'])}), "
            f"token table {_percent(recall['token_table'])}"
        )


@click.command()
@click.argument("traces", required=True, nargs=-1, type=click.Path(), metavar="TRACE...")
@click.option(
    "--policies",
    type=_Policies(),
    default=",".join(EVICTION_POLICIES),
    show_default=True,
    help="Eviction policies, separated by commas.",
)
@click.option(
    "--budgets",
    type=_Budgets(),
    default="5%,10%,20%,30%,50%",
    show_default=True,
    help="Pools: shares of all experts (20%), numbers of experts (10x), or sizes (2GiB).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def replay(
    traces: tuple[str, ...], policies: list[str], budgets: list[Budget], as_json: bool
) -> None:
    """Show what eviction policies hit on recorded routing, beside Belady's optimum.

    The slots have one size; a size is divided by the mean size of the trace's experts. The optimum
    loads every miss, as the policies do.
    """
    reports = [_report(path, policies, budgets) for path in traces]
    if as_json:
        print(json.dumps({"traces": reports}))
        return
    for number, report in enumerate(reports):
        if number > 0:
            print()
        _print(report)
