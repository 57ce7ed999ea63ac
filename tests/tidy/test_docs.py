"""The documents keep what they promise: commands, links, and nothing of one machine."""

from __future__ import annotations

import re

import pytest
from sources import ROOT, tracked

README = (ROOT / "README.md").read_text()
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")
# A path in backquotes, from any folder on; headers of the kernel are not ours.
QUOTED_PATH = re.compile(r"`((?!linux/)(?:[\w.-]+/)+[\w.-]+\.(?:cpp|h|def|py|toml|cmake|md|gguf))`")
FORBIDDEN = (
    re.compile(r"/work/|/home/\w|/root/"),
    re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b"),
)


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_readme_has_its_two_commands(name: str) -> None:
    assert README.count(f"<!-- command: {name} -->\n```sh\n") == 1


def test_links_lead_to_files() -> None:
    for path in tracked(".md"):
        for target in LINK.findall(path.read_text()):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links {target}"


def test_quoted_paths_are_files() -> None:
    suffixes = (".cpp", ".h", ".def", ".py", ".toml", ".cmake", ".md", ".gguf")
    files = [path.as_posix() for path in tracked(*suffixes)]
    for path in tracked(".md"):
        for name in QUOTED_PATH.findall(path.read_text()):
            known = any(file.endswith(f"/{name}") for file in files)
            assert known, f"{path.relative_to(ROOT)} names {name}"


def test_nothing_of_one_machine() -> None:
    for path in tracked(".md", ".py", ".cpp", ".h", ".toml", ".json", ".cmake", ".txt"):
        if path.name == "test_docs.py":
            continue
        text = path.read_text()
        for pattern in FORBIDDEN:
            found = pattern.search(text)
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]!r}"


def test_every_command_of_the_cli_is_in_the_readme() -> None:
    for path in (ROOT / "edgemoe/cli").glob("*.py"):
        if "@click.command()" in path.read_text():
            assert f"edgemoe {path.stem}" in README, path.stem


def test_records_of_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
