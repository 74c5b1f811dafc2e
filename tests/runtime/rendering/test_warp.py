"""The weightless renderer at run time: any portrait, renderers by name, and pictures moved in a live session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from msgspec.structs import replace
from PIL import Image
from support.fakes import (
    ONE_FACE,
    SIZE,
    fake_engines,
    fake_listener,
    fake_manifest,
    frames_of,
    picture,
    portrait_of,
    sound_of,
    write_fake_bundle,
)
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import FunctionContext, gpu_engines, gpu_listener
from support.live.live_sessions import (
    START,
    Run,
    costly,
    run,
    speaker,
    watchdog,  # noqa: F401
)
from support.places import MEDIA
from support.sample_bundle import F32, ROLES, sample_manifest

import pflx.runtime.rendering.renderers as rendering
from pflx.engines import (
    Array,
    BundleError,
    Engine,
    FakeEngine,
    FeedError,
    FileInfo,
    GraphInfo,
    RendererInfo,
    TensorSpec,
)
from pflx.engines.bundle.manifest import (
    BundleCorruptError,
    check_references,
    decode_manifest,
    encode_manifest,
    with_renderer,
)
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine
from pflx.runtime import Listener, ListenerFrame, LiveSession, LiveSettings, Rung, SpeakerSettings
from pflx.runtime.bundle_engines import stream_of
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.frames.pace import Unhurried
from pflx.runtime.live.clock import VirtualClock
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.rendering.portrait import PortraitError
from pflx.runtime.rendering.renderers import Renderer, WarpRenderer, make_renderer, reach
from pflx.runtime.rendering.warp import (
    GEOMETRY,
    GEOMETRY_SIZE,
    find_geometry,
    frame_portrait,
    geometry_part,
    square_geometry,
    typical_geometry,
)
from pflx.runtime.speaker.landmarks import FaceLandmarks, FaceMesh

WARP = RendererInfo(name="warp", size=SIZE, graphs={"portrait": "warp_portrait", "frame": "warp_frame"})
U8, I64 = np.dtype(np.uint8), np.dtype(np.int64)
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


# Renderers by name


def engine(function: Any, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> FakeEngine:
    return FakeEngine(function, inputs, outputs)


def f32(*shape: int | str) -> TensorSpec:
    return TensorSpec(shape, F32)


def warp_engines() -> dict[str, Engine]:
    """The graphs of the weightless renderer: a picture that any bit of the row, the source or the geometry changes."""

    def frame(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = feeds["coefficients"][0, feeds["frames"]]
        content = np.concatenate([feeds[name].ravel() for name in ("source", "geometry", "shown")])
        return {"image": np.stack([picture(row, content) for row in rows])[None]}

    source = {"source": f32("portraits", 3, SIZE, SIZE)}
    return {
        "warp_portrait": engine(
            lambda feeds: {"source": np.moveaxis(feeds["portrait"], -1, 1).astype(np.float32)},
            {"portrait": TensorSpec(("portraits", SIZE, SIZE, 3), U8)},
            source,
        ),
        "warp_frame": engine(
            frame,
            {
                **source,
                "geometry": f32("portraits", GEOMETRY_SIZE),
                "shown": f32("portraits", 6),
                "coefficients": f32("portraits", "track", 58),
                "frames": TensorSpec(("frames",), I64),
            },
            {"image": TensorSpec(("portraits", "frames", SIZE, SIZE, 3), U8)},
        ),
    }


@pytest.fixture
def a_face(monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.float32]:
    """A face is found in every portrait."""
    geometry = typical_geometry(SIZE)
    monkeypatch.setattr(rendering, "square_geometry", lambda portrait, mesh: geometry)
    monkeypatch.setattr(rendering, "frame_portrait", lambda portrait, size, mesh: (portrait, geometry))
    return geometry


def test_a_bundle_names_its_renderer() -> None:
    engines = {**fake_engines(), **warp_engines()}
    pirender = fake_manifest().renderer
    assert type(make_renderer(pirender, engines)) is Renderer
    assert type(make_renderer(WARP, engines)) is WarpRenderer
    assert (reach(pirender), reach(WARP)) == (13, 0)


def test_an_unknown_renderer_is_named_with_those_there_are() -> None:
    unknown = RendererInfo(name="oil", size=SIZE, graphs={})
    with pytest.raises(BundleError, match="renderer is 'oil'; this pflx has pirender, warp"):
        make_renderer(unknown, {})
    with pytest.raises(BundleError, match="'oil'"):
        reach(unknown)


def test_a_picture_is_made_of_portrait_geometry_and_the_frame_s_own_row(a_face: npt.NDArray[np.float32]) -> None:
    renderer = make_renderer(WARP, warp_engines())
    features = renderer.prepare(portrait_of())
    track = np.random.default_rng(0).standard_normal((29, 58)).astype(np.float32)
    images = renderer.render(track, 3, features)
    source = np.moveaxis(portrait_of(), -1, 0).astype(np.float32)
    content = np.concatenate([source.ravel(), a_face, np.zeros(6, np.float32)])
    for image, row in zip(images, track[13:16], strict=True):
        np.testing.assert_array_equal(image, picture(row, content))


def preview_manifest() -> Any:
    """The fake bundle with the weightless renderer for a preview."""
    manifest = fake_manifest(preview=WARP)
    graphs = {
        name: GraphInfo(
            inputs=dict(made.inputs),
            outputs=dict(made.outputs),
            parameters=0,
            opset=20,
            files={"fp32": f"graphs/{name}.fp32.onnx"},
        )
        for name, made in warp_engines().items()
    }
    manifest.graphs.update(graphs)
    return manifest


def test_a_preview_is_chosen_by_name_and_the_other_s_graphs_are_left_out() -> None:
    manifest = preview_manifest()
    preview = with_renderer(manifest, "warp", "me.pflx")
    assert (preview.renderer, preview.preview) == (WARP, None)
    assert {"warp_portrait", "warp_frame", "posnet"} <= preview.graphs.keys()
    assert not [graph for graph in preview.graphs if graph.startswith("pirender")]
    own = with_renderer(manifest, "pirender", "me.pflx")
    assert (own.renderer, own.preview) == (manifest.renderer, None)
    assert not [graph for graph in own.graphs if graph.startswith("warp")]
    with pytest.raises(BundleError, match=r"me\.pflx has no renderer 'oil'\. Choose one of warp, pirender"):
        with_renderer(manifest, "oil", "me.pflx")


def test_a_preview_is_written_and_read_and_its_graphs_must_be_there() -> None:
    manifest = sample_manifest()
    missing = RendererInfo(name="warp", size=256, graphs={"frame": "warp_frame"})
    with pytest.raises(BundleCorruptError, match="warp uses graph 'warp_frame', which is not there"):
        check_references(replace(manifest, preview=missing), "me.pflx")
    there = RendererInfo(name="warp", size=256, graphs={"frame": ROLES["frame"]})
    paths = [path for graph in manifest.graphs.values() for path in graph.files.values()]
    good = replace(manifest, preview=there, files={path: FileInfo(bytes=1, sha256="") for path in paths})
    assert decode_manifest(encode_manifest(good), "me.pflx").preview == there


def test_both_renderers_share_the_stream_of_pictures() -> None:
    manifest = preview_manifest()
    assert {graph for graph in manifest.graphs if stream_of(manifest, graph) == "render"} == {
        "pirender_portrait",
        "pirender_frame",
        "warp_portrait",
        "warp_frame",
    }


def test_a_renderer_that_reads_no_look_ahead_waits_for_none(a_face: npt.NDArray[np.float32]) -> None:
    manifest = with_renderer(preview_manifest(), "warp", "me.pflx")
    engines = {**fake_engines(), **warp_engines()}
    for lookahead in (0, 13):
        listener = fake_listener(engines, manifest=manifest, lookahead=lookahead)
        assert listener.lookahead == 0
        assert listener.algorithmic_delay_ms == 320
    assert fake_listener(fake_engines(), lookahead=13).lookahead == 13


# The rung


def moving(clock: VirtualClock, *, render: float) -> Listener:
    engines = {**costly(clock, render=render, generate=10), **warp_engines()}
    return fake_listener(engines, lookahead=3, manifest=preview_manifest())


def test_a_late_picture_is_the_last_one_moved_by_the_difference_of_the_poses(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    listener = moving(clock, render=150)
    result = run(speaker(120), clock=clock, listener=listener)
    warped = [frame for frame in result.frames if frame.degraded is Rung.WARPED]
    assert len(warped) > 40
    rendered = [frame for frame in result.frames if frame.degraded in (Rung.FULL, Rung.HALF_RATE)]
    checked = 0
    for frame in warped:
        for anchor in rendered:
            if np.array_equal(frame.coefficients[: POSE.start], anchor.coefficients[: POSE.start]):
                assert frame.ledger.picture == frame.ledger.frame
                assert frame.image.shape == anchor.image.shape
                assert not np.array_equal(frame.image, anchor.image)
                checked += 1
    assert checked > 20


def test_it_takes_the_place_of_holding_and_pictures_are_new_more_often(a_face: npt.NDArray[np.float32]) -> None:
    def session(listener: Listener, clock: VirtualClock) -> Run:
        return run(speaker(160), clock=clock, listener=listener)

    clock = VirtualClock(START)
    moved = session(moving(clock, render=150), clock)
    clock = VirtualClock(START)
    held = session(fake_listener(costly(clock, render=150, generate=10), lookahead=3), clock)
    assert held.last.rungs["WARPED"] == 0
    assert moved.last.rungs["HOLD"] < 0.1 * held.last.rungs["HOLD"]
    assert moved.last.rungs["HALF_RATE"] >= held.last.rungs["HALF_RATE"]
    new = [len({frame.image.tobytes() for frame in result.frames}) for result in (held, moved)]
    assert new[1] > 2 * new[0]
    assert moved.last.missed == held.last.missed == 160


def test_with_time_enough_nothing_is_moved(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    result = run(speaker(60), clock=clock, listener=moving(clock, render=5))
    assert {frame.degraded for frame in result.frames} == {Rung.FULL}


def test_moving_costs_no_time_in_the_prediction_of_rendering(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    result = run(speaker(120), clock=clock, listener=moving(clock, render=150))
    assert result.last.rungs["WARPED"] > 20
    assert result.last.cost_ms["render"] == pytest.approx(150)


def test_no_frame_is_worse_than_this_floor(a_face: npt.NDArray[np.float32]) -> None:
    clock = VirtualClock(START)
    result = run(speaker(120), clock=clock, listener=moving(clock, render=150), floor=Rung.WARPED, stale_ms=60_000)
    assert max(frame.degraded for frame in result.frames) is Rung.WARPED


def test_this_floor_is_refused_where_there_is_no_preview() -> None:
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock))
    with pytest.raises(FeedError, match=r"floor is Rung.WARPED, and the bundle has no preview"):
        listener.live(speaker(8), lambda frame: None, settings=LiveSettings(floor=Rung.WARPED), clock=clock)


def test_a_portrait_without_a_face_has_its_pictures_held(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock(START)
    listener = moving(clock, render=150)  # whose portrait is noise
    assert "are held, not moved" in caplog.text
    result = run(speaker(80), clock=clock, listener=listener)
    assert result.last.rungs["WARPED"] == 0
    assert result.last.rungs["HOLD"] > 20


def test_after_a_change_of_the_portrait_no_picture_of_the_old_one_is_moved(
    a_face: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock(START)
    listener = moving(clock, render=150)
    moved: list[Picture] = []
    rendered: list[tuple[Picture, bool]] = []  # and whether of the new portrait
    renderer, other = listener.chain.renderer, portrait_of(9)
    move, render = renderer.move, renderer.render

    def watched_move(image: Picture, shown: Any, wanted: Any, features: Any) -> Array:
        moved.append(image)
        fits = [new for one, new in rendered if np.array_equal(one, image)]
        assert fits == [bool((features["source"][0, 0] == np.float32(other[..., 0]) / np.float32(255)).all())]
        return move(image, shown, wanted, features)

    def watched_render(track: Array, count: int, features: Any) -> Array:
        images = render(track, count, features)
        is_new = bool((features["source"][0, 0] == np.float32(other[..., 0]) / np.float32(255)).all())
        rendered.extend((np.array(image), is_new) for image in images)
        return images

    monkeypatch.setattr(renderer, "move", watched_move)
    monkeypatch.setattr(renderer, "render", watched_render)

    def show(session: LiveSession, frame: ListenerFrame) -> None:
        if frame.ledger.frame == 60:
            session.set_portrait(other)

    result = run(speaker(140), clock=clock, listener=listener, show=show)
    assert {new for _, new in rendered} == {False, True}
    assert result.last.rungs["WARPED"] > 40
    assert len(moved) > 40


def test_a_bundle_is_opened_with_its_preview_alone(
    a_face: npt.NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, opened = preview_manifest(), list[str]()
    bundle = write_fake_bundle(tmp_path / "me.pflx", preview=WARP, graphs=manifest.graphs)
    engines = {**fake_engines(), **warp_engines()}

    def open_one(path: Path, **_: object) -> Engine:
        opened.append(path.name.split(".")[0])
        return engines[opened[-1]]

    monkeypatch.setattr("pflx.runtime.bundle_engines.OrtEngine", open_one)
    with Listener.open(bundle, portrait_of(), renderer="warp", speaker=SpeakerSettings(detector=ONE_FACE)) as listener:
        assert type(listener.chain.renderer) is WarpRenderer
        assert listener.lookahead == 0
    assert set(opened) == {"reactface_speaker", "reactface_listener", "posnet", "warp_portrait", "warp_frame"}
    with Listener.open(bundle, portrait_of(), speaker=SpeakerSettings(detector=ONE_FACE)) as listener:
        assert listener.chain.renderer.has_mover
    with pytest.raises(BundleError, match="has no renderer 'oil'"):
        Listener.open(bundle, portrait_of(), renderer="oil")


class _Moving(Unhurried):
    """Moves pictures in the place of some frames."""

    def rung(self, frame: int, *, ahead: int) -> Rung:
        return Rung.WARPED if 12 <= frame < 18 else Rung.FULL


def test_pictures_are_moved_on_a_gpu_too(a_face: npt.NDArray[np.float32]) -> None:
    manifest, device = preview_manifest(), Device(FakeCuda())
    engines: dict[str, Engine] = dict(gpu_engines(device))
    for graph, made in warp_engines().items():
        assert isinstance(made, FakeEngine)
        order = device.streams.named(stream_of(manifest, graph))
        context = FunctionContext(made.run, made.inputs, made.outputs, device, order, graph)
        engines[graph] = DeviceEngine(graph, context, device, order)
    frames = {}
    for listener in (
        fake_listener({**fake_engines(), **warp_engines()}, manifest=manifest),
        gpu_listener(device, engines=engines, manifest=manifest, lookahead=0),
    ):
        with listener.stream(samples=2) as stream:
            stream.push(video=frames_of(32), audio=sound_of(32))
            stream.finish()
            frames[listener.device] = list(stream.pull(_Moving()))
    for device_frames in frames.values():
        assert [frame.ledger.frame for frame in device_frames] == [at for at in range(32) for _ in (0, 1)]
        moved = [frame for frame in device_frames if frame.degraded is Rung.WARPED]
        assert [frame.ledger.frame for frame in moved] == [at for at in range(12, 18) for _ in (0, 1)]
    for one, other in zip(*frames.values(), strict=True):
        if one.degraded is Rung.FULL:
            np.testing.assert_array_equal(one.image, other.image)
        else:  # of an earlier picture on the GPU, where those between are under way
            np.testing.assert_array_equal(one.coefficients[POSE], other.coefficients[POSE])
            assert other.image.shape == one.image.shape
