"""PerFRDiff's encoder of persons: how somebody listens, out of half a minute of their coefficients.

Source: PerFRDiff 8f08853, `PersonSpecificEncoder.Transformer`; Zhu et al. 2024, "PerFRDiff: Personalised Weight Editing
for Multiple Appropriate Facial Reaction Generation".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.errors import InputError
from pflx.export.models.layers import sinusoid
from pflx.export.models.perfrdiff import COEFFICIENTS, DIM, FEED_FORWARD
from pflx.runtime.persons.person import MOST_FRAMES

_N_HEADS, _N_LAYERS = 4, 4


class PersonEncoder(nn.Module):
    """A clip of a listener as one vector, by a transformer that sees all frames at once."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positions", sinusoid(1 + MOST_FRAMES, DIM), persistent=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, DIM))
        self.embed_layer = nn.Linear(COEFFICIENTS, DIM)
        layer = nn.TransformerEncoderLayer(DIM, _N_HEADS, FEED_FORWARD, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, _N_LAYERS, enable_nested_tensor=False)
        self.proj_head = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))

    def forward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a clip.

        Args:
            coefficients: float32 [B, T, 58] at 25 fps, the listener's, mean face subtracted; T is 1 to 999. The
                published training and test took 750. Another length of the same clip gives another style.

        Returns:
            The feature float32 [B, 512], and the style float32 [B, 512] of unit length, which the hypernetwork reads.

        Raises:
            InputError: a shape that does not fit.
        """
        if (
            coefficients.ndim != 3
            or coefficients.shape[2] != COEFFICIENTS
            or not 1 <= coefficients.shape[1] <= MOST_FRAMES
        ):
            raise InputError(
                f"The person encoder reads [B, 1 to {MOST_FRAMES}, {COEFFICIENTS}], got {list(coefficients.shape)}."
            )
        frames = self.embed_layer(coefficients)
        tokens = torch.cat((self.cls_token.expand(len(frames), -1, -1), frames), dim=1)
        feature: Tensor = self.transformer(tokens + self.positions[: tokens.shape[1]])[:, 0]
        return feature, F.normalize(self.proj_head(feature), dim=-1)
