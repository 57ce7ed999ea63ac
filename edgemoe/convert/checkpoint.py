"""A Hugging Face checkpoint folder: its configuration, and its tensors in one file or several."""

from __future__ import annotations

from pathlib import Path

from edgemoe.convert.config_file import ConfigFile, read_json
from edgemoe.convert.safetensors_file import TensorEntry, read_entries
from edgemoe.errors import ArgumentError, ModelFormatError, UnsupportedModelError

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Other ways to save a checkpoint, which are not read.
_OTHERS = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
)


class Checkpoint:
    """Tensors by name. Raises ReadError, ModelFormatError, UnsupportedModelError, ArgumentError."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ArgumentError(f"{folder}: is not a folder; give that of a checkpoint")
        self.config = ConfigFile(self.folder / "config.json")
        self._tensors = self._read_tensors()
        self._unused = set(self._tensors)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def file(self, name: str) -> Path:
        """A file of the folder that has to be there."""
        path = self.folder / name
        if not path.is_file():
            raise ModelFormatError(f"{path}: is missing; the folder is incomplete")
        return path

    def _read_tensors(self) -> dict[str, TensorEntry]:
        if (self.folder / _INDEX).is_file():
            return self._read_shards(self.folder / _INDEX)
        if (self.folder / _SINGLE).is_file():
            return read_entries(self.folder / _SINGLE)
        for other in _OTHERS:
            if (self.folder / other).exists():
                raise UnsupportedModelError(
                    f"{self.folder / other}: only safetensors are read; save the model again "
                    "with safe serialization"
                )
        raise ModelFormatError(f"{self.folder}: has neither {_SINGLE} nor {_INDEX}")

    def _read_shards(self, index: Path) -> dict[str, TensorEntry]:
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ModelFormatError(f"{index}: key 'weight_map' is missing or no object")
        shards: dict[str, dict[str, TensorEntry]] = {}
        tensors = {}
        for name, shard in places.items():
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise ModelFormatError(
                    f"{index}: key 'weight_map' has no file name of the folder for '{name}'"
                )
            if shard not in shards:
                shards[shard] = read_entries(self.file(shard))
            if name not in shards[shard]:
                raise ModelFormatError(
                    f"{self.folder / shard}: tensor '{name}' is missing, which {_INDEX} has there"
                )
            tensors[name] = shards[shard][name]
        return tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, shape: tuple[int, ...]) -> TensorEntry:
        """The tensor, which must have that shape."""
        if name not in self._tensors:
            raise ModelFormatError(f"{self.folder}: tensor '{name}' is missing")
        entry = self._tensors[name]
        if entry.shape != shape:
            raise ModelFormatError(
                f"{entry.path}: tensor '{name}' has shape {list(entry.shape)}; expected "
                f"{list(shape)} by config.json"
            )
        self._unused.discard(name)
        return entry

    def ignore(self, name: str) -> None:
        """A tensor that repeats another one."""
        self._unused.discard(name)

    def refuse_unused(self) -> None:
        """Raises UnsupportedModelError naming a tensor that nobody took."""
        if self._unused:
            name = min(self._unused)
            raise UnsupportedModelError(
                f"{self._tensors[name].path}: tensor '{name}' is not known; the model would be "
                "computed wrongly without it"
            )
