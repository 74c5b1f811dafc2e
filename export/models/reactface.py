"""ReactFace: the online listener reaction model.

Source: Luo et al., "ReactFace: Online Multiple Appropriate Facial Reaction Generation in Dyadic
Interactions"; public code ReactFace fa4b3a4, inference configuration (feature size 128, period 8, momentum
0.9).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.errors import InputError, ModelOptionError
from pflx.export.models.keys import Keys, Table
from pflx.export.models.layers import (
    PERIOD,
    DecoderStack,
    EncoderLayer,
    LayerStack,
    alignment_bias,
    periodic_bias,
    sinusoid,
)
from pflx.export.models.video_encoder import FRAME_SIZE, VideoEncoder
from pflx.export.models.video_window import WindowVideoEncoder
from pflx.export.models.wav2vec2 import HIDDEN, Wav2Vec2, n_tokens

DIM = 128
COEFFICIENTS = 58
SAMPLES_PER_FRAME = 640  # 16 kHz / 25 fps
MOMENTUM = 0.9


class Timing(nn.Module):
    """Attention biases and position rows for one window length; they stay float32 under `.half()`."""

    self_bias: Tensor
    alignment: Tensor
    past_to_audio: Tensor
    past_to_motion: Tensor
    periodic_positions: Tensor
    query_positions: Tensor
    interpolation: Tensor

    def __init__(self, n_frames: int) -> None:
        super().__init__()
        self.n_frames = n_frames
        halfway = (torch.arange(n_frames, device="cpu") + 0.5) * 2 / n_frames - 0.5
        constants = {
            "self_bias": periodic_bias(n_frames, n_frames),
            "alignment": alignment_bias(n_frames),
            "past_to_audio": periodic_bias(n_frames, 2 * n_frames),
            "past_to_motion": periodic_bias(n_frames, n_frames),
            "periodic_positions": sinusoid(PERIOD, DIM).repeat(n_frames // PERIOD, 1),
            "query_positions": sinusoid(n_frames, DIM),
            "interpolation": halfway.clamp(0, 1)[:, None],
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Timing:
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in kept.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self


class AudioEncoder(nn.Module):
    """Holds wav2vec under the reference's key."""

    def __init__(self) -> None:
        super().__init__()
        self.wav2vec2 = Wav2Vec2()

    def forward(self, audio: Tensor) -> Tensor:
        """Return hidden states [B, 2T, 768] from `audio` [B, 640·T]; the last token is all zero."""
        hidden: Tensor = self.wav2vec2(audio)
        return F.pad(hidden, (0, 0, 0, 1))


class SpeakerReactionDecoder(nn.Module):
    """Speaker motion from video features and speech."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = AudioEncoder()
        self.audio_feature_map = nn.Linear(HIDDEN, DIM)
        self.speaker_transformer_decoder1 = DecoderStack(DIM)
        self.speaker_transformer_decoder2 = DecoderStack(DIM)
        self.speaker_transformer_decoder3 = DecoderStack(DIM)

    def forward(self, features: Tensor, audio: Tensor, timing: Timing) -> tuple[Tensor, Tensor]:
        """Return speaker motion [B, T, 128] and audio features [B, 2T, 128]."""
        speech: Tensor = self.audio_feature_map(self.audio_encoder(audio))
        x = features + timing.periodic_positions.to(features.dtype)
        x = self.speaker_transformer_decoder1(x, x, timing.self_bias)
        x = self.speaker_transformer_decoder2(x, speech, timing.self_bias, timing.alignment)
        return self.speaker_transformer_decoder3(x, speech, timing.self_bias, timing.alignment), speech


class InteractionVAE(nn.Module):
    """Mean and log-variance of the listener's motion, given the fused past."""

    def __init__(self) -> None:
        super().__init__()
        self.mu_token = nn.Parameter(torch.empty(DIM))
        self.logvar_token = nn.Parameter(torch.empty(DIM))
        self.linear = nn.Linear(DIM, DIM)
        self.seqTransEncoder = LayerStack(EncoderLayer(DIM, 1024, 4), EncoderLayer(DIM, 1024, 4))

    def forward(self, past: Tensor, eps: Tensor) -> Tensor:
        """Return the motion sample mu + eps * std, float32 [M, 128], from `past` [M, W, 128]."""
        tokens = torch.stack((self.mu_token, self.logvar_token)).expand(past.shape[0], 2, DIM)
        x = torch.cat((tokens, self.linear(past)), dim=1)
        first, last = self.seqTransEncoder.layers
        mu, logvar = last(first(x), n_kept=2).float().unbind(dim=1)
        sample: Tensor = mu + eps * logvar.exp().sqrt()
        return sample


