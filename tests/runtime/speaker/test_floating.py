"""A crop that floats on real faces: the pictures of `pflx crop --pfl floating`, and what extractors see."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from support.fakes import fake_listener
from support.live.live_sessions import run
from support.places import MEDIA

from pflx.engines import Array, FeedError, PflInfo
from pflx.runtime import (
    BlazeFace,
    ChainSettings,
    Listener,
    Recorded,
    Region,
    Rung,
    SpeakerSettings,
    VirtualClock,
    open_speaker,
)
from pflx.runtime.dataset.crop import CropSettings, crop_clip
from pflx.runtime.speaker.face_track import FaceTrack, SpeakerView
from pflx.runtime.speaker.landmarks import NOSE, FaceMesh
from pflx.runtime.speaker.pfl import centre_crop, centred

PODIUM, WEBCAM = MEDIA / "podium_speech_8s.mp4", MEDIA / "webcam_cap12_12s.mp4"


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


def test_a_session_sees_what_the_crop_of_a_data_set_shows(mesh: FaceMesh) -> None:
    clip = open_speaker(WEBCAM).limited(1.2)
    cropped = np.stack(list(crop_clip(clip, CropSettings(pfl="floating"))))
    view = SpeakerView(BlazeFace(), PflInfo(mode="floating", window=256, padding=20), nose=mesh.nose_in)
    track, seen = FaceTrack(), list[Array]()
    for chunk in clip.chunks(8):
        pictures, track = view.step(chunk.video, track)
        seen.append(pictures)
    np.testing.assert_array_equal(np.concatenate(seen), centre_crop(cropped, 224))
    assert len(cropped) == 30


def test_a_live_session_that_looks_by_itself_sees_the_same() -> None:
    clip, region = open_speaker(WEBCAM).limited(1), Region(110, 60, 366, 300)
    floating = fake_listener(crop="floating", detector=None, lookahead=3)
    whole = {f.ledger.frame: f for f in floating.react(clip, speaker=SpeakerSettings(region=region))}
    result = run(clip, listener=floating, clock=VirtualClock(10**9), region=region)
    shown = [frame for frame in result.frames if frame.degraded is Rung.FULL]
    assert len(shown) >= 20
    for frame in shown:
        np.testing.assert_array_equal(frame.coefficients, whole[frame.ledger.frame].coefficients)
    fixed = fake_listener(detector=None, lookahead=3).react(clip, speaker=SpeakerSettings(region=region))
    assert any((frame.coefficients != whole[frame.ledger.frame].coefficients).any() for frame in fixed)


class Watching:
    """An extractor that notes how far the nose is from the middle of the picture."""

    size = 58

    def __init__(self, mesh: FaceMesh) -> None:
        self._mesh, self.noses = mesh, list[tuple[float, float]]()
        self.shapes: set[tuple[int, ...]] = set()

    def extract(self, picture: npt.NDArray[np.uint8], frame: int) -> Array:
        face = self._mesh.find(picture)
        assert face is not None
        height, width = picture.shape[:2]
        self.noses.append((face.points[NOSE, 0] - width / 2, face.points[NOSE, 1] - height / 2))
        self.shapes.add(picture.shape)
        return np.zeros(58, np.float32)


def test_extractors_see_whole_pictures_with_the_nose_in_the_middle(mesh: FaceMesh) -> None:
    clip, seen = open_speaker(PODIUM).limited(1), {}
    for crop in ("pfl", "floating"):
        seen[crop] = watching = Watching(mesh)
        speaker = SpeakerSettings(extractors={"coefficients": watching})
        with Listener.open(render=False, chain=ChainSettings(crop=crop), speaker=speaker) as listener:
            assert len(list(listener.react(clip, render=False))) == len(watching.noses) == 25
    assert seen["pfl"].shapes == seen["floating"].shapes == {(240, 320, 3)}
    assert np.abs(seen["floating"].noses).max() < 2
    assert np.abs(seen["pfl"].noses).max() > 20


def test_what_extractors_tell_does_not_depend_on_how_the_pictures_come() -> None:
    clip = open_speaker(PODIUM, 16_000).limited(1.2)
    with Listener.open(render=False, chain=ChainSettings(crop="floating")) as listener:
        whole = [frame.coefficients for frame in listener.react(clip, render=False)]
        pieces: list[Array] = []
        stream = listener.stream(render=False)
        for chunk in clip.chunks(3):
            stream.push(video=chunk.video, audio=chunk.audio)
            pieces += [frame.coefficients for frame in stream.pull()]
            stream = listener.resume(stream.snapshot()) if len(pieces) == 8 else stream
        stream.finish()
        pieces += [frame.coefficients for frame in stream.pull()]
    np.testing.assert_array_equal(pieces, whole)
    with Listener.open(render=False) as listener:
        fixed = [frame.coefficients for frame in listener.react(clip, render=False)]
    assert (np.array(fixed) != whole).any()


def test_a_crop_that_would_change_nothing_is_refused() -> None:
    recorded = SpeakerSettings(extractors={"coefficients": Recorded(np.zeros((25, 58), np.float32))})
    with (
        Listener.open(render=False, chain=ChainSettings(crop="floating")) as listener,
        pytest.raises(FeedError) as caught,
    ):
        listener.stream(speaker=recorded)
    assert str(caught.value) == (
        "crop is 'floating', and what backchannel reads of the speaker is told without looking at pictures. Leave it "
        "out."
    )
    with Listener.open(render=False, chain=ChainSettings(crop="paper")) as listener, pytest.raises(FeedError) as caught:
        listener.stream()
    assert str(caught.value) == (
        "crop is 'paper', and what backchannel reads of the speaker is told from whole pictures, which floating alone "
        "moves. Leave it out."
    )


@pytest.mark.parametrize(
    ("nose", "shown"),
    [
        (None, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((2.0, 1.0), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((3.4, 1.4), [[1, 2, 3, 3], [5, 6, 7, 7]]),
        ((0.4, 2.0), [[4, 4, 4, 5], [4, 4, 4, 5]]),
    ],
)
def test_a_whole_picture_is_moved_by_whole_pixels_and_its_border_repeated(
    nose: tuple[float, float] | None, shown: list[list[int]]
) -> None:
    frame = np.repeat(np.arange(8, dtype=np.uint8).reshape(2, 4, 1), 3, axis=2)
    assert centred(frame, nose)[..., 0].tolist() == shown
