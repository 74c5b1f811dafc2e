"""A face that is followed from look to look: in half the time, and as good as one that is found in every picture."""

from __future__ import annotations

import numpy as np
import pytest
from support.speaker.webcam import webcam_frames

from pflx.engines import Array
from pflx.runtime.speaker.extractor import NOWHERE, Every, follow
from pflx.runtime.speaker.faces import BlazeFace, Face, FrameError
from pflx.runtime.speaker.landmarks import FaceMesh, LandmarkExtractor

STEP = 5


class Counted:
    """BlazeFace, with the number of its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self._detector = BlazeFace()

    def detect(self, frame_rgb: Array) -> list[Face]:
        self.calls += 1
        return self._detector.detect(frame_rgb)


def test_a_followed_face_is_searched_once_and_its_angles_are_those_of_one_that_is_found() -> None:
    detector = Counted()
    extractor, place = LandmarkExtractor(np.zeros(58), mesh=FaceMesh(detector=detector)), NOWHERE
    pictures = webcam_frames(np.arange(0, 300, STEP))
    followed, found = [], []
    for picture in pictures:
        numbers, place = extractor.follow(picture, 0, place)
        assert numbers is not None
        followed.append(numbers)
    assert detector.calls == 1
    for picture in pictures:
        numbers = extractor.extract(picture)
        assert numbers is not None
        found.append(numbers)
    turned, other = (np.degrees(np.array(rows)[:, 52:55]) for rows in (followed, found))
    from_look_to_look = np.abs(np.diff(other, axis=0)).mean()
    assert np.abs(turned - other).mean() < min(0.6, from_look_to_look)
    assert np.abs(np.array(followed)[:, :52] - np.array(found)[:, :52]).mean() < 0.03


def test_a_face_that_goes_is_lost_and_one_that_comes_is_found() -> None:
    extractor = LandmarkExtractor(np.zeros(58))
    picture = webcam_frames(np.array([0]))[0]
    numbers, place = extractor.follow(picture, 0, NOWHERE)
    assert numbers is not None
    nobody = np.full_like(picture, 90)
    numbers, place = extractor.follow(nobody, 1, place)
    assert numbers is None
    np.testing.assert_array_equal(place, NOWHERE)
    again, place = extractor.follow(picture, 2, place)
    np.testing.assert_array_equal(again, extractor.extract(picture))
    assert place[2] > 0


def test_a_face_that_jumped_out_of_its_square_is_found_again() -> None:
    extractor = LandmarkExtractor(np.zeros(58))
    picture = webcam_frames(np.array([0]))[0]
    _, place = extractor.follow(picture, 0, NOWHERE)
    moved = np.roll(picture, picture.shape[1] // 2, axis=1)
    numbers, _ = extractor.follow(moved, 1, place)
    np.testing.assert_array_equal(numbers, extractor.extract(moved))


def test_every_fifth_frame_is_looked_at_and_the_place_stays_in_between() -> None:
    extractor = Every(LandmarkExtractor(np.zeros(58)), STEP)
    picture = webcam_frames(np.array([0]))[0]
    _, place = follow(extractor, picture, 0, NOWHERE)
    assert place.shape == (4,)
    assert place.dtype == np.float64
    nothing, same = follow(extractor, picture, 1, place)
    assert nothing is None
    assert same is place
    _, moved = follow(extractor, picture, STEP, place)
    assert moved is not place


def test_an_extractor_that_follows_nothing_keeps_no_place() -> None:
    class Plain:
        size = 58

        def extract(self, picture: Array, frame: int) -> Array:
            return np.full(58, frame, np.float32)

    numbers, place = follow(Plain(), np.zeros((1, 1, 3), np.uint8), 7, NOWHERE)
    assert numbers is not None
    assert (numbers == 7).all()
    assert place is NOWHERE


def test_what_is_no_picture_is_refused() -> None:
    place = np.array([10.0, 10.0, 20.0, 0.0])
    with pytest.raises(FrameError):
        LandmarkExtractor(np.zeros(58)).follow(np.zeros((64, 64), np.uint8), 0, place)
