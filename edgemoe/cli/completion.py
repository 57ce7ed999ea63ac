"""edgemoe completion: scripts for shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script, e.g. for ~/.bashrc: eval "$(edgemoe completion bash)"."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is not supported by the installed click")
    root = ctx.find_root().command
    print(kind(root, {}, "edgemoe", "_EDGEMOE_COMPLETE").source())