class ListenerReactionDecoder(nn.Module):
    """Coefficients from listener motion and the speaker's audio and motion."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_decoder = DecoderStack(DIM, 2)
        self.transformer_fusion_decode1 = DecoderStack(DIM)
        self.transformer_fusion_decode2 = DecoderStack(DIM)
        self.listener_reaction_3dmm_map_layer = nn.Linear(DIM, COEFFICIENTS)

    def forward(self, memory: Tensor, speaker_motion: Tensor, speaker_audio: Tensor, timing: Timing) -> Tensor:
        """Return the reaction, float32 [M, W, 58], from `memory` [M, W, 128]."""
        # The queries hold positions only, one set for all samples: what depends on nothing else is constant.
        x = timing.query_positions.to(memory.dtype)[None]
        x = self.transformer_decoder(x, memory)
        x = self.transformer_fusion_decode1(x, speaker_audio, timing.self_bias, timing.past_to_audio)
        x = self.transformer_fusion_decode2(x, speaker_motion, timing.self_bias, timing.past_to_motion)
        head = self.listener_reaction_3dmm_map_layer
        return F.linear(x.float(), head.weight.float(), head.bias.float())


class ReactFace(nn.Module):
    """One step of ReactFace, in window mode (T = W) or history mode (T > W frames of the speaker so far)."""

    def __init__(self, window: int = 8) -> None:
        super().__init__()
        if window < PERIOD or window % PERIOD:
            raise ModelOptionError(f"ReactFace's window is a multiple of {PERIOD} frames, got {window}.")
        self.window = window
        self.timing = Timing(window)
        self.video_encoder = VideoEncoder()
        self.speaker_reaction_decoder = SpeakerReactionDecoder()
        self.past_motion_linear = nn.Linear(COEFFICIENTS, DIM)
        self.transformer_fusion_plm2sa = DecoderStack(DIM)
        self.transformer_fusion_plm2sm = DecoderStack(DIM)
        self.interaction_VAE = InteractionVAE()
        self.listener_reaction_decoder = ListenerReactionDecoder()

    def speaker(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the speaker; the same for every reaction to them.

        Args:
            video: float [B, T, 3, 224, 224] RGB in [-1, 1], 25 fps; T >= window, a multiple of 8.
            audio: float [B, 640·T], 16 kHz mono, zero mean and unit variance.

        Returns:
            Motion float [B, W, 128] and audio features float [B, 2W, 128] of the last W frames.

        Raises:
            InputError: frames or samples do not fit the window.
        """
        self._check(video, audio)
        n_frames = video.shape[1]
        timing = self.timing if n_frames == self.window else Timing(n_frames).to(video.device)
        motion, speech = self.speaker_reaction_decoder(self.video_encoder(video), audio, timing)
        return motion[:, -self.window :], speech[:, -2 * self.window :]

    def listener(
        self,
        speaker_motion: Tensor,
        speaker_audio: Tensor,
        past_reaction: Tensor,
        past_motion: Tensor,
        eps: Tensor,
        first: Tensor | bool,
    ) -> tuple[Tensor, Tensor]:
        """React to an encoded speaker.

        Args:
            speaker_motion: float [M or 1, W, 128].
            speaker_audio: float [M or 1, 2W, 128].
            past_reaction: float32 [M, W, 58], the previous output; zeros at the first step.
            past_motion: float32 [M, 128], the previous motion; ignored at the first step.
            eps: float32 [M, 128], standard normal noise; zeros give the mean reaction.
            first: whether this is the first step; a tensor is bool [1].

        Returns:
            Reaction float32 [M, W, 58], mean face subtracted, and motion float32 [M, 128].
        """
        past = self._fuse_past(speaker_motion, speaker_audio, past_reaction)
        sample = self.interaction_VAE(past, eps)
        is_first = torch.as_tensor(first, device=sample.device)
        # With the sample as its own past, the first step is the general one.
        previous = torch.where(is_first, sample, past_motion)
        motion = MOMENTUM * previous + (1 - MOMENTUM) * sample
        memory = previous[:, None] + self.timing.interpolation * (motion - previous)[:, None]
        memory = memory.to(speaker_motion.dtype)
        reaction = self.listener_reaction_decoder(memory, speaker_motion, speaker_audio, self.timing)
        return reaction, motion

    def forward(
        self,
        video: Tensor,
        audio: Tensor,
        past_reaction: Tensor,
        past_motion: Tensor,
        eps: Tensor,
        first: Tensor | bool,
    ) -> tuple[Tensor, Tensor]:
        """Return reaction [B, W, 58] and motion [B, 128]; see `speaker` and `listener`."""
        motion, speech = self.speaker(video, audio)
        return self.listener(motion, speech, past_reaction, past_motion, eps, first)

    def _fuse_past(self, speaker_motion: Tensor, speaker_audio: Tensor, past_reaction: Tensor) -> Tensor:
        timing = self.timing
        past = self.past_motion_linear(past_reaction.to(self.past_motion_linear.weight.dtype))
        # The reference adds the position-coded past to the past: the content counts twice, the table once.
        past = 2 * past + timing.periodic_positions.to(past.dtype)
        past = self.transformer_fusion_plm2sa(past, speaker_audio, timing.self_bias, timing.past_to_audio)
        fused: Tensor = self.transformer_fusion_plm2sm(past, speaker_motion, timing.self_bias, timing.past_to_motion)
        return fused

    def _check(self, video: Tensor, audio: Tensor) -> None:
        n_frames = video.shape[1]
        if tuple(video.shape[2:]) != (3, FRAME_SIZE, FRAME_SIZE):
            raise InputError(f"ReactFace's video is [B, T, 3, {FRAME_SIZE}, {FRAME_SIZE}], got {list(video.shape)}.")
        if n_frames < self.window or n_frames % PERIOD:
            raise InputError(f"ReactFace takes at least {self.window} frames, a multiple of {PERIOD}; got {n_frames}.")
        if audio.shape[-1] != SAMPLES_PER_FRAME * n_frames:
            raise InputError(
                f"{n_frames} frames need {SAMPLES_PER_FRAME * n_frames} audio samples, got {audio.shape[-1]}."
            )


