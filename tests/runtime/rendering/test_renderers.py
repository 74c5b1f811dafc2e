"""Renderers by name: what a bundle names, its preview, and how far ahead each reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from msgspec.structs import replace
from support.fakes import (
    ONE_FACE,
    SIZE,
    fake_engines,
    fake_listener,
    fake_manifest,
    picture,
    portrait_of,
    write_fake_bundle,
)
from support.places import MEDIA
from support.rendering.previews import WARP, preview_manifest, put_face, warp_engines
from support.sample_bundle import ROLES, sample_manifest

from pflx.engines import BundleError, Engine, FakeEngine, FileInfo, RendererInfo
from pflx.engines.bundle.manifest import (
    BundleCorruptError,
    check_references,
    decode_manifest,
    encode_manifest,
    with_renderer,
)
from pflx.runtime import Listener, SpeakerSettings
from pflx.runtime.bundle_engines import stream_of
from pflx.runtime.rendering.renderers import Renderer, WarpRenderer, make_renderer, reach, with_size


@pytest.fixture
def a_face(monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.float32]:
    """A face is found in every portrait."""
    return put_face(monkeypatch)


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
    missing = RendererInfo(name="warp", size=256, graphs={"portrait": "warp_portrait", "frame": "warp_frame"})
    with pytest.raises(BundleCorruptError, match="warp uses graph 'warp_frame', which is not there"):
        check_references(replace(manifest, preview=missing), "me.pflx")
    there = RendererInfo(name="warp", size=256, graphs={"portrait": ROLES["portrait"], "frame": ROLES["frame"]})
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


def test_the_weightless_renderer_makes_pictures_of_the_size_that_is_asked_for(tmp_path: Path) -> None:
    rows = np.zeros((27, 58), np.float32)
    for size in (64, 384):
        with Listener.open(portrait=MEDIA / "portrait_astronaut_256.png", size=size) as listener:
            assert listener.manifest.renderer.size == size
            (features,) = listener.chain.portraits
            assert listener.chain.renderer.render(rows, 1, features).shape == (1, size, size, 3)


@pytest.mark.parametrize("size", [60, 258, 1028, 0, -4])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(BundleError, match=rf"size is {size}; give a multiple of 4 from 64 to 1024"):
        Listener.open(portrait=MEDIA / "portrait_astronaut_256.png", size=size)


def test_a_renderer_with_a_size_of_its_own_takes_no_other() -> None:
    manifest = preview_manifest()
    assert with_size(manifest, SIZE) is manifest
    with pytest.raises(BundleError, match=rf"renderer pirender makes pictures of {SIZE} px only.*--renderer warp"):
        with_size(manifest, 2 * SIZE)
    assert with_size(with_renderer(manifest, "warp", "me.pflx"), 128).renderer.size == 128


def earlier(engines: dict[str, Engine]) -> dict[str, Engine]:
    """Graphs that take a portrait in one layer."""
    portrait = engines["warp_portrait"]
    assert isinstance(portrait, FakeEngine)
    one = {"portrait": portrait.inputs["portrait"]}
    return {**engines, "warp_portrait": FakeEngine(portrait.run, one, portrait.outputs)}


def test_graphs_of_an_earlier_pflx_are_refused_and_as_a_preview_left_out(caplog: pytest.LogCaptureFixture) -> None:
    engines = {**fake_engines(), **earlier(warp_engines())}
    with pytest.raises(BundleError, match=r"renderer warp is that of an earlier pflx\. Export the bundle again"):
        make_renderer(WARP, engines)
    assert not make_renderer(fake_manifest().renderer, engines, WARP).has_mover
    assert "preview is that of an earlier pflx" in caplog.text
