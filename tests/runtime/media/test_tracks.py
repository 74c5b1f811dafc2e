"""Which of a file's streams is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from av.stream import Disposition
from support.media.clips import PictureTrack, SoundTrack, click_train, greys, read, shown, write_tracks

from pflx.runtime.media.clip import open_speaker

NONE, DEFAULT, COVER = Disposition(0), Disposition.default, Disposition.attached_pic
SILENCE = np.zeros((1, 32_000), np.float32)


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("flags", [(NONE, DEFAULT), (DEFAULT, NONE), (DEFAULT, DEFAULT)])
def test_silence_is_passed_over_for_the_sound_after_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, flags: tuple[Disposition, Disposition]
) -> None:
    path = tmp_path / "two.mkv"
    write_tracks(
        path,
        PictureTrack(greys(50)),
        SoundTrack(SILENCE, disposition=flags[0]),
        SoundTrack(click_train(2.0, 16_000), disposition=flags[1]),
    )
    assert np.abs(read(open_speaker(path)).audio).max() > 0.5
    reason = "not the default" if flags[0] == NONE else "silent"
    assert notes(caplog) == [f"{path}: the sound of stream 2 is taken; stream 1 is {reason}."]


@pytest.mark.parametrize("flags", [(NONE, DEFAULT), (DEFAULT, NONE)])
def test_slides_are_passed_over_for_the_video_after_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, flags: tuple[Disposition, Disposition]
) -> None:
    path = tmp_path / "two.mkv"
    write_tracks(
        path,
        PictureTrack(greys(3, (32, 32)), rate=1, disposition=flags[0]),
        PictureTrack(greys(50), disposition=flags[1]),
    )
    speaker = open_speaker(path)
    assert (speaker.width, speaker.height, speaker.source_fps) == (64, 48, 25)
    assert shown(read(speaker).video)[:24] == list(range(24))
    (note,) = notes(caplog)
    assert note.startswith(f"{path}: the video of stream 1 is taken; stream 0 ")


def test_a_cover_picture_is_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cover.mp4"
    write_tracks(
        path,
        PictureTrack(greys(1, (32, 32)), codec="mjpeg", pix_fmt="yuvj420p", disposition=COVER),
        PictureTrack(greys(50)),
    )
    assert shown(read(open_speaker(path)).video)[:24] == list(range(24))
    assert notes(caplog) == [f"{path}: the video of stream 1 is taken; stream 0 is a cover picture."]


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_codec_that_is_not_known_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path = tmp_path / "unknown.mp4"
    moving, heard = PictureTrack(greys(50), disposition=DEFAULT), SoundTrack(click_train(2.0, 16_000))
    if kind == "video":
        write_tracks(path, PictureTrack(greys(50, (32, 32)), codec="mpeg4", disposition=NONE), moving, heard)
    else:
        other = SoundTrack(click_train(2.0, 16_000), disposition=DEFAULT)
        write_tracks(path, moving, replace(other, disposition=NONE), other)
    data, tag = path.read_bytes(), b"mp4v" if kind == "video" else b"mp4a"
    at = data.index(tag, data.index(b"stsd"))
    path.write_bytes(data[:at] + b"zzz9" + data[at + 4 :])
    speaker = open_speaker(path)
    whole = read(speaker)
    assert shown(whole.video)[:24] == list(range(24))
    assert np.abs(whole.audio).max() > 0.5
    assert len(notes(caplog)) == 1


def test_the_default_is_taken_where_both_have_something(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    write_tracks(
        path,
        PictureTrack(greys(50, (32, 32)), disposition=NONE),
        PictureTrack(greys(50), disposition=DEFAULT),
        SoundTrack(0.1 * click_train(2.0, 16_000), disposition=NONE),
        SoundTrack(click_train(2.0, 16_000), disposition=DEFAULT),
    )
    speaker = open_speaker(path)
    assert (speaker.width, speaker.height) == (64, 48)
    assert np.abs(read(speaker).audio).max() > 0.5


def test_the_first_is_taken_without_a_word_where_it_is_the_default(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "two.mkv"
    write_tracks(
        path,
        PictureTrack(greys(50), disposition=DEFAULT),
        PictureTrack(greys(50, (32, 32)), disposition=NONE),
        SoundTrack(click_train(2.0, 16_000), disposition=DEFAULT),
        SoundTrack(SILENCE, disposition=NONE),
    )
    assert open_speaker(path).width == 64
    assert not notes(caplog)


def test_sound_that_cannot_be_decoded_is_silence_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "unheard.mp4"
    write_tracks(path, PictureTrack(greys(50)), SoundTrack(click_train(2.0, 16_000)))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"mp4a", b"zzz9"))
    speaker = open_speaker(path)
    assert not speaker.has_audio
    assert not read(speaker).audio.any()
    assert notes(caplog) == [f"{path}: its sound (zzz9) cannot be decoded, and is taken as silence."]
