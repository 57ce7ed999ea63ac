"""How fast `edgemoe pack` is, by type, beside what the disk writes: `pack_speed.py MODEL FOLDER`.

The speed that the CPU allows is told from the CPU time of the threads, so that it means something
on a busy machine too; the disk is measured by writing past the page cache.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import time
from pathlib import Path

from edgemoe import _core
from edgemoe.bitwidth.importance import NO_IMPORTANCE
from edgemoe.bitwidth.packing import PackOptions, pack_model, uniform_plan

PIECE = 4 << 20


def write_speed(folder: Path, size: int) -> float:
    """Bytes per second of large direct writes; through the page cache where there are none."""
    path = folder / "write-speed.tmp"
    buffer = mmap.mmap(-1, PIECE)
    buffer.write(os.urandom(PIECE))
    flags = os.O_CREAT | os.O_WRONLY
    try:
        file = os.open(path, flags | os.O_DIRECT)
    except OSError:
        file = os.open(path, flags)
    try:
        os.posix_fallocate(file, 0, size)
        start = time.monotonic()
        for at in range(0, size, PIECE):
            os.pwrite(file, buffer, at)
        os.fsync(file)
        return size / (time.monotonic() - start)
    finally:
        os.close(file)
        path.unlink()


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(source: _core.PackSource, type_: str, out: Path, threads: int) -> dict[str, float]:
    before = cpu_seconds()
    report = pack_model(
        source,
        uniform_plan(source, type_, None)[0],
        str(out),
        importance=NO_IMPORTANCE,
        options=PackOptions(threads=threads, overwrite=True, resume=False),
    )
    cpu = cpu_seconds() - before
    result = report.result
    out.unlink()
    quantized = result["quantized_weights"]
    return {
        "seconds": result["seconds"],
        "cpu_seconds": cpu,
        "read_mb_per_second": result["read_bytes"] / result["seconds"] / 1e6,
        "written_mb_per_second": result["written_bytes"] / result["seconds"] / 1e6,
        "million_weights_per_cpu_second": quantized / cpu / 1e6,
        # What the threads could write if nothing but computing took time.
        "compute_bound_mb_per_second": result["expert_bytes"] / cpu * threads / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--types", default="Q8_0,Q6_K,Q5_K,Q4_K,Q3_K,Q2_K,IQ4_NL,Q4_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--disk-mb", type=int, default=1024)
    arguments = parser.parse_args()
    source = _core.PackSource(arguments.model)
    disk = write_speed(arguments.folder, arguments.disk_mb << 20)
    out = arguments.folder / "pack-speed.gguf"
    types = {
        name: measure(source, name, out, arguments.threads) for name in arguments.types.split(",")
    }
    print(
        json.dumps(
            {"disk_write_mb_per_second": disk / 1e6, "threads": arguments.threads, "types": types},
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
