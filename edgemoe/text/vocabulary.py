"""The vocabulary of a model: the bytes of each token, its type, and the ids with a meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from edgemoe.errors import ArgumentError, ModelFormatError
from edgemoe.text.metadata import Metadata

MAX_TOKENS = 1 << 22
MAX_TOKEN_BYTES = 1 << 16

_PREFIX = "tokenizer.ggml."
_BYTE_TOKEN = re.compile(rb"<0x([0-9A-Fa-f]{2})>")


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`; any other value counts as UNDEFINED."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def byte_token_value(text: bytes) -> int | None:
    """The byte that a token of the form <0xHH> stands for; None for other texts."""
    match = _BYTE_TOKEN.fullmatch(text)
    return None if match is None else int(match[1], 16)


class TokenBytes:
    """Byte strings by token id, packed into one buffer: 150,000 `bytes` objects would cost 7 MB."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        parts = list(pieces)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.uint32)
        self._buffer = b"".join(parts)

    def __len__(self) -> int:
        return int(self._ends.size)

    def __getitem__(self, token: int) -> bytes:
        begin = int(self._ends[token - 1]) if token else 0
        return self._buffer[begin : int(self._ends[token])]


@dataclass(frozen=True)
class RawVocabulary:
    """What the file says, checked: texts are unique and not empty, arrays have one entry each."""

    texts: Sequence[bytes]
    types: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    @staticmethod
    def from_metadata(metadata: Metadata) -> RawVocabulary:
        texts = metadata.strings(_PREFIX + "tokens")
        if not texts:
            raise ModelFormatError(
                "tokenizer.ggml.tokens is missing or empty; the file has no vocabulary"
            )
        count = len(texts)
        if count > MAX_TOKENS or max(map(len, texts)) > MAX_TOKEN_BYTES:
            raise ModelFormatError(
                f"tokenizer.ggml.tokens has {count} tokens or a token that is too long "
                f"(limits: {MAX_TOKENS} tokens, {MAX_TOKEN_BYTES} bytes); the file is damaged"
            )
        if b"" in texts:
            texts = [text or b"[EMPTY_%d]" % index for index, text in enumerate(texts)]
        if len(set(texts)) != count:
            raise ModelFormatError(
                f"tokenizer.ggml.tokens lists {_first_duplicate(texts)!r} twice; convert the "
                "model again with a converter that keeps tokens unique"
            )
        types = metadata.integers(_PREFIX + "token_type", count)
        scores = metadata.floats(_PREFIX + "scores", count)
        if types is None:
            types = np.full(count, TokenType.NORMAL, dtype=np.int64)
        types[(types < 0) | (types > TokenType.BYTE)] = TokenType.UNDEFINED
        return RawVocabulary(
            texts, types, np.zeros(count, dtype=np.float32) if scores is None else scores
        )


def _first_duplicate(texts: Sequence[bytes]) -> str:
    seen: set[bytes] = set()
    for text in texts:
        if text in seen:
            return text[:64].decode("utf-8", "backslashreplace")
        seen.add(text)
    return ""


# Texts of tokens that end a turn or a text, in vocabularies that do not name them by key.
_END_OF_TURN = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    }
)
_END_OF_MESSAGE = frozenset({"<|eom_id|>"})
_OTHER_ENDS = frozenset(
    {
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "[EOS]",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "[e~[",
    }
)


def _ends_text(raw: RawVocabulary, ids: dict[bytes, int], text: bytes) -> bool:
    """Whether "</s>" ends a text: in many vocabularies it is ordinary strike-through markup."""
    marked = (TokenType.CONTROL, TokenType.USER_DEFINED)
    return text in ids and raw.types[ids[text]] in marked and b"<|tool_response>" not in ids


