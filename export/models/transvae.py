"""Trans-VAE: listener coefficients and emotion from the speaker's picture and sound, with a growing history.

Source: Song et al., "REACT 2024: the Second Multiple Appropriate Facial Reaction Generation Challenge"; public code
baseline_react2024 0c3ce58, `TransformerVAE`, online. Masks that have no effect there are left out.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.errors import InputError, ModelOptionError
from pflx.export.models.keys import Keys, Table
from pflx.export.models.layers import MASKED, DecoderLayer, DecoderStack, EncoderLayer, LayerStack, sinusoid
from pflx.export.models.video_encoder import FRAME_SIZE, VideoEncoder

DIM = 128
COEFFICIENTS = 58
EMOTION = 25
MFCC = 78
MAX_FRAMES = 751
"""Frames that the public code's masks reach, history and window together."""
_HEADS = 4


class Past(NamedTuple):
    """The listener's own earlier frames: coefficients [M, H, 58] and emotion [M, H, 25]."""

    coefficients: Tensor
    emotion: Tensor


class SpeakerEncoder(nn.Module):
    """Features of every speaker frame; all of them depend on all pictures through the joint normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.video_encoder = VideoEncoder(taps=(1, 1))
        self.audio_feature_map = nn.Linear(MFCC, DIM)
        self.fusion_layer = nn.Linear(2 * DIM, DIM)

    def forward(self, video: Tensor, mfcc: Tensor) -> Tensor:
        """Return float [B, N, 128] from `video` [B, N, 3, 224, 224] in [-1, 1] and `mfcc` [B, N, 78]."""
        return self.fuse(self.video_encoder(video), mfcc)

    def fuse(self, seen: Tensor, mfcc: Tensor) -> Tensor:
        """Return float [B, N, 128] from features of the pictures [B, N, 128] and `mfcc` [B, N, 78]."""
        fused: Tensor = self.fusion_layer(torch.cat((seen, self.audio_feature_map(mfcc)), dim=-1))
        return fused


class LatentEncoder(nn.Module):
    """Mean and log-variance of the reaction, given all frames so far."""

    def __init__(self) -> None:
        super().__init__()
        self.mu_token = nn.Parameter(torch.empty(DIM))
        self.logvar_token = nn.Parameter(torch.empty(DIM))
        self.linear = nn.Linear(DIM, DIM)
        self.seqTransEncoder = LayerStack(EncoderLayer(DIM, 2 * DIM, _HEADS))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, float32 [M, 128] each, from `frames` [M, N, 128]."""
        tokens = torch.stack((self.mu_token, self.logvar_token)).expand(frames.shape[0], 2, DIM)
        (layer,) = self.seqTransEncoder.layers
        mean, logvar = layer(torch.cat((tokens, self.linear(frames)), dim=1), n_kept=2).float().unbind(dim=1)
        return mean, logvar.exp().sqrt()


