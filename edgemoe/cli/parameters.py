"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgemoe import _core
from edgemoe.errors import ArgumentError
from edgemoe.options import (
    EVICTION_POLICIES,
    GOVERNORS,
    IO_BACKENDS,
    KV_TYPES,
    MAX_LOOK_AHEAD,
    MODES,
    PREDICTORS,
    PRELOAD_POLICIES,
    LoadOptions,
    PreloadPolicy,
)
from edgemoe.sizes import parse_memory

if TYPE_CHECKING:  # generic for type checkers only, in the versions of click that we support
    _Parameter = click.ParamType[Any]
else:
    _Parameter = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])


class MemorySize(_Parameter):
    """ "auto", "min" or a size."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        try:
            return parse_memory(value)
        except ArgumentError as error:
            self.fail(str(error), param, ctx)


class QuantType(_Parameter):
    """A quantisation type by name, in any case."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        name = str(value).upper()
        if name not in _core.quant_types():
            known = ", ".join(one for one in _core.quant_types() if _core.can_quantize(one))
            self.fail(f"{value!r} is no quantisation type; known: {known}", param, ctx)
        return name


class IoBackend(_Parameter):
    """A reader by name; "simulated:..." is for tests."""

    name = "|".join(IO_BACKENDS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in IO_BACKENDS and not value.startswith("simulated:"):
            self.fail(f"{value!r} is not one of {', '.join(IO_BACKENDS)}", param, ctx)
        return str(value)


class Utf8Text(_Parameter):
    """Text from the command line, which arrives as bytes of any kind."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            self.fail(f"the text is not valid UTF-8 at character {error.start}", param, ctx)
        return str(value)


def _apply(options: Sequence[Callable[[Any], Any]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def model_argument(*, required: bool) -> Callable[[Command], Command]:
    """MODEL: a GGUF file; without one (where it may be left out) the bundled demo model."""
    return click.argument("model", required=required, type=click.Path())


def _expert_options() -> list[Callable[[Any], Any]]:
    """Which experts are read early, kept and, where lossy options allow, used."""
    return [
        click.option(
            "--preload",
            type=click.Choice(PRELOAD_POLICIES),
            default=PreloadPolicy.name,
            show_default=True,
            help="Which experts are read before their layer asks for them.",
        ),
        click.option(
            "--predictor",
            type=click.Choice(PREDICTORS),
            default=PreloadPolicy.predictor,
            show_default=True,
            help="Who guesses which experts those are.",
        ),
        click.option(
            "--look-ahead",
            type=click.IntRange(0, MAX_LOOK_AHEAD),
            default=PreloadPolicy.layers,
            show_default=True,
            help="Layers whose experts are guessed early.",
        ),
        click.option(
            "--cache-folder",
            type=click.Path(),
            default="auto",
            show_default=True,
            help="What is learned between runs is kept there; 'none': nowhere.",
        ),
        click.option(
            "--lossy-routing",
            type=click.FloatRange(0.5, 1, max_open=True),
            metavar="AGREEMENT",
            help="Lossy: while generating prefer experts in memory to the router's choice, which "
            "keeps at least this share of the routing weight (0.9 for instance).",
        ),
        click.option(
            "--lossy-low-copy",
            type=click.FloatRange(0, 1, max_open=True),
            metavar="THRESHOLD",
            help="Lossy: while generating read an expert's low copy on a miss, where the experts "
            "ranked before it have more than this share of the routing weight (0.6 for instance); "
            "for files of edgemoe pack --low-copy.",
        ),
        click.option(
            "--eviction",
            type=click.Choice(EVICTION_POLICIES),
            default=EVICTION_POLICIES[0],
            show_default=True,
        ),
    ]


def load_options(*, kv_type: str = "f16") -> Callable[[Command], Command]:
    """Everything that decides how a model is loaded."""
    options = [
        click.option(
            "--memory",
            type=MemorySize(),
            default="auto",
            show_default=True,
            help="Bound of the whole process: 4GiB, 'auto', or 'min' for the least that runs.",
        ),
        click.option(
            "--governor",
            type=click.Choice(GOVERNORS),
            default=GOVERNORS[0],
            show_default=True,
            help="Shrink the expert pool while others need memory; auto: with --memory auto.",
        ),
        click.option("--threads", type=click.IntRange(0, 1024), default=0, help="0: all CPUs."),
        click.option(
            "-c", "--context", type=click.IntRange(0), default=0, help="Positions; 0: chosen."
        ),
        click.option(
            "--batch", type=click.IntRange(0), default=0, help="Rows of a prefill step; 0: chosen."
        ),
        click.option("--kv-type", type=click.Choice(KV_TYPES), default=kv_type, show_default=True),
        click.option(
            "--verify",
            is_flag=True,
            help="Compare what is read of a packed file with its checksums; inspect reads it all.",
        ),
        click.option("--io", type=IoBackend(), default="auto", show_default=True),
        click.option(
            "--mode",
            type=click.Choice(MODES),
            default=MODES[0],
            show_default=True,
            help="resident: read all experts first. The last three are baselines that keep none.",
        ),
        *_expert_options(),
    ]
    return lambda command: _apply(options, command)


def sampling_options(command: Command) -> Command:
    """Everything that decides which token comes next."""
    options = [
        click.option(
            "-n",
            "--max-tokens",
            type=click.IntRange(-1),
            default=None,
            help="Tokens to generate; -1: until the end of the text or the context.",
        ),
        click.option(
            "--temp",
            type=click.FloatRange(0),
            default=0.8,
            show_default=True,
            help="0: always the most likely token.",
        ),
        click.option("--top-k", type=click.IntRange(0), default=40, show_default=True),
        click.option(
            "--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True
        ),
        click.option("--min-p", type=click.FloatRange(0, 1), default=0.05, show_default=True),
        click.option(
            "--repeat-penalty",
            type=click.FloatRange(0, min_open=True),
            default=1.0,
            show_default=True,
        ),
        click.option("--presence-penalty", type=float, default=0.0, show_default=True),
        click.option("--frequency-penalty", type=float, default=0.0, show_default=True),
        click.option(
            "--repeat-last-n",
            type=click.IntRange(0),
            default=64,
            show_default=True,
            help="Tokens that penalties look back at.",
        ),
        click.option(
            "--logit-bias",
            "logit_biases",
            multiple=True,
            metavar="ID=VALUE",
            help="Added to the logit of a token; may be repeated.",
        ),
        click.option("--seed", type=click.IntRange(-1), default=-1, help="-1: a random one."),
        click.option(
            "--stop",
            "stops",
            multiple=True,
            type=Utf8Text(),
            help="Ends the text where it appears; may be repeated.",
        ),
    ]
    return _apply(options, command)


def load_options_from(values: dict[str, Any]) -> LoadOptions:
    """Takes the values of load_options() out of a command's arguments."""
    names = [name for name in LoadOptions.__dataclass_fields__ if name in values]
    return LoadOptions(**{name: values[name] for name in names})
