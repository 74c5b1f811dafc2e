"""Which of a file's streams is read."""

from __future__ import annotations

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


def with_tags_first(path: Path) -> None:
    """Store the tags of an MP4, with the cover among them, before its tracks: the cover is stream 0 then."""
    data = path.read_bytes()
    start = data.rindex(b"moov") - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    boxes, at = [], start + 8
    while at < end:
        size = int.from_bytes(data[at : at + 4], "big")
        boxes.append(data[at : at + size])
        at += size
    boxes.sort(key=lambda box: box[4:8] != b"udta")
    path.write_bytes(data[: start + 8] + b"".join(boxes) + data[end:])


def test_a_cover_picture_is_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cover = PictureTrack(greys(1, (32, 32)), codec="mjpeg", pix_fmt="yuvj420p", disposition=COVER)
    path = write_tracks(tmp_path / "cover.mp4", cover, PictureTrack(greys(50)))
    with_tags_first(path)
    assert shown(read(open_speaker(path)).video)[:24] == list(range(24))
    assert notes(caplog) == [f"{path}: the video of stream 1 is taken; stream 0 is a cover picture."]


def test_a_cover_does_not_make_a_picture_of_the_speaker(tmp_path: Path) -> None:
    cover = PictureTrack(greys(1, (32, 32)), codec="mjpeg", pix_fmt="yuvj420p", disposition=COVER)
    path = write_tracks(tmp_path / "song.mp4", cover, SoundTrack(click_train(2.0, 16_000)))
    speaker = open_speaker(path)
    assert (speaker.has_pictures, speaker.has_audio) == (False, True)


@pytest.mark.parametrize(
    ("kind", "codec", "unknown"), [("video", b"V_MPEG4/ISO/ASP", b"V_"), ("audio", b"A_AAC", b"A_")]
)
def test_a_codec_that_is_not_known_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, codec: bytes, unknown: bytes
) -> None:
    moving, heard = PictureTrack(greys(50), disposition=DEFAULT), SoundTrack(click_train(2.0, 16_000))
    first: list[PictureTrack | SoundTrack] = [PictureTrack(greys(50, (32, 32)), codec="mpeg4", disposition=NONE)]
    if kind == "audio":
        first = [SoundTrack(SILENCE, disposition=DEFAULT)]
    path = write_tracks(tmp_path / "unknown.mkv", *first, moving, heard)
    path.write_bytes(path.read_bytes().replace(codec, unknown.ljust(len(codec), b"Z"), 1))
    speaker = open_speaker(path)
    whole = read(speaker)
    assert shown(whole.video)[:24] == list(range(24))
    assert np.abs(whole.audio).max() > 0.5
    (note,) = notes(caplog)
    assert "stream 0 " in note


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


@pytest.mark.parametrize("count", [1, 2])
def test_sound_that_cannot_be_decoded_is_silence_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    sounds = [SoundTrack(click_train(2.0, 16_000))] * count
    path = write_tracks(tmp_path / "unheard.mkv", PictureTrack(greys(50)), *sounds)
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_ZZZ"))
    speaker = open_speaker(path)
    assert not speaker.has_audio
    assert not read(speaker).audio.any()
    assert notes(caplog) == [f"{path}: its sound (A_ZZZ) cannot be decoded, and is taken as silence."]
