"""Encoding and decoding with small vocabularies."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_text_vocabularies import (
    CONTROL,
    SPACE,
    USER_DEFINED,
    bpe_values,
    spm_values,
    token_texts,
)

from edgemoe.errors import ArgumentError
from edgemoe.text import StreamDecoder, Tokenizer
from edgemoe.text.bpe import parts_of_lines, word_splitter
from edgemoe.text.pre_tokenizers import PRE_TOKENIZERS

MERGES = ["l o", "l l", "lo w", "Ġ low", "e r"]
SPECIALS = {"<|end|>": CONTROL, "<|endless|>": CONTROL, "[tool]": USER_DEFINED}
PIECES = {
    "l": -10.0,
    "o": -11.0,
    "w": -12.0,
    SPACE: -9.0,
    "lo": -1.0,
    "low": -2.0,
    f"{SPACE}low": -3.0,
    f"{SPACE}{SPACE}": -20.0,
}
TRICKY = "Hello  wörld\n\n\t12345 don't '🦙 \u0301한국어 １２３ ½ x\r\n  \u00a0...\x00<|end|>"


def bpe(pre: str = "gpt-2") -> tuple[dict[str, object], Tokenizer]:
    values = bpe_values(MERGES, SPECIALS, pre)
    return values, Tokenizer.from_metadata(values)


def test_bpe_merges_by_rank() -> None:
    values, tokenizer = bpe()
    assert token_texts(values, tokenizer.encode("lower slow low")) == (
        ["low", "er", "Ġ", "s", "low", "Ġlow"]
    )


def test_bpe_keeps_a_whole_word_token_only_where_merges_are_ignored() -> None:
    for pre, expected in (("llama-bpe", ["lol"]), ("gpt-2", ["lo", "l"])):
        values = bpe_values([*MERGES, "l ol", "o l"], pre=pre)
        tokenizer = Tokenizer.from_metadata(values)
        assert token_texts(values, tokenizer.encode("lol", add_bos=False)) == expected


def test_control_tokens_in_text_stay_text_unless_asked() -> None:
    values, tokenizer = bpe()
    plain = tokenizer.encode("low<|end|>")
    assert "<|end|>" not in token_texts(values, plain)
    assert tokenizer.decode(plain) == "low<|end|>"
    parsed = tokenizer.encode("low<|end|>", parse_special=True)
    assert token_texts(values, parsed) == ["low", "<|end|>"]
    assert tokenizer.decode(parsed) == "low"
    assert tokenizer.decode(parsed, skip_special=False) == "low<|end|>"


def test_user_defined_tokens_are_found_in_any_text() -> None:
    values, tokenizer = bpe()
    assert token_texts(values, tokenizer.encode("low[tool]low")) == ["low", "[tool]", "low"]


def test_a_longer_special_token_wins() -> None:
    values, tokenizer = bpe()
    ids = tokenizer.encode("<|endless|><|end|>", parse_special=True)
    assert token_texts(values, ids) == ["<|endless|>", "<|end|>"]


def test_special_tokens_of_phi3_swallow_the_spaces_after_them() -> None:
    values = bpe_values(MERGES, SPECIALS) | {"general.name": "Phi-3 Mini"}
    tokenizer = Tokenizer.from_metadata(values)
    ids = tokenizer.encode("low <|end|> \n low", parse_special=True)
    assert token_texts(values, ids) == ["low", "Ġ", "<|end|>", "low"]


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_keeps_every_byte(name: str) -> None:
    if PRE_TOKENIZERS[name].raw_utf8:
        values = spm_values(PIECES) | {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": name,
            "tokenizer.ggml.merges": [b"l o"],
        }
        tokenizer = Tokenizer.from_metadata(values)
    else:
        tokenizer = bpe(name)[1]
    ids = tokenizer.encode(TRICKY, add_bos=False)
    assert tokenizer.decode(ids) == TRICKY


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gpt-2", "I'll go  on 1234!", ["I", "'ll", " go", " ", " on", " 1234", "!"]),
        ("gpt-2", "I'LL", ["I", "'", "LL"]),
        (
            "llama-bpe",
            "I'LL pay 12345\n\n ok",
            ["I", "'LL", " pay", " ", "123", "45", "\n\n", " ok"],
        ),
        ("qwen2", "a 123.\n", ["a", " ", "1", "2", "3", ".\n"]),
        ("qwen35", "e\u0301a", ["e\u0301a"]),
        ("qwen2", "e\u0301a", ["e", "\u0301a"]),
        ("gpt-4o", "someThing's/", ["some", "Thing's", "/"]),
        ("tekken", "someThing's 12", ["some", "Thing", "'s", " ", "1", "2"]),
        ("deepseek-v3", "ab1234\u4f60\u597d.x", ["ab", "123", "4", "\u4f60\u597d", ".x"]),
        ("deepseek-llm", "a  bc\r\n12", ["a", " ", " bc", "\r", "\n", "12"]),
        ("falcon", "x,, 12345", ["x", ",,", " ", "123", "45"]),
        ("starcoder", "ab 12", ["ab", " ", "1", "2"]),
        ("afmoe", "12345678 1234", ["12", "345", "678", " ", "1", "234"]),
        ("superbpe", "up to 1234567 km", ["up to ", "1", "234", "567", " km"]),
        ("tiny_aya", "1234567 km", ["1", "234", "567", " km"]),
        ("kimi-k2", "ab\u4f60cd", ["ab", "\u4f60", "cd"]),
        ("bloom", "one, two", ["one", ",", " two"]),
        ("gemma4", "a b\n\nc", ["a b", "\n\n", "c"]),
    ],
)
def test_words_are_cut_as_the_model_was_trained(name: str, text: str, words: list[str]) -> None:
    pieces = word_splitter(PRE_TOKENIZERS[name]).pre_tokenize_str(text)
    assert [text[begin:end] for _, (begin, end) in pieces] == words


def test_long_texts_are_cut_only_at_a_line_end_between_letters() -> None:
    line = "word one\ntwo 12\n 3\n\nfour"
    text = line * 10_000
    parts = list(parts_of_lines(text))
    assert "".join(parts) == text
    assert len(parts) > 2
    assert all(part.endswith("one\n") for part in parts[:-1])


def test_a_long_text_has_the_ids_of_its_words() -> None:
    _, tokenizer = bpe()
    line = "lower slow low\n"
    assert tokenizer.encode(line * 20_000) == tokenizer.encode(line) * 20_000


def test_spm_merges_by_score_and_falls_back_to_bytes() -> None:
    values = spm_values(PIECES)
    tokenizer = Tokenizer.from_metadata(values)
    assert token_texts(values, tokenizer.encode("low é")) == (
        ["<s>", f"{SPACE}low", SPACE, "<0xC3>", "<0xA9>"]
    )
    assert tokenizer.decode(tokenizer.encode("low é")) == "low é"


def test_spm_puts_a_space_before_text_and_after_special_tokens_only() -> None:
    values = spm_values(PIECES)
    tokenizer = Tokenizer.from_metadata(values)
    ids = tokenizer.encode("low</s>low", add_bos=False, parse_special=True)
    assert token_texts(values, ids) == [f"{SPACE}low", "</s>", f"{SPACE}low"]
    without = Tokenizer.from_metadata(values | {"tokenizer.ggml.add_space_prefix": False})
    assert token_texts(values, without.encode("low", add_bos=False)) == ["low"]


def test_spm_collapses_spaces_only_when_the_model_does() -> None:
    values = spm_values(PIECES)
    kept = Tokenizer.from_metadata(values)
    assert token_texts(values, kept.encode("o  o", add_bos=False)).count(SPACE) >= 1
    assert kept.decode(kept.encode(" o  o ")) == " o  o "
    flag = {"tokenizer.ggml.remove_extra_whitespaces": True}
    collapsed = Tokenizer.from_metadata(values | flag)
    assert collapsed.decode(collapsed.encode(" o  o ")) == "o o"


def test_spm_text_never_becomes_a_control_token() -> None:
    values = spm_values({**PIECES, "<": -1.0, "s": -1.0, ">": -1.0, "<s": -1.0})
    tokenizer = Tokenizer.from_metadata(values)
    assert 1 not in tokenizer.encode("<s>", add_bos=False)


def test_bos_follows_the_model_unless_told_otherwise() -> None:
    spm = Tokenizer.from_metadata(spm_values(PIECES))
    assert spm.encode("") == [1]
    assert spm.encode("", add_bos=False) == []
    off = {"tokenizer.ggml.add_bos_token": False}
    assert Tokenizer.from_metadata(spm_values(PIECES) | off).encode("") == []
    assert bpe()[1].encode("") == []
    assert bpe("llama-bpe")[1].encode("") == [11]


def test_asking_for_a_bos_that_does_not_exist_is_an_argument_error() -> None:
    with pytest.raises(ArgumentError, match="no BOS"):
        bpe("glm4")[1].encode("x", add_bos=True)


@pytest.mark.parametrize("text", ["lone \ud800 surrogate", b"not \xff UTF-8"])
def test_text_that_is_not_unicode_is_an_argument_error(text: str | bytes) -> None:
    with pytest.raises(ArgumentError, match="UTF-8") as caught:
        bpe()[1].encode(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("token", [-1, 1 << 20])
def test_an_id_outside_the_vocabulary_is_an_argument_error(token: int) -> None:
    with pytest.raises(ArgumentError, match="outside the vocabulary"):
        bpe()[1].decode([token])


@settings(deadline=None, max_examples=150)
@given(st.text(st.characters(codec="utf-8", exclude_characters=SPACE), max_size=60))
def test_any_text_survives_a_round_trip(text: str) -> None:
    for tokenizer in (_BPE, _SPM):
        assert tokenizer.decode(tokenizer.encode(text, add_bos=False)) == text


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 258), max_size=40))
def test_streaming_gives_the_same_text_as_decoding_at_once(ids: list[int]) -> None:
    for tokenizer in (_BPE, _SPM):
        decoder = StreamDecoder(tokenizer)
        text = "".join(map(decoder.feed, ids)) + decoder.flush()
        shown = [token for token in ids if not tokenizer.is_hidden(token)]
        assert text == b"".join(map(tokenizer.token_bytes, shown)).decode("utf-8", "replace")


def test_streaming_never_splits_a_character() -> None:
    decoder = StreamDecoder(_SPM)
    llama = [3 + byte for byte in "🦙".encode()]
    assert [decoder.feed(token) for token in llama] == ["", "", "", "🦙"]
    decoder.feed(llama[0])
    assert decoder.flush() == "\ufffd"
    assert decoder.feed(3 + ord("a")) == "a"


_BPE = bpe()[1]
_SPM = Tokenizer.from_metadata(spm_values(PIECES))