class LSTM(nn.Module):
    """One layer with the parameters of `nn.LSTM`, written out: an exported one would fix the batch, and lacks FP16."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.empty(4 * dim, dim))
        self.weight_hh_l0 = nn.Parameter(torch.empty(4 * dim, dim))
        self.bias_ih_l0 = nn.Parameter(torch.empty(4 * dim))
        self.bias_hh_l0 = nn.Parameter(torch.empty(4 * dim))

    def forward(self, tokens: Tensor, start: Tensor) -> Tensor:
        """Return [M, T, D] from `tokens` [M, T, D]; hidden and cell state begin as `start` [M, D].

        Source: Hochreiter and Schmidhuber 1997, with PyTorch's order of gates (input, forget, cell, output).
        """
        given = F.linear(tokens, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
        hidden, cell = start, start.float()
        states = []
        for of_token in given.unbind(dim=1):
            gates = (of_token + F.linear(hidden, self.weight_hh_l0)).float()
            let_in, keep, new, let_out = gates.chunk(4, dim=-1)
            cell = keep.sigmoid() * cell + let_in.sigmoid() * new.tanh()
            hidden = (let_out.sigmoid() * cell.tanh()).to(tokens.dtype)
            states.append(hidden)
        return torch.stack(states, dim=1)


class ReactionDecoder(nn.Module):
    """A window of the reaction from its latent and the listener's own past."""

    positions: Tensor
    causal: Tensor

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.vae_model = LatentEncoder()
        self.lstm = LSTM(DIM)
        self.linear_3d = nn.Linear(COEFFICIENTS, DIM)
        self.linear_reaction = nn.Linear(DIM, DIM)
        self.listener_reaction_decoder_3d = DecoderStack(DIM, n_heads=_HEADS)
        self.listener_reaction_decoder_1 = DecoderStack(DIM, n_heads=_HEADS)
        self.listener_reaction_decoder_2 = DecoderStack(DIM, n_heads=_HEADS)
        self.listener_reaction_3dmm_map_layer = nn.Linear(DIM, COEFFICIENTS)
        self.listener_reaction_emotion_map_layer = nn.Sequential(
            nn.Linear(DIM + COEFFICIENTS, DIM), nn.Linear(DIM, EMOTION)
        )
        self.register_buffer("positions", sinusoid(window, DIM), persistent=False)
        self.register_buffer("causal", torch.full((window, window), MASKED).triu(1), persistent=False)

    def forward(self, latent: Tensor, past: Past | None) -> tuple[Tensor, Tensor]:
        """Return coefficients float32 [M, W, 58] and emotion float32 [M, W, 25] from `latent` [M, 128]."""
        reaction = self._reaction(latent)
        moving = reaction if past is None else self._continued(reaction, past.coefficients)
        coefficients: Tensor = self.listener_reaction_3dmm_map_layer(moving)
        emotion: Tensor = self.listener_reaction_emotion_map_layer(torch.cat((coefficients, reaction), dim=-1))
        return coefficients.float(), emotion.float()

    def _reaction(self, latent: Tensor) -> Tensor:
        queries = self.positions.to(latent.dtype)[None]
        reaction = self.listener_reaction_decoder_1(queries, latent[:, None], self.causal)
        refined: Tensor = self.listener_reaction_decoder_2(reaction, reaction, self.causal)
        return refined

    def _continued(self, reaction: Tensor, past: Tensor) -> Tensor:
        moved = self.linear_3d(past.to(reaction.dtype))
        tokens = torch.cat((moved, self.linear_reaction(reaction)), dim=1)
        continued: Tensor = self.lstm(self._newest(tokens), moved[:, -1])
        return continued

    def _newest(self, tokens: Tensor) -> Tensor:
        """The third decoder's last W rows, the only ones that are read: each sees what is not later than itself."""
        (layer,) = self.listener_reaction_decoder_3d.layers
        assert isinstance(layer, DecoderLayer)
        newest = tokens[:, -self.window :]
        bias = torch.cat((self.causal.new_zeros(self.window, tokens.shape[1] - self.window), self.causal), dim=1)
        x = layer.norm1(newest + layer.self_attn(newest, tokens, bias))
        x = layer.norm2(x + layer.multihead_attn(x, tokens))
        y: Tensor = layer.norm3(x + layer.linear2(F.relu(layer.linear1(x))))
        return y


