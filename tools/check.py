#!/usr/bin/env python3
"""Checks the sources: formatting, lint, types, layering, symbols, lengths.

    check.py --fast    below 30 seconds; part of the test command
    check.py           also builds with GCC and Clang, warnings as errors, and runs the C++ tests
                       under the address and undefined-behaviour sanitizers

Needs edgemoe[test] installed in the Python that runs it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPP_FOLDERS = ("csrc", "bench", "tests/cpp", "tests/fuzz")


def cpp_files() -> list[str]:
    files = [path for name in CPP_FOLDERS for path in sorted((ROOT / name).rglob("*.[ch]*"))]
    return [str(path.relative_to(ROOT)) for path in files if path.suffix in (".h", ".cpp")]


def fast_steps() -> Iterator[tuple[str, Sequence[str]]]:
    yield "C++ formatting", ("clang-format", "--dry-run", "-Werror", *cpp_files())
    yield "Python formatting", ("ruff", "format", "--check", ".")
    yield "Python lint", ("ruff", "check", ".")
    yield "Python types", ("mypy",)
    yield "layering, symbols, lengths, documents", ("pytest", "tests/tidy")


def slow_steps() -> Iterator[tuple[str, Sequence[str]]]:
    for name, compiler in (("GCC", "g++"), ("Clang", "clang++"), ("Clang", "clang++-14")):
        if shutil.which(compiler) is None:
            continue
        folder = f"build/check-{compiler}"
        yield f"configuring with {name}", (
            "cmake", "-S", ".", "-B", folder, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={compiler}",
        )  # fmt: skip
        yield f"building with {name}", ("cmake", "--build", folder)
        yield f"tests built with {name}", ("ctest", "--test-dir", folder, "--output-on-failure")
    yield "configuring with sanitizers", ("cmake", "--preset", "asan")
    yield "building with sanitizers", ("cmake", "--build", "--preset", "asan")
    yield "tests with sanitizers", ("ctest", "--preset", "asan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="only what takes seconds")
    fast = parser.parse_args().fast
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, "PATH": scripts + os.pathsep + os.environ.get("PATH", "")}
    failed = []
    for name, command in (*fast_steps(), *(() if fast else slow_steps())):
        print(f"-- {name}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
            failed.append(name)
    print(f"check.py: failed: {', '.join(failed)}" if failed else "check.py: all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
