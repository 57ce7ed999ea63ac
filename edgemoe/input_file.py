"""Files that are read whole: of a size that is sensible for what they are."""

from __future__ import annotations

import os

from edgemoe.errors import ReadError


def read_at_most(path: str | os.PathLike[str], most_bytes: int) -> bytes | None:
    """What the file holds; None when that is more than `most_bytes`, of which no more is read.

    Raises ReadError when the system refuses.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        reason = error.strerror or error
        raise ReadError(f"{os.fspath(path)}: cannot be read: {reason}") from None
    return data if len(data) <= most_bytes else None
