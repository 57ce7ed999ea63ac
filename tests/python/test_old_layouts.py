"""Files of old converters give the same bits as those of new ones."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edgemoe.errors import EdgemoeError
from edgemoe.model import Model
from edgemoe.options import LoadOptions

GOLDEN = Path(__file__).parent.parent / "golden"
Tensors = dict[str, npt.NDArray[np.float32]]


def write_with(
    source: Path, tensors: Tensors, path: Path, values: dict[str, float | None] | None = None
) -> None:
    """The metadata of `source` with other tensors and `values`; None takes a key away."""
    values = values or {}
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(path, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in values:
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, element)
    for key, value in values.items():
        if value is not None:
            writer.add_float32(key, value)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(path: Path, tokens: list[int]) -> npt.NDArray[np.float32]:
    options = LoadOptions(memory="min", context=64)
    with Model(str(path), options, with_text=False) as model:
        return model.logits(tokens)


def tensors_of(source: Path) -> Tensors:
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(source).tensors}


def test_one_matrix_for_what_a_delta_net_reads(tmp_path: Path) -> None:
    source = GOLDEN / "qwen3next.gguf"
    reader = gguf.GGUFReader(source)
    tensors = tensors_of(source)
    heads = int(reader.fields["qwen3next.ssm.group_count"].contents())
    keys = heads * int(reader.fields["qwen3next.ssm.state_size"].contents())
    values = int(reader.fields["qwen3next.ssm.inner_size"].contents())
    old: Tensors = {}
    for name, data in tensors.items():
        layer = name.rsplit("attn_qkv", 1)[0]
        if name == f"{layer}attn_qkv.weight" and f"{layer}attn_gate.weight" in tensors:
            parts = [*np.split(data, [keys, 2 * keys]), tensors[f"{layer}attn_gate.weight"]]
            assert len(parts[2]) == values
            by_head = [part.reshape(heads, -1, data.shape[1]) for part in parts]
            old[f"{layer}ssm_in.weight"] = np.concatenate(by_head, axis=1).reshape(
                -1, data.shape[1]
            )
        elif not (name.endswith("attn_gate.weight")):
            old[name] = data
    assert len(old) < len(tensors)
    write_with(source, old, tmp_path / "old.gguf")
    tokens = np.load(GOLDEN / "qwen3next.npz")["tokens"].tolist()
    assert np.array_equal(logits(tmp_path / "old.gguf", tokens), logits(source, tokens))


def test_scales_and_caps_that_grok_files_may_lack(tmp_path: Path) -> None:
    source = GOLDEN / "grok.gguf"
    usual: dict[str, float | None] = {
        "grok.embedding_scale": 78.38367176906169,
        "grok.logit_scale": 0.5773502691896257,
        "grok.attention.output_scale": 0.08838834764831845,
        "grok.attn_logit_softcapping": 30.0,
    }
    write_with(source, tensors_of(source), tmp_path / "new.gguf", usual)
    write_with(source, tensors_of(source), tmp_path / "old.gguf", dict.fromkeys(usual))
    tokens = np.load(GOLDEN / "grok.npz")["tokens"].tolist()
    expected = logits(tmp_path / "new.gguf", tokens)
    assert np.array_equal(logits(tmp_path / "old.gguf", tokens), expected)
    assert not np.array_equal(logits(source, tokens), expected)


def test_narrow_experts_take_no_norm_of_a_part(tmp_path: Path) -> None:
    tensors = tensors_of(GOLDEN / "nemotron_h_moe-latent.gguf")
    layer = next(name.split(".")[1] for name in tensors if "exps" in name)
    name = f"blk.{layer}.post_ffw_norm_1.weight"
    tensors[name] = np.ones(tensors["output_norm.weight"].shape, np.float32)
    path = tmp_path / "normed.gguf"
    write_with(GOLDEN / "nemotron_h_moe-latent.gguf", tensors, path)
    with pytest.raises(EdgemoeError, match=name):
        logits(path, [1, 2])
