"""The deploy form of PIRender computes what the published network computes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pflx.export import load_model, untrained
from pflx.export.models import PIRender
from pflx.export.models.pirender import EPSILON, LayerNorm2d
from pflx.export.models.pirender_deploy import (
    BlockConv,
    FrameRenderer,
    PortraitFeatures,
    UpsampledConv,
    _layer_norm_act,
)

SIDE = 96
"""The smallest side at which every layer of the network still has an inside; a multiple of 32."""


@pytest.fixture(scope="module")
def network() -> PIRender:
    loaded = load_model("pirender", untrained("pirender", 11))
    assert isinstance(loaded, PIRender)
    return loaded


@pytest.fixture(scope="module")
def mean_face() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(0, 0.2, 58).astype(np.float32))


def smooth_portraits(count: int, side: int) -> torch.Tensor:
    rng = np.random.default_rng(2)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 6, 6)).astype(np.float32))
    pixels = F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def tracks(count: int, n_frames: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(0, 0.4, (count, n_frames, 58)).astype(np.float32))


def published_pixels(
    network: PIRender, portrait: torch.Tensor, track: torch.Tensor, frame: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One frame by the published network and the published conversion to uint8 (float64, truncated)."""
    rows = torch.arange(frame - 13, frame + 14).clamp(0, len(track) - 1)
    source = (portrait.float() / 255 - 0.5) / 0.5
    image = network(source.permute(2, 0, 1)[None], track[rows].T[None])["fake_image"][0]
    levels = ((image.double() * 0.5 + 0.5) * 255).clamp(0, 255)
    return np.asarray(levels.permute(1, 2, 0).numpy(), np.uint8)


@torch.inference_mode()
def test_every_frame_of_every_portrait_is_the_published_one(network: PIRender, mean_face: torch.Tensor) -> None:
    portraits, track, frames = smooth_portraits(2, SIDE), tracks(2, 30), [0, 14, 29]
    features = PortraitFeatures(network)(portraits)
    images = FrameRenderer(network, mean_face)(*features, track, torch.tensor(frames)).numpy()
    assert images.shape == (2, 3, SIDE, SIDE, 3)
    for (p, portrait), (k, frame) in product(enumerate(portraits), enumerate(frames)):
        expected = published_pixels(network, portrait, track[p] + mean_face, frame)
        difference = np.abs(images[p, k].astype(int) - expected)
        assert difference.max() <= 1
        assert np.mean(difference == 0) >= 0.999


@torch.inference_mode()
@pytest.mark.parametrize("side", [224, 256])
def test_at_full_size_the_uint8_frame_differs_nowhere_by_more_than_a_level(network: PIRender, side: int) -> None:
    portrait, track = smooth_portraits(1, side), tracks(1, 27)
    features = PortraitFeatures(network)(portrait)
    image = FrameRenderer(network, torch.zeros(58))(*features, track, torch.tensor([13]))[0, 0].numpy()
    difference = np.abs(image.astype(int) - published_pixels(network, portrait[0], track[0], 13))
    assert image.std() > 10
    assert difference.max() <= 1
    assert np.mean(difference == 0) >= 0.999


def test_the_dead_half_of_the_residual_blocks_is_never_run(network: PIRender) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("conv1 ran")

    blocks = [block for pair, _, _ in network.editing_net.decoder.stages for block in pair.blocks]
    handles = [part.register_forward_hook(fail) for block in blocks for part in (block.conv1, block.norm1)]
    with torch.inference_mode():
        features = PortraitFeatures(network)(smooth_portraits(1, SIDE))
        FrameRenderer(network, torch.zeros(58))(*features, tracks(1, 3), torch.tensor([1]))
    for handle in handles:
        handle.remove()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))
def test_an_upsampled_convolution_equals_upsampling_and_convolving(
    batch: int, cin: int, cout: int, height: int, width: int
) -> None:
    conv = nn.Conv2d(cin, cout, 3, padding=1)
    features = torch.randn(batch, cin, height, width)
    expected = conv(F.interpolate(features, scale_factor=2, mode="nearest"))
    folded = UpsampledConv(conv)
    assert folded.bias is not None
    made = folded(features) + folded.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.sampled_from([1, 3, 7]), st.integers(4, 6), st.integers(4, 6))
def test_a_block_convolution_yields_the_plain_pixels(
    cin: int, cout: int, kernel: int, half_height: int, half_width: int
) -> None:
    conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2)
    features = torch.randn(1, cin, 2 * half_height, 2 * half_width)
    shuffled = F.pixel_shuffle(BlockConv(conv)(features), 2)
    torch.testing.assert_close(shuffled, conv(features), atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(2, 6), st.floats(-3, 3), st.floats(0.1, 10))
def test_layer_norm_by_channel_moments_equals_layer_norm(channels: int, side: int, offset: float, scale: float) -> None:
    norm = LayerNorm2d(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    features = torch.randn(2, channels, side, side) * scale + offset
    normalised = F.layer_norm(features, features.shape[1:], eps=EPSILON) * norm.weight + norm.bias
    torch.testing.assert_close(_layer_norm_act(features, norm), F.leaky_relu(normalised, 0.1), atol=2e-4, rtol=2e-4)
