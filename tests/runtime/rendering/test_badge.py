"""The label that says what made a picture."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakes import frames_of
from support.sessions import listener, whole

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.rendering.badge import badged

PLACE = (slice(0, 40), slice(0, 56))
"""At 256²: the label and its margin."""


def grey(level: int, side: int = 256) -> UInt8Array:
    return np.full((side, side, 3), level, np.uint8)


def luminance(level: float) -> float:
    """Relative luminance of grey. Source: WCAG 2.2, "relative luminance"."""
    share = level / 255
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("level", [0, 60, 128, 200, 255])
def test_its_letters_stand_out_from_its_ground_on_any_picture(level: int) -> None:
    label = badged(grey(level))[PLACE][..., 0]
    changed = label[label != level].astype(np.float64)
    letters = luminance(255.0)
    ground = luminance(float(np.median(changed[changed < 150])))
    assert (letters + 0.05) / (ground + 0.05) > 4.5  # what WCAG asks of text
    assert (label > 200).sum() > 30  # px of strokes; Pillow draws them a little otherwise from version to version


def test_nothing_but_its_place_changes_and_the_given_picture_stays() -> None:
    picture = frames_of(1, size=(256, 256))[0]
    before = picture.copy()
    marked = badged(picture)
    np.testing.assert_array_equal(picture, before)
    outside = marked.copy()
    outside[PLACE] = picture[PLACE]
    np.testing.assert_array_equal(outside, picture)
    changed = (marked != picture).any(axis=2)[PLACE]
    assert 15 < np.ptp(np.nonzero(changed)[0]) < 30  # of 256 rows
    assert 20 < np.ptp(np.nonzero(changed)[1]) < 45


def test_it_grows_with_the_picture() -> None:
    heights = [np.ptp(np.nonzero((badged(grey(128, side)) != 128).any(axis=(1, 2)))[0]) for side in (256, 512, 1024)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=2)
    assert heights[2] == pytest.approx(4 * heights[0], abs=4)


@pytest.mark.parametrize("shape", [(0, 0, 3), (8, 8, 3)])
def test_a_picture_without_room_for_it_stays_as_it_is(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(badged(np.full(shape, 9, np.uint8)), np.full(shape, 9))


@pytest.mark.parametrize("samples", [1, 2])
def test_a_listeners_frames_are_the_same_with_the_label_on_them(samples: int) -> None:
    plain, marked = (whole(listener(badge=badge), samples=samples, seed=5) for badge in (False, True))
    assert len(plain) == len(marked) > 20
    for one, other in zip(plain, marked, strict=True):
        np.testing.assert_array_equal(other.image, badged(one.image))
        assert not np.array_equal(other.image, one.image)
        np.testing.assert_array_equal(other.coefficients, one.coefficients)
