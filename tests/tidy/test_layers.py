"""Each folder uses only what layers.toml allows; the architecture page says the same."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from sources import ROOT, tracked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LAYERS = tomllib.loads((ROOT / "tests/tidy/layers.toml").read_text())
INCLUDE = re.compile(r'^#include "([^"/]+)/', re.MULTILINE)
BARE_INCLUDE = re.compile(r'^#include "([^"/]+)"', re.MULTILINE)
ANY_INCLUDE = re.compile(r'^#include [<"]([^>"]+)[>"]', re.MULTILINE)
CPP = (".h", ".cpp", ".def")
# What a file that is built for one instruction set may include: nothing with code that the linker
# could share with the common path.
ISA_INCLUDE = re.compile(
    r"immintrin\.h|arm_neon\.h|cstdint|cstddef|base/half\.h|quant/[a-z_]+\.(h|def)"
    r"|kernels/kernel_table\.h|kernels/levels\.h|kernels/(generic|x86|arm)/[a-z0-9_]+\.inl\.h"
)


def folders_of(area: str) -> set[str]:
    """The folders with sources in csrc/ or edgemoe/."""
    paths = [path.relative_to(ROOT).parts for path in tracked(*CPP, ".py", ".gguf")]
    return {parts[1] for parts in paths if parts[0] == area and len(parts) > 2}


def files_in(folder: str, *suffixes: str) -> list[Path]:
    return [path for path in tracked(*suffixes) if path.is_relative_to(ROOT / folder)]


def test_every_folder_has_its_line() -> None:
    assert folders_of("csrc") == set(LAYERS["csrc"])
    assert folders_of("edgemoe") == set(LAYERS["edgemoe"]) - {"interface"}


def test_the_architecture_page_shows_every_line() -> None:
    page = " ".join((ROOT / "docs/architecture.md").read_text().split())
    for area, folders in LAYERS.items():
        for name, folder in folders.items():
            assert folder["owns"] in page, f"docs/architecture.md lacks the line of {area}/{name}"


@pytest.mark.parametrize("folder", sorted(LAYERS["csrc"]))
def test_includes_go_to_the_left(folder: str) -> None:
    allowed = {folder, *LAYERS["csrc"][folder]["uses"]}
    for path in files_in(f"csrc/{folder}", *CPP):
        used = set(INCLUDE.findall(path.read_text()))
        assert used <= allowed, f"{path.relative_to(ROOT)} includes {used - allowed}"


def test_no_two_folders_use_each_other() -> None:
    for name, folder in LAYERS["csrc"].items():
        for used in folder["uses"]:
            assert name not in LAYERS["csrc"][used]["uses"], f"{name} and {used}"


@pytest.mark.parametrize("folder", ["bench", "tests"])
def test_programs_use_the_core_and_not_the_python_module(folder: str) -> None:
    allowed = set(LAYERS["programs"][folder]["uses"])
    for path in files_in(folder, *CPP):
        used = set(INCLUDE.findall(path.read_text())) & set(LAYERS["csrc"])
        assert used <= allowed, f"{path.relative_to(ROOT)} includes {used - allowed}"


def test_every_include_in_csrc_names_its_folder() -> None:
    for path in files_in("csrc", *CPP):
        bare = BARE_INCLUDE.findall(path.read_text())
        assert not bare, f"{path.relative_to(ROOT)} includes {bare}"


def test_instruction_set_files_include_nothing_that_could_leak() -> None:
    files = [
        path
        for folder in ("x86", "arm", "generic")
        for path in files_in(f"csrc/kernels/{folder}", *CPP)
    ]
    assert files
    for path in files:
        for name in ANY_INCLUDE.findall(path.read_text()):
            assert ISA_INCLUDE.fullmatch(name), f"{path.relative_to(ROOT)} includes {name}"


def edgemoe_imports(source: str) -> set[str]:
    """The parts of edgemoe that a module imports: "errors", "text", "cli"."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by the full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("edgemoe.")}
    return found


def layer_of(part: str) -> str:
    return part if part in LAYERS["edgemoe"] and part != "demo" else "interface"


@pytest.mark.parametrize("layer", sorted(LAYERS["edgemoe"]))
def test_imports_go_to_the_left(layer: str) -> None:
    uses = set(LAYERS["edgemoe"][layer]["uses"])
    for path in files_in("edgemoe", ".py"):
        parts = path.relative_to(ROOT / "edgemoe").parts
        if layer_of(parts[0] if len(parts) > 1 else "") != layer or path.name == "__main__.py":
            continue
        for part in edgemoe_imports(path.read_text()):
            allowed = part in uses or layer_of(part) in uses | {layer}
            assert allowed, f"{path.relative_to(ROOT)} imports edgemoe.{part}"


def test_forbidden_imports_are_found() -> None:
    source = "import edgemoe.cli\nfrom edgemoe import model\nfrom edgemoe.errors import ReadError\n"
    assert edgemoe_imports(source) == {"cli", "model", "errors"}
    with pytest.raises(AssertionError, match="full name"):
        edgemoe_imports("from .errors import ReadError\n")
