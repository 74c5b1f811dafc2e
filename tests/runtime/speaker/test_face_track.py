"""Which frames are searched for the face, when the region is frozen, and what the generator sees."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import Faces, frames_of

from pflx.engines import PflInfo
from pflx.runtime import FaceState, Region
from pflx.runtime.speaker.face_track import Cropped, FaceTrack, SpeakerView, find_face, session_region
from pflx.runtime.speaker.pfl import centre_crop, crop, floating_region

Box = tuple[float, float, float, float]
SIZE = (48, 40)
PFL = PflInfo(mode="release", window=32, padding=2)
STILL: Box = (10.0, 6.0, 16.0, 16.0)


def moving(index: int) -> list[Box]:
    """A face that wanders to the right and back."""
    return [(5.0 + index % 20, 6.0, 16.0, 16.0)]


def walk(detector: Faces, frames: int, steps: Sequence[int] = (8,), pfl: PflInfo = PFL) -> list[FaceTrack]:
    """What is known after each step; the steps repeat until all frames are seen."""
    tracks: list[FaceTrack] = []
    view, track, start = SpeakerView(detector, pfl), FaceTrack(), 0
    video = frames_of(frames)
    while start < frames:
        length = steps[len(tracks) % len(steps)]
        _, track = view.step(video[start : start + length], track)
        tracks.append(track)
        start += length
    return tracks


def test_every_frame_is_searched_until_the_region_is_frozen_then_one_a_second() -> None:
    detector = Faces(moving)
    walk(detector, 130)
    assert detector.searched == [*range(50), 74, 99, 124]


def test_one_frame_in_five_is_searched_while_no_face_is_there() -> None:
    detector = Faces(lambda index: moving(index) if 20 <= index < 25 or index >= 35 else [])
    walk(detector, 48)
    assert detector.searched == [0, 5, 10, 15, 20, 21, 22, 23, 24, 25, 30, *range(35, 48)]


@given(steps=st.lists(st.integers(1, 40), min_size=1, max_size=9), gap=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_what_is_known_does_not_depend_on_the_steps(steps: list[int], gap: int) -> None:
    def script(index: int) -> list[Box]:
        return [] if gap <= index < gap + 13 else moving(index)

    cut, whole = Faces(script), Faces(script)
    assert walk(cut, 120, steps)[-1] == walk(whole, 120, [120])[-1]
    assert cut.searched == whole.searched


def test_the_region_is_frozen_after_fifty_boxes_and_later_ones_change_nothing() -> None:
    tracks = walk(Faces(lambda index: moving(index) if index < 50 else [(30.0, 22.0, 17.0, 17.0)]), 120)
    boxes = [box for index in range(50) for box in moving(index)]
    assert [track.region for track in tracks[:6]] == [None] * 6
    assert {track.region for track in tracks[6:]} == {session_region(boxes, SIZE, PFL)}
    assert len(tracks[-1].boxes) == 50


def test_frames_without_a_face_do_not_count_for_the_calibration() -> None:
    tracks = walk(Faces(lambda index: [STILL] if index >= 30 else []), 88)
    assert tracks[8].region is None
    assert len(tracks[8].boxes) == 72 - 30
    assert tracks[9].region == session_region([STILL] * 50, SIZE, PFL)


def test_until_then_each_segment_is_cropped_by_the_boxes_so_far() -> None:
    view, track, video = SpeakerView(Faces(moving), PFL), FaceTrack(), frames_of(16)
    for start in (0, 8):
        pictures, track = view.step(video[start : start + 8], track)
        region = session_region([box for i in range(start + 8) for box in moving(i)], SIZE, PFL)
        expected = centre_crop(crop(video[start : start + 8], region, 256), 224)
        np.testing.assert_array_equal(pictures, expected)
        assert pictures.flags.c_contiguous


def test_a_given_region_is_kept_and_only_watched() -> None:
    region = Region(3, 4, 35, 36)
    detector = Faces(moving)
    view, track, video = SpeakerView(detector, PFL), FaceTrack(region=region), frames_of(60)
    pictures, track = view.step(video, track)
    assert detector.searched == [0, 1, 26, 51]
    assert track.region == region
    assert not track.boxes
    np.testing.assert_array_equal(pictures, centre_crop(crop(video, region, 256), 224))


@given(portions=st.lists(st.integers(0, 8), max_size=6))
@settings(max_examples=30, deadline=None)
def test_cropping_ahead_changes_nothing_but_the_moment(portions: list[int]) -> None:
    ahead_detector, detector, video = Faces(moving), Faces(moving), frames_of(72)
    ahead_view, view = SpeakerView(ahead_detector, PFL), SpeakerView(detector, PFL)
    ahead_track = track = FaceTrack()
    for start in range(0, 72, 8):
        segment = video[start : start + 8]
        ahead: Cropped | None = None
        for there in sorted(portions):
            ahead = ahead_view.crop_ahead(list(segment[:there]), 8, ahead_track, ahead)
            assert ahead.count == there
        early, ahead_track = ahead_view.step(list(segment), ahead_track, ahead)
        late, track = view.step(segment, track)
        np.testing.assert_array_equal(early, late)
        assert ahead_track == track
    assert ahead_detector.searched == detector.searched


def test_without_a_face_the_middle_is_shown_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    view, track, video = SpeakerView(Faces(lambda _: []), PFL), FaceTrack(), frames_of(16)
    with caplog.at_level(logging.WARNING):
        for start in (0, 8):
            pictures, track = view.step(video[start : start + 8], track)
            square = crop(video[start : start + 8], Region(4, 0, 44, 40), 256)
            np.testing.assert_array_equal(pictures, centre_crop(square, 224))
    assert [record.getMessage() for record in caplog.records] == [
        "No face in the speaker's first frames: using the middle of the frame, "
        "Region(left=4, top=0, right=44, bottom=40)."
    ]


def test_the_face_is_lost_after_two_seconds_and_found_again() -> None:
    detector = Faces(lambda index: [STILL] if index < 60 or index >= 180 else [])
    states = [track.watch.state for track in walk(detector, 250, [1])]
    assert [index for index in detector.searched if index >= 49] == [49, *range(74, 185, 5), 185, 210, 235]
    assert states[49:74] == [FaceState.LOCKED] * 25
    assert states[74:99] == [FaceState.COASTING] * 25
    assert states[99:184] == [FaceState.LOST] * 85
    assert states[184] == FaceState.REACQUIRED
    assert states[185:] == [FaceState.LOCKED] * 65


def test_of_several_faces_the_largest_is_followed_wherever_it_goes() -> None:
    def crowd(index: int) -> list[Box]:
        """The speaker drifts right and becomes the smaller one, among faces in any order."""
        speaker, other = (4.0 + index, 6.0, 16.0 - index / 4, 16.0 - index / 4), (2.0, 24.0, 13.0, 13.0)
        return [speaker, other] if index % 2 else [other, speaker]

    track = walk(Faces(crowd), 24)[-1]
    assert [box[:2] for box in track.boxes] == [(4.0 + index, 6.0) for index in range(24)]
    detector, found = Faces(crowd), None
    boxes = [found := find_face(detector, frame, found) for frame in frames_of(24)]
    assert tuple(boxes) == track.boxes


def test_a_track_survives_its_arrays() -> None:
    for track in (*walk(Faces(moving), 80), FaceTrack(), FaceTrack(region=Region(-3, 0, 29, 32))):
        assert FaceTrack.from_arrays(track.to_arrays()) == track


@pytest.mark.parametrize("mode", ["release", "paper"])
def test_a_face_larger_than_the_window_grows_the_region(mode: str) -> None:
    pfl = PflInfo(mode=mode, window=256, padding=20)
    region = session_region([(400.0, 100.0, 300.0, 300.0)] * 5, (1280, 720), pfl)
    assert region.left <= 400
    assert region.top <= 100
    assert region.right >= 700
    assert region.bottom >= 400


@pytest.mark.parametrize("mode", ["release", "paper"])
def test_a_frame_smaller_than_the_window_shrinks_the_region(mode: str) -> None:
    region = session_region([(30.0, 20.0, 60.0, 60.0)], (160, 120), PflInfo(mode=mode, window=256, padding=20))
    assert max(region.width, region.height) <= 120
    assert min(region.left, region.top) >= 0
    assert region.right <= 160
    assert region.bottom <= 120


def test_without_boxes_the_region_is_the_largest_centre_square() -> None:
    for mode in ("release", "paper"):
        assert session_region([], (320, 240), PflInfo(mode=mode, window=256, padding=20)) == Region(40, 0, 280, 240)


@given(
    width=st.integers(64, 1920),
    height=st.integers(64, 1080),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    share=st.floats(0.02, 1),
    aspect=st.floats(0.7, 1.4),
    mode=st.sampled_from(["release", "paper"]),
)
@settings(deadline=None)
def test_the_region_stays_in_the_frame_and_holds_the_middle_of_the_face(
    width: int, height: int, corner: tuple[float, float], share: float, aspect: float, mode: str
) -> None:
    face = (min(width, share * height * aspect), share * height)
    x, y = corner[0] * (width - face[0]), corner[1] * (height - face[1])
    region = session_region([(x, y, *face)], (width, height), PflInfo(mode=mode, window=256, padding=20))
    assert 0 <= region.left <= x + face[0] / 2 <= region.right <= width
    assert 0 <= region.top <= y + face[1] / 2 <= region.bottom <= height


def right_of(frame: npt.NDArray[np.uint8], box: Sequence[float]) -> tuple[float, float] | None:
    """A nose right of the middle of the face; not to be seen in every fourth frame."""
    return None if frame[0, 0, 0] % 4 == 3 else (box[0] + 9.4, box[1] + 8.5)


def test_a_crop_that_floats_is_a_square_around_the_nose_as_large_as_the_fixed_region() -> None:
    pfl = PflInfo(mode="floating", window=32, padding=2)
    detector, video = Faces(moving), frames_of(72)
    view, track, seen = SpeakerView(detector, pfl, nose=right_of), FaceTrack(), []
    for start in range(0, 72, 8):
        pictures, track = view.step(video[start : start + 8], track)
        seen.append(pictures)
    assert detector.searched == [*range(72)]
    for index, picture in enumerate(np.concatenate(seen)):
        at = index - (index % 4 == 3)  # a nose that is not found stays where it was
        square = floating_region((moving(at)[0][0] + 9.4, 6 + 8.5), 32)
        np.testing.assert_array_equal(picture, centre_crop(crop(video[index : index + 1], square, 256)[0], 224))
    assert track.region == session_region([box for i in range(50) for box in moving(i)], SIZE, PFL)
    assert track.boxes == (tuple(moving(71)[0]),)
    assert FaceTrack.from_arrays(track.to_arrays()) == track


def test_before_the_first_nose_the_fixed_region_is_cropped() -> None:
    pfl = PflInfo(mode="floating", window=32, padding=2)
    video = frames_of(8)
    pictures, track = SpeakerView(Faces(moving), pfl, nose=lambda *_: None).step(video, FaceTrack())
    region = session_region([box for i in range(8) for box in moving(i)], SIZE, PFL)
    np.testing.assert_array_equal(pictures, centre_crop(crop(video, region, 256), 224))
    assert track.nose is None


def test_a_crop_that_floats_follows_the_face_that_it_followed() -> None:
    def crossing(index: int) -> list[Box]:
        """The one who was larger at first passes behind one who comes nearer."""
        return [(2.0 + index / 4, 6.0, 14.0, 14.0), (4.0, 22.0, 10.0 + index / 4, 10.0 + index / 4)]

    pfl = PflInfo(mode="floating", window=32, padding=2)
    view = SpeakerView(Faces(crossing), pfl, nose=lambda _, box: (box[0], box[1]))
    for start in (FaceTrack(), FaceTrack(region=Region(3, 4, 35, 36))):
        _, track = view.step(frames_of(60), start)
        assert track.nose == crossing(59)[0][:2]


@given(portions=st.lists(st.integers(0, 8), max_size=6))
@settings(max_examples=20, deadline=None)
def test_a_crop_that_floats_may_be_made_ahead(portions: list[int]) -> None:
    view, video = (
        SpeakerView(Faces(moving), PflInfo(mode="floating", window=32, padding=2), nose=right_of),
        frames_of(72),
    )
    ahead_track = track = FaceTrack()
    for start in range(0, 72, 8):
        segment, ahead = video[start : start + 8], None
        for there in sorted(portions):
            ahead = view.crop_ahead(list(segment[:there]), 8, ahead_track, ahead)
        early, ahead_track = view.step(list(segment), ahead_track, ahead)
        late, track = view.step(segment, track)
        np.testing.assert_array_equal(early, late)
        assert ahead_track == track


def test_the_generator_sees_224_pixels_of_a_256_pixel_crop() -> None:
    video: npt.NDArray[np.uint8] = frames_of(8, size=(300, 280))
    region = Region(10, 15, 266, 271)
    pictures, _ = SpeakerView(Faces(moving), PFL).step(video, FaceTrack(region=region))
    np.testing.assert_array_equal(pictures, video[:, 31:255, 26:250])


def test_where_nothing_is_cropped_the_face_is_only_watched() -> None:
    """No region is gathered, so that no frame is searched for one; the face that is followed is the last one seen."""
    detector = Faces(lambda index: moving(index) if index < 60 or index >= 90 else [])
    view, track = SpeakerView(detector, PFL, crops=False), FaceTrack()
    for start in range(0, 120, 8):
        pictures, track = view.step(frames_of(120)[start : start + 8], track)
        assert pictures.shape == (0, 224, 224, 3)
        assert not view.needs_again(track)
    assert detector.searched == [0, 1, 26, 51, 76, 81, 86, 91, 116]
    assert track.region is None
    assert list(track.boxes) == moving(116)
    assert track.watch.state is FaceState.LOCKED
