"""Files of a listener say what they are, to programs; files of a camera do not."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image
from support.media.frames import frame

from pflx.runtime import StreamSink
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.media.mark import SOURCE_TYPE, xmp_packet
from pflx.runtime.media.sinks import VideoFileSink
from pflx.runtime.media.video_writer import VideoWriter

EDITED_BY_AI = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


def boxes(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the boxes of an MP4, one after the other. Source: ISO/IEC 14496-12, section 4.2."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + size]
        at += size
    assert at == len(data)


def source_type(packet: bytes) -> str:
    """The IPTC property of an XMP packet."""
    found = ElementTree.fromstring(packet).iter("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    (element,) = found
    return element.text or ""


def comment(path: Path) -> str:
    with av.open(str(path)) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    return tags.get("comment", "")


def written(path: Path, *, generated: bool) -> list[UInt8Array]:
    """Pictures of a file, decoded."""
    pictures = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
    with VideoWriter(path, (64, 48), generated=generated, threads=1) as writer:
        writer.write(pictures)
    with av.open(str(path)) as container:
        return [np.asarray(picture.to_ndarray(format="rgb24"), np.uint8) for picture in container.decode(video=0)]


def test_the_word_is_one_of_iptcs() -> None:
    assert SOURCE_TYPE == source_type(xmp_packet()) == EDITED_BY_AI


def test_a_file_of_a_listener_says_so_twice_and_shows_the_same(tmp_path: Path) -> None:
    marked, plain = (written(tmp_path / f"{mark}.mp4", generated=mark) for mark in (True, False))
    np.testing.assert_array_equal(marked, plain)
    assert EDITED_BY_AI in comment(tmp_path / "True.mp4")
    kind, content = [*boxes(tmp_path / "True.mp4")][-1]
    assert (kind, content[:16].hex()) == (b"uuid", "be7acfcb97a942e89c71999491e3afac")
    assert source_type(content[16:]) == EDITED_BY_AI


def test_a_file_of_anything_else_does_not(tmp_path: Path) -> None:
    written(tmp_path / "crop.mp4", generated=False)
    assert comment(tmp_path / "crop.mp4") == ""
    assert b"uuid" not in [kind for kind, _ in boxes(tmp_path / "crop.mp4")]


def test_what_a_session_writes_says_so(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "session.mp4")
    for number in range(3):
        sink.show(frame(number))
    sink.close(None)
    assert EDITED_BY_AI in comment(tmp_path / "session.mp4")
    assert [kind for kind, _ in boxes(tmp_path / "session.mp4")][-1] == b"uuid"


@pytest.mark.parametrize("suffix", ["flv", "mkv"])
def test_a_stream_says_so_where_its_format_can(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"stream.{suffix}"
    sink = StreamSink(str(path))
    for number in range(3):
        sink.show(frame(number))
    sink.close(None)
    assert EDITED_BY_AI in comment(path)


def test_pictures_say_so_too(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    picture.save(tmp_path / "still.webp", xmp=xmp_packet())
    assert source_type(Image.open(tmp_path / "still.webp").info["xmp"]) == EDITED_BY_AI
