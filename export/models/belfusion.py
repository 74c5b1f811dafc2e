"""BeLFusion: a listener's emotion by latent diffusion, given the speaker's emotion of two seconds before.

Source: Barquero et al., "BeLFusion: Latent Diffusion for Behavior-Driven Human Motion Prediction", as adapted in the
REACT 2024 baselines; public code baseline_react2024 0c3ce58, `config/2_belfusion_ldm.yaml`, online.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.errors import InputError
from pflx.export.models.keys import Keys, Shape
from pflx.export.models.layers import LayerNorm

WINDOW = 50
"""Frames of a window: two seconds."""
STEPS = 10
EMOTION = 25
COEFFICIENTS = 58
LATENT = 128
_WIDTH = 1024
_LAYERS = 10
_FREQUENCIES = 32
_HIDDEN = 64


class Schedule(NamedTuple):
    """The noise schedule, one number per step t = 0…9.

    Attributes:
        kept: share of the signal that is left after step t (the cumulative product of 1 - beta).
        before: that of the step before; 1 for t = 0.
    """

    kept: tuple[float, ...]
    before: tuple[float, ...]


def cosine_schedule(n_steps: int = STEPS) -> Schedule:
    """The cosine schedule. Source: Nichol and Dhariwal 2021, equation 17, betas of at most 0.999."""

    def level(t: float) -> float:
        return math.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2

    kept, product = [], 1.0
    for step in range(n_steps):
        product *= 1 - min(1 - level(step + 1) / max(1e-5, level(step)), 0.999)
        kept.append(product)
    return Schedule(tuple(kept), (1.0, *kept[:-1]))


def step_embedding(t: int) -> Tensor:
    """Cosines and sines of a step, float32 [64]."""
    angle = t * torch.exp(torch.arange(_FREQUENCIES, device="cpu") * (-math.log(10000) / _FREQUENCIES))
    return torch.cat((angle.cos(), angle.sin()))


class SkipLayer(nn.Module):
    """A linear layer whose output is scaled by the context, then normalised."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, _WIDTH)
        self.linear_emb = nn.Linear(2 * LATENT, _WIDTH)
        self.norm = LayerNorm(_WIDTH)

    def forward(self, features: Tensor, scale: Tensor) -> Tensor:
        """Return [B, 1024] from `features` [B, n_in] and float32 `scale` [B or 1, 1024]."""
        scaled = self.linear(features).float() * scale
        y: Tensor = F.silu(self.norm(scaled)).to(features.dtype)
        return y


class LastLayer(nn.Module):
    """The prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(_WIDTH + LATENT, LATENT)


class SkipMLP(nn.Module):
    """The denoiser: a perceptron that reads its input again in every layer.

    Source: baseline_react2024 0c3ce58, `MLPSkipNet`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = _embedding(2 * _FREQUENCIES)
        self.cond_embed = _embedding(LATENT)
        widths = (LATENT, *[_WIDTH] * (_LAYERS - 2))
        self.layers = nn.ModuleList([*(SkipLayer(width + LATENT) for width in widths), LastLayer()])

    def forward(self, noisy: Tensor, t: int, condition: Tensor) -> Tensor:
        """Return the clean latent as predicted at step `t`, float [B, 128].

        Args:
            noisy: float [B, 128].
            t: 0…9.
            condition: float [B, 128], the speaker's latent in [-1, 1].
        """
        time = self.time_embed(step_embedding(t).to(noisy)).expand_as(condition)
        context = F.silu(torch.cat((time, self.cond_embed(condition)), dim=-1))
        return self.run(noisy, [1 + layer.linear_emb(context) for layer in self.scaled])

    @property
    def scaled(self) -> list[SkipLayer]:
        """The layers but the last."""
        return [layer for layer in self.layers if isinstance(layer, SkipLayer)]

    def run(self, noisy: Tensor, scales: list[Tensor]) -> Tensor:
        """Return the prediction, float [B, 128], with the scale [B or 1, 1024] of every layer but the last."""
        hidden = noisy
        for layer, scale in zip(self.scaled, scales, strict=True):
            hidden = layer(torch.cat((hidden, noisy), dim=-1), scale)
        last = self.layers[-1]
        assert isinstance(last, LastLayer)
        predicted: Tensor = last.linear(torch.cat((hidden, noisy), dim=-1))
        return predicted


def _embedding(n_in: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, LATENT), nn.SiLU(), nn.Linear(LATENT, LATENT))


