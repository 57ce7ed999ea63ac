"""MiniCPM-MoE: a LLaMA with experts and with scales of embedding, residual stream and logits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgemoe.convert.checkpoint import Checkpoint
from edgemoe.convert.description import Description, OutputTensor, RowOrder
from edgemoe.convert.vocabulary import add_bpe_vocabulary
from edgemoe.errors import UnsupportedModelError

ARCHITECTURE = "minicpm"
# The matrices of an expert, by either of the names that checkpoints have.
_EXPERT_NAMES = {
    "ffn_gate": ("w1", "gate_proj"),
    "ffn_up": ("w3", "up_proj"),
    "ffn_down": ("w2", "down_proj"),
}


def describe(checkpoint: Checkpoint) -> Description:
    """Raises ModelFormatError and UnsupportedModelError naming file and key or tensor."""
    return _MiniCpm(checkpoint).describe()


def _interleaved(head_size: int) -> RowOrder:
    """Rotated pairs are the halves of a head in a checkpoint, and neighbours in the file."""

    def order(rows: int) -> npt.NDArray[np.intp]:
        places = np.arange(rows).reshape(-1, 2, head_size // 2)
        return places.swapaxes(1, 2).reshape(-1)

    return order


class _MiniCpm:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._from = checkpoint
        self._to = Description(ARCHITECTURE)
        config = checkpoint.config
        self._width = config.count("hidden_size")
        self._hidden = config.count("intermediate_size")
        self._heads = config.count("num_attention_heads")
        self._kv_heads = config.count("num_key_value_heads", self._heads)
        self._layers = config.count("num_hidden_layers")
        self._experts = config.count("num_experts")
        self._vocabulary = config.count("vocab_size")
        self._head_size = self._width // self._heads
        if self._width % (2 * self._heads) != 0:
            raise config.refuse("hidden_size", "is not a multiple of twice num_attention_heads")

    def describe(self) -> Description:
        if "rope_scaling" in self._from.config:
            raise UnsupportedModelError(
                f"{self._from.config.path}: key 'rope_scaling' is set, which is not converted"
            )
        self._set_keys()
        add_bpe_vocabulary(self._to, self._from, self._vocabulary)
        shape = (self._vocabulary, self._width)
        self._to.add("token_embd.weight", self._from.take("model.embed_tokens.weight", shape))
        self._norm("output_norm.weight", "model.norm.weight")
        if self._from.config.flag("tie_word_embeddings", True):
            self._from.ignore("lm_head.weight")
        else:
            self._to.add("output.weight", self._from.take("lm_head.weight", shape))
        for layer in range(self._layers):
            self._add_layer(f"blk.{layer}.", f"model.layers.{layer}.")
        self._from.refuse_unused()
        return self._to

    def _set_keys(self) -> None:
        config = self._from.config
        to = self._to
        to.set("context_length", "uint32", config.count("max_position_embeddings", 4096))
        to.set("embedding_length", "uint32", self._width)
        to.set("feed_forward_length", "uint32", self._hidden)
        to.set("block_count", "uint32", self._layers)
        to.set("attention.head_count", "uint32", self._heads)
        to.set("attention.head_count_kv", "uint32", self._kv_heads)
        epsilon = config.number("rms_norm_eps", 1e-5)
        to.set("attention.layer_norm_rms_epsilon", "float32", epsilon)
        to.set("rope.dimension_count", "uint32", self._head_size)
        to.set("rope.freq_base", "float32", config.number("rope_theta", 10000.0))
        to.set("expert_count", "uint32", self._experts)
        to.set("expert_used_count", "uint32", config.count("num_experts_per_tok"))
        to.set("embedding_scale", "float32", config.number("scale_emb", 1.0))
        residual = config.number("scale_depth", math.sqrt(self._layers))
        to.set("residual_scale", "float32", residual / math.sqrt(self._layers))
        base = config.count("dim_model_base", self._width)
        to.set("logit_scale", "float32", self._width / base)  # divides the logits
        to.set("vocab_size", "uint32", self._vocabulary)

    def _norm(self, target: str, source: str) -> None:
        self._to.add(target, self._from.take(source, (self._width,)), keeps_floats=True)

    def _add_layer(self, target: str, source: str) -> None:
        self._norm(f"{target}attn_norm.weight", f"{source}input_layernorm.weight")
        self._norm(f"{target}ffn_norm.weight", f"{source}post_attention_layernorm.weight")
        heads = {"q": self._heads, "k": self._kv_heads, "v": self._kv_heads}
        for matrix, count in heads.items():
            shape = (count * self._head_size, self._width)
            entry = self._from.take(f"{source}self_attn.{matrix}_proj.weight", shape)
            order = None if matrix == "v" else _interleaved(self._head_size)
            name = f"{target}attn_{matrix}.weight"
            self._to.tensors.append(OutputTensor(name, (entry,), row_order=order))
        shape = (self._width, self._heads * self._head_size)
        entry = self._from.take(f"{source}self_attn.o_proj.weight", shape)
        self._to.add(f"{target}attn_output.weight", entry)
        entry = self._from.take(f"{source}mlp.gate.weight", (self._experts, self._width))
        self._to.add(f"{target}ffn_gate_inp.weight", entry, keeps_floats=True)
        for matrix, names in _EXPERT_NAMES.items():
            self._experts_of(f"{target}{matrix}_exps.weight", f"{source}mlp.experts.", names)

    def _experts_of(self, target: str, source: str, names: tuple[str, str]) -> None:
        name = names[0] if f"{source}0.{names[0]}.weight" in self._from else names[1]
        up = (self._hidden, self._width)
        shape = up[::-1] if "down" in target else up
        parts = tuple(
            self._from.take(f"{source}{expert}.{name}.weight", shape)
            for expert in range(self._experts)
        )
        self._to.tensors.append(OutputTensor(target, parts, is_stack=True))
