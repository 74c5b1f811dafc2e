"""The geometry that the weightless renderer reads from a portrait, and any portrait that it takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.places import MEDIA
from support.rendering.previews import frame_portrait

from pflx.runtime.media.clip import open_speaker
from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.rendering.warp import (
    GEOMETRY,
    GEOMETRY_SIZE,
    cut_portrait,
    find_geometry,
    geometry_part,
    square_geometry,
    typical_geometry,
)
from pflx.runtime.speaker.landmarks import FaceLandmarks, FaceMesh

Picture = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


@pytest.fixture(scope="module")
def astronaut() -> Picture:
    return np.array(Image.open(MEDIA / "portrait_astronaut_256.png").convert("RGB"))


@pytest.fixture(scope="module")
def podium() -> Picture:
    """Two men, the nearer one to the right of the middle."""
    chunk = next(iter(open_speaker(MEDIA / "podium_speech_8s.mp4").limited(1).chunks()))
    return np.array(chunk.video[0])


def landmarks(mesh: FaceMesh, portrait: Picture) -> FaceLandmarks:
    found = mesh.find(portrait)
    assert found is not None
    return found


def part(geometry: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    return geometry_part(geometry, name)


# Geometry


def test_the_parts_of_a_face_lie_where_they_are_in_the_portrait(mesh: FaceMesh, astronaut: Picture) -> None:
    geometry = find_geometry(astronaut, landmarks(mesh, astronaut))
    assert geometry.shape == (GEOMETRY_SIZE,)
    assert geometry.dtype == np.float32
    np.testing.assert_allclose(part(geometry, "eye_x"), [101, 154], atol=4)
    np.testing.assert_allclose(part(geometry, "eye_y"), [107, 111], atol=4)
    np.testing.assert_allclose(part(geometry, "mouth"), [127, 155], atol=5)
    assert (part(geometry, "eye_upper") < -2).all()
    assert (part(geometry, "eye_lower") > 1).all()
    assert (part(geometry, "brow_y") < 2 * part(geometry, "eye_upper")).all()
    assert part(geometry, "mouth_lower") > 3  # she smiles, and shows her teeth
    (x, y), (across, along, deep) = part(geometry, "head"), part(geometry, "radii")
    assert 115 < x < 140
    assert 185 < y + along < 205  # the chin
    assert y - along < 50  # hair
    assert 0.6 * along < across < along
    assert deep > 0.5 * across
    assert 0 < part(geometry, "mouth_inside").max() < 0.35


def test_every_number_is_named_once() -> None:
    named = np.concatenate([part(np.arange(GEOMETRY_SIZE, dtype=np.float32), name) for name in GEOMETRY])
    np.testing.assert_array_equal(named, np.arange(GEOMETRY_SIZE))
    assert typical_geometry(64).shape == (GEOMETRY_SIZE,)


@pytest.mark.parametrize("angle", [-25, 20])
def test_a_tilted_head_has_tilted_axes(mesh: FaceMesh, astronaut: Picture, angle: float) -> None:
    turned = cv2.warpAffine(
        astronaut, cv2.getRotationMatrix2D((128, 120), -angle, 1.0), (256, 256), borderMode=cv2.BORDER_REPLICATE
    )
    upright, tilted = (find_geometry(each, landmarks(mesh, each)) for each in (astronaut, np.asarray(turned, np.uint8)))
    for name in ("eye_axis", "mouth_axis", "turn"):
        angles = []
        for geometry in (upright, tilted):
            if name == "eye_axis":
                x, y = part(geometry, "eye_axis_x").mean(), part(geometry, "eye_axis_y").mean()
            else:
                x, y = part(geometry, name)[[0, 3 if name == "turn" else 1]]
            angles.append(np.degrees(np.arctan2(y, x)))
        assert angles[1] - angles[0] == pytest.approx(angle, abs=4)
    own = part(tilted, "turn").reshape(3, 3).astype(np.float64)
    np.testing.assert_allclose(own @ own.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(own) == pytest.approx(1, abs=1e-5)


# Any portrait


def padded(portrait: Picture, height: int, width: int, top: int, left: int) -> Picture:
    """A portrait somewhere in a larger grey picture."""
    whole = np.full((height, width, 3), 120, np.uint8)
    whole[top : top + len(portrait), left : left + len(portrait)] = portrait
    return whole


def eye_distance(geometry: npt.NDArray[np.float32]) -> float:
    return float(np.diff(part(geometry, "eye_x"))[0])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda picture: picture[..., 1], id="grey"),
        pytest.param(lambda picture: np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]), id="rgba"),
        pytest.param(lambda picture: picture.astype(np.uint16) * 257, id="16 bits"),
        pytest.param(lambda picture: cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA), id="64 px"),
        pytest.param(lambda picture: cv2.resize(picture, (1500, 1500)), id="1500 px"),
    ],
)
def test_a_portrait_of_any_kind_gives_the_same_geometry(mesh: FaceMesh, astronaut: Picture, change: Any) -> None:
    _, plain = frame_portrait(astronaut, 256, mesh)
    portrait, geometry = frame_portrait(change(astronaut), 256, mesh)
    assert portrait.shape == (256, 256, 3)
    assert portrait.dtype == np.uint8
    for name in ("eye_x", "eye_y", "mouth", "head", "radii"):
        np.testing.assert_allclose(part(geometry, name), part(plain, name), atol=8)


def test_exif_is_applied_before_the_face_is_looked_for(mesh: FaceMesh, astronaut: Picture, tmp_path: Path) -> None:
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(astronaut)))  # counter-clockwise
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    lying.save(tmp_path / "lying.png", exif=exif)
    portrait, geometry = frame_portrait(tmp_path / "lying.png", 256, mesh)
    np.testing.assert_array_equal(portrait, astronaut)
    np.testing.assert_array_equal(geometry, frame_portrait(astronaut, 256, mesh)[1])


def test_a_face_that_lies_well_is_cut_as_for_the_other_renderer(mesh: FaceMesh, astronaut: Picture) -> None:
    portrait, _ = frame_portrait(padded(astronaut, 256, 320, 0, 32), 256, mesh)
    np.testing.assert_array_equal(portrait, astronaut)


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(400, 1200, 60, 900), (900, 420, 30, 10), (1000, 1000, 700, 40)]
)
def test_a_face_that_is_small_or_off_the_centre_is_brought_into_the_picture(
    mesh: FaceMesh, astronaut: Picture, height: int, width: int, top: int, left: int
) -> None:
    _, geometry = frame_portrait(padded(astronaut, height, width, top, left), 256, mesh)
    (x, y), (across, along, _) = part(geometry, "head"), part(geometry, "radii")
    assert across < x < 256 - across
    assert 0.8 * along < y < 256 - along
    assert 2 * along > 0.4 * 256


def test_a_picture_of_8k_is_looked_at_small_and_cut_sharp(mesh: FaceMesh, astronaut: Picture) -> None:
    large = cv2.resize(astronaut, (2048, 2048), interpolation=cv2.INTER_CUBIC)
    whole = padded(np.asarray(large, np.uint8), 4320, 7680, 1200, 5000)
    portrait, geometry = frame_portrait(whole, 256, mesh)
    assert 2 * part(geometry, "radii")[1] > 0.4 * 256
    assert cv2.Laplacian(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY), cv2.CV_64F).std() > 5


def test_of_several_faces_the_largest_is_taken(mesh: FaceMesh, podium: Picture) -> None:
    whole = landmarks(mesh, podium)
    portrait, geometry = frame_portrait(podium, 256, mesh)
    assert whole.points[:, 0].mean() > 180  # the nearer man
    scale = 256 / (2 * 240 * 0.5)
    assert eye_distance(geometry) > 0.8 * scale * np.linalg.norm(whole.points[133, :2] - whole.points[362, :2])
    assert landmarks(mesh, portrait).points[:, 0].mean() == pytest.approx(128, abs=25)


@pytest.mark.parametrize("find", [frame_portrait, lambda picture, size, mesh: square_geometry(picture, mesh)])
def test_a_portrait_without_a_face_says_what_to_do(mesh: FaceMesh, find: Any) -> None:
    with pytest.raises(PortraitError, match=r"No face was found in the portrait\. Take a picture"):
        find(np.full((256, 256, 3), 90, np.uint8), 256, mesh)


@pytest.mark.parametrize(("shown", "size", "told"), [(200, 256, True), (400, 256, False), (400, 512, True)])
def test_a_portrait_is_not_enlarged_without_saying_so(
    mesh: FaceMesh, astronaut: Picture, caplog: pytest.LogCaptureFixture, shown: int, size: int, told: bool
) -> None:
    cut_portrait(np.asarray(cv2.resize(astronaut, (shown, shown)), np.uint8), size, mesh)
    assert (f"{shown} px, which are enlarged to {size}" in caplog.text) == told
    assert ("enlarged" in caplog.text) == told


def test_a_small_face_in_a_large_picture_is_not_enlarged_without_saying_so(
    mesh: FaceMesh, astronaut: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    small = np.asarray(cv2.resize(astronaut, (160, 160), interpolation=cv2.INTER_AREA), np.uint8)
    portrait, _ = cut_portrait(padded(small, 480, 480, 200, 240), 256, mesh)
    assert portrait.shape == (256, 256, 3)
    told = re.search(r"the head on (\d+) px, which are enlarged to 256", caplog.text)
    assert told is not None
    assert 120 < int(told[1]) < 256