class Recurrence(nn.Module):
    """Holds a GRU cell under the reference's key."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.rnn_f = nn.GRUCell(n_in, LATENT)


class Perceptron(nn.Module):
    """Two layers with tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.affine_layers = nn.ModuleList((nn.Linear(LATENT, _HIDDEN), nn.Linear(_HIDDEN, _HIDDEN)))

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, 64] from [B, 128]."""
        for layer in self.affine_layers:
            features = layer(features).tanh()
        return features


class EmotionVAE(nn.Module):
    """Emotion to latent and back, and emotion to coefficients.

    Source: baseline_react2024 0c3ce58, `AutoencoderRNN_VAE_v2`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.x_rnn = Recurrence(EMOTION)
        self.fc_z_dec = nn.Linear(LATENT, LATENT)
        self.d_rnn = Recurrence(LATENT + EMOTION)
        self.d_mlp = Perceptron()
        self.d_out = nn.Linear(_HIDDEN, EMOTION)
        self.coeff_reg = nn.Sequential(nn.Linear(EMOTION, LATENT), nn.Tanh(), nn.Linear(LATENT, COEFFICIENTS))

    def encode(self, emotion: Tensor) -> Tensor:
        """Return the last hidden state [B, 128] of `emotion` [B, T, 25]; the public code diffuses it, not the mean."""
        state = emotion.new_zeros(len(emotion), LATENT)
        for frame in emotion.unbind(dim=1):
            state = self.x_rnn.rnn_f(frame, state)
        return state

    def decode(self, latent: Tensor, n_frames: int = WINDOW) -> Tensor:
        """Return emotion [B, n_frames, 25] from `latent` [B, 128]; each frame reads the one before."""
        hidden = self.fc_z_dec(latent)
        state, frame = torch.zeros_like(hidden), hidden.new_zeros(len(hidden), EMOTION)
        frames = []
        for _ in range(n_frames):
            state = self.d_rnn.rnn_f(torch.cat((hidden, frame), dim=-1), state)
            frame = self.d_out(self.d_mlp(state))
            frames.append(frame)
        return torch.stack(frames, dim=1)

    def regress(self, emotion: Tensor) -> Tensor:
        """Return coefficients [..., 58], mean face subtracted, of `emotion` [..., 25]."""
        coefficients: Tensor = self.coeff_reg(emotion)
        return coefficients

    def forward(self, emotion: Tensor) -> Tensor:
        """Return what is left of `emotion` [B, T, 25] after encoding and decoding."""
        return self.decode(self.encode(emotion), emotion.shape[1])


class Statistics(nn.Module):
    """Bounds of the latent over the training data, by dimension."""

    min: Tensor
    max: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("min", torch.empty(LATENT))
        self.register_buffer("max", torch.empty(LATENT))

    def scale(self, latent: Tensor) -> Tensor:
        """To [-1, 1]."""
        return 2 * (latent - self.min) / (self.max - self.min) - 1

    def unscale(self, scaled: Tensor) -> Tensor:
        """From [-1, 1]."""
        return (scaled + 1) * (self.max - self.min) / 2 + self.min


class BeLFusion(nn.Module):
    """One window of the listener from one window of the speaker."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = SkipMLP()
        self.vae = EmotionVAE()
        self.statistics = Statistics()
        self.schedule = cosine_schedule()

    def forward(self, emotion: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """React to one window; the public code delays the speaker by it, and makes each window by itself.

        Args:
            emotion: float32 [B, 50, 25] of the speaker, at 25 fps.
            noise: float32 [B, 128], standard normal.

        Returns:
            Coefficients float32 [B, 50, 58], mean face subtracted, and emotion float32 [B, 50, 25].

        Raises:
            InputError: other shapes.
        """
        _check(emotion, noise)
        condition = self.statistics.scale(self.vae.encode(emotion))
        reaction = self.vae.decode(self.statistics.unscale(self.sample(condition, noise)))
        return self.vae.regress(reaction), reaction

    def sample(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Return the latent [B, 128] in [-1, 1] that ten DDIM steps predict; what is predicted last counts.

        Source: Song et al. 2021, equation 12 with eta 0.
        """
        noisy = clean = noise
        for t in reversed(range(STEPS)):
            clean = self.mlp(noisy, t, condition).clamp(-1, 1)
            kept, before = self.schedule.kept[t], self.schedule.before[t]
            epsilon = (noisy / math.sqrt(kept) - clean) / math.sqrt(1 / kept - 1)
            noisy = math.sqrt(before) * clean + math.sqrt(1 - before) * epsilon
        return clean


