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
    tomllib = pytest.importorskip("tomli")

LAYERS = tomllib.loads((ROOT / "tests/tidy/layers.toml").read_text())
INCLUDE = re.compile(r'^#include "([^"/]+)/', re.MULTILINE)


def cpp_folders() -> list[Path]:
    return sorted(path for path in (ROOT / "csrc").iterdir() if path.is_dir())


def test_every_folder_has_its_line() -> None:
    assert [path.name for path in cpp_folders()] == sorted(LAYERS["csrc"])


@pytest.mark.parametrize("folder", [path.name for path in cpp_folders()])
def test_includes_go_to_the_left(folder: str) -> None:
    allowed = {folder, *LAYERS["csrc"][folder]["uses"]}
    for path in tracked(".h", ".cpp", ".def"):
        if not path.is_relative_to(ROOT / "csrc" / folder):
            continue
        used = set(INCLUDE.findall(path.read_text()))
        assert used <= allowed, f"{path.relative_to(ROOT)} includes {used - allowed}"


def test_every_include_in_csrc_names_its_folder() -> None:
    for path in tracked(".h", ".cpp"):
        if path.is_relative_to(ROOT / "csrc"):
            bare = re.findall(r'^#include "([^"/]+)"', path.read_text(), re.MULTILINE)
            assert not bare, f"{path.relative_to(ROOT)} includes {bare}"


def edgemoe_imports(path: Path) -> set[str]:
    """Modules of edgemoe that a file imports, as "errors" or "text.bpe"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "edgemoe":
                names = [f"edgemoe.{alias.name}" for alias in node.names]
        found |= {name[len("edgemoe.") :] for name in names if name.startswith("edgemoe.")}
    return found


def test_text_imports_only_errors() -> None:
    allowed = {"text", *LAYERS["edgemoe"]["text"]["uses"]}
    for path in (ROOT / "edgemoe/text").glob("*.py"):
        used = {name.split(".")[0] for name in edgemoe_imports(path)}
        assert used <= allowed, f"{path.name} imports {used - allowed}"


def test_nothing_but_the_entry_points_uses_the_command_line() -> None:
    for path in (ROOT / "edgemoe").rglob("*.py"):
        inside = path.is_relative_to(ROOT / "edgemoe/cli") or path.name == "__main__.py"
        used = {name.split(".")[0] for name in edgemoe_imports(path)}
        assert inside or "cli" not in used, path.relative_to(ROOT)


def test_the_architecture_page_shows_every_line() -> None:
    page = " ".join((ROOT / "docs/architecture.md").read_text().split())
    for area, folders in LAYERS.items():
        for name, folder in folders.items():
            assert folder["owns"] in page, f"docs/architecture.md lacks the line of {area}/{name}"
