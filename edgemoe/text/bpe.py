"""Byte-pair encoding with merges, as GPT-2 and most later models use it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

import tokenizers
from tokenizers import models, pre_tokenizers

from edgemoe.errors import ArgumentError, ModelFormatError
from edgemoe.text.pre_tokenizers import PreTokenizer
from edgemoe.text.vocabulary import RawVocabulary, TokenType, byte_token_value

SPACE_MARK = "\u2581"

_PART_CHARACTERS = 1 << 16
_LINE_END_BETWEEN_LETTERS = re.compile(r"(?<=[A-Za-z])\n(?=[A-Za-z])")

# Tokens of these types are matched by their literal text only (see special_tokens.py); leaving
# them out of the model keeps ordinary text from ever turning into a control token.
_NOT_IN_MODEL = (TokenType.CONTROL, TokenType.UNKNOWN)


class BpeModel:
    """Runs the `tokenizers` library on the vocabulary and merges of a model file."""

    def __init__(
        self, raw: RawVocabulary, merges: Sequence[bytes], pre_tokenizer: PreTokenizer
    ) -> None:
        self._raw_utf8 = pre_tokenizer.raw_utf8
        self._cuts_lines = pre_tokenizer.cuts_lines
        ids = _model_vocabulary(raw)
        self._tokenizer = tokenizers.Tokenizer(
            models.BPE(
                vocab=ids,
                merges=_usable_merges(merges, ids),
                ignore_merges=pre_tokenizer.ignore_merges,
                byte_fallback=pre_tokenizer.raw_utf8,
            )
        )
        self._tokenizer.pre_tokenizer = word_splitter(pre_tokenizer)

    def encode(self, text: str) -> list[int]:
        if self._raw_utf8:
            text = text.replace(" ", SPACE_MARK)
        if not self._cuts_lines:
            return self._encode_part(text)
        ids: list[int] = []
        for part in parts_of_lines(text):
            ids += self._encode_part(part)
        return ids

    def _encode_part(self, text: str) -> list[int]:
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        except Exception as error:  # the library raises bare Exception
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ArgumentError(
                f"the text cannot be tokenized ({reason}); pass it in smaller parts"
            ) from error


def word_splitter(pre_tokenizer: PreTokenizer) -> pre_tokenizers.Sequence:
    """Cuts text into the words that are merged one by one."""
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        for pattern in pre_tokenizer.patterns
    ]
    if not pre_tokenizer.raw_utf8:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)


def parts_of_lines(text: str) -> Iterator[str]:
    """`text` in parts of moderate length, cut where the ids cannot depend on it.

    The library needs some hundred bytes of memory for each byte of a text; parts bound that. A
    line end between two ASCII letters is a word of its own for every pre-tokenizer that cuts
    lines, so a part may end after it.
    """
    begin = 0
    while len(text) - begin > _PART_CHARACTERS:
        cut = _LINE_END_BETWEEN_LETTERS.search(text, begin + _PART_CHARACTERS)
        if cut is None:
            break
        yield text[begin : cut.end()]
        begin = cut.end()
    yield text[begin:]


def _model_vocabulary(raw: RawVocabulary) -> dict[str, int]:
    ids: dict[str, int] = {}
    for token, (text, kind) in enumerate(zip(raw.texts, raw.types.tolist(), strict=True)):
        if kind in _NOT_IN_MODEL:
            continue
        try:
            ids[text.decode()] = token
        except UnicodeDecodeError:  # no text can spell it, so only its id is usable
            continue
    return ids


def _usable_merges(merges: Sequence[bytes], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Merges in rank order, without repeats and without those that name unknown tokens."""
    pairs: dict[tuple[str, str], None] = {}
    for merge in merges:
        try:
            text = merge.decode()
        except UnicodeDecodeError:
            continue
        # A space may be the first character of the left side, never a later one.
        cut = text.find(" ", 1)
        left, right = text[:cut], text[cut + 1 :]
        if cut > 0 and left in ids and right in ids and left + right in ids:
            pairs.setdefault((left, right))
    if merges and not pairs:
        raise ModelFormatError(
            "tokenizer.ggml.merges names no pair of known tokens; the file is damaged"
        )
    return list(pairs)


def marked_piece(text: bytes, kind: TokenType) -> bytes:
    """The bytes that a token of a vocabulary with "▁" for space stands for."""
    if kind in (TokenType.NORMAL, TokenType.BYTE):
        byte = byte_token_value(text)
        return text.replace(SPACE_MARK.encode(), b" ") if byte is None else bytes([byte])
    return text


@cache
def _byte_of_character() -> dict[int, int]:
    """The byte that each character of a byte-level token stands for.

    Bytes that print keep their own code point; the others take the code points from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {byte: byte for byte in printable}
    table.update({256 + index: byte for index, byte in enumerate(others)})
    return table


def byte_level_piece(text: bytes, kind: TokenType) -> bytes:
    """The bytes that a byte-level token stands for; special tokens are plain text."""
    if kind not in (TokenType.NORMAL, TokenType.UNUSED, TokenType.UNDEFINED):
        return text
    try:
        return text.decode().translate(_byte_of_character()).encode("latin-1")
    except UnicodeError:  # not byte-level text: an added token that was marked as normal
        return text
