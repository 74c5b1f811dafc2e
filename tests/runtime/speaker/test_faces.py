from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import MEDIA

import pflx.runtime.speaker.faces as faces_module
from pflx.engines import Array, FakeEngine, TensorSpec
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.speaker.face_track import LOST_AFTER_FRAMES, FaceWatch
from pflx.runtime.speaker.faces import (
    MODEL_PATH,
    MODEL_SHA256,
    BlazeFace,
    DetectorFileError,
    FrameError,
    open_packaged,
)

UInt8Array = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> BlazeFace:
    return BlazeFace()


def frames_of(name: str, every: int) -> list[UInt8Array]:
    with av.open(str(MEDIA / name)) as container:
        frames = [frame for i, frame in enumerate(container.decode(video=0)) if i % every == 0]
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def shaded(height: int, width: int) -> UInt8Array:
    """A picture of more than one colour, without a face."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (height, width, 3)).copy()


def portrait() -> UInt8Array:
    return load_portrait(MEDIA / "portrait_astronaut_256.png")


@pytest.mark.parametrize("name", ["podium_speech_8s.mp4", "webcam_cap12_12s.mp4"])
def test_the_face_is_found_in_every_frame_of_a_real_clip(detector: BlazeFace, name: str) -> None:
    assert all(detector.detect(frame) for frame in frames_of(name, every=10))


def test_the_box_lies_on_the_face(detector: BlazeFace) -> None:
    (face,) = detector.detect(portrait())
    x, y, width, height = face.box
    assert abs(x + width / 2 - 128) < 12
    assert abs(y + height / 2 - 140) < 16
    assert 80 < width < 140
    assert 80 < height < 140
    assert 0.7 <= face.score <= 1.0


@pytest.mark.parametrize("side", [48, 72, 108, 260])
@pytest.mark.parametrize("corner", [(30, 40), (1000, 500), (560, 250)])
def test_small_and_large_faces_are_found_in_a_wide_frame(
    detector: BlazeFace, side: int, corner: tuple[int, int]
) -> None:
    frame = np.full((720, 1280, 3), 200, np.uint8)
    picture = cv2.resize(portrait(), None, fx=side / 105, fy=side / 105, interpolation=cv2.INTER_AREA)
    x, y = min(corner[0], 1280 - picture.shape[1]), min(corner[1], 720 - picture.shape[0])
    frame[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    found = detector.detect(frame)
    assert len(found) == 1
    left, top, width, height = found[0].box
    assert x < left + width / 2 < x + picture.shape[1]
    assert y < top + height / 2 < y + picture.shape[0]


def test_a_frame_without_a_face_gives_none(detector: BlazeFace) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (480, 640, 3))
    assert detector.detect(noise) == []
    assert detector.detect(ramp) == []


def test_boxes_stay_inside_a_frame_that_cuts_the_face(detector: BlazeFace) -> None:
    half = np.ascontiguousarray(portrait()[:, :160])
    for face in detector.detect(half):
        x, y, width, height = face.box
        assert x >= 0
        assert y >= 0
        assert x + width <= 160 + 1e-3
        assert y + height <= 256 + 1e-3


def test_the_same_frame_gives_the_same_faces_whatever_came_between(detector: BlazeFace) -> None:
    first, *_, last = frames_of("podium_speech_8s.mp4", every=20)
    before = detector.detect(first)
    detector.detect(last)
    assert detector.detect(first) == before


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.float32),
        np.zeros((0, 64, 3), np.uint8),
        None,
    ],
)
def test_what_is_no_rgb_frame_is_refused(detector: BlazeFace, frame: UInt8Array) -> None:
    with pytest.raises(FrameError, match=r"uint8 \[H, W, 3\] RGB"):
        detector.detect(frame)


def candidates(
    boxes: list[tuple[float, ...]], scores: list[float], look: int = 0, looks: list[int] | None = None
) -> FakeEngine:
    """An engine that finds these boxes (in the 128 px square) in the first square of one look."""
    calls = [] if looks is None else looks

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        count = len(feeds["images"])
        calls.append(count)
        found = np.zeros((count, 896), np.float32)
        where = np.zeros((count, 896, 4), np.float32)
        if len(calls) - 1 == look:
            found[0, : len(scores)], where[0, : len(boxes)] = scores, boxes
        return {"scores": found, "boxes": where}

    float32 = np.dtype(np.float32)
    return FakeEngine(
        run,
        {"images": TensorSpec(("N", 128, 128, 3), np.dtype(np.uint8))},
        {"scores": TensorSpec(("N", 896), float32), "boxes": TensorSpec(("N", 896, 4), float32)},
    )


def test_overlapping_candidates_become_their_weighted_mean() -> None:
    engine = candidates([(10, 10, 40, 40), (14, 10, 40, 40), (90, 90, 20, 20)], [0.9, 0.6, 0.8])
    first, second = BlazeFace(engine=engine).detect(shaded(128, 128))
    assert first.score == pytest.approx(0.9)
    assert second.score == pytest.approx(0.8)
    assert first.box == pytest.approx((10 * 0.6 + 14 * 0.4, 10, 40, 40), abs=1e-4)
    assert second.box == pytest.approx((90, 90, 20, 20), abs=1e-4)


def test_a_letterboxed_frame_gives_boxes_in_its_own_pixels() -> None:
    engine = candidates([(32, 48, 16, 16)], [0.9])
    (face,) = BlazeFace(engine=engine).detect(shaded(320, 640))
    assert face.box == pytest.approx((160, 48 * 5 - 160, 80, 80))


def test_finer_looks_follow_only_while_nothing_is_found() -> None:
    frame = shaded(720, 1280)
    looks: list[int] = []
    assert BlazeFace(engine=candidates([(10, 10, 40, 40)], [0.8], 1, looks)).detect(frame)
    assert looks == [1, 3]
    looks.clear()
    assert not BlazeFace(engine=candidates([(10, 10, 40, 40)], [0.8], 2, looks)).detect(frame)
    assert looks == [1, 3, 21]


def test_a_changed_model_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "blazeface.onnx"
    changed.write_bytes(MODEL_PATH.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(faces_module, "MODEL_PATH", changed)
    with pytest.raises(DetectorFileError, match="Reinstall"):
        BlazeFace()
    changed.unlink()
    with pytest.raises(DetectorFileError, match="Cannot read"):
        BlazeFace()


def watched(looks: list[bool], gap: int = 25) -> list[FaceState]:
    watch, states = FaceWatch(), []
    for found in looks:
        watch = watch.next(found, gap)
        states.append(watch.state)
    return states


def test_a_face_is_locked_after_two_looks_and_lost_after_two_seconds() -> None:
    assert watched([True, True, False, False, False, True, True]) == [
        FaceState.REACQUIRED,
        FaceState.LOCKED,
        FaceState.COASTING,
        FaceState.LOST,
        FaceState.LOST,
        FaceState.REACQUIRED,
        FaceState.LOCKED,
    ]


def test_one_miss_does_not_lose_a_face_and_one_hit_does_not_lock_one() -> None:
    assert watched([True, True, False], gap=1000)[-1] is FaceState.COASTING
    assert watched([True, True, False, True])[-1] is FaceState.LOCKED
    assert watched([False, True, False])[-1] is FaceState.LOST


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_a_state_tells_how_long_the_face_was_unseen(looks: list[tuple[bool, int]]) -> None:
    watch = FaceWatch()
    for found, gap in looks:
        before, watch = watch, watch.next(found, gap)
        assert (watch.state in (FaceState.LOCKED, FaceState.REACQUIRED)) == found
        assert watch.unseen_frames == (0 if found else before.unseen_frames + gap)
        if watch.state is FaceState.COASTING:
            assert before.state is FaceState.LOCKED or watch.unseen_frames < LOST_AFTER_FRAMES
        assert FaceWatch.from_array(watch.to_array()) == watch


class Counting:
    """The engine of the detector, with the number of its calls."""

    def __init__(self) -> None:
        self._engine = open_packaged(MODEL_PATH, MODEL_SHA256)
        self.inputs, self.outputs = self._engine.inputs, self._engine.outputs
        self.calls = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.calls += 1
        return self._engine.run(feeds)

    def close(self) -> None:
        """It stays open: others use it, too."""


@pytest.mark.parametrize("colour", [(0, 0, 0), (90, 90, 90), (255, 0, 40)])
def test_a_picture_of_one_colour_shows_no_face_and_costs_no_look(colour: tuple[int, int, int]) -> None:
    engine = Counting()
    picture = np.full((200, 300, 3), colour, np.uint8)
    assert BlazeFace(engine=engine).detect(picture) == []
    assert engine.calls == 0
    picture[199, 299, 2] += 1  # the last of all numbers
    assert BlazeFace(engine=engine).detect(picture) == []
    assert engine.calls > 1
