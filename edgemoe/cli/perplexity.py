"""edgemoe perplexity: how well a model predicts a text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edgemoe.cli.generating import read_text_file
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.cli.progress import progress_bar
from edgemoe.model import Model
from edgemoe.perplexity import Perplexity, measure_perplexity

_DEFAULT_CONTEXT = 512


def _figures(result: Perplexity) -> dict[str, float]:
    figures: dict[str, float] = {
        "perplexity": result.perplexity,
        "nll": result.nll,
        "tokens": result.tokens,
    }
    if result.divergence is not None:
        figures["kl_mean"] = result.divergence.kl_mean
        figures["same_top1"] = result.divergence.same_top1
        figures["perplexity_ratio"] = result.divergence.perplexity_ratio
    return figures


@click.command()
@model_argument(required=True)
@click.option("--file", required=True, type=click.Path(), help="UTF-8 text to score.")
@click.option("--kl-base", type=click.Path(), help="Compare with what --save-kl-base wrote.")
@click.option("--save-kl-base", type=click.Path(), help="Save the log-probabilities of this model.")
@load_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def perplexity(**values: Any) -> None:
    """Score a text as llama-perplexity does (windows of --context tokens, 512 by default)."""
    text = read_text_file(values["file"])
    options = load_options_from(values)
    if options.context == 0:
        options = replace(options, context=_DEFAULT_CONTEXT)
    path = {
        name: Path(values[name]) if values[name] else None for name in ("kl_base", "save_kl_base")
    }
    with (
        Model(values["model"], options) as model,
        progress_bar("perplexity", 100) as advance,
    ):
        shown = 0.0

        def report(done: int, total: int) -> None:
            nonlocal shown
            advance(int(100 * done / total - shown))
            shown += int(100 * done / total - shown)

        result = measure_perplexity(
            model,
            text,
            context=options.context,
            base=path["kl_base"],
            save_base=path["save_kl_base"],
            progress=report,
        )
    figures = _figures(result)
    if values["as_json"]:
        print(json.dumps(figures))
    else:
        print(", ".join(f"{name} {value:.6g}" for name, value in figures.items()))
