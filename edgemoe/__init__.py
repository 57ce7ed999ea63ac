"""edgemoe: runs Mixture-of-Experts language models that are larger than the memory.

Owns the public Python interface; may use everything in this package.

>>> from edgemoe import Model  # doctest: +SKIP
>>> with Model.load("model.gguf", memory="4GiB") as model:  # doctest: +SKIP
...     for piece in model.generate("Once upon a time", max_tokens=64):
...         print(piece, end="")
"""

from __future__ import annotations

from edgemoe._core import __version__
from edgemoe.errors import (
    ArgumentError,
    EdgemoeError,
    InternalError,
    MemoryBudgetError,
    ModelFormatError,
    OperationCancelledError,
    ReadError,
    UnsupportedModelError,
)
from edgemoe.generation import Generation
from edgemoe.model import Model
from edgemoe.options import CachePolicy, PreloadPolicy, Sampling
from edgemoe.stats import Stats

__all__ = [
    "CachePolicy",
    "ArgumentError",
    "EdgemoeError",
    "Generation",
    "InternalError",
    "MemoryBudgetError",
    "Model",
    "ModelFormatError",
    "OperationCancelledError",
    "PreloadPolicy",
    "ReadError",
    "Sampling",
    "Stats",
    "UnsupportedModelError",
    "__version__",
]
