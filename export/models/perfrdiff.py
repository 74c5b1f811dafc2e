"""PerFRDiff: listener coefficients by diffusion, as PFLPosNet runs it; and its regressor of emotion.

The network is written as it was published: one call denoises rows that see the speaker and rows that do not, with every
projection computed in every call. What is exported computes less; see `perfrdiff_deploy`.

Source: PFLPosNet 6c274a2, `TransformerDenoiser_v5` in its `trans_dec`, `token_concat` form and config/pos/pos.yaml;
Zhu et al. 2024, "PerFRDiff: Personalised Weight Editing for Multiple Appropriate Facial Reaction Generation".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.errors import InputError
from pflx.export.models.keys import Keys, Table
from pflx.export.models.layers import sinusoid
from pflx.runtime.generators.diffusion import TIMESTEPS, signal_share

WINDOW = 50
DIM = 512
N_HEADS = 8
N_LAYERS = 7
FEED_FORWARD = 1024
COEFFICIENTS, EXPRESSION, POSE = 58, 52, 6
MFCC = 78
EMOTION = 25
REACTION_DELAY = 8
"""A listener's frame sees the speaker this many frames further than itself."""
GUIDANCE = 7.5
CLIP = 1.0

Denoise: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Noisy data and timestep to clean data."""

_TIME_CHANNELS = 64


class TimeEmbedding(nn.Module):
    """A timestep as a token.

    Source: Ho et al. 2020, section 4; cosines first, as in `diffusers`' `flip_sin_to_cos`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(_TIME_CHANNELS, DIM)
        self.linear_2 = nn.Linear(DIM, DIM)

    def forward(self, timestep: Tensor) -> Tensor:
        """Return float32 [B, 512] from `timestep` [B], any dtype."""
        half = _TIME_CHANNELS // 2
        index = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angle = timestep.float()[:, None] * torch.exp(index * (-math.log(10000.0) / half))
        waves = torch.cat((angle.cos(), angle.sin()), dim=-1)
        token: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return token


def decoder(n_heads: int) -> nn.TransformerDecoder:
    """Seven post-norm layers with GELU and a last norm; batch first, as published."""
    layer = nn.TransformerDecoderLayer(DIM, n_heads, FEED_FORWARD, activation="gelu", batch_first=True)
    return nn.TransformerDecoder(layer, N_LAYERS, nn.LayerNorm(DIM))


def causal_mask(n_keys: int = WINDOW, delay: int = 0) -> Tensor:
    """float32 [50, n_keys]: 0 where query i sees key j (j <= i + delay), -inf elsewhere."""
    query, key = torch.arange(WINDOW, device="cpu")[:, None], torch.arange(n_keys, device="cpu")
    return torch.where(key <= query + delay, 0.0, -math.inf)


def memory_mask(n_past: int = 0) -> Tensor:
    """float32 [50, 101 + n_past]: time token, sound, coefficients, past; the first and the last are always seen."""
    speaker = causal_mask(delay=REACTION_DELAY)
    return torch.cat((torch.zeros(WINDOW, 1), speaker, speaker, torch.zeros(WINDOW, n_past)), dim=1)


