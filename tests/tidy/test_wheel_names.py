"""The wheels that the documents name are those that tools/build_wheels.py makes."""

from __future__ import annotations

import importlib
import re

import pytest
from sources import ROOT

DOCUMENTS = ("README.md", "docs/devices.md")


def test_documents_name_wheels_that_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    build = importlib.import_module("build_wheels")
    built = {
        build.wheel_name(version, machine)
        for version in build.VERSIONS
        for machine in build.MACHINES
    }
    for document in DOCUMENTS:
        named = set(re.findall(r"edgemoe-\S+\.whl", (ROOT / document).read_text()))
        assert named, f"{document} has no install line"
        assert named <= built, f"{document} names {named - built}"
