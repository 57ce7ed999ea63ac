#!/usr/bin/env python3
"""Installs aarch64 wheels with pip into a 64-bit ARM Python and tests them, under qemu-user.

    test_arm.py            the wheels of dist/ (tools/build_wheels.py), part of a release's checks
    test_arm.py --short    one wheel, what takes two minutes; part of the test command

The Pythons are Debian's for arm64, unpacked into build/arm; the packages that a wheel needs come
from PyPI. What is computed there must have the bits that the edgemoe installed here computes. The
wheel of this Debian's Python is tested at length, those of other releases in short; a wheel whose
Python is in no release is named as not run.
Needs edgemoe[test] in the Python that runs it, Debian's apt, and its packages qemu-user-static and
g++-aarch64-linux-gnu.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from build_wheels import DEBIAN_RELEASES, project_version, quick_version
from debian_packages import NO_PACKAGES_STATUS, DebianPackages, NoPackagesError

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/arm"
QEMU = "qemu-aarch64-static"
CROSS_COMPILER = "aarch64-linux-gnu-g++"
# CPU of qemu -> the level that must be chosen on it.
LEVELS = {"cortex-a53": "neon", "cortex-a76": "dotprod", "max": "i8mm"}
# Tokens that reach over several blocks of positions of attention, and a model with a window.
LONG_CONTEXT = ("200", ROOT / "tests/golden/gemma4.gguf")
MODELS = (ROOT / "edgemoe/demo/demo-moe-22m.gguf", *sorted(ROOT.glob("tests/golden/*.gguf")))
# Given how many tokens, then models. Prints a line for every model: the hash of its logits, of one
# batch and of one token at a time.
FINGERPRINTS = """
import hashlib, sys
from edgemoe import Model
from edgemoe.options import LoadOptions
count = int(sys.argv[1])
for path in sys.argv[2:]:
    with Model(path, LoadOptions(memory="min", context=count + 40), with_text=False) as model:
        for one_by_one in (False, True):
            tokens = list(range(3, 3 + count))
            source = tokens if model.has_encoder else None
            rows = model.logits(tokens, one_by_one=one_by_one, source=source)
            print(path, hashlib.sha256(rows.tobytes()).hexdigest())
