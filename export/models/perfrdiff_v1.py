"""PerFRDiff as first published: emotion out, no causality within the window, learned positions.

Source: Zhu et al. 2024, "PerFRDiff: Personalised Weight Editing for Multiple Appropriate Facial Reaction Generation";
public code PerFRDiff, configs/diffusion_model.yaml. Its hypernetwork, which shifts weights once per person, is no part
of the checkpoint and not here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pflx.export.errors import InputError
from pflx.export.models.keys import Keys
from pflx.export.models.perfrdiff import COEFFICIENTS, DIM, EMOTION, MFCC, WINDOW, TimeEmbedding, ddim, decoder, guide

_N_HEADS = 4
_TABLE_ROWS = 500
_AUDIO_SCALE = DIM**-0.5


class LearnedPositions(nn.Module):
    """A table of trained positions under the key `pe`."""

    def __init__(self) -> None:
        super().__init__()
        self.pe = nn.Parameter(torch.empty(_TABLE_ROWS, 1, DIM))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return `tokens` [B, T, 512] with their positions added."""
        return tokens + self.pe[: tokens.shape[1], 0]


class PerFRDiffV1(nn.Module):
    """The original denoiser (25 emotion values out), and its sampler."""

    def __init__(self) -> None:
        super().__init__()
        self.to_emotion_embed = nn.Linear(EMOTION, DIM)
        self.to_emotion_feat = nn.Linear(DIM, EMOTION)
        self.time_embedding = TimeEmbedding()
        self.speaker_audio_proj = nn.Linear(MFCC, DIM)
        self.speaker_3dmm_proj = nn.Linear(COEFFICIENTS, DIM)
        self.query_pos, self.mem_pos = LearnedPositions(), LearnedPositions()
        self.decoder = decoder(_N_HEADS)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        coefficients: Tensor,
        mfcc: Tensor,
        latent: Tensor,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Predict clean emotion; one call of the network.

        Args:
            x: float32 [B, 50, 25], noisy emotion.
            timestep: int64 [] or [B], 0 to 999.
            coefficients: float32 [B or 1, 50, 58], the speaker's, mean face subtracted.
            mfcc: float32 [B or 1, 50, 78], the speaker's, not scaled.
            latent: float32 [B or 1, 1, 512], the speaker's emotion over the window, encoded.
            seen: bool [B], the rows that see the speaker; None for all.

        Returns:
            float32 [B, 50, 25], not clamped.

        Raises:
            InputError: a shape that does not fit.
        """
        if x.ndim != 3 or tuple(x.shape[1:]) != (WINDOW, EMOTION):
            raise InputError(f"PerFRDiff v1's x is [B, {WINDOW}, {EMOTION}], got {list(x.shape)}.")
        n_rows = x.shape[0]
        shown = x.new_ones(n_rows, 1, 1) if seen is None else seen.to(x.dtype)[:, None, None]
        time = self.time_embedding(timestep.reshape(-1).expand(n_rows))[:, None]
        sound = self.speaker_audio_proj(mfcc) * _AUDIO_SCALE
        speaker = (condition * shown for condition in (sound, self.speaker_3dmm_proj(coefficients), latent))
        memory = self.mem_pos(torch.cat((time, *speaker), dim=1))
        query = self.query_pos(self.to_emotion_embed(x))
        emotion: Tensor = self.to_emotion_feat(self.decoder(query, memory))
        return emotion

    def guided(self, x: Tensor, timestep: Tensor, coefficients: Tensor, mfcc: Tensor, latent: Tensor) -> Tensor:
        """Predict with classifier-free guidance; see `guide`, and `forward` for the arguments."""
        return guide(self, x, timestep, coefficients, mfcc, latent)

    def sample(self, noise: Tensor, coefficients: Tensor, mfcc: Tensor, latent: Tensor) -> Tensor:
        """Make one window of emotion, float32 [B, 50, 25], from noise of that shape; see `ddim`."""
        return ddim(lambda x, timestep: self.guided(x, timestep, coefficients, mfcc, latent), noise)


KEYS = Keys(
    unused={
        f"{name}.{leaf}": shape
        for name in ("speaker_emotion_proj", "listener_emotion_proj")
        for leaf, shape in (("weight", (DIM, EMOTION)), ("bias", (DIM,)))
    }
)
