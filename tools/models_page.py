#!/usr/bin/env python3
"""Writes docs/models.md: what runs, how large it is, what memory it needs and how it is tested.

    models_page.py            writes the page
    models_page.py --check    exits with 1 when the page is not what would be written

From the table of architectures of the installed edgemoe, docs/models.toml and tests/golden.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/models.md"
BITS = 4.85  # of a weight in a Q4_K_M file, on average
CONTEXT = 4096
CACHE_BYTES = 2  # of a float in the KV cache
FIXED_BYTES = 1e8  # the process, one step

HEAD = """# Models

Written by `tools/models_page.py` from `csrc/model/architectures.cpp`, `docs/models.toml` and the
golden models; do not edit. Any GGUF file of these architectures runs, whatever its quantisation. A
file with a tensor or a key that this version does not know is refused by name.

Sizes are for Q4_K_M files (about {bits} bits a weight), in GB; a context of {context} tokens and a
float16 KV cache. *Active* weights are those that a token is multiplied with. *Least* is about what
`--memory min` needs: all that is neither routed experts nor an embedding of its own, and the
experts of one token in one layer. *All* keeps every expert in memory; anything between is a budget
that works, the more the faster. `edgemoe inspect MODEL --memory SIZE` says it for a file.
"""

TESTED = """
## How families are tested

Each family has at least one tiny model with random weights in `tests/golden`, with the logits that
llama.cpp computes for it (transformers, for models with an encoder), and must give them within
1e-4 relative error (gemma4 and others whose reference reads GELU from a table of half floats, 3e-3;
MXFP4 experts, which meet activations of 8 bits, 0.05), as one batch and token by token
(`tests/python/test_golden.py`). The same models must give the same bits whatever the budget,
threads, batch and instruction set (`tests/python/test_one_answer_families.py`). Models with real
weights are not part of the tests.
"""

COLUMNS = ("model", "weights (active)", "MoE layers x experts", "MB per expert", "file")


def families() -> list[dict[str, Any]]:
    return list(tomllib.loads((ROOT / "docs/models.toml").read_text("utf-8"))["family"])


def gigabytes(size: float) -> str:
    value = size / 1e9
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def billions(count: float) -> str:
    value = count / 1e9
    return f"{value:.2f} B" if value < 1 else f"{value:.1f} B" if value < 200 else f"{value:.0f} B"


def model_row(model: dict[str, Any]) -> str:
    read = model.get("expert_input", model["width"])
    expert = model.get("matrices", 3) * read * model["expert_width"]
    experts = expert * model["layers"]
    embedding = model["vocab"] * model["width"]
    # Rows of an embedding of its own are read from the file.
    dense = 1e9 * model["other"] + embedding
    whole = dense + experts * model["experts"] + (0 if model.get("tied") else embedding)
    cache = model["cache"] * CONTEXT * CACHE_BYTES + 1e6 * model.get("state_mb", 0)
    fixed = FIXED_BYTES + dense * BITS / 8 + cache
    cells = [
        model["name"],
        f"{billions(whole)} ({billions(dense + experts * model['used'])})",
        f"{model['layers']} x {model['experts']}, {model['used']} used",
        f"{expert * BITS / 8e6:.1f}",
        gigabytes(whole * BITS / 8),
        gigabytes(fixed + expert * model["used"] * BITS / 8),
        gigabytes(fixed + experts * model["experts"] * BITS / 8),
    ]
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    return "\n".join(lines()) + "\n"


def lines() -> Iterator[str]:
    yield HEAD.format(bits=BITS, context=CONTEXT)
    for family in families():
        yield f"## {family['name']}"
        yield ""
        golden = ", ".join(f"`{name}`" for name in family["golden"])
        yield f"Architecture `{family['row']}`: {family['what']}. Golden models: {golden}."
        yield ""
        yield f"| {' | '.join(COLUMNS)} | least | all |"
        yield "|---|---|---|---|---|---|---|"
        yield from map(model_row, family["models"])
        yield ""
    yield TESTED.strip()


def problems() -> Iterator[str]:
    """What the page, the table and the golden models disagree about."""
    from edgemoe import _core  # the page alone can be written without it

    rows = _core.architectures()
    named = [family["row"] for family in families()]
    for row in set(rows) ^ set(named):
        yield f"'{row}' is in one of csrc/model/architectures.cpp and docs/models.toml only"
    golden = {path.stem for path in (ROOT / "tests/golden").glob("*.gguf")}
    claimed = [name for family in families() for name in family["golden"]]
    for name in golden ^ set(claimed):
        yield f"'{name}' is in one of tests/golden and docs/models.toml only"
    if not PAGE.exists() or PAGE.read_text("utf-8") != page():
        yield "docs/models.md is not up to date: run tools/models_page.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    if not parser.parse_args().check:
        PAGE.write_text(page(), "utf-8")
        return 0
    found = list(problems())
    for problem in found:
        print(f"models_page.py: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
