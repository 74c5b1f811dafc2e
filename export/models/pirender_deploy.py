"""The deploy form of PIRender: algebraically equal to the published network, and cheaper.

What differs, and why it is equal:

- Split in two graphs. What depends on the portrait alone (the warping net's input layer with its instance norm, and
  the source half of the editing net's first convolution) runs once per session, in `PortraitFeatures`.
- The dead half of every residual block is left out (see `pirender.ResidualBlock`).
- Nearest ×2 followed by a 3×3 convolution reads each source pixel up to four times. Its four output phases are 2×2
  convolutions of the small image, with the taps that read the same pixel summed: 4/9 of the multiplications.
- A convolution with very few output channels (flow, image) leaves most lanes of a vector unit empty. Computing a
  2×2 block of pixels as four times the channels, with an 8×8 kernel and stride 2, fills them.
- A bias before an instance norm changes nothing and is left out; before a layer norm it becomes part of the norm's one
  scale and shift. So no pass over the features adds it.
- Window gather, mean face, normalisation and uint8 conversion are inside the graph, so that only coefficients go in
  and only uint8 pictures come out.

Built from a half-precision module, features are float16 from convolution to convolution, and the islands float32: the
statistics of layer norms, everything of the descriptor's size, flow and grid arithmetic, and the last activation.
Instance norms of float16 features sum in float32 on CUDA.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pflx.export.models.pirender import (
    EPSILON,
    NEGATIVE_SLOPE,
    WINDOW_RADIUS,
    AdaIN,
    ConvBlock,
    DecoderBlock,
    EncoderBlock,
    LayerNorm2d,
    PIRender,
    ResidualBlock,
    deformation,
)


def uint8_to_image(pixels: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in [-1, 1].

    The cast comes first: TensorRT takes uint8 only at the edge of a graph.
    """
    return (pixels.float().permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def _run(layer: nn.Module, features: Tensor) -> Tensor:
    """Run a convolution or linear layer in its own precision, which is that of the result."""
    out: Tensor = layer(features.to(next(layer.parameters()).dtype))
    return out


def _run_unbiased(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """The same of a convolution, without its bias."""
    return F.conv2d(features.to(conv.weight.dtype), conv.weight, stride=conv.stride, padding=cast(Any, conv.padding))


def _modulation(norm: AdaIN, descriptor: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift, float32 [B, C] each."""
    hidden = F.relu(_run(norm.mlp_shared[0], descriptor))
    return 1 + _run(norm.mlp_gamma, hidden).float(), _run(norm.mlp_beta, hidden).float()


def _adain(features: Tensor, norm: AdaIN, descriptor: Tensor) -> Tensor:
    """AdaIN in one pass: the batch joins the channels, so that one instance norm takes a scale per sample."""
    scale, shift = _modulation(norm, descriptor)
    channels = features.flatten(0, 1)[None]
    weight, bias = scale.flatten().to(features.dtype), shift.flatten().to(features.dtype)
    return F.instance_norm(channels, weight=weight, bias=bias, eps=EPSILON).view_as(features)


def _act(features: Tensor) -> Tensor:
    return F.leaky_relu(features, NEGATIVE_SLOPE)


def _layer_norm_act(features: Tensor, norm: LayerNorm2d, bias: Tensor | None = None) -> Tensor:
    """Layer norm over C·H·W, then the activation, as one scale and shift per channel.

    The moments are taken per channel first: summing eight million float32 values in one go loses three digits.

    Args:
        features: [N, C, H, W].
        norm: the norm.
        bias: [C], of the convolution that made the features, if it was left out there.
    """
    precise = features.float()
    mean = precise.mean(dim=(2, 3), keepdim=True)
    power = (precise * precise).mean(dim=(2, 3), keepdim=True)
    offset = torch.zeros(1, 1, 1, 1) if bias is None else bias.float().view(1, -1, 1, 1)
    if bias is not None:
        power = power + offset * (2 * mean + offset)
        mean = mean + offset
    mean, power = mean.mean(dim=1, keepdim=True), power.mean(dim=1, keepdim=True)
    scale = norm.weight.float() * torch.rsqrt(power - mean.square() + EPSILON)
    shift = norm.bias.float() + (offset - mean) * scale
    return _act(features * scale.to(features.dtype) + shift.to(features.dtype))


def _sum_taps(weight: Tensor, dim: int, phase: int) -> Tensor:
    """Fold three taps along `dim` onto the two source pixels that output phase 0 or 1 reads after nearest ×2."""
    first, middle, last = weight.unbind(dim)
    pair = [first, middle + last] if phase == 0 else [first + middle, last]
    return torch.stack(pair, dim)


class UpsampledConv(nn.Module):
    """Nearest ×2, then a 3×3 convolution with padding 1, as four 2×2 convolutions of the small image.

    Attributes:
        bias: [cout], which is left to what comes behind.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        folded = [_sum_taps(_sum_taps(conv.weight.detach(), 2, row), 3, column) for row in (0, 1) for column in (0, 1)]
        self.phases = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in folded)
        self.bias = conv.bias

    def _phase(self, features: Tensor, row: int, column: int) -> Tensor:
        """Output pixels (2i + row, 2j + column): they read source rows i-1, i (row 0) or i, i+1 (row 1)."""
        padded = F.pad(features, (1 - column, column, 1 - row, row))
        return F.conv2d(padded, self.phases[2 * row + column])

    def forward(self, features: Tensor) -> Tensor:
        """Return [N, cout, 2H, 2W] from [N, cin, H, W], without the bias."""
        rows = [
            torch.stack([self._phase(features, row, 0), self._phase(features, row, 1)], dim=4).flatten(3)
            for row in (0, 1)
        ]
        return torch.stack(rows, dim=3).flatten(2, 3)


class BlockConv(nn.Module):
    """A k×k convolution (k odd, padding k//2) that yields each 2×2 block of output pixels as channels.

    [N, C, H, W] → [N, 4·cout, H/2, W/2], channel order (cout, row, column): `pixel_shuffle` gives the plain result.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        cout, cin, size, _ = conv.weight.shape
        kernel = conv.weight.new_zeros(cout, 2, 2, cin, size + 1, size + 1)
        for row in (0, 1):
            for column in (0, 1):
                kernel[:, row, column, :, row : row + size, column : column + size] = conv.weight.detach()
        self.weight = nn.Parameter(kernel.flatten(0, 2), requires_grad=False)
        assert conv.bias is not None
        self.bias = nn.Parameter(conv.bias.detach().repeat_interleave(4), requires_grad=False)
        self.padding = size // 2

    def forward(self, features: Tensor) -> Tensor:
        """Return [N, 4·cout, H/2, W/2]."""
        return F.conv2d(features, self.weight, self.bias, stride=2, padding=self.padding)


def _input_half(conv: nn.Conv2d, channels: slice, *, bias: bool) -> nn.Conv2d:
    """A convolution restricted to some of its input channels, with its bias or without."""
    weight = conv.weight.detach()[:, channels].clone()
    half = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2, bias=bias)
    half.weight = nn.Parameter(weight, requires_grad=False)
    if bias:
        half.bias = conv.bias
    return half


class PortraitFeatures(nn.Module):
    """Graph `pirender_portrait`: what a session needs of its portrait, computed once."""

    def __init__(self, network: PIRender) -> None:
        super().__init__()
        self.warp_input = network.warpping_net.hourglass.encoder.input_layer
        self.edit_input = _input_half(network.editing_net.encoder.first.conv, slice(0, 3), bias=True)

    def forward(self, portrait: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Portrait uint8 [P, H, W, 3] → source [P, 3, H, W], warp and edit features [P, 32 | 64, H, W], float32."""
        source = uint8_to_image(portrait)
        warp_features = F.instance_norm(_run_unbiased(self.warp_input, source).float(), eps=EPSILON)
        return source, warp_features, _run(self.edit_input, source).float()


class FrameRenderer(nn.Module):
    """Graph `pirender_frame`: K frames of each of P portraits from their coefficient tracks.

    Args:
        network: the published network, loaded.
        mean_face: float32 [58], added to the coefficients.
    """

    mean_face: Tensor
    offsets: Tensor

    def __init__(self, network: PIRender, mean_face: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_face", mean_face.float(), persistent=False)
        self.register_buffer("offsets", torch.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1), persistent=False)
        self.mapping, self.hourglass = network.mapping_net, network.warpping_net.hourglass
        self.editing = network.editing_net
        self.flow_norm = network.warpping_net.flow_norm
        self.flow_conv = BlockConv(network.warpping_net.flow_conv)
        self.edit_warped = _input_half(network.editing_net.encoder.first.conv, slice(3, 6), bias=False)
        self.ups = nn.ModuleList(UpsampledConv(up.conv) for _, up, _ in network.editing_net.decoder.stages)
        self.image_conv = BlockConv(network.editing_net.decoder.image_conv)

    def forward(
        self, source: Tensor, warp_features: Tensor, edit_features: Tensor, coefficients: Tensor, frames: Tensor
    ) -> Tensor:
        """Render frames.

        Args:
            source: float32 [P, 3, H, W], of `PortraitFeatures`.
            warp_features: float32 [P, 32, H, W], likewise.
            edit_features: float32 [P, 64, H, W], likewise.
            coefficients: float32 [P, T, 58], mean face subtracted.
            frames: int64 [K], indices into T; each window reaches 13 frames to both sides, clamped to 0…T-1.

        Returns:
            uint8 [P, K, H, W, 3] RGB.
        """
        descriptor = self._descriptor(coefficients, frames)
        warped = self._warp(source, self._flow(warp_features, descriptor))
        image = self._edit(edit_features, warped, descriptor)
        return self._to_uint8(image, source.shape[0])

    def _descriptor(self, coefficients: Tensor, frames: Tensor) -> Tensor:
        last = torch.full_like(frames, coefficients.shape[1] - 1)
        rows = torch.minimum((frames[:, None] + self.offsets).clamp(min=0), last[:, None]).flatten()
        track = (coefficients + self.mean_face).index_select(1, rows)
        windows = track.view(-1, len(self.offsets), track.shape[2]).transpose(1, 2)
        features = _run(self.mapping.first, _run(self.mapping.pre, windows)).float()
        for conv in self.mapping.dilated:
            features = _run(conv, _act(features)).float() + features[:, :, 3:-3]
        return features.mean(dim=2)

    def _flow(self, warp_features: Tensor, descriptor: Tensor) -> Tensor:
        first, *deeper = self.hourglass.encoder.blocks
        modulated = self._first_adain(warp_features, first.norm_0, descriptor)
        levels = [self._encode(modulated, first, descriptor)]
        for block in deeper:
            levels.append(self._encode(_adain(levels[-1], block.norm_0, descriptor), block, descriptor))
        features = levels[-1]
        for decoder, skip in zip(self.hourglass.decoder.blocks, levels[3:0:-1], strict=True):
            features = torch.cat([self._decode(features, decoder, descriptor), skip], dim=1)
        blocks = _run(self.flow_conv, _layer_norm_act(features, self.flow_norm))
        return F.pixel_shuffle(blocks.float(), 2)

    @staticmethod
    def _first_adain(normalised: Tensor, norm: AdaIN, descriptor: Tensor) -> Tensor:
        """AdaIN over features that are already normalised, once per portrait, for every frame of it."""
        dtype, shape = norm.mlp_gamma.weight.dtype, (normalised.shape[0], -1, normalised.shape[1], 1, 1)
        scale, shift = (value.view(shape).to(dtype) for value in _modulation(norm, descriptor))
        return (normalised.to(dtype)[:, None] * scale + shift).flatten(0, 1)

    @staticmethod
    def _encode(modulated: Tensor, block: EncoderBlock, descriptor: Tensor) -> Tensor:
        """An encoder block from behind its first norm."""
        features = _run_unbiased(block.conv_0, _act(modulated))
        return _run(block.conv_1, _act(_adain(features, block.norm_1, descriptor)))

    @staticmethod
    def _decode(features: Tensor, block: DecoderBlock, descriptor: Tensor) -> Tensor:
        residual = _run_unbiased(block.conv_0, _act(_adain(features, block.norm_0, descriptor)))
        residual = _act(_adain(residual, block.norm_1, descriptor))
        shortcut = _act(_adain(features, block.norm_s, descriptor))
        return _transposed_sum((residual, block.conv_1), (shortcut, block.conv_s))

    @staticmethod
    def _warp(source: Tensor, flow: Tensor) -> Tensor:
        """Sample each portrait for all of its K frames at once: the K grids are stacked along the height."""
        portraits, _, height, width = source.shape
        grid = deformation(flow, (height, width)).permute(0, 2, 3, 1)
        stacked = F.grid_sample(source, grid.reshape(portraits, -1, width, 2), align_corners=False)
        return stacked.view(portraits, 3, -1, height, width).transpose(1, 2).reshape(-1, 3, height, width)

    def _edit(self, edit_features: Tensor, warped: Tensor, descriptor: Tensor) -> Tensor:
        encoder, decoder = self.editing.encoder, self.editing.decoder
        portraits, channels, height, width = edit_features.shape
        from_warped = _run(self.edit_warped, warped).view(portraits, -1, channels, height, width)
        first = (from_warped + edit_features.to(from_warped.dtype)[:, None]).flatten(0, 1)
        levels = [_layer_norm_act(first, encoder.first.norm)]
        for block in encoder.downs:
            levels.append(F.avg_pool2d(_conv_block(levels[-1], block), 2))
        out = levels[3]
        for (pair, up, jump), folded, skip in zip(decoder.stages, self.ups, levels[2::-1], strict=True):
            for residual in pair.blocks:
                out = _residual(out, residual, descriptor)
            assert isinstance(folded, UpsampledConv)
            out = _layer_norm_act(_run(folded, out), up.norm, folded.bias) + _conv_block(skip, jump)
        return torch.tanh(_run(self.image_conv, out).float())

    @staticmethod
    def _to_uint8(blocks: Tensor, portraits: int) -> Tensor:
        """Float [P·K, 12, H/2, W/2] in 2×2 blocks → uint8 [P, K, H, W, 3]; truncated, as the published code does."""
        height, width = blocks.shape[2:]
        pixels = (blocks * 127.5 + 127.5).clamp(0, 255).view(portraits, -1, 3, 2, 2, height, width)
        rows = pixels.permute(0, 1, 5, 3, 6, 4, 2)
        return rows.reshape(portraits, -1, 2 * height, 2 * width, 3).to(torch.uint8)


def _transposed_sum(*terms: tuple[Tensor, nn.ConvTranspose2d]) -> Tensor:
    """The sum of transposed convolutions of one geometry, as a single one over joined channels."""
    weight = torch.cat([conv.weight for _, conv in terms])
    bias = torch.stack([cast(Tensor, conv.bias) for _, conv in terms]).sum(dim=0)
    joined = torch.cat([features for features, _ in terms], dim=1).to(weight.dtype)
    return F.conv_transpose2d(joined, weight, bias, stride=2, padding=1, output_padding=1)


def _conv_block(features: Tensor, block: ConvBlock) -> Tensor:
    return _layer_norm_act(_run_unbiased(block.conv, features), block.norm, block.conv.bias)


def _residual(features: Tensor, block: ResidualBlock, descriptor: Tensor) -> Tensor:
    return features + _adain(_run_unbiased(block.conv2, features), block.norm2, descriptor)
