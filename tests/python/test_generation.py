"""Stop strings and streaming, without a model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgemoe.cli.generating import unescape
from edgemoe.generation import split_at_stop

letters = st.text(alphabet="ab", max_size=12)
stops = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=3)


@given(letters, stops)
def test_what_is_shown_never_holds_or_begins_a_stop(text: str, stop: list[str]) -> None:
    shown, held, met = split_at_stop(text, stop)
    assert text.startswith(shown + held)
    assert not any(one in shown for one in stop)
    assert met == any(one in text for one in stop)


@given(letters, stops)
def test_streaming_shows_what_the_whole_text_would(text: str, stop: list[str]) -> None:
    out = held = ""
    met = False
    for character in text:
        shown, held, met = split_at_stop(held + character, stop)
        out += shown
        if met:
            break
    positions = [text.find(one) for one in stop if one in text]
    first_end = min((text.find(one) + len(one) for one in stop if one in text), default=0)
    if met:
        assert text[: len(out)] == out
        assert len(out) <= first_end
    else:
        assert not positions
        assert out + held == text


def test_escapes_as_llama_cpp_reads_them() -> None:
    assert unescape(r"a\nb\tc\\n\q\"") == 'a\nb\tc\\n\\q"'
    assert unescape("end\\") == "end\\"
