"""What stands in a picture's window for frames that were not waited for."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import HOP
from support.sessions import ACTIONS, Action, Session, content, listener, whole

from pflx.engines import Array, FeedError
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.stream.coefficient_track import CoefficientTrack
from pflx.runtime.stream.segment import Segment, SegmentStamps

AHEAD = np.arange(1, WINDOW_RADIUS + 1)
ON = Foresight(np.broadcast_to(AHEAD[None, :, None], (58, 13, 1)).astype(np.float32), HOP)
"""Goes on with the last step."""
MIXED = Foresight(np.random.default_rng(3).normal(0, 0.5, (58, 13, 4)).astype(np.float32), HOP)


def track_of(motion: Array, foresight: Foresight | None, lookahead: int = 0) -> CoefficientTrack:
    """A track that knows a motion [T, 58], T a multiple of the hop."""
    track = CoefficientTrack(HOP, lookahead, foresight)
    for first in range(0, len(motion), HOP):
        arrays = {
            "coefficients": motion[None, first : first + HOP],
            "generated_pose": np.zeros((1, HOP, 6), np.float32),
            "events": np.zeros((0, 6), np.int64),
            "made": np.array([FaceState.LOCKED, Rung.FULL]),
            "stamps": np.zeros(len(fields(SegmentStamps)), np.int64),
        }
        track.add(Segment.from_arrays(arrays))
    return track


def line(count: int) -> Array:
    """Moves by another step in each coefficient."""
    return np.arange(count, dtype=np.float32)[:, None] * np.arange(58, dtype=np.float32)


@pytest.mark.parametrize("lookahead", [0, 4])
def test_a_motion_in_a_line_is_foretold_as_if_it_were_known(lookahead: int) -> None:
    motion = line(4 * HOP)
    track = track_of(motion[: 2 * HOP], ON, lookahead)
    for position in range(2 * HOP):
        expected = motion[np.clip(np.arange(position - 13, position + 14), 0, None)]
        np.testing.assert_array_equal(track.around(position, 1, 0), expected)
        np.testing.assert_array_equal(track.around_on_host(position, 0), expected)


def test_without_foresight_the_last_frame_is_repeated() -> None:
    motion = line(2 * HOP)
    window = track_of(motion, None).around(2 * HOP - 1, 1, 0)
    np.testing.assert_array_equal(window[14:], np.broadcast_to(motion[-1], (13, 58)))


def test_what_rests_stays_at_rest() -> None:
    motion = np.full((2 * HOP, 58), 0.3, np.float32)
    window = track_of(motion, MIXED).around(2 * HOP - 1, 1, 0)
    np.testing.assert_array_equal(window, np.full((27, 58), 0.3, np.float32))


def test_frames_together_see_what_each_sees_alone() -> None:
    motion = np.random.default_rng(0).standard_normal((3 * HOP, 58)).astype(np.float32)
    track = track_of(motion, MIXED)
    together = track.around(2 * HOP, HOP, 0)
    for n in range(HOP):
        np.testing.assert_array_equal(together[n : n + 27], track.around(2 * HOP + n, 1, 0))


def test_each_weight_is_of_its_step() -> None:
    motion = np.random.default_rng(0).standard_normal((2 * HOP, 58)).astype(np.float32)
    window = track_of(motion, MIXED).around(2 * HOP - 1, 1, 0)
    steps = [new - old for old, new in pairwise(motion[-5:])][::-1]
    for ahead in range(13):
        expected = motion[-1] + sum(MIXED.weights[:, ahead, n] * step for n, step in enumerate(steps))
        np.testing.assert_allclose(window[14 + ahead], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 3])
def test_a_stream_shows_other_pictures_and_the_same_coefficients(lookahead: int) -> None:
    plain, foretold = (whole(listener(lookahead=lookahead, foresight=each)) for each in (None, MIXED))
    same = [np.array_equal(one.image, other.image) for one, other in zip(plain, foretold, strict=True)]
    assert not all(same)
    for one, other in zip(plain, foretold, strict=True):
        np.testing.assert_array_equal(one.coefficients, other.coefficients)


@given(actions=ACTIONS, at=st.integers(0, 25))
@settings(max_examples=25, deadline=None)
def test_any_cut_and_a_snapshot_at_any_point_give_the_same_frames(actions: list[Action], at: int) -> None:
    session = Session(listener(foresight=MIXED).stream(seed=5))
    for index, action in enumerate([*actions, ("pull", 0)]):
        if index in (at, len(actions)):
            snapshot = session.stream.snapshot()
            session.stream.close()
            session.stream = listener(foresight=MIXED).resume(snapshot, seed=5)
        session.act(*action)
    assert session.end() == list(map(content, whole(listener(foresight=MIXED), seed=5)))


def test_a_file_gives_what_was_written(tmp_path: Path) -> None:
    MIXED.save(tmp_path / "f.npz")
    read = Foresight.read(tmp_path / "f.npz", HOP)
    np.testing.assert_array_equal(read.weights, MIXED.weights)
    expected = list(map(content, whole(listener(foresight=MIXED))))
    assert list(map(content, whole(listener(foresight=tmp_path / "f.npz")))) == expected


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"weights": MIXED.weights, "hop": HOP + 1}, f"segments of {HOP + 1} frames, this bundle's have {HOP}"),
        ({"weights": MIXED.weights[:6], "hop": HOP}, r"weights \[6, 13, 4\]"),
        ({"weights": np.zeros((58, 13, 13), np.float32), "hop": HOP}, r"weights \[58, 13, 13\]"),
        ({"weights": np.full((58, 13, 1), np.nan), "hop": HOP}, "no finite fractions"),
        ({"weights": MIXED.weights}, "holds no foresight"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(FeedError, match=told):
        listener(foresight=tmp_path / "f.npz")
