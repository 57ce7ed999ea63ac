"""The entry point: dispatch, and errors as one line with the right exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

from edgemoe import __version__
from edgemoe.cli.bench import bench
from edgemoe.cli.chat import chat
from edgemoe.cli.completion import completion
from edgemoe.cli.convert import convert
from edgemoe.cli.doctor import doctor
from edgemoe.cli.inspect import inspect
from edgemoe.cli.logits import logits
from edgemoe.cli.pack import pack
from edgemoe.cli.perplexity import perplexity
from edgemoe.cli.plan import plan
from edgemoe.cli.plot import plot
from edgemoe.cli.profile import profile
from edgemoe.cli.replay import replay
from edgemoe.cli.run import run
from edgemoe.cli.tokenize import tokenize
from edgemoe.cli.trace import trace
from edgemoe.errors import EdgemoeError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgemoe")
def edgemoe() -> None:
    """Run Mixture-of-Experts language models that are larger than the memory."""


for command in (
    run,
    chat,
    inspect,
    logits,
    tokenize,
    perplexity,
    bench,
    convert,
    profile,
    plan,
    pack,
    trace,
    plot,
    replay,
    doctor,
    completion,
):
    edgemoe.add_command(command)


def _one_line(message: str) -> str:
    text = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _fail(message: str, status: int) -> int:
    print(f"edgemoe: {_one_line(message)}", file=sys.stderr)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        edgemoe.main(args=words or ["--help"], prog_name="edgemoe", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        where = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return _fail(error.format_message() + where, EXIT_USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), EXIT_FAILURE)
    except EdgemoeError as error:
        return _fail(str(error), EXIT_FAILURE)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing more can be written there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", EXIT_FAILURE)
    except MemoryError:
        return _fail("out of memory; give a smaller --memory", EXIT_FAILURE)
    return 0


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """Leaves as an exception does, so that no half-written file stays behind."""
    raise SystemExit(EXIT_TERMINATED)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    0, 1 for errors, 2 for bad usage, 130 for Ctrl-C, 143 when it is told to terminate.
    """
    if arguments is not None:
        sys.exit(_run(arguments))
    # This process is the command.
    signal.signal(signal.SIGTERM, _terminate)
    status = _run(None)
    # All is done but leaving, which a signal ends at once, not by an exception inside of it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    sys.exit(status)
