"""Checkpoint folders as Hugging Face has them, tiny and random, written without its libraries."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

Tensors = dict[str, npt.NDArray[np.float32]]

SWITCH_CONFIG: dict[str, Any] = {
    "model_type": "switch_transformers",
    "vocab_size": 300,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 40,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_experts": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": True,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
_TEXT = """The quick brown fox jumps over the lazy dog. A model is mostly expert weights, and a
token uses few of them; the others stay on storage until a router asks for them. Numbers: 0 1 2 3 4
5 6 7 8 9, signs: ! ? ( ) - + * / = and words with accents: café, naïve, Ångström, Zürich."""


@cache
def sentencepiece_model(kind: str = "unigram", pieces: int = 120) -> bytes:
    """Trained on a few lines; Unigram has the ids of T5, BPE those of LLaMA."""
    out = io.BytesIO()
    t5 = kind == "unigram"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT.split("\n") * 3),
        model_writer=out,
        vocab_size=pieces,
        model_type=kind,
        pad_id=0 if t5 else -1,
        eos_id=1 if t5 else 2,
        unk_id=2 if t5 else 0,
        bos_id=-1 if t5 else 1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


def write_safetensors(path: Path, tensors: Tensors, dtype: str = "F32") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts = []
    place = 0
    for name, values in tensors.items():
        data = np.ascontiguousarray(values, dtype=np.float32)
        if dtype == "BF16":
            raw = (data.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            raw = data.astype(np.float16 if dtype == "F16" else np.float32).tobytes()
        offsets = [place, place + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        parts.append(raw)
        place += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def _attention(name: str, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    inner = config["num_heads"] * config["d_kv"]
    for matrix in "qkv":
        shapes[f"{name}.{matrix}.weight"] = (inner, config["d_model"])
    shapes[f"{name}.o.weight"] = (config["d_model"], inner)
    shapes[f"{name.rsplit('.', 1)[0]}.layer_norm.weight"] = (config["d_model"],)


def switch_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every second layer has experts, from the second on."""
    width, hidden = config["d_model"], config["d_ff"]
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (config["vocab_size"], width)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    stacks = {"encoder": config["num_layers"], "decoder": config["num_decoder_layers"]}
    for stack, layers in stacks.items():
        shapes[f"{stack}.final_layer_norm.weight"] = (width,)
        for layer in range(layers):
            block = f"{stack}.block.{layer}.layer."
            _attention(f"{block}0.SelfAttention", config, shapes)
            if layer == 0:
                name = f"{block}0.SelfAttention.relative_attention_bias.weight"
                shapes[name] = (config["relative_attention_num_buckets"], config["num_heads"])
            last = 1
            if stack == "decoder":
                _attention(f"{block}1.EncDecAttention", config, shapes)
                last = 2
            shapes[f"{block}{last}.layer_norm.weight"] = (width,)
            mlp = f"{block}{last}.mlp."
            networks = [mlp]
            if layer % 2 == 1:
                shapes[f"{mlp}router.classifier.weight"] = (config["num_experts"], width)
                networks = [f"{mlp}experts.expert_{i}." for i in range(config["num_experts"])]
            for network in networks:
                shapes[f"{network}wi.weight"] = (hidden, width)
                shapes[f"{network}wo.weight"] = (width, hidden)
    return shapes


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    """Multiples of 1/64 below 2: exact in every float type."""
    numbers = np.random.default_rng(seed)
    return {
        name: (numbers.integers(-31, 32, size=shape) / 64).astype(np.float32)
        for name, shape in shapes.items()
    }


def switch_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    return random_tensors(switch_shapes(config), seed)


def write_folder(
    folder: Path,
    config: dict[str, Any],
    tensors: Tensors,
    *,
    dtype: str = "F32",
    shards: int = 1,
) -> Path:
    """A folder with config.json, the tensors and the vocabulary that its family has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if config["model_type"] == "minicpm":
        (folder / "tokenizer.model").write_bytes(sentencepiece_model("bpe"))
    else:
        (folder / "spiece.model").write_bytes(sentencepiece_model())
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return folder
    places = {}
    names = sorted(tensors)
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        write_safetensors(folder / file, part, dtype)
        places.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def switch_folder(folder: Path, *, dtype: str = "F32", shards: int = 1, **changes: Any) -> Path:
    config = {**SWITCH_CONFIG, **changes}
    return write_folder(folder, config, switch_tensors(config), dtype=dtype, shards=shards)