class TransVAE(nn.Module):
    """One step of Trans-VAE over all frames since the start of a clip, or since the start of a bounded history."""

    def __init__(self, window: int = 8) -> None:
        super().__init__()
        if not 1 <= window <= MAX_FRAMES:
            raise ModelOptionError(f"Trans-VAE's window is 1 to {MAX_FRAMES} frames, 8 or 16 usually; got {window}.")
        self.window = window
        self.speaker_behaviour_encoder = SpeakerEncoder()
        self.fusion = nn.Linear(DIM + COEFFICIENTS + EMOTION, DIM)
        self.reaction_decoder = ReactionDecoder(window)

    def forward(
        self, video: Tensor, mfcc: Tensor, past_coefficients: Tensor, past_emotion: Tensor, eps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """React to the last W of N = H + W speaker frames.

        Args:
            video: float32 [B, N, 3, 224, 224] RGB in [-1, 1], 25 fps.
            mfcc: float32 [B, N, 78], not scaled.
            past_coefficients: float32 [B, H, 58], the reaction so far, mean face subtracted; H is 0 at the first step.
            past_emotion: float32 [B, H, 25], likewise.
            eps: float32 [B, 128], standard normal noise; zeros give the mean reaction.

        Returns:
            Coefficients float32 [B, W, 58], mean face subtracted, and emotion float32 [B, W, 25].

        Raises:
            InputError: shapes that do not fit each other, or more than 751 frames.
        """
        self._check(video, mfcc, past_coefficients, past_emotion)
        past = Past(past_coefficients, past_emotion) if past_coefficients.shape[1] else None
        return self.react(self.speaker_behaviour_encoder(video, mfcc), past, eps)

    def react(self, speaker: Tensor, past: Past | None, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients and emotion of M reactions to an encoded speaker [M or 1, N, 128]."""
        mean, deviation = self.latent(speaker, past, eps.shape[0])
        made: tuple[Tensor, Tensor] = self.reaction_decoder((mean + deviation * eps).to(speaker.dtype), past)
        return made

    def latent(self, speaker: Tensor, past: Past | None, samples: int) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latent, float32 [M, 128] each."""
        made: tuple[Tensor, Tensor] = self.reaction_decoder.vae_model(self.fuse(speaker, past, samples))
        return made

    def fuse(self, speaker: Tensor, past: Past | None, samples: int) -> Tensor:
        """Return float [M, N, 128]: speaker frames joined with the listener's, which are zero where still to come."""
        frames = speaker.expand(samples, -1, -1)
        if past is None:
            listener = frames.new_zeros(*frames.shape[:2], COEFFICIENTS + EMOTION)
        else:
            listener = F.pad(torch.cat(past, dim=-1).to(frames.dtype), (0, 0, 0, self.window))
        fused: Tensor = self.fusion(torch.cat((frames, listener), dim=-1))
        return fused

    def _check(self, video: Tensor, mfcc: Tensor, coefficients: Tensor, emotion: Tensor) -> None:
        n_batch, n_frames = video.shape[:2]
        n_past = n_frames - self.window
        if tuple(video.shape[2:]) != (3, FRAME_SIZE, FRAME_SIZE):
            raise InputError(f"Trans-VAE's video is [B, N, 3, {FRAME_SIZE}, {FRAME_SIZE}], got {list(video.shape)}.")
        if not self.window <= n_frames <= MAX_FRAMES:
            raise InputError(f"Trans-VAE takes {self.window} to {MAX_FRAMES} frames, got {n_frames}.")
        expected = {(n_frames, MFCC): mfcc, (n_past, COEFFICIENTS): coefficients, (n_past, EMOTION): emotion}
        for shape, given in expected.items():
            if given.shape != (n_batch, *shape):
                raise InputError(
                    f"{n_frames} frames of Trans-VAE, {n_past} of them past, need [{n_batch}, {shape[0]}, {shape[1]}], "
                    f"got {list(given.shape)}."
                )


class FrameStem(nn.Module):
    """The first convolution and what the joint normalisation needs of it: of one frame, and final.

    Everything later in the encoder depends on all frames of a call, so this is all that can be kept of past frames.
    A frame's largest values are taken before the normalisation, which keeps their order.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = _flat(conv)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled features float32 [W, 32, 55, 55] and their moments over a frame, float32 [W, 2, 32].

        Args:
            video: uint8 [1, W, 224, 224, 3] RGB.
        """
        # To float first: TensorRT casts uint8 and does nothing else with it.
        frames = (video.float()[0].permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        features = self.conv(frames.to(self.conv.weight.dtype))
        wide = features.float()
        mean = wide.mean(dim=(2, 3), keepdim=True)
        deviation = (wide - mean).square().mean(dim=(2, 3)).sqrt()
        pooled = F.max_pool2d(features, 3, 2).float()
        return pooled, torch.stack((mean[:, :, 0, 0], deviation), dim=1)


def _flat(conv: nn.Conv3d) -> nn.Conv2d:
    """A convolution without extent in time, frame by frame."""
    _, height, width = conv.kernel_size
    stride, padding = conv.stride[1:], (int(conv.padding[1]), int(conv.padding[2]))
    flat = nn.Conv2d(conv.in_channels, conv.out_channels, (height, width), stride, padding, bias=False)  # type: ignore[arg-type]
    flat.weight.data = conv.weight.data[:, :, 0].contiguous()
    return flat.requires_grad_(False)


class PastSpeaker(NamedTuple):
    """What is kept of past speaker frames.

    Attributes:
        features: float32 [H, 32, 55, 55], of `FrameStem`.
        moments: float32 [H, 2, 32], mean and standard deviation over each frame.
        mfcc: float32 [1, H, 78].
    """

    features: Tensor
    moments: Tensor
    mfcc: Tensor


class _Deployed(nn.Module):
    """What both exported graphs share."""

    def __init__(self, network: TransVAE) -> None:
        super().__init__()
        encoder = network.speaker_behaviour_encoder.video_encoder
        stack = encoder.Conv3D
        self.stem = FrameStem(stack.conv1)
        self.convs = nn.ModuleList(_flat(conv) for conv in (stack.conv2, stack.conv3, stack.conv4, stack.conv5))
        self.fc = encoder.fc
        self.network = copy.copy(network)
        self.network._modules = {
            **network._modules,
            "speaker_behaviour_encoder": _without_pictures(network.speaker_behaviour_encoder),
        }

    def see(self, features: Tensor, moments: Tensor) -> Tensor:
        """Return features of the pictures, float [1, N, 128], from what `FrameStem` makes of them."""
        conv2, conv3, conv4, conv5 = self.convs
        means, deviations = moments.unbind(dim=1)
        mean = means.mean(dim=0)
        variance = (deviations.square() + (means - mean).square()).mean(dim=0)
        x = _scaled(features, mean[:, None, None], variance[:, None, None]).to(self.fc.weight.dtype)
        x = _joint_norm(conv3(_joint_norm(conv2(x))))
        x = x + _joint_norm(conv4(x))
        x = _joint_norm(conv5(x)).mean(dim=(2, 3))
        seen: Tensor = self.fc(x[None])
        return seen

    def react(self, seen: PastSpeaker, past: Past | None, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients and emotion, given all speaker frames so far."""
        dtype = self.fc.weight.dtype
        speaker = self.network.speaker_behaviour_encoder.fuse(
            self.see(seen.features, seen.moments), seen.mfcc.to(dtype)
        )
        return self.network.react(speaker, past, eps)


def _without_pictures(encoder: SpeakerEncoder) -> SpeakerEncoder:
    """Share all of an encoder but the convolutions, which the exported graphs hold in another shape."""
    lean = copy.copy(encoder)
    lean._modules = {name: part for name, part in encoder._modules.items() if name != "video_encoder"}
    return lean


def _scaled(features: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return F.relu((features - mean) * (variance + 1e-5).rsqrt())


def _joint_norm(features: Tensor) -> Tensor:
    """Return `features` [N, C, H, W] normalised over all but the channels, then ReLU; float32 statistics."""
    wide = features.float()
    mean = wide.mean(dim=(0, 2, 3), keepdim=True)
    variance = (wide - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    return _scaled(wide, mean, variance).to(features.dtype)


class TransVAEFirst(_Deployed):
    """The exported graph of the first step: there is no past."""

    def forward(self, video: Tensor, mfcc: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """React to the first W speaker frames.

        Args:
            video: uint8 [1, W, 224, 224, 3] RGB, 25 fps.
            mfcc: float32 [1, W, 78], not scaled.
            eps: float32 [M, 128], standard normal noise.

        Returns:
            Coefficients float32 [M, W, 58], emotion float32 [M, W, 25], and to keep of the speaker: features float32
            [W, 32, 55, 55] and moments float32 [W, 2, 32].
        """
        features, moments = self.stem(video)
        coefficients, emotion = self.react(PastSpeaker(features, moments, mfcc), None, eps)
        return coefficients, emotion, features, moments


class TransVAENext(_Deployed):
    """The exported graph of every later step, which looks back on H frames."""

    def forward(
        self,
        video: Tensor,
        mfcc: Tensor,
        eps: Tensor,
        past_features: Tensor,
        past_moments: Tensor,
        past_mfcc: Tensor,
        past_coefficients: Tensor,
        past_emotion: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """React to W more speaker frames.

        Args:
            video: uint8 [1, W, 224, 224, 3] RGB, 25 fps.
            mfcc: float32 [1, W, 78], not scaled.
            eps: float32 [M, 128], standard normal noise.
            past_features: float32 [H, 32, 55, 55], kept of earlier steps.
            past_moments: float32 [H, 2, 32], likewise.
            past_mfcc: float32 [1, H, 78].
            past_coefficients: float32 [M, H, 58], the reaction so far.
            past_emotion: float32 [M, H, 25], likewise.

        Returns:
            As `TransVAEFirst`, of the W new frames.
        """
        features, moments = self.stem(video)
        seen = PastSpeaker(
            torch.cat((past_features, features)),
            torch.cat((past_moments, moments)),
            torch.cat((past_mfcc, mfcc), dim=1),
        )
        coefficients, emotion = self.react(seen, Past(past_coefficients, past_emotion), eps)
        return coefficients, emotion, features, moments


KEYS = Keys(tables={"reaction_decoder.PE.pe": Table(lambda n: sinusoid(n, DIM))})
