"""Token ids of real vocabularies against recorded ones; opt-in, as vocabularies are large.

EDGEMOE_VOCABULARIES names a folder of NAME.gguf files with NAME.gguf.inp (texts separated by a
line `__ggml_vocab_test__`) and NAME.gguf.out (their ids without BOS, a line for each text).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemoe.errors import UnsupportedModelError
from edgemoe.text import Tokenizer

_FOLDER = os.environ.get("EDGEMOE_VOCABULARIES", "")
_FILES = sorted(p for p in Path(_FOLDER).glob("*.gguf") if _FOLDER and Path(f"{p}.out").exists())


def read_values(path: Path) -> dict[str, object]:
    gguf: Any = pytest.importorskip("gguf")
    values: dict[str, object] = {}
    for key, field in gguf.GGUFReader(path).fields.items():
        kind = field.types[0] if field.types else None
        if not key.startswith("tokenizer."):
            continue
        if kind != gguf.GGUFValueType.ARRAY:
            part = field.parts[-1]
            is_text = kind == gguf.GGUFValueType.STRING
            values[key] = bytes(part).decode() if is_text else part[0].item()
        elif field.types[-1] == gguf.GGUFValueType.STRING:
            values[key] = [bytes(field.parts[index]) for index in field.data]
        else:
            values[key] = np.concatenate([field.parts[index] for index in field.data])
    return values


@pytest.mark.skipif(not _FILES, reason="EDGEMOE_VOCABULARIES names no folder of vectors")
@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_ids_are_those_that_were_recorded(path: Path) -> None:
    try:
        tokenizer = Tokenizer.from_metadata(read_values(path))
    except UnsupportedModelError as error:
        pytest.skip(str(error))
    texts = Path(f"{path}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text(encoding="utf-8").split("\n")
    for text, line in zip(texts, lines, strict=False):
        assert tokenizer.encode(text, add_bos=False) == [int(token) for token in line.split()], text
