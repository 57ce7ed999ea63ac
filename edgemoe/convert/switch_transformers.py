"""Switch Transformers (arXiv 2101.03961): an encoder and a decoder of T5 with experts."""

from __future__ import annotations

import math

from edgemoe.convert.checkpoint import Checkpoint
from edgemoe.convert.description import Description, OutputTensor
from edgemoe.convert.safetensors_file import have_same_values
from edgemoe.convert.vocabulary import add_unigram_vocabulary
from edgemoe.errors import UnsupportedModelError

ARCHITECTURE = "switch-transformers"
_DEFAULT_CONTEXT = 512
# The same matrix under several names, of which a file has one or more.
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_OUTPUT = "lm_head.weight"


def describe(checkpoint: Checkpoint) -> Description:
    """Raises ModelFormatError and UnsupportedModelError naming file and key or tensor."""
    return _Switch(checkpoint).describe()


class _Switch:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._from = checkpoint
        self._to = Description(ARCHITECTURE)
        config = checkpoint.config
        self._width = config.count("d_model")
        self._hidden = config.count("d_ff")
        self._heads = config.count("num_heads")
        self._head_size = config.count("d_kv")
        self._experts = config.count("num_experts", 8)
        self._buckets = config.count("relative_attention_num_buckets", 32)
        self._vocabulary = config.count("vocab_size")
        self._is_tied = config.flag("tie_word_embeddings", True)
        layers = config.count("num_layers")
        self._layers = {"encoder": layers, "decoder": config.count("num_decoder_layers", layers)}

    def describe(self) -> Description:
        self._refuse_others()
        self._set_keys()
        add_unigram_vocabulary(self._to, self._from, self._vocabulary)
        self._add_embeddings()
        for stack in self._layers:
            self._add_stack(stack)
        self._from.refuse_unused()
        return self._to

    def _refuse_others(self) -> None:
        """Variants that nobody published, and that would be computed wrongly."""
        config = self._from.config
        known = {
            "dense_act_fn": config.text("dense_act_fn", "relu") == "relu",
            "feed_forward_proj": config.text("feed_forward_proj", "relu") == "relu",
            "is_gated_act": not config.flag("is_gated_act", False),
            "num_selected_experts": config.count("num_selected_experts", 1) == 1,
        }
        for key, is_known in known.items():
            if not is_known:
                raise UnsupportedModelError(
                    f"{config.path}: key '{key}' is not what Switch Transformers have: networks "
                    "with ReLU and without a gate, and one expert per token"
                )

    def _set_keys(self) -> None:
        config = self._from.config
        to = self._to
        to.set("context_length", "uint32", config.count("n_positions", _DEFAULT_CONTEXT))
        to.set("embedding_length", "uint32", self._width)
        to.set("feed_forward_length", "uint32", self._hidden)
        to.set("block_count", "uint32", self._layers["encoder"])
        to.set("decoder_block_count", "uint32", self._layers["decoder"])
        to.set("attention.head_count", "uint32", self._heads)
        to.set("attention.key_length", "uint32", self._head_size)
        to.set("attention.value_length", "uint32", self._head_size)
        epsilon = config.number("layer_norm_epsilon", 1e-6)
        to.set("attention.layer_norm_rms_epsilon", "float32", epsilon)
        to.set("attention.relative_buckets_count", "uint32", self._buckets)
        distance = config.count("relative_attention_max_distance", 128)
        to.set("attention.relative_max_distance", "uint32", distance)
        to.set("expert_count", "uint32", self._experts)
        to.set("expert_used_count", "uint32", 1)
        # Divides the logits. transformers scales where the output matrix is that of the embedding.
        scale = math.sqrt(self._width) if self._is_tied else 1.0
        to.set("logit_scale", "float32", scale)
        padding = config.count("pad_token_id", 0, least=0)
        start = config.count("decoder_start_token_id", padding, least=0)
        to.set("decoder_start_token_id", "uint32", start)
        to.set("vocab_size", "uint32", self._vocabulary)

    def _add_embeddings(self) -> None:
        """One matrix for both stacks; where the output is tied to it, for that too."""
        shape = (self._vocabulary, self._width)
        names = (*_EMBEDDINGS, _OUTPUT) if self._is_tied else _EMBEDDINGS
        present = [name for name in names if name in self._from] or [names[0]]
        first, *others = (self._from.take(name, shape) for name in present)
        for other in others:
            if not have_same_values(first, other):
                raise UnsupportedModelError(
                    f"{other.path}: tensor '{other.name}' differs from '{first.name}'; models are "
                    "known whose encoder, decoder and tied output share one embedding"
                )
        self._to.add("token_embd.weight", first)
        if not self._is_tied:
            self._to.add("output.weight", self._from.take(_OUTPUT, shape))

    def _add_stack(self, stack: str) -> None:
        short = stack[:3]
        self._norm(f"{short}.output_norm.weight", f"{stack}.final_layer_norm.weight")
        for layer in range(self._layers[stack]):
            source = f"{stack}.block.{layer}.layer."
            target = f"{short}.blk.{layer}."
            self._attention(f"{target}attn", f"{source}0", "SelfAttention")
            if layer == 0:
                bias = f"{source}0.SelfAttention.relative_attention_bias.weight"
                entry = self._from.take(bias, (self._buckets, self._heads))
                self._to.add(f"{target}attn_rel_b.weight", entry, keeps_floats=True)
            last = 1
            if stack == "decoder":
                self._attention(f"{target}cross_attn", f"{source}1", "EncDecAttention")
                last = 2
            self._norm(f"{target}ffn_norm.weight", f"{source}{last}.layer_norm.weight")
            self._network(target, f"{source}{last}.mlp.")

    def _norm(self, target: str, source: str) -> None:
        self._to.add(target, self._from.take(source, (self._width,)), keeps_floats=True)

    def _attention(self, target: str, source: str, name: str) -> None:
        inner = self._heads * self._head_size
        self._norm(f"{target}_norm.weight", f"{source}.layer_norm.weight")
        for matrix in "qkvo":
            shape = (self._width, inner) if matrix == "o" else (inner, self._width)
            entry = self._from.take(f"{source}.{name}.{matrix}.weight", shape)
            self._to.add(f"{target}_{matrix}.weight", entry)

    def _network(self, target: str, source: str) -> None:
        shapes = {"wi": (self._hidden, self._width), "wo": (self._width, self._hidden)}
        names = {"wi": "ffn_up", "wo": "ffn_down"}
        router = f"{source}router.classifier."
        if f"{router}weight" not in self._from:
            for matrix, shape in shapes.items():
                entry = self._from.take(f"{source}{matrix}.weight", shape)
                self._to.add(f"{target}{names[matrix]}.weight", entry)
            return
        entry = self._from.take(f"{router}weight", (self._experts, self._width))
        self._to.add(f"{target}ffn_gate_inp.weight", entry, keeps_floats=True)
        if f"{router}bias" in self._from:
            entry = self._from.take(f"{router}bias", (self._experts,))
            self._to.add(f"{target}ffn_gate_inp.bias", entry, keeps_floats=True)
        for matrix, shape in shapes.items():
            parts = tuple(
                self._from.take(f"{source}experts.expert_{expert}.{matrix}.weight", shape)
                for expert in range(self._experts)
            )
            name = f"{target}{names[matrix]}_exps.weight"
            self._to.tensors.append(OutputTensor(name, parts, is_stack=True))
