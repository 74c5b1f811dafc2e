"""Picture files of every kind that people have: what is seen in them, and what is said of those that are not read."""

from __future__ import annotations

import logging
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features
from support.places import MEDIA
from support.rendering.icc import ADOBE_RGB, DISPLAY_P3, SRGB, encoded, grey_profile, in_space, rgb_profile

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.rendering.picture_file import MOST_PIXELS, PortraitError, read_picture
from pflx.runtime.rendering.portrait import load_portrait

PORTRAIT = MEDIA / "portrait_astronaut_256.png"
ORIGINAL = np.asarray(Image.open(PORTRAIT).convert("RGB"))
_GREY = ORIGINAL.mean(axis=2, keepdims=True)
VIVID = np.clip(_GREY + 2.5 * (ORIGINAL - _GREY), 0, 255).astype(np.uint8)
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}
LOSSY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def packed(picture: Image.Image | UInt8Array, kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(content, kind, **options)
    return content.getvalue()


def read(content: bytes, **options: Any) -> UInt8Array:
    picture = read_picture(content, **options)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def mean_error(found: UInt8Array, expected: UInt8Array = ORIGINAL) -> float:
    return float(np.abs(found.astype(float) - expected).mean())


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY, "BMP", "PPM", "GIF"])
def test_every_format_shows_the_picture(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = packed(ORIGINAL, kind, **{**LOSSLESS, **LOSSY}.get(kind, {}))
    assert mean_error(read(content)) <= {"JPEG": 1.0, "AVIF": 2.0, "GIF": 8.0}.get(kind, 0.0)
    (tmp_path / "named.otherwise").write_bytes(content)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "named.otherwise")), read(content))


@pytest.mark.parametrize(("space", "gamma"), [(DISPLAY_P3, None), (ADOBE_RGB, 2.19921875), (SRGB, 1.8)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_the_colours_of_a_profile_are_those_of_the_srgb_original(space: Any, gamma: float | None, kind: str) -> None:
    numbers = in_space(VIVID, space, gamma)
    assert mean_error(numbers, VIVID) > 4  # what would be shown without a look at the profile
    content = packed(numbers, kind, icc_profile=rgb_profile(space, gamma), **{**LOSSLESS, **LOSSY}[kind])
    assert mean_error(read(content), VIVID) <= 1.0


def test_a_profile_that_is_srgb_leaves_every_level_as_it_is() -> None:
    np.testing.assert_array_equal(read(packed(ORIGINAL, "PNG", icc_profile=rgb_profile(SRGB))), ORIGINAL)


def test_a_grey_picture_has_a_profile_too() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(16, 0).repeat(16, 1)
    light = (grey / 255) ** 1.0
    shown = read(packed(grey, "PNG", icc_profile=grey_profile(1.0)))
    assert mean_error(shown, encoded(light)[..., None].repeat(3, 2)) <= 1.0


def test_a_profile_and_transparency_go_together() -> None:
    layered = np.dstack([in_space(ORIGINAL, DISPLAY_P3), np.full(ORIGINAL.shape[:2], 255, np.uint8)])
    layered[:64, :, 3] = 0
    shown = read(packed(layered, "PNG", icc_profile=rgb_profile(DISPLAY_P3)))
    assert (shown[:64] == 255).all()
    assert mean_error(shown[64:], ORIGINAL[64:]) <= 1.0


@pytest.mark.parametrize("profile", [b"no profile", rgb_profile(SRGB)[:150], grey_profile(2.2)[:-8]])
def test_a_profile_that_cannot_be_read_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, profile: bytes
) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(packed(ORIGINAL, "PNG", icc_profile=profile))
    for _ in range(2):
        np.testing.assert_array_equal(np.asarray(read_picture(path)), ORIGINAL)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: its colour profile cannot be read. Its colours are taken for sRGB."
    ]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_camera_s_orientation_is_applied(kind: str, turn: int) -> None:
    flip = turn in (2, 4, 5, 7)
    quarters = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}[turn]
    stored = np.rot90(ORIGINAL[:, ::-1] if flip else ORIGINAL, quarters)
    exif = Image.Exif()
    exif[0x0112] = turn
    content = packed(np.ascontiguousarray(stored), kind, exif=exif, **{**LOSSLESS, **LOSSY}[kind])
    assert mean_error(read(content)) <= 2.0


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\xff\0\0"])
def test_damaged_notes_of_a_camera_do_not_spoil_the_picture(exif: bytes) -> None:
    content = packed(ORIGINAL, "JPEG", quality=100, subsampling=0, exif=exif)
    assert mean_error(read(content)) <= 1.0


