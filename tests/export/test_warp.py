"""The graphs of the weightless renderer: what they compute, and that nothing makes garbage of a portrait."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import plain_warp
from support.places import MEDIA, ROOT
from support.rendering.previews import frame_portrait

from pflx.engines import OrtEngine
from pflx.engines.building.build import build_engine, profile_for
from pflx.export.graphs import GraphFolder
from pflx.export.models.warp import WarpField, WarpFrame, WarpPortrait
from pflx.export.models.warp_moves import EYE_MOVES, LIP_MOVES, MOUTH_MOVES
from pflx.export.operators import check_operators
from pflx.export.recipes import warp_recipes
from pflx.runtime.bundle_engines import CALL_SIZES
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.rendering.layers import Layers, make_layers, one_layer
from pflx.runtime.rendering.renderers import PictureMover
from pflx.runtime.rendering.silhouette import Silhouette
from pflx.runtime.rendering.warp import (
    cut_portrait,
    find_geometry,
    geometry_part,
    typical_geometry,
)
from pflx.runtime.speaker.landmarks import ARKIT_NAMES, FaceMesh

SIZE = 256
SIDES = ("Left", "Right")


def row(pitch: float = 0, yaw: float = 0, roll: float = 0, **weights: float) -> npt.NDArray[np.float32]:
    """float32 [58]: angles in degrees, and expressions; `eyeBlink` is of both sides."""
    made = np.zeros(58, np.float32)
    made[52:55] = math.pi + math.radians(pitch), -math.radians(yaw), -math.radians(roll)
    for name, weight in weights.items():
        for full in [name] if name in ARKIT_NAMES else [name + side for side in SIDES]:
            made[ARKIT_NAMES.index(full)] = weight
    return made


NEUTRAL = row()
MOVED = [row(*angles) for angles in itertools.product((-15, 0, 15), repeat=3)]
FACES = [
    row(eyeBlink=1),
    row(eyeBlinkLeft=0.5, eyeSquint=1),
    row(mouthSmile=1, cheekSquint=1),
    row(mouthFrownLeft=1, mouthDimpleRight=1),
    row(jawOpen=1, jawLeft=1),
    row(jawOpen=0.6, mouthFunnel=1, mouthLowerDown=1),
    row(jawOpen=0.6, mouthClose=0.3, mouthPucker=1, mouthRight=1),
    row(browInnerUp=1, browOuterUp=1, mouthStretch=1),
    row(browDown=1, eyeLookInLeft=1, eyeLookOutRight=1),
    row(10, -8, 12, eyeLookUp=1, jawOpen=0.3),
]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> GraphFolder:
    """Both graphs in both precisions."""
    made = GraphFolder(tmp_path_factory.mktemp("warp"), ("fp32", "fp16"), lambda doing: None)
    modules = {"warp_portrait": WarpPortrait(), "warp_field": WarpField(), "warp_frame": WarpFrame()}
    for recipe in warp_recipes():
        made.add(recipe, modules[recipe.graph])
    return made


def portrait_of(path: Path, size: int = SIZE) -> tuple[Layers, npt.NDArray[np.float32]]:
    """A portrait's layers and geometry."""
    picture, face = cut_portrait(path, size, FaceMesh())
    geometry = find_geometry(picture, face)
    return make_layers(picture, face, geometry, Silhouette()), geometry


@pytest.fixture(scope="module")
def portraits() -> tuple[list[Layers], npt.NDArray[np.float32]]:
    """A portrait with the geometry that was found in it, and it upside down, in one layer, with that of no face."""
    layers, geometry = portrait_of(MEDIA / "portrait_astronaut_256.png")
    return [layers, one_layer(layers.portrait[::-1])], np.stack([geometry, typical_geometry(SIZE)])


class Renderer:
    """The graphs of one precision, run by ONNX Runtime."""

    def __init__(self, graphs: GraphFolder, precision: str) -> None:
        self._portrait, self._frame = (
            OrtEngine(graphs.path(graph, precision), threads=1) for graph in ("warp_portrait", "warp_frame")
        )

    def __call__(
        self, portraits: list[Layers], geometry: Any, rows: Any, frames: Any = None, shown: Any = None
    ) -> npt.NDArray[np.uint8]:
        """uint8 [P, K, S, S, 3] of rows [P, T, 58]; of all of them unless `frames` says which."""
        each = [layers.feeds() for layers in portraits]
        features = self._portrait.run({name: np.concatenate([feeds[name] for feeds in each]) for name in each[0]})
        chosen = np.arange(rows.shape[1]) if frames is None else np.array(frames)
        still = np.zeros((len(portraits), 6), np.float32)
        feeds = {**features, "geometry": geometry, "shown": still if shown is None else shown}
        return np.array(self._frame.run({**feeds, "coefficients": rows, "frames": chosen})["image"])

    def close(self) -> None:
        self._portrait.close()
        self._frame.close()


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def render(graphs: GraphFolder, request: pytest.FixtureRequest) -> Iterator[Renderer]:
    renderer = Renderer(graphs, request.param)
    yield renderer
    renderer.close()


