"""Objects built for one instruction set must not leak code into the common path.

The linker keeps one copy of an inline function or template that several objects define. If that
copy came from a file built for AVX-512, every CPU would run it. So such objects define nothing but
their `fill` function, and call nothing from the standard library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / "csrc" / "kernels", ROOT / "csrc" / "quant"]
EXPORTS = ("edgemoe::kernels::fill_", "edgemoe::fill_quantizers_")
# Folder of the sources -> prefix of the compiler and of nm.
TOOL_PREFIX = {"x86": "", "arm": "aarch64-linux-gnu-"}
BASE_FLAGS = ["-std=c++20", f"-I{ROOT / 'csrc'}", "-ffp-contract=off", "-fPIC"]
# DW.ref.* are pointers that the compiler makes for exception tables: data without code.
HARMLESS_WEAK = re.compile(r"^DW\.ref\.")
# What `noexcept` turns an exception into; an ordinary function of the runtime library.
HARMLESS_CALLS = {"std::terminate()"}


def isa_sources() -> dict[str, list[str]]:
    """Source path -> flags, as cmake/isa_kernels.cmake lists them."""
    text = (ROOT / "cmake" / "isa_kernels.cmake").read_text(encoding="utf-8")
    calls = re.findall(r"edgemoe_isa_kernel\(\$\{target\}\s+(\S+)([^)]*)\)", text)
    return {source: flags.split() for source, flags in calls}


def tool_prefix(source: str) -> str:
    return TOOL_PREFIX[Path(source).parent.name]


def nm_lines(object_file: Path, prefix: str) -> list[tuple[str, str]]:
    """(type letter, demangled name) of each symbol."""
    command = [f"{prefix}nm", "--demangle", "--format=posix", str(object_file)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    symbols = []
    for line in output.splitlines():
        # "name type value size", where the name may contain spaces
        match = re.match(r"(?P<name>.*) (?P<type>\S)(?: [0-9a-f]+)* *$", line)
        assert match is not None, line
        symbols.append((match["type"], match["name"]))
    return symbols


def leaks(symbols: list[tuple[str, str]]) -> list[str]:
    """What is wrong with the symbols of an object, one sentence each."""
    found = []
    for kind, name in symbols:
        if kind in "wWvVu" and not HARMLESS_WEAK.match(name):
            found.append(f"weak symbol {name}: give it internal linkage")
        elif kind in "TDBRG" and not name.startswith(EXPORTS):
            found.append(f"exported symbol {name}: give it internal linkage")
        elif kind == "U" and name not in HARMLESS_CALLS and "std::" in name.split("(")[0]:
            found.append(f"call of {name}: no standard library in these files")
    return found


def compiled(source: str, flags: list[str], optimisation: str, directory: Path) -> Path:
    compiler = f"{tool_prefix(source)}g++"
    if compiler == "g++":
        compiler = os.environ.get("CXX", compiler)
    if shutil.which(compiler) is None:
        pytest.skip(f"no compiler {compiler}")
    target = directory / (Path(source).stem + ".o")
    command = [compiler, *BASE_FLAGS, optimisation, *flags, "-c", str(ROOT / source)]
    subprocess.run([*command, "-o", str(target)], check=True)
    return target


def built_object(source: str) -> Path | None:
    """The object of an existing build: of this machine's if EDGEMOE_BUILD_DIR names one."""
    build = os.environ.get("EDGEMOE_BUILD_DIR")
    if tool_prefix(source):
        cross_build = ROOT / "build/aarch64"
        build = str(cross_build) if cross_build.exists() else None
    if build is None:
        return None
    found = sorted(Path(build).rglob(f"{Path(source).name}.o"))
    assert found, f"no object of {source} under {build}: build the project first"
    return found[0]


def test_every_isa_file_is_listed_in_cmake() -> None:
    files = [
        path
        for parent in FOLDERS
        for child in TOOL_PREFIX
        for path in (parent / child).glob("*.cpp")
    ]
    assert {str(path.relative_to(ROOT)) for path in files} == set(isa_sources())


@pytest.mark.parametrize("source", sorted(isa_sources()))
@pytest.mark.parametrize("optimisation", ["-O0", "-O3"])
def test_isa_objects_leak_no_symbols(source: str, optimisation: str, tmp_path: Path) -> None:
    """Without optimisation too: there every inline function that is called becomes a symbol."""
    path = compiled(source, isa_sources()[source], optimisation, tmp_path)
    assert leaks(nm_lines(path, tool_prefix(source))) == []


@pytest.mark.parametrize("source", sorted(isa_sources()))
def test_built_isa_objects_leak_no_symbols(source: str) -> None:
    path = built_object(source)
    if path is None:
        pytest.skip("not built: EDGEMOE_BUILD_DIR is not set, or there is no build/aarch64")
    assert leaks(nm_lines(path, tool_prefix(source))) == []


def test_a_leak_is_found() -> None:
    symbols = [
        ("W", "float edgemoe::half_to_float(unsigned short)"),
        ("U", "std::__throw_length_error(char const*)"),
        ("T", "edgemoe::kernels::fill_avx2(edgemoe::kernels::KernelTable&)"),
        ("U", "edgemoe::extract_block(edgemoe::QuantType, std::byte const*)"),
    ]
    assert len(leaks(symbols)) == 2
