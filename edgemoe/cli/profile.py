"""edgemoe profile: what calibration text says about every expert of a model."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import click
import numpy as np

from edgemoe import _core
from edgemoe.bitwidth.calibration import Calibration, CalibrationText, calibrate, tokenized
from edgemoe.bitwidth.covariance import SCOPES
from edgemoe.bitwidth.profile_options import CANDIDATES, ProfileOptions
from edgemoe.bitwidth.profiling import ProfileReport, ProfileRun
from edgemoe.cli.generating import read_text_file
from edgemoe.cli.logits import read_token_file
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.cli.progress import rate_bar
from edgemoe.errors import ArgumentError
from edgemoe.sizes import format_size

_DEFAULT_CONTEXT = 256
_SHOWN_EXPERTS = 12  # of those that were not reached, in the text output


def _calibration(values: dict[str, Any]) -> Calibration:
    if bool(values["calibration"]) == bool(values["tokens"]):
        raise click.UsageError(
            "give texts with --calibration FILE, or token ids with --tokens FILE"
        )
    model = values["model"]
    spec = _core.ModelFile(model).spec()
    texts: list[CalibrationText] = []
    if values["calibration"]:
        files = [(os.path.basename(path), read_text_file(path)) for path in values["calibration"]]
        texts = tokenized(model, files)
    for path in values["tokens"]:
        ids = np.asarray(read_token_file(path), dtype=np.int32)
        if ids.max() >= spec["vocabulary"]:
            raise ArgumentError(
                f"{path}: token {ids.max()} is outside the vocabulary of {spec['vocabulary']} ids"
            )
        texts.append(CalibrationText(os.path.basename(path), ids))
    most = spec["trained_context"] or _DEFAULT_CONTEXT
    context = values["context"] or min(_DEFAULT_CONTEXT, most)
    return calibrate(
        texts,
        context=context,
        max_tokens=values["max_tokens"],
        held_out=values["held_out"] / 100,
    )


def _check_out(values: dict[str, Any]) -> str:
    out: str = os.path.realpath(values["out"])
    for path in (values["model"], *values["calibration"], *values["tokens"]):
        if os.path.realpath(path) == out:
            raise click.UsageError(f"the profile would overwrite {path}")
    if os.path.isdir(out) or not os.path.isdir(os.path.dirname(out)):
        raise ArgumentError(f"{values['out']}: is a folder, or its folder is not there")
    if os.path.exists(out) and not values["force"]:
        raise ArgumentError(f"{values['out']}: is there already; --force replaces it")
    return out


def _candidates(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip().upper() for name in text.split(",")) if text else ()


def _figures(out: str, report: ProfileReport) -> dict[str, Any]:
    return {
        "profile": out,
        "tokens": report.tokens,
        "resumed_tokens": report.resumed_tokens,
        "tokens_per_second": report.tokens_per_second,
        "error_bytes_per_second": report.error_bytes_per_second,
        "seconds": report.seconds,
        "experts": report.num_experts,
        "never_used": report.never_used,
        "unreached": {str(layer): list(one) for layer, one in report.unreached.items()},
        "memory": dict(report.memory),
    }


def _print(out: str, report: ProfileReport) -> None:
    print(
        f"{out}: {report.tokens} tokens, {report.tokens_per_second:.1f} tok/s, errors "
        f"{format_size(report.error_bytes_per_second)}/s, {report.seconds:.0f} s, "
        f"{format_size(report.memory['peak_bytes'])} of "
        f"{format_size(report.memory['budget_bytes'])} memory used"
    )
    pairs = [(layer, one) for layer, experts in report.unreached.items() for one in experts]
    if not pairs:
        print(f"all {report.num_experts} experts were reached")
        return
    shown = ", ".join(f"{layer}/{one}" for layer, one in pairs[:_SHOWN_EXPERTS])
    more = f" and {len(pairs) - _SHOWN_EXPERTS} more" if len(pairs) > _SHOWN_EXPERTS else ""
    print(
        f"{len(pairs)} of {report.num_experts} experts were used by too few tokens to know them, "
        f"{report.never_used} of those by none; they count as sensitive as the median of their "
        f"layer (layer/expert: {shown}{more})"
    )


@click.command()
@model_argument(required=True)
@click.option(
    "--calibration",
    multiple=True,
    type=click.Path(),
    help="A UTF-8 text to measure on; may be repeated.",
)
@click.option(
    "--tokens",
    multiple=True,
    type=click.Path(),
    help="A file of token ids, separated by white space, in place of a text; may be repeated.",
)
@click.option("-o", "--out", required=True, type=click.Path(), help="The profile to write.")
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=131072,
    show_default=True,
    help="Tokens to measure on, shared between the texts.",
)
@click.option(
    "--candidates",
    metavar="TYPE,...",
    help=f"Types whose errors are measured, of {', '.join(CANDIDATES)}.",
)
@click.option(
    "--rows",
    type=click.IntRange(0),
    default=None,
    help="Rows of each matrix that stand for all of them in the errors; 0: all. Default: all of a "
    "small model, 64 or 16 of a large one.",
)
@click.option(
    "--covariance",
    type=click.Choice(SCOPES),
    default=SCOPES[0],
    show_default=True,
    help="How inputs vary together, for quantisation with error feedback: of each expert, or of "
    "each layer. auto: as memory allows.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 50),
    default=25.0,
    show_default=True,
    help="Percent of the tokens that are kept apart, for `edgemoe plan` to measure on.",
)
@click.option("--force", is_flag=True, help="Replace OUT, and start over.")
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds between two saved states, from which a run that was stopped goes on.",
)
@load_options()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def profile(**values: Any) -> None:
    """Measure how sensitive every expert is, on windows of --context tokens (256 by default).

    The same command goes on where one that was stopped ended. See docs/bitwidth.md.
    """
    out = _check_out(values)
    calibration = _calibration(values)
    options = ProfileOptions(
        load=replace(load_options_from(values), context=0),
        candidates=_candidates(values["candidates"]),
        rows=values["rows"],
        covariance=values["covariance"],
        held_out=values["held_out"] / 100,
        save_seconds=values["save_every"],
    )
    run = ProfileRun(values["model"], calibration, out, options)
    formats = {
        "tokens": lambda rate: f"{rate:.1f} tok/s",
        "bytes": lambda rate: f"{format_size(rate)}/s",
    }
    with rate_bar(formats) as progress:
        report = run.measure(progress, start_over=values["force"])
    if values["as_json"]:
        print(json.dumps(_figures(values["out"], report)))
    else:
        _print(values["out"], report)
