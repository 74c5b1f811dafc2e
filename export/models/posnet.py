"""PosNet: the pose of a new segment, made continuous with the last pose that was emitted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.errors import InputError

POSE = 6
COEFFICIENTS = 58
HIDDEN = 512


class PosNet(nn.Module):
    """Pose stitching network for overlapping windows.

    Args:
        slide: how many frames are new in each window.
        hidden: width of all layers; 512 in public checkpoints.

    Source: PFLPosNet 6c274a2, `PosModifierMLP`.
    """

    def __init__(self, slide: int = 25, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.slide = slide
        convs = (
            nn.Conv1d(POSE, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
        )
        self.encoder = nn.Sequential(*convs)
        self.fc1 = nn.Linear(POSE + hidden, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, slide * POSE)

    def new_pose(self, last_pose: Tensor, fresh: Tensor) -> Tensor:
        """Return the absolute pose of the new frames, float32 [M, slide, 6].

        Args:
            last_pose: float32 [M, 6], the last emitted pose, mean face subtracted.
            fresh: float32 [M, slide, 6], the generator's pose of the new frames, mean face subtracted.
        """
        dtype = self.fc1.weight.dtype
        encoded = self.encoder(fresh.to(dtype).transpose(1, 2)).float().mean(dim=-1)
        joined = torch.cat((last_pose.float(), encoded), dim=-1).to(dtype)
        hidden = F.relu(self.fc2(F.relu(self.fc1(joined))))
        pose = F.linear(hidden.float(), self.fc3.weight.float(), self.fc3.bias.float())
        return pose.reshape(-1, self.slide, POSE)

    def forward(self, past: Tensor, current: Tensor) -> Tensor:
        """Return the corrected pose window.

        Args:
            past: float32 [B, K, w, 6], the corrected pose of the previous window, w >= slide.
            current: float32 [B, K, w, 6], the generator's pose of this window; its last `slide` frames count.

        Returns:
            float32 [B, K, w, 6]: the last w - slide frames of `past`, then `slide` new ones.

        Raises:
            InputError: the windows differ in shape, or are shorter than the slide.
        """
        n_batch, n_candidates, n_frames, _ = past.shape
        if past.shape != current.shape or n_frames < self.slide:
            raise InputError(
                f"PosNet takes two windows of one shape [B, K, {self.slide} or more, {POSE}], "
                f"got {list(past.shape)} and {list(current.shape)}."
            )
        fresh = current[:, :, n_frames - self.slide :].flatten(0, 1)
        new = self.new_pose(past[:, :, -1].flatten(0, 1), fresh)
        new = new.reshape(n_batch, n_candidates, self.slide, POSE)
        return torch.cat((past[:, :, self.slide :], new), dim=2)


class PosNetSmoother(nn.Module):
    """The exported graph: PosNet on one segment of coefficients, with one pose of state."""

    def __init__(self, network: PosNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, segment: Tensor, last_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smoothed segment and its last pose.

        Args:
            segment: float32 [M, slide, 58], mean face subtracted.
            last_pose: float32 [M, 6], the last emitted pose.

        Returns:
            float32 [M, slide, 58] with expression untouched and new pose, and float32 [M, 6].
        """
        expression, pose = torch.split(segment, [COEFFICIENTS - POSE, POSE], dim=-1)
        new = self.network.new_pose(last_pose, pose)
        return torch.cat((expression, new), dim=-1), new[:, -1]
