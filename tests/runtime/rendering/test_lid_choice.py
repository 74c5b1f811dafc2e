"""Which closed lid suits a portrait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pflx.runtime.rendering.eyelids import USUAL, close_eyes, shut
from pflx.runtime.rendering.lid_choice import SHUT, TRIED, choose_lids, openings
from pflx.runtime.speaker.landmarks import FaceLandmarks

SIZE = 96
PICTURE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def face(left: float = 0.4, right: float = 0.4) -> FaceLandmarks:
    """A face whose eyes, 20 px wide, are so far open."""
    points = np.zeros((478, 3), np.float32)
    for (upper, lower), x, share in ((LEFT, 28, left), (RIGHT, 68, right)):
        u = np.linspace(-1, 1, len(upper))
        bow = np.cos(np.pi / 2 * u)
        for lid, sign in ((upper, -1), (lower, 1)):
            points[list(lid), 0], points[list(lid), 1] = x + 10 * u, 48 + sign * 10 * share * bow
    return FaceLandmarks(points, np.zeros(52, np.float32), 1.0)


LEFT = (33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)
RIGHT = (362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)


def points_of(found: FaceLandmarks) -> npt.NDArray[np.float64]:
    return np.asarray(found.points, np.float64) - [0.5, 0.5, 0.0]


class Mesh:
    """Finds what it is told to, look by look: shares of the opening at rest, or no face."""

    def __init__(self, *shares: tuple[float, float] | None) -> None:
        self._shares, self.seen = list(shares), list[npt.NDArray[np.uint8]]()

    def find(self, picture: npt.NDArray[np.uint8]) -> FaceLandmarks | None:
        self.seen.append(picture)
        found = self._shares.pop(0)
        return None if found is None else face(*(0.4 * share for share in found))


def chosen(*shares: tuple[float, float] | None) -> tuple[Sequence[int], Mesh]:
    mesh: Any = Mesh(*shares)
    return [TRIED.index(lid) for lid in choose_lids(PICTURE, face(), mesh)], mesh


def test_an_opening_is_height_by_width() -> None:
    np.testing.assert_allclose(openings(face(0.3, 0.05)), [0.3, 0.05], rtol=1e-5)


def test_the_usual_lid_stays_where_it_shuts_both_eyes_at_the_first_look() -> None:
    assert TRIED[0] == USUAL
    found, mesh = chosen((SHUT, 0.01))
    assert found == [0, 0]
    assert len(mesh.seen) == 1


def test_an_eye_that_is_shut_keeps_its_lid_while_others_are_tried_for_the_other_one() -> None:
    found, mesh = chosen((0.05, 0.3), (0.05, 0.2), (0.2, 0.1))
    assert found == [0, 2]
    for look, lids in zip(mesh.seen, ((0, 0), (0, 1), (0, 2)), strict=True):
        expected = shut(PICTURE, points_of(face()), [TRIED[lid] for lid in lids])
        np.testing.assert_array_equal(look, expected)


def test_the_lid_that_leaves_least_is_taken_where_none_shuts_an_eye() -> None:
    shares = [(0.5 - 0.01 * at, 0.3 + 0.01 * abs(at - 3)) for at in range(len(TRIED))]
    found, mesh = chosen(*shares)
    assert found == [len(TRIED) - 1, 3]
    assert len(mesh.seen) == len(TRIED)


def test_it_is_the_usual_one_where_no_face_is_found_with_closed_eyes() -> None:
    assert chosen(None)[0] == [0, 0]


@pytest.mark.parametrize("lid", TRIED)
def test_what_is_looked_at_is_the_whole_blink(lid: Any) -> None:
    points = points_of(face())
    eyes = close_eyes(PICTURE, points, (lid, USUAL))
    left, right, bare = np.moveaxis(eyes.lids.astype(np.float64), -1, 0)[..., None]
    depth = left + right - bare
    picture, closed, lashed = (each.astype(np.float64) for each in (PICTURE, eyes.closed, eyes.lashed))
    blinked = picture + depth.clip(0, 1) * (closed - picture) + (1 - np.abs(depth - 1)).clip(0) * (lashed - closed)
    assert np.abs(shut(PICTURE, points, (lid, USUAL)) - blinked).max() < 0.51
    assert np.abs(blinked - picture).max() > 20
