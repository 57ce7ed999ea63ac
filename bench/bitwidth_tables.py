#!/usr/bin/env python3
"""What expert-wise bitwidth gives on a model: tables of sizes, losses and divergences.

    bitwidth_tables.py MODEL.gguf --calibration A.train.txt ... --text A.valid.txt ...
                       [--context 256] [--folder KEPT] [--parts loss sizes transfer storage]
                       [-o RESULTS.md] [--plot PLOT.svg]

MODEL is F32, F16 or BF16. Calibration texts are profiled; plans are measured on the other texts,
which they never saw, in the same order. Everything runs through the `edgemoe` command. Parts:

    loss      `plan --max-loss` 1, 2 and 5 %: the perplexity that was lost, and the bytes beside the
              smallest type for all experts (with importance, as llama-quantize does) that keeps it
    sizes     KL divergence at five sizes: ours, the paper's method, one type for all experts
    transfer  profiled on one text, measured on the others
    storage   the paper's table: float, INT8, INT4, ours within 2 %

Files are kept in --folder and taken from there if they are there already.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOSSES = (1, 2, 5)
SIZES = (2.3, 2.625, 3.4375, 4.5, 6.0)
UNIFORM = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
PARTS = ("loss", "sizes", "transfer", "storage")


def run(*arguments: str | Path) -> Any:
    """The JSON that `edgemoe` prints."""
    words = [sys.executable, "-m", "edgemoe", *map(str, arguments), "--json"]
    print("+", *words[3:], file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bitwidth_tables: the command failed with status {done.returncode}")
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Measured:
    """Of one model on the texts: relative growth of each perplexity, and mean divergence."""

    expert_bytes: int
    bits: float
    growth: tuple[float, ...]
    kl: float

    @property
    def mean(self) -> float:
        return sum(self.growth) / len(self.growth)

    def cells(self) -> list[str]:
        by_text = ", ".join(f"{100 * one:+.2f}" for one in self.growth)
        return [
            f"{self.bits:.3f}",
            f"{self.expert_bytes / 1e6:.2f}",
            f"{100 * self.mean:+.2f} ({by_text})",
            f"{self.kl:.5f}",
        ]


class Bench:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.texts = [word for text in options.text for word in ("--file", text)]
        self.base = folder / "base"
        if not self.base.exists():
            run(
                "perplexity",
                options.model,
                *self.texts,
                *self._context(),
                "--save-kl-base",
                self.base,
            )

    def _context(self) -> list[str]:
        return ["--context", str(self.options.context)]

    def profile(self, name: str, texts: list[str], *more: str) -> Path:
        path = self.folder / f"{name}.profile"
        if not path.exists():
            given = [word for text in texts for word in ("--calibration", text)]
            run("profile", self.options.model, *given, *self._context(), "-o", path, *more)
        return path

    def measure(self, name: str, *pack: str | Path) -> Measured:
        """Packs, scores and removes the packed file; keeps the figures."""
        kept = self.folder / f"{name}.measured.json"
        if not kept.exists():
            packed = self.folder / f"{name}.gguf"
            figures = run("pack", self.options.model, *pack, "-o", packed, "--force")
            scored = run(
                "perplexity", packed, *self.texts, *self._context(), "--kl-base", self.base
            )
            packed.unlink()
            files = scored.get("files") or [scored]
            kept.write_text(
                json.dumps(
                    {
                        "expert_bytes": figures["expert_bytes"],
                        "bits": figures["bits_per_weight"]["expert"],
                        "growth": [one["perplexity_ratio"] - 1 for one in files],
                        "kl": scored["kl_mean"],
                    }
                )
            )
        value = json.loads(kept.read_text())
        return Measured(value["expert_bytes"], value["bits"], tuple(value["growth"]), value["kl"])

    def planned(self, name: str, profile: Path, *arguments: str) -> Measured:
        plan = self.folder / f"{name}.plan.json"
        if not plan.exists():
            run("plan", profile, "-o", plan, "--model", self.options.model, *arguments)
        return self.measure(name, "--plan", plan)

    def uniform(self, name: str, profile: Path) -> Measured:
        """As llama-quantize does it: importance, but no error feedback."""
        return self.measure(f"uniform-{name}", "--uniform", name, "--profile", profile)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def loss_table(bench: Bench, profile: Path, plain: Path) -> str:
    uniform = [(name, bench.uniform(name, plain)) for name in UNIFORM]
    rows = []
    for percent in LOSSES:
        ours = bench.planned(f"loss-{percent}", profile, "--max-loss", f"{percent}%")
        fits = [
            one
            for one in uniform
            if one[1].mean <= percent / 100 and max(one[1].growth) <= 1.5 * percent / 100
        ]
        best = min(fits, key=lambda one: one[1].expert_bytes)
        share = ours.expert_bytes / best[1].expert_bytes
        rows.append([f"{percent} %", *ours.cells(), f"{best[0]}", f"{share:.3f}"])
    rows += [[name, *one.cells(), "", ""] for name, one in uniform]
    head = ["allowed", "bits", "MB", "perplexity % (by text)", "KL", "smallest one type", "bytes"]
    return table(head, rows)


def size_rows(bench: Bench, profile: Path, plain: Path) -> list[tuple[float, dict[str, Measured]]]:
    found = []
    for bits in SIZES:
        one = {"ours": bench.planned(f"bits-{bits}", profile, "--bits", str(bits))}
        if bits >= 2.625:
            one["paper"] = bench.planned(
                f"paper-{bits}", profile, "--bits", str(bits), "--method", "paper"
            )
            fits = [name for name in UNIFORM if bits_of(name) <= bits + 1e-9]
            one[f"uniform {fits[-1]}"] = bench.uniform(fits[-1], plain)
        found.append((bits, one))
    return found


def bits_of(name: str) -> float:
    from edgemoe import _core

    return float(_core.bits_per_weight(name))


def size_table(rows: list[tuple[float, dict[str, Measured]]]) -> str:
    lines = []
    for bits, methods in rows:
        for name, one in methods.items():
            lines.append([f"{bits:g}", name, *one.cells()])
    return table(["asked for", "method", "bits", "MB", "perplexity % (by text)", "KL"], lines)


def transfer_table(bench: Bench) -> str:
    rows = []
    for index, text in enumerate(bench.options.calibration):
        profile = bench.profile(f"only-{index}", [text])
        ours = bench.planned(f"only-{index}", profile, "--max-loss", "2%")
        rows.append([Path(text).name, *ours.cells()])
    return table(["profiled on", "bits", "MB", "perplexity % (by text)", "KL"], rows)


def storage_table(bench: Bench, profile: Path, plain: Path) -> str:
    source = Path(bench.options.model).stat().st_size
    rows = [["everything in memory, float", "", f"{source / 1e6:.2f} (file)", "+0.00", "0"]]
    for title, name in (("INT8 (Q8_0)", "Q8_0"), ("INT4 (Q4_0)", "Q4_0")):
        rows.append([title, *bench.uniform(name, plain).cells()])
    ours = bench.planned("loss-2", profile, "--max-loss", "2%")
    rows.append(["ours, within 2 %", *ours.cells()])
    return table(["", "bits", "MB of experts", "perplexity % (by text)", "KL"], rows)


def plot(rows: list[tuple[float, dict[str, Measured]]], path: Path) -> None:
    """Divergence (logarithmic) over bits, a line for each method."""
    import math

    from edgemoe.plots import to_svg
    from edgemoe.plots.drawing import Drawing, Polyline, Rect, Text

    series: dict[str, list[Measured]] = {}
    for _, methods in rows:
        for name, one in methods.items():
            series.setdefault(name.split()[0], []).append(one)
    points = [one for line in series.values() for one in line]
    low, high = math.log10(min(one.kl for one in points)), math.log10(max(one.kl for one in points))
    drawing = Drawing(640, 400, "KL divergence over bits per weight", "lower is better")
    left, top, width, height = 70, 40, 540, 300

    def place(one: Measured) -> tuple[float, float]:
        x = left + width * (one.bits - 2.0) / 4.5
        y = top + height * (high - math.log10(one.kl)) / max(high - low, 1e-9)
        return x, y

    drawing.items.append(Text(left, 24, "KL divergence from the source model", size=14))
    for bits in (2, 3, 4, 5, 6):
        x = left + width * (bits - 2.0) / 4.5
        drawing.items.append(Polyline([(x, top), (x, top + height)], "grid"))
        drawing.items.append(Text(x, top + height + 20, str(bits), anchor="middle"))
    drawing.items.append(
        Text(left + width / 2, top + height + 40, "bits per expert weight", anchor="middle")
    )
    for power in range(math.floor(low), math.ceil(high) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0**power
            if not low <= math.log10(value) <= high:
                continue
            y = top + height * (high - math.log10(value)) / max(high - low, 1e-9)
            drawing.items.append(Polyline([(left, y), (left + width, y)], "grid"))
            drawing.items.append(Text(left - 8, y + 4, f"{value:g}", anchor="end"))
    colors = {"ours": "series", "paper": "stall", "uniform": "overlap"}
    for index, (name, line) in enumerate(series.items()):
        color = colors[name]
        drawing.items.append(Polyline([place(one) for one in line], color, width=2))
        for one in line:
            x, y = place(one)
            drawing.items.append(Rect(x - 3, y - 3, 6, 6, color))
        drawing.items.append(Rect(left + width - 100, top + 12 + 20 * index, 10, 10, color))
        drawing.items.append(Text(left + width - 84, top + 21 + 20 * index, name))
    path.write_text(to_svg(drawing), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--calibration", nargs="+", required=True)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folder")
    parser.add_argument("-o", "--out")
    parser.add_argument("--plot")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(options, folder)
        profile = bench.profile("all", options.calibration)
        plain = bench.profile("plain", options.calibration, "--covariance", "none")
        parts = []
        if "loss" in options.parts:
            parts.append(("Within an allowed loss", loss_table(bench, profile, plain)))
        if "sizes" in options.parts:
            rows = size_rows(bench, profile, plain)
            parts.append(("At equal sizes", size_table(rows)))
            if options.plot:
                plot(rows, Path(options.plot))
        if "transfer" in options.parts:
            parts.append(("Profiled on one text", transfer_table(bench)))
        if "storage" in options.parts:
            parts.append(("Storage and accuracy", storage_table(bench, profile, plain)))
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in parts) + "\n"
    if options.out:
        Path(options.out).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
