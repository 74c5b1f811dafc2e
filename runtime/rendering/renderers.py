"""Coefficient tracks → pictures of the portraits."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import numpy as np
from msgspec.structs import replace

from pflx.engines import Array, Bundle, BundleError, Engine, FeedError, GraphInfo, Manifest, RendererInfo
from pflx.engines.bundle.manifest import CPU_ROLE, with_renderer
from pflx.engines.gpu.placement import fetch, kept
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.coefficients import COEFFICIENTS, POSE, WINDOW_RADIUS
from pflx.runtime.frames.pace import BATCHES
from pflx.runtime.rendering.layers import make_layers, one_layer
from pflx.runtime.rendering.painter import Canvas, Painter, looks_up_exactly, make_canvas, whole_canvas
from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.rendering.silhouette import Silhouette
from pflx.runtime.rendering.warp import cut_portrait, find_geometry, geometry_part, square_geometry
from pflx.runtime.speaker.landmarks import FaceMesh

log = logging.getLogger(__name__)

Portrait: TypeAlias = str | Path | UInt8Array
Features: TypeAlias = Mapping[str, Array]
"""What the renderer keeps of one portrait, by name."""

_GEOMETRY = "geometry"
_SHA256 = "sha256"

SIDES = range(64, 1025, 4)
"""Sides of a picture, in pixels, that a renderer of any size takes."""


class Renderer:
    """PIRender.

    Args:
        engines: the `portrait` and `frame` graphs, the latter where pictures are not painted.
        size: side of a picture in pixels.
        ahead: pictures that are put under way before the first of them is waited for. On a CPU it is 1: a batch is no
            faster there, costs memory, and delays the first.
        mover: moves pictures that were rendered, where there is no time to render one.

    Attributes:
        radius: coefficient frames that a picture reads on each side of its own.
    """

    radius = WINDOW_RADIUS

    def __init__(
        self, engines: Mapping[str, Engine], size: int, ahead: int = 1, mover: PictureMover | None = None
    ) -> None:
        self._portrait, self._frame = engines["portrait"], engines.get("frame")
        self._size, self.ahead, self._mover = size, ahead, mover

    @staticmethod
    def cut(portrait: Portrait, size: int, mesh: FaceMesh) -> UInt8Array:
        """The part of a portrait that is shown, without any of the engines.

        Args:
            portrait: a picture file, or uint8 [H, W, 3] RGB.
            size: side of a picture in pixels.
            mesh: finds the face, where what is shown depends on it.

        Returns:
            uint8 [size, size, 3] RGB.

        Raises:
            PortraitError: it cannot be read, or shows no face where one is needed.
        """
        return load_portrait(portrait, size)

    def prepare(self, portrait: Portrait) -> Features:
        """What depends on a portrait alone, computed once.

        Args:
            portrait: a picture file, or uint8 [H, W, 3] RGB.

        Raises:
            PortraitError: it cannot be read.
        """
        picture = load_portrait(portrait, self._size)
        features = {name: kept(value) for name, value in self._portrait.run({"portrait": picture[None]}).items()}
        features[_SHA256] = _hash(picture)
        return features if self._mover is None else {**features, **self._mover.geometry(picture)}

    def warm_up(self, features: Features) -> None:
        """Have every batch captured that may be rendered ahead, so that no session waits for it.

        Args:
            features: of any portrait.
        """
        for count in (size for size in BATCHES if size <= self.ahead and self.ahead > 1):
            track = np.zeros((count + 2 * WINDOW_RADIUS, COEFFICIENTS), np.float32)
            self.render(track, count, features)
            fetch(self.render(track, count, features)).wait()  # captured when it comes for the second time

    def render(self, track: Array, count: int, features: Features) -> Array:
        """Render frames that follow one another.

        Args:
            track: float32 [count + 26, 58], mean face subtracted: 13 frames before the first one and 13 after the last.
            count: how many.
            features: of the portrait, from `prepare`.

        Returns:
            uint8 [count, size, size, 3] RGB, which the engine may reuse in its next call. On a GPU it is being made.
        """
        assert self._frame is not None, "pictures are painted"
        frames = np.arange(WINDOW_RADIUS, WINDOW_RADIUS + count)
        given = {**features, "coefficients": track[None], "frames": frames}
        images: Array = self._frame.run({name: given[name] for name in self._frame.inputs})["image"][0]
        return images

    @property
    def has_mover(self) -> bool:
        """Whether pictures can be moved at all."""
        return self._mover is not None

    def can_move(self, features: Features) -> bool:
        """Whether pictures of a portrait can be moved: there is a mover, and a face in the portrait."""
        return self._mover is not None and _GEOMETRY in features

    def move(self, picture: UInt8Array, shown: Float32Array, wanted: Float32Array, features: Features) -> Array:
        """A picture that was rendered, with its head moved.

        Args:
            picture: uint8 [size, size, 3] RGB.
            shown: float32 [6], pose that it shows, mean face subtracted.
            wanted: float32 [6], pose that it is to show, likewise.
            features: of the portrait, with which `can_move` is true.

        Returns:
            uint8 [size, size, 3] RGB, which the engine may reuse in its next call.
        """
        assert self._mover is not None
        return self._mover.move(picture, shown, wanted, features[_GEOMETRY])


class PictureMover:
    """Moves the head in a rendered picture: the graphs of the weightless renderer, with that in the portrait's place.

    Args:
        engines: the `portrait` and `frame` graphs of that renderer, or where pictures are painted its `field`.
        size: side of a picture in pixels.
        mesh: finds the face in a portrait.

    Raises:
        DetectorFileError: a model file is missing or its SHA-256 is wrong.
    """

    def __init__(self, engines: Mapping[str, Engine], size: int, mesh: FaceMesh | None = None) -> None:
        self._portrait, self._frame = engines["portrait"], engines.get("frame")
        self._painter, self._mesh = _painter(engines, size), mesh or FaceMesh()

    def geometry(self, picture: UInt8Array) -> Features:
        """Where the head of a portrait is, to be kept among its features; nothing for one without a face."""
        try:
            geometry = square_geometry(picture, self._mesh)
        except PortraitError as error:
            log.warning("%s Its pictures are held, not moved, where time runs short.", error)
            return {}
        geometry_part(geometry, "body")[:] = 0  # shoulders and background are one here, and stay
        return {_GEOMETRY: geometry[None]}

    def move(self, picture: UInt8Array, shown: Float32Array, wanted: Float32Array, geometry: Array) -> Array:
        """See `Renderer.move`."""
        track = np.zeros((1, 2 * WINDOW_RADIUS + 1, COEFFICIENTS), np.float32)  # as large as all that are rendered
        track[0, WINDOW_RADIUS, POSE] = wanted
        feeds, frames = {_GEOMETRY: geometry, "shown": shown[None], "coefficients": track}, np.array([WINDOW_RADIUS])
        if self._painter is not None:
            images = self._painter.paint(whole_canvas(picture, np.asarray(geometry)[0]), feeds, frames)
        else:
            assert self._frame is not None, "pictures are not painted"
            features = self._portrait.run(one_layer(picture).feeds())
            images = self._frame.run({**features, **feeds, "frames": frames})["image"][0]
        moved: Array = images[0]
        return moved


class WarpRenderer(Renderer):
    """The portrait itself, moved: no network but the one that finds the face in it.

    Args:
        engines: see `Renderer`.
        size: see `Renderer`.
        ahead: see `Renderer`.
        mover: see `Renderer`; of no use, where rendering takes no longer.
        mesh: finds the face.
        silhouette: finds the person.

    Raises:
        DetectorFileError: a model file is missing or its SHA-256 is wrong.
    """

    radius = 0

    def __init__(
        self,
        engines: Mapping[str, Engine],
        size: int,
        ahead: int = 1,
        mover: PictureMover | None = None,
        *,
        mesh: FaceMesh | None = None,
        silhouette: Silhouette | None = None,
    ) -> None:
        super().__init__(engines, size, ahead, mover)
        self._mesh, self._silhouette = mesh or FaceMesh(), silhouette or Silhouette()
        self._painter = _painter(engines, size)

    @staticmethod
    def cut(portrait: Portrait, size: int, mesh: FaceMesh) -> UInt8Array:
        """See `Renderer.cut`: the square around the head of its largest face."""
        return cut_portrait(portrait, size, mesh)[0]

    def prepare(self, portrait: Portrait) -> Features:
        """See `Renderer.prepare`. The picture is cut around the head of its largest face.

        Raises:
            PortraitError: it cannot be read, or shows no face.
        """
        picture, face = cut_portrait(portrait, self._size, self._mesh)
        geometry = find_geometry(picture, face)
        layers = make_layers(picture, face, geometry, self._silhouette, self._mesh)
        features = {name: kept(value) for name, value in self._portrait.run(layers.feeds()).items()}
        still = np.zeros((1, POSE.stop - POSE.start), np.float32)
        moving = {_GEOMETRY: geometry[None], "shown": still, _SHA256: _hash(picture)}
        if self._painter is None:
            return {**features, **moving}
        return CanvasFeatures(make_canvas(features, geometry), moving)

    def render(self, track: Array, count: int, features: Features) -> Array:
        """See `Renderer.render`."""
        if self._painter is None:
            return super().render(track, count, features)
        assert isinstance(features, CanvasFeatures), "of prepare"
        feeds = {"geometry": features[_GEOMETRY], "shown": features["shown"], "coefficients": track[None]}
        return self._painter.paint(features.canvas, feeds, np.arange(WINDOW_RADIUS, WINDOW_RADIUS + count))


class CanvasFeatures(dict[str, Array]):
    """Features of a portrait whose pictures are painted.

    Args:
        canvas: what is painted.
        features: the others.
    """

    def __init__(self, canvas: Canvas, features: Features) -> None:
        super().__init__(features)
        self.canvas = canvas


class NoPictures(Renderer):
    """Renders nothing, for whoever wants coefficients alone: its pictures have no pixels."""

    radius, ahead = 0, 1

    def __init__(self) -> None:
        self._mover = None

    def prepare(self, portrait: Portrait | None = None) -> Features:
        """What stands for any portrait, which is not looked at."""
        return {_SHA256: np.zeros(sha256().digest_size, np.uint8)}

    def render(self, track: Array, count: int, features: Features) -> Array:
        """uint8 [count, 0, 0, 3]."""
        return np.zeros((count, 0, 0, 3), np.uint8)


def portrait_sha256(features: Features) -> Array:
    """uint8 [32], SHA-256 of the square picture that features are of: by it, snapshots know what was shown."""
    return features[_SHA256]


def _hash(picture: UInt8Array) -> Array:
    return np.frombuffer(sha256(np.ascontiguousarray(picture).data).digest(), np.uint8)


RENDERERS: Mapping[str, type[Renderer]] = {"pirender": Renderer, "warp": WarpRenderer}


def make_renderer(
    info: RendererInfo, engines: Mapping[str, Engine], preview: RendererInfo | None = None, *, ahead: int = 1
) -> Renderer:
    """The renderer a bundle names.

    Args:
        info: of the manifest.
        engines: by graph name.
        preview: of the manifest; with it, pictures can be moved.
        ahead: see `Renderer`.

    Raises:
        BundleError: there is no such renderer.
    """
    kind, roles, mover = _kind(info), _by_role(info, engines), None
    if kind is WarpRenderer and not _is_layered(roles):
        raise BundleError(f"The bundle's renderer {info.name} is that of an earlier pflx. Export the bundle again.")
    if preview is not None:
        if _is_layered(_by_role(preview, engines)):
            mover = PictureMover(_by_role(preview, engines), info.size)
        else:
            log.warning("The bundle's preview is that of an earlier pflx: pictures that are late are held, not moved.")
    return kind(roles, info.size, ahead, mover)


def with_size(manifest: Manifest, size: int) -> Manifest:
    """A manifest whose renderer makes pictures of another size.

    Args:
        manifest: of a bundle.
        size: side of a picture in pixels.

    Raises:
        BundleError: the renderer has a size of its own, or takes no such size.
    """
    info = manifest.renderer
    if size == info.size:
        return manifest
    if not isinstance(manifest.graphs[info.graphs["frame"]].outputs["image"].shape[-2], str):
        raise BundleError(
            f"size is {size}, and the bundle's renderer {info.name} makes pictures of {info.size} px only. Leave it "
            "out, or take the preview: renderer='warp', --renderer warp."
        )
    if size not in SIDES:
        raise BundleError(f"size is {size}; give a multiple of 4 from {SIDES.start} to {SIDES.stop - 1}.")
    return replace(manifest, renderer=replace(info, size=size))


def shown_portrait(info: RendererInfo, portrait: Portrait, mesh: FaceMesh) -> UInt8Array:
    """The part of a portrait that a bundle's renderer shows; see `Renderer.cut`.

    Raises:
        BundleError: there is no such renderer.
        PortraitError: it cannot be read, or shows no face where one is needed.
    """
    return _kind(info).cut(portrait, info.size, mesh)


def reach(info: RendererInfo) -> int:
    """Coefficient frames that a picture of a bundle's renderer reads on each side of its own.

    Raises:
        BundleError: there is no such renderer.
    """
    return _kind(info).radius


def chosen_rendering(bundle: Bundle, renderer: str | None, size: int | None) -> Bundle:
    """A bundle as it was opened, with one of its renderers, and pictures of a size; None for its own.

    Raises:
        BundleError: it has no such renderer, or that takes no such size.
    """
    manifest = bundle.manifest
    if renderer is not None:
        manifest = with_renderer(manifest, renderer, str(bundle.path))
    return dataclasses.replace(bundle, manifest=manifest if size is None else with_size(manifest, size))


def _is_layered(engines: Mapping[str, Engine]) -> bool:
    """Whether the graphs of the weightless renderer take portraits in layers."""
    return "masks" in engines["portrait"].inputs


def _by_role(info: RendererInfo, engines: Mapping[str, Engine]) -> dict[str, Engine]:
    return {role: engines[graph] for role, graph in info.graphs.items() if graph in engines}


def _painter(engines: Mapping[str, Engine], size: int) -> Painter | None:
    """What paints the pictures of the weightless renderer; None where its graph makes all of them."""
    return Painter(engines[CPU_ROLE], size) if CPU_ROLE in engines and looks_up_exactly() else None


def _kind(info: RendererInfo) -> type[Renderer]:
    if info.name not in RENDERERS:
        raise BundleError(
            f"The bundle's renderer is '{info.name}'; this pflx has {', '.join(RENDERERS)}. Export it again."
        )
    return RENDERERS[info.name]


def graphs_on_cpu(manifest: Manifest) -> Mapping[str, GraphInfo]:
    """The graphs of a bundle that a CPU is of use for: of those that stand in for one another, those that are run."""
    doubled = [info.graphs for info in manifest.renderers if info.graphs.get(CPU_ROLE) in manifest.graphs]
    left_out = {graphs["frame" if looks_up_exactly() else CPU_ROLE] for graphs in doubled}
    return {graph: info for graph, info in manifest.graphs.items() if graph not in left_out}


def several_portraits(given: Portrait | Sequence[Portrait]) -> Sequence[Portrait]:
    """The portraits that were meant: one, or one for each sample.

    Raises:
        FeedError: there is none.
    """
    several = [given] if isinstance(given, str | Path | np.ndarray) else list(given)
    if not several:
        raise FeedError("No portrait was given; the listener needs at least one.")
    return several