class PerFRDiff(nn.Module):
    """The denoiser of PerFRDiff as published (`v5`: 58 coefficients out), and its sampler."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positions", sinusoid(WINDOW, DIM), persistent=False)
        self.to_3dmm_embed = nn.Linear(COEFFICIENTS, DIM)
        self._add_heads()
        self.time_embedding = TimeEmbedding()
        self.speaker_audio_proj = nn.Linear(MFCC, DIM)
        self.speaker_3dmm_proj = nn.Linear(COEFFICIENTS, DIM)
        self.listener_3dmm_proj = nn.Linear(COEFFICIENTS, DIM)
        self.decoder = decoder(N_HEADS)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        coefficients: Tensor,
        mfcc: Tensor,
        past: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Predict clean coefficients; one call of the network.

        Args:
            x: float32 [B, 50, 58], noisy coefficients.
            timestep: int64 [] or [B], 0 to 999.
            coefficients: float32 [B or 1, 50, 58], the speaker's, mean face subtracted.
            mfcc: float32 [B or 1, 50, 78], the speaker's, scaled to [0, 1].
            past: float32 [B or 1, 50, 58], the listener's previous window; None to go without.
            seen: bool [B], the rows that see the speaker and the past; None for all.

        Returns:
            float32 [B, 50, 58], not clamped.

        Raises:
            InputError: a shape that does not fit.
        """
        _check(x, coefficients=(coefficients, COEFFICIENTS), mfcc=(mfcc, MFCC), past=(past, COEFFICIENTS))
        n_rows = x.shape[0]
        shown = x.new_ones(n_rows, 1, 1) if seen is None else seen.to(x.dtype)[:, None, None]
        time = self.time_embedding(timestep.reshape(-1).expand(n_rows))[:, None]
        conditions = [self.speaker_audio_proj(mfcc), self.speaker_3dmm_proj(coefficients)]
        pose = x.new_zeros(n_rows, WINDOW, POSE)
        if past is not None:
            conditions.append(self.listener_3dmm_proj(past))
            pose = past[..., EXPRESSION:] * shown
        tokens = [time, *((condition * shown + self.positions) for condition in conditions)]
        return self._heads(self._decode(x, torch.cat(tokens, dim=1), 0 if past is None else WINDOW), pose)

    def _add_heads(self) -> None:
        self.to_3dmm_expr = nn.Linear(DIM, EXPRESSION)
        self.to_3dmm_pos = nn.Linear(DIM, POSE)
        self.pos_fusion = nn.Linear(2 * POSE, POSE)

    def _heads(self, hidden: Tensor, past_pose: Tensor) -> Tensor:
        moved = self.pos_fusion(torch.cat((self.to_3dmm_pos(hidden), past_pose), dim=-1))
        return torch.cat((self.to_3dmm_expr(hidden), moved), dim=-1)

    def guided(
        self, x: Tensor, timestep: Tensor, coefficients: Tensor, mfcc: Tensor, past: Tensor | None = None
    ) -> Tensor:
        """Predict with classifier-free guidance; see `guide`, and `forward` for the arguments."""
        return guide(self, x, timestep, coefficients, mfcc, past)

    def sample(self, noise: Tensor, coefficients: Tensor, mfcc: Tensor, past: Tensor | None = None) -> Tensor:
        """Make one window of reactions, as the public code does: 50 guided calls, DDIM with eta 0.

        Args:
            noise: float32 [B, 50, 58], standard normal.
            coefficients: float32 [B or 1, 50, 58].
            mfcc: float32 [B or 1, 50, 78], scaled.
            past: float32 [B or 1, 50, 58] or None.

        Returns:
            float32 [B, 50, 58], mean face subtracted.
        """
        return ddim(lambda x, timestep: self.guided(x, timestep, coefficients, mfcc, past), noise)

    def _decode(self, x: Tensor, memory: Tensor, n_past: int) -> Tensor:
        query = self.to_3dmm_embed(x) + self.positions
        hidden: Tensor = self.decoder(query, memory, causal_mask().to(x), memory_mask(n_past).to(x))
        return hidden


class PerFRDiffRender(PerFRDiff):
    """The denoiser of PerFRDiffRender as published: the same with one head of 58 coefficients.

    Source: PerFRDiffRender 42b1efc, experiments/exp_111.
    """

    def _add_heads(self) -> None:
        self.to_3dmm_feat = nn.Linear(DIM, COEFFICIENTS)

    def _heads(self, hidden: Tensor, past_pose: Tensor) -> Tensor:
        made: Tensor = self.to_3dmm_feat(hidden)
        return made

    def v5_weights(self) -> dict[str, Tensor]:
        """The same network under the keys of `PerFRDiff`: its head split, and a pose that the past does not move."""
        weights = self.state_dict()
        for leaf in ("weight", "bias"):
            expression, pose = weights.pop(f"to_3dmm_feat.{leaf}").split((EXPRESSION, POSE))
            weights |= {f"to_3dmm_expr.{leaf}": expression, f"to_3dmm_pos.{leaf}": pose}
        same = torch.cat((torch.eye(POSE), torch.zeros(POSE, POSE)), dim=1)
        return {**weights, "pos_fusion.weight": same, "pos_fusion.bias": torch.zeros(POSE)}


