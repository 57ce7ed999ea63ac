"""edgemoe tokenize: text to token ids."""

from __future__ import annotations

import json
import sys

import click

from edgemoe import _core
from edgemoe.cli.generating import read_text_file
from edgemoe.cli.parameters import model_argument
from edgemoe.errors import ArgumentError
from edgemoe.text import Tokenizer


def _read_stdin() -> str:
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"standard input: not valid UTF-8 at byte {error.start}") from None


@click.command()
@model_argument(required=True)
@click.option("-f", "--file", type=click.Path(), help="UTF-8 text; without it standard input.")
@click.option("--no-bos", is_flag=True, help="Leave the BOS token out.")
@click.option("--special", is_flag=True, help="Names of control tokens in the text count.")
@click.option("--json", "as_json", is_flag=True, help='Print {"ids": [...]} and nothing else.')
def tokenize(model: str, file: str | None, no_bos: bool, special: bool, as_json: bool) -> None:
    """Print the token ids of a text."""
    gguf = _core.GgufFile(model)
    tokenizer = Tokenizer.from_metadata(
        {**gguf.values("tokenizer."), **gguf.values("general.name")}
    )
    text = read_text_file(file) if file is not None else _read_stdin()
    ids = tokenizer.encode(text, add_bos=False if no_bos else None, parse_special=special)
    print(json.dumps({"ids": ids}) if as_json else " ".join(map(str, ids)))
