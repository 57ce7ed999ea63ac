"""edgemoe logits: the logits of every position, for comparison with other engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgemoe.cli.lossy import print_lossy
from edgemoe.cli.parameters import load_options, load_options_from, model_argument
from edgemoe.cli.progress import progress_bar
from edgemoe.errors import ArgumentError
from edgemoe.model import Model


def read_token_file(path: str) -> list[int]:
    """Ids separated by white space. Raises ArgumentError naming a word that is not one."""
    words = Path(path).read_bytes().split()
    ids = []
    for word in words:
        if not word.isdigit() or len(word) > 9:
            shown = word[:20].decode("utf-8", "backslashreplace")
            raise ArgumentError(f"{path}: {shown!r} is not a token id")
        ids.append(int(word))
    if not ids:
        raise ArgumentError(f"{path}: there are no token ids in it")
    return ids


@click.command()
@model_argument(required=True)
@click.option(
    "--tokens",
    "--tokens-file",
    "tokens",
    required=True,
    type=click.Path(),
    help="File of token ids, separated by white space.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    help="The .npy file to write: float32 [tokens, vocabulary].",
)
@click.option(
    "--source",
    type=click.Path(),
    help="File of token ids that the encoder reads, of a model that has one.",
)
@click.option("--one-by-one", is_flag=True, help="Evaluate token by token, as decoding does.")
@load_options(kv_type="f32")
def logits(**values: Any) -> None:
    """Write the logits of every position of a sequence of token ids."""
    tokens = read_token_file(values["tokens"])
    source = None if values["source"] is None else read_token_file(values["source"])
    options = load_options_from(values)
    if options.context == 0:
        options = replace(options, context=max(len(tokens), len(source or ())))
    with Model(values["model"], options, with_text=False) as model:
        shape = (len(tokens), model.vocabulary_size)
        with open(values["out"], "wb") as out, progress_bar("logits", len(tokens)) as advance:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            one_by_one = values["one_by_one"]
            for rows in model.logit_rows(tokens, one_by_one=one_by_one, source=source):
                out.write(rows.tobytes())
                advance(len(rows))
        print_lossy(model)
