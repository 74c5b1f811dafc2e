from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.places import MEDIA
from support.serve.serve_client import packed

from pflx.runtime import PortraitError
from pflx.runtime.serve.uploads import MAX_BYTES, decode_portrait, encode_portrait

PORTRAIT = MEDIA / "portrait_astronaut_256.png"


def halves(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """White on the left, black on the right."""
    picture = Image.new("L", size, 0)
    picture.paste(255, (0, 0, size[0] // 2, size[1]))
    return picture.convert(mode)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of 60 bytes whose header promises so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_of_a_camera_is_decoded(kind: str) -> None:
    decoded = decode_portrait(packed(halves(), kind))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (64, 96, 3)
    assert decoded[:, :40].mean() > 240
    assert decoded[:, 56:].mean() < 15


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixels_becomes_rgb(mode: str) -> None:
    deep = Image.fromarray(np.asarray(halves("L")).astype(np.uint16) * 257)
    picture = deep if mode == "I;16" else halves(mode)
    decoded = decode_portrait(packed(picture, "JPEG" if mode == "CMYK" else "PNG"))
    assert decoded.shape == (64, 96, 3)
    assert decoded[:, :40].mean() > 240
    assert decoded[:, 56:].mean() < 15


def test_what_is_transparent_is_white() -> None:
    assert decode_portrait(packed(Image.new("RGBA", (64, 64), (9, 9, 9, 0)), "PNG")).min() == 255


def test_a_picture_is_turned_as_its_camera_was() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    decoded = decode_portrait(packed(halves(), "JPEG", exif=exif))
    assert decoded.shape == (96, 64, 3)
    assert decoded[:40].mean() > 240


def test_a_large_picture_is_scaled_down() -> None:
    assert decode_portrait(packed(halves("L", (4000, 1000)), "PNG")).shape == (256, 1024, 3)
    assert max(decode_portrait(packed(halves("L", (4000, 1000)), "JPEG")).shape) == 1024


@pytest.mark.parametrize("size", [(7681, 4320), (2**31 - 1, 2**31 - 1), (60_000, 60_000)])
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(PortraitError, match=r"more than 33 million( pixels)?\. Scale it down"):
        decode_portrait(png_that_claims(*size))


def test_a_file_with_too_many_bytes_is_refused() -> None:
    with pytest.raises(PortraitError, match="more than 12 MB"):
        decode_portrait(b"\xff" * (MAX_BYTES + 1))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "EPS", "PDF", "AVIF"])
def test_other_formats_are_never_handed_to_their_decoders(kind: str) -> None:
    with pytest.raises(PortraitError, match=r"no picture that can be read: .* Save it as JPEG, PNG or WebP"):
        decode_portrait(packed(halves(), kind))


@pytest.mark.parametrize(
    "content", [b"", b"hello", str(PORTRAIT).encode(), b"/etc/passwd", b"<svg/>", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused_and_names_no_file(content: bytes) -> None:
    with pytest.raises(PortraitError, match=r"This file is (no picture that can be read: |damaged)") as refused:
        decode_portrait(content)
    assert "/" not in str(refused.value)
    assert "object at" not in str(refused.value)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_picture_that_was_cut_off_is_refused(kept: float) -> None:
    content = PORTRAIT.read_bytes()
    with pytest.raises(PortraitError, match="This file is damaged or cut off"):
        decode_portrait(content[: int(len(content) * kept)])


def test_a_portrait_comes_back_from_what_the_page_is_sent() -> None:
    decoded = decode_portrait(PORTRAIT.read_bytes())
    np.testing.assert_array_equal(decode_portrait(encode_portrait(decoded)), decoded)


HUGE = """
import io, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from PIL import Image
from pflx.runtime.serve.uploads import decode_portrait

def held_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 10**6

file = io.BytesIO()
Image.fromarray(np.zeros((4320, 7680, 3), np.uint8)).save(file, "PNG")
decode_portrait(file.getvalue())  # what is loaded for it stays
before = held_mb()
for _ in range(4):
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(decode_portrait, [file.getvalue()] * 4)][0].shape == (576, 1024, 3)
print(held_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="how much memory is held is read from /proc")
def test_memory_comes_back_after_huge_pictures() -> None:
    held = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True).stdout
    assert int(held) < 100  # one picture of the sixteen; how much of it stays depends on where memory lies