"""
ONE_ANSWER = "test_threads or test_batches or test_readers or coarse or falters or test_one_by_one"


class Failed(Exception):
    pass


def run(*command: str | Path, **environment: str) -> str:
    result = subprocess.run(
        command,
        cwd=BUILD,  # not the work tree, whose folder `edgemoe` is not the installed package
        env={**os.environ, "EDGEMOE_CACHE": "none", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise Failed(f"{result.stdout}{result.stderr}'{words}' failed: {result.returncode}")
    return result.stdout


class ArmPython:
    """A Python of 64-bit ARM with the wheel installed."""

    def __init__(self, wheel: Path) -> None:
        digits = wheel.name.split("-")[2].removeprefix("cp")
        self.version = f"{digits[0]}.{digits[1:]}"
        self.root = BUILD / f"root-{self.version}"
        self.site = BUILD / f"site-{self.version}"
        packages = BUILD / f"packages-{self.version}"
        if not self.root.exists():
            debian = DebianPackages(BUILD / "debian", DEBIAN_RELEASES[self.version], "aarch64")
            # numpy needs the C++ library, which every system has.
            debian.unpack(self.root, f"python{self.version}", "libstdc++6")
        if not (self.root / "lib").exists():  # newer releases leave the link to their base system
            (self.root / "lib").symlink_to("usr/lib")
        self._download(packages, wheel)
        shutil.rmtree(self.site, ignore_errors=True)
        pip = max(packages.glob("pip-*.whl"), key=lambda path: path.stat().st_mtime)
        offline = (
            "--no-index",
            f"--find-links={packages}",
            "--no-compile",
            f"--target={self.site}",
        )
        install = ("install", "--quiet", *offline, wheel, "pytest", "hypothesis")
        self.python("max", f"{pip}/pip", *install)

    def _download(self, to: Path, wheel: Path) -> None:
        """What the wheel and its tests need, and pip: for that Python, not for this one."""
        platforms = [f"--platform=manylinux{name}_aarch64" for name in ("2014", "_2_17", "_2_28")]
        target = ("--only-binary=:all:", "--implementation=cp", f"--python-version={self.version}")
        command = (sys.executable, "-m", "pip", "download", "--quiet", f"--dest={to}", *target)
        wanted = (str(wheel), "pip", "pytest", "hypothesis")
        run(*command, *platforms, "--platform=linux_aarch64", *wanted)

    def qemu(self, cpu: str, *command: str | Path, **environment: str) -> str:
        paths = {"PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"}
        return run(QEMU, "-L", self.root, "-cpu", cpu, *command, **paths, **environment)

    def python(self, cpu: str, *arguments: str | Path, **environment: str) -> str:
        program = self.root / f"usr/bin/python{self.version}"
        return self.qemu(cpu, program, *arguments, **environment)

    def pytest(self, cpu: str, *arguments: str | Path) -> str:
        options = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}")
        return self.python(cpu, *options, *arguments)


def check_levels(arm: ArmPython) -> str:
    for cpu, level in LEVELS.items():
        found = arm.python(cpu, "-c", "from edgemoe import _core; print(_core.selected_level())")
        if found.strip() != level:
            raise Failed(f"{cpu}: level {found.strip()} is chosen, not {level}")
    return ", ".join(f"{cpu}: {level}" for cpu, level in LEVELS.items())


def check_demo(arm: ArmPython) -> str:
    command = ("-m", "edgemoe", "run", "--memory", "min", "--temp", "0", "-n", "24")
    here = run(sys.executable, *command)
    if arm.python("cortex-a76", *command) != here:
        raise Failed("the demo model tells another story on ARM")
    return " ".join(here.split())[:60] + " ..."


def check_fingerprints(arm: ArmPython, short: bool) -> str:
    models = MODELS[:3] if short else MODELS
    cpus = ("cortex-a76",) if short else tuple(LEVELS)
    runs: tuple[tuple[str | Path, ...], ...] = (("24", *models), LONG_CONTEXT)
    for words in runs:
        here = run(sys.executable, "-c", FINGERPRINTS, *words)
        for cpu in cpus:
            if arm.python(cpu, "-c", FINGERPRINTS, *words) != here:
                raise Failed(f"logits on {cpu} differ from those computed here")
    return f"{len(models)} models on {', '.join(cpus)}"


def check_bench(arm: ArmPython) -> str:
    """The program that the wheel installs, which needs nothing of a system but its kernel."""
    words = ("fingerprint", MODELS[0], "--threads", "2", "--memory", "min")
    program = arm.site / "bin/edgemoe-bench"
    prints = {run(QEMU, "-cpu", cpu, program, *words).split('"')[3] for cpu in LEVELS}
    here = run(Path(sys.executable).parent / "edgemoe-bench", *words).split('"')[3]
    if prints != {here}:
        raise Failed(f"edgemoe-bench: {prints} on ARM, {here} here")
    return here


def check_pytest(arm: ArmPython) -> str:
    tests = ROOT / "tests/python"
    for cpu in LEVELS:
        arm.pytest(cpu, tests / "test_one_answer.py", "-k", ONE_ANSWER)
    names = ("golden", "quant", "text_tokenizer", "text_vectors", "text_vocabularies")
    output = arm.pytest("max", *(tests / f"test_{name}.py" for name in names))
    return output.strip().splitlines()[-1]


def check_kernels() -> str:
    """The driver that compares every level with scalar code, built by Debian's cross compiler."""
    driver = ROOT / "build/aarch64/tests/cpp/edgemoe_tests"
    cmake = Path(sys.executable).parent / "cmake"
    tools = {"PATH": f"{cmake.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    run(cmake, "--preset", "aarch64", "-S", ROOT, **tools)
    run(cmake, "--build", driver.parent.parent.parent, **tools)
    return run(QEMU, "-cpu", "max", driver, "at every level").strip().splitlines()[-1]


def choose_wheel(version: str, folder: Path) -> Path:
    tag = tag_of(version)
    wheels = sorted(folder.glob(f"edgemoe-{project_version()}-{tag}-{tag}-*aarch64.whl"))
    if not wheels:
        raise Failed(f"no wheel of Python {version} for aarch64 in {folder}")
    return wheels[-1].resolve()


def check_wheel(wheel: Path, short: bool) -> None:
    arm = ArmPython(wheel)
    print(f"ok installed: {wheel.name}", flush=True)
    print("ok level of each CPU:", check_levels(arm), flush=True)
    print("ok demo model:", check_demo(arm), flush=True)
    print("ok same bits as here:", check_fingerprints(arm, short), flush=True)
    print("ok static edgemoe-bench:", check_bench(arm), flush=True)
    if not short:
        print("ok tests:", check_pytest(arm), flush=True)


def check_programs(short: bool) -> None:
    needed = {QEMU: "qemu-user-static"}
    if not short:
        needed[CROSS_COMPILER] = "g++-aarch64-linux-gnu"
    for program, package in needed.items():
        if shutil.which(program) is None:
            raise Failed(f"{program} is missing (Debian: apt-get install {package})")


def tags_in(folder: Path) -> set[str]:
    return {wheel.name.split("-")[2] for wheel in folder.glob("edgemoe-*aarch64.whl")}


def tag_of(version: str) -> str:
    return f"cp{version.replace('.', '')}"


def other_versions(own: str, folder: Path) -> list[str]:
    tags = tags_in(folder)
    return [name for name in DEBIAN_RELEASES if name != own and tag_of(name) in tags]


def untested(folder: Path) -> list[str]:
    """Tags of wheels whose Python is in no Debian release."""
    return sorted(tags_in(folder) - {tag_of(version) for version in DEBIAN_RELEASES})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", choices=DEBIAN_RELEASES, dest="versions")
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist", metavar="DIR")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    own = quick_version() or "3.11"
    others = [] if arguments.short else other_versions(own, arguments.wheels)
    try:
        check_programs(arguments.short)
        if not arguments.short:
            print("ok kernels of every level:", check_kernels(), flush=True)
        for version in arguments.versions or [own, *others]:
            wheel = choose_wheel(version, arguments.wheels)
            check_wheel(wheel, short=arguments.short or version != own)
        for tag in untested(arguments.wheels):
            print(f"not run: {tag}, no Debian release has that Python for ARM", flush=True)
    except NoPackagesError as error:
        print(f"test_arm.py: {error}", file=sys.stderr)
        return NO_PACKAGES_STATUS
    except Failed as error:
        print(f"test_arm.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
