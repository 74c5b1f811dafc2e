"""Pieces shared by the transformer networks, written so that `module.half()` exports a sound FP16 graph.

Weights and matrix products follow the dtype of the parameters. What FP16 cannot hold safely is computed in
float32 whatever that dtype is: normalisation statistics, softmax and its biases. In a float32 module these
casts vanish.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_HEADS = 8
PERIOD = 8
# exp(MASKED + any score) is exactly 0 in float32, and unlike -inf it survives a cast to FP16.
MASKED = -1e4


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` whose statistics and affine are float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` normalised over its last axis, in the dtype it came in."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps).to(input.dtype)


def split_heads(tokens: Tensor, n_heads: int) -> Tensor:
    """[B, T, D] → [B, heads, T, D/heads]."""
    n_batch, n_tokens, dim = tokens.shape
    return tokens.reshape(n_batch, n_tokens, n_heads, dim // n_heads).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, n_heads: int, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, written out; softmax in float32.

    Args:
        query: [B, T, D].
        key: [B or 1, S, D].
        value: [B or 1, S, D].
        n_heads: heads that share D.
        bias: float32, broadcastable to [B, heads, T, S], added to the scores.

    Returns:
        [B, T, D], heads joined, not yet projected.
    """
    scale = (query.shape[-1] // n_heads) ** -0.5
    scores = split_heads(query * scale, n_heads) @ split_heads(key, n_heads).transpose(-1, -2)
    scores = scores.float() if bias is None else scores.float() + bias
    weights = scores.softmax(dim=-1).to(value.dtype)
    return (weights @ split_heads(value, n_heads)).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention with the packed projection of `nn.MultiheadAttention`: query, key, value."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return `query` [B, T, D] attending to `memory` [B or 1, S, D]; keys and values once per memory."""
        dim = query.shape[-1]
        if query is memory:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            q = F.linear(query, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
            k, v = F.linear(memory, self.in_proj_weight[dim:], self.in_proj_bias[dim:]).chunk(2, dim=-1)
        projected: Tensor = self.out_proj(attend(q, k, v, self.n_heads, bias))
        return projected


class DecoderLayer(nn.Module):
    """Post-norm transformer decoder layer with ReLU, keys of `nn.TransformerDecoderLayer`."""

    def __init__(self, dim: int, feed_forward: int, n_heads: int = N_HEADS) -> None:
        super().__init__()
        self.self_attn = Attention(dim, n_heads)
        self.multihead_attn = Attention(dim, n_heads)
        self.linear1 = nn.Linear(dim, feed_forward)
        self.linear2 = nn.Linear(feed_forward, dim)
        self.norm1, self.norm2, self.norm3 = LayerNorm(dim), LayerNorm(dim), LayerNorm(dim)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        self_bias: Tensor | None = None,
        memory_bias: Tensor | None = None,
    ) -> Tensor:
        """Return float [B, T, D] from `tokens` [B or 1, T, D] and `memory` [B or 1, S, D]."""
        x = self.norm1(tokens + self.self_attn(tokens, tokens, self_bias))
        x = self.norm2(x + self.multihead_attn(x, memory, memory_bias))
        y: Tensor = self.norm3(x + self.linear2(F.relu(self.linear1(x))))
        return y


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer with ReLU, keys of `nn.TransformerEncoderLayer`."""

    def __init__(self, dim: int, feed_forward: int, n_heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, n_heads)
        self.linear1 = nn.Linear(dim, feed_forward)
        self.linear2 = nn.Linear(feed_forward, dim)
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)

    def forward(self, tokens: Tensor, n_kept: int | None = None) -> Tensor:
        """Return the first `n_kept` (default: all) of `tokens` [B, T, D] after attending to all of them."""
        kept = tokens if n_kept is None else tokens[:, :n_kept]
        x = self.norm1(kept + self.self_attn(kept, tokens))
        y: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        return y


class LayerStack(nn.Module):
    """Layers under the key `layers`, as PyTorch's transformer stacks name them, without a final norm."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class DecoderStack(LayerStack):
    """Decoder layers that share one memory and its biases."""

    def __init__(self, dim: int, n_layers: int = 1, n_heads: int = N_HEADS) -> None:
        super().__init__(*(DecoderLayer(dim, 2 * dim, n_heads) for _ in range(n_layers)))

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        self_bias: Tensor | None = None,
        memory_bias: Tensor | None = None,
    ) -> Tensor:
        """Return float [B, T, D]; see `DecoderLayer.forward`."""
        for layer in self.layers:
            tokens = layer(tokens, memory, self_bias, memory_bias)
        return tokens


def sinusoid(n_positions: int, dim: int) -> Tensor:
    """Return the sine and cosine position table, float32 [n_positions, dim].

    Source: Vaswani et al. 2017, section 3.5; sine on even, cosine on odd columns.
    """
    position = torch.arange(n_positions, dtype=torch.float32, device="cpu")[:, None]
    step = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu")
    angle = position * torch.exp(step * (-math.log(10000.0) / dim))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def periodic_bias(n_queries: int, n_keys: int) -> Tensor:
    """Return the causal, periodic attention bias, float32 [heads, n_queries, n_keys], aligned at the end.

    With d steps between query and key, head h adds -2^-(h+1) * floor(d / 8); later keys are masked.

    Source: FaceFormer (Fan et al. 2022), equation 6; ReactFace, `init_biased_mask`.
    """
    distance = (torch.arange(n_queries, device="cpu") + n_keys - n_queries)[:, None] - torch.arange(
        n_keys, device="cpu"
    )
    slopes = 2.0 ** -torch.arange(1, N_HEADS + 1, dtype=torch.float32, device="cpu")
    bias = -slopes[:, None, None] * torch.div(distance, PERIOD, rounding_mode="floor")
    return torch.where(distance >= 0, bias, MASKED)


def alignment_bias(n_frames: int) -> Tensor:
    """Return float32 [n_frames, 2 * n_frames]: frame i sees only the audio tokens 2i and 2i+1."""
    frame = torch.arange(2 * n_frames, device="cpu") // 2
    return torch.where(frame == torch.arange(n_frames, device="cpu")[:, None], 0.0, MASKED)
