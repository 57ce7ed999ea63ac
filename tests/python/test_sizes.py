from __future__ import annotations

from typing import Any

import pytest

from edgemoe import ArgumentError
from edgemoe.options import cache_folder
from edgemoe.sizes import format_size, parse_memory, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("1KiB", 1024), ("1.5GiB", 3 << 29), ("4G", 4 << 30), ("512mb", 512 << 20)],
)
def test_sizes_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "many", "-1", "4XiB", "1e3", "GiB", "9999999999T", "1 2"])
def test_other_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(ArgumentError, match="size|memory"):
        parse_size(text)


def test_memory_is_a_word_a_size_or_bytes() -> None:
    assert [parse_memory(m) for m in ("auto", "min", "1KiB", 7)] == ["auto", "min", 1024, 7]
    with pytest.raises(ArgumentError):
        parse_memory(0)


@pytest.mark.parametrize("memory", [1.5e9, None, b"4GiB", True, 1 << 70, 1 << 2000, [1]])
def test_memory_in_other_forms_is_an_argument_error(memory: Any) -> None:
    with pytest.raises(ArgumentError, match="memory is"):
        parse_memory(memory)


@pytest.mark.parametrize("folder", [None, 3, b"folder"])
def test_a_cache_folder_that_is_no_path_is_an_argument_error(folder: Any) -> None:
    with pytest.raises(ArgumentError, match="'auto', 'none' or a folder"):
        cache_folder(folder)


def test_three_digits() -> None:
    assert [format_size(n) for n in (0, 1023, 1536, 20 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.50 KiB",
        "20.0 MiB",
        "3.00 GiB",
    ]
