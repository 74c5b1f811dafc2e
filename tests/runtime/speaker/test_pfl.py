from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import GOLDEN

from pflx.runtime.speaker.pfl import (
    PflError,
    Region,
    centre_crop,
    centre_square,
    choose_face,
    crop,
    fixed_region,
    track_boxes,
)

# Made by running the released function with a stubbed detector; the paper's values are the formula's.
CASES = json.loads((GOLDEN / "pfl_cases.json").read_text())
FRAME = (1280, 720)


def edges(region: Region) -> list[int]:
    return [region.left, region.top, region.right, region.bottom]


def moving_boxes(x: int, y: int, size: int, steps: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    return [(x + dx, y + dy, size, size) for dx, dy in steps]


inner_boxes = st.builds(
    moving_boxes,
    st.integers(300, 900),
    st.integers(250, 400),
    st.integers(20, 120),
    st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=30),
)
any_boxes = st.lists(
    st.tuples(st.integers(0, 1200), st.integers(0, 650), st.integers(1, 700), st.integers(1, 700)),
    max_size=20,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_released_code_chooses_the_same_faces(case: dict[str, Any]) -> None:
    assert track_boxes(case["faces"]).tolist() == case["selected"]


@pytest.mark.parametrize("window", [256, 360])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_release_mode_gives_the_released_region(case: dict[str, Any], window: int) -> None:
    region = fixed_region(case["selected"], (case["w"], case["h"]), window=window)
    assert edges(region) == case[f"code_pad20_win{window}"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_paper_mode_rounds_and_shifts_the_formula(case: dict[str, Any]) -> None:
    region = fixed_region(case["selected"], (case["w"], case["h"]), mode="paper")
    formula = case["paper_omega256"]
    if formula is None:
        assert region == centre_square((case["w"], case["h"]), 256)
        return
    for low, high, centre, size, limit in (
        (region.left, region.right, formula["cx"], formula["w"], case["w"]),
        (region.top, region.bottom, formula["cy"], formula["h"], case["h"]),
    ):
        assert abs((high - low) - min(size, limit)) <= 1
        assert 0 <= low < high <= limit
        if centre - size / 2 >= 0 and centre + size / 2 <= limit:
            assert abs((low + high) / 2 - centre) <= 0.5


@given(boxes=inner_boxes)
def test_a_released_region_is_a_window_inside_the_frame(boxes: list[tuple[int, int, int, int]]) -> None:
    region = fixed_region(boxes, FRAME)
    assert region.width == region.height == 256
    assert all(type(edge) is int for edge in edges(region))
    assert region.left >= 0
    assert region.right <= FRAME[0]
    assert region.top >= 0
    assert region.bottom <= FRAME[1]


@given(boxes=inner_boxes, dx=st.integers(-100, 100), dy=st.integers(-60, 60))
def test_a_released_region_moves_with_the_face(boxes: list[tuple[int, int, int, int]], dx: int, dy: int) -> None:
    region = fixed_region(boxes, FRAME)
    moved = fixed_region([(x + dx, y + dy, w, h) for x, y, w, h in boxes], FRAME)
    assert edges(moved) == [region.left + dx, region.top + dy, region.right + dx, region.bottom + dy]


@given(boxes=any_boxes, width=st.integers(1, 1300), height=st.integers(1, 800), window=st.integers(1, 400))
def test_a_paper_region_is_never_empty_larger_than_the_window_or_outside(
    boxes: list[tuple[int, int, int, int]], width: int, height: int, window: int
) -> None:
    region = fixed_region(boxes, (width, height), mode="paper", window=window)
    assert 0 <= region.left < region.right <= width
    assert 0 <= region.top < region.bottom <= height
    assert region.width <= window
    assert region.height <= window


@given(boxes=any_boxes.filter(bool))
def test_the_order_of_the_boxes_does_not_matter(boxes: list[tuple[int, int, int, int]]) -> None:
    assert fixed_region(boxes, FRAME) == fixed_region(boxes[::-1], FRAME)


@pytest.mark.parametrize("boxes", [[[0, 0, 1]], [[0, 0, 1, float("nan")]], np.zeros((2, 2, 2))])
def test_what_is_no_list_of_boxes_is_refused(boxes: Any) -> None:
    with pytest.raises(PflError, match="finite numbers"):
        fixed_region(boxes, FRAME)


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PflError, match=r"'release' or 'paper'"):
        fixed_region([[0, 0, 1, 1]], FRAME, mode="centre")  # type: ignore[arg-type]


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(PflError, match="at least 1 px"):
        fixed_region([], (0, 720))


def test_the_first_choice_is_the_largest_face_and_later_ones_the_nearest() -> None:
    small_on_top, large = (600.0, 10.0, 40.0, 40.0), (200.0, 300.0, 90.0, 90.0)
    assert choose_face([small_on_top, large], None) == 1
    assert choose_face([small_on_top, large], (590.0, 12.0, 40.0, 40.0)) == 0
    assert choose_face([], large) is None


def test_a_region_inside_the_frame_is_cut_without_a_copy() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 300, 400, 3), np.uint8)
    cut = crop(frames, Region(50, 20, 306, 276))
    assert cut.shape == (2, 256, 256, 3)
    assert np.shares_memory(cut, frames)
    np.testing.assert_array_equal(cut, frames[:, 20:276, 50:306])


def test_a_region_outside_the_frame_repeats_the_border() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (1, 200, 240, 3), np.uint8)
    region = fixed_region([[60, 40, 90, 90]], (240, 200))
    cut = crop(frames, region)
    top, left = -region.top, -region.left
    expected = cv2.copyMakeBorder(frames[0], top, region.bottom - 200, left, region.right - 240, cv2.BORDER_REPLICATE)
    np.testing.assert_array_equal(cut[0], expected)


def test_another_size_is_resized_as_opencv_does_by_default() -> None:
    frames = np.random.default_rng(2).integers(0, 256, (2, 400, 400, 3), np.uint8)
    cut = crop(frames, Region(10, 20, 370, 380))
    np.testing.assert_array_equal(cut[1], cv2.resize(frames[1, 20:380, 10:370], (256, 256)))


def test_an_empty_region_cannot_be_cropped() -> None:
    with pytest.raises(PflError, match="empty"):
        crop(np.zeros((1, 10, 10, 3), np.uint8), Region(5, 5, 5, 9))


def test_the_centre_of_256_is_224_from_16() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (2, 256, 256, 3), np.uint8)
    np.testing.assert_array_equal(centre_crop(frames, 224), frames[:, 16:240, 16:240])
    with pytest.raises(PflError, match="centre square"):
        centre_crop(frames, 257)


def test_the_centre_square_fits_the_frame() -> None:
    assert centre_square((640, 480)) == Region(80, 0, 560, 480)
    assert centre_square((100, 480), 256) == Region(0, 190, 100, 290)
