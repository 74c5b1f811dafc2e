"""What a picture is made of: pixels that are not square, sizes that change, fields, colours."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.error import BlockingIOError as AvBlockingIOError
from av.error import EOFError as AvEOFError
from av.filter import Graph
from support.media.clips import PictureTrack, grey_level, likeness_db, read, scene, write_tracks

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.pictures import fit_picture


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [
        ((48, 96), Fraction(2), (96, 96)),
        ((96, 48), Fraction(1, 2), (96, 96)),
        ((90, 72), Fraction(16, 15), (96, 72)),
        ((96, 96), Fraction(1), (96, 96)),
        ((96, 96), Fraction(1000, 1003), (96, 96)),
        ((96, 96), Fraction(20), (96, 96)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_pixels_become_square(
    tmp_path: Path, stored: tuple[int, int], aspect: Fraction, shown: tuple[int, int], suffix: str
) -> None:
    pictures = [cv2.resize(scene(index, shown), stored, interpolation=cv2.INTER_AREA) for index in range(5)]
    facts = {"sample_aspect_ratio": aspect}
    track = PictureTrack(pictures, options={"crf": "4"}, facts=facts)
    speaker = open_speaker(write_tracks(tmp_path / f"wide{suffix}", track))
    assert (speaker.width, speaker.height) == shown
    video = read(speaker).video
    assert video.shape == (5, shown[1], shown[0], 3)
    assert likeness_db(video, np.stack([scene(index, shown) for index in range(5)])) > 30
    as_stored = speaker.with_pixels(square=False)
    assert (as_stored.width, as_stored.height) == stored
    assert likeness_db(read(as_stored).video, np.stack(pictures)) > 30


def test_pictures_of_another_size_are_fitted_whole_into_the_first(tmp_path: Path) -> None:
    parts = [write_tracks(tmp_path / f"{width}.ts", PictureTrack([scene(0, (width, 96))] * 10)) for width in (96, 48)]
    path = tmp_path / "parts.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video = read(open_speaker(path)).video
    narrow = read(open_speaker(parts[1])).video
    assert video.shape == (20, 96, 96, 3)
    np.testing.assert_array_equal(video[10:], [fit_picture(picture, (96, 96)) for picture in narrow])
    assert video[12, :, :24].max() == video[12, :, 72:].max() == 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_part_of_another_size_with_pixels_of_its_own_keeps_its_shape(tmp_path: Path, order: int) -> None:
    squeezed = cv2.resize(scene(0), (48, 96), interpolation=cv2.INTER_AREA)
    wide = PictureTrack([squeezed] * 10, facts={"sample_aspect_ratio": Fraction(2)})
    tracks = [PictureTrack([scene(0)] * 10), wide][::order]
    parts = [write_tracks(tmp_path / f"{index}.ts", track) for index, track in enumerate(tracks)]
    path = tmp_path / "parts.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video = read(open_speaker(path)).video
    assert video.shape == (20, 96, 96, 3)
    assert likeness_db(video, np.stack([scene(0)] * 20)) > 28


def combing(video: npt.NDArray[Any]) -> float:
    """How much neighbouring lines differ, in levels."""
    light = video.astype(np.float32).mean(axis=-1)
    return float(np.abs(2 * light[:, 1:-1] - light[:, :-2] - light[:, 2:]).mean())


def moving_bar(moment: int) -> UInt8Array:
    picture = np.full((96, 96, 3), 60, np.uint8)
    picture[:, 10 + 3 * moment : 30 + 3 * moment] = 200
    return picture


def test_interlaced_pictures_are_made_whole_as_ffmpeg_does(tmp_path: Path) -> None:
    woven = []
    for index in range(10):
        woven.append(moving_bar(2 * index))
        woven[-1][1::2] = moving_bar(2 * index + 1)[1::2]
    options = {"flags": "+ilme+ildct", "qscale": "1", "bf": "0"}
    track = PictureTrack(woven, codec="mpeg2video", options=options, facts={"bit_rate": 8_000_000})
    path = write_tracks(tmp_path / "fields.mpg", track)
    video = read(open_speaker(path)).video
    with av.open(str(path)) as container:
        graph = Graph()
        nodes = [graph.add_buffer(template=container.streams.video[0]), graph.add("yadif"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        decoded = list(container.decode(video=0))
    stored = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    made = []
    for frame in [*decoded, None]:
        graph.push(frame)
        while True:
            try:
                made.append(graph.vpull().to_ndarray(format="rgb24"))
            except (AvBlockingIOError, AvEOFError):
                break
    assert len(video) == len(made) == 10
    assert combing(video) < combing(np.stack(made)) + 0.01 * combing(stored)
    moments = [np.stack([moving_bar(2 * index + field) for index in range(10)]) for field in (0, 1)]
    assert max(likeness_db(video, moment) for moment in moments) > 28
    assert max(likeness_db(stored, moment) for moment in moments) < 22


def test_whole_pictures_are_not_touched_for_fields(tmp_path: Path) -> None:
    """A picture of stripes, which a deinterlacer would blur, from a coder that was not told of fields."""
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[::2] = grey_level(20)
    path = write_tracks(tmp_path / "whole.mkv", PictureTrack([stripes] * 5, codec="ffv1", pix_fmt="bgr0"))
    np.testing.assert_array_equal(read(open_speaker(path)).video, [stripes] * 5)
