"""Small vocabularies for the tests of edgemoe.text, built as a model file would describe them."""

from __future__ import annotations

import numpy as np
import pytest

from edgemoe.errors import ModelFormatError, UnsupportedModelError
from edgemoe.text import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"


def byte_characters() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def bpe_values(
    merges: list[str], specials: dict[str, int] | None = None, pre: str = "gpt-2"
) -> dict[str, object]:
    """A byte-level vocabulary: ids 0 to 255 are the bytes, then the merges, then the specials."""
    texts = [*byte_characters(), *(merge.replace(" ", "") for merge in merges)]
    types = [NORMAL] * len(texts)
    for text, kind in (specials or {}).items():
        texts.append(text)
        types.append(kind)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [text.encode() for text in texts],
        "tokenizer.ggml.token_type": np.array(types, dtype=np.int32),
        "tokenizer.ggml.merges": [merge.encode() for merge in merges],
    }


def spm_values(
    pieces: dict[str, float], specials: dict[str, int] | None = None
) -> dict[str, object]:
    """A SentencePiece vocabulary: <unk>, <s>, </s>, the bytes, the pieces, the specials."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    for text, kind in (specials or {}).items():
        texts.append(text)
        types.append(kind)
    scores = [0.0] * 259 + list(pieces.values())
    scores += [0.0] * (len(texts) - len(scores))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text.encode() for text in texts],
        "tokenizer.ggml.token_type": np.array(types, dtype=np.int32),
        "tokenizer.ggml.scores": np.array(scores, dtype=np.float32),
    }


def token_texts(values: dict[str, object], ids: list[int]) -> list[str]:
    tokens = values["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    return [tokens[index].decode() for index in ids]


@pytest.mark.parametrize("model", ["bert", "rwkv", "none", "plamo2", "surprise"])
def test_an_unknown_tokenizer_model_is_refused_by_name(model: str) -> None:
    values = bpe_values(["a b"]) | {"tokenizer.ggml.model": model}
    with pytest.raises(UnsupportedModelError, match=f"'{model}'"):
        Tokenizer.from_metadata(values)


def test_an_unknown_pre_tokenizer_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="'gpt-17'"):
        Tokenizer.from_metadata(bpe_values(["a b"], pre="gpt-17"))


def test_a_missing_pre_tokenizer_means_the_default_one() -> None:
    values = bpe_values(["a b"])
    del values["tokenizer.ggml.pre"]
    tokenizer = Tokenizer.from_metadata(values)
    assert token_texts(values, tokenizer.encode("ab")) == ["ab"]


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": []}, "tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": "text"}, "tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": [b"a", b"b", b"a"]}, "'a' twice"),
        ({"tokenizer.ggml.token_type": np.zeros(3, dtype=np.int32)}, "3 entries"),
        ({"tokenizer.ggml.token_type": np.ones(999)}, "whole numbers"),
        ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": [b"no", b"such pairs"]}, "tokenizer.ggml.merges"),
        ({"tokenizer.ggml.pre": 7}, "tokenizer.ggml.pre"),
        ({"tokenizer.ggml.add_bos_token": 1}, "tokenizer.ggml.add_bos_token"),
        ({"tokenizer.ggml.bos_token_id": "1"}, "tokenizer.ggml.bos_token_id"),
    ],
)
def test_damaged_metadata_is_refused_and_the_key_named(
    change: dict[str, object], culprit: str
) -> None:
    values = {k: v for k, v in (bpe_values(["a b"]) | change).items() if v is not None}
    with pytest.raises(ModelFormatError, match=culprit) as caught:
        Tokenizer.from_metadata(values)
    assert "\n" not in str(caught.value)


def test_scores_that_are_not_numbers_are_refused() -> None:
    values = spm_values({"a": -1.0})
    values["tokenizer.ggml.scores"] = np.full(260, np.nan, dtype=np.float32)
    with pytest.raises(ModelFormatError, match=r"tokenizer\.ggml\.scores"):
        Tokenizer.from_metadata(values)


def test_a_byte_token_that_names_no_byte_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="marked as a byte"):
        Tokenizer.from_metadata(spm_values({"a": -1.0}, {"<0xZZ>": BYTE}))


def test_special_ids_outside_the_vocabulary_are_ignored() -> None:
    values = bpe_values(["a b"]) | {"tokenizer.ggml.eos_token_id": 1 << 31}
    tokenizer = Tokenizer.from_metadata(values)
    assert tokenizer.eos_id == 11


def test_generation_ends_at_tokens_named_by_key_or_by_text() -> None:
    names = {"<|im_end|>": CONTROL, "<|eom_id|>": CONTROL, "<|mine|>": CONTROL, "</s>": NORMAL}
    values = bpe_values(["a b"], names) | {"tokenizer.ggml.eos_token_id": 259}
    tokenizer = Tokenizer.from_metadata(values)
    ends = token_texts(values, sorted(tokenizer.eog_ids))
    assert ends == ["<|im_end|>", "<|eom_id|>", "<|mine|>"]


def test_the_end_of_a_harmony_message_does_not_end_the_answer() -> None:
    names = {"<|end|>": CONTROL, "<|return|>": CONTROL, "<|call|>": CONTROL}
    values = bpe_values(["a b"], names) | {"tokenizer.ggml.eos_token_id": 258}
    tokenizer = Tokenizer.from_metadata(values)
    assert token_texts(values, sorted(tokenizer.eog_ids)) == ["<|return|>", "<|call|>"]
    assert tokenizer.decode([257]) == "<|end|>"
