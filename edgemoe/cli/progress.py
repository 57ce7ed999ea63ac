"""Progress bars: on a terminal only, and never on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that moves the bar on by a number of steps."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def rate_bar(
    formats: Mapping[str, Callable[[float], str]],
) -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function that is told (unit, done, total); a new unit begins a bar of its own.

    Shows the time that is left and the rate, which `formats[unit]` turns into text. The first call
    for a unit says where it begins: what was done before counts for neither.
    """
    if not sys.stderr.isatty():
        yield lambda unit, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %  {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    begun: dict[str, tuple[float, int]] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(unit: str, done: int, total: int) -> None:
            now = time.monotonic()
            if unit not in tasks:
                tasks[unit] = bar.add_task(unit, total=total, completed=done, rate="")
                begun[unit] = (now, done)
            since, before = begun[unit]
            rate = formats[unit]((done - before) / max(now - since, 1e-9)) if done > before else ""
            bar.update(tasks[unit], completed=done, rate=rate)

        yield report
