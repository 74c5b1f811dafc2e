"""The manifest of a bundle: what is inside, as data that is read strictly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np

from pflx.engines.bundle.engine_passport import Passport
from pflx.engines.bundle.schema import check_schema
from pflx.engines.bundle.variant_admission import Admission
from pflx.engines.graphs.protocol import PflxError, TensorSpec

SCHEMA = 3
MANIFEST = "manifest.json"

_FPS = 25
"""Of coefficients and pictures, in all that pflx runs."""
_MOST_FRAMES = 1 << 12
_LARGEST_SIDE = 1 << 12


class BundleError(PflxError, ValueError):
    """A bundle cannot give what was asked of it."""


class BundleMissingError(BundleError, FileNotFoundError):
    """There is no bundle at the path."""


class BundleVersionError(BundleError):
    """The bundle was written to another schema."""


class BundleCorruptError(BundleError):
    """The manifest is malformed, or the files are not the ones it lists."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest."""


class GeneratorInfo(_Record, frozen=True, kw_only=True):
    """The network that makes coefficients.

    Attributes:
        name: which generator, like `reactface`.
        window: speaker frames that one step reads.
        hop: coefficient frames that one step yields.
        needs: which inputs it reads: `video`, `audio`, ...
        graphs: role (`speaker`, `listener`) to graph name.
        settings: numbers that only this generator reads.
    """

    name: str
    window: int
    hop: int
    needs: list[str]
    graphs: dict[str, str]
    settings: dict[str, float] = {}


class SmootherInfo(_Record, frozen=True, kw_only=True):
    """The network that joins segments.

    Attributes:
        name: which smoother.
        slide: frames by which its window moves; equals the generator's hop.
        graphs: role (`smooth`) to graph name.
    """

    name: str
    slide: int
    graphs: dict[str, str]


class RendererInfo(_Record, frozen=True, kw_only=True):
    """What draws frames.

    Attributes:
        name: which renderer.
        size: height and width of a frame in pixels.
        graphs: role (`portrait`, `frame`) to graph name; `field` is the first part of `frame` where a CPU does the rest
            by other means.
    """

    name: str
    size: int
    graphs: dict[str, str]


