"""edgemoe chat: a conversation with a model that has a chat template."""

from __future__ import annotations

import sys
from typing import Any

import click

from edgemoe.cli.generating import (
    Meter,
    closing_line,
    print_pressure,
    sampling_from,
    tokens_from,
)
from edgemoe.cli.lossy import print_lossy
from edgemoe.cli.parameters import (
    Utf8Text,
    load_options,
    load_options_from,
    model_argument,
    sampling_options,
)
from edgemoe.demo import demo_path
from edgemoe.errors import ArgumentError, ReadError
from edgemoe.model import Message, Model


def _read_line() -> str | None:
    """One message; None at the end of the input. Asks only on a terminal."""
    if sys.stdin.isatty():
        try:
            import readline  # noqa: F401 - gives input() editing and a history

            return input("> ")
        except EOFError:
            return None
    line = sys.stdin.buffer.readline()
    if not line:
        return None
    try:
        return line.decode("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"the message is not valid UTF-8 at byte {error.start}") from None


def _answer(model: Model, messages: list[Message], values: dict[str, Any]) -> str:
    """Prints and returns the answer; Ctrl-C ends the answer, not the conversation."""
    meter = Meter(model)
    generation = model.chat(
        messages,
        max_tokens=tokens_from(values["max_tokens"], None),
        sampling=sampling_from(values),
        stop=values["stops"],
    )
    text = ""
    try:
        for piece in generation:
            text += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
    print(flush=True)
    if values["stats"]:
        print(closing_line(meter.figures(generation), model.stats()), file=sys.stderr)
    print_lossy(model)
    print_pressure(meter)
    return text


@click.command()
@model_argument(required=False)
@click.option("--system", type=Utf8Text(), help="A system message to begin with.")
@sampling_options
@load_options()
@click.option("--stats", is_flag=True, help="A line of figures after each answer.")
def chat(**values: Any) -> None:
    """Talk with a model, line by line. /exit or the end of the input leaves, /clear forgets."""
    with Model(values["model"] or str(demo_path()), load_options_from(values)) as model:
        if model.chat_template is None:
            model.tokenizer  # noqa: B018 - raises what is wrong with the file's text, if anything
            raise ArgumentError(
                "this model has no chat template, so it does not answer messages; "
                "use 'edgemoe run' with a prompt"
            )
        system: list[Message] = []
        if values["system"]:
            system.append({"role": "system", "content": values["system"]})
        messages = list(system)
        while (line := _read_line()) is not None and line.strip() != "/exit":
            if line.strip() == "/clear":
                messages = list(system)
            elif line.strip():
                messages.append({"role": "user", "content": line})
                try:
                    answer = _answer(model, messages, values)
                except ReadError as error:
                    # The model is still there; the message can be sent again.
                    messages.pop()
                    print(f"edgemoe: {error}", file=sys.stderr)
                    continue
                messages.append({"role": "assistant", "content": answer})
