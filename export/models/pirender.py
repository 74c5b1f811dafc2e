"""PIRender: one frame of a portrait from a window of motion coefficients.

This is the network as published: its keys are the public checkpoints' keys and its numbers are theirs. What pflx
exports is the algebraically equal, cheaper form in `pflx.export.models.pirender_deploy`.

Source: PIRender (ICCV 2021, RenYurui/PIRender 9e59f19) and its 58-coefficient variant (ReactFace fa4b3a4).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.1
EPSILON = 1e-5
DESCRIPTOR = 256
WINDOW_RADIUS = 13
"""Coefficient frames read on each side of the rendered one (27 in all)."""


def _act(features: Tensor) -> Tensor:
    return F.leaky_relu(features, NEGATIVE_SLOPE)


class LayerNorm2d(nn.Module):
    """Layer norm over C, H and W jointly, with one weight and bias per channel, stored as [C, 1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise [B, C, H, W]."""
        return F.layer_norm(features, features.shape[1:], eps=EPSILON) * self.weight + self.bias


class AdaIN(nn.Module):
    """Instance norm whose per-channel scale and shift come from the descriptor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Linear(DESCRIPTOR, 128), nn.ReLU())
        self.mlp_gamma = nn.Linear(128, channels)
        self.mlp_beta = nn.Linear(128, channels)

    def modulation(self, descriptor: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift [B, C] for `descriptor` [B, 256]."""
        hidden = self.mlp_shared(descriptor)
        return 1 + self.mlp_gamma(hidden), self.mlp_beta(hidden)

    def forward(self, features: Tensor, descriptor: Tensor) -> Tensor:
        """Normalise and modulate [B, C, H, W]."""
        scale, shift = self.modulation(descriptor)
        normalised = F.instance_norm(features, eps=EPSILON)
        return normalised * scale[:, :, None, None] + shift[:, :, None, None]


class MappingNet(nn.Module):
    """Coefficient window [B, C, T ≥ 25] → descriptor [B, 256]."""

    def __init__(self, coefficients: int) -> None:
        super().__init__()
        if coefficients != 73:
            self.pre = nn.Conv1d(coefficients, 73, 1)
        self.first = nn.Sequential(nn.Conv1d(73, DESCRIPTOR, 7))
        for i in range(3):
            block = nn.Sequential(nn.LeakyReLU(NEGATIVE_SLOPE), nn.Conv1d(DESCRIPTOR, DESCRIPTOR, 3, dilation=3))
            setattr(self, f"encoder{i}", block)

    @property
    def dilated(self) -> list[nn.Conv1d]:
        """The convolutions of the three residual blocks."""
        return [cast(nn.Conv1d, getattr(self, f"encoder{i}")[1]) for i in range(3)]

    def forward(self, window: Tensor) -> Tensor:
        """Return the descriptor of each window."""
        if hasattr(self, "pre"):
            window = self.pre(window)
        features: Tensor = self.first(window)
        for conv in self.dilated:
            features = conv(_act(features)) + features[:, :, 3:-3]
        return features.mean(dim=2)


class EncoderBlock(nn.Module):
    """Halves the resolution: two convolutions, each behind AdaIN and activation."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(cin, cout, 4, stride=2, padding=1)
        self.conv_1 = nn.Conv2d(cout, cout, 3, padding=1)
        self.norm_0 = AdaIN(cin)
        self.norm_1 = AdaIN(cout)

    def forward(self, features: Tensor, descriptor: Tensor) -> Tensor:
        """Return features of half the resolution."""
        features = self.conv_0(_act(self.norm_0(features, descriptor)))
        halved: Tensor = self.conv_1(_act(self.norm_1(features, descriptor)))
        return halved


class DecoderBlock(nn.Module):
    """Doubles the resolution by transposed convolutions on a residual and a shortcut path."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(cin, cout, 3, padding=1)
        self.conv_1 = nn.ConvTranspose2d(cout, cout, 3, stride=2, padding=1, output_padding=1)
        self.conv_s = nn.ConvTranspose2d(cin, cout, 3, stride=2, padding=1, output_padding=1)
        self.norm_0 = AdaIN(cin)
        self.norm_1 = AdaIN(cout)
        self.norm_s = AdaIN(cin)

    def forward(self, features: Tensor, descriptor: Tensor) -> Tensor:
        """Return features of twice the resolution."""
        residual = self.conv_0(_act(self.norm_0(features, descriptor)))
        residual = self.conv_1(_act(self.norm_1(residual, descriptor)))
        doubled: Tensor = self.conv_s(_act(self.norm_s(features, descriptor))) + residual
        return doubled


class HourglassEncoder(nn.Module):
    """Source image → features at five resolutions, modulated by the descriptor."""

    WIDTHS = (32, 64, 128, 256, 256, 256)

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Conv2d(3, self.WIDTHS[0], 7, padding=3)
        for i, (cin, cout) in enumerate(zip(self.WIDTHS[:-1], self.WIDTHS[1:], strict=True)):
            setattr(self, f"encoder{i}", EncoderBlock(cin, cout))

    @property
    def blocks(self) -> list[EncoderBlock]:
        """The five blocks in the order they run."""
        return [cast(EncoderBlock, getattr(self, f"encoder{i}")) for i in range(5)]

    def forward(self, source: Tensor, descriptor: Tensor) -> list[Tensor]:
        """Return the input layer's features and those of the five blocks."""
        features = [self.input_layer(source)]
        for block in self.blocks:
            features.append(block(features[-1], descriptor))
        return features


class HourglassDecoder(nn.Module):
    """The three deepest features → [B, 256, H/4, W/4], with skips e4, e3, e2."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder4 = DecoderBlock(256, 256)
        self.decoder3 = DecoderBlock(512, 256)
        self.decoder2 = DecoderBlock(512, 128)

    @property
    def blocks(self) -> list[DecoderBlock]:
        """The three blocks in the order they run."""
        return [self.decoder4, self.decoder3, self.decoder2]

    def forward(self, features: list[Tensor], descriptor: Tensor) -> Tensor:
        """Return the joined features, from those of `HourglassEncoder`."""
        out = features[5]
        for block, skip in zip(self.blocks, features[4:1:-1], strict=True):
            out = torch.cat([block(out, descriptor), skip], dim=1)
        return out


class Hourglass(nn.Module):
    """Encoder and decoder of the warping net."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = HourglassEncoder()
        self.decoder = HourglassDecoder()

    def forward(self, source: Tensor, descriptor: Tensor) -> Tensor:
        """Return [B, 256, H/4, W/4]."""
        features: Tensor = self.decoder(self.encoder(source, descriptor), descriptor)
        return features


def corner_aligned_grid(height: int, width: int) -> Tensor:
    """Sampling grid [1, 2, height, width], x before y, -1 and 1 on the outer pixel centres."""
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([xs, ys])[None]


def deformation(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Flow [B, 2, h, w] in flow-grid pixels → sampling grid [B, 2, H, W] at `size`.

    Three conventions meet here, as in the published network: a corner-aligned base grid, a half-pixel resize and
    (at the caller) a half-pixel sampler. Zero flow is therefore not the identity.
    """
    height, width = flow.shape[-2:]
    pixels_to_grid = flow.new_tensor([2 / (width - 1), 2 / (height - 1)]).view(1, 2, 1, 1)
    grid = corner_aligned_grid(height, width).to(flow) + flow * pixels_to_grid
    return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)


class WarpingNet(nn.Module):
    """Source and descriptor → flow [B, 2, H/4, W/4] and the warped source [B, 3, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.hourglass = Hourglass()
        self.flow_out = nn.Sequential(LayerNorm2d(256), nn.LeakyReLU(NEGATIVE_SLOPE), nn.Conv2d(256, 2, 7, padding=3))

    @property
    def flow_norm(self) -> LayerNorm2d:
        """The norm before the flow's convolution."""
        return cast(LayerNorm2d, self.flow_out[0])

    @property
    def flow_conv(self) -> nn.Conv2d:
        """The convolution that yields the flow."""
        return cast(nn.Conv2d, self.flow_out[2])

    def forward(self, source: Tensor, descriptor: Tensor) -> tuple[Tensor, Tensor]:
        """Return flow and warped source."""
        flow = self.flow_out(self.hourglass(source, descriptor))
        grid = deformation(flow, (source.shape[2], source.shape[3])).permute(0, 2, 3, 1)
        return flow, F.grid_sample(source, grid, align_corners=False)


class ConvBlock(nn.Module):
    """Convolution → layer norm → activation, under the published key `model`."""

    def __init__(self, cin: int, cout: int, kernel: int = 3) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(cin, cout, kernel, padding=kernel // 2), LayerNorm2d(cout), nn.LeakyReLU(NEGATIVE_SLOPE)
        )

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution."""
        return cast(nn.Conv2d, self.model[0])

    @property
    def norm(self) -> LayerNorm2d:
        """The norm."""
        return cast(LayerNorm2d, self.model[1])

    def forward(self, features: Tensor) -> Tensor:
        """Return activated features of the same resolution."""
        activated: Tensor = self.model(features)
        return activated


class EditingEncoder(nn.Module):
    """Source and warped image → features at four resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvBlock(6, 64, 7)
        self.down0 = ConvBlock(64, 128)
        self.down1 = ConvBlock(128, 256)
        self.down2 = ConvBlock(256, 256)

    @property
    def downs(self) -> list[ConvBlock]:
        """The blocks whose output is pooled."""
        return [self.down0, self.down1, self.down2]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return features at full, half, quarter and eighth resolution."""
        features = [self.first(images)]
        for block in self.downs:
            features.append(F.avg_pool2d(block(features[-1]), 2))
        return features


class ResidualBlock(nn.Module):
    """x + AdaIN(conv2(x)).

    The published block also holds `conv1` and `norm1`, whose result its forward overwrites. They are kept so that
    checkpoints load strictly, and are never run.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = AdaIN(channels)
        self.norm2 = AdaIN(channels)

    def forward(self, features: Tensor, descriptor: Tensor) -> Tensor:
        """Return features of the same shape."""
        updated: Tensor = features + self.norm2(self.conv2(features), descriptor)
        return updated


class ResidualPair(nn.Module):
    """Two residual blocks in a row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res0 = ResidualBlock(channels)
        self.res1 = ResidualBlock(channels)

    @property
    def blocks(self) -> list[ResidualBlock]:
        """The two blocks in the order they run."""
        return [self.res0, self.res1]

    def forward(self, features: Tensor, descriptor: Tensor) -> Tensor:
        """Return features of the same shape."""
        for block in self.blocks:
            features = block(features, descriptor)
        return features


class UpBlock(ConvBlock):
    """Nearest ×2, then a ConvBlock."""

    def forward(self, features: Tensor) -> Tensor:
        """Return activated features of twice the resolution."""
        return super().forward(F.interpolate(features, scale_factor=2, mode="nearest"))


class EditingDecoder(nn.Module):
    """Deepest feature first: residual pair, upsampling, plus the skip through `jump`; then the image."""

    STAGES = ((2, 256, 256), (1, 256, 128), (0, 128, 64))

    def __init__(self) -> None:
        super().__init__()
        for i, cin, cout in self.STAGES:
            setattr(self, f"up{i}", UpBlock(cin, cout))
            setattr(self, f"res{i}", ResidualPair(cin))
            setattr(self, f"jump{i}", ConvBlock(cout, cout))
        self.final = nn.ModuleDict({"model": nn.ModuleList([nn.Conv2d(64, 3, 7, padding=3)])})

    @property
    def stages(self) -> list[tuple[ResidualPair, UpBlock, ConvBlock]]:
        """Residual pair, upsampling and skip of each stage, in the order they run."""
        names = [(f"res{i}", f"up{i}", f"jump{i}") for i, _, _ in self.STAGES]
        return [
            (
                cast(ResidualPair, getattr(self, res)),
                cast(UpBlock, getattr(self, up)),
                cast(ConvBlock, getattr(self, jump)),
            )
            for res, up, jump in names
        ]

    @property
    def image_conv(self) -> nn.Conv2d:
        """The convolution that yields the image."""
        return cast(nn.Conv2d, cast(nn.ModuleList, self.final["model"])[0])

    def forward(self, features: list[Tensor], descriptor: Tensor) -> Tensor:
        """Return the image, from features of `EditingEncoder`."""
        out = features[3]
        for (pair, up, jump), skip in zip(self.stages, features[2::-1], strict=True):
            out = up(pair(out, descriptor)) + jump(skip)
        return torch.tanh(self.image_conv(out))


class EditingNet(nn.Module):
    """Source ⊕ warped image and descriptor → image in (-1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EditingEncoder()
        self.decoder = EditingDecoder()

    def forward(self, images: Tensor, descriptor: Tensor) -> Tensor:
        """Return the image from [B, 6, H, W]."""
        image: Tensor = self.decoder(self.encoder(images), descriptor)
        return image


class PIRender(nn.Module):
    """The published network.

    Args:
        coefficients: 58 (FaceVerse, the paper's) or 73 (the original, Deep3DFaceRecon).
    """

    def __init__(self, coefficients: int = 58) -> None:
        super().__init__()
        self.mapping_net = MappingNet(coefficients)
        self.warpping_net = WarpingNet()
        self.editing_net = EditingNet()

    def forward(self, portrait: Tensor, coefficients: Tensor) -> dict[str, Tensor]:
        """Render one frame per batch entry.

        Args:
            portrait: float32 [B, 3, H, W] RGB in [-1, 1]; H and W multiples of 32.
            coefficients: float32 [B, 58 or 73, 27], the window around the frame, mean face added.

        Returns:
            `fake_image` [B, 3, H, W] in (-1, 1), `warp_image` [B, 3, H, W], `flow_field` [B, 2, H/4, W/4] (x, y;
            pixels of the flow grid).
        """
        descriptor = self.mapping_net(coefficients)
        flow, warped = self.warpping_net(portrait, descriptor)
        image = self.editing_net(torch.cat([portrait, warped], dim=1), descriptor)
        return {"fake_image": image, "warp_image": warped, "flow_field": flow}
