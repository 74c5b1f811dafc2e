"""Pictures that are painted on a CPU are those of the whole graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.places import MEDIA

from pflx.engines import Array
from pflx.runtime import Listener
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.rendering import renderers
from pflx.runtime.rendering.painter import looks_up_exactly
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

PORTRAITS = (MEDIA / "portrait_astronaut_256.png", MEDIA / "portraits" / "hopper.jpg")
SIZES = (64, 256, 300)

needs_exact = pytest.mark.skipif(not looks_up_exactly(), reason="this OpenCV looks up 32nds of a pixel")


@pytest.fixture(scope="module")
def both() -> Mapping[Any, tuple[Listener, Listener]]:
    """Portrait and size → a listener whose pictures are painted, and one whose pictures the graph makes."""
    opened = {}
    with pytest.MonkeyPatch.context() as patch:
        for portrait in PORTRAITS:
            for size in SIZES:
                pair = []
                for paints in (True, False):
                    patch.setattr(renderers, "looks_up_exactly", lambda paints=paints: paints)
                    pair.append(Listener.open(portrait=portrait, size=size))
                opened[portrait, size] = (pair[0], pair[1])
    return opened


def rendered(listener: Listener, track: Array) -> Array:
    return np.array(listener.chain.renderer.render(track, 1, listener.chain.portraits[0]))


moved = st.builds(
    lambda seed, some, amount: (seed, some, amount), st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 0.5)
)


@needs_exact
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda path: path.stem)
@given(motion=moved)
@settings(max_examples=15, deadline=None)
def test_they_are_at_most_one_level_apart(
    both: Mapping[Any, tuple[Listener, Listener]], portrait: Any, size: int, motion: tuple[int, float, float]
) -> None:
    seed, some, amount = motion
    rng = np.random.default_rng(seed)
    track = np.asarray(rng.standard_normal((27, 58)) * amount, np.float32)
    track[:, :52] = rng.uniform(0, 1, (27, 52)) * (rng.uniform(0, 1, 52) < some)
    painted, whole = (rendered(listener, track) for listener in both[portrait, size])
    assert painted.shape == whole.shape == (1, size, size, 3)
    assert painted.dtype == np.uint8
    apart = np.abs(painted.astype(np.int16) - whole)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


@needs_exact
@pytest.mark.parametrize("what", ["eyeBlinkLeft", "jawOpen", "turned"])
def test_each_part_of_the_picture_is_painted(both: Mapping[Any, tuple[Listener, Listener]], what: str) -> None:
    """Lids, the inside of the mouth, and the background at the edge of the person: they differ from the rest."""
    listener, whole = both[PORTRAITS[0], 256]
    track = np.zeros((2 * WINDOW_RADIUS + 1, 58), np.float32)
    at_rest = rendered(listener, track)
    if what == "turned":
        track[:, 54] = 0.2
    else:
        track[:, ARKIT_NAMES.index(what)] = 1
    picture = rendered(listener, track)
    assert (np.abs(picture.astype(int) - at_rest) > 8).sum() > 100
    assert np.abs(picture.astype(int) - rendered(whole, track)).max() <= 1


def test_with_an_opencv_that_looks_up_by_32nds_the_graph_makes_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "__version__", "4.10.0")
    with Listener.open(portrait=PORTRAITS[0]) as listener:
        features = listener.chain.portraits[0]
        assert not isinstance(features, renderers.CanvasFeatures)
        assert rendered(listener, np.zeros((27, 58), np.float32)).shape == (1, 256, 256, 3)


@needs_exact
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_that_is_moved_is_painted_too(both: Mapping[Any, tuple[Listener, Listener]], size: int) -> None:
    pictures, rng = [], np.random.default_rng(0)
    shown, wanted = (np.asarray(rng.uniform(-0.2, 0.2, 6), np.float32) for _ in range(2))
    picture = rendered(both[PORTRAITS[1], size][0], np.zeros((27, 58), np.float32))[0]
    geometry = both[PORTRAITS[1], size][0].chain.portraits[0]["geometry"]
    for paints, listener in zip((True, False), both[PORTRAITS[1], size], strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(renderers, "looks_up_exactly", lambda paints=paints: paints)
            roles = listener.manifest.renderer.graphs
            engines = {role: listener._engines[graph] for role, graph in roles.items() if graph in listener._engines}
            pictures.append(np.array(renderers.PictureMover(engines, size).move(picture, shown, wanted, geometry)))
    painted, whole = pictures
    assert painted.shape == whole.shape == (size, size, 3)
    apart = np.abs(painted.astype(np.int16) - whole)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3
    assert (np.abs(painted.astype(np.int16) - picture) > 8).mean() > 0.05


@needs_exact
def test_of_the_two_graphs_that_make_the_same_pictures_one_is_opened(
    both: Mapping[Any, tuple[Listener, Listener]],
) -> None:
    painted, whole = (set(listener._engines) for listener in both[PORTRAITS[0], 256])
    assert painted == {"posnet", "warp_portrait", "warp_field"}
    assert whole == {"posnet", "warp_portrait", "warp_frame"}
