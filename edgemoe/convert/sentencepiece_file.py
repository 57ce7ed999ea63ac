"""What a SentencePiece model file says of its vocabulary: protobuf, read without its library."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgemoe.errors import ModelFormatError
from edgemoe.input_file import read_at_most

# Field numbers and values of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_MODEL_TYPE, _UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 3, 40, 41, 42, 43
_CHARSMAP, _DUMMY_PREFIX, _EXTRA_WHITESPACES = 2, 3, 4
UNIGRAM, BPE = 1, 2

_MAX_BYTES = 256 << 20
_MAX_PIECES = 1 << 22


@dataclass
class SentencePieceFile:
    """Pieces with score and type (as numbered in GGUF too), and how text is prepared."""

    path: Path
    texts: list[bytes] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    model_type: int = UNIGRAM
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


_Value = int | float | bytes


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """(field number, value) in file order. Raises ValueError or IndexError for damaged bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        value: _Value
        if kind == 0:
            value, place = _varint(data, place)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, place = _varint(data, place)
            if size is None or size > len(data) - place:
                raise ValueError
            raw = data[place : place + size]
            value = struct.unpack("<f", raw)[0] if kind == 5 else raw
            place += size
        yield tag >> 3, value


def _signed(value: _Value) -> int:
    """int32 fields are varints of 64 bits."""
    if not isinstance(value, int):
        raise ValueError
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError
    return value


def _add_piece(model: SentencePieceFile, data: bytes) -> None:
    text, score, kind = b"", 0.0, 1
    for number, value in _fields(data):
        if number == _PIECE_TEXT:
            text = _bytes(value)
        elif number == _PIECE_SCORE and isinstance(value, float):
            score = value
        elif number == _PIECE_TYPE:
            kind = _signed(value)
    model.texts.append(text)
    model.scores.append(score)
    model.types.append(kind)


def _read_trainer(model: SentencePieceFile, data: bytes) -> None:
    names = {
        _MODEL_TYPE: "model_type",
        _UNK_ID: "unk_id",
        _BOS_ID: "bos_id",
        _EOS_ID: "eos_id",
        _PAD_ID: "pad_id",
    }
    for number, value in _fields(data):
        if number in names:
            setattr(model, names[number], _signed(value))


def _read_normalizer(model: SentencePieceFile, data: bytes) -> None:
    for number, value in _fields(data):
        if number == _CHARSMAP:
            model.charsmap = _bytes(value)
        elif number == _DUMMY_PREFIX:
            model.add_dummy_prefix = _signed(value) != 0
        elif number == _EXTRA_WHITESPACES:
            model.remove_extra_whitespaces = _signed(value) != 0


def read_sentencepiece(path: Path) -> SentencePieceFile:
    """Raises ReadError and ModelFormatError naming the file."""
    data = read_at_most(path, _MAX_BYTES)
    model = SentencePieceFile(path)
    try:
        if data is None:
            raise ValueError
        for number, value in _fields(data):
            if number == _PIECES:
                _add_piece(model, _bytes(value))
            elif number == _TRAINER:
                _read_trainer(model, _bytes(value))
            elif number == _NORMALIZER:
                _read_normalizer(model, _bytes(value))
    except (ValueError, IndexError):
        raise ModelFormatError(f"{path}: is not a SentencePiece model, or is damaged") from None
    if not 0 < len(model.texts) <= _MAX_PIECES:
        raise ModelFormatError(f"{path}: holds no pieces; the file is damaged")
    return model
