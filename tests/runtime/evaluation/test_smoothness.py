"""Seams, jerk and flicker, on motion and pictures in which it is known what is there."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pflx.engines import Array, FeedError
from pflx.runtime.evaluation import Border, Motion, UndefinedError, judge_motion, judge_pictures

FPS = 25.0
HOPS = st.sampled_from([8, 16, 25])
SEEDS = st.integers(0, 2**32)


def smooth(seed: int, *, tracks: int = 2, frames: int = 400) -> Array:
    """[M, T, 3] degrees: a head that turns slowly, no two swings of one length."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None] / FPS
    swing = np.sin(2 * np.pi * rng.uniform(0.1, 0.6, (tracks, 1, 3, 5)) * t + rng.uniform(0, 6, (tracks, 1, 3, 5)))
    motion: Array = (4 * swing).sum(axis=-1)
    return motion


def planted(motion: Array, hop: int, seed: int, size: float) -> Array:
    """The motion, displaced at every border by a step of that size in any direction."""
    rng = np.random.default_rng(seed + 1)
    segments = np.arange(motion.shape[1]) // hop
    steps = rng.normal(size=(len(motion), segments[-1] + 1, 3))
    steps *= size / np.linalg.norm(steps, axis=-1, keepdims=True)
    return motion + (np.cumsum(steps, axis=1) - steps[:, :1])[:, segments]


def borders_of(motion: Motion) -> list[Border]:
    found = [motion.jump, motion.velocity_jump, motion.acceleration_jump]
    return [border for border in found if border is not None]


def scores(motion: Array, hop: int) -> list[float]:
    borders = borders_of(judge_motion(motion, fps=FPS, hop=hop))
    assert len(borders) == 3
    assert all(border.z is not None for border in borders)
    return [border.z for border in borders if border.z is not None]


@settings(max_examples=30, deadline=None)
@given(SEEDS, HOPS)
def test_a_smooth_motion_has_seam_scores_near_zero(seed: int, hop: int) -> None:
    assert np.abs(scores(smooth(seed, tracks=8), hop)).max() < 0.6