class ReactFaceSpeaker(nn.Module):
    """The exported graph of the speaker's side: pictures and sound as they come from the decoder."""

    def __init__(self, network: ReactFace) -> None:
        super().__init__()
        self.timing = network.timing
        self.video_encoder = WindowVideoEncoder(network.video_encoder, network.window)
        self.speaker_reaction_decoder = copy.deepcopy(network.speaker_reaction_decoder)
        positions = self.speaker_reaction_decoder.audio_encoder.wav2vec2.encoder.pos_conv_embed
        positions.trim(n_tokens(SAMPLES_PER_FRAME * network.window))

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return speaker motion float32 [B, W, 128] and audio features float32 [B, 2W, 128].

        Args:
            video: uint8 [B, W, 224, 224, 3] RGB, 25 fps.
            audio: float32 [B, 640·W], 16 kHz mono, zero mean and unit variance.
        """
        dtype = self.speaker_reaction_decoder.audio_feature_map.weight.dtype
        # To float first: TensorRT casts uint8 and does nothing else with it.
        frames = (video.float().permute(0, 1, 4, 2, 3) / 255 - 0.5) / 0.5
        features = self.video_encoder(frames.to(dtype))
        motion, speech = self.speaker_reaction_decoder(features, audio.to(dtype), self.timing)
        return motion.float(), speech.float()


class ReactFaceListener(nn.Module):
    """The exported graph of the listener's side: M reactions to one speaker."""

    def __init__(self, network: ReactFace) -> None:
        super().__init__()
        self.network = _without(network, "video_encoder", "speaker_reaction_decoder")

    def forward(
        self,
        speaker_motion: Tensor,
        speaker_audio: Tensor,
        past_reaction: Tensor,
        past_motion: Tensor,
        eps: Tensor,
        first: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return reaction float32 [M, W, 58] and motion float32 [M, 128]; see `ReactFace.listener`."""
        dtype = self.network.past_motion_linear.weight.dtype
        motion, audio = speaker_motion.to(dtype), speaker_audio.to(dtype)
        return self.network.listener(motion, audio, past_reaction, past_motion, eps, first)


def _without(network: ReactFace, *names: str) -> ReactFace:
    """Share all of a network but some parts, so that an export does not carry 94 M weights it never reads."""
    lean = copy.copy(network)
    lean._modules = {name: part for name, part in network._modules.items() if name not in names}
    return lean


def _unused_keys() -> dict[str, tuple[int, ...]]:
    """Return what public checkpoints hold and no step reads: heads of the training."""
    with torch.device("meta"):
        heads = nn.ModuleDict(
            {"transformer_listener_vectors": DecoderStack(DIM, 2), "speaker_decoder": DecoderStack(DIM)}
        )
        heads["speaker_vector_map_layer"] = nn.Linear(DIM, COEFFICIENTS)
    encoder = "speaker_reaction_decoder.audio_encoder"
    return {
        **{key: tuple(value.shape) for key, value in heads.state_dict().items()},
        f"{encoder}.wav2vec2.masked_spec_embed": (HIDDEN,),
        f"{encoder}.lm_head.weight": (32, HIDDEN),
        f"{encoder}.lm_head.bias": (32,),
    }


def _periodic(n: int) -> Tensor:
    """The first positions, over and over: float32 [n, 128]."""
    return sinusoid(PERIOD, DIM).repeat(-(-n // PERIOD), 1)[:n]


_PERIODIC = Table(_periodic, axis=1)
_PLAIN = Table(lambda n: sinusoid(n, DIM))

KEYS = Keys(
    unused=_unused_keys(),
    tables={
        **dict.fromkeys(("PPE.pe", "speaker_reaction_decoder.PPE.pe"), _PERIODIC),
        **dict.fromkeys(("PE.pe", "interaction_VAE.PE.pe", "listener_reaction_decoder.PE.pe"), _PLAIN),
    },
    weight_norm={"speaker_reaction_decoder.audio_encoder.wav2vec2.encoder.pos_conv_embed.conv.weight": 2},
)
