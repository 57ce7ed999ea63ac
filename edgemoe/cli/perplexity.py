"""edgemoe perplexity: how well a model predicts texts, and how far it is from a base model."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from edgemoe.cli.generating import read_text_file
from edgemoe.cli.lossy import lossy_figures, lossy_lines
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.cli.progress import progress_bar
from edgemoe.model import Model
from edgemoe.options import LoadOptions
from edgemoe.perplexity import Perplexity, measure_perplexity
from edgemoe.sizes import format_size

_DEFAULT_CONTEXT = 512

# Rows of the table: label, name of the figure, format of it and of its error.
_LINES = (
    ("tokens", "tokens", "{:d}"),
    ("perplexity", "perplexity", "{:.4f}"),
    ("nll", "nll", "{:.5f}"),
    ("base perplexity", "base_perplexity", "{:.4f}"),
    ("perplexity / base", "perplexity_ratio", "{:.5f}"),
    ("correlation of nll", "nll_correlation", "{:.4%}"),
    ("KL divergence, mean", "kl_mean", "{:.6f}"),
    ("  median", "kl_median", "{:.6f}"),
    ("  90 %", "kl_90", "{:.6f}"),
    ("  95 %", "kl_95", "{:.6f}"),
    ("  99 %", "kl_99", "{:.6f}"),
    ("  99.9 %", "kl_999", "{:.6f}"),
    ("  maximum", "kl_max", "{:.6f}"),
    ("same likeliest token", "same_top1", "{:.3%}"),
    ("change of p, mean", "delta_p_mean", "{:.3%}"),
    ("  root mean square", "delta_p_rms", "{:.3%}"),
)

Figures = dict[str, Any]


def _figures(result: Perplexity) -> Figures:
    values = asdict(result)
    del values["texts"]
    divergence = values.pop("divergence")
    return {**values, **(divergence or {})}


def _json(result: Perplexity, files: Sequence[str], cost: Figures) -> str:
    """One flat object; of several files the mean, and each in "files"."""

    def finite(figures: Figures) -> Figures:
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in figures.items()
        }

    report: dict[str, Any] = finite(_figures(result))
    if result.texts:
        report["files"] = [
            {"file": file, **finite(_figures(text))}
            for file, text in zip(files, result.texts, strict=True)
        ]
    return json.dumps({**report, **cost})


def _cell(figures: Figures, name: str, form: str) -> str:
    error = figures.get(name + "_error")
    value = form.format(figures[name])
    return value if error is None else f"{value} ± {form.format(error)}"


def _print(result: Perplexity, files: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = [_figures(text) for text in result.texts or (result,)]
    names = [os.path.basename(file) for file in files]
    if len(columns) > 1:
        columns.append(_figures(result))
        names.append("mean")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for label, name, form in _LINES:
        if name in columns[0]:
            table.add_row(label, *(_cell(column, name, form) for column in columns))
    # As wide as it comes: a terminal wraps what a table would cut.
    Console(width=max(80, 24 + 28 * len(names)), highlight=False).print(table)


def _cost(model: Model) -> Figures:
    """Speed and reads of the evaluation, and what lossy options did, under the keys of `bench`."""
    stats = model.stats()
    return {
        "tokens_per_second": stats.tokens / max(stats.step_seconds, 1e-9),
        "hit_rate": stats.hit_rate,
        "bytes_read_per_token": stats.bytes_read / max(stats.tokens, 1),
        **lossy_figures(model),
    }


def _measure(
    values: dict[str, Any], options: LoadOptions, texts: Sequence[str]
) -> tuple[Perplexity, Figures]:
    """The result, and what it cost."""
    path = {
        name: Path(values[name]) if values[name] else None for name in ("kl_base", "save_kl_base")
    }
    with (
        Model(values["model"], options) as model,
        progress_bar("perplexity", 100) as advance,
    ):
        shown = 0

        def report(done: int, total: int) -> None:
            nonlocal shown
            percent = 100 * done // total
            advance(percent - shown)
            shown = percent

        result = measure_perplexity(
            model,
            texts if len(texts) > 1 else texts[0],
            context=options.context,
            base=path["kl_base"],
            save_base=path["save_kl_base"],
            max_windows=values["windows"],
            # Lossy options act on single tokens only.
            one_by_one=values["one_by_one"] or model.is_lossy,
            progress=report,
        )
        return result, _cost(model)


@click.command()
@model_argument(required=True)
@click.option(
    "--file",
    "files",
    required=True,
    multiple=True,
    type=click.Path(),
    help="UTF-8 text to score; may be repeated: each, and the mean of them.",
)
@click.option("--kl-base", type=click.Path(), help="Compare with what --save-kl-base wrote.")
@click.option("--save-kl-base", type=click.Path(), help="Save the log-probabilities of this model.")
@click.option(
    "--windows",
    type=click.IntRange(1),
    metavar="N",
    help="Score N windows of each text, spread evenly over it, in place of all.",
)
@click.option(
    "--one-by-one", is_flag=True, help="Evaluate token by token, as generation does: slower."
)
@load_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def perplexity(**values: Any) -> None:
    """Score texts as llama-perplexity does (windows of --context tokens, 512 by default).

    With --kl-base the output distributions are compared too: Kullback-Leibler divergence, how often
    the likeliest token is the same, and the ratio of perplexities, each with its standard error.
    With lossy options tokens are evaluated one by one, as generation does.
    """
    texts = [read_text_file(file) for file in values["files"]]
    options = load_options_from(values)
    if options.context == 0:
        options = replace(options, context=_DEFAULT_CONTEXT)
    result, cost = _measure(values, options, texts)
    if values["as_json"]:
        print(_json(result, values["files"], cost))
        return
    _print(result, values["files"])
    print(
        f"{cost['tokens_per_second']:.1f} tok/s, {cost['hit_rate']:.1%} expert hits, "
        f"{format_size(cost['bytes_read_per_token'])} read per token"
    )
    for line in lossy_lines(cost):
        print(line)
