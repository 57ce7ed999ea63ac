#!/usr/bin/env python3
"""Runs every test: builds and runs the C++ tests, then the Python tests, then the fast checks.

    test.py

Needs edgemoe[test] installed in the Python that runs it, and a C++ compiler.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    scripts = sysconfig.get_path("scripts")
    environment = {
        **os.environ,
        "PATH": scripts + os.pathsep + os.environ.get("PATH", ""),
        "EDGEMOE_BUILD_DIR": str(ROOT / "build/release"),  # its objects are searched for leaks
    }
    steps = (
        ("cmake", "--preset", "release", "-DEDGEMOE_BENCH=OFF"),
        ("cmake", "--build", "--preset", "release"),
        ("ctest", "--preset", "release"),
        # Not "python -m pytest": the installed package is what is tested.
        ("pytest", "tests/python"),
        (sys.executable, "tools/check.py", "--fast"),
    )
    for step in steps:
        print("==", " ".join(step), flush=True)
        status = subprocess.run(step, cwd=ROOT, env=environment, check=False).returncode
        if status != 0:
            print(f"test.py: '{' '.join(step)}' failed with status {status}", file=sys.stderr)
            return 1
    print("== all tests passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
