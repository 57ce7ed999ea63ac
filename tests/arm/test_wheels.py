"""What the wheels of dist/ and build/quick contain: no instruction above the baseline outside the
kernels that are chosen at run time, no symbol of a newer glibc than the tag promises, segments that
kernels with large pages can load, a static edgemoe-bench; and that the one of this machine and
Python runs.

Made by tools/build_wheels.py; without wheels there is nothing to test.
"""

from __future__ import annotations

import bisect
import platform
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WHEELS = [wheel for name in ("dist", "build/quick") for wheel in (ROOT / name).glob("*.whl")]
MAX_WHEEL_BYTES = 20_000_000
SEGMENT_ALIGNMENT = 65536
OBJDUMP = {"aarch64": "aarch64-linux-gnu-objdump", "x86_64": "objdump"}
# Above ARMv8.0: dot and matrix products, atomics of ARMv8.1, ordered loads and stores of ARMv8.3
# and 8.4, complex and rounding products, arithmetic of half floats, cryptography, tags, SVE, SME.
ARM_EXTENSION = re.compile(
    r"(?:[us]{1,2}dot|bfdot|[us]{1,2}mmla|bfmmla|cas[alp]*[bh]?|swp[al]*[bh]?|ldapu?rs?[bhw]?"
    r"|stlur[bh]?|(?:ld|st)(?:add|clr|eor|set|[su]max|[su]min)[al]*[bh]?|sqrdml[as]h|fcmla|fcadd"
    r"|fmls?l2?|aes\w+|sha\d\w+|st2?g|stz2?g|ldg|irg|cnt[bhwd]|rdvl|addvl|addsvl|rdsvl|smstart"
    r"|smstop)\s"
    r"|f(?!cvt)\w+\s+(?:v\d+\.[48]h|h\d+)|pmull2?\s+v\d+\.1q|\w+\s+\{?z[a\d][\d.\[]"
)
# Above SSE2: everything encoded with VEX or EVEX, SSE3 to SSE4.2, bit manipulation.
X86_EXTENSION = re.compile(
    r"v(?!er[rw]\s|m(?:call|clear|func|launch|ptrld|ptrst|read|resume|write|xoff|xon)\b)\w+\s|"
    r"(?:pshufb|palignr|pmadd\wbsw|phadd|pmulhrsw|psign|pabs|pmulld|pblend"
    r"|ptest|blend|round[sp]|popcnt|lzcnt|crc32|pcmpgtq|movbe|andn\s|bextr|bls|mulx|pdep|pext\s"
    r"|[sr]\w\wx\s|hadd|movs[hl]dup|movddup|insertps|pinsr[bdq]|pextr[bdq]|pmov[sz]x|pmuldq|pmin"
    r"|pmax|aes|sha\d)"
)
SSE2 = re.compile(r"p(?:min|max)(?:ub|sw)\s")
EXTENSION = {"aarch64": ARM_EXTENSION, "x86_64": X86_EXTENSION}
# Files that are compiled for a level, and run where the CPU has it.
LEVEL_SOURCE = re.compile(r"(?:kernels|quantize)_(?:avx|neon|dotprod|i8mm)\w*\.cpp")
# The compiler's atomics, which ask the CPU themselves, and its unwinder, which restores registers
# of SVE and SME and tags of memory where a frame says that it used them.
ASKS_ITSELF = re.compile(r"__aarch64_\w+|init_have_lse_atomics|\w*libunwind\w*|_Unwind_\w+")

pytestmark = pytest.mark.skipif(not WHEELS, reason="no wheels: tools/build_wheels.py makes them")


