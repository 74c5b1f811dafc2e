"""One clip cropped: the region, what is cut out by it, the sound that stays with it, and what makes an outlier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from support.media.clips import click_train, likeness_db, onsets, read, write_clip
from support.media.noted import Boxes, NotedFaces, write_noted
from support.places import MEDIA

from pflx.runtime import BlazeFace, Face, Region, open_speaker
from pflx.runtime.dataset.crop import ClipCrop, CropError, CropSettings, crop_clip
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.speaker.landmarks import NOSE, FaceMesh
from pflx.runtime.speaker.pfl import CropMode, floating_region

WEBCAM = MEDIA / "webcam_cap12_12s.mp4"
FACE = (60.0, 40.0, 100.0, 110.0)


@pytest.fixture(scope="module")
def webcam() -> ClipCrop:
    return crop_clip(open_speaker(WEBCAM).limited(0.6))


def cropped(folder: Path, faces: list[Boxes], size: tuple[int, int] = (400, 300), **settings: Any) -> ClipCrop:
    """Of a clip in which the detector finds these faces."""
    clip = write_noted(folder / "clip.mp4", 0, len(faces), size)
    return crop_clip(clip, CropSettings(**settings), detector=NotedFaces([faces]))


@pytest.mark.parametrize(("window", "size"), [(256, 256), (200, 256), (256, 224)])
def test_the_pictures_are_what_the_region_cuts_out_resized_only_if_they_must_be(
    webcam: ClipCrop, window: int, size: int
) -> None:
    crop = ClipCrop(
        webcam.clip,
        CropSettings(window=window, size=size),
        webcam.boxes,
        webcam.faces,
        (Region(90, 40, 90 + window, 40 + window),),
    )
    frames = read(webcam.clip).video[:, 40 : 40 + window, 90 : 90 + window]
    expected = frames if window == size else np.stack([cv2.resize(frame, (size, size)) for frame in frames])
    np.testing.assert_array_equal(np.stack(list(crop)), expected)


def test_the_video_shows_these_pictures_and_lasts_as_long(webcam: ClipCrop, tmp_path: Path) -> None:
    webcam.write(tmp_path / "crop.mp4")
    made = read(open_speaker(tmp_path / "crop.mp4")).video
    assert made.shape == (15, 256, 256, 3)
    assert likeness_db(made, np.stack(list(webcam))) > 36


def test_a_still_that_is_shown_again_is_looked_at_once(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "slow.mkv", [0.0, 0.2, 0.4])
    looked: list[int] = []

    class Counting:
        def detect(self, frame_rgb: object) -> list[Any]:
            looked.append(1)
            return []

    crop = crop_clip(clip, detector=Counting())
    assert (len(looked), crop.frames) == (3, 15)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000, 40_000])
def test_the_sound_stays_where_it_was_at_its_own_rate(tmp_path: Path, rate: int) -> None:
    times = [index / 25 for index in range(75)]
    clip = write_clip(tmp_path / "clip.mkv", times, sound=click_train(2.9, rate), rate=rate, sound_start_s=0.1)
    crop_clip(clip, detector=NotedFaces([[[]] * 64] * 16)).write(tmp_path / "crop.mp4")
    source, made = (open_speaker(path) for path in (clip, tmp_path / "crop.mp4"))
    np.testing.assert_allclose(onsets(read(made).audio), onsets(read(source).audio), atol=0.001)
    with av.open(str(tmp_path / "crop.mp4")) as container:
        streams: list[Any] = [container.streams.video[0], container.streams.audio[0]]
        assert streams[1].codec_context.sample_rate == (48_000 if rate == 40_000 else rate)
        lengths = [float(stream.duration * stream.time_base) for stream in streams]
        first = [float(next(container.decode(stream)).pts * stream.time_base) for stream in streams]
    assert lengths == pytest.approx([3.0, 3.0], abs=0.001)
    assert first == pytest.approx([0.0, 0.0], abs=0.001)


def test_a_clip_of_uneven_rate_keeps_its_sound_and_its_length(tmp_path: Path) -> None:
    clip = open_speaker(MEDIA / "podium_speech_8s.mp4").limited(2)
    crop_clip(clip, detector=NotedFaces([[[]] * 64] * 16)).write(tmp_path / "crop.mp4")
    made = open_speaker(tmp_path / "crop.mp4")
    assert (made.frames, made.source_fps, made.has_audio) == (50, 25, True)
    was, now = read(clip).audio.astype(np.float64), read(made).audio.astype(np.float64)
    shifts = np.arange(-160, 161)
    likeness = [np.dot(was[400:-400], np.roll(now, shift)[400:-400]) for shift in shifts]
    assert abs(int(shifts[int(np.argmax(likeness))])) <= 1  # of 16 kHz


def test_the_nose_stays_in_the_middle_of_a_floating_crop() -> None:
    settings = CropSettings("floating", window=200)
    crop = crop_clip(open_speaker(WEBCAM).limited(0.4), settings)
    assert crop.region is None
    assert len({*crop.regions}) > 1
    mesh = FaceMesh()
    for picture in crop:
        face = mesh.find(picture)
        assert face is not None
        np.testing.assert_allclose(face.points[NOSE, :2], 128, atol=4)  # of 256, where 200 were


def test_a_nose_that_is_not_found_stays_where_it_was(tmp_path: Path) -> None:
    looks: list[UInt8Array] = []

    class Once:
        """A face in the second frame and never again."""

        def detect(self, frame_rgb: UInt8Array) -> list[Face]:
            looks.append(frame_rgb)
            return BlazeFace().detect(frame_rgb) if len(looks) == 2 else []

    crop = crop_clip(open_speaker(WEBCAM).limited(0.2), CropSettings("floating"), detector=Once())
    face = FaceMesh().find(looks[1])
    assert face is not None
    nose = (float(face.points[NOSE, 0]), float(face.points[NOSE, 1]))
    assert crop.regions == (floating_region(nose),) * 5


def test_without_any_nose_the_middle_is_shown(tmp_path: Path) -> None:
    assert cropped(tmp_path, [[FACE], []], pfl="floating").regions == (Region(72, 22, 328, 278),) * 2


SEEN: list[Boxes] = [[FACE]]
MISSED: list[Boxes] = [[]]
TWO: list[Boxes] = [[FACE, (220.0, 40.0, 80.0, 80.0)]]


@pytest.mark.parametrize(
    ("faces", "settings", "told"),
    [
        (SEEN * 60, {}, ()),
        (SEEN * 5 + MISSED * 49 + SEEN * 5, {}, ()),
        (SEEN * 5 + MISSED * 50 + SEEN * 5, {}, ("face lost",)),
        (MISSED * 50 + SEEN, {}, ("face lost",)),
        (MISSED * 60, {}, ("no face",)),
        (SEEN * 19 + TWO, {}, ()),
        (SEEN * 9 + TWO, {}, ("several faces",)),
        (SEEN, {"window": 109, "pfl": "paper"}, ("face larger than the window",)),
        (SEEN, {"window": 301, "pfl": "paper"}, ("window larger than the frame",)),
        (SEEN, {"window": 301}, ("window larger than the frame", "region leaves the frame")),
        (SEEN, {"window": 301, "pfl": "floating"}, ("window larger than the frame",)),
    ],
)
def test_outliers_are_told_by_their_kind(
    tmp_path: Path, faces: list[Boxes], settings: dict[str, Any], told: tuple[str, ...]
) -> None:
    assert cropped(tmp_path, faces, **settings).outliers() == told


def test_of_several_faces_the_topmost_is_followed_as_in_the_released_code(tmp_path: Path) -> None:
    low, high = (20.0, 90.0, 150.0, 150.0), (200.0, 10.0, 90.0, 90.0)
    crop = cropped(tmp_path, [[low, high], [low], [low, high]])
    assert crop.boxes == (high, low, low)
    assert crop.faces == (2, 1, 2)


@pytest.mark.parametrize("settings", [{"pfl": "realease"}, {"window": 0}, {"size": 8}, {"padding": -1}])
def test_settings_that_no_crop_has_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(CropError, match="give"):
        CropSettings(**settings)


def test_sound_alone_cannot_be_cropped() -> None:
    with pytest.raises(CropError, match="holds sound and no pictures"):
        crop_clip(MEDIA / "dialogue_19s.flac")


@pytest.mark.parametrize("mode", ["release", "paper", "floating"])
def test_progress_counts_every_frame_of_both_readings(tmp_path: Path, mode: CropMode) -> None:
    counts: list[list[int]] = [[], []]
    tell: list[Callable[[int], None]] = [each.append for each in counts]
    clip = write_noted(tmp_path / "clip.mp4", 0, 30, (64, 48))
    crop = crop_clip(clip, CropSettings(mode, window=32), detector=NotedFaces([[[]] * 30]), progress=tell[0])
    crop.write(tmp_path / "crop.mp4", progress=tell[1])
    assert counts == [[*range(1, 31)], [25, 30]]


def test_a_clip_is_not_written_over_by_its_own_crop(tmp_path: Path) -> None:
    crop = cropped(tmp_path, [[FACE]])
    before = crop.clip.path.read_bytes()
    (tmp_path / "link.mp4").symlink_to(crop.clip.path)
    for path in (crop.clip.path, tmp_path / "link.mp4"):
        with pytest.raises(CropError, match="is the clip that is cropped, which would be replaced"):
            crop.write(path)
    assert crop.clip.path.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 0}, "window is 0; give 1 to 8192 pixels."),
        ({"window": 10**9}, "window is 1000000000; give 1 to 8192 pixels."),
        ({"size": 15}, "size is 15; give 16 to 4096 pixels."),
        ({"size": 10**9}, "size is 1000000000; give 16 to 4096 pixels."),
        ({"padding": -1}, "padding is -1; give 0 to 8192 pixels."),
    ],
)
def test_a_size_that_no_picture_has_is_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(CropError, match=f"^{said}$"):
        CropSettings(**settings)  # type: ignore[arg-type]
