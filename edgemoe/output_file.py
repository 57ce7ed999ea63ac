"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from edgemoe.errors import ReadError


@contextmanager
def output_file(path: str) -> Iterator[BinaryIO]:
    """A file to write; it takes the name `path` when the block ends, and vanishes if it raises.

    A device or a pipe is written directly. Raises ReadError when the system refuses.
    """
    target = os.path.realpath(path)
    try:
        if os.path.exists(target) and not os.path.isfile(target):
            with open(target, "wb") as device:
                yield device
            return
        folder, name = os.path.split(target)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name[:64]}.", delete=False) as file:
            try:
                yield file  # type: ignore[misc]
                file.flush()
                os.chmod(file.name, _mode(target))
                os.replace(file.name, target)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        if isinstance(error, ReadError):  # of whoever writes, not of this file
            raise
        raise ReadError(f"{path}: cannot be written: {error.strerror or error}") from None


def _mode(path: str) -> int:
    """The permissions of the file that is replaced, or those of a new one."""
    if os.path.exists(path):
        return os.stat(path).st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
