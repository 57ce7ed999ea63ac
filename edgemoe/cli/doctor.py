"""edgemoe doctor: what this machine offers, for reports and for choosing options."""

from __future__ import annotations

import json
from typing import Any

import click

from edgemoe.doctor import MEMORY_FILE_SYSTEMS, examine, time_demo
from edgemoe.sizes import format_size


def _print(report: dict[str, Any]) -> None:
    memory, storage = report["memory"], report["storage"]
    limit = memory["group_limit_bytes"]
    group = f" ({memory['group_path']})" if memory["group_path"] else ""
    board = f" ({report['board']})" if report["board"] else ""
    print(
        f"edgemoe {report['version']}, Python {report['python']}, {report['libc']}, "
        f"{report['machine']}{board}, {report['system'] and report['system'] + ', '}"
        f"Linux {report['kernel']}"
    )
    print(
        f"CPU: {report['cpu'] and report['cpu'] + ', '}{report['cpus']} usable, "
        f"level {report['level'] or 'none'} "
        f"of {', '.join(report['levels'])}"
    )
    if report["level_problem"]:
        print(f"  problem: {report['level_problem']}")
    print(
        f"memory: {format_size(memory['available_bytes'])} available of "
        f"{format_size(memory['total_bytes'])}, swap {format_size(memory['swap_bytes'])}, "
        f"pages of {format_size(report['page_bytes'])}, control group "
        + (f"allows {format_size(limit)}{group}" if limit else "sets no limit")
    )
    print(f"automatic budget: {format_size(memory['automatic_budget_bytes'])}")
    print(
        f"storage{storage['path'] and ': '}{storage['path']}: direct reads "
        + (
            f"work, alignment {storage['alignment']}"
            if storage["direct_io"]
            else "are refused; reads go through the page cache"
        )
    )
    where = " ".join(word for word in (storage["file_system"], storage["device"]) if word)
    print(f"  file system {where or 'unknown'}")
    if storage["file_system"] in MEMORY_FILE_SYSTEMS:
        print("  problem: this is memory, not storage; name a file on the model's disk")
    print(
        "io_uring: "
        + ("works" if storage["io_uring"] else f"not used ({storage['io_uring_problem']})")
    )
    for backend, speed in storage["bytes_per_second"].items():
        print(f"  {backend}: {format_size(speed)}/s")
    for budget, speed in report.get("demo_tokens_per_second", {}).items():
        print(f"demo model, memory {budget}: {speed:.0f} tokens/s")


@click.command()
@click.argument("file", required=False, type=click.Path())
@click.option("--report", is_flag=True, help="For a bug report: with a benchmark, without paths.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def doctor(file: str | None, report: bool, as_json: bool) -> None:
    """Examine CPU, memory, io_uring and storage; FILE names a file on the device to measure."""
    found = examine(file)
    if report:
        found["demo_tokens_per_second"] = time_demo()
        found["memory"]["group_path"] = found["storage"]["path"] = ""  # may hold names
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)