class EmotionRegressor(nn.Module):
    """Emotion of each frame, from its coefficients.

    Source: PFLPosNet 6c274a2, `coeff_reg` of the 3DMM embedder, which holds much else that no step computes with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.coeff_reg = nn.Sequential(nn.Linear(COEFFICIENTS, DIM), nn.Tanh(), nn.Linear(DIM, EMOTION))

    def forward(self, coefficients: Tensor) -> Tensor:
        """Return float32 [..., 25] from `coefficients` float32 [..., 58], mean face subtracted."""
        first, last = cast(nn.Linear, self.coeff_reg[0]), cast(nn.Linear, self.coeff_reg[2])
        hidden = torch.tanh(first(coefficients.to(first.weight.dtype)))
        return F.linear(hidden.float(), last.weight.float(), last.bias.float())


def ddim(denoise: Denoise, noise: Tensor) -> Tensor:
    """Run the published sampler: 50 calls at timesteps 980, 960, … 0; predictions clamped to [-1, 1].

    Source: Song et al. 2021, equation 12, eta 0. The last call goes from timestep 0 to timestep 0.
    """
    share = signal_share()
    x = noise
    for now, after in zip(TIMESTEPS, (*TIMESTEPS[1:], 0), strict=True):
        clean = denoise(x, torch.tensor(now, device=x.device)).clamp(-CLIP, CLIP)
        error = (x / math.sqrt(share[now]) - clean) / math.sqrt(1 / share[now] - 1)
        x = math.sqrt(share[after]) * clean + math.sqrt(1 - share[after]) * error
    return x


def guide(denoise: Callable[..., Tensor], x: Tensor, timestep: Tensor, *conditions: Tensor | None) -> Tensor:
    """Classifier-free guidance in one call of 2B rows: B that see no condition, then B that do.

    Args:
        denoise: takes x, timestep, the conditions, and `seen` bool [2B].
        x: float32 [B, T, N].
        timestep: int64 [].
        conditions: [B or 1, ...] each, or None.

    Source: Ho and Salimans 2022, equation 6, as u + 7.5 (c - u).
    """
    n_rows = x.shape[0]
    seen = torch.arange(2 * n_rows, device=x.device) >= n_rows
    twice = (None if value is None else value.expand(n_rows, -1, -1).repeat(2, 1, 1) for value in conditions)
    unseen, shown = denoise(x.repeat(2, 1, 1), timestep, *twice, seen).chunk(2)
    return unseen + GUIDANCE * (shown - unseen)


def _check(x: Tensor, **conditions: tuple[Tensor | None, int]) -> None:
    if x.ndim != 3 or tuple(x.shape[1:]) != (WINDOW, COEFFICIENTS):
        raise InputError(f"PerFRDiff's x is [B, {WINDOW}, {COEFFICIENTS}], got {list(x.shape)}.")
    for name, (value, size) in conditions.items():
        if value is not None and (tuple(value.shape[1:]) != (WINDOW, size) or value.shape[0] not in (1, x.shape[0])):
            raise InputError(f"PerFRDiff's {name} is [{x.shape[0]} or 1, {WINDOW}, {size}], got {list(value.shape)}.")


KEYS = Keys(
    unused={
        "speaker_emotion_proj.weight": (DIM, EMOTION),
        "speaker_emotion_proj.bias": (DIM,),
    },
    tables=dict.fromkeys(("query_pos.pe", "mem_pos.pe"), Table(lambda n: sinusoid(n, DIM))),
)


def _rest_of_the_embedder() -> dict[str, tuple[int, ...]]:
    cells = {"x_rnn.rnn_f": COEFFICIENTS, "d_rnn.rnn_f": COEFFICIENTS + DIM}
    square = dict.fromkeys(("fc_mu_enc", "fc_logvar_enc", "fc_z_dec"), (DIM, DIM))
    linear = {**square, "d_mlp.affine_layers.0": (128, DIM), "d_mlp.affine_layers.1": (128, 128)}
    linear["d_out"] = (COEFFICIENTS, 128)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, n_inputs in cells.items():
        shapes |= {f"{name}.weight_ih": (3 * DIM, n_inputs), f"{name}.weight_hh": (3 * DIM, DIM)}
        shapes |= {f"{name}.bias_ih": (3 * DIM,), f"{name}.bias_hh": (3 * DIM,)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


EMOTION_KEYS = Keys(unused=_rest_of_the_embedder())
