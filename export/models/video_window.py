"""The video encoder for a fixed window: equal to `VideoEncoder`, with half the multiplications in float32.

A 3-D convolution over a window is a 2-D convolution of every frame with every tap, summed along time. Along
time a minimal filtering algorithm (Winograd) needs 8 products for 4 outputs of 5 taps instead of 20, and 6
for 4 outputs of 3 taps instead of 12. Each product is a 2-D convolution of one combination of frames, which
a CPU runs at full speed, unlike a 3-D one. The combinations cost about one decimal of precision: right in
float32, wrong in FP16, where the original convolutions are kept.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pflx.export.models.video_encoder import VideoEncoder, joint_instance_norm

N_OUTPUTS = 4
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
Matrix = npt.NDArray[np.float64]


def minimal_filter(n_taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return (A, G, B): A @ ((G @ taps) * (B @ signal)) is the correlation of n signal samples with the taps.

    A is [4, n], G [n, n_taps] and B [n, n], with n = n_taps + 3. The last point of interpolation is infinity.
    Rows of G are scaled to sum to 1 in magnitude, so that no combination of taps outgrows the taps.

    Source: Lavin and Gray 2016, section 4.1; Winograd 1980 (Cook-Toom).
    """
    n = N_OUTPUTS + n_taps - 1

    def powers(n_columns: int) -> Matrix:
        finite = np.vander(np.array(_POINTS[: n - 1]), n_columns, increasing=True)
        return np.vstack((finite, np.eye(n_columns)[-1]))

    taps, signal = powers(n_taps), np.linalg.inv(powers(n)).T
    scale = np.abs(taps).sum(axis=1, keepdims=True)
    return powers(N_OUTPUTS).T, taps / scale, signal * scale


class WindowConv(nn.Module):
    """A 3-D convolution of stride 1 in time over a window of `n_frames`, a multiple of 4.

    Args:
        conv: the convolution; its zero padding keeps the number of frames.
        n_frames: frames of the window.
        grouped: one grouped convolution for all products, which needs 16 or more input channels to be fast.
    """

    combine: Tensor
    taps: Tensor
    restore: Tensor

    def __init__(self, conv: nn.Conv3d, n_frames: int, grouped: bool) -> None:
        super().__init__()
        n_out, n_in, n_taps = conv.weight.shape[:3]
        restore, taps, signal = minimal_filter(n_taps)
        self.n_products, self.n_in, self.n_out, self.grouped = len(signal), n_in, n_out, grouped
        self.stride, self.padding = conv.stride[1:], (int(conv.padding[1]), int(conv.padding[2]))
        self.n_tiles = n_frames // N_OUTPUTS
        reach = n_taps // 2
        padded = np.zeros((self.n_tiles, self.n_products, n_frames + 2 * reach))
        for tile in range(self.n_tiles):
            padded[tile, :, tile * N_OUTPUTS : tile * N_OUTPUTS + self.n_products] = signal
        # Columns of padding frames meet only zeros.
        combine = padded[..., reach : n_frames + reach].reshape(-1, n_frames)
        kernels = np.einsum("nr,oirhw->noihw", taps, conv.weight.detach().double().cpu().numpy())
        for name, value in {"combine": combine, "taps": kernels, "restore": restore}.items():
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))

    def forward(self, frames: Tensor) -> Tensor:
        """Return [B, C', T, H', W'] from `frames` [B, T, C, H, W]."""
        n_batch, n_frames, _, height, width = frames.shape
        tiles = (self.combine @ frames.flatten(2)).reshape(-1, self.n_products * self.n_in, height, width)
        products = self._convolve(tiles)
        restored = self.restore @ products.reshape(n_batch * self.n_tiles, self.n_products, -1)
        return restored.reshape(n_batch, n_frames, self.n_out, *products.shape[-2:]).transpose(1, 2)

    def _convolve(self, tiles: Tensor) -> Tensor:
        if self.grouped:
            taps = self.taps.flatten(0, 1)
            return F.conv2d(tiles, taps, stride=self.stride, padding=self.padding, groups=self.n_products)
        pairs = zip(torch.split(tiles, self.n_in, dim=1), self.taps.unbind(), strict=True)
        return torch.cat([F.conv2d(x, w, stride=self.stride, padding=self.padding) for x, w in pairs], dim=1)


class WindowVideoEncoder(nn.Module):
    """`VideoEncoder` for windows of `n_frames`; in FP16 it runs the original convolutions."""

    def __init__(self, network: VideoEncoder, n_frames: int) -> None:
        super().__init__()
        self.direct = network
        stack = network.Conv3D
        self.convs = nn.ModuleList(
            WindowConv(conv, n_frames, grouped=conv.in_channels >= 16)
            for conv in (stack.conv1, stack.conv2, stack.conv3, stack.conv4, stack.conv5)
        )

    def forward(self, video: Tensor) -> Tensor:
        """Return float [B, T, 128] from `video` [B, T, 3, 224, 224] in [-1, 1]."""
        if self.direct.fc.weight.dtype != torch.float32:
            return cast(Tensor, self.direct(video))
        conv1, conv2, conv3, conv4, conv5 = self.convs
        x = F.instance_norm(conv1(video), eps=1e-5)
        # Frames pool as channels do, and ReLU costs a quarter after the pooling that it commutes with.
        n_batch, n_channels, n_frames = x.shape[:3]
        pooled = F.relu(F.max_pool2d(x.flatten(1, 2), 3, 2))
        x = pooled.reshape(n_batch, n_channels, n_frames, *pooled.shape[-2:])
        x = joint_instance_norm(conv2(x.transpose(1, 2)))
        x = joint_instance_norm(conv3(x.transpose(1, 2)))
        x = x + joint_instance_norm(conv4(x.transpose(1, 2)))
        x = joint_instance_norm(conv5(x.transpose(1, 2)))
        features = self.direct.fc(x.mean(dim=(-2, -1)).transpose(1, 2))
        return cast(Tensor, features)
