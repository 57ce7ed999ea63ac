#!/usr/bin/env python3
"""Runs every test: builds and runs the C++ tests, then the Python tests, then the fast checks.

    test.py

Needs edgemoe[test] installed in the Python that runs it, and a C++ compiler. With a cross compiler
for 64-bit ARM and qemu-user the ARM kernels are built and tested too; on Debian a wheel for ARM is,
which takes packages from PyPI and Debian.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from build_wheels import quick_version
from debian_packages import NO_PACKAGES_STATUS

ROOT = Path(__file__).resolve().parent.parent


WHEEL_SCRIPTS = ("tools/build_wheels.py", "tools/test_arm.py")
ARM_PROGRAMS = ("aarch64-linux-gnu-g++", "qemu-aarch64-static")


def arm_steps() -> tuple[tuple[str, ...], ...]:
    missing = [program for program in ARM_PROGRAMS if shutil.which(program) is None]
    if missing:
        print(
            f"== the ARM kernels are not tested: {' and '.join(missing)} not found "
            "(Debian: g++-aarch64-linux-gnu, qemu-user-static)"
        )
        return ()
    return (
        ("cmake", "--preset", "aarch64"),
        ("cmake", "--build", "--preset", "aarch64"),
        *arm_wheel_steps(),
        ("pytest", "tests/arm"),
    )


def arm_wheel_steps() -> tuple[tuple[str, ...], ...]:
    if quick_version() is None:
        print("== no ARM wheel is tested: that takes a Debian whose Python it knows")
        return ()
    folder = "build/quick"
    return (
        (sys.executable, "tools/build_wheels.py", "--quick", "--out", folder),
        (sys.executable, "tools/test_arm.py", "--short", "--wheels", folder),
    )


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
        # Not "python -m pytest": the installed package is what is tested. Most tests wait for
        # programs that they start, half of the time on one core.
        ("pytest", "-n", "auto", "--maxprocesses", "4", "tests/python"),
        *arm_steps(),
        (sys.executable, "tools/check.py", "--fast"),
    )
    can_test_wheel = True
    for step in steps:
        if "tools/test_arm.py" in step and not can_test_wheel:
            continue
        print("==", " ".join(step), flush=True)
        status = subprocess.run(step, cwd=ROOT, env=environment, check=False).returncode
        if status == NO_PACKAGES_STATUS and step[1] in WHEEL_SCRIPTS:
            print("== the ARM wheel is not tested: Debian's packages cannot be had", flush=True)
            can_test_wheel = False
        elif status != 0:
            print(f"test.py: '{' '.join(step)}' failed with status {status}", file=sys.stderr)
            return 1
    print("== all tests passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
