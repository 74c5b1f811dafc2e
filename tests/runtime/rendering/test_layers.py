"""A portrait in layers: who is in front, what is behind, and eyes that close."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import plain_warp
from support.places import MEDIA

from pflx.runtime.rendering.eyelids import LIDS
from pflx.runtime.rendering.layers import Layers, make_layers, one_layer
from pflx.runtime.rendering.lid_choice import openings
from pflx.runtime.rendering.silhouette import Silhouette
from pflx.runtime.rendering.warp import cut_portrait, find_geometry, geometry_part
from pflx.runtime.speaker.landmarks import ARKIT_NAMES, FaceMesh

PORTRAITS = [MEDIA / "portrait_astronaut_256.png", *sorted((MEDIA / "portraits").glob("*.[jp][pn]g"))]
SIZE = 256
CLOSED = 0.15
"""Opening of eyes that are closed, of that of open ones, by the face mesh. In eyes that blink in films it finds 0.06 to
0.4."""
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
"""Landmarks of MediaPipe's face mesh along both brows."""


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


@pytest.fixture(scope="module", params=PORTRAITS, ids=lambda path: path.stem)
def portrait(request: pytest.FixtureRequest, mesh: FaceMesh) -> tuple[Layers, npt.NDArray[np.float32], Path]:
    picture, face = cut_portrait(request.param, SIZE, mesh)
    geometry = find_geometry(picture, face)
    return make_layers(picture, face, geometry, Silhouette(), mesh), geometry, request.param


def blinking(share: float) -> npt.NDArray[np.float32]:
    row = np.zeros(58, np.float32)
    row[[ARKIT_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right")]] = share
    return row


def blinked(layers: Layers, share: float) -> npt.NDArray[np.uint8]:
    lids: Any = plain_warp.with_lids(layers, blinking(share))
    return np.asarray((lids + 0.5).clip(0, 255), np.uint8)


def opened(picture: npt.NDArray[np.uint8], mesh: FaceMesh) -> npt.NDArray[np.float64]:
    """How far both eyes are open."""
    face = mesh.find(picture)
    assert face is not None
    return openings(face)


def test_a_full_blink_closes_the_eyes_of_any_portrait(portrait: Any, mesh: FaceMesh) -> None:
    layers, _, path = portrait
    rest, half, full = (opened(blinked(layers, share), mesh) for share in (0, 0.5, 1))
    assert (full / rest).max() <= CLOSED, path.stem
    assert (half / rest).min() > 1.5 * CLOSED, path.stem
    assert (full < half).all()
    assert (half < rest).all()


def test_half_a_blink_covers_the_upper_half_of_the_opening_and_leaves_the_lower_one_as_it_is(portrait: Any) -> None:
    layers, geometry, _ = portrait
    half = blinked(layers, 0.5).astype(int)
    for eye in range(len(LIDS)):
        x, y = (round(float(geometry_part(geometry, f"eye_{axis}")[eye])) for axis in "xy")
        upper, lower = (float(geometry_part(geometry, f"eye_{lid}")[eye]) for lid in ("upper", "lower"))
        column, height = slice(round(y + upper), round(y + lower) + 1), lower - upper
        if height < 6:
            continue
        kept = (half[column, x] == layers.portrait[column, x]).all(axis=-1)
        covered = (np.abs(half[column, x] - layers.closed[column, x]).max(axis=-1) <= 90) & ~kept
        assert kept[-max(2, int(0.3 * height)) :].all()
        assert covered[: max(2, int(0.2 * height))].all()


def test_a_blink_changes_nothing_but_the_eyes(portrait: Any) -> None:
    layers, geometry, _ = portrait
    changed = np.abs(blinked(layers, 1).astype(int) - layers.portrait).max(axis=-1) > 0
    at, near = plain_warp.grid(SIZE, 1), np.zeros((SIZE, SIZE), bool)
    for eye in range(2):
        middle = [geometry_part(geometry, f"eye_{axis}")[eye] for axis in "xy"]
        near |= np.linalg.norm(at - middle, axis=-1) < 1.75 * geometry_part(geometry, "eye_half")[eye]
    assert changed.any()
    assert not changed[~near].any()


def test_brows_and_rims_of_glasses_stay_where_they_are(portrait: Any, mesh: FaceMesh) -> None:
    layers, geometry, path = portrait
    changed = np.abs(blinked(layers, 1).astype(int) - layers.portrait).mean(axis=-1)
    face = mesh.find(layers.portrait)
    assert face is not None
    for x, y in np.round(face.points[list(BROWS), :2] - 0.5).astype(int):
        assert changed[y - 1 : y + 2, x - 1 : x + 2].mean() < 6, path.stem
    if path.stem != "hopper":
        return
    for eye in range(2):
        x, y = (round(float(geometry_part(geometry, f"eye_{axis}")[eye])) for axis in "xy")
        half, upper = (float(geometry_part(geometry, f"eye_{name}")[eye]) for name in ("half", "upper"))
        column = slice(round(y + upper - 1.2 * half), round(y + upper))
        rim = layers.portrait[column, x].mean(axis=-1) < 60
        assert rim.any()
        assert changed[column, x][rim].max() < 15


def test_one_eye_closes_without_the_other(portrait: Any) -> None:
    layers, geometry, _ = portrait
    row = np.zeros(58, np.float32)
    row[ARKIT_NAMES.index("eyeBlinkLeft")] = 1  # the person's: on the picture's right
    changed = np.abs(plain_warp.with_lids(layers, row) - layers.portrait).max(axis=-1) > 4
    middle = np.mean(geometry_part(geometry, "eye_x"))
    assert changed.any()
    assert not changed[:, : int(middle) - 2].any()


def test_the_person_is_where_the_head_is_and_the_background_is_kept(portrait: Any) -> None:
    layers, geometry, _ = portrait
    person = layers.masks[..., 0]
    x, y = (round(float(at)) for at in geometry_part(geometry, "head"))
    across, along, _ = geometry_part(geometry, "radii")
    assert person[y, x] == 1
    assert (
        person[int(y - 0.7 * along) : int(y + 0.7 * along), int(x - 0.5 * across) : int(x + 0.5 * across)].min() > 0.9
    )
    assert 0.25 < person.mean() < 0.9
    beyond = person == 0
    assert beyond.mean() > 0.05
    far = np.linalg.norm(plain_warp.grid(SIZE, 1) - [x, y], axis=-1) > 2 * along
    unchanged = (layers.background == layers.portrait).all(axis=-1)
    assert unchanged[beyond & far].mean() > 0.7
    assert not (layers.background == layers.portrait).all(axis=-1)[y, x]


def test_a_person_that_fills_the_picture_is_one_layer_before_whatever(mesh: FaceMesh) -> None:
    class Everything:
        def find(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            return np.ones(picture.shape[:2], np.float32)

    picture, face = cut_portrait(PORTRAITS[0], SIZE, mesh)
    everywhere: Any = Everything()
    layers = make_layers(picture, face, find_geometry(picture, face), everywhere)
    assert (layers.masks[..., 0] == 1).all()
    np.testing.assert_array_equal(layers.background, picture)


def test_one_layer_is_the_picture_whatever_the_eyes_do() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(blinked(one_layer(picture), 1), picture)
