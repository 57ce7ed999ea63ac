"""Tests of the instruction-set levels have names by which those of other machines are chosen.

tests/arm runs the C++ tests "at every level" under qemu-user. A test that goes over the levels and
is named otherwise would not run on ARM.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = "at every level"
# They ask for levels and compare nothing of theirs: tests of the table itself, run on ARM or not.
OF_THE_TABLE = {
    "the scalar level is always available and levels can be chosen by name",
    "every level has every entry",
}
# Functions that run what they are given on each level.
OVER_LEVELS = re.compile(
    r"available_tables\(\)|check_(levels|attend|product|type|quantize|in_place|float_operation)"
    r"(_shapes)?\("
)
CASE = re.compile(r'^TEST\("([^"]*)"\) \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)


def cases_over_levels() -> list[str]:
    names = []
    for path in sorted((ROOT / "tests/cpp").glob("*_test.cpp")):
        text = path.read_text(encoding="utf-8")
        if "available_tables()" in text:
            names += [name for name, body in CASE.findall(text) if OVER_LEVELS.search(body)]
    return names


def test_tests_that_go_over_the_levels_are_run_on_other_machines_too() -> None:
    names = cases_over_levels()
    assert len(names) > 15, names
    assert [name for name in names if CHOSEN not in name and name not in OF_THE_TABLE] == []


def test_every_level_is_run_by_the_tests_of_other_machines() -> None:
    for script in ("tests/arm/test_arm_levels.py", "tools/test_arm.py"):
        assert f'"{CHOSEN}"' in (ROOT / script).read_text(encoding="utf-8")
