"""What is given for a clip and is none: the message says what it is, and what to give."""

from __future__ import annotations

import io
import logging
import os
import socket
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import PermissionError as AvPermissionError
from PIL import Image
from support.media.clips import PictureTrack, SoundTrack, click_train, greys, read, shown, write_tracks
from support.places import MEDIA

from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.decoding.file_kinds import what_it_is
from pflx.runtime.media.errors import MediaError


def refusal(path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What is said, which must be all that is said."""
    with caplog.at_level(logging.WARNING), pytest.raises(MediaError) as caught:
        open_speaker(path)
    assert not caplog.records
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    return message.removeprefix(f"{path} ")


def picture_bytes(form: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 90)).save(content, form)
    return content.getvalue()


def numbers() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, coefficients=np.zeros((10, 58), np.float32))
    return content.getvalue()


def row_of_numbers() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros((10, 58), np.float32))
    return content.getvalue()


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        opened.writestr("clips/clip.mp4", b"\0" * 100)
    return content.getvalue()


@pytest.mark.parametrize("name", ["it", "it.mp4"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (picture_bytes("PNG"), "is a picture (PNG). Give a clip of the speaker; a picture is for --portrait."),
        (picture_bytes("JPEG"), "is a picture (JPEG). Give"),
        (picture_bytes("WEBP"), "is a picture (WebP). Give"),
        (picture_bytes("BMP"), "is a picture (BMP). Give"),
        (picture_bytes("TIFF"), "is a picture (TIFF). Give"),
        (picture_bytes("AVIF"), "is a picture (HEIC or AVIF). Give"),
        (numbers(), "is a file of numbers (.npz), no clip. Give the clip that they were made of."),
        (row_of_numbers(), "is a file of numbers (.npy), no clip."),
        (archive(), "is a ZIP archive, no clip. Unpack it"),
        (b"\x1f\x8b\x08" + bytes(60), "is a compressed archive, no clip."),
        (b"%PDF-1.7\n" + b"1 0 obj\n" * 60, "is a PDF document, no clip."),
        ("Ein Text über nichts.\n".encode() * 100, "is text, no clip. Give a clip of the speaker."),
        (b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n", "is text, no clip."),
        (b"", "is empty. Record or copy it again."),
        (bytes(range(256)) * 40, "is no video that FFmpeg can read (Invalid data found when processing input)."),
    ],
)
def test_each_kind_of_file_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, kind: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path, caplog).startswith(kind)


def test_a_folder_and_a_bundle_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert refusal(tmp_path, caplog) == "is a folder. Give a video file."
    (tmp_path / "manifest.json").write_text("{}")
    assert refusal(tmp_path, caplog) == "is a bundle. Give it as the bundle, and a clip of the speaker here."
    assert refusal(tmp_path / "none.mp4", caplog) == "does not exist. Check the path."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a kind of file that this system does not have")
def test_what_can_be_read_once_only_is_refused_before_it_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        for path in (tmp_path / "pipe.mp4", tmp_path / "s", Path(os.devnull)):
            assert refusal(path, caplog) == (
                "is a pipe or a device, and a clip is read more than once. Save it to a file, and give that."
            )


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_film_without_its_index_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: float) -> None:
    whole = write_tracks(tmp_path / "whole.mp4", PictureTrack(greys(50)))
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: round(data.index(b"moov") * kept)])
    assert refusal(cut, caplog).startswith("has no index (no moov box): it was cut off, or its recording was never")
    assert what_it_is(whole) is None


@pytest.mark.parametrize(("name", "codec", "tag"), [("c.mp4", "libx264", b"avc1"), ("c.avi", "mjpeg", b"MJPG")])
def test_a_codec_that_is_not_known_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str, tag: bytes
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    sound = SoundTrack(click_train(2.0, 16_000), codec="aac" if name == "c.mp4" else "pcm_s16le")
    path = write_tracks(tmp_path / name, PictureTrack(greys(50), codec=codec, pix_fmt=pix_fmt), sound)
    path.write_bytes(path.read_bytes().replace(tag, b"Zzz9"))
    assert refusal(path, caplog) == (
        "holds pictures of a codec that is not known (Zzz9). "
        "Convert it to H.264 in an MP4 with the program that made it."
    )


def test_a_clip_that_may_not_be_read_is_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AvPermissionError(13, "Permission denied")

    path = tmp_path / "mine.mp4"
    path.write_bytes((MEDIA / "webcam_cap12_12s.mp4").read_bytes())
    monkeypatch.setattr(av, "open", refuse)
    assert refusal(path, caplog) == "cannot be read (Permission denied). Check its permissions."


@pytest.mark.parametrize("suffix", [".gif", ".mjpeg", ".apng"])
def test_moving_pictures_in_the_form_of_pictures_are_clips(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(picture) for picture in greys(10)]
    path = tmp_path / f"moving{suffix}"
    if suffix == ".mjpeg":
        write_tracks(path, PictureTrack(greys(10), codec="mjpeg", pix_fmt="yuvj420p"))
    else:
        form = "GIF" if suffix == ".gif" else "PNG"
        frames[0].save(path, form, save_all=True, append_images=frames[1:], duration=40, loop=0)
    assert shown(read(open_speaker(path)).video) == list(range(10))


def test_sound_alone_is_a_speaker_whom_nobody_sees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tracks(tmp_path / "voice.m4a", SoundTrack(click_train(2.0, 16_000)))
    speaker = open_speaker(path)
    assert (speaker.has_pictures, speaker.has_audio, speaker.source_fps) == (False, True, None)
    assert not caplog.records  # a listener says so, if it can do with that
    whole = read(speaker)
    assert speaker.frames is not None
    assert abs(len(whole.video) - 50) <= 3  # what AAC adds
    assert abs(len(whole.video) - speaker.frames) <= 2
    assert not whole.video.any()
    assert np.abs(whole.audio).max() > 0.5
    assert len(read(speaker.limited(0.4)).video) == 10


def test_subtitles_are_neither_pictures_nor_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "words.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:02,000\nHello\n")
    assert refusal(path, caplog).startswith("is text, no clip.")