def _check(emotion: Tensor, noise: Tensor) -> None:
    if tuple(emotion.shape[1:]) != (WINDOW, EMOTION):
        raise InputError(f"BeLFusion's emotion is [B, {WINDOW}, {EMOTION}], got {list(emotion.shape)}.")
    if noise.shape != (len(emotion), LATENT):
        raise InputError(f"BeLFusion's noise is [{len(emotion)}, {LATENT}], got {list(noise.shape)}.")


class BeLFusionWindow(nn.Module):
    """The exported graph: M reactions to one speaker; what does not depend on the noise is computed once.

    The scales are split into what a step gives, which is constant, and what the speaker gives. The recurrences and the
    sampler's arithmetic are float32 in an FP16 graph, too: they are small, and feed back.
    """

    by_step: Tensor

    def __init__(self, network: BeLFusion) -> None:
        super().__init__()
        self.mlp = network.mlp
        self.statistics = network.statistics
        self.encoder = Encoder(network.vae)
        self.decoder = Decoder(network.vae)
        layers = network.mlp.scaled
        self.register_buffer("by_step", torch.stack([self._step_scales(t) for t in range(STEPS)]))
        self.by_speaker = nn.Linear(LATENT, _WIDTH * len(layers), bias=False)
        self.by_speaker.weight.data = torch.cat([layer.linear_emb.weight[:, LATENT:] for layer in layers]).detach()
        self._updates = _updates(network.schedule)

    def forward(self, emotion: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients float32 [M, 50, 58] and emotion float32 [M, 50, 25].

        Args:
            emotion: float32 [1, 50, 25] of the speaker.
            noise: float32 [M, 128], standard normal.
        """
        condition = self.statistics.scale(self.encoder(emotion))
        clean = self._sample(condition, noise)
        made: tuple[Tensor, Tensor] = self.decoder(self.statistics.unscale(clean))
        return made

    def _sample(self, condition: Tensor, noise: Tensor) -> Tensor:
        dtype = self.by_speaker.weight.dtype
        by_speaker = self.by_speaker(F.silu(self.mlp.cond_embed(condition.to(dtype)))).float().reshape(-1, _WIDTH)
        noisy = clean = noise
        for t in reversed(range(STEPS)):
            scales = torch.split(self.by_step[t] + by_speaker, 1)
            clean = self.mlp.run(noisy.to(dtype), list(scales)).float().clamp(-1, 1)
            of_noisy, of_clean = self._updates[t]
            noisy = of_noisy * noisy + of_clean * clean
        return clean

    def _step_scales(self, t: int) -> Tensor:
        """What step `t` adds to the scales, and 1, float32 [9, 1024]."""
        with torch.no_grad():
            time = F.silu(self.mlp.time_embed(step_embedding(t)))
            parts = [F.linear(time, e.linear_emb.weight[:, :LATENT], e.linear_emb.bias) for e in self.mlp.scaled]
        return 1 + torch.stack(parts)


def _updates(schedule: Schedule) -> list[tuple[float, float]]:
    """The DDIM update as a sum of the noisy and the clean latent: their factors for every step."""
    factors = []
    for kept, before in zip(schedule.kept, schedule.before, strict=True):
        of_noisy = math.sqrt((1 - before) / (1 - kept))
        factors.append((of_noisy, math.sqrt(before) - of_noisy * math.sqrt(kept)))
    return factors


class Encoder(nn.Module):
    """`EmotionVAE.encode`: what the frames give to the gates is computed for all frames at once."""

    def __init__(self, vae: EmotionVAE) -> None:
        super().__init__()
        cell = vae.x_rnn.rnn_f
        for name, value in cell.named_parameters():
            self.register_buffer(name, value.detach())

    def forward(self, emotion: Tensor) -> Tensor:
        """Return [1, 128] from [1, T, 25]."""
        weights = [self.get_buffer(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        start = emotion.new_zeros(1, len(emotion), LATENT)
        _, last = torch.gru(emotion, start, weights, True, 1, 0.0, False, False, True)
        return last[0]


class Decoder(nn.Module):
    """`EmotionVAE.decode` and `regress` with fewer products between one frame and the next.

    A frame reaches the next one through two linear maps, of the output and into the gates, which are one; and the
    state's gates and its first hidden layer are one product. The frames themselves are made at the end, all at once.
    """

    latent_map: Tensor
    latent_bias: Tensor
    state_map: Tensor
    state_bias: Tensor
    hidden_map: Tensor
    hidden_bias: Tensor
    frame_map: Tensor
    frame_bias: Tensor

    def __init__(self, vae: EmotionVAE) -> None:
        super().__init__()
        for name, value in _decoder_maps(vae).items():
            self.register_buffer(name, value.float())
        self.d_out, self.coeff_reg = vae.d_out, vae.coeff_reg

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients [M, 50, 58] and emotion [M, 50, 25] from `latent` float32 [M, 128]."""
        given = F.linear(latent, self.latent_map, self.latent_bias)
        state, gates = torch.zeros_like(latent), given
        from_state = self.state_bias[: 3 * LATENT].expand_as(given)
        hidden = []
        for _ in range(WINDOW):
            state = gru_update(gates, from_state, state)
            both = F.linear(state, self.state_map, self.state_bias)
            from_state, first = torch.split(both, [3 * LATENT, _HIDDEN], dim=-1)
            hidden.append(F.linear(first.tanh(), self.hidden_map, self.hidden_bias).tanh())
            gates = given + F.linear(hidden[-1], self.frame_map, self.frame_bias)
        return self._frames(torch.cat(hidden, dim=-1).reshape(-1, WINDOW, _HIDDEN))

    def _frames(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        emotion = self.d_out(hidden.to(self.d_out.weight.dtype))
        return self.coeff_reg(emotion).float(), emotion.float()


def _decoder_maps(vae: EmotionVAE) -> dict[str, Tensor]:
    """The decoder's maps by name, multiplied out in float64."""
    weights = {key: value.detach().double() for key, value in vae.state_dict().items()}
    into_gates, gates_bias = weights["d_rnn.rnn_f.weight_ih"], weights["d_rnn.rnn_f.bias_ih"]
    from_latent, from_frame = into_gates[:, :LATENT], into_gates[:, LATENT:]
    return {
        "latent_map": from_latent @ weights["fc_z_dec.weight"],
        "latent_bias": from_latent @ weights["fc_z_dec.bias"] + gates_bias,
        "state_map": torch.cat((weights["d_rnn.rnn_f.weight_hh"], weights["d_mlp.affine_layers.0.weight"])),
        "state_bias": torch.cat((weights["d_rnn.rnn_f.bias_hh"], weights["d_mlp.affine_layers.0.bias"])),
        "hidden_map": weights["d_mlp.affine_layers.1.weight"],
        "hidden_bias": weights["d_mlp.affine_layers.1.bias"],
        "frame_map": from_frame @ weights["d_out.weight"],
        "frame_bias": from_frame @ weights["d_out.bias"],
    }


def gru_update(from_input: Tensor, from_state: Tensor, state: Tensor) -> Tensor:
    """Return the next state of a GRU, [B, D], from what input and state give to its gates, [B, 3 D] each.

    Source: Cho et al. 2014, with PyTorch's order of gates (reset, update, new) and its reset after the product.
    """
    dim = state.shape[-1]
    both_input, new_input = torch.split(from_input, [2 * dim, dim], dim=-1)
    both_state, new_state = torch.split(from_state, [2 * dim, dim], dim=-1)
    reset, update = (both_input + both_state).sigmoid().chunk(2, dim=-1)
    new = (new_input + reset * new_state).tanh()
    following: Tensor = new + update * (state - new)
    return following


def _linear(name: str, n_in: int, n_out: int) -> dict[str, Shape]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


_BOUNDS: dict[str, Shape] = {f"statistics.{name}": (LATENT,) for name in ("min", "max")}
_MOMENTS: dict[str, Shape] = {f"statistics.{name}": (LATENT,) for name in ("mean", "std", "var")}
_POSTERIOR = _linear("fc_mu_enc", LATENT, LATENT) | _linear("fc_logvar_enc", LATENT, LATENT)
_ALIASES = {
    f"layers.{layer}.cond_layers.1.{leaf}": f"layers.{layer}.linear_emb.{leaf}"
    for layer in range(_LAYERS - 1)
    for leaf in ("weight", "bias")
}

MLP_KEYS = Keys(aliases=_ALIASES)
VAE_KEYS = Keys(unused=_POSTERIOR | _BOUNDS | _MOMENTS)
KEYS = Keys(unused=_POSTERIOR | _MOMENTS, aliases=_ALIASES, parts=("mlp", "vae"))
