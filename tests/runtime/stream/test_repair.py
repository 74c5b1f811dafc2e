"""Numbers that are not finite, in the middle of a stream."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from support.fakes import HOP, MEAN_FACE, Recording, fake_engines, frames_of, sound_of
from support.sessions import FRAMES, SOUND, VIDEO, listener, whole
from support.spoilt import all_finite, spoilt


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("graph", "name", "call", "rows", "count"),
    [
        ("reactface_listener", "reaction", 2, (slice(None), slice(2, 5)), 6),  # frames 10, 11, 12 of both samples
        ("reactface_listener", "reaction", 2, (1, 3, 17), 1),  # one number of sample 1
        ("reactface_listener", "reaction", 1, (slice(None),), 16),  # all of the very first segment
        ("reactface_listener", "motion", 2, (0,), 0),  # the generator's state
        ("reactface_listener", "motion", 1, (0,), 0),
        ("posnet", "smoothed", 1, (slice(None), slice(0, 2)), 4),  # frames 8 and 9
        ("posnet", "pose", 1, (slice(None),), 0),  # PosNet's state
    ],
)
def test_numbers_that_are_not_finite_are_held_counted_and_told_once(
    graph: str, name: str, call: int, rows: Any, count: int, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    engines: dict[str, Any] = fake_engines(**{graph: spoilt(graph, name, {call}, rows, value)})
    engines["reactface_listener"] = generator = Recording(engines["reactface_listener"])
    with caplog.at_level(logging.WARNING), listener(engines=engines).stream(samples=2, seed=5) as stream:
        stream.push(video=VIDEO, audio=SOUND)
        stream.finish()
        frames = list(stream.pull())
        assert stream.repaired == count
    assert len(frames) == 2 * FRAMES
    assert all_finite(frames)
    told = [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()]
    assert len(told) == 1
    for feeds in generator.feeds:
        assert np.isfinite(feeds["past_motion"]).all()
        assert np.isfinite(feeds["past_reaction"]).all()
    assert len({frame.coefficients.tobytes() for frame in frames[-4 * HOP :]}) > 2 * HOP  # it moves again


def test_the_last_good_coefficients_are_held() -> None:
    rows = (slice(None), slice(2, 5))
    engines = fake_engines(reactface_listener=spoilt("reactface_listener", "reaction", {2}, rows, np.nan))
    frames = whole(listener(engines=engines), seed=5)
    for held in (10, 11, 12):
        np.testing.assert_array_equal(frames[held].coefficients[:52], frames[9].coefficients[:52])
    good = whole(listener(), seed=5)
    np.testing.assert_array_equal(frames[13].coefficients[:52], good[13].coefficients[:52])


def test_a_first_segment_without_a_good_number_shows_the_mean_face() -> None:
    engines = fake_engines(reactface_listener=spoilt("reactface_listener", "reaction", {1}, slice(None), np.nan))
    frames = whole(listener(engines=engines), seed=5)
    for frame in frames[:8]:
        np.testing.assert_array_equal(frame.coefficients, MEAN_FACE)
    assert (frames[8].coefficients[:52] != MEAN_FACE[:52]).any()


@pytest.mark.parametrize("graph", ["reactface_listener", "posnet"])
def test_numbers_that_stay_bad_hold_the_pose_and_are_told_once(graph: str, caplog: pytest.LogCaptureFixture) -> None:
    name = "reaction" if graph == "reactface_listener" else "smoothed"
    engines = fake_engines(**{graph: spoilt(graph, name, range(2, 100), slice(None), np.nan)})
    with caplog.at_level(logging.WARNING):
        frames = whole(listener(engines=engines), frames_of(64), sound_of(64))
    assert all_finite(frames)
    assert sum("not finite" in record.getMessage() for record in caplog.records) == 1
    assert len({frame.coefficients[:52].tobytes() for frame in frames[24:]}) == 1