def test_sixteen_bits_are_rounded() -> None:
    deep = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(np.arange(65_536) / 257).reshape(256, 256)
    shown = read(packed(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(shown, expected[..., None].repeat(3, 2))


@pytest.mark.parametrize("value", [-1, 65_536])
def test_numbers_beyond_sixteen_bits_are_refused(value: int) -> None:
    content = packed(Image.fromarray(np.full((64, 64), value, np.int32)), "TIFF")
    with pytest.raises(PortraitError, match=rf"values from {value} to {value}\. Save it in 8 or 16 bits"):
        read(content)


def test_ink_becomes_light() -> None:
    ink = np.zeros((64, 64, 4), np.uint8)
    ink[:, 32:, 0] = 255  # cyan
    for kind in ("TIFF", "JPEG"):
        shown = read(packed(Image.fromarray(ink, "CMYK"), kind))
        np.testing.assert_allclose(shown[:, 4:28].reshape(-1, 3).mean(0), (255, 255, 255), atol=3)
        np.testing.assert_allclose(shown[:, 36:60].reshape(-1, 3).mean(0), (0, 255, 255), atol=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_is_white(mode: str) -> None:
    layered = Image.new("RGBA", (64, 64), (30, 30, 30, 255))
    layered.paste((0, 0, 0, 0), (0, 0, 64, 32))
    if mode in ("L", "RGB"):  # one colour that stands for nothing
        grey = Image.fromarray(np.repeat([0, 30], 32).astype(np.uint8)[:, None].repeat(64, 1)).convert(mode)
        content = packed(grey, "PNG", transparency=0 if mode == "L" else (0, 0, 0))
    else:
        content = packed(layered.convert(mode) if mode != "P" else layered.quantize(4), "PNG")
    shown = read(content)
    assert (shown[:32] == 255).all()
    np.testing.assert_allclose(shown[32:], 30, atol=2)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_of_several_pictures_the_first_is_taken_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = tmp_path / "several"
    pictures = [Image.new("RGB", (96, 64), colour) for colour in ("red", "blue")]
    path.write_bytes(packed(pictures[0], kind, save_all=True, append_images=pictures[1:]))
    for _ in range(2):
        shown = np.asarray(read_picture(path)).reshape(-1, 3).mean(0)
        np.testing.assert_allclose(shown, (255, 0, 0), atol=8)
    assert caplog.messages == [f"{path} holds several pictures, such as an animation. The first one is taken."]


def test_a_camera_s_jpeg_with_its_preview_is_one_picture(caplog: pytest.LogCaptureFixture) -> None:
    content = packed(ORIGINAL, "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=97)
    assert mean_error(read(content)) <= 2.0
    assert not caplog.messages


def test_postscript_under_the_name_of_a_picture_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was run"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n%%EndComments\n(out) (w) file closefile\n%%EOF\n"
    for content in (packed(Image.new("RGB", (96, 96)), "EPS"), program, b"\n" + program):
        (tmp_path / "me.png").write_bytes(content)
        with pytest.raises(PortraitError, match=r"me\.png is no picture that can be read"):
            load_portrait(tmp_path / "me.png")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
VIDEO = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + b"\0" * 64
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty. Copy or download it again."),
        (b"<!DOCTYPE html><html><body>404</body></html>", "it is a web page. Download the picture itself."),
        (b"\xef\xbb\xbf\n  <HTML lang=en>", "it is a web page. Download the picture itself."),
        (POINTER, "it is a pointer of a large-file store in the place of the file. Fetch the file: git lfs pull"),
        (b"<?xml version='1.0'?><svg/>", "a drawing in SVG or other XML. Save it as JPEG, PNG or WebP"),
        (b"%PDF-1.7", "it is a PDF. Save it as JPEG"),
        (b"8BPS\0\1", "it is a Photoshop document. Save it as JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is JPEG XL. Save it as JPEG"),
        (b"\xff\x0a\xfa\x1f", "it is JPEG XL. Save it as JPEG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "it is JPEG 2000. Save it as JPEG"),
        (VIDEO, "it is a video. Give one picture of it."),
        (b"\x1aE\xdf\xa3\x9f", "it is a video. Give one picture of it."),
        (b"PK\x03\x04", "it is an archive. Save it as JPEG"),
        (b"hello", "it is of no format that is known here. Save it as JPEG, PNG or WebP, and give that."),
    ],
)
def test_what_is_no_picture_is_named_with_what_to_do(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(content)
    with pytest.raises(PortraitError) as refused:
        read_picture(path)
    assert str(refused.value).startswith(f"{path} is no picture that can be read: it is ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_heic_says_what_it_is_and_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "me.jpg").write_bytes(HEIC)
    with pytest.raises(PortraitError) as refused:
        read_picture(tmp_path / "me.jpg")
    assert str(refused.value) == (
        f"{tmp_path / 'me.jpg'} is HEIC, which takes the package pillow-heif. Install it: pip install 'pflx[heic]', "
        "or save the picture as JPEG."
    )
    with pytest.raises(PortraitError, match=r"it is HEIC\. Save it as JPEG, PNG or WebP"):
        read(HEIC, formats=("JPEG", "PNG", "WEBP"))


def test_heic_is_read_where_the_package_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6  # the package writes it as HEIC has it
    numbers, profile = np.ascontiguousarray(np.rot90(in_space(VIVID, DISPLAY_P3))), rgb_profile(DISPLAY_P3)
    content = packed(numbers, "HEIF", quality=100, chroma=444, exif=exif.tobytes(), icc_profile=profile)
    assert mean_error(read(content), VIVID) <= 1.0
    for cut in (HEIC, content[: len(content) // 2]):
        with pytest.raises(PortraitError, match="damaged or cut off"):
            read(cut)
    with pytest.raises(PortraitError, match=r"256x256 pixels, more than 0 million\. Scale it down"):
        read(content, most_pixels=1000)
    assert not caplog.messages


def test_avif_without_its_decoder_says_which_pillow_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(PortraitError, match=r"This file is AVIF, which this Pillow does not read\. Install another"):
        read(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0" * 64)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", pytest.param("AVIF", marks=needs_avif)])
def test_damage_anywhere_is_one_line_or_a_picture(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    rng, content = np.random.default_rng(0), packed(ORIGINAL[::2, ::2], kind)
    refused = []
    for trial in range(60):
        spoilt = bytearray(content[: rng.integers(1, len(content))] if trial % 2 else content)
        for place in rng.integers(0, min(len(spoilt), 300), 0 if trial % 2 else 4):
            spoilt[place] = rng.integers(0, 256)
        try:
            read(bytes(spoilt))
        except PortraitError as error:
            refused.append(str(error))
    assert len(refused) >= 10
    assert all(said.startswith("This file ") and "\n" not in said and "object at 0x" not in said for said in refused)
    assert not recwarn.list


def test_what_was_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(PORTRAIT.read_bytes()[:20_000])
    with pytest.raises(PortraitError, match=r"me\.png is damaged or cut off \(.*truncated.*\)\. Copy or download"):
        read_picture(path)


@pytest.mark.parametrize("size", [(8001, 10_000), (12_000, 12_000), (60_000, 60_000)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    header = b"BM" + b"\0" * 8 + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    header += size[0].to_bytes(4, "little") + size[1].to_bytes(4, "little") + b"\x01\0\x18\0" + b"\0" * 24
    with pytest.raises(PortraitError, match=rf"more than {MOST_PIXELS // 10**6} million( pixels)?\. Scale it down"):
        read(header + b"\0" * 100)
    assert not recwarn.list


def test_a_camera_s_raw_file_is_refused_and_its_stamp_not_taken_for_it() -> None:
    for tags in ({254: 1}, {50_706: b"\x01\x04\0\0"}):
        content = packed(ORIGINAL, "TIFF", tiffinfo=tags)
        with pytest.raises(PortraitError, match=r"a camera's raw file\. Save it as JPEG or PNG"):
            read(content)


def test_a_path_without_a_file_is_named(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "none.png", "does not exist. Check the path."),
        (tmp_path, "is a folder. Give a picture file."),
        (Path("/dev/null"), "is a device or a pipe. Give a file."),
    ):
        with pytest.raises(PortraitError) as refused:
            read_picture(path)
        assert str(refused.value) == f"{path} {said}"


def test_a_large_jpeg_is_decoded_no_larger_than_is_enough() -> None:
    large = Image.fromarray(ORIGINAL).resize((2048, 2048))
    assert read_picture(packed(large, "JPEG")).size == (2048, 2048)
    assert read_picture(packed(large, "JPEG"), enough=500).size == (512, 512)


def test_nothing_is_logged_of_a_plain_picture(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pflx"):
        read_picture(PORTRAIT)
    assert not caplog.messages
