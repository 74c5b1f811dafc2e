from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.places import MEDIA

from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.rendering.portrait import load_portrait

PORTRAIT = MEDIA / "portrait_astronaut_256.png"


def test_a_portrait_of_the_right_size_is_unchanged() -> None:
    np.testing.assert_array_equal(load_portrait(PORTRAIT), np.asarray(Image.open(PORTRAIT)))


def test_224_is_the_middle_of_256() -> None:
    np.testing.assert_array_equal(load_portrait(PORTRAIT, 224), load_portrait(PORTRAIT)[16:240, 16:240])


def test_an_oblong_picture_is_scaled_by_its_shorter_side_and_cut(tmp_path: Path) -> None:
    wide = np.zeros((128, 400, 3), np.uint8)
    wide[:, 136:264] = 200
    portrait = load_portrait(wide)
    assert portrait.shape == (256, 256, 3)
    assert portrait.dtype == np.uint8
    np.testing.assert_array_equal(portrait[:, 4:-4], 200)


def test_the_camera_s_orientation_is_applied(tmp_path: Path) -> None:
    upright = Image.open(PORTRAIT)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_portrait(tmp_path / "turned.png"), np.asarray(upright))


def test_transparency_is_laid_on_white() -> None:
    layered = np.zeros((256, 256, 4), np.uint8)
    layered[:128, :, 3] = 255
    portrait = load_portrait(layered)
    assert not portrait[:128].any()
    assert (portrait[128:] == 255).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    if mode == "I;16":
        Image.fromarray(np.asarray(Image.open(PORTRAIT).convert("L")).astype(np.uint16) * 257).save(path)
    else:
        Image.open(PORTRAIT).convert(mode).save(path)
    portrait = load_portrait(path)
    assert portrait.shape == (256, 256, 3)
    tolerance = 40 if mode == "1" else 2
    assert abs(portrait.mean() - np.asarray(Image.open(PORTRAIT).convert("L")).mean()) < tolerance + 8


def test_sixteen_bits_are_rounded_to_eight() -> None:
    deep = np.full((256, 256, 3), 65_535, np.uint16)
    deep[:128] = 128
    portrait = load_portrait(deep)
    assert (portrait[128:] == 255).all()
    assert not portrait[:128].any()


@pytest.mark.parametrize("size", [(64, 200_000), (200_000, 64)])
def test_of_a_strip_the_middle_is_scaled_and_no_more(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    resize, asked = Image.Image.resize, []

    def noted(self: Image.Image, wanted: tuple[int, int], *rest: object) -> Image.Image:
        asked.append(wanted)
        return resize(self, wanted, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", noted)
    strip = np.zeros((size[1], size[0], 3), np.uint8)
    strip[size[1] // 2 - 32 : size[1] // 2 + 32, size[0] // 2 - 32 : size[0] // 2 + 32] = 200
    portrait = load_portrait(strip)
    assert portrait.shape == (256, 256, 3)
    np.testing.assert_array_equal(portrait[8:-8, 8:-8], 200)
    assert sorted(asked[0]) == [256, 8 * 256]


def test_what_is_no_portrait_gives_one_clear_line(tmp_path: Path) -> None:
    text, damaged = tmp_path / "text.png", tmp_path / "damaged.png"
    text.write_text("not a picture")
    damaged.write_bytes(PORTRAIT.read_bytes()[:20_000])
    for path in (text, damaged, tmp_path / "none.png", tmp_path):
        with pytest.raises(PortraitError) as caught:
            load_portrait(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((63, 500, 3), np.uint8), "500x63"),
        (np.zeros((256, 256, 3), np.float32), "float32"),
        (np.zeros((256, 256, 2), np.uint8), r"\[256, 256, 2\]"),
        (np.zeros((1, 256, 256, 3), np.uint8), r"\[1, 256, 256, 3\]"),
    ],
)
def test_an_array_that_is_no_portrait_is_named(array: np.ndarray, reason: str) -> None:
    with pytest.raises(PortraitError, match=reason):
        load_portrait(array)
