"""The exceptions of edgemoe: one class for each error code of the C++ core.

Every message is one line and says what happened, where, and what to do about it.
"""

from __future__ import annotations


class EdgemoeError(Exception):
    """Base of all errors that edgemoe raises on purpose."""

    code = "internal"


class ReadError(EdgemoeError, OSError):
    """The system refused or failed an open or a read."""

    code = "io"


class ModelFormatError(EdgemoeError):
    """A file is damaged or is not what it claims to be."""

    code = "format"


class UnsupportedModelError(EdgemoeError):
    """A file is well formed but names something that this version does not know."""

    code = "unsupported"


class MemoryBudgetError(EdgemoeError, MemoryError):
    """The memory budget cannot hold what was asked for."""

    code = "budget"


class ArgumentError(EdgemoeError, ValueError):
    """The caller passed a value outside the documented range."""

    code = "argument"


class OperationCancelledError(EdgemoeError):
    """The caller asked to stop."""

    code = "cancelled"


class InternalError(EdgemoeError):
    """A bug of edgemoe; please report it."""

    code = "internal"


_CLASSES: tuple[type[EdgemoeError], ...] = (
    ReadError,
    ModelFormatError,
    UnsupportedModelError,
    MemoryBudgetError,
    ArgumentError,
    OperationCancelledError,
    InternalError,
)


def error_class(code: str) -> type[EdgemoeError]:
    """The exception class for a C++ error code name such as "io" or "format"."""
    for candidate in _CLASSES:
        if candidate.code == code:
            return candidate
    return InternalError
