"""Writes the GGUF file of a checkpoint, a few rows at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np

from edgemoe import _core
from edgemoe.convert import minicpm, switch_transformers
from edgemoe.convert.checkpoint import Checkpoint
from edgemoe.convert.description import Description, OutputTensor
from edgemoe.convert.safetensors_file import TensorEntry
from edgemoe.errors import ModelFormatError, UnsupportedModelError
from edgemoe.output_file import output_file

# By key 'model_type' of config.json.
FAMILIES: dict[str, Callable[[Checkpoint], Description]] = {
    "switch_transformers": switch_transformers.describe,
    "minicpm": minicpm.describe,
}
AUTO = "auto"  # the type of each tensor of the checkpoint
_FLOATS = "F32"
_FALLBACK = "F16"  # of matrices whose rows are no whole number of blocks
_LARGEST_F16 = 65504.0
_PIECE_BYTES = 16 << 20  # of float32 in memory at a time


@dataclass
class ConversionReport:
    """What was written. `fallbacks` are tensors that did not get the type asked for."""

    architecture: str
    num_tensors: int = 0
    file_bytes: int = 0
    bytes_by_type: dict[str, int] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _TypedTensor:
    tensor: OutputTensor
    type: str

    @property
    def bytes(self) -> int:
        elements, block_bytes = _core.block_shape(self.type)
        rows = self.tensor.rows * len(self.tensor.parts)
        return rows * (self.tensor.shape[-1] // elements) * block_bytes


def describe(checkpoint: Checkpoint) -> Description:
    """Raises UnsupportedModelError for a family that is not known."""
    kind = checkpoint.config.text("model_type")
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UnsupportedModelError(
            f"{checkpoint.config.path}: key 'model_type' is {kind[:64]!r}; edgemoe converts "
            f"{known} (files of other families are made by the converter of llama.cpp)"
        )
    return FAMILIES[kind](checkpoint)


def convert(
    folder: str,
    path: str,
    *,
    type: str = AUTO,
    threads: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> ConversionReport:
    """Converts a checkpoint folder; `path` is there whole or not at all.

    `type` is that of all large matrices: "auto" keeps those of the checkpoint. `progress` is told
    bytes written and bytes to write.
    """
    checkpoint = Checkpoint(folder)
    description = describe(checkpoint)
    report = ConversionReport(description.architecture)
    tensors = [_typed(tensor, type, report) for tensor in description.tensors]
    report.num_tensors = len(tensors)
    total = sum(tensor.bytes for tensor in tensors)
    done = 0
    with output_file(path) as file:
        _write_head(file, checkpoint.name, description, tensors)
        for tensor in tensors:
            for piece in _pieces(tensor, threads):
                file.write(piece)
                done += len(piece)
                progress(done, total)
            _pad(file)
        report.file_bytes = file.tell()
        file.flush()
        os.fsync(file.fileno())
    return report


def _typed(tensor: OutputTensor, wanted: str, report: ConversionReport) -> _TypedTensor:
    chosen = tensor.parts[0].dtype if wanted == AUTO else wanted
    if tensor.keeps_floats or len(tensor.shape) == 1:
        chosen = _FLOATS
    elif tensor.shape[-1] % _core.block_elements(chosen) != 0:
        chosen = _FALLBACK
        report.fallbacks.append(tensor.name)
    typed = _TypedTensor(tensor, chosen)
    report.bytes_by_type[chosen] = report.bytes_by_type.get(chosen, 0) + typed.bytes
    return typed


def _write_head(
    file: BinaryIO, name: str, description: Description, tensors: list[_TypedTensor]
) -> None:
    """Everything in front of the tensors' bytes."""
    writer = gguf.GGUFWriter(Path(file.name), description.architecture)
    writer.add_name(name)
    if any(tensor.type not in ("F32", "F16", "BF16") for tensor in tensors):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    adders: dict[str, Callable[[str, Any], None]] = {
        "uint32": writer.add_uint32,
        "float32": writer.add_float32,
        "bool": writer.add_bool,
        "string": writer.add_string,
        "array": writer.add_array,
    }
    for key, kind, value in description.keys:
        adders[kind](key, value)
    for typed in tensors:
        writer.add_tensor_info(
            typed.tensor.name,
            typed.tensor.shape,
            np.dtype(np.float32),
            typed.bytes,
            gguf.GGMLQuantizationType[typed.type],
        )
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    file.seek(0, os.SEEK_END)
    _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def _pieces(typed: _TypedTensor, threads: int) -> Iterator[bytes]:
    """The bytes of a tensor, a few rows at a time."""
    tensor = typed.tensor
    step = max(1, _PIECE_BYTES // (4 * tensor.shape[-1]))
    order = None if tensor.row_order is None else tensor.row_order(tensor.rows)
    for part in tensor.parts:
        for first in range(0, tensor.rows, step):
            count = min(step, tensor.rows - first)
            if order is None:
                values = part.read_rows(first, count)
            else:
                values = part.read_rows(0, tensor.rows)[order[first : first + count]]
            _check(part, values, typed.type)
            if typed.type == _FLOATS:
                yield values.tobytes()
            else:
                yield _core.quantize(typed.type, np.ascontiguousarray(values), None, threads)


def _check(part: TensorEntry, values: np.ndarray[Any, np.dtype[np.float32]], type: str) -> None:
    where = f"{part.path}: tensor '{part.name}'"
    if not bool(np.isfinite(values).all()):
        raise ModelFormatError(f"{where} holds values that are not finite numbers")
    if type == "F16" and values.size and float(np.abs(values).max()) > _LARGEST_F16:
        raise UnsupportedModelError(
            f"{where} holds values too large for F16; convert with --type BF16 or F32"
        )
