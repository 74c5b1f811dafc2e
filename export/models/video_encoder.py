"""The video encoder of ReactFace and Trans-VAE: five convolutions over speaker frames, normalised jointly."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

DIM = 128
FRAME_SIZE = 224


def joint_instance_norm(features: Tensor) -> Tensor:
    """Return `features` [B, C, T, H, W] normalised over T, H, W jointly, then ReLU; float32 statistics."""
    return F.relu(F.instance_norm(features.float(), eps=1e-5).to(features.dtype))


def _conv(n_in: int, n_out: int, kernel: tuple[int, int, int], stride: int) -> nn.Conv3d:
    """A convolution that keeps the number of frames and divides height and width by `stride`."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(n_in, n_out, kernel, (1, stride, stride), padding, bias=False)


class Conv3DStack(nn.Module):
    """The convolutions, under the reference's keys; `taps` in time of the first two and of the others."""

    def __init__(self, taps: tuple[int, int] = (5, 3)) -> None:
        super().__init__()
        wide, narrow = taps
        self.conv1 = _conv(3, 32, (wide, 7, 7), 2)
        self.conv2 = _conv(32, DIM, (wide, 7, 7), 2)
        self.conv3 = _conv(DIM, DIM, (narrow, 3, 3), 2)
        self.conv4 = _conv(DIM, DIM, (narrow, 3, 3), 1)
        self.conv5 = _conv(DIM, DIM, (narrow, 3, 3), 2)

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

    Source: ReactFace fa4b3a4, `VideoEncoder`. Trans-VAE's (baseline_react2024 0c3ce58) differs in its taps, (1, 1).
    """

    def __init__(self, taps: tuple[int, int] = (5, 3)) -> None:
        super().__init__()
        self.Conv3D = Conv3DStack(taps)
        self.fc = nn.Linear(DIM, DIM)

    def forward(self, video: Tensor) -> Tensor:
        """Return float [B, T, 128] from `video` [B, T, 3, 224, 224] in [-1, 1]."""
        features: Tensor = self.fc(self.Conv3D(video.transpose(1, 2)))
        return features
