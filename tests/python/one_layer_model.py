"""A model of one MoE layer whose attention adds nothing, so that numpy can say what each expert
sees: x = rms_norm(embedding of the token)."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDTH, UNITS, EXPERTS, USED, VOCABULARY = 256, 512, 4, 2, 400
_EPSILON = 1e-5


class OneLayerModel:
    """The file, and its matrices as float64."""

    def __init__(self, path: Path, seed: int = 1, *, never_used: tuple[int, ...] = ()) -> None:
        random = np.random.default_rng(seed)
        # Channels of different strength, as real models have them.
        strength = np.exp(0.7 * random.standard_normal(WIDTH))
        self.embedding = random.standard_normal((VOCABULARY, WIDTH)) * strength
        self.router = random.standard_normal((EXPERTS, WIDTH)) / 16
        # Unused experts have a router row that points away from everything.
        self.embedding[:, 0] = 3.0
        for expert in range(EXPERTS):
            self.router[expert, 0] = -9.0 if expert in never_used else 0.0
        self.gate = random.standard_normal((EXPERTS, UNITS, WIDTH)) / 12
        self.up = random.standard_normal((EXPERTS, UNITS, WIDTH)) / 12
        self.down = random.standard_normal((EXPERTS, WIDTH, UNITS)) / 16
        self.down *= np.exp(0.5 * random.standard_normal((EXPERTS, 1, UNITS)))
        for name in ("embedding", "router", "gate", "up", "down"):
            values = getattr(self, name).astype(np.float32)
            setattr(self, name, values.astype(np.float64))
        self.path = path
        self._write()

    def _write(self) -> None:
        writer = gguf.GGUFWriter(self.path, "llama")
        writer.add_block_count(1)
        writer.add_context_length(128)
        writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(UNITS)
        writer.add_head_count(4)
        writer.add_layer_norm_rms_eps(_EPSILON)
        writer.add_rope_dimension_count(64)
        writer.add_vocab_size(VOCABULARY)
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(USED)
        tensors = {
            "token_embd": self.embedding,
            "output_norm": np.ones(WIDTH),
            "output": np.zeros((VOCABULARY, WIDTH)),
            "blk.0.attn_norm": np.ones(WIDTH),
            "blk.0.ffn_norm": np.ones(WIDTH),
            "blk.0.ffn_gate_inp": self.router,
            "blk.0.ffn_gate_exps": self.gate,
            "blk.0.ffn_up_exps": self.up,
            "blk.0.ffn_down_exps": self.down,
        }
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.0.{name}"] = np.zeros((WIDTH, WIDTH))
        for name, values in tensors.items():
            writer.add_tensor(f"{name}.weight", values.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def inputs(self, tokens: npt.NDArray[np.int32]) -> Floats:
        rows = self.embedding[tokens]
        norms: Floats = np.sqrt((rows**2).mean(axis=1, keepdims=True) + _EPSILON)
        return rows / norms

    def routing(self, x: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
        """Experts [tokens, used], best first, and their weights."""
        logits = x @ self.router.T
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, :USED]
        weights = np.take_along_axis(scores, chosen, axis=1)
        return chosen, weights / weights.sum(axis=1, keepdims=True)


def silu(x: Floats) -> Floats:
    result: Floats = x / (1 + np.exp(-x))
    return result


def expert_output(x: Floats, gate: Floats, up: Floats, down: Floats) -> Floats:
    result: Floats = (silu(x @ gate.T) * (x @ up.T)) @ down.T
    return result
