"""edgemoe doctor: what this machine offers, for reports and for choosing options."""

from __future__ import annotations

import json
from typing import Any

import click

from edgemoe.doctor import examine
from edgemoe.sizes import format_size


def _print(report: dict[str, Any]) -> None:
    memory, storage = report["memory"], report["storage"]
    limit = memory["group_limit_bytes"]
    print(
        f"edgemoe {report['version']}, Python {report['python']}, "
        f"{report['machine']}, Linux {report['kernel']}"
    )
    print(
        f"CPU: {report['cpus']} usable, level {report['level'] or 'none'} "
        f"of {', '.join(report['levels'])}"
    )
    if report["level_problem"]:
        print(f"  problem: {report['level_problem']}")
    print(
        f"memory: {format_size(memory['available_bytes'])} available, "
        f"pages of {format_size(report['page_bytes'])}, control group "
        + (f"allows {format_size(limit)} ({memory['group_path']})" if limit else "sets no limit")
    )
    print(f"automatic budget: {format_size(memory['automatic_budget_bytes'])}")
    print(
        f"storage: {storage['path']}: direct reads "
        + (
            f"work, alignment {storage['alignment']}"
            if storage["direct_io"]
            else "are refused; reads go through the page cache"
        )
    )
    print(
        "io_uring: "
        + ("works" if storage["io_uring"] else f"not used ({storage['io_uring_problem']})")
    )
    for backend, speed in storage["bytes_per_second"].items():
        print(f"  {backend}: {format_size(speed)}/s")


@click.command()
@click.argument("file", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def doctor(file: str | None, as_json: bool) -> None:
    """Examine CPU, memory, io_uring and storage; FILE names a file on the device to measure."""
    report = examine(file)
    if as_json:
        print(json.dumps(report))
    else:
        _print(report)
