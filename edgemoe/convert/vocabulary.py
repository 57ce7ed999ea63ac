"""The vocabulary of a checkpoint as keys of a GGUF file."""

from __future__ import annotations

from edgemoe.convert.checkpoint import Checkpoint
from edgemoe.convert.config_file import ConfigFile
from edgemoe.convert.description import Description
from edgemoe.convert.sentencepiece_file import (
    BPE,
    UNIGRAM,
    SentencePieceFile,
    read_sentencepiece,
)
from edgemoe.errors import ModelFormatError, UnsupportedModelError
from edgemoe.text.vocabulary import TokenType

_SENTINELS = 100  # that T5 has behind its pieces


def _add_tokens(to: Description, model: SentencePieceFile, size: int) -> None:
    """The arrays, filled up to the rows of the embedding; no text ever gives what fills them."""
    missing = size - len(model.texts)
    if missing < 0:
        raise ModelFormatError(
            f"{model.path}: has {len(model.texts)} pieces; by key 'vocab_size' of config.json "
            f"there are {size} tokens"
        )
    first = len(model.texts)
    model.texts += [b"[PAD%d]" % token for token in range(first, size)]
    model.scores += [0.0] * missing
    model.types += [int(TokenType.UNUSED)] * missing
    to.set_token("tokens", "array", model.texts)
    to.set_token("scores", "array", model.scores)
    to.set_token("token_type", "array", model.types)


def _set_ids(to: Description, ids: dict[str, int]) -> None:
    for name, token in ids.items():
        if token >= 0:
            to.set_token(f"{name}_token_id", "uint32", token)


def _require(model: SentencePieceFile, model_type: int, kind: str) -> None:
    if model.model_type != model_type:
        raise UnsupportedModelError(
            f"{model.path}: is no {kind} model (its model_type is {model.model_type})"
        )


def add_unigram_vocabulary(to: Description, checkpoint: Checkpoint, size: int) -> None:
    """That of T5: spiece.model, then sentinels in falling order."""
    model = read_sentencepiece(checkpoint.file("spiece.model"))
    _require(model, UNIGRAM, "Unigram")
    settings = checkpoint.folder / "tokenizer_config.json"
    sentinels = _SENTINELS
    if settings.is_file():
        sentinels = ConfigFile(settings).count("extra_ids", _SENTINELS, least=0)
    if b"<extra_id_0>" in model.texts:
        sentinels = 0
    for number in reversed(range(min(sentinels, size))):
        model.texts.append(b"<extra_id_%d>" % number)
        model.scores.append(0.0)
        model.types.append(int(TokenType.USER_DEFINED))
    to.set_token("model", "string", "t5")
    to.set_token("pre", "string", "default")
    _add_tokens(to, model, size)
    config = checkpoint.config
    ids = {
        "eos": config.count("eos_token_id", max(model.eos_id, 0), least=0),
        "unknown": model.unk_id,
        "padding": config.count("pad_token_id", max(model.pad_id, 0), least=0),
    }
    _set_ids(to, ids)
    to.set_token("add_bos_token", "bool", False)
    to.set_token("add_eos_token", "bool", True)
    to.set_token("add_space_prefix", "bool", model.add_dummy_prefix)
    to.set_token("remove_extra_whitespaces", "bool", model.remove_extra_whitespaces)
    if model.charsmap:
        to.set_token("precompiled_charsmap", "array", model.charsmap)


def add_bpe_vocabulary(to: Description, checkpoint: Checkpoint, size: int) -> None:
    """That of LLaMA: tokenizer.model."""
    model = read_sentencepiece(checkpoint.file("tokenizer.model"))
    _require(model, BPE, "byte-pair encoding")
    to.set_token("model", "string", "llama")
    to.set_token("pre", "string", "default")
    _add_tokens(to, model, size)
    _set_ids(to, {"bos": model.bos_id, "eos": model.eos_id, "unknown": model.unk_id})
    to.set_token("add_space_prefix", "bool", model.add_dummy_prefix)
