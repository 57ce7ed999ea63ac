"""SentencePiece vocabularies, spaces written as "▁": byte-pair encoding by score, or Unigram."""

from __future__ import annotations

import re
import struct
from enum import IntEnum

import sentencepiece

from edgemoe.errors import ModelFormatError
from edgemoe.text.replacements import Replacements
from edgemoe.text.vocabulary import RawVocabulary, TokenType, byte_token_value

SPACE_MARK = "\u2581".encode()

# Field numbers and enum values of sentencepiece_model.proto.
_MODEL_PIECE, _MODEL_TRAINER, _MODEL_NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_TRAINER_MODEL_TYPE, _TRAINER_BYTE_FALLBACK, _TRAINER_UNKNOWN = 3, 35, 40
_NORMALIZER_NAME, _NORMALIZER_PREFIX, _NORMALIZER_EXTRA, _NORMALIZER_ESCAPE = 1, 3, 4, 5
_PIECE_NORMAL, _PIECE_UNKNOWN, _PIECE_CONTROL, _PIECE_UNUSED, _PIECE_BYTE = 1, 2, 3, 5, 6

# User-defined tokens are matched before the model runs; what is left of them is ordinary.
_PIECE_TYPES = {
    TokenType.UNDEFINED: _PIECE_NORMAL,
    TokenType.NORMAL: _PIECE_NORMAL,
    TokenType.UNKNOWN: _PIECE_CONTROL,  # a model has one unknown token, set by its id
    TokenType.CONTROL: _PIECE_CONTROL,
    TokenType.USER_DEFINED: _PIECE_NORMAL,
    TokenType.UNUSED: _PIECE_UNUSED,
    TokenType.BYTE: _PIECE_BYTE,
}


class SpmKind(IntEnum):
    """Values of TrainerSpec.ModelType."""

    UNIGRAM = 1
    BPE = 2


class SpmModel:
    """Rebuilds the SentencePiece model of a vocabulary and runs it."""

    def __init__(
        self,
        raw: RawVocabulary,
        unknown: int,
        *,
        add_space_prefix: bool,
        remove_extra_whitespaces: bool,
        kind: SpmKind = SpmKind.BPE,
        replacements: Replacements | None = None,
    ) -> None:
        self._replacements = replacements
        self._add_space_prefix = add_space_prefix
        self._remove_extra_whitespaces = remove_extra_whitespaces
        try:
            self._processor = sentencepiece.SentencePieceProcessor(
                model_proto=_model_proto(raw, unknown, kind)
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
            raise ModelFormatError(
                f"SentencePiece refuses the vocabulary ({reason}); the file is damaged"
            ) from error

    def encode(self, text: str, *, starts_text: bool) -> list[int]:
        """Ids of `text`; `starts_text` is true at the beginning and after a special token."""
        if self._replacements is not None:
            text = self._replacements.apply(text)
        if self._remove_extra_whitespaces:
            text = re.sub(" +", " ", text.strip(" "))
            if not text:
                return []
        if starts_text and self._add_space_prefix:
            text = " " + text
        ids: list[int] = self._processor.encode(text)
        return ids


def spm_piece(text: bytes, kind: TokenType) -> bytes:
    """The bytes that a SentencePiece token stands for; special tokens are plain text."""
    if kind is TokenType.BYTE:
        return bytes([_byte_value(text)])
    if kind is TokenType.NORMAL:
        return text.replace(SPACE_MARK, b" ")
    if kind in (TokenType.UNUSED, TokenType.UNDEFINED):
        return b""
    return text


def _byte_value(text: bytes) -> int:
    value = byte_token_value(text)
    if value is None:
        raise ModelFormatError(
            f"tokenizer.ggml.tokens: {text[:32]!r} is marked as a byte but is not of the form "
            "<0xHH>; the file is damaged"
        )
    return value


def _model_proto(raw: RawVocabulary, unknown: int, kind_of_model: SpmKind) -> bytes:
    kinds = [_PIECE_TYPES[TokenType(kind)] for kind in raw.types.tolist()]
    kinds[unknown] = _PIECE_UNKNOWN
    parts = [
        _nested(
            _MODEL_PIECE,
            _bytes_field(_PIECE_TEXT, text)
            + _float_field(_PIECE_SCORE, score)
            + _integer_field(_PIECE_TYPE, kind),
        )
        for text, score, kind in zip(raw.texts, raw.scores.tolist(), kinds, strict=True)
    ]
    byte_values = {
        _byte_value(text)
        for text, kind in zip(raw.texts, kinds, strict=True)
        if kind == _PIECE_BYTE
    }
    trainer = (
        _integer_field(_TRAINER_MODEL_TYPE, kind_of_model)
        + _integer_field(_TRAINER_BYTE_FALLBACK, int(len(byte_values) == 256))
        + _integer_field(_TRAINER_UNKNOWN, unknown)
    )
    # Prefix and runs of spaces are handled in encode(), fragment by fragment.
    normalizer = (
        _bytes_field(_NORMALIZER_NAME, b"identity")
        + _integer_field(_NORMALIZER_PREFIX, 0)
        + _integer_field(_NORMALIZER_EXTRA, 0)
        + _integer_field(_NORMALIZER_ESCAPE, 1)
    )
    parts.append(_nested(_MODEL_TRAINER, trainer))
    parts.append(_nested(_MODEL_NORMALIZER, normalizer))
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _float_field(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


_nested = _bytes_field
