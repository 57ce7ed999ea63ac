"""Log-probabilities of a base model, to compare others with: in a file or in memory.

A row holds one scored position:

    check   uint32   CRC-32 of the rest of the row
    best    uint32   the likeliest token
    target  float64  log-probability of the token that came
    step    float32  nats
    codes   uint16 [vocabulary]

Token i has the log-probability step * codes[i] plus what makes the probabilities add up to one.
`step` spreads the codes over the row from its greatest log-probability down to the least, 48 nats
at most (what is less likely than e^-48 counts as that). So a log-probability is off by at most
48 / 65535 / 2 = 0.0004 nats, and a divergence by that times the mean of |log p/q|. Because rows are
normalised when they are read, the divergence of a model from itself is below step^2 / 8 < 1e-7;
with float16 it was up to 4e-4.

A file starts with the magic, a version, the length and CRC-32 of a JSON header, and the header
(vocabulary, context, and for each text its fingerprint and number of rows); then come the rows of
one text after another. It is written whole or not at all, and read a few rows at a time.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ArgumentError, ModelFormatError, ReadError, UnsupportedModelError
from edgemoe.output_file import output_file

Rows = npt.NDArray[np.void]

MOST_NATS = 48.0
_STEPS = 65535
_MAGIC = b"EDGEBASE"
_VERSION = 1
_PREFIX = struct.Struct("<8sIII")  # magic, version, header bytes, CRC-32 of the header
_MOST_HEADER_BYTES = 1 << 24
_MOST_VOCABULARY = 1 << 24


@dataclass(frozen=True)
class ScoredText:
    """`fingerprint` is of the ids that are scored and of what is put before them."""

    fingerprint: str
    rows: int


@dataclass(frozen=True)
class BaseKey:
    """What has to be the same for two models to be compared."""

    vocabulary: int
    context: int
    texts: tuple[ScoredText, ...]


def row_type(vocabulary: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("check", "<u4"),
            ("best", "<u4"),
            ("target", "<f8"),
            ("step", "<f4"),
            ("codes", "<u2", (vocabulary,)),
        ]
    )


def _checks(rows: Rows) -> npt.NDArray[np.uint32]:
    """The CRC-32 of each row, its own field left out."""
    data = rows.view(np.uint8).reshape(len(rows), -1)[:, 4:]
    return np.array([zlib.crc32(row.data) for row in data], dtype=np.uint32)


def encode_rows(
    below_top: npt.NDArray[np.float32],
    best: npt.NDArray[np.int64],
    target: npt.NDArray[np.float64],
) -> Rows:
    """Rows of logits minus the greatest of their row; `target` are log-probabilities."""
    rows = np.zeros(len(below_top), dtype=row_type(below_top.shape[1]))
    # The greatest is 0, so the least is what the steps go down to.
    least = np.maximum(below_top.min(axis=1), np.float32(-MOST_NATS))
    step = -least / np.float32(_STEPS)
    rows["best"] = best
    rows["target"] = target
    rows["step"] = step
    codes = np.maximum(below_top, least[:, None])
    codes /= np.where(step > 0, step, np.float32(1))[:, None]
    codes += np.float32(_STEPS)
    rows["codes"] = np.rint(codes, out=codes)
    rows["check"] = _checks(rows)
    return rows


def decode_rows(rows: Rows) -> npt.NDArray[np.float32]:
    """Log-probabilities minus the greatest of their row."""
    below_top = rows["codes"].astype(np.float32)
    below_top -= np.float32(_STEPS)
    below_top *= rows["step"][:, None]
    return below_top


class RowReader(Protocol):
    """Hands out the rows of a text from its start."""

    def read(self, count: int) -> Rows: ...


class BaseRows(Protocol):
    """The rows of a base, by text."""

    def of(self, text: ScoredText) -> RowReader: ...


class RowWriter(Protocol):
    """Takes the rows of all texts, one text after another."""

    def write(self, rows: Rows) -> None: ...


class _MemoryRows:
    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = parts
        self._part = self._at = 0

    def read(self, count: int) -> Rows:
        pieces = []
        while count > 0:
            part = self._parts[self._part]
            piece = part[self._at : self._at + count]
            pieces.append(piece)
            count -= len(piece)
            self._at += len(piece)
            if self._at == len(part):
                self._part, self._at = self._part + 1, 0
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class MemoryBase:
    """The rows of a base model in memory: two bytes for each entry of the vocabulary and token.

    base = MemoryBase()
    measure_perplexity(reference, text, save_base=base)
    measure_perplexity(candidate, text, base=base)
    """

    def __init__(self) -> None:
        self._key: BaseKey | None = None
        self._parts: list[Rows] = []
        self._firsts: dict[str, int] = {}  # part that a text starts with, by fingerprint

    @contextmanager
    def saving(self, key: BaseKey) -> Iterator[RowWriter]:
        """Drops what was there; rows that come must not join the end of a text with another."""
        self._key, self._parts, self._firsts = None, [], {}
        yield self
        at = part = 0
        for text in key.texts:
            self._firsts.setdefault(text.fingerprint, part)
            end = at + text.rows
            while at < end:
                at += len(self._parts[part])
                part += 1
        self._key = key

    def write(self, rows: Rows) -> None:
        self._parts.append(rows)

    @contextmanager
    def reading(self, key: BaseKey) -> Iterator[BaseRows]:
        """Raises ArgumentError when nothing was saved, or something else."""
        if self._key is None:
            raise ArgumentError("the base is empty; pass it as save_base first")
        _require_same("the base", self._key, key)
        yield _MemoryBaseRows(self._parts, self._firsts)


class _MemoryBaseRows:
    def __init__(self, parts: Sequence[Rows], firsts: dict[str, int]) -> None:
        self._parts = parts
        self._firsts = firsts

    def of(self, text: ScoredText) -> RowReader:
        return _MemoryRows(self._parts[self._firsts[text.fingerprint] :])


def _require_same(name: str, saved: BaseKey, wanted: BaseKey) -> None:
    if saved.vocabulary != wanted.vocabulary:
        raise ArgumentError(
            f"{name}: was made with a vocabulary of {saved.vocabulary} tokens, and the model has "
            f"{wanted.vocabulary}; only models with the same vocabulary can be compared"
        )
    if saved.context != wanted.context:
        raise ArgumentError(
            f"{name}: was made with windows of {saved.context} tokens, not {wanted.context}; give "
            f"--context {saved.context}"
        )
    known = {(text.fingerprint, text.rows) for text in saved.texts}
    for index, text in enumerate(wanted.texts):
        if (text.fingerprint, text.rows) not in known:
            which = "" if len(wanted.texts) == 1 else f" (text {index + 1} is not in it)"
            raise ArgumentError(
                f"{name}: was made from another text, tokenizer or choice of windows{which}; make "
                "it again from this text"
            )


class BaseFile:
    """The rows of a base model in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def saving(self, key: BaseKey) -> Iterator[RowWriter]:
        """Raises ReadError when the file cannot be written; nothing is left of it then."""
        header = json.dumps(asdict(key)).encode()
        with output_file(str(self._path)) as file:
            file.write(_PREFIX.pack(_MAGIC, _VERSION, len(header), zlib.crc32(header)) + header)
            yield _FileWriter(file)

    @contextmanager
    def reading(self, key: BaseKey) -> Iterator[BaseRows]:
        """Raises ReadError when it cannot be read, ModelFormatError when it is damaged,
        UnsupportedModelError when it is of a later version, ArgumentError when it is of something
        else."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self._path.open("rb"))
            except OSError as error:
                raise ReadError(
                    f"{self._path}: cannot be read ({error.strerror or error}); write it with "
                    "--save-kl-base"
                ) from None
            saved, start = self._read_header(file)
            _require_same(str(self._path), saved, key)
            yield _FileBaseRows(self._path, file, saved, start)

    def _read_header(self, file: BinaryIO) -> tuple[BaseKey, int]:
        prefix = file.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size or prefix[: len(_MAGIC)] != _MAGIC:
            raise ModelFormatError(
                f"{self._path}: no file of log-probabilities; write one with --save-kl-base"
            )
        _, version, size, check = _PREFIX.unpack(prefix)
        if version != _VERSION:
            raise UnsupportedModelError(
                f"{self._path}: has version {version} of the format and this edgemoe reads "
                f"{_VERSION}; write it again with --save-kl-base"
            )
        header = file.read(size) if size <= _MOST_HEADER_BYTES else b""
        if len(header) != size or zlib.crc32(header) != check:
            raise self._damage("its header")
        key = self._key_of(json.loads(header))
        rows = sum(text.rows for text in key.texts)
        start = _PREFIX.size + size
        expected = start + rows * row_type(key.vocabulary).itemsize
        actual = os.fstat(file.fileno()).st_size
        if actual != expected:
            raise self._damage(f"it has {actual} bytes and should have {expected}")
        return key, start

    def _key_of(self, header: Any) -> BaseKey:
        try:
            texts = tuple(
                ScoredText(str(text["fingerprint"]), int(text["rows"])) for text in header["texts"]
            )
            key = BaseKey(int(header["vocabulary"]), int(header["context"]), texts)
        except (KeyError, TypeError, ValueError):
            raise self._damage("its header") from None
        if not 0 < key.vocabulary <= _MOST_VOCABULARY or any(text.rows <= 0 for text in texts):
            raise self._damage("its header")
        return key

    def _damage(self, where: str) -> ModelFormatError:
        return ModelFormatError(
            f"{self._path}: damaged: {where}; write it again with --save-kl-base"
        )


class _FileWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, rows: Rows) -> None:
        self._file.write(rows.tobytes())


class _FileBaseRows:
    def __init__(self, path: Path, file: BinaryIO, key: BaseKey, start: int) -> None:
        self._path = path
        self._file = file
        self._type = row_type(key.vocabulary)
        self._starts: dict[str, int] = {}
        for text in key.texts:
            self._starts.setdefault(text.fingerprint, start)
            start += text.rows * self._type.itemsize

    def of(self, text: ScoredText) -> RowReader:
        try:
            self._file.seek(self._starts[text.fingerprint])
        except OSError as error:
            raise self._unreadable(error) from None
        return self

    def read(self, count: int) -> Rows:
        try:
            at = self._file.tell()
            data = self._file.read(count * self._type.itemsize)
        except OSError as error:
            raise self._unreadable(error) from None
        rows = np.frombuffer(data, dtype=self._type, count=len(data) // self._type.itemsize)
        if len(rows) != count or not np.array_equal(_checks(rows), rows["check"]):
            raise ModelFormatError(
                f"{self._path}: damaged: the rows at byte {at}; write it again with --save-kl-base"
            )
        return rows

    def _unreadable(self, error: OSError) -> ReadError:
        return ReadError(f"{self._path}: cannot be read: {error.strerror or error}")
