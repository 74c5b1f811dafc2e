"""A frame in the layouts that others want, and when to show it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from support.media.frames import frame

SHADES = np.asarray(
    cv2.resize(np.random.default_rng(2).integers(50, 200, (3, 4, 3)).astype(np.uint8), (64, 48)), np.uint8
)
FRAME = replace(frame(7), image=SHADES)


def test_opencv_gets_blue_first() -> None:
    np.testing.assert_array_equal(cv2.cvtColor(FRAME.to_bgr(), cv2.COLOR_BGR2RGB), SHADES)
    assert FRAME.to_bgr().flags.c_contiguous


def test_with_alpha_it_is_opaque() -> None:
    rgba = FRAME.to_rgba()
    assert rgba.shape == (48, 64, 4)
    np.testing.assert_array_equal(rgba[..., :3], SHADES)
    assert (rgba[..., 3] == 255).all()


def test_planes_are_those_of_ffmpeg() -> None:
    planes = FRAME.to_i420()
    assert planes.shape == (72, 64)
    expected = FRAME.to_av().reformat(format="yuv420p", dst_colorspace="itu601").to_ndarray()
    np.testing.assert_allclose(planes.astype(int), expected, atol=3)


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63)])
def test_planes_of_an_odd_size_have_its_edge_twice(height: int, width: int) -> None:
    odd = replace(FRAME, image=SHADES[:height, :width])
    planes = odd.to_i420()
    assert planes.shape == (72, 64)
    back = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)[:height, :width]
    np.testing.assert_allclose(back.astype(int), odd.image, atol=12)


def test_for_pyav_it_is_stamped_with_the_speakers_time() -> None:
    given = FRAME.to_av()
    np.testing.assert_array_equal(given.to_ndarray(format="rgb24"), SHADES)
    assert given.time_base == Fraction(1, 90_000)
    assert given.pts == 7 * 3600
    assert given.time == pytest.approx(FRAME.time_s)


def test_it_is_due_at_its_deadline_or_without_one_never() -> None:
    assert FRAME.due_ns is None
    assert replace(FRAME, ledger=replace(FRAME.ledger, deadline=123)).due_ns == 123