class PflInfo(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """The crop that the checkpoint was trained on.

    Attributes:
        mode: `release` or `paper`.
        window: side of the crop in pixels of the speaker's frame.
        padding: pixels added around the face.
        square_pixels: whether pixels of a clip that are not square were made so first, as a player does; else they
            were taken as they are stored, as OpenCV does.
    """

    mode: str
    window: int
    padding: int
    square_pixels: bool = True


class MeanFace(_Record, frozen=True, kw_only=True):
    """What is subtracted from coefficients inside the networks.

    Attributes:
        source: `sha256:` and the hash of the file, or `zero`.
        values: 58 coefficients.
    """

    source: str
    values: list[float]


class GraphInfo(_Record, frozen=True, kw_only=True):
    """One graph and the files that hold it.

    Attributes:
        inputs: what it takes, the same in every precision.
        outputs: what it returns.
        parameters: number of weights.
        flops: floating-point operations of one run at the smallest sizes; None where not counted.
        opset: ONNX opset.
        files: precision to the path of the ONNX file in the bundle.
        fp32_nodes: precision to the nodes that were kept in FP32.
        policies: precision to the hash of the policy that decided which; without one, the network's own code did.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    parameters: int
    flops: int | None = None
    opset: int
    files: dict[str, str]
    fp32_nodes: dict[str, list[str]] = {}
    policies: dict[str, str] = {}


class Provenance(_Record, frozen=True, kw_only=True):
    """Where the weights of one component came from.

    Attributes:
        slot: which component they fill.
        source: file name, or `untrained`.
        sha256: hash of that file, empty for untrained weights.
        keys: how many tensors were read.
        note: anything a reader should know.
    """

    slot: str
    source: str
    sha256: str
    keys: int
    note: str = ""


CPU_ROLE = "field"
"""Of a renderer's graph that is run on a CPU only."""
PERSONAL_ROLE = "personal"
"""Of a generator's graph whose weights come with the call: those of a person."""
_ROLES: Mapping[type, tuple[str, ...]] = {
    GeneratorInfo: (),  # each its own; see `make_generator`
    SmootherInfo: ("smooth",),
    RendererInfo: ("portrait", "frame"),
}


class FileInfo(_Record, frozen=True, kw_only=True):
    """Size and hash of one file of the bundle."""

    bytes: int
    sha256: str


class Manifest(_Record, frozen=True, kw_only=True):
    """What a bundle holds.

    Attributes:
        schema: version of this description.
        created: time of the export, ISO 8601.
        pflx: version of pflx that wrote it.
        fps: coefficient and video frames per second.
        sample_rate_hz: of the audio that the graphs take.
        untrained: seed of made-up weights; None for trained ones.
        generator: the network that makes coefficients.
        smoother: the network that joins segments.
        renderer: what draws frames.
        preview: a quicker one of frames of the same size, which also moves pictures of the first; or None.
        pfl: the speaker crop.
        mean_face: what the coefficients are relative to.
        graphs: every graph, by name.
        precision: the variant that is used unless another is asked for.
        provenance: where the weights came from.
        files: every file but the manifest, by path relative to the bundle, with `/`.
        versions: packages that made the bundle.
        engines: passports of the compiled graphs.
        admissions: precision to the terms on which it was found good enough, for variants that were judged.
    """

    schema: int = SCHEMA
    created: str
    pflx: str
    fps: int = 25
    sample_rate_hz: int = 16_000
    untrained: int | None = None
    generator: GeneratorInfo
    smoother: SmootherInfo
    renderer: RendererInfo
    preview: RendererInfo | None = None
    pfl: PflInfo
    mean_face: MeanFace
    graphs: dict[str, GraphInfo]
    precision: str
    provenance: list[Provenance]
    files: dict[str, FileInfo] = {}
    versions: dict[str, str] = {}
    engines: list[Passport] = []
    admissions: dict[str, Admission] = {}

    @property
    def renderers(self) -> list[RendererInfo]:
        """The renderer, and the preview if there is one."""
        return [self.renderer] if self.preview is None else [self.renderer, self.preview]


def with_renderer(manifest: Manifest, name: str, bundle: str) -> Manifest:
    """The manifest with one of its two renderers alone, and without the graphs of the other.

    Args:
        manifest: of a bundle.
        name: of the renderer.
        bundle: what messages call the bundle.

    Raises:
        BundleError: the bundle has no such renderer.
    """
    renderers = {info.name: info for info in reversed(manifest.renderers)}
    if name not in renderers:
        raise BundleError(f"{bundle} has no renderer '{name}'. Choose one of {', '.join(renderers)}.")
    left_out = {graph for info in renderers.values() if info.name != name for graph in info.graphs.values()}
    graphs = {graph: info for graph, info in manifest.graphs.items() if graph not in left_out}
    return msgspec.structs.replace(manifest, renderer=renderers[name], preview=None, graphs=graphs)


def on_gpu(manifest: Manifest) -> dict[str, GraphInfo]:
    """The graphs of a bundle that a GPU is of use for: all but those that only help out a CPU."""
    left_out = {info.graphs.get(CPU_ROLE) for info in manifest.renderers}
    return {graph: info for graph, info in manifest.graphs.items() if graph not in left_out}


def without_persons(manifest: Manifest) -> Manifest:
    """The manifest without the graph for persons, if there is one."""
    generator = manifest.generator
    roles = {role: graph for role, graph in generator.graphs.items() if role != PERSONAL_ROLE}
    left_out = generator.graphs.get(PERSONAL_ROLE)
    graphs = {graph: info for graph, info in manifest.graphs.items() if graph != left_out}
    return msgspec.structs.replace(manifest, generator=msgspec.structs.replace(generator, graphs=roles), graphs=graphs)


def without_pictures(manifest: Manifest) -> Manifest:
    """The manifest without the graphs of its renderers, whose names and size it keeps."""
    left_out = {graph for info in manifest.renderers for graph in info.graphs.values()}
    graphs = {graph: info for graph, info in manifest.graphs.items() if graph not in left_out}
    return msgspec.structs.replace(manifest, preview=None, graphs=graphs)


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest, enc_hook=_encode_dtype), indent=2) + b"\n"


def decode_manifest(data: bytes, name: str) -> Manifest:
    """Read a manifest strictly, schema first.

    Args:
        data: JSON.
        name: what messages call the bundle.

    Raises:
        BundleVersionError: written to another schema.
        BundleCorruptError: not JSON, a missing, wrong or unknown field, or a reference to nothing.
    """
    try:
        check_schema(data, SCHEMA, name, "Export it again", BundleVersionError)
        manifest = msgspec.json.decode(data, type=Manifest, dec_hook=_decode_dtype)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleCorruptError(f"{name}/{MANIFEST} is malformed: {error}. Export it again.") from error
    check_references(manifest, name)
    return manifest


