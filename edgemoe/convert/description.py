"""What a GGUF file will hold: its keys, and its tensors with where they come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe.convert.safetensors_file import TensorEntry

# Row numbers of a checkpoint's matrix in the order in which the file has them.
RowOrder = Callable[[int], npt.NDArray[np.intp]]


@dataclass(frozen=True)
class OutputTensor:
    """One tensor; `parts` are stacked, where there are several: the experts of a layer."""

    name: str
    parts: tuple[TensorEntry, ...]
    is_stack: bool = False
    keeps_floats: bool = False  # float32 whatever type is asked for
    row_order: RowOrder | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy has it: columns last."""
        part = self.parts[0].shape
        return (len(self.parts), *part) if self.is_stack else part

    @property
    def rows(self) -> int:
        """Of one part."""
        return math.prod(self.parts[0].shape[:-1])


@dataclass
class Description:
    """Keys by name with the value type that GGUF gives them: "uint32", "float32", "bool",
    "string" or "array"."""

    architecture: str
    keys: list[tuple[str, str, Any]] = field(default_factory=list)
    tensors: list[OutputTensor] = field(default_factory=list)

    def set(self, name: str, kind: str, value: Any) -> None:
        """A key below the architecture's name."""
        self.keys.append((f"{self.architecture}.{name}", kind, value))

    def set_token(self, name: str, kind: str, value: Any) -> None:
        """A key of the tokenizer."""
        self.keys.append((f"tokenizer.ggml.{name}", kind, value))

    def add(self, name: str, part: TensorEntry, *, keeps_floats: bool = False) -> None:
        self.tensors.append(OutputTensor(name, (part,), keeps_floats=keeps_floats))
