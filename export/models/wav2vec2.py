"""Wav2vec 2.0 base as an audio encoder: only what its hidden states need.

Source: Baevski et al. 2020; layers and keys of `transformers` 4.39, `Wav2Vec2Model`, base-960h configuration.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.models.layers import LayerNorm, attend

HIDDEN = 768
N_HEADS = 12
N_LAYERS = 12
FEED_FORWARD = 3072
CHANNELS = 512
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
POSITION_KERNEL = 128
POSITION_GROUPS = 16


def n_tokens(n_samples: int) -> int:
    """Return how many tokens the convolutions make of `n_samples` audio samples."""
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


class ChannelNorm(nn.Module):
    """Group norm with one channel a group, over time, in float32."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_channels))
        self.bias = nn.Parameter(torch.empty(n_channels))

    def forward(self, signal: Tensor) -> Tensor:
        """Return `signal` [B, C, N] with zero mean and unit variance per channel, then scaled and shifted."""
        normed = F.instance_norm(signal.float(), weight=self.weight.float(), bias=self.bias.float(), eps=1e-5)
        return normed.to(signal.dtype)


class ConvLayer(nn.Module):
    """One convolution of the feature extractor; only the first one is normalised."""

    def __init__(self, index: int) -> None:
        super().__init__()
        n_in = CHANNELS if index else 1
        self.conv = nn.Conv1d(n_in, CHANNELS, KERNELS[index], STRIDES[index], bias=False)
        self.layer_norm = nn.Identity() if index else ChannelNorm(CHANNELS)

    def forward(self, signal: Tensor) -> Tensor:
        """Return [B, 512, N'] from [B, C, N]."""
        return F.gelu(self.layer_norm(self.conv(signal)))


class FeatureExtractor(nn.Module):
    """Seven strided convolutions: one token per 320 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(i) for i in range(len(KERNELS)))

    def forward(self, audio: Tensor) -> Tensor:
        """Return [B, tokens, 512] from `audio` [B, N]."""
        signal = audio[:, None]
        for layer in self.conv_layers:
            signal = layer(signal)
        return signal.transpose(1, 2)


class FeatureProjection(nn.Module):
    """Layer norm and a linear map from 512 to 768."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(CHANNELS)
        self.projection = nn.Linear(CHANNELS, HIDDEN)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [B, tokens, 768]."""
        projected: Tensor = self.projection(self.layer_norm(tokens))
        return projected


class PositionConv(nn.Module):
    """Grouped convolution over tokens that stands in for a position table; weight norm is folded at load."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, POSITION_KERNEL, padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return GELU of the convolution, [B, tokens, 768]."""
        response = self.conv(tokens.transpose(1, 2))[..., : tokens.shape[1]]
        return F.gelu(response.transpose(1, 2))

    @torch.no_grad()
    def trim(self, n_tokens: int) -> None:
        """Drop the taps that meet only padding in an input of `n_tokens`: of 128, 29 remain for 15 tokens."""
        reach = n_tokens - 1
        centre = POSITION_KERNEL // 2
        if reach >= centre:
            return
        kept = self.conv.weight[..., centre - reach : centre + reach + 1].clone()
        self.conv.weight = nn.Parameter(kept, requires_grad=False)
        self.conv.padding, self.conv.kernel_size = (reach,), (2 * reach + 1,)


class SelfAttention(nn.Module):
    """Full bidirectional attention, 12 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.k_proj, self.v_proj = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.q_proj, self.out_proj = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [B, tokens, 768]."""
        q, k, v = self.q_proj(tokens), self.k_proj(tokens), self.v_proj(tokens)
        projected: Tensor = self.out_proj(attend(q, k, v, N_HEADS))
        return projected


class FeedForward(nn.Module):
    """Two linear maps around an exact GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(HIDDEN, FEED_FORWARD)
        self.output_dense = nn.Linear(FEED_FORWARD, HIDDEN)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [B, tokens, 768]."""
        mapped: Tensor = self.output_dense(F.gelu(self.intermediate_dense(tokens)))
        return mapped


class EncoderLayer(nn.Module):
    """Post-norm transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()
        self.layer_norm = LayerNorm(HIDDEN)
        self.feed_forward = FeedForward()
        self.final_layer_norm = LayerNorm(HIDDEN)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [B, tokens, 768]."""
        x = self.layer_norm(tokens + self.attention(tokens))
        y: Tensor = self.final_layer_norm(x + self.feed_forward(x))
        return y


class Encoder(nn.Module):
    """Position convolution, layer norm and twelve transformer layers."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_conv_embed = PositionConv()
        self.layer_norm = LayerNorm(HIDDEN)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(N_LAYERS))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return [B, tokens, 768]."""
        tokens = self.layer_norm(tokens + self.pos_conv_embed(tokens))
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class Wav2Vec2(nn.Module):
    """Hidden states of wav2vec 2.0 base, 50 tokens a second."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor()
        self.feature_projection = FeatureProjection()
        self.encoder = Encoder()

    def forward(self, audio: Tensor) -> Tensor:
        """Return float [B, tokens, 768] from normalised 16 kHz `audio` [B, N]; `n_tokens(N)` tokens."""
        hidden: Tensor = self.encoder(self.feature_projection(self.feature_extractor(audio)))
        return hidden
