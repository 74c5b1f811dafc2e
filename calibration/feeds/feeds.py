"""Recorded feeds: what the graphs of a bundle were given while it reacted to real clips.

```
feeds/
  feeds.json        what was recorded, from what, and which arrays it is made of
  arrays/*.npy      every array once, under the hash of its content; no pickle
```

The index is written last and whole: stopped at any point, the folder holds what was recorded of the clips that were
finished, and arrays that no index names are removed by the next recording.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np

from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.replay import Step, Take
from pflx.engines import Array, Bundle
from pflx.engines.bundle.manifest import with_renderer, without_persons
from pflx.engines.files.array_file import read_arrays
from pflx.engines.files.writer import write_whole

SCHEMA = 1
INDEX = "feeds.json"

Digests = dict[str, str]
"""Name to the hash of an array."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the index."""


class Recording(_Record, frozen=True, kw_only=True):
    """One clip that was reacted to.

    Attributes:
        clip: its file name.
        clip_sha256: hash of the file.
        portrait: file name of the listener's picture.
        portrait_sha256: hash of that file.
        frames: speaker frames that were used.
        held_out_from: frame from which on nothing was recorded but the take.
        recorded: time, ISO 8601.
    """

    clip: str
    clip_sha256: str
    portrait: str
    portrait_sha256: str
    frames: int
    held_out_from: int
    recorded: str


class FeedInfo(_Record, frozen=True, kw_only=True):
    """The inputs of one call.

    Attributes:
        clip: file name of the clip.
        arrays: input to the hash of its array.
    """

    clip: str
    arrays: Digests


class GraphFeeds(_Record, frozen=True, kw_only=True):
    """What was kept of one graph.

    Attributes:
        seen: calls so far, repetitions included.
        feeds: at most `limit`, a seeded choice among all that differ, in the order of that choice.
    """

    seen: int
    feeds: list[FeedInfo]


class StepInfo(_Record, frozen=True, kw_only=True):
    """One step of a take; see `Step`."""

    window: Digests
    noise: str
    is_seam: bool


class TakeInfo(_Record, frozen=True, kw_only=True):
    """One take; see `Take`."""

    clip: str
    portrait: str
    generator_state: Digests
    smoother_state: Digests
    steps: list[StepInfo]


class FeedIndex(_Record, frozen=True, kw_only=True):
    """What a folder of feeds holds.

    Attributes:
        schema: version of this description.
        pflx: version that recorded.
        bundle: name of the bundle.
        graph_sha256: graph to the hash of its FP32 file, as it was recorded from.
        seed: of the choice, and of the listener's noise.
        limit: feeds kept of a graph at most.
        recordings: the clips, in order.
        graphs: what was kept, by graph.
        takes: one per clip.
    """

    schema: int = SCHEMA
    pflx: str
    bundle: str
    graph_sha256: dict[str, str]
    seed: int
    limit: int
    recordings: list[Recording] = []
    graphs: dict[str, GraphFeeds] = {}
    takes: list[TakeInfo] = []


