#!/usr/bin/env python3
"""The tables of the EdgeMoE paper (arXiv 2308.14352) for simulated devices.

    paper_tables.py --model BASE.gguf --low-bit-model LOW.gguf [--devices pi5-sd ...]
                    [--memory 2GiB ...] [--tokens 8] [--rounds 3] [--routing TRACE.csv] [--json]

A device is a control group with its memory and the read speed of its storage: root is needed, and
the disk of this machine must be faster. The systems that the paper compares are modes of the engine
(`edgemoe bench --mode`), on the base model or on one of the same shape with fewer bits. A round
runs every system on every device once, each in a process of its own with a cold page cache; tables
show medians over the rounds. Prints one line per run on standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from limits import UNITS, LimitError, Limits, RunError, parse_size, run_limited

# Of a memory group, what the process may plan with: the group also pays for page tables.
BUDGET_SHARE = 0.98


@dataclass(frozen=True)
class Device:
    title: str
    read_bytes_per_second: int


DEVICES = {
    "tx2-ssd": Device("Jetson TX2, SSD", 550_000_000),
    "tx2-hdd": Device("Jetson TX2, hard disk", 50_000_000),
    "pi4-sd": Device("Raspberry Pi 4, SD card", 45_000_000),
    "pi5-sd": Device("Raspberry Pi 5, SD card", 90_000_000),
    "pi5-nvme": Device("Raspberry Pi 5, NVMe", 850_000_000),
}


@dataclass(frozen=True)
class System:
    mode: str
    low_bits: bool
    preload: str = "auto"


# The paper's names; preload alone is a step of its ablation.
SYSTEMS = {
    "IO-EXP": System("on-demand", low_bits=False),
    "IO-QEXP": System("on-demand", low_bits=True),
    "STI": System("layer-by-layer", low_bits=True),
    "preload": System("unbuffered", low_bits=True, preload="always"),
    "edgemoe": System("stream", low_bits=True),
}
ABLATION = {
    "base": "IO-EXP",
    "+ bits": "IO-QEXP",
    "+ preload": "preload",
    "+ buffer": "edgemoe",
}
RIVALS = ("IO-EXP", "IO-QEXP", "STI")


@dataclass(frozen=True)
class Figures:
    """Of one run, or medians of several."""

    tokens_per_second: float
    used_bytes: float
    hit_rate: float
    bytes_read_per_token: float
    of_limit: float
    disk_bytes_per_second: float


@dataclass(frozen=True)
class Place:
    """A device of one memory size."""

    device: str
    memory_bytes: int


@dataclass
class Measurements:
    runs: dict[tuple[Place, str], list[Figures]] = field(default_factory=dict)
    failures: dict[tuple[Place, str], str] = field(default_factory=dict)
    # What all of base model and low-bit model in memory would take; IO-FREE.
    resident_bytes: dict[bool, int] = field(default_factory=dict)

    def places(self) -> list[Place]:
        return list(dict.fromkeys(place for place, _ in [*self.runs, *self.failures]))

    def median(self, place: Place, system: str) -> Figures | None:
        runs = self.runs.get((place, system))
        if not runs:
            return None
        names = [one.name for one in fields(Figures)]
        return Figures(*(statistics.median(getattr(run, name) for run in runs) for name in names))


def ratio(part: Figures | None, whole: Figures | None) -> float | None:
    """Of the speeds."""
    if part is None or whole is None:
        return None
    return part.tokens_per_second / whole.tokens_per_second


Row = dict[str, Any]


def ablation_rows(measured: Measurements) -> Iterator[Row]:
    for place in measured.places():
        base = measured.median(place, ABLATION["base"])
        for step, system in ABLATION.items():
            figures = measured.median(place, system)
            yield {
                "device": place.device,
                "limit_bytes": place.memory_bytes,
                "step": step,
                "tokens_per_second": figures and figures.tokens_per_second,
                "over_base": ratio(figures, base),
                "used_bytes": figures and figures.used_bytes,
            }


def speed_rows(measured: Measurements) -> Iterator[Row]:
    for place in measured.places():
        ours = measured.median(place, "edgemoe")
        yield {
            "device": place.device,
            "limit_bytes": place.memory_bytes,
            "tokens_per_second": ours and ours.tokens_per_second,
            **{f"over_{name}": ratio(ours, measured.median(place, name)) for name in RIVALS},
            "disk_bytes_per_second": ours and ours.disk_bytes_per_second,
        }


def memory_rows(measured: Measurements) -> Iterator[Row]:
    for place in measured.places():
        for name, system in SYSTEMS.items():
            figures = measured.median(place, name)
            resident = measured.resident_bytes.get(system.low_bits)
            yield {
                "device": place.device,
                "limit_bytes": place.memory_bytes,
                "system": name,
                "used_bytes": figures and figures.used_bytes,
                "resident_bytes": resident,
                "less_memory": resident / figures.used_bytes if figures and resident else None,
                "hit_rate": figures and figures.hit_rate,
                "bytes_read_per_token": figures and figures.bytes_read_per_token,
                "of_limit": figures and figures.of_limit,
            }


def _size(value: float) -> str:
    unit = "GiB" if value >= UNITS["GiB"] else "MiB"
    return f"{value / UNITS[unit]:.2f} {unit}"


# Heading, and how to write a value.
Column = tuple[str, Callable[[Any], str]]
COLUMNS: dict[str, Column] = {
    "device": ("device", lambda name: DEVICES[name].title),
    "limit_bytes": ("memory limit", _size),
    "step": ("step", str),
    "system": ("system", str),
    "tokens_per_second": ("tok/s", "{:.3f}".format),
    "over_base": ("over base", "{:.2f}x".format),
    **{f"over_{name}": (f"over {name}", "{:.2f}x".format) for name in RIVALS},
    "disk_bytes_per_second": ("disk as measured", lambda rate: f"{rate / 1e6:.0f} MB/s"),
    "used_bytes": ("memory used", _size),
    "resident_bytes": ("all in memory", _size),
    "less_memory": ("times less", "{:.2f}x".format),
    "hit_rate": ("hits", "{:.1%}".format),
    "bytes_read_per_token": ("read per token", _size),
    "of_limit": ("of the limit", "{:.0%}".format),
}
TABLES: dict[str, tuple[str, Callable[[Measurements], Iterator[Row]]]] = {
    "ablation": ("Ablation (base and bits on demand, then preload, then buffer)", ablation_rows),
    "speed": ("Speed of edgemoe over the baselines", speed_rows),
    "memory": ("Memory against everything resident (IO-FREE); reads", memory_rows),
}


def markdown(title: str, rows: list[Row]) -> str:
    if not rows:
        return f"{title}: nothing was measured"
    names = list(rows[0])
    lines = [title, "", "| " + " | ".join(COLUMNS[name][0] for name in names) + " |"]
    lines.append("|" + "---|" * len(names))
    for row in rows:
        cells = ["-" if row[name] is None else COLUMNS[name][1](row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figures_of(report: dict[str, Any]) -> Figures:
    """From what `edgemoe bench --json` prints."""
    (result,) = report["results"]
    return Figures(
        tokens_per_second=result["tokens_per_second"]["median"],
        used_bytes=report["memory"]["resident_bytes"],
        hit_rate=result["hit_rate"],
        bytes_read_per_token=result["bytes_read_per_token"],
        of_limit=result["of_limit"],
        disk_bytes_per_second=report["bandwidth"]["storage"],
    )


def run_system(arguments: argparse.Namespace, place: Place, system: System) -> Figures:
    model = arguments.low_bit_model if system.low_bits else arguments.model
    command = [arguments.edgemoe, "bench", model, "--json", "--mode", system.mode]
    command += ["--preload", system.preload]
    command += ["-p", "0", "-n", str(arguments.tokens), "-r", "1", "--cache-folder", "none"]
    command += ["--memory", str(int(place.memory_bytes * BUDGET_SHARE))]
    command += ["--threads", str(arguments.threads)]
    if arguments.routing:
        command += ["--routing", arguments.routing]
    speed = DEVICES[place.device].read_bytes_per_second
    return figures_of(json.loads(run_limited(command, Limits(place.memory_bytes, speed, model))))


def resident_bytes(arguments: argparse.Namespace, model: str) -> int:
    """What the engine plans for a model with all experts in memory."""
    command = [arguments.edgemoe, "inspect", model, "--mode", "resident", "--memory", "min"]
    result = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RunError(result.stderr.strip())
    return int(json.loads(result.stdout)["memory_plan"]["least_bytes"])


Run = Callable[[Place, System], Figures]


def measure(
    measured: Measurements, places: list[Place], rounds: int, run: Run, note: Callable[[str], None]
) -> None:
    """All rounds. A system that fails on a device is left out there, and the rest goes on."""
    for number in range(1, rounds + 1):
        for place in places:
            for name, system in SYSTEMS.items():
                key = (place, name)
                if key in measured.failures:
                    continue
                label = f"round {number}: {place.device}, {_size(place.memory_bytes)}, {name}"
                try:
                    figures = run(place, system)
                except RunError as error:
                    measured.failures[key] = str(error)
                    note(f"{label}: left out: {error}")
                    continue
                measured.runs.setdefault(key, []).append(figures)
                note(
                    f"{label}: {figures.tokens_per_second:.3f} tok/s, hits "
                    f"{figures.hit_rate:.1%}, {_size(figures.bytes_read_per_token)} per token, "
                    f"{_size(figures.used_bytes)}"
                )


def as_json(measured: Measurements) -> dict[str, Any]:
    def named(place: Place, system: str) -> Row:
        return {"device": place.device, "limit_bytes": place.memory_bytes, "system": system}

    return {
        "tables": {name: list(rows(measured)) for name, (_, rows) in TABLES.items()},
        "runs": [
            {**named(*key), **asdict(run)} for key, runs in measured.runs.items() for run in runs
        ],
        "failures": [
            {**named(*key), "reason": reason} for key, reason in measured.failures.items()
        ],
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="many bits, such as Q8_0 or F16")
    parser.add_argument("--low-bit-model", required=True, help="same shape, such as Q4_0")
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=list(DEVICES))
    parser.add_argument(
        "--memory",
        nargs="+",
        type=parse_size,
        default=[int(size * UNITS["GiB"]) for size in (1.5, 2, 4, 8)],
        help="of the devices; 1.5GiB 2GiB 4GiB 8GiB unless given",
    )
    parser.add_argument("--tokens", type=int, default=8, help="of a run, after as many to warm up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--routing", metavar="TRACE.csv", help="recorded routing for every run")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--edgemoe", default=shutil.which("edgemoe"), help="the program")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.edgemoe is None:
        parser.error("edgemoe is not on the PATH; install the package or name it with --edgemoe")
    if arguments.tokens < 1 or arguments.rounds < 1:
        parser.error("--tokens and --rounds must be 1 or more")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    measured = Measurements()
    places = [Place(device, memory) for device in arguments.devices for memory in arguments.memory]
    try:
        for low_bits, model in ((False, arguments.model), (True, arguments.low_bit_model)):
            measured.resident_bytes[low_bits] = resident_bytes(arguments, model)
        measure(
            measured,
            places,
            arguments.rounds,
            lambda place, system: run_system(arguments, place, system),
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    except (LimitError, RunError, OSError) as error:
        sys.exit(f"paper_tables.py: {error}")
    if arguments.json:
        print(json.dumps(as_json(measured)))
    else:
        tables = (markdown(title, list(rows(measured))) for title, rows in TABLES.values())
        print("\n\n".join(tables))


if __name__ == "__main__":
    main()
