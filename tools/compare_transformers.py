#!/usr/bin/env python3
"""Compares converted Switch Transformers with transformers, on random models in float32.

    compare_transformers.py                     every case: logits, one by one, greedy answers
    compare_transformers.py --golden FOLDER     writes the golden models into FOLDER

Needs torch, transformers and safetensors beside edgemoe; the test command needs none of them.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from edgemoe.convert import convert
from edgemoe.model import Model
from edgemoe.options import LoadOptions

BOUND = 1e-4
TOKENS = 40  # of a greedy answer

# Sizes that differ from each other, odd ones included. A sparse layer is every n-th from the second
# on, or every one.
CASES: dict[str, dict[str, Any]] = {
    "usual": {"num_layers": 4, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2},
    "all-sparse": {
        "num_sparse_encoder_layers": 2,
        "num_sparse_decoder_layers": 3,
        "num_experts": 5,
    },
    "odd": {"d_model": 44, "d_kv": 10, "num_heads": 3, "d_ff": 36, "num_experts": 7},
    "untied": {"tie_word_embeddings": False, "d_kv": 24, "num_heads": 2},
    "few-buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
    "odd-buckets": {"relative_attention_num_buckets": 13, "relative_attention_max_distance": 50},
    "router-bias": {"router_bias": True, "num_experts": 3},
    "dense-decoder": {"num_sparse_decoder_layers": 0, "num_decoder_layers": 4},
    "dense-encoder": {"num_sparse_encoder_layers": 0, "num_layers": 1},
    "one-expert": {"num_experts": 1},
}
GOLDEN = {
    "switch-transformers": {"vocab_size": 200, "d_ff": 40, "num_experts": 6},
    "switch-transformers-untied": {
        "vocab_size": 200,
        "d_ff": 32,
        "num_experts": 4,
        **CASES["untied"],
        "router_bias": True,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 24,
        "num_sparse_encoder_layers": 2,
    },
}
DEFAULTS: dict[str, Any] = {
    "vocab_size": 320,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "num_experts": 8,
    "expert_capacity": 100000,
    "decoder_start_token_id": 0,
}


def vocabulary(pieces: int, rule: str) -> bytes:
    """A small Unigram model with the ids of T5."""
    words = (Path(__file__).parent.parent / "README.md").read_text("utf-8").split("\n")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_writer=out,
        vocab_size=pieces,
        normalization_rule_name=rule,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


def random_model(case: dict[str, Any], seed: int) -> Any:
    """Weights of a size at which every part matters."""
    torch.manual_seed(seed)
    config = SwitchTransformersConfig(**{**DEFAULTS, **case})
    model = SwitchTransformersForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.copy_(0.5 + torch.rand_like(parameter))
            elif "relative_attention_bias" in name:
                parameter.copy_(2 * torch.randn_like(parameter))
            elif "router" in name or "SelfAttention" in name or "EncDecAttention" in name:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
            elif "mlp" in name:
                parameter.copy_(1.5 * torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
        for stack in (model.encoder, model.decoder):  # which one that is not tied has anew
            stack.embed_tokens.weight.copy_(model.shared.weight)
    return model


def checkpoint(model: Any, folder: Path, proto: bytes, sentinels: int = 100) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "spiece.model").write_bytes(proto)
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": sentinels}))


def reference(model: Any, source: list[int], tokens: list[int]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        output = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([tokens]))
    return np.asarray(output.logits[0].float().numpy())


def greedy(model: Any, source: list[int], count: int) -> list[int]:
    """Without generate(), whose defaults change."""
    tokens = [model.config.decoder_start_token_id]
    for _ in range(count):
        tokens.append(int(reference(model, source, tokens)[-1].argmax()))
        if tokens[-1] == model.config.eos_token_id:
            break
    return tokens[1:]


def relative_error(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def sequences(seed: int, vocab_size: int) -> tuple[list[int], list[int]]:
    """What the encoder reads and the decoder's tokens, longer than the distances of a bucket."""
    numbers = np.random.default_rng(seed)
    source = numbers.integers(3, vocab_size, size=int(numbers.integers(40, 170))).tolist()
    tokens = numbers.integers(3, vocab_size, size=int(numbers.integers(20, 150))).tolist()
    return source, [0, *tokens]


def compare(name: str, case: dict[str, Any], folder: Path, proto: bytes) -> float:
    model = random_model(case, seed=len(name))
    checkpoint(model, folder / name, proto)
    path = folder / f"{name}.gguf"
    convert(str(folder / name), str(path))
    worst = 0.0
    options = LoadOptions(memory="min", context=256, batch=64, kv_type="f32", cache_folder="none")
    with Model(str(path), options) as ours:
        for seed in range(3):
            source, tokens = sequences(seed, model.config.vocab_size)
            expected = reference(model, source, tokens)
            for one_by_one in (False, True):
                found = ours.logits(tokens, source=source, one_by_one=one_by_one)
                worst = max(worst, relative_error(found, expected))
            answer = ours.generate(source, max_tokens=TOKENS, temperature=0)
            for _ in answer:
                pass
            if answer.tokens != greedy(model, source, TOKENS):
                print(f"{name}: another greedy answer")
                worst = float("inf")
    return worst


def separated(model: Any, source: list[int], tokens: list[int]) -> bool:
    """No routing decision is nearly a tie."""
    gaps = []

    def look(module: Any, inputs: Any, output: Any) -> None:
        logits = module.classifier(inputs[0]).reshape(-1, module.num_experts)
        best = logits.topk(2, dim=-1).values
        gaps.append(float((best[:, 0] - best[:, 1]).min()))

    hooks = [
        module.register_forward_hook(look)
        for name, module in model.named_modules()
        if name.endswith("mlp.router")
    ]
    reference(model, source, tokens)
    for hook in hooks:
        hook.remove()
    return min(gaps) > 0.01


def write_golden(name: str, case: dict[str, Any], folder: Path, proto: bytes) -> None:
    model = random_model(case, seed=7)
    numbers = np.random.default_rng(1)
    while True:
        source = numbers.integers(3, 200, size=48).tolist()
        tokens = [0, *numbers.integers(3, 200, size=39).tolist()]
        if separated(model, source, tokens):
            break
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint(model, Path(scratch) / name, proto, sentinels=10)
        convert(str(Path(scratch) / name), str(folder / f"{name}.gguf"))
    np.savez(
        folder / f"{name}.npz",
        source=np.asarray(source, dtype=np.int32),
        tokens=np.asarray(tokens, dtype=np.int32),
        prefill=reference(model, source, tokens),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--golden", type=Path, help="write the golden models into this folder")
    golden = parser.parse_args().golden
    if golden is not None:
        for name, case in GOLDEN.items():  # without the large table of what is normalised
            write_golden(name, case, golden, vocabulary(150, "identity"))
        return 0
    proto = vocabulary(200, "nmt_nfkc")
    scratch = Path(tempfile.mkdtemp())
    try:
        errors = {name: compare(name, case, scratch, proto) for name, case in CASES.items()}
    finally:
        shutil.rmtree(scratch)
    for name, error in errors.items():
        print(f"{name}: relative error {error:.1e}")
    return 1 if max(errors.values()) > BOUND else 0


if __name__ == "__main__":
    sys.exit(main())
