"""Reads the tensors of packed and stock files, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemoe import _core

MATRICES = ("gate", "up", "down")


class TensorFile:
    def __init__(self, path: str | Path) -> None:
        self.file = _core.GgufFile(str(path))
        self.tensors = {tensor[0]: tensor for tensor in self.file.tensors()}
        self.is_packed = "edgemoe.format.version" in self.file.values("edgemoe.")

    def __getitem__(self, key: str) -> Any:
        return self.file.values(key)[key]

    def type(self, name: str) -> str:
        return self.tensors[name][1]

    def raw(self, name: str) -> bytes:
        """The bytes as they lie in the file."""
        _, _, _, shard, offset, size = self.tensors[name]
        with open(self.file.paths[shard], "rb") as file:
            file.seek(offset)
            return file.read(size)

    def bytes(self, name: str) -> bytes:
        """The bytes of ordinary GGUF."""
        _, type_, shape, *_ = self.tensors[name]
        is_expert = len(name.split(".")) == 5 and name.split(".")[3].isdigit()
        if not (self.is_packed and is_expert):
            return self.raw(name)
        return _core.testing.ungroup(type_, self.raw(name), shape[1], shape[0])

    def weights(self, name: str) -> npt.NDArray[np.float32]:
        """[..., rows, columns]"""
        _, type_, shape, *_ = self.tensors[name]
        rows = int(np.prod(shape[1:]))
        flat = _core.dequantize(type_, self.bytes(name), rows, shape[0])
        return flat.reshape(*reversed(shape))

    def experts(self, layer: int, matrix: str) -> npt.NDArray[np.float32]:
        """[experts, rows, columns] of a stock file."""
        fused = f"blk.{layer}.ffn_gate_up_exps.weight"
        if matrix != "down" and fused in self.tensors:
            both = self.weights(fused)
            half = both.shape[1] // 2
            return both[:, :half] if matrix == "gate" else both[:, half:]
        return self.weights(f"blk.{layer}.ffn_{matrix}_exps.weight")
