"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from edgemoe.errors import ReadError


def is_written_directly(path: str) -> bool:
    """There is a device or a pipe, whose place no file can take.

    The path is asked as it is given: what /dev/stdout and /dev/fd/63 lead to may have no name.
    """
    return os.path.exists(path) and not os.path.isfile(path)


@contextmanager
def output_file(path: str) -> Iterator[BinaryIO]:
    """A file to write; it takes the name `path` when the block ends, and vanishes if it raises.

    A device or a pipe is written directly. Raises ReadError when the system refuses.
    """
    try:
        if is_written_directly(path):
            with open(path, "wb") as device:
                yield device
            return
        target = os.path.realpath(path)
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
        # Of whoever writes, not of this file; or whoever reads has seen enough.
        if isinstance(error, ReadError | BrokenPipeError):
            raise
        raise ReadError(f"{path}: cannot be written: {error.strerror or error}") from None


def _mode(path: str) -> int:
    """The permissions of the file that is replaced, or those of a new one."""
    if os.path.exists(path):
        return os.stat(path).st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
