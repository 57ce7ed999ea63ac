"""Packs a stock file into the container that the engine runs, by its description alone.

Small and slow, and apart from the product's own writer: what both agree on is the format.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import quants

from edgemoe import _core

PAGE = 4096
MATRICES = ("gate", "up", "down")
_UINT32, _STRING, _ARRAY, _UINT64 = 4, 8, 9, 10

# (layer, expert, matrix) -> the name of the type that it gets; None keeps the source's.
TypeOf = Callable[[int, int, str], "str | None"]


@dataclass
class Tensor:
    name: str
    type: str
    shape: tuple[int, ...]  # columns first
    data: bytes


@dataclass
class Container:
    """Everything that goes into the file; tests change it before it is written."""

    metadata: dict[str, bytes] = field(default_factory=dict)  # key -> type and value, as in a file
    dense: list[Tensor] = field(default_factory=list)
    experts: list[Tensor] = field(default_factory=list)
    alignment: int = PAGE

    def write(self, path: Path) -> str:
        self.metadata["general.alignment"] = uint32(self.alignment)
        tensors = [*self.dense, *self.experts]
        header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(self.metadata))
        for key, value in self.metadata.items():
            header += _text(key) + value
        ids = {name: number for name, number, _, _ in _core.testing.quant_types()}
        offset = 0
        for tensor in tensors:
            header += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
            header += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
            header += struct.pack("<IQ", ids[tensor.type], offset)
            offset += self._padded(len(tensor.data))
        with path.open("wb") as file:
            file.write(header.ljust(self._padded(len(header)), b"\0"))
            for tensor in tensors:
                file.write(tensor.data.ljust(self._padded(len(tensor.data)), b"\0"))
        return str(path)

    def _padded(self, size: int) -> int:
        return -(-size // self.alignment) * self.alignment


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def uint32(value: int) -> bytes:
    return struct.pack("<II", _UINT32, value)


def string(text: str) -> bytes:
    return struct.pack("<I", _STRING) + _text(text)


def uint64s(values: list[int]) -> bytes:
    header = struct.pack("<IIQ", _ARRAY, _UINT64, len(values))
    return header + struct.pack(f"<{len(values)}Q", *values)


def _values(tensor: Any) -> npt.NDArray[np.float32]:
    """As [..., rows, columns]."""
    shape = tuple(int(size) for size in reversed(tensor.shape))
    return quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)


class _Source:
    def __init__(self, path: str) -> None:
        reader = gguf.GGUFReader(path)
        self.fields = {
            name: b"".join(part.tobytes() for part in one.parts[2:])
            for name, one in reader.fields.items()
            if not name.startswith("GGUF.") and name != "general.alignment"
        }
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        arch = reader.fields["general.architecture"].contents()
        self.num_layers = int(reader.fields[f"{arch}.block_count"].contents())
        self.num_experts = int(reader.fields[f"{arch}.expert_count"].contents())

    def is_expert(self, name: str) -> bool:
        return name.endswith("_exps.weight")

    def experts(self, layer: int, matrix: str) -> tuple[str, Any, Any] | None:
        """The type, the bytes [experts, rows, row bytes] and how to get the values of one."""
        found = self.tensors.get(f"blk.{layer}.ffn_{matrix}_exps.weight")
        part = slice(None)
        if found is None and matrix != "down":
            found = self.tensors.get(f"blk.{layer}.ffn_gate_up_exps.weight")
            if found is not None:
                half = int(found.shape[1]) // 2
                part = slice(0, half) if matrix == "gate" else slice(half, 2 * half)
        if found is None:
            return None
        rows = int(found.shape[1])
        data = np.ascontiguousarray(found.data).view(np.uint8)
        data = data.reshape(self.num_experts, rows, -1)[:, part]
        values = _values(found)[:, part]
        return found.tensor_type.name, data, values


def _encoded(name: str, values: npt.NDArray[np.float32]) -> bytes:
    type_id = gguf.GGMLQuantizationType[name]
    return bytes(np.ascontiguousarray(quants.quantize(values, type_id)).tobytes())


def packed(path: str, type_of: TypeOf = lambda layer, expert, matrix: None) -> Container:
    source = _Source(path)
    container = Container(dict(source.fields))
    for name, tensor in source.tensors.items():
        if source.is_expert(name):
            continue
        shape = tuple(int(size) for size in tensor.shape)
        data = np.ascontiguousarray(tensor.data).tobytes()
        container.dense.append(Tensor(name, tensor.tensor_type.name, shape, data))
    for layer in range(source.num_layers):
        matrices = {matrix: source.experts(layer, matrix) for matrix in MATRICES}
        for expert in range(source.num_experts):
            for matrix, found in matrices.items():
                if found is None:
                    continue
                kind, data, values = found
                wanted = type_of(layer, expert, matrix)
                stock = data[expert].tobytes()
                if wanted is not None and wanted != kind:
                    kind, stock = wanted, _encoded(wanted, values[expert])
                rows, columns = values[expert].shape
                name = f"blk.{layer}.ffn_{matrix}.{expert}.weight"
                bytes_ = _core.testing.regroup(kind, stock, rows, columns)
                container.experts.append(Tensor(name, kind, (columns, rows), bytes_))
    container.metadata["edgemoe.format.version"] = uint32(1)
    container.metadata["edgemoe.layout.version"] = uint32(1)
    set_checksums(container, source.num_layers, source.num_experts)
    return container


def set_checksums(container: Container, num_layers: int, num_experts: int) -> None:
    experts: dict[tuple[int, int], bytes] = {}
    for tensor in container.experts:  # gate, up, down of each
        _, layer, _, expert, _ = tensor.name.split(".")
        key = (int(layer), int(expert))
        experts[key] = experts.get(key, b"") + tensor.data
    sums = [
        _core.testing.fast_hash(experts[layer, expert]) if (layer, expert) in experts else 0
        for layer in range(num_layers)
        for expert in range(num_experts)
    ]
    container.metadata["edgemoe.expert.checksums"] = uint64s(sums)
    dense = [_core.testing.fast_hash(tensor.data) for tensor in container.dense]
    container.metadata["edgemoe.dense.checksums"] = uint64s(dense)


def stock(path: str, type_name: str) -> Container:
    """The same model with all experts of one type, as a stock file."""
    source = _Source(path)
    container = Container(dict(source.fields), alignment=32)
    for name, tensor in source.tensors.items():
        shape = tuple(int(size) for size in tensor.shape)
        kind, data = tensor.tensor_type.name, np.ascontiguousarray(tensor.data).tobytes()
        if source.is_expert(name) and kind != type_name:
            kind, data = type_name, _encoded(type_name, _values(tensor))
        container.dense.append(Tensor(name, kind, shape, data))
    return container


# Three encodings of activations, and layouts that are regrouped or kept, in one expert.
_MIXED = (None, "Q8_0", "Q4_0", "BF16", "Q5_1", "MXFP4", "TQ2_0")


def mixed_type(layer: int, expert: int, matrix: str) -> str | None:
    return _MIXED[(3 * layer + expert + 2 * MATRICES.index(matrix)) % len(_MIXED)]


def with_stock_layout(container: Container) -> Container:
    """The same experts, one by one as in old files, in the layout of stock files."""
    experts = [
        Tensor(
            tensor.name,
            tensor.type,
            tensor.shape,
            _core.testing.ungroup(tensor.type, tensor.data, tensor.shape[1], tensor.shape[0]),
        )
        for tensor in container.experts
    ]
    metadata = {
        key: value for key, value in container.metadata.items() if not key.startswith("edgemoe.")
    }
    return Container(metadata, container.dense, experts, alignment=32)