# Fill-in-the-middle tokens that mean the end of the file at hand: padding, next repository, next
# file. The first one of a row that is present counts, unless the file names the token by key.
_FILL_ENDS = (
    ("fim_pad_token_id", ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")),
    (
        "fim_rep_token_id",
        ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    ),
    ("fim_sep_token_id", ("<|file_sep|>",)),
)
# Structure of a harmony answer, which a reader of the text needs to see.
_ALWAYS_SHOWN = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"})


@dataclass(frozen=True)
class Defaults:
    """What holds for a vocabulary when its file says nothing."""

    bos: int | None
    eos: int | None
    unknown: int | None
    add_bos: bool


class Vocabulary:
    """Token bytes, types and special ids; immutable after construction."""

    def __init__(
        self,
        raw: RawVocabulary,
        metadata: Metadata,
        defaults: Defaults,
        piece: Callable[[bytes, TokenType], bytes],
    ) -> None:
        ids = {text: index for index, text in enumerate(raw.texts)}
        self._types = raw.types.astype(np.uint8)

        def named(key: str, default: int | None = None) -> int | None:
            value = metadata.integer(_PREFIX + key)
            valid = value is not None and 0 <= value < len(raw.texts)
            chosen = value if valid else default
            return chosen if chosen is not None and chosen < len(raw.texts) else None

        def find(texts: Iterable[str]) -> int | None:
            return min((ids[t] for t in map(str.encode, texts) if t in ids), default=None)

        self.bos = named("bos_token_id", defaults.bos)
        self.eos = named("eos_token_id", defaults.eos)
        self.unknown = named("unknown_token_id", defaults.unknown)
        self.eot = named("eot_token_id", find(_END_OF_TURN))
        self.eom = named("eom_token_id", find(_END_OF_MESSAGE))
        self.add_bos = metadata.flag(_PREFIX + "add_bos_token", defaults.add_bos)
        self.add_eos = metadata.flag(_PREFIX + "add_eos_token", False)

        named_ends = [self.eos, self.eot, self.eom]
        named_ends += [named(key, find(texts)) for key, texts in _FILL_ENDS]
        end_texts = _END_OF_TURN | _END_OF_MESSAGE | _OTHER_ENDS
        by_text = [ids[text] for text in map(str.encode, end_texts) if text in ids]
        if _ends_text(raw, ids, b"</s>"):
            by_text.append(ids[b"</s>"])
        shown = [ids[text] for text in map(str.encode, _ALWAYS_SHOWN) if text in ids]
        fill = [token for token in named_ends[3:] if token is not None]
        self._types[by_text + fill] = TokenType.CONTROL
        self._types[shown] = TokenType.USER_DEFINED
        ends = {token for token in named_ends if token is not None}.union(by_text)
        self._unmark_message_end(ids, ends)
        self.eog: frozenset[int] = frozenset(ends)
        self._pieces = TokenBytes(map(piece, raw.texts, map(TokenType, self._types.tolist())))

    def _unmark_message_end(self, ids: dict[bytes, int], ends: set[int]) -> None:
        """Harmony and similar formats: "<|end|>" ends one message of an answer, not the answer."""

        def ends_here(*texts: bytes) -> bool:
            return any(ids.get(text, -1) in ends for text in texts)

        message_end = ids.get(b"<|end|>")
        if (
            message_end is not None
            and ends_here(b"<|call|>", b"<|calls|>")
            and ends_here(b"<|return|>", b"<|flush|>")
        ):
            ends.discard(message_end)
            self._types[message_end] = TokenType.USER_DEFINED

    def __len__(self) -> int:
        return len(self._pieces)

    def check(self, token: int) -> int:
        """The id itself, or an ArgumentError when no token has it."""
        if not 0 <= token < len(self):
            raise ArgumentError(
                f"token id {token} is outside the vocabulary; ids are 0 to {len(self) - 1}"
            )
        return token

    def type_of(self, token: int) -> TokenType:
        return TokenType(int(self._types[self.check(token)]))

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for; control tokens give their name."""
        return self._pieces[self.check(token)]

    def is_hidden(self, token: int) -> bool:
        """True for tokens that are not text: control and unknown."""
        return self.type_of(token) in (TokenType.CONTROL, TokenType.UNKNOWN)

    def special_tokens(self) -> list[int]:
        """Tokens that text is searched for before anything else, longest text first."""
        wanted = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
        tokens = np.flatnonzero(np.isin(self._types, wanted)).tolist()
        return sorted(tokens, key=lambda token: -len(self._pieces[token]))
