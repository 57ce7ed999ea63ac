"""The state of a profile that is being measured: whole at all times, so that a run can go on."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.bitwidth.array_file import read_arrays, write_arrays
from edgemoe.bitwidth.profile_file import decoded_meta, encoded_meta
from edgemoe.errors import ArgumentError, EdgemoeError

_FORMAT = "edgemoe-profile-part"
_VERSION = 1
_MOST_SHARE = 20  # saving takes that part of the time at most

Array = npt.NDArray[Any]


@dataclass
class PartState:
    """How far a stage got, and its arrays, which are the caller's to change."""

    stage: str
    done: int
    arrays: dict[str, Array]


class PartFile:
    """The file `path` of the run that `key` describes."""

    def __init__(self, path: str, key: Mapping[str, Any], save_seconds: float) -> None:
        self._path = path
        self._key = dict(key)
        self._save_seconds = save_seconds
        self._saved_at = time.monotonic()
        self._cost = 0.0

    def load(self) -> PartState | None:
        """What the last run left, None when there is nothing.

        Raises ArgumentError when it is of another run, ModelFormatError when it is damaged.
        """
        if not os.path.exists(self._path):
            return None
        try:
            arrays = read_arrays(self._path)
            meta = decoded_meta(self._path, arrays.pop("meta", None), _FORMAT, _VERSION)
        except EdgemoeError as error:
            raise type(error)(f"{error}; --force starts over") from None
        if meta.get("key") != self._key:
            raise ArgumentError(
                f"{self._path}: was left by a run with another model, text or options; give the "
                "same again to go on, another -o, or --force to start over"
            )
        copies = {name: np.array(value) for name, value in arrays.items()}
        return PartState(str(meta["stage"]), int(meta["done"]), copies)

    def save(self, stage: str, done: int, arrays: Mapping[str, Array]) -> None:
        """Writes the state when it is time. Raises ReadError when the system refuses."""
        now = time.monotonic()
        if now - self._saved_at < max(self._save_seconds, _MOST_SHARE * self._cost):
            return
        meta = {
            "format": _FORMAT,
            "version": _VERSION,
            "key": self._key,
            "stage": stage,
            "done": done,
        }
        write_arrays(self._path, {"meta": encoded_meta(meta), **arrays})
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - now

    def remove(self) -> None:
        """When it is not needed any more."""
        if os.path.exists(self._path):
            os.unlink(self._path)
