"""The network of the demo model, of the architecture `qwen3moe`, in torch.

Grouped attention with a norm per head, rotary positions, a softmax router with renormalised
weights, SwiGLU experts, no shared expert. Rows are multiples of 256 long, so that every
quantisation type applies to them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 4096
WIDTH = 256
LAYERS = 6
HEADS = 4
KV_HEADS = 2
HEAD_WIDTH = 64
EXPERT_WIDTH = 256
EXPERTS = 16
EXPERTS_USED = 2
CONTEXT = 256
ROPE_BASE = 10000.0
NORM_EPSILON = 1e-6

BALANCE_WEIGHT = 0.01  # of the loss that spreads tokens over experts
ROUTER_Z_WEIGHT = 1e-4  # of the loss that keeps router logits small


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPSILON)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x is [batch, heads, positions, HEAD_WIDTH]; pairs are half a head apart."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, HEADS * HEAD_WIDTH, bias=False)
        self.k = nn.Linear(WIDTH, KV_HEADS * HEAD_WIDTH, bias=False)
        self.v = nn.Linear(WIDTH, KV_HEADS * HEAD_WIDTH, bias=False)
        self.o = nn.Linear(HEADS * HEAD_WIDTH, WIDTH, bias=False)
        self.q_norm = RMSNorm(HEAD_WIDTH)
        self.k_norm = RMSNorm(HEAD_WIDTH)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, positions, _ = x.shape
        q = self.q_norm(self.q(x).view(batch, positions, HEADS, HEAD_WIDTH)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(batch, positions, KV_HEADS, HEAD_WIDTH)).transpose(1, 2)
        v = self.v(x).view(batch, positions, KV_HEADS, HEAD_WIDTH).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (one.repeat_interleave(HEADS // KV_HEADS, 1) for one in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, positions, -1))


class Experts(nn.Module):
    """A router and its experts. Returns the output and the two router losses."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        scale = WIDTH**-0.5
        self.gate = nn.Parameter(torch.randn(EXPERTS, EXPERT_WIDTH, WIDTH) * scale)
        self.up = nn.Parameter(torch.randn(EXPERTS, EXPERT_WIDTH, WIDTH) * scale)
        down = torch.randn(EXPERTS, WIDTH, EXPERT_WIDTH) * EXPERT_WIDTH**-0.5
        self.down = nn.Parameter(down / math.sqrt(2 * LAYERS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = x.shape
        x = x.reshape(-1, WIDTH)
        logits = self.router(x).float()
        probabilities = logits.softmax(-1)
        weights, chosen = probabilities.topk(EXPERTS_USED, -1)
        weights = (weights / weights.sum(-1, keepdim=True)).to(x.dtype)
        order = chosen.flatten().argsort()
        rows = order // EXPERTS_USED
        counts = chosen.flatten().bincount(minlength=EXPERTS)
        parts = []
        for expert, part in enumerate(rows.split(counts.tolist())):
            inputs = x[part]
            hidden = F.silu(inputs @ self.gate[expert].T) * (inputs @ self.up[expert].T)
            parts.append(hidden @ self.down[expert].T)
        y = torch.cat(parts) * weights.flatten()[order, None]
        out = torch.zeros_like(x).index_add(0, rows, y.to(x.dtype))
        load = counts.float() / counts.sum()
        balance = EXPERTS * (load * probabilities.mean(0)).sum()
        return out.view(shape), balance, logits.logsumexp(-1).square().mean()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(WIDTH)
        self.attention = Attention()
        self.ffn_norm = RMSNorm(WIDTH)
        self.experts = Experts()


class Model(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = RMSNorm(WIDTH)
        self.output = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                at_the_ends = name in ("embedding.weight", "output.weight")
                nn.init.normal_(parameter, std=0.02 if at_the_ends else parameter.shape[1] ** -0.5)
            if name.endswith("attention.o.weight"):
                parameter.data /= math.sqrt(2 * LAYERS)
        frequencies = ROPE_BASE ** (-torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH)
        angles = torch.arange(CONTEXT).float()[:, None] * frequencies
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the router losses weighed and averaged over the layers."""
        positions = ids.shape[1]
        x = self.embedding(ids)
        router_loss = torch.zeros(())
        for block in self.blocks:
            attended = block.attention_norm(x)
            x = x + block.attention(attended, self.cos[:positions], self.sin[:positions])
            y, balance, router_z = block.experts(block.ffn_norm(x))
            x = x + y
            layer_loss = BALANCE_WEIGHT * balance + ROUTER_Z_WEIGHT * router_z
            router_loss = router_loss + layer_loss / LAYERS
        return self.output(self.norm(x)), router_loss
