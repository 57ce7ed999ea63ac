"""The exception classes mirror the error codes of the C++ core."""

from __future__ import annotations

import re
from pathlib import Path

from edgemoe import errors

_ERROR_SOURCE = Path(__file__).parents[2] / "csrc" / "base" / "error.cpp"


def test_every_core_error_code_has_a_class() -> None:
    codes = set(re.findall(r'return "([a-z]+)";', _ERROR_SOURCE.read_text(encoding="utf-8")))
    assert codes
    for code in codes:
        assert errors.error_class(code).code == code


def test_an_unknown_code_is_an_internal_error() -> None:
    assert errors.error_class("surprise") is errors.InternalError


def test_errors_are_also_the_python_errors_that_callers_expect() -> None:
    assert issubclass(errors.ArgumentError, ValueError)
    assert issubclass(errors.ReadError, OSError)
    assert issubclass(errors.MemoryBudgetError, MemoryError)
    assert str(errors.ReadError("model.gguf: short read")) == "model.gguf: short read"
