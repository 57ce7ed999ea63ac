"""Runs commands as if on a smaller machine: control groups that bound memory and disk reads.

Owns the groups (version 1 or 2, whichever the kernel has mounted) for as long as a command runs.
Needs root. Every command starts with a cold page cache and is in its groups from its first
instruction on.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from program_output import RunError, decoded, last_line

GROUPS = Path("/sys/fs/cgroup")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class LimitError(Exception):
    """Limits that this machine or user cannot set."""


def parse_size(text: str) -> int:
    """Bytes, for argparse."""
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            try:
                return int(float(text.removesuffix(unit)) * factor)
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2GiB")


@dataclass(frozen=True)
class Limits:
    """What a command may use. read_from names a file on the disk whose reads are limited."""

    memory_bytes: int
    read_bytes_per_second: int | None = None
    read_from: str = ""


def disk_of(path: str) -> str:
    """The whole disk that holds a file, as the kernel's "major:minor"."""
    number = os.stat(path).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    device = Path("/sys/dev/block") / name
    if not device.exists():
        raise LimitError(
            f"{path} is on a file system without a disk of its own (overlay, btrfs, network); "
            "copy it to one with, such as ext4"
        )
    # Limits hold for disks, not for their partitions.
    if (device / "partition").exists():
        return (device.resolve().parent / "dev").read_text().strip()
    return name


def _settings_v1(limits: Limits) -> dict[str, dict[str, str]]:
    """Hierarchy -> file -> value."""
    settings = {"memory": {"memory.limit_in_bytes": str(limits.memory_bytes)}}
    if limits.read_bytes_per_second is not None:
        value = f"{disk_of(limits.read_from)} {limits.read_bytes_per_second}"
        settings["blkio"] = {"blkio.throttle.read_bps_device": value}
    return settings


def _settings_v2(limits: Limits) -> dict[str, dict[str, str]]:
    files = {"memory.max": str(limits.memory_bytes)}
    if limits.read_bytes_per_second is not None:
        files["io.max"] = f"{disk_of(limits.read_from)} rbps={limits.read_bytes_per_second}"
    # The top group hands controllers down only where it was told to.
    handed = GROUPS / "cgroup.subtree_control"
    for controller in ("memory", "io"):
        if controller not in handed.read_text().split():
            handed.write_text(f"+{controller}")
    return {".": files}


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


@contextmanager
def limited_groups(limits: Limits) -> Iterator[list[str]]:
    """Control groups with those limits; the files that a process joins them by."""
    if os.geteuid() != 0:
        raise LimitError("root is needed to limit memory and disk with control groups; use sudo")
    with ExitStack() as stack:
        try:
            is_v1 = (GROUPS / "memory").is_dir()
            settings = (_settings_v1 if is_v1 else _settings_v2)(limits)
            members = []
            for hierarchy, files in settings.items():
                folder = GROUPS / hierarchy / f"edgemoe-bench-{os.getpid()}"
                group = stack.enter_context(_folder(folder))
                for name, value in files.items():
                    (group / name).write_text(value)
                members.append(str(group / "cgroup.procs"))
        except OSError as error:
            raise LimitError(f"control groups cannot be set up: {error}") from error
        yield members


def drop_page_cache() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def run_limited(command: Sequence[str], limits: Limits) -> str:
    """Standard output of the command. Raises LimitError and RunError."""
    with limited_groups(limits) as members:
        drop_page_cache()
        join = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'
        words = ["sh", "-c", join, "sh", *members, "--", *command]
        result = subprocess.run(words, capture_output=True, check=False)
    if result.returncode == -signal.SIGKILL:
        raise RunError(f"{command[0]} was killed: it needs more memory than its group has")
    if result.returncode != 0:
        reason = last_line(decoded(result.stderr))
        raise RunError(f"{command[0]} failed ({result.returncode}): {reason}")
    return decoded(result.stdout)
