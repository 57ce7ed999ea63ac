"""Unigram vocabularies (T5) give the ids of SentencePiece; sentinels are tokens of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from tiny_checkpoint import SWITCH_CONFIG, sentencepiece_model, switch_folder

from edgemoe import _core
from edgemoe.convert import convert
from edgemoe.errors import ModelFormatError
from edgemoe.text import Tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  spaces   here and   there ",
    "tabs\tand\nnew lines\r\n",
    "ﬁne ligatures, Ｆｕｌｌ width, ① ② ½",
    "cafe\u0301 and café, A\u030angstrom",
    "unknown: 漢字 漢 字 and ☃☃☃",
    "\u200bzero\u200d width\ufeff, soft\u00adhyphen",
    "a",
    " ",
    "",
    "0123456789 !?()",
    "e\u0301\u0301\u0301 \u0300\u0301",
    "no-break\u00a0space\u3000ideographic",
]


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("unigram")
    convert(str(switch_folder(folder / "model")), str(folder / "out.gguf"))
    return dict(_core.GgufFile(str(folder / "out.gguf")).values("tokenizer."))


@pytest.fixture(scope="module")
def tokenizer(values: dict[str, object]) -> Tokenizer:
    return Tokenizer.from_metadata(values)


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_sentencepiece(
    text: str, tokenizer: Tokenizer, processor: sentencepiece.SentencePieceProcessor
) -> None:
    assert tokenizer.encode(text) == processor.encode(text)


def test_random_texts(
    tokenizer: Tokenizer, processor: sentencepiece.SentencePieceProcessor
) -> None:
    numbers = np.random.default_rng(3)
    alphabet = [*"abcdefghijklmnop  .,", "é", "e\u0301", "ﬁ", "\u3000", "Ａ", "字", "½"]
    for _ in range(300):
        text = "".join(numbers.choice(alphabet, size=int(numbers.integers(1, 40))))
        assert tokenizer.encode(text) == processor.encode(text), ascii(text)


def test_a_text_comes_back(tokenizer: Tokenizer) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sentinels_stand_between_words(
    tokenizer: Tokenizer, processor: sentencepiece.SentencePieceProcessor
) -> None:
    first = processor.get_piece_size() + 99  # <extra_id_0>
    expected = [
        *processor.encode("The fox"),
        first,
        *processor.encode("over the"),
        first - 1,
    ]
    assert tokenizer.encode("The fox <extra_id_0> over the <extra_id_1>") == expected
    assert tokenizer.encode("The fox<extra_id_0>over the<extra_id_1>") == expected
    assert not tokenizer.is_hidden(first)
    assert tokenizer.token_bytes(first) == b"<extra_id_0>"


def test_control_tokens_are_text_unless_asked_for(tokenizer: Tokenizer) -> None:
    assert 1 not in tokenizer.encode("a </s> b")
    assert 1 in tokenizer.encode("a </s> b", parse_special=True)


def test_special_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_id == 1 and tokenizer.bos_id is None
    assert tokenizer.add_eos and not tokenizer.add_bos
    assert tokenizer.eog_ids == {1}
    assert tokenizer.vocabulary_size == SWITCH_CONFIG["vocab_size"]


def test_what_fills_the_vocabulary_up_has_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(tokenizer.vocabulary_size - 1) == b""


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 40])
def test_a_charsmap_of_another_size_is_refused(values: dict[str, object], size: int) -> None:
    damaged = np.full(size, 255, dtype=np.uint8)
    if size == 0:  # none
        Tokenizer.from_metadata({**values, "tokenizer.ggml.precompiled_charsmap": damaged})
        return
    with pytest.raises(ModelFormatError, match="precompiled_charsmap"):
        Tokenizer.from_metadata({**values, "tokenizer.ggml.precompiled_charsmap": damaged})


def test_noise_in_a_charsmap_never_crashes(values: dict[str, object]) -> None:
    charsmap = values["tokenizer.ggml.precompiled_charsmap"]
    assert isinstance(charsmap, np.ndarray)
    numbers = np.random.default_rng(5)
    for _ in range(20):
        damaged = charsmap.copy()
        places = numbers.integers(4, damaged.size, size=2000)
        damaged[places] = numbers.integers(0, 256, size=places.size)
        changed = {**values, "tokenizer.ggml.precompiled_charsmap": damaged}
        tokenizer = Tokenizer.from_metadata(changed)
        for text in TEXTS:
            tokenizer.encode(text)


def test_a_charsmap_that_is_no_array_of_bytes(values: dict[str, object]) -> None:
    for wrong in ("text", np.array([1.5]), np.array([1000])):
        with pytest.raises(ModelFormatError, match="array of bytes"):
            Tokenizer.from_metadata({**values, "tokenizer.ggml.precompiled_charsmap": wrong})


def test_a_folder_without_a_charsmap(tmp_path: Path) -> None:
    folder = switch_folder(tmp_path / "model")
    convert(str(folder), str(tmp_path / "out.gguf"))
    values = dict(_core.GgufFile(str(tmp_path / "out.gguf")).values("tokenizer."))
    del values["tokenizer.ggml.precompiled_charsmap"]
    assert Tokenizer.from_metadata(values).encode("the dog")