class ArrayStore:
    """Arrays in a folder, each once, under the hash of its dtype, shape and content.

    Attributes:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: dict[int, tuple[Array, str]] = {}  # what is given again and again is hashed once

    def digest(self, array: Array) -> str:
        """The name that an array has here, whether it is here or not."""
        known = self._last.get(id(array))
        if known is not None and known[0] is array:
            return known[1]
        digest = _digest(array)
        if array.nbytes > _LARGE:
            self._last = {**dict(list(self._last.items())[-_REMEMBERED:]), id(array): (array, digest)}
        return digest

    def put(self, array: Array) -> str:
        """Keep an array; its name."""
        digest = self.digest(array)
        path = self._path(digest)
        if not path.exists():
            content = BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            write_whole(path, content.getbuffer())
        return digest

    def put_all(self, arrays: Mapping[str, Array]) -> Digests:
        """Keep named arrays; their names here."""
        return {name: self.put(array) for name, array in arrays.items()}

    def get(self, digest: str) -> Array:
        """The array of a name.

        Raises:
            CalibrationError: it is missing, or not what it was.
        """
        path = self._path(digest)
        try:
            array = read_arrays(path, CalibrationError).get("")
        except CalibrationError as error:
            raise CalibrationError(f"A recorded array is gone or damaged: {error} Record the feeds again.") from error
        if array is None or _digest(array) != digest:
            raise CalibrationError(f"{path} has changed since it was recorded. Record the feeds again.")
        return array

    def get_all(self, digests: Digests) -> dict[str, Array]:
        """The arrays of names; see `get`."""
        return {name: self.get(digest) for name, digest in digests.items()}

    def keep_only(self, digests: set[str]) -> None:
        """Remove all other arrays."""
        for path in self.folder.iterdir():
            if path.stem not in digests:
                path.unlink()

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.npy"


_LARGE, _REMEMBERED = 1 << 20, 15


def _digest(array: Array) -> str:
    content = hashlib.sha256(f"{array.dtype.str} {list(array.shape)} ".encode())
    content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()[:32]


@dataclass(frozen=True)
class Feeds:
    """A folder of recorded feeds, opened for reading.

    Attributes:
        folder: where it is.
        index: what it holds.
    """

    folder: Path
    index: FeedIndex

    @classmethod
    def open(cls, folder: str | Path) -> Feeds:
        """Open a folder that `pflx calibrate record` has filled.

        Raises:
            CalibrationError: it is none, or of another version.
        """
        place = Path(folder)
        try:
            index = decode_index((place / INDEX).read_bytes(), place)
        except FileNotFoundError as error:
            why = f"holds no recorded feeds: it has no {INDEX}" if place.exists() else "does not exist"
            raise CalibrationError(
                f"{place} {why}. Record some: pflx calibrate record BUNDLE --speaker CLIP --portrait PICTURE "
                f"-o {shlex.quote(str(place))}"
            ) from error
        except OSError as error:
            raise CalibrationError(f"{place / INDEX} cannot be read: {error.strerror}.") from error
        return cls(place, index)

    def require_match(self, bundle: Bundle) -> None:
        """Refuse feeds that were recorded from other graphs.

        Raises:
            CalibrationError: naming them.
        """
        here = fp32_hashes(bundle)
        graphs = here.keys() | self.index.graph_sha256.keys()
        other = sorted(graph for graph in graphs if here.get(graph) != self.index.graph_sha256.get(graph))
        if other:
            raise CalibrationError(
                f"{self.folder} was recorded from {self.index.bundle}, whose {', '.join(other)} differ from those of "
                f"{bundle.path}. Record feeds of this bundle into a new folder."
            )

    def of_graph(self, graph: str) -> Iterator[dict[str, Array]]:
        """The recorded inputs of a graph, call by call, in an order that looks random and is always the same.

        Raises:
            CalibrationError: there are none, or an array is damaged.
        """
        kept = self.index.graphs.get(graph)
        if kept is None or not kept.feeds:
            raise CalibrationError(f"{self.folder} holds no feeds of graph '{graph}'. Record a longer clip.")
        store = self._store
        return (store.get_all(feed.arrays) for feed in kept.feeds)

    def takes(self) -> list[Take]:
        """What was held out of each clip to judge by: no feed is of these frames.

        Raises:
            CalibrationError: there are none, or an array is damaged.
        """
        if not self.index.takes:
            raise CalibrationError(f"{self.folder} holds no take to judge by. Record a clip into it.")
        store = self._store
        return [_take(info, store) for info in self.index.takes]

    @property
    def _store(self) -> ArrayStore:
        return ArrayStore(self.folder / "arrays")

    def sha256(self) -> str:
        """Hash of all arrays: equal recordings have equal ones, whenever they were made."""
        return hashlib.sha256(" ".join(sorted(digests_of(self.index))).encode()).hexdigest()


def _take(info: TakeInfo, store: ArrayStore) -> Take:
    steps: Sequence[Step] = [Step(store.get_all(s.window), store.get(s.noise), s.is_seam) for s in info.steps]
    return Take(
        name=info.clip,
        portrait=store.get(info.portrait),
        generator_state=store.get_all(info.generator_state),
        smoother_state=store.get_all(info.smoother_state),
        steps=steps,
    )


def digests_of(index: FeedIndex) -> set[str]:
    """The names of all arrays that an index holds."""
    found: set[str] = set()
    for graph in index.graphs.values():
        for feed in graph.feeds:
            found |= set(feed.arrays.values())
    for take in index.takes:
        found |= {take.portrait, *take.generator_state.values(), *take.smoother_state.values()}
        for step in take.steps:
            found |= {step.noise, *step.window.values()}
    return found


def fp32_hashes(bundle: Bundle) -> dict[str, str]:
    """Graph to the hash of its FP32 file, of the graphs that are calibrated."""
    manifest = calibrated(bundle).manifest
    return {name: manifest.files[graph.files["fp32"]].sha256 for name, graph in manifest.graphs.items()}


def calibrated(bundle: Bundle) -> Bundle:
    """A bundle without what nothing is calibrated for: its preview has no weights, a person's come with the call."""
    manifest = without_persons(bundle.manifest)
    return replace(bundle, manifest=with_renderer(manifest, manifest.renderer.name, str(bundle.path)))


def encode_index(index: FeedIndex) -> bytes:
    """As indented JSON."""
    return msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n"


def decode_index(data: bytes, folder: Path) -> FeedIndex:
    """Read an index strictly.

    Raises:
        CalibrationError: malformed, or of another version.
    """
    try:
        index = msgspec.json.decode(data, type=FeedIndex)
    except msgspec.MsgspecError as error:
        raise CalibrationError(f"{folder / INDEX} is malformed: {error}. Record the feeds again.") from error
    if index.schema != SCHEMA:
        raise CalibrationError(
            f"{folder / INDEX} has schema {index.schema}, this pflx reads {SCHEMA}. Record the feeds again."
        )
    for digest in digests_of(index):
        if len(digest) != 32 or not set(digest) <= set("0123456789abcdef"):
            raise CalibrationError(f"{folder / INDEX} names an array '{digest}', which is no hash. Record again.")
    return index