def run(*command: str | Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is missing, so the wheels cannot be looked into (binutils)")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def machine_of(wheel: Path) -> str:
    return next(machine for machine in OBJDUMP if machine in wheel.name)


@pytest.fixture(params=WHEELS, ids=lambda wheel: wheel.name.split("-", 2)[2])
def wheel(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def unpacked(wheel: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def level_functions(library: Path) -> Iterator[range]:
    """Addresses of the code that only a CPU of its level runs, of the files of LEVEL_SOURCE."""
    symbols = []
    for line in run("readelf", "--symbols", "--wide", library).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[0].endswith(":") and fields[0] != "Num:":
            symbols.append(
                (int(fields[1], 16), int(fields[2], 0), fields[3], fields[4], fields[-1])
            )
    starts = sorted({value for value, *_, kind, _, _ in symbols if kind == "FUNC"})
    source = ""
    for value, size, kind, binding, name in symbols:
        if kind == "FILE":
            source = Path(name).name
        of_level = binding == "LOCAL" and LEVEL_SOURCE.match(source)
        fills = re.search(r"\d+fill_(?:quantizers_)?(?:avx|neon|dotprod|i8mm)\w+R", name)
        if kind == "FUNC" and (of_level or fills or ASKS_ITSELF.match(name)):
            following = starts[bisect.bisect_right(starts, value) :]  # assembler tells no size
            yield range(value, value + size if size or not following else following[0])


def extensions(library: Path, machine: str) -> Iterator[tuple[int, str]]:
    """(address, instruction) of everything above the baseline."""
    command = (OBJDUMP[machine], "--disassemble", "--no-show-raw-insn", "--wide", library)
    for line in run(*command).splitlines():
        match = re.match(r"\s*([0-9a-f]+):\t(.*)", line)
        if match and EXTENSION[machine].match(match[2]) and not SSE2.match(match[2]):
            yield int(match[1], 16), match[2]


@pytest.mark.parametrize("pattern", ["edgemoe/_core*.so", "*.data/scripts/edgemoe-bench"])
def test_only_the_levels_go_beyond_the_baseline(wheel: Path, unpacked: Path, pattern: str) -> None:
    if "bench" in pattern and "manylinux" not in wheel.name:
        pytest.skip("holds the system's C library, which has functions for every CPU")
    (library,) = unpacked.glob(pattern)
    allowed = {address for part in level_functions(library) for address in part}
    found = list(extensions(library, machine_of(wheel)))
    assert len(found) > 100, "the levels are not in there, or this test is blind"
    assert [text for address, text in found if address not in allowed] == []


def test_segments_suit_large_pages(wheel: Path, unpacked: Path) -> None:
    if machine_of(wheel) != "aarch64":
        pytest.skip("x86-64 has pages of 4 KiB")
    programs = [*unpacked.glob("edgemoe/*.so"), *unpacked.glob("*.data/scripts/edgemoe-bench")]
    for program in programs:
        segments = run("readelf", "--segments", "--wide", program).splitlines()
        loads = [line.split() for line in segments if line.split()[:1] == ["LOAD"]]
        assert loads
        assert all(int(fields[-1], 16) >= SEGMENT_ALIGNMENT for fields in loads), program.name


def test_no_symbol_is_newer_than_the_tag(wheel: Path, unpacked: Path) -> None:
    tag = re.search(r"manylinux_2_(\d+)_", wheel.name)
    if tag is None:
        pytest.skip("not for other systems")
    (library,) = (unpacked / "edgemoe").glob("_core*.so")
    versions = re.findall(r"GLIBC_2\.(\d+)", run("readelf", "--version-info", library))
    assert versions
    assert max(map(int, versions)) <= int(tag[1])
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "--dynamic", library))
    assert all(re.match(r"lib(c|m|dl|rt|pthread)\.so|ld-linux", name) for name in needed), needed


def test_the_wheel_is_small_and_whole(wheel: Path, unpacked: Path) -> None:
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES
    assert list(unpacked.glob("edgemoe/demo/*.gguf"))
    (bench,) = unpacked.glob("*.data/scripts/edgemoe-bench")
    assert "INTERP" not in run("readelf", "--segments", "--wide", bench)


def test_the_wheel_of_this_python_runs_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    tag = f"-cp{sys.version_info.major}{sys.version_info.minor}-"
    if platform.machine() not in wheel.name or tag not in wheel.name:
        pytest.skip("for another machine or Python")
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv/bin"
    command = (scripts / "python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel)
    subprocess.run(command, check=True)
    run_there = partial(
        subprocess.run, cwd=tmp_path, env={"PATH": "", "EDGEMOE_CACHE": "none"}, check=True
    )
    words = ("run", "--memory", "min", "--temp", "0", "-n", "8")
    story = run_there((scripts / "edgemoe", *words), stdout=subprocess.PIPE).stdout
    assert len(story.split()) > 4
    run_there((scripts / "edgemoe-bench", "--help"), stdout=subprocess.DEVNULL)
