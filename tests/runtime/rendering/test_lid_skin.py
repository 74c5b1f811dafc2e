"""The skin that is drawn on over an eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pflx.runtime.rendering.lid_skin import shade_above, skin_around


def places(size: int) -> Any:
    """Of the pixels of a square window, in half widths of an eye that takes a quarter of it on each side, [h, w, 2]."""
    at = (np.arange(size) - (size - 1) / 2) / (size / 4)
    return np.stack(np.meshgrid(at, at), axis=-1)


def skin(at: Any) -> Any:
    """Lighter to the right and darker below, [h, w, 3]."""
    return np.array([170.0, 130.0, 110.0]) + at[..., :1] * [20, 16, 12] - at[..., 1:] * [15, 10, 8]


@pytest.mark.parametrize("size", [24, 96])
@pytest.mark.parametrize("rim", [False, True])
def test_what_is_around_goes_on_over_the_eye_whatever_lies_across_it(size: int, rim: bool) -> None:
    at = places(size)
    pixels, is_eye = skin(at), np.linalg.norm(at * [1, 1.6], axis=-1) < 1.1
    pixels[is_eye] = 255
    if rim:
        pixels[(at[..., 1] > -1.3) & (at[..., 1] < -1.0)] = 20
    found = skin_around(pixels, at, ~is_eye, size / 4)
    assert np.abs(found - skin(at))[is_eye].max() < 12
    assert np.abs(found - skin(at))[is_eye].mean() < 3


def test_without_any_skin_it_is_the_usual_colour() -> None:
    pixels = np.full((8, 8, 3), 90.0)
    found = skin_around(pixels, places(8), np.zeros((8, 8), bool), 2.0)
    np.testing.assert_allclose(found, pixels)


def test_a_shade_above_is_told_and_light_is_none() -> None:
    at = places(48)
    above = (at[..., 1] < -0.5).astype(float)
    for light, expected in ((0.7, 0.7), (1.0, 1.0), (1.4, 1.0), (0.1, 0.4)):
        pixels = np.where(above[..., None] > 0, light, 1) * skin(at)
        shade = shade_above(pixels, skin(at), above, 12.0)
        assert shade.shape == (48, 48, 1)
        assert shade[4, 24, 0] == pytest.approx(expected, abs=0.03)
