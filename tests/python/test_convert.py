"""edgemoe convert: a file holds what its checkpoint folder holds, and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from golden_models import GOLDEN, inputs_of
from packed_file import TensorFile
from tiny_checkpoint import (
    SWITCH_CONFIG,
    Tensors,
    sentencepiece_model,
    switch_folder,
    switch_tensors,
    write_folder,
)

from edgemoe.convert import conversion, convert
from edgemoe.errors import ArgumentError
from edgemoe.model import Model
from edgemoe.options import LoadOptions

MATRICES = {"wi": "ffn_up", "wo": "ffn_down"}


def gguf_names(config: dict[str, Any]) -> dict[str, list[str]]:
    """Where the tensors of a file come from."""
    names = {"token_embd.weight": ["shared.weight"]}
    for stack, layers in (("encoder", "num_layers"), ("decoder", "num_decoder_layers")):
        names[f"{stack[:3]}.output_norm.weight"] = [f"{stack}.final_layer_norm.weight"]
        for layer in range(config[layers]):
            source, target = f"{stack}.block.{layer}.layer.", f"{stack[:3]}.blk.{layer}."
            kinds = [("0.SelfAttention", "attn")]
            kinds += [("1.EncDecAttention", "cross_attn")] if stack == "decoder" else []
            for kind, short in kinds:
                for matrix in "qkvo":
                    names[f"{target}{short}_{matrix}.weight"] = [f"{source}{kind}.{matrix}.weight"]
                names[f"{target}{short}_norm.weight"] = [f"{source}{kind[0]}.layer_norm.weight"]
            if layer == 0:
                bias = f"{source}0.SelfAttention.relative_attention_bias.weight"
                names[f"{target}attn_rel_b.weight"] = [bias]
            last = f"{source}{len(kinds)}."
            names[f"{target}ffn_norm.weight"] = [f"{last}layer_norm.weight"]
            if layer % 2 == 1:
                names[f"{target}ffn_gate_inp.weight"] = [f"{last}mlp.router.classifier.weight"]
            for matrix, short in MATRICES.items():
                if layer % 2 == 0:
                    names[f"{target}{short}.weight"] = [f"{last}mlp.{matrix}.weight"]
                    continue
                names[f"{target}{short}_exps.weight"] = [
                    f"{last}mlp.experts.expert_{expert}.{matrix}.weight"
                    for expert in range(config["num_experts"])
                ]
    return names


def check_tensors(file: TensorFile, tensors: Tensors, config: dict[str, Any]) -> None:
    names = gguf_names(config)
    assert set(file.tensors) == set(names)
    for name, sources in names.items():
        parts = [tensors[source] for source in sources]
        expected = np.stack(parts) if name.endswith("_exps.weight") else parts[0]
        assert np.array_equal(file.weights(name).reshape(expected.shape), expected), name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return switch_folder(tmp_path / "tiny-switch")


def test_keys_and_tensors_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    report = convert(str(folder), str(tmp_path / "out.gguf"))
    file = TensorFile(tmp_path / "out.gguf")
    check_tensors(file, switch_tensors(SWITCH_CONFIG), SWITCH_CONFIG)
    assert report.architecture == "switch-transformers"
    assert report.num_tensors == len(file.tensors)
    assert report.file_bytes == (tmp_path / "out.gguf").stat().st_size
    assert report.bytes_by_type == {"F32": sum(tensor[5] for tensor in file.tensors.values())}
    keys = file.file.values("switch-transformers.")
    expected = {
        "block_count": 2,
        "decoder_block_count": 3,
        "embedding_length": 32,
        "feed_forward_length": 40,
        "attention.head_count": 4,
        "attention.key_length": 6,
        "attention.relative_buckets_count": 8,
        "attention.relative_max_distance": 20,
        "expert_count": 3,
        "expert_used_count": 1,
        "decoder_start_token_id": 0,
        "context_length": 512,
    }
    assert {key: keys[f"switch-transformers.{key}"] for key in expected} == expected
    assert keys["switch-transformers.logit_scale"] == pytest.approx(32**0.5)
    assert file["general.name"] == "tiny-switch"


def test_shards_and_pieces_change_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(str(folder), str(tmp_path / "one.gguf"))
    sharded = switch_folder(tmp_path / "sharded" / "tiny-switch", shards=3)
    monkeypatch.setattr(conversion, "_PIECE_BYTES", 4 * 32 * 7)
    convert(str(sharded), str(tmp_path / "two.gguf"))
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_a_type_is_kept_or_changed(dtype: str, tmp_path: Path) -> None:
    folder = switch_folder(tmp_path / "half", dtype=dtype)
    tensors = switch_tensors(SWITCH_CONFIG)
    for wanted in ("auto", "F32", "BF16", "F16"):
        convert(str(folder), str(tmp_path / "out.gguf"), type=wanted)
        file = TensorFile(tmp_path / "out.gguf")
        assert file.type("enc.blk.1.ffn_up_exps.weight") == (dtype if wanted == "auto" else wanted)
        for name in ("enc.blk.1.ffn_gate_inp.weight", "dec.blk.0.attn_norm.weight"):
            assert file.type(name) == "F32"
        check_tensors(file, tensors, SWITCH_CONFIG)


def test_rows_that_are_no_whole_blocks_stay_f16(folder: Path, tmp_path: Path) -> None:
    report = convert(str(folder), str(tmp_path / "out.gguf"), type="Q8_0")
    file = TensorFile(tmp_path / "out.gguf")
    assert file.type("token_embd.weight") == file.type("enc.blk.1.ffn_up_exps.weight") == "Q8_0"
    assert file.type("enc.blk.1.ffn_down_exps.weight") == "F16"  # rows of 40
    assert "enc.blk.1.ffn_down_exps.weight" in report.fallbacks
    expected = switch_tensors(SWITCH_CONFIG)["shared.weight"]
    assert np.abs(file.weights("token_embd.weight") - expected).max() < 0.5 / 127


def test_an_untied_output_has_a_tensor_and_no_scale(tmp_path: Path) -> None:
    folder = switch_folder(tmp_path / "untied", tie_word_embeddings=False)
    convert(str(folder), str(tmp_path / "out.gguf"))
    file = TensorFile(tmp_path / "out.gguf")
    assert file["switch-transformers.logit_scale"] == 1.0
    config = {**SWITCH_CONFIG, "tie_word_embeddings": False}
    assert np.array_equal(file.weights("output.weight"), switch_tensors(config)["lm_head.weight"])


def test_a_converted_model_answers(folder: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "out.gguf")
    convert(str(folder), path)
    with Model(path, LoadOptions(memory="min", context=64, cache_folder="none")) as model:
        assert model.has_encoder
        generation = model.generate("the lazy <extra_id_0> dog", max_tokens=12, temperature=0)
        text = "".join(generation)
        source = [*model.tokenize("the lazy <extra_id_0> dog"), 1]
        assert generation.prompt_tokens == len(source)
        tokens = [0]
        for token in generation.tokens:
            assert token == model.logits(tokens, source=source)[-1].argmax()
            tokens.append(token)
        assert text == model.tokenizer.decode(generation.tokens).removeprefix(" ")


def test_a_golden_model_comes_back(tmp_path: Path) -> None:
    """From the file to a folder and back again."""
    golden = TensorFile(GOLDEN / "switch-transformers.gguf")
    keys = golden.file.values("switch-transformers.")
    config = {
        **SWITCH_CONFIG,
        "vocab_size": golden.weights("token_embd.weight").shape[0],
        "d_model": keys["switch-transformers.embedding_length"],
        "d_kv": keys["switch-transformers.attention.key_length"],
        "d_ff": keys["switch-transformers.feed_forward_length"],
        "num_heads": keys["switch-transformers.attention.head_count"],
        "num_layers": keys["switch-transformers.block_count"],
        "num_decoder_layers": keys["switch-transformers.decoder_block_count"],
        "num_experts": keys["switch-transformers.expert_count"],
        "relative_attention_num_buckets": keys[
            "switch-transformers.attention.relative_buckets_count"
        ],
        "relative_attention_max_distance": keys[
            "switch-transformers.attention.relative_max_distance"
        ],
    }
    tensors: Tensors = {}
    for name, sources in gguf_names(config).items():
        values = golden.weights(name)
        parts = values if name.endswith("_exps.weight") else [values.squeeze()]
        tensors.update(zip(sources, parts, strict=True))
    folder = write_folder(tmp_path / "again", config, tensors)
    convert(str(folder), str(tmp_path / "out.gguf"))
    tokens, source = inputs_of("switch-transformers")
    options = LoadOptions(memory="min", context=64, kv_type="f32", cache_folder="none")
    logits = []
    for path in (GOLDEN / "switch-transformers.gguf", tmp_path / "out.gguf"):
        with Model(str(path), options, with_text=False) as model:
            logits.append(model.logits(tokens, source=source))
    assert np.array_equal(logits[0], logits[1])


def minicpm_folder(folder: Path) -> tuple[Path, list[int]]:
    """The golden model as a checkpoint."""
    file = TensorFile(GOLDEN / "minicpm-moe.gguf")
    keys = file.file.values("minicpm.")
    layers = keys["minicpm.block_count"]
    heads = keys["minicpm.attention.head_count"]
    kv_heads = keys.get("minicpm.attention.head_count_kv", heads)
    embedding = file.weights("token_embd.weight")
    config = {
        "model_type": "minicpm",
        "hidden_size": keys["minicpm.embedding_length"],
        "intermediate_size": keys["minicpm.feed_forward_length"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
        "num_experts": keys["minicpm.expert_count"],
        "num_experts_per_tok": keys["minicpm.expert_used_count"],
        "vocab_size": embedding.shape[0],
        "rms_norm_eps": keys["minicpm.attention.layer_norm_rms_epsilon"],
        "rope_theta": keys.get("minicpm.rope.freq_base", 10000.0),
        "scale_emb": keys.get("minicpm.embedding_scale", 12.0),
        "scale_depth": keys.get("minicpm.residual_scale", 1.4 / layers**0.5) * layers**0.5,
        "dim_model_base": 256,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    tensors = {"model.embed_tokens.weight": embedding}
    tensors["model.norm.weight"] = file.weights("output_norm.weight").squeeze()
    if "output.weight" in file.tensors:
        tensors["lm_head.weight"] = file.weights("output.weight")
    for layer in range(layers):
        target, source = f"model.layers.{layer}.", f"blk.{layer}."
        norms = (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"))
        for theirs, ours in norms:
            tensors[f"{target}{theirs}.weight"] = file.weights(f"{source}{ours}.weight").squeeze()
        for matrix, count in (("q", heads), ("k", kv_heads), ("v", 0)):
            rows = file.weights(f"{source}attn_{matrix}.weight")
            if count:  # neighbours to halves
                size = rows.shape[0] // count
                rows = rows.reshape(count, size // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
            tensors[f"{target}self_attn.{matrix}_proj.weight"] = rows
        tensors[f"{target}self_attn.o_proj.weight"] = file.weights(f"{source}attn_output.weight")
        tensors[f"{target}mlp.gate.weight"] = file.weights(f"{source}ffn_gate_inp.weight")
        for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down")):
            for expert, values in enumerate(file.experts(layer, ours)):
                tensors[f"{target}mlp.experts.{expert}.{theirs}.weight"] = values
    return write_folder(folder, config, tensors), inputs_of("minicpm-moe")[0]


def test_minicpm_comes_back(tmp_path: Path) -> None:
    folder, tokens = minicpm_folder(tmp_path / "minicpm")
    convert(str(folder), str(tmp_path / "out.gguf"))
    golden, found = TensorFile(GOLDEN / "minicpm-moe.gguf"), TensorFile(tmp_path / "out.gguf")
    assert set(found.tensors) == set(golden.tensors)
    for name in golden.tensors:
        assert np.array_equal(found.weights(name), golden.weights(name)), name
    options = LoadOptions(memory="min", context=64, kv_type="f32", cache_folder="none")
    with Model(str(tmp_path / "out.gguf"), options) as model:
        rows = model.logits(tokens)
    expected = np.load(GOLDEN / "minicpm-moe.npz")["prefill"]
    # Of the scale of logits the two have different ideas; it is one factor.
    factor = float((rows * expected).sum() / (rows**2).sum())
    assert np.sqrt(np.mean((factor * rows - expected) ** 2) / np.mean(expected**2)) < 1e-4


def test_the_command_converts_and_the_model_runs(
    folder: Path, tmp_path: Path, edgemoe: Run
) -> None:
    out = tmp_path / "out.gguf"
    result = edgemoe("convert", folder, "-o", out, "--type", "bf16", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["path"] == str(out) and report["architecture"] == "switch-transformers"
    shown = edgemoe("inspect", out, "--memory", "1GiB")
    assert b"2 layers of the encoder and 3 of the decoder" in shown.stdout
    arguments = ("run", out, "-p", "the dog", "-n", "5", "--temp", "0", "-c", "32", "--json")
    answer = edgemoe(*arguments, "--memory", "1GiB")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["tokens"] <= 5
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("bench", "OUT", "-p", "4", "-n", "4"), "encoder"),
        (("perplexity", "OUT", "--file", "TEXT"), "encoder"),
        (("trace", "OUT", "-p", "a dog", "-o", "TRACE"), "encoder"),
        (("pack", "OUT", "--uniform", "Q8_0", "-o", "PACKED"), "encoder"),
        (("profile", "OUT", "--calibration", "TEXT", "-o", "PROFILE"), "encoder"),
        (("chat", "OUT"), "chat template"),
    ],
)
def test_what_an_encoder_does_not_fit_says_so(
    folder: Path, tmp_path: Path, fails: Callable[..., str], arguments: tuple[str, ...], part: str
) -> None:
    convert(str(folder), str(tmp_path / "OUT"))
    (tmp_path / "TEXT").write_text("the quick brown fox " * 400)
    files = {"OUT", "TEXT", "TRACE", "PACKED", "PROFILE"}
    words = [str(tmp_path / word) if word in files else word for word in arguments]
    assert part in fails(1, *words)


def test_a_source_goes_with_an_encoder(folder: Path, tmp_path: Path, demo: str) -> None:
    convert(str(folder), str(tmp_path / "out.gguf"))
    options = LoadOptions(memory="min", context=16, cache_folder="none")
    with Model(str(tmp_path / "out.gguf"), options, with_text=False) as model:
        with pytest.raises(ArgumentError, match="encoder"):
            model.logits([0, 1])
        with pytest.raises(ArgumentError, match="16 tokens"):
            model.logits([0, 1], source=[3] * 17)
    with Model(demo, options, with_text=False) as model, pytest.raises(ArgumentError):
        model.logits([0, 1], source=[3])


def test_the_vocabulary_may_be_smaller_than_the_embedding(folder: Path, tmp_path: Path) -> None:
    pieces = len(sentencepiece_model())
    assert pieces > 0
    convert(str(folder), str(tmp_path / "out.gguf"))
    tokens = TensorFile(tmp_path / "out.gguf")["tokenizer.ggml.tokens"]
    assert len(tokens) == SWITCH_CONFIG["vocab_size"]
    first = tokens.index(b"<extra_id_99>")
    assert tokens[first + 99] == b"<extra_id_0>"
    assert tokens[first + 100].startswith(b"[PAD")
