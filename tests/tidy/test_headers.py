"""C++ headers are contracts: each says what it is, stands alone, and imposes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sources import ROOT, tracked

HEADERS = tracked(".h")
# Parts of one translation unit; what they need is included before them.
INLINE_PART = re.compile(r"\.inl\.h$")
# Using-declarations and directives at the start of a line, outside any function.
USING = re.compile(r"^using (namespace )?[\w:]+;", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("header", HEADERS, ids=name_of)
def test_a_header_opens_with_what_it_is(header: Path) -> None:
    lines = header.read_text().splitlines()
    comment = [line for line in lines[: lines.index("#pragma once")] if line]
    assert comment, "a sentence above #pragma once says what the header is for"
    assert all(line.startswith("//") for line in comment)


@pytest.mark.parametrize("header", HEADERS, ids=name_of)
def test_a_header_imposes_no_names_on_who_includes_it(header: Path) -> None:
    assert not USING.search(header.read_text())


def test_the_library_never_prints_or_ends_the_process() -> None:
    calls = re.compile(r"\b(?:std::)?(?:abort|_?exit|printf|puts)\(|std::c(?:out|err|log)\b")
    for path in tracked(".h", ".cpp"):
        if path.is_relative_to(ROOT / "csrc"):
            code = re.sub(r"//.*", "", path.read_text())
            found = calls.search(code)
            assert found is None, f"{name_of(path)}: {found and found[0]}"


@pytest.mark.slow
def test_headers_compile_alone() -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no compiler {compiler}")
    pybind11 = pytest.importorskip("pybind11")
    python = sysconfig.get_path("include")
    folders = [ROOT / "csrc", ROOT / "bench", ROOT / "tests/cpp", pybind11.get_include(), python]
    flags = ["-std=c++20", "-fsyntax-only", *(f"-I{folder}" for folder in folders)]

    def problem(header: Path) -> str:
        command = [compiler, *flags, "-include", str(header), "-x", "c++", os.devnull]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    alone = [header for header in HEADERS if not INLINE_PART.search(header.name)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = dict(zip(map(name_of, alone), pool.map(problem, alone), strict=True))
    assert {name: text for name, text in problems.items() if text} == {}
