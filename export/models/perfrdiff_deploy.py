"""PerFRDiff as it is exported: the speaker once per window, then one graph per denoising step.

Equal to the published network up to rounding, with less work. What depends on the speaker alone is computed once per
window, what depends on the timestep alone is a table, what depends on nothing is a constant. The rows that do not see
the speaker and those that do are one batch, which begins where they first differ: at the first look at the speaker.

Tokens are rows of one matrix, frame by frame: heads are then taken from it, and put back, without moving a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.models.layers import MASKED, LayerNorm
from pflx.export.models.perfrdiff import (
    CLIP,
    COEFFICIENTS,
    DIM,
    EXPRESSION,
    FEED_FORWARD,
    GUIDANCE,
    N_HEADS,
    N_LAYERS,
    POSE,
    WINDOW,
    PerFRDiff,
    causal_mask,
    memory_mask,
)
from pflx.runtime.generators.diffusion import TIMESTEPS

HEAD = DIM // N_HEADS
N_HALVES = 2
"""Rows that do not see the speaker, rows that do."""

Own: TypeAlias = tuple[Tensor, Tensor]
"""Weights of the two products of a feed-forward part, in the place of the layer's."""


class PerFRDiffCondition(nn.Module):
    """The exported graph of a window: keys and values of every layer, for the speaker's tokens."""

    positions: Tensor

    def __init__(self, network: PerFRDiff, *, use_past_frames: bool = False) -> None:
        """Take over what a published network does with the speaker.

        Args:
            network: with its weights.
            use_past_frames: whether the listener's last window is part of the condition.
        """
        super().__init__()
        self.sound, self.speaker = network.speaker_audio_proj, network.speaker_3dmm_proj
        self.past = network.listener_3dmm_proj if use_past_frames else None
        self.past_pose = _linear(network.pos_fusion.weight[:, POSE:]) if use_past_frames else None
        self.keys, self.values = _memory_projections(network)
        self.register_buffer("positions", network.positions)

    def forward(self, coefficients: Tensor, mfcc: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encode one window.

        Args:
            coefficients: float32 [1, 50, 58], the speaker's, mean face subtracted.
            mfcc: float32 [1, 50, 78], the speaker's, scaled to [0, 1].
            past: float32 [M, 50, 58], the listener's last window, if it is part of the condition.

        Returns:
            Keys float32 [7, 2, P, 8, 64, S] and values float32 [7, 2, P, 8, S, 64], unseen first: P is 1 and S is 100,
            and with `past` P is M and S is 150. With `past` also float32 [M, 50, 58], what it adds to predictions.
        """
        dtype = self.keys.weight.dtype
        tokens = [self.sound(mfcc.to(dtype)), self.speaker(coefficients.to(dtype))]
        if self.past is None or self.past_pose is None or past is None:
            return self._projected(tokens)
        tokens = [token.expand(past.shape[0], -1, -1) for token in tokens]
        shift = GUIDANCE * F.linear(past[..., EXPRESSION:], self.past_pose.weight.float())
        return *self._projected([*tokens, self.past(past.to(dtype))]), F.pad(shift, (EXPRESSION, 0))

    def _projected(self, tokens: list[Tensor]) -> tuple[Tensor, Tensor]:
        seen = torch.stack(tokens, dim=1)
        # Unseen tokens are zero after their projection: their positions are left.
        rows = torch.stack((torch.zeros_like(seen), seen)) + self.positions.to(seen.dtype)
        rows = rows.flatten(2, 3)
        heads = (2, -1, len(tokens) * WINDOW, N_LAYERS, N_HEADS, HEAD)
        keys, values = (projection(rows).float().reshape(heads) for projection in (self.keys, self.values))
        return keys.permute(3, 0, 1, 4, 5, 2).contiguous(), values.permute(3, 0, 1, 4, 2, 5).contiguous()


class PerFRDiffDenoise(nn.Module):
    """The exported graph of a step: prediction, guidance, clamp and the sampler's update."""

    time_keys: Tensor
    time_values: Tensor
    starts: Tensor
    self_mask: Tensor
    memory_mask: Tensor

    def __init__(self, network: PerFRDiff, *, use_past_frames: bool = False) -> None:
        """Take over the decoder of a published network.

        Args:
            network: with its weights.
            use_past_frames: whether the listener's last window is part of the condition.
        """
        super().__init__()
        layers = _decoder_layers(network)
        self.enter = nn.ModuleList(map(_linear, _first_weights(network)))
        self.first = _Layer(layers[0], is_first=True)
        self.layers = nn.ModuleList(_Layer(layer) for layer in layers[1:])
        assert isinstance(network.decoder.norm, nn.LayerNorm)
        self.norm = _layer_norm(network.decoder.norm)
        self.head = _linear(*_head(network))
        for name, table in zip(("time_keys", "time_values"), _time_tables(network), strict=True):
            self.register_buffer(name, table)
        self.register_buffer("starts", _first_tables(network))
        self.register_buffer("self_mask", causal_mask().clamp_min(MASKED))
        self.register_buffer("memory_mask", memory_mask(WINDOW if use_past_frames else 0).clamp_min(MASKED))

    def forward(
        self,
        x: Tensor,
        previous: Tensor,
        step: Tensor,
        update: Tensor,
        keys: Tensor,
        values: Tensor,
        shift: Tensor | None = None,
        head: Tensor | None = None,
        last: Own | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Denoise once.

        Args:
            x: float32 [M, 50, 58], noisy coefficients.
            previous: float32 [M, 50, 58], the prediction of the step before; any where its weight is 0.
            step: int64 [1], row of the timesteps 980, 960, … 0.
            update: float32 [3], weights of the new prediction, of `x` and of `previous` in the next x.
            keys: float32 [7, 2, 1 or M, 8, 64, S], of the condition.
            values: float32 [7, 2, 1 or M, 8, S, 64], of the condition.
            shift: float32 [M, 50, 58], of a condition with past frames.
            head: float32 [58, 512], in the place of its own.
            last: float32, in the place of those of the last layer.

        Returns:
            The next x, float32 [M, 50, 58], and the prediction, float32 [M, 50, 58] in [-1, 1].
        """
        dtype = self.head.weight.dtype
        layer_keys, layer_values = self._memory(step, keys.to(dtype), values.to(dtype))
        frames = x.transpose(0, 1).reshape(-1, COEFFICIENTS).to(dtype)
        rows, *projected = (enter(frames) for enter in self.enter)
        rows, *projected = (_add_start(row, table) for row, table in zip((rows, *projected), self.starts, strict=True))
        rows = self.first.attend_to_self(rows, projected, self.self_mask)
        query = self.first.cross_query(rows, n_halves=1)
        rows = _both_halves(rows)
        rows = self.first.attend_to_memory(rows, query, layer_keys[0], layer_values[0], self.memory_mask)
        owns = [None] * (len(self.layers) - 1) + [last]
        for layer, key, value, own in zip(self.layers, layer_keys[1:], layer_values[1:], owns, strict=True):
            rows = layer(rows, key, value, self.self_mask, self.memory_mask, own)
        clean = self._guided(self.norm(rows).float(), head)
        clean = (clean if shift is None else clean + shift).clamp(-CLIP, CLIP)
        return update[0] * clean + update[1] * x + update[2] * previous, clean

    def _memory(self, step: Tensor, keys: Tensor, values: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Keys and values of every layer, with those of the time token in front."""
        shape = (-1, N_HALVES, keys.shape[2], -1, -1, -1)
        time_key, time_value = (
            torch.index_select(table, 0, step).squeeze(0).to(keys.dtype).expand(shape)
            for table in (self.time_keys, self.time_values)
        )
        return torch.cat((time_key, keys), dim=5).unbind(0), torch.cat((time_value, values), dim=4).unbind(0)

    def _guided(self, hidden: Tensor, head: Tensor | None) -> Tensor:
        """Guidance before the head, which is linear, from float32 [50·2M, 512] to [M, 50, 58]."""
        unseen, seen = hidden.reshape(WINDOW, N_HALVES, -1, DIM).unbind(1)
        mixed = unseen + GUIDANCE * (seen - unseen)
        weight = self.head.weight.float() if head is None else head
        return F.linear(mixed, weight, self.head.bias.float()).transpose(0, 1)


class PerFRDiffPersonal(nn.Module):
    """The same step with the weights that a person has of its own as inputs: one graph for all persons."""

    fusion: Tensor

    EDITED: Mapping[str, tuple[int, int]] = {
        "to_3dmm_expr.weight": (EXPRESSION, DIM),
        "to_3dmm_pos.weight": (POSE, DIM),
        f"decoder.layers.{N_LAYERS - 1}.linear1.weight": (FEED_FORWARD, DIM),
        f"decoder.layers.{N_LAYERS - 1}.linear2.weight": (DIM, FEED_FORWARD),
    }
    """Those weights, by their keys in a checkpoint of the denoiser and as it holds them."""

    def __init__(self, network: PerFRDiff, *, use_past_frames: bool = False) -> None:
        """See `PerFRDiffDenoise`."""
        super().__init__()
        self.denoise = PerFRDiffDenoise(network, use_past_frames=use_past_frames)
        self.register_buffer("fusion", network.pos_fusion.weight[:, :POSE].detach().clone())

    def forward(
        self,
        x: Tensor,
        previous: Tensor,
        step: Tensor,
        update: Tensor,
        keys: Tensor,
        values: Tensor,
        expression: Tensor,
        pose: Tensor,
        linear1: Tensor,
        linear2: Tensor,
        shift: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Denoise once; see `PerFRDiffDenoise.forward`. After the values: float32, as `EDITED` has them."""
        head = torch.cat((expression, self.fusion @ pose))
        made: tuple[Tensor, Tensor] = self.denoise(
            x, previous, step, update, keys, values, shift, head, (linear1, linear2)
        )
        return made


class _Layer(nn.Module):
    """One decoder layer on rows [50·R, 512]; R are the halves and their samples."""

    def __init__(self, layer: nn.TransformerDecoderLayer, *, is_first: bool = False) -> None:
        super().__init__()
        own, memory = layer.self_attn, layer.multihead_attn
        # Three products of 512 columns are as quick as one of 1536, whose parts would have to be copied apart.
        self.inputs = nn.ModuleList() if is_first else nn.ModuleList(_linear(*pair) for pair in _query_key_value(own))
        self.out = _linear(own.out_proj.weight, own.out_proj.bias)
        self.query = _linear(*_query_key_value(memory)[0])
        self.memory_out = _linear(memory.out_proj.weight, memory.out_proj.bias)
        self.linear1 = _linear(layer.linear1.weight, layer.linear1.bias)
        self.linear2 = _linear(layer.linear2.weight, layer.linear2.bias)
        self.norm1, self.norm2, self.norm3 = map(_layer_norm, (layer.norm1, layer.norm2, layer.norm3))

    def forward(
        self, rows: Tensor, key: Tensor, value: Tensor, self_mask: Tensor, memory_mask: Tensor, own: Own | None = None
    ) -> Tensor:
        rows = self.attend_to_self(rows, [project(rows) for project in self.inputs], self_mask)
        return self.attend_to_memory(rows, self.cross_query(rows, N_HALVES), key, value, memory_mask, own)

    def attend_to_self(self, rows: Tensor, projected: list[Tensor], mask: Tensor) -> Tensor:
        """Rows after self-attention, from the queries, keys and values [50·R, 512] of all heads."""
        query, key, value = (part.reshape(WINDOW, -1, N_HEADS, HEAD) for part in projected)
        seen = _attend(query.permute(1, 2, 0, 3), key.permute(1, 2, 3, 0), value.permute(1, 2, 0, 3), mask)
        joined = seen.permute(2, 0, 1, 3).reshape(-1, DIM)
        normed: Tensor = self.norm1(rows + self.out(joined))
        return normed

    def cross_query(self, rows: Tensor, n_halves: int) -> Tensor:
        """Queries to the memory, [halves, M, 8, 50, 64]."""
        query: Tensor = self.query(rows).reshape(WINDOW, n_halves, -1, N_HEADS, HEAD)
        return query.permute(1, 2, 3, 0, 4)

    def attend_to_memory(
        self, rows: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, own: Own | None = None
    ) -> Tensor:
        """Rows after cross-attention and the feed-forward part."""
        joined = _attend(query, key, value, mask).permute(3, 0, 1, 2, 4).reshape(-1, DIM)
        rows = self.norm2(rows + self.memory_out(joined))
        grown: Tensor = self.norm3(rows + self._feed_forward(rows, own))
        return grown

    def _feed_forward(self, rows: Tensor, own: Own | None) -> Tensor:
        if own is None:
            made: Tensor = self.linear2(F.gelu(self.linear1(rows)))
            return made
        first, second = (weight.to(rows.dtype) for weight in own)
        return F.linear(F.gelu(F.linear(rows, first, self.linear1.bias)), second, self.linear2.bias)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention with the scale in the query and the key transposed; softmax in float32."""
    scores = (query @ key).float() + mask
    return scores.softmax(dim=-1).to(value.dtype) @ value


def _both_halves(rows: Tensor) -> Tensor:
    """[50·M, 512] → [50·2M, 512], frame by frame."""
    frames = rows.reshape(WINDOW, -1, DIM)
    return torch.cat((frames, frames), dim=1).reshape(-1, DIM)


def _add_start(rows: Tensor, table: Tensor) -> Tensor:
    """Add a row of `table` [50, 512] to each frame of `rows` [50·M, 512]."""
    return (rows.reshape(WINDOW, -1, DIM) + table[:, None].to(rows.dtype)).reshape(-1, DIM)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight.data = weight.detach().float().clone()
    if bias is not None:
        made.bias.data = bias.detach().float().clone()
    return made.requires_grad_(False)


def _layer_norm(norm: nn.LayerNorm) -> LayerNorm:
    made = LayerNorm(DIM)
    made.load_state_dict(norm.state_dict())
    return made


def _decoder_layers(network: PerFRDiff) -> list[nn.TransformerDecoderLayer]:
    return [layer for layer in network.decoder.layers if isinstance(layer, nn.TransformerDecoderLayer)]


def _query_key_value(attention: nn.MultiheadAttention) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of the three projections; the scale of the scores is part of the query's."""
    assert attention.in_proj_weight is not None
    assert attention.in_proj_bias is not None
    pairs = list(zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True))
    scale = HEAD**-0.5
    return [(pairs[0][0] * scale, pairs[0][1] * scale), *pairs[1:]]


def _memory_projections(network: PerFRDiff) -> tuple[nn.Linear, nn.Linear]:
    """The key projections of all layers as one, 512 to 7·512, and the value projections."""
    pairs = [_query_key_value(layer.multihead_attn)[1:] for layer in _decoder_layers(network)]
    keys, values = (tuple(torch.cat(part) for part in zip(*kind, strict=True)) for kind in zip(*pairs, strict=True))
    return _linear(*keys), _linear(*values)


def _time_tables(network: PerFRDiff) -> tuple[Tensor, Tensor]:
    """Keys [50, 7, 1, 1, 8, 64, 1] and values [50, 7, 1, 1, 8, 1, 64] of the time token at every step."""
    with torch.no_grad():
        tokens = network.time_embedding(torch.tensor(TIMESTEPS))
        keys, values = (
            projection(tokens).reshape(-1, N_LAYERS, 1, 1, N_HEADS, HEAD) for projection in _memory_projections(network)
        )
    return keys[..., None].contiguous(), values[..., None, :].contiguous()


def _first_projections(network: PerFRDiff) -> list[tuple[Tensor, Tensor]]:
    """What the first layer computes of a token before attention, in float64: the token, its query, key and value."""
    pairs = [(torch.eye(DIM), torch.zeros(DIM)), *_query_key_value(_decoder_layers(network)[0].self_attn)]
    return [(weight.double(), bias.double()) for weight, bias in pairs]


def _first_weights(network: PerFRDiff) -> list[Tensor]:
    """From 58 coefficients to `_first_projections`, each as one product."""
    return [weight @ network.to_3dmm_embed.weight.double() for weight, _ in _first_projections(network)]


def _first_tables(network: PerFRDiff) -> Tensor:
    """What does not depend on coefficients in them, float32 [4, 50, 512]."""
    tokens = (network.to_3dmm_embed.bias + network.positions).detach().double()
    return torch.stack([tokens @ weight.T + bias for weight, bias in _first_projections(network)]).detach().float()


def _head(network: PerFRDiff) -> tuple[Tensor, Tensor]:
    """The heads and `pos_fusion`'s part for the new pose as one: 512 to 58."""
    fusion = network.pos_fusion.weight[:, :POSE].double()
    pose, expression = network.to_3dmm_pos, network.to_3dmm_expr
    weight = torch.cat((expression.weight.double(), fusion @ pose.weight.double()))
    bias = torch.cat((expression.bias.double(), fusion @ pose.bias.double() + network.pos_fusion.bias.double()))
    return weight, bias
