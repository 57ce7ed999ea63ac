"""What lossy options cost and save, as rows of the tables in docs/quality.md.

    lossy_table.py --base F16.gguf --model Q4.gguf --narrower Q3.gguf --file A.txt --file B.txt
        --pool 0.25 --pool 0.5 --low-copy 0.4 --routing 0.95

Each row is one run, token by token with nothing read ahead, compared with the base model: MODEL as
it is, with every lossy option that is named, and each of the narrower models as it is. All have the
same pool: that share of MODEL's experts.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from edgemoe import Model
from edgemoe.options import LoadOptions
from edgemoe.perplexity import MemoryBase, Perplexity, measure_perplexity


@dataclass(frozen=True)
class Texts:
    texts: list[str]
    context: int
    windows: int

    def measure(
        self, model: Model, base: MemoryBase, *, save: bool = False, one_by_one: bool = False
    ) -> Perplexity:
        return measure_perplexity(
            model,
            self.texts,
            context=self.context,
            base=None if save else base,
            save_base=base if save else None,
            max_windows=self.windows,
            one_by_one=one_by_one,
        )


def open_model(path: str, context: int, **lossy: float) -> Model:
    return Model(
        path,
        LoadOptions(
            memory="2GiB",
            context=context,
            batch=8,
            threads=1,  # nothing is timed
            preload="none",
            cache_folder="none",
            **lossy,
        ),
    )


def set_pool(model: Model, pool_bytes: int) -> int:
    """Gives the expert pool so many bytes, and returns what it has."""
    budget = model.set_memory("min")["least_bytes"]
    for _ in range(4):
        found = model.stats().memory["expert_pool_bytes"]
        budget += pool_bytes - found
        model.set_memory(budget)
    return model.stats().memory["expert_pool_bytes"]


def row(
    name: str, path: str, pool_bytes: int, texts: Texts, base: MemoryBase, **lossy: float
) -> str:
    with open_model(path, texts.context, **lossy) as model:
        pool = set_pool(model, pool_bytes)
        result = texts.measure(model, base, one_by_one=True)
        stats = model.stats()
    low, routing, found = stats.lossy_low_copy, stats.lossy_routing, result.divergence
    assert found is not None
    if low is not None:
        name += f", {low.share:.1%} of the weight"
    if routing is not None:
        name += f", agreement {routing.agreement:.3f}"
    return (
        f"| {pool / 2**20:.2f} MiB | {name} | {stats.bytes_read / stats.tokens / 1024:.0f} KiB | "
        f"{stats.hit_rate:.1%} | {found.kl_mean:.4f} ± {found.kl_mean_error:.4f} | "
        f"{found.same_top1:.1%} | "
        f"{found.perplexity_ratio:.3f} ± {found.perplexity_ratio_error:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, help="model that the others are compared with")
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--narrower", action="append", default=[], help="models of narrower experts"
    )
    parser.add_argument("--file", action="append", required=True, help="text")
    parser.add_argument("--pool", action="append", type=float, required=True)
    parser.add_argument("--low-copy", action="append", type=float, default=[])
    parser.add_argument("--routing", action="append", type=float, default=[])
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--windows", type=int, default=2, help="of each text")
    arguments = parser.parse_args()
    files = [Path(one).read_text(encoding="utf-8") for one in arguments.file]
    texts = Texts(files, arguments.context, arguments.windows)
    base = MemoryBase()
    with open_model(arguments.base, arguments.context) as model:
        texts.measure(model, base, save=True)
    with open_model(arguments.model, arguments.context) as model:
        all_bytes = model.memory_plan()["all_experts_bytes"]
    for share in arguments.pool:
        pool = int(share * all_bytes)
        path = arguments.model
        print(row(f"{share:.0%}, {Path(path).stem}", path, pool, texts, base), flush=True)
        for threshold in arguments.low_copy:
            name = f"{share:.0%}, low copies above {threshold:g}"
            print(row(name, path, pool, texts, base, lossy_low_copy=threshold), flush=True)
        for agreement in arguments.routing:
            name = f"{share:.0%}, routing {agreement:g}"
            print(row(name, path, pool, texts, base, lossy_routing=agreement), flush=True)
        for path in arguments.narrower:
            print(row(f"{share:.0%}, {Path(path).stem}", path, pool, texts, base), flush=True)


if __name__ == "__main__":
    main()
