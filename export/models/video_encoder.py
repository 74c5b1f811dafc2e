"""ReactFace's video encoder: five 3-D convolutions over a window of speaker frames."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

DIM = 128
FRAME_SIZE = 224


def joint_instance_norm(features: Tensor) -> Tensor:
    """Return `features` [B, C, T, H, W] normalised over T, H, W jointly, then ReLU; float32 statistics."""
    return F.relu(F.instance_norm(features.float(), eps=1e-5).to(features.dtype))


class Conv3DStack(nn.Module):
    """The convolutions, under the reference's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 32, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False)
        self.conv2 = nn.Conv3d(32, DIM, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False)
        self.conv3 = nn.Conv3d(DIM, DIM, 3, (1, 2, 2), 1, bias=False)
        self.conv4 = nn.Conv3d(DIM, DIM, 3, 1, 1, bias=False)
        self.conv5 = nn.Conv3d(DIM, DIM, 3, (1, 2, 2), 1, bias=False)

    def forward(self, video: Tensor) -> Tensor:
        """Return float [B, T, 128] from `video` [B, 3, T, 224, 224]."""
        x = joint_instance_norm(self.conv1(video))
        x = joint_instance_norm(self.conv2(F.max_pool3d(x, (1, 3, 3), (1, 2, 2))))
        x = joint_instance_norm(self.conv3(x))
        x = x + joint_instance_norm(self.conv4(x))
        x = joint_instance_norm(self.conv5(x))
        return x.mean(dim=(-2, -1)).transpose(1, 2)


class VideoEncoder(nn.Module):
    """Features of every frame; each depends on all frames of the call through the joint normalisation.

    Source: ReactFace fa4b3a4, `VideoEncoder`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv3D = Conv3DStack()
        self.fc = nn.Linear(DIM, DIM)

    def forward(self, video: Tensor) -> Tensor:
        """Return float [B, T, 128] from `video` [B, T, 3, 224, 224] in [-1, 1]."""
        features: Tensor = self.fc(self.Conv3D(video.transpose(1, 2)))
        return features
