"""The tokenizer of a model: text to token ids and back, as the model's file describes it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Protocol

from edgemoe.errors import ArgumentError, ModelFormatError, UnsupportedModelError
from edgemoe.text.bpe import BpeModel, byte_level_piece, marked_piece
from edgemoe.text.metadata import Metadata
from edgemoe.text.pre_tokenizers import find_pre_tokenizer
from edgemoe.text.replacements import Replacements
from edgemoe.text.special_tokens import SpecialToken, SpecialTokenSplitter
from edgemoe.text.spm import SpmKind, SpmModel, spm_piece
from edgemoe.text.vocabulary import Defaults, RawVocabulary, TokenType, Vocabulary

MAX_TEXT_BYTES = 64 << 20

_REFUSED_MODELS = {
    "bert": "WordPiece",
    "rwkv": "RWKV",
    "plamo2": "PLaMo-2",
    "hybriddna": "hybrid DNA",
    "whitespace": "whitespace",
    "none": "no",
    "no_vocab": "no",
}


# Values of tokenizer.ggml.model.
_SPM_MODELS = {"llama": SpmKind.BPE, "t5": SpmKind.UNIGRAM}


class _Encoder(Protocol):
    def encode(self, text: str, *, starts_text: bool) -> list[int]: ...


class Tokenizer:
    """Encodes and decodes; immutable, and safe to share between threads.

    >>> tokenizer = Tokenizer.from_metadata(file.values("tokenizer."))  # doctest: +SKIP
    >>> tokenizer.decode(tokenizer.encode("Hello"))  # doctest: +SKIP
    'Hello'
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        encoder: _Encoder,
        splitter: SpecialTokenSplitter,
        *,
        add_space_prefix: bool,
    ) -> None:
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._splitter = splitter
        self._add_space_prefix = add_space_prefix

    @classmethod
    def from_metadata(cls, values: Mapping[str, object]) -> Tokenizer:
        """Builds the tokenizer from the `tokenizer.` keys of a model file.

        `general.name` is used too when present: files do not say that the special tokens of some
        models swallow the spaces after them.
        """
        metadata = Metadata(values)
        model = metadata.text("tokenizer.ggml.model")
        if model is None:
            raise ModelFormatError("tokenizer.ggml.model is missing; the file has no tokenizer")
        if model in _SPM_MODELS:
            return _load_spm(metadata, _SPM_MODELS[model])
        if model in ("gpt2", "gemma4"):
            tokenizer = _load_bpe(metadata, "gemma4" if model == "gemma4" else None)
            _return_freed_memory()
            return tokenizer
        kind = _REFUSED_MODELS.get(model, "an unknown")
        raise UnsupportedModelError(
            f"tokenizer.ggml.model is {model[:64]!r} ({kind} tokenizer); edgemoe knows 'llama', "
            "'gpt2', 't5' and 'gemma4': work with token ids, or convert the model with one of these"
        )

    @property
    def vocabulary_size(self) -> int:
        return len(self._vocabulary)

    @property
    def bos_id(self) -> int | None:
        return self._vocabulary.bos

    @property
    def eos_id(self) -> int | None:
        return self._vocabulary.eos

    @property
    def eot_id(self) -> int | None:
        return self._vocabulary.eot

    @property
    def eog_ids(self) -> frozenset[int]:
        """Every token that ends a generation: end of text, of turn, of message, of file."""
        return self._vocabulary.eog

    @property
    def add_bos(self) -> bool:
        """Whether the model expects a BOS token in front of a text."""
        return self._vocabulary.add_bos

    @property
    def add_eos(self) -> bool:
        """Whether the model expects an EOS token after a text."""
        return self._vocabulary.add_eos

    def encode(
        self, text: str | bytes, *, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[int]:
        """Token ids of `text`.

        `add_bos` puts a BOS token in front; the default is what the model expects. With
        `parse_special`, the names of control tokens in the text become those tokens; without it
        they stay text, which is what text from a user needs. `add_eos` is for the caller: a
        prompt that is to be continued must not end.
        """
        checked = _checked_text(text)
        ids: list[int] = []
        if self.add_bos if add_bos is None else add_bos:
            if self.bos_id is None:
                raise ArgumentError("the vocabulary has no BOS token; pass add_bos=False")
            ids.append(self.bos_id)
        starts_text = True
        for part in self._splitter.split(checked, parse_special):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encoder.encode(part, starts_text=starts_text)
            starts_text = isinstance(part, int)
        return ids

    def decode_bytes(self, ids: Iterable[int], *, skip_special: bool = True) -> bytes:
        """The bytes of `ids`, without the space that encoding puts in front of a text."""
        pieces: list[bytes] = []
        starts_text = self._add_space_prefix
        for token in ids:
            piece = self._vocabulary.bytes_of(token)
            if self._vocabulary.type_of(token) in _LITERAL:
                starts_text = self._add_space_prefix
                if skip_special and self.is_hidden(token):
                    continue
            elif starts_text:
                piece = piece.removeprefix(b" ")
                starts_text = False
            pieces.append(piece)
        return b"".join(pieces)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, skip_special=skip_special).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; a control token gives its name."""
        return self._vocabulary.bytes_of(token)

    def is_hidden(self, token: int) -> bool:
        """True for tokens that are not text: control and unknown tokens."""
        return self._vocabulary.is_hidden(token)


# Tokens that encoding finds by their literal text.
_LITERAL = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)


class _BpeEncoder:
    def __init__(self, model: BpeModel) -> None:
        self._model = model

    def encode(self, text: str, *, starts_text: bool) -> list[int]:
        return self._model.encode(text)


_SPM_DEFAULTS = {
    SpmKind.BPE: Defaults(bos=1, eos=2, unknown=0, add_bos=True),
    SpmKind.UNIGRAM: Defaults(bos=None, eos=1, unknown=2, add_bos=False),
}


def _load_spm(metadata: Metadata, kind: SpmKind) -> Tokenizer:
    raw = RawVocabulary.from_metadata(metadata)
    vocabulary = Vocabulary(raw, metadata, _SPM_DEFAULTS[kind], spm_piece)
    add_space_prefix = metadata.flag("tokenizer.ggml.add_space_prefix", True)
    is_unigram = kind is SpmKind.UNIGRAM
    encoder = SpmModel(
        raw,
        vocabulary.unknown or 0,
        add_space_prefix=add_space_prefix,
        remove_extra_whitespaces=metadata.flag(
            "tokenizer.ggml.remove_extra_whitespaces", is_unigram
        ),
        kind=kind,
        replacements=Replacements.from_metadata(metadata) if is_unigram else None,
    )
    splitter = _splitter(vocabulary, metadata)
    return Tokenizer(vocabulary, encoder, splitter, add_space_prefix=add_space_prefix)


def _load_bpe(metadata: Metadata, fixed_pre_tokenizer: str | None) -> Tokenizer:
    name = fixed_pre_tokenizer or metadata.text("tokenizer.ggml.pre") or "default"
    pre_tokenizer = find_pre_tokenizer(name)
    raw = RawVocabulary.from_metadata(metadata)
    merges = metadata.strings("tokenizer.ggml.merges")
    if merges is None:
        raise ModelFormatError(
            "tokenizer.ggml.merges is missing, and a BPE vocabulary needs it; convert the model "
            "again"
        )
    default_id = 11 if pre_tokenizer.has_bos and not pre_tokenizer.raw_utf8 else None
    eos = None if pre_tokenizer.raw_utf8 else 11
    defaults = Defaults(bos=default_id, eos=eos, unknown=None, add_bos=pre_tokenizer.add_bos)
    piece = marked_piece if pre_tokenizer.raw_utf8 else byte_level_piece
    vocabulary = Vocabulary(raw, metadata, defaults, piece)
    encoder = _BpeEncoder(BpeModel(raw, merges, pre_tokenizer))
    splitter = _splitter(vocabulary, metadata)
    return Tokenizer(vocabulary, encoder, splitter, add_space_prefix=False)


def _splitter(vocabulary: Vocabulary, metadata: Metadata) -> SpecialTokenSplitter:
    """Special tokens with the spaces that they swallow, which files do not record."""
    name = (metadata.text("general.name") or "").lower()
    pre = metadata.text("tokenizer.ggml.pre") or ""
    is_phi3 = "phi-3" in name or "phi3" in name
    # Sentinels stand between words, which bring their own spaces.
    is_t5 = metadata.text("tokenizer.ggml.model") == "t5"
    keeps_right = ("<unk>", "<s>", "<|endoftext|>")
    special = []
    for token in vocabulary.special_tokens():
        try:
            text = vocabulary.bytes_of(token).decode()
        except UnicodeDecodeError:  # no text can spell it
            continue
        special.append(
            SpecialToken(
                token,
                text,
                only_when_parsing=vocabulary.is_hidden(token),
                strip_left=is_t5 or (text == "<mask>" and pre.startswith("jina-v2")),
                strip_right=is_t5 or (is_phi3 and text not in keeps_right),
            )
        )
    return SpecialTokenSplitter(special)


def _return_freed_memory() -> None:
    """Gives the heap that loading needed back to the system: 30 MB for 150,000 tokens.

    The memory budget counts resident memory, and glibc keeps freed memory resident.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library
        return


def _checked_text(text: str | bytes) -> str:
    try:
        encoded = text if isinstance(text, bytes) else text.encode()
        decoded = text.decode() if isinstance(text, bytes) else text
    except UnicodeError as error:
        raise ArgumentError(
            f"the text is not valid UTF-8 at position {getattr(error, 'start', 0)}; "
            "replace or remove what is damaged"
        ) from None
    if len(encoded) > MAX_TEXT_BYTES:
        raise ArgumentError(
            f"the text has {len(encoded)} bytes, the limit is {MAX_TEXT_BYTES}; split it"
        )
    return decoded