@settings(max_examples=30, deadline=None)
@given(SEEDS, HOPS, st.floats(0.5, 20))
def test_a_planted_jump_is_found_with_its_size_and_in_the_pose_only(seed: int, hop: int, size: float) -> None:
    motion = smooth(seed)
    before, after = (judge_motion(m, fps=FPS, hop=hop) for m in (motion, planted(motion, hop, seed, size)))
    assert before.jump is not None
    assert after.jump is not None
    assert before.jump.at_borders is not None
    assert after.jump.at_borders == pytest.approx(size, abs=2 * before.jump.at_borders)
    assert after.jump.z is not None
    assert after.jump.z > 10
    for found, expected in zip(borders_of(after)[1:], borders_of(before)[1:], strict=True):
        assert (found.z, found.at_borders) == pytest.approx((expected.z, expected.at_borders), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("hop", [8, 25])
def test_a_planted_turn_is_found_in_the_velocity_with_its_size(hop: int) -> None:
    frames = 400
    turns = np.where(np.arange(frames) // hop % 2, 1.0, -1.0) * 0.5  # degrees a frame, to and fro
    motion = np.zeros((1, frames, 3))
    motion[0, :, 1] = np.cumsum(turns)
    motion += 0.1 * smooth(0, tracks=1)
    found = judge_motion(motion, fps=FPS, hop=hop).velocity_jump
    assert found is not None
    assert found.at_borders == pytest.approx(2 * 0.5 * FPS, rel=0.05)
    assert found.z is not None
    assert found.z > 10


@settings(max_examples=20, deadline=None)
@given(SEEDS, HOPS, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_scores_know_no_offset_and_no_scale_and_sizes_scale(seed: int, hop: int, scale: float, offset: float) -> None:
    motion = planted(smooth(seed), hop, seed, 1.0)
    found, moved = (judge_motion(m, fps=FPS, hop=hop) for m in (motion, scale * motion + offset))
    for one, other in zip(borders_of(found), borders_of(moved), strict=True):
        assert one.z is not None
        assert one.at_borders is not None
        assert other.z == pytest.approx(one.z, rel=1e-3)
        assert other.at_borders == pytest.approx(scale * one.at_borders, rel=1e-3)
    assert (moved.jerk, moved.speed) == pytest.approx((scale * found.jerk, scale * found.speed), rel=1e-3)


def test_scores_do_not_depend_on_the_axes() -> None:
    motion = planted(smooth(3), 8, 3, 1.0)
    turned = motion @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert scores(turned, 8) == pytest.approx(scores(motion, 8), rel=1e-9)


def test_a_jump_elsewhere_than_at_the_stated_borders_gives_no_high_score() -> None:
    motion = planted(smooth(4), 16, 4, 3.0)
    assert scores(motion, 16)[0] > 10
    assert scores(motion[:, 8:], 16)[0] < 0.5


def test_jerk_and_speed_are_those_of_a_known_motion() -> None:
    t = np.arange(200) / FPS
    motion = np.zeros((1, 200, 3))
    motion[0, :, 0], motion[0, :, 1] = 5 * t**3, 7 * t
    found = judge_motion(motion, fps=FPS)
    assert found.jerk == pytest.approx(30)
    still = judge_motion(np.ones((1, 200, 3)), fps=FPS)
    assert (still.jerk, still.speed) == (0, 0)
    assert judge_motion(motion[..., [1, 2, 2]], fps=FPS).speed == pytest.approx(7)


@pytest.mark.parametrize(
    ("frames", "hop", "reason"),
    [
        (35, 10, "3 borders between segments are too few; it takes 4: give a longer motion"),
        (8, 100, "0 borders between segments are too few; it takes 4: give a longer motion"),
        (400, 3, "segments of 3 frames have no inside; it takes 4"),
        (400, 1, "segments of 1 frames have no inside; it takes 4"),
        (20, 4, "5 frames inside of segments are too few; it takes 8: give a longer motion"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_reason(frames: int, hop: int, reason: str) -> None:
    found = judge_motion(smooth(0, tracks=1, frames=frames), fps=FPS, hop=hop).jump
    assert found is not None
    assert (found.z, found.refused) == (None, reason)


def test_what_stands_still_between_jumps_has_sizes_but_no_scores() -> None:
    found = judge_motion(planted(np.zeros((1, 100, 3)), 8, 0, 2.0), fps=FPS, hop=8).jump
    assert found is not None
    assert found.at_borders == pytest.approx(2)
    assert found.z is None
    assert found.refused.startswith("inside of segments everything is equal")


def test_what_never_moves_has_scores_of_zero() -> None:
    assert scores(np.full((1, 100, 3), 0.3), 8) == [0, 0, 0]


def test_without_a_hop_nothing_is_told_of_borders_and_a_hop_below_one_is_refused() -> None:
    assert borders_of(judge_motion(smooth(0), fps=FPS)) == []
    with pytest.raises(FeedError, match="segment of 0 frames"):
        judge_motion(smooth(0), fps=FPS, hop=0)
    with pytest.raises(UndefinedError, match="4 frames, there are 3"):
        judge_motion(smooth(0, frames=3), fps=FPS)


def texture(height: int = 128, width: int = 160) -> Array:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 4 - 380, 40, 210).astype(np.uint8)


def film(frame: Callable[[int], Array], frames: int = 12) -> list[Array]:
    return [frame(index) for index in range(frames)]


def test_equal_pictures_neither_flicker_nor_move() -> None:
    found = judge_pictures(film(lambda _: texture()), hop=2)
    assert (found.flicker, found.unexplained_flicker, found.frames) == (0, 0, 12)
    assert found.dynamic_degree < 0.05


@pytest.mark.parametrize("levels", [2, 10])
def test_flicker_of_known_size_is_found_and_is_no_motion(levels: int) -> None:
    found = judge_pictures(film(lambda index: texture() + np.uint8(levels * (index % 2))))
    assert found.flicker == pytest.approx(levels, abs=0.01)
    assert found.unexplained_flicker == pytest.approx(levels, rel=0.1)
    assert found.dynamic_degree < 0.3


@pytest.mark.parametrize("pixels", [1, 3])
def test_motion_of_known_speed_is_found_and_is_no_flicker(pixels: int) -> None:
    wide = texture(width=300)
    found = judge_pictures(film(lambda index: wide[:, pixels * index : pixels * index + 160]))
    assert found.dynamic_degree == pytest.approx(pixels, rel=0.1)
    assert found.flicker > 3
    assert found.unexplained_flicker is not None
    assert found.unexplained_flicker < 0.1 * found.flicker


def test_flicker_at_borders_stands_out_against_the_inside() -> None:
    rng = np.random.default_rng(0)
    levels = (np.arange(60) // 8 * 6 + rng.integers(0, 3, 60)).astype(np.uint8)
    found = judge_pictures([texture(64, 64) // 2 + level for level in levels], hop=8).flicker_at_borders
    assert found is not None
    assert found.z is not None
    assert found.z > 4
    assert found.at_borders == pytest.approx(6, abs=1.5)


def test_large_pictures_are_compared_at_a_shorter_side_of_256() -> None:
    wide = cv2.resize(texture(300, 600), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    found = judge_pictures(film(lambda index: wide[:512, 8 * index : 8 * index + 640], 6))
    assert found.dynamic_degree == pytest.approx(4, rel=0.1)


def test_one_picture_is_too_little() -> None:
    with pytest.raises(UndefinedError, match="two pictures"):
        judge_pictures([texture()])
