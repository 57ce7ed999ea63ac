"""edgemoe convert: a Hugging Face checkpoint folder to a GGUF file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from edgemoe import _core
from edgemoe.cli.parameters import QuantType
from edgemoe.cli.progress import rate_bar
from edgemoe.convert import convert as convert_folder
from edgemoe.convert.conversion import AUTO
from edgemoe.sizes import format_size

_UNIT = "converting"


class _ConversionType(QuantType):
    """A quantisation type, or that of the checkpoint."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == AUTO:
            return AUTO
        name = super().convert(value, param, ctx)
        if not _core.can_quantize(name):
            self.fail(f"nothing here quantises to {name}", param, ctx)
        return name


@click.command()
@click.argument("folder", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="The GGUF file to write.")
@click.option(
    "--type",
    type=_ConversionType(),
    default=AUTO,
    show_default=True,
    help="Of all large matrices: F32, F16, BF16, Q8_0, Q4_K, ...; auto: as in the checkpoint.",
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="0: all CPUs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def convert(**values: Any) -> None:
    """Convert a checkpoint FOLDER of Switch Transformers or MiniCPM-MoE to a GGUF file.

    The folder holds config.json, model.safetensors (or shards with their index) and the
    SentencePiece model of the vocabulary.
    """
    with rate_bar({_UNIT: lambda rate: f"{format_size(rate)}/s"}) as show:
        report = convert_folder(
            values["folder"],
            values["out"],
            type=values["type"],
            threads=values["threads"],
            progress=lambda done, total: show(_UNIT, done, total),
        )
    if values["as_json"]:
        print(json.dumps({"path": values["out"], **asdict(report)}))
        return
    sizes = ", ".join(f"{name} {format_size(size)}" for name, size in report.bytes_by_type.items())
    print(
        f"{values['out']}: {report.architecture}, {report.num_tensors} tensors, "
        f"{format_size(report.file_bytes)} ({sizes})"
    )
    if report.fallbacks:
        print(
            f"{len(report.fallbacks)} tensors are F16: their rows are no whole blocks of "
            f"{values['type']}"
        )