def levels(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> int:
    """The largest difference of a colour value."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_pictures_are_those_of_the_geometry_in_plain_numpy(render: Renderer, portraits: Any) -> None:
    pictures, geometry = portraits
    rows = np.stack([*MOVED[::4], *FACES])
    for picture, numbers in zip(pictures, geometry, strict=True):
        made = render([picture], numbers[None], rows[None])[0]
        for image, coefficients in zip(made, rows, strict=True):
            assert levels(image, plain_warp.render(picture, numbers, coefficients)) <= 1


@pytest.mark.parametrize("size", [224, 384])
def test_the_same_graphs_make_pictures_of_any_size(render: Renderer, size: int) -> None:
    layers, geometry = portrait_of(MEDIA / "portraits" / "hopper.jpg", size)
    rows = np.stack([MOVED[0], FACES[0], FACES[9]])
    made = render([layers], geometry[None], rows[None])[0]
    assert made.shape == (3, size, size, 3)
    for image, coefficients in zip(made, rows, strict=True):
        assert levels(image, plain_warp.render(layers, geometry, coefficients)) <= 1


def test_a_batch_is_the_same_as_its_pictures_one_by_one(render: Renderer, portraits: Any) -> None:
    pictures, geometry = portraits
    tracks = np.stack([np.stack(FACES[:3]), np.stack(MOVED[:3])])
    batch = render(pictures, geometry, tracks)
    assert batch.shape == (2, 3, SIZE, SIZE, 3)
    for at, frame in itertools.product(range(2), range(3)):
        alone = render(pictures[at : at + 1], geometry[at : at + 1], tracks[at : at + 1], [frame])[0, 0]
        np.testing.assert_array_equal(batch[at, frame], alone)


def test_a_picture_is_moved_by_engines_that_are_opened_for_a_stream(graphs: GraphFolder, portraits: Any) -> None:
    (picture, _), (geometry, _) = portraits
    engines = {
        role: OrtEngine(graphs.path(f"warp_{role}", "fp32"), threads=1, sizes=CALL_SIZES)
        for role in ("portrait", "frame")
    }
    shown, wanted = row(-6, 4, 2), row(8, -5, 3)
    wanted[:52] = 0
    moved = PictureMover(engines, SIZE).move(picture.portrait, shown[52:], wanted[52:], geometry[None])
    assert levels(np.asarray(moved), plain_warp.render(one_layer(picture.portrait), geometry, wanted, shown[52:])) <= 1


def test_a_picture_that_was_made_of_the_portrait_is_moved_to_what_the_portrait_would_have_become(
    render: Renderer, portraits: Any
) -> None:
    """Nearly: what is looked up twice is a little softer. Not being told where the head was costs far more."""
    (layers, _), geometry = portraits[0], portraits[1][:1].copy()
    geometry_part(geometry, "body")[:] = 0
    pictures = [one_layer(layers.portrait)]
    turns = [row(12, -10, 8), row(-10, 12, -8), row(4, 15, 0)]
    truth = render(pictures, geometry, np.stack(turns)[None])[0].astype(int)
    for first, second in itertools.permutations(range(3), 2):
        source = [one_layer(truth[first].astype(np.uint8))]
        told = render(source, geometry, turns[second][None, None], shown=turns[first][None, 52:])[0, 0]
        difference = row(0)
        difference[52:] += turns[second][52:] - turns[first][52:]
        untold = render(source, geometry, difference[None, None])[0, 0]
        errors = [float(np.mean((made - truth[second]) ** 2.0)) for made in (told, untold, truth[first])]
        assert errors[0] < 80  # 29 dB
        assert errors[0] < 0.5 * errors[1]
        assert errors[0] < 0.05 * errors[2]  # of the picture held


def test_a_frame_reads_its_own_coefficients_alone(render: Renderer, portraits: Any) -> None:
    pictures, geometry = (given[:1] for given in portraits)
    one, other = (np.stack([around, FACES[2], around])[None] for around in (FACES[0], MOVED[0]))
    np.testing.assert_array_equal(render(pictures, geometry, one, [1]), render(pictures, geometry, other, [1]))


@pytest.mark.parametrize("half_turns", [-1, 0, 1])
def test_without_a_move_the_portrait_stays_as_it_is_wherever_its_head_is_said_to_face(
    render: Renderer, portraits: Any, half_turns: int
) -> None:
    pictures, geometry = portraits
    still = np.zeros((2, 1, 58), np.float32)
    still[..., 52] = half_turns * math.pi
    assert levels(render(pictures, geometry, still)[:, 0], np.stack([each.portrait for each in pictures])) <= 1


def test_no_turn_folds_the_picture() -> None:
    """Neighbours stay on their sides, on a front view and on the portrait, up to the largest turns there are."""
    _, portrait = frame_portrait(MEDIA / "portrait_astronaut_256.png", SIZE, FaceMesh())
    still = typical_geometry(SIZE)
    geometry_part(still, "body")[:] = 0
    turns = itertools.product((-15, 0, 15), repeat=3)
    largest = [
        (sign * 90 * (axis == 0), sign * 90 * (axis == 1), sign * 90 * (axis == 2))
        for axis in range(3)
        for sign in (-1, 1)
    ]
    for geometry in (portrait, typical_geometry(SIZE), still):
        for angles in (*turns, *largest):
            places, *_ = plain_warp.look_up(SIZE, geometry, row(*angles))
            right, down = np.diff(places, axis=1)[:-1], np.diff(places, axis=0)[:, :-1]
            assert (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]).min() > 0.05, angles


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=arrays(np.float32, (58,), elements=st.floats(-1e6, 1e6, width=32)))
def test_no_coefficients_move_anything_further_than_the_bounds(rows: npt.NDArray[np.float32], portraits: Any) -> None:
    _, geometry = portraits
    at = plain_warp.grid(SIZE, 1)
    for numbers in geometry:
        places, *shares = plain_warp.look_up(SIZE, numbers, rows)
        reach = float(np.linalg.norm(geometry_part(numbers, "radii")))
        assert np.linalg.norm(places - at, axis=-1).max() < reach
        assert np.min(shares) >= 0
        assert np.max(shares) <= 1


def test_coefficients_beyond_all_bounds_give_the_picture_of_the_bounds(render: Renderer, portraits: Any) -> None:
    pictures, geometry = portraits
    beyond = np.full((2, 1, 58), 1e4, np.float32)
    beyond[..., 52] = 0
    assert (beyond > 0).any()
    bound = np.where(np.arange(58) < 52, np.float32(1), beyond)
    np.testing.assert_array_equal(render(pictures, geometry, beyond), render(pictures, geometry, bound))
    rows = np.zeros((2, 1, 58), np.float32)
    rows[..., :52] = -1e4
    assert levels(render(pictures, geometry, rows)[:, 0], np.stack([each.portrait for each in pictures])) <= 1


def around(geometry: npt.NDArray[np.float32], *names: str) -> npt.NDArray[np.bool_]:
    """Pixels that are near the left eye, the right eye or the mouth."""
    at = plain_warp.grid(SIZE, 1)
    near = np.zeros((SIZE, SIZE), bool)
    for name in names:
        if name == "mouth":
            x, y = geometry_part(geometry, "mouth")
            reach = 2.5 * float(geometry_part(geometry, "chin")[0])
        else:
            x, y = (geometry_part(geometry, f"eye_{axis}")[["left", "right"].index(name)] for axis in "xy")
            reach = 3.4 * float(geometry_part(geometry, "eye_half")[0])
        near |= np.linalg.norm(at - [x, y], axis=-1) < reach
    return near


@pytest.mark.parametrize(
    ("weights", "places"),
    [
        ({"eyeBlinkRight": 1}, ["left"]),
        ({"eyeBlinkLeft": 1}, ["right"]),
        ({"eyeLookInLeft": 1}, ["right"]),
        ({"browOuterUpRight": 1}, ["left"]),
        ({"browInnerUp": 1}, ["left", "right"]),
        ({"jawOpen": 1}, ["mouth"]),
        ({"mouthPucker": 1}, ["mouth"]),
        ({"mouthSmileLeft": 1}, ["mouth", "right"]),
    ],
)
def test_an_expression_changes_its_part_of_the_face_and_no_other(
    render: Renderer, portraits: Any, weights: Mapping[str, float], places: list[str]
) -> None:
    pictures, geometry = (given[:1] for given in portraits)
    still, moved = render(pictures, geometry, np.stack([NEUTRAL, row(**weights)])[None])[0].astype(int)
    changed = np.abs(moved - still).max(axis=-1) > 8
    near = around(geometry[0], *places)
    assert changed[near].sum() > 40
    assert changed[~near].sum() < 0.02 * changed.sum()


def test_a_breath_lifts_the_head_by_a_pixel_or_two_and_the_shoulders_by_half_of_it(portraits: Any) -> None:
    geometry = portraits[1][0]
    breath = row()
    breath[56] = habit("breath_rise")
    places, *_ = plain_warp.look_up(SIZE, geometry, breath)
    below = (places - plain_warp.grid(SIZE, 1))[..., 1]  # from where a pixel of the risen picture is
    x, y = np.round(geometry_part(geometry, "head")).astype(int)
    assert 0.5 < below[y, x] < 2
    assert below[-1, x] == pytest.approx(below[y, x] / 2, rel=0.05)


def test_an_open_jaw_shows_the_dark_and_lowers_the_chin(portraits: Any) -> None:
    geometry = portraits[1][0]
    (x, y), chin = geometry_part(geometry, "mouth"), float(geometry_part(geometry, "chin")[0])
    places, dark, _ = plain_warp.look_up(SIZE, geometry, row(jawOpen=1))
    assert dark[:, round(x)].sum() > 0.15 * chin
    assert dark[: round(y - 0.2 * chin)].max() == 0
    at_chin = places[round(y + chin), round(x)]
    assert at_chin[1] < y + 0.85 * chin


def test_a_closed_mouth_opens_on_teeth_and_one_that_shows_its_own_on_none(render: Renderer) -> None:
    layers, geometry = portrait_of(MEDIA / "portraits" / "luciano.jpg")
    assert geometry_part(geometry, "teeth")[3] > 2
    (x, y) = np.round(geometry_part(geometry, "mouth")).astype(int)
    lip = int(y + float(geometry_part(geometry, "mouth_lower")[0]))
    opened = render([layers], geometry[None], row(jawOpen=1)[None, None])[0, 0].astype(float).mean(axis=-1)
    teeth, below = opened[lip : lip + 5, x - 3 : x + 4].mean(axis=1).max(), opened[lip + 5 : lip + 8, x].mean()
    assert teeth > 80
    assert below < 0.5 * teeth
    _, smiling = portrait_of(MEDIA / "portrait_astronaut_256.png")
    assert geometry_part(smiling, "teeth")[3] == 0


def test_every_move_has_its_lines_in_the_docs() -> None:
    text = (ROOT / "docs" / "warp.md").read_text()
    for moves in (EYE_MOVES, LIP_MOVES, MOUTH_MOVES):
        for name, weights in moves.items():
            listed = " + ".join(f"{weight:g} {source}" for source, weight in weights.items()).replace("+ -", "- ")
            assert f"| `{name}` | {listed} |" in text


def test_graphs_are_standard_operators_and_no_weights(graphs: GraphFolder) -> None:
    for graph, precision in itertools.product(graphs.infos, graphs.precisions):
        model = onnx.load(graphs.path(graph, precision))
        check_operators(model)
        assert graphs.path(graph, precision).stat().st_size < 200_000, graph
        assert sum(math.prod(tensor.dims) for tensor in model.graph.initializer) < 4000
        grid = [node for node in model.graph.node if node.op_type == "GridSample"]
        assert len(grid) == (graph == "warp_frame")


def test_the_grid_is_float32_in_every_precision(graphs: GraphFolder) -> None:
    for precision in graphs.precisions:
        model = onnx.shape_inference.infer_shapes(onnx.load(graphs.path("warp_frame", precision)))
        types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
        (node,) = (node for node in model.graph.node if node.op_type == "GridSample")
        assert types[node.input[1]] == onnx.TensorProto.FLOAT
        assert onnx.TensorProto.FLOAT16 not in types.values()


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_for_rtx_builds_engines_of_them(graphs: GraphFolder, tmp_path: Path) -> None:
    ranges = {"portraits": (1, 1, 4), "frames": (1, 1, 8), "track": (1, 27, 42), "side": (64, 256, 512)}
    for graph in ("warp_portrait", "warp_frame"):  # the field is for CPUs
        info, target = graphs.infos[graph], tmp_path / f"{graph}.plan"
        build_engine(
            graphs.path(graph, "fp16"),
            target,
            backend="tensorrt-rtx",
            profile=profile_for(info.inputs, ranges),
            precision="fp16",
        )
        assert target.stat().st_size > 10_000