def check_references(manifest: Manifest, name: str) -> None:
    """Check that everything a manifest refers to is in it, and that no path leaves the bundle.

    Raises:
        BundleCorruptError: naming the reference.
    """
    for fault in _broken_references(manifest):
        raise BundleCorruptError(f"{name}/{MANIFEST}: {fault}. Export it again.")


def _broken_references(manifest: Manifest) -> Iterator[str]:
    yield from (f"path '{path}' leaves the bundle" for path in manifest.files if not _stays_inside(path))
    parts: list[GeneratorInfo | SmootherInfo | RendererInfo] = [manifest.generator, manifest.smoother]
    for part in [*parts, *manifest.renderers]:
        roles = _ROLES[type(part)]
        yield from (f"{part.name} has no graph with the role '{role}'" for role in roles if role not in part.graphs)
        missing = set(part.graphs.values()) - manifest.graphs.keys()
        yield from (f"{part.name} uses graph '{graph}', which is not there" for graph in sorted(missing))
    for name, graph in manifest.graphs.items():
        if manifest.precision not in graph.files:
            yield f"graph '{name}' has no {manifest.precision} variant"
        yield from (f"'{file}' is not in files" for file in graph.files.values() if file not in manifest.files)
        hashes = {info.sha256 for info in manifest.files.values()}
        yield from (
            f"the policy of graph '{name}' is not there" for sha in graph.policies.values() if sha not in hashes
        )
    for precision, admission in manifest.admissions.items():
        if any(precision not in graph.files for graph in manifest.graphs.values()):
            yield f"not all graphs have the {precision} variant that was admitted"
        unknown = sorted(admission.inference.keys() - manifest.graphs.keys())
        yield from (f"{precision} was admitted with graph '{graph}', which is not there" for graph in unknown)
    for passport in manifest.engines:
        if passport.file not in manifest.files or passport.graph not in manifest.graphs:
            yield f"engine '{passport.file}' of graph '{passport.graph}' is not there"
    yield from _absurd_values(manifest)
    values = manifest.mean_face.values
    if len(values) != 58 or not all(map(math.isfinite, values)):
        yield f"mean_face has {len(values)} values, not 58 finite ones"


def _absurd_values(manifest: Manifest) -> Iterator[str]:
    """Numbers with which a session would open and then fail, or never end."""
    generator = manifest.generator
    if manifest.fps != _FPS:
        yield f"fps is {manifest.fps}; pflx runs at {_FPS}"
    if not 8_000 <= manifest.sample_rate_hz <= 192_000 or manifest.sample_rate_hz % _FPS:
        yield f"sample_rate_hz is {manifest.sample_rate_hz}; it is a multiple of {_FPS} from 8,000 to 192,000"
    for name, frames in (("window", generator.window), ("hop", generator.hop), ("slide", manifest.smoother.slide)):
        if not 1 <= frames <= _MOST_FRAMES:
            yield f"{name} is {frames}; it is 1 to {_MOST_FRAMES} frames"
    if not all(map(math.isfinite, generator.settings.values())):
        yield "a setting of the generator is not finite"
    for renderer in manifest.renderers:
        if not 16 <= renderer.size <= _LARGEST_SIDE:
            yield f"the size of {renderer.name} is {renderer.size}; it is 16 to {_LARGEST_SIDE} px"
    pfl = manifest.pfl
    if not 16 <= pfl.window <= _LARGEST_SIDE or not 0 <= pfl.padding < _LARGEST_SIDE:
        yield f"the crop is of {pfl.window} px with {pfl.padding} around; it is 16 to {_LARGEST_SIDE}, and not below 0"


def _stays_inside(relative: str) -> bool:
    path = PurePosixPath(relative)
    plain = path.as_posix() == relative and not any(mark in relative for mark in "\\:\0")
    return plain and not path.is_absolute() and ".." not in path.parts and relative not in {".", MANIFEST}


def _encode_dtype(value: Any) -> str:
    if isinstance(value, np.dtype):
        return str(value.name)
    raise TypeError(f"no place for {type(value).__name__} in a manifest")


def _decode_dtype(_: Any, value: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(value))
    if dtype.name != value or dtype.kind not in "fiub":
        raise ValueError(f"'{value}' is no dtype of a tensor")
    return dtype
