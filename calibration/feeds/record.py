"""Reacting to real clips while noting what the graphs are given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

import pflx
from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import (
    INDEX,
    ArrayStore,
    FeedIndex,
    FeedInfo,
    Feeds,
    GraphFeeds,
    Recording,
    StepInfo,
    TakeInfo,
    calibrated,
    digests_of,
    encode_index,
    fp32_hashes,
)
from pflx.calibration.feeds.replay import Step
from pflx.calibration.progress import Progress, silent
from pflx.engines import (
    Array,
    Bundle,
    Engine,
    FakeEngine,
    GraphInfo,
    Manifest,
    OrtEngine,
    OutputError,
    check_feeds,
)
from pflx.engines.bundle.bundle import file_info
from pflx.engines.files.writer import write_whole
from pflx.engines.graphs.threads import check_threads
from pflx.runtime import Listener
from pflx.runtime.bundle_engines import CALL_SIZES
from pflx.runtime.generators import Generator, Reaction, SpeakerWindow, State, default_sources, reach
from pflx.runtime.media.clip import SpeakerFile, speaker_for
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.speaker.extractor import Extractor, Extractors
from pflx.runtime.speaker.extractors import open_extractors, require_needs
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.speaker.pfl import centre_square
from pflx.runtime.speaker.recorded import Recorded
from pflx.runtime.speaker.settings import SpeakerSettings
from pflx.runtime.stream.chain import seeded_noise
from pflx.runtime.stream.posnet import Smoother
from pflx.runtime.stream.stream import Stream

LIMIT = 16
"""Feeds kept of a graph, unless told."""
TAKE_STEPS = 6
"""Segments held out of a clip at its end, at most; a third of a short clip."""
SHORTEST = 4
"""Segments that a clip must have: two to record and two to hold out."""


@dataclass(frozen=True)
class RecordOptions:
    """What is recorded.

    Attributes:
        seed: of the choice of feeds, and of the listener's noise.
        limit: feeds to keep of each graph, at least 1.
        threads: of the CPU.

    Raises:
        CalibrationError, ThreadsError: out of range.
    """

    seed: int = 0
    limit: int = LIMIT
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or self.limit < 1:
            raise CalibrationError(f"seed is {self.seed} and limit {self.limit}; give 0 and 1, or more.")
        check_threads(self.threads)


def record(
    bundle: Bundle,
    clips: Sequence[SpeakerFile | str | Path],
    portrait: str | Path,
    folder: str | Path,
    *,
    options: RecordOptions | None = None,
    extractors: Extractors | None = None,
    progress: Progress = silent,
) -> Feeds:
    """Record feeds of every graph from real clips, and hold a take of each clip out.

    Of all calls whose inputs differ, a graph's feeds are those with the smallest seeded hash of their content. So the
    choice is random, holds nothing twice, and is the same in whatever order clips are recorded, at once or one by one.
    Pictures are not rendered, since only what the renderer is given counts.

    A clip that is in the folder already, with this portrait, is left out: to resume, or to add clips, record again.

    Args:
        bundle: whose FP32 graphs run, on the CPU.
        clips: of speakers.
        portrait: picture of the listener.
        folder: to fill; made if it is not there.
        options: seed and bounds.
        extractors: for a generator that reads coefficients or emotion; see `Listener`.
        progress: told about clips and frames.

    Raises:
        CalibrationError: no clip, one that is too short, or a folder that was recorded with other settings or from
            another bundle.
        OutputError: the folder cannot be written.
        MediaError, PortraitError, NeedError: see `Listener.react`.
    """
    options = options or RecordOptions()
    if not clips:
        raise CalibrationError("No clip to record. Give at least one with --speaker.")
    place = Path(folder)
    bundle = calibrated(bundle)
    manifest = bundle.manifest
    speakers = [speaker_for(clip, manifest) for clip in clips]
    source = _Source(Path(portrait), load_portrait(portrait, manifest.renderer.size))
    opened = _open_extractors(manifest, extractors or {}, speakers)
    recorder = _Recorder(ArrayStore(place / "arrays"), _started(place, bundle, options))
    with ExitStack() as stack:
        engines = {
            graph: stack.enter_context(closing(_NotingEngine(engine, graph, recorder)))
            for graph, engine in _engines(bundle, options.threads)
        }
        listener = Listener(manifest, engines, source.picture, speaker=SpeakerSettings(extractors=opened))
        for speaker in speakers:
            recorder.take_clip(listener, speaker, source, progress)
    return Feeds.open(place)


def _started(place: Path, bundle: Bundle, options: RecordOptions) -> FeedIndex:
    """The index to go on with; a new one is written first, so that a folder that is not ours is never touched."""
    if not (place / INDEX).exists():
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise OutputError(f"{place} is there and holds no recorded feeds. Choose a new folder.")
        try:
            (place / "arrays").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{place} cannot be made: {error.strerror}. Choose another place.") from error
        index = FeedIndex(
            pflx=pflx.__version__,
            bundle=bundle.name,
            graph_sha256=fp32_hashes(bundle),
            seed=options.seed,
            limit=options.limit,
        )
        write_whole(place / INDEX, encode_index(index))
        return index
    feeds = Feeds.open(place)
    feeds.require_match(bundle)
    index = feeds.index
    if (index.seed, index.limit) != (options.seed, options.limit):
        raise CalibrationError(
            f"{place} was recorded with seed {index.seed} and limit {index.limit}, not {options.seed} and "
            f"{options.limit}. Give these, or a new folder."
        )
    return index


def _open_extractors(manifest: Manifest, given: Extractors, speakers: Sequence[SpeakerFile]) -> dict[str, Extractor]:
    given = {**default_sources(manifest.generator.name), **given}
    opened = open_extractors(given, manifest.mean_face.values)
    require_needs(manifest.generator.name, manifest.generator.needs, opened)
    if len(speakers) > 1 and any(isinstance(each, Recorded) for each in opened.values()):
        raise CalibrationError("Numbers in a file are of one clip. Record clip by clip, each with its own file.")
    return opened


def _engines(bundle: Bundle, threads: int | None) -> Iterator[tuple[str, Engine]]:
    """The FP32 graphs; in the place of the one that renders frames, something that makes black pictures at once."""
    manifest = bundle.manifest
    for graph, info in manifest.graphs.items():
        if graph == manifest.renderer.graphs["frame"]:
            yield graph, _black(info)
        else:
            yield graph, OrtEngine(bundle.graph_path(graph, "fp32"), threads=threads, sizes=CALL_SIZES)


@dataclass(frozen=True)
class _Source:
    """The listener's picture: its file, and what is rendered of it."""

    path: Path
    picture: Array


@dataclass
class _Session:
    """What is noted of the clip under way.

    Attributes:
        clip: its file name.
        first_held_out: segment from which on nothing is noted but the take.
        steps: of the take.
        n_steps: segments so far.
        generator_state: before the take.
        smoother_state: before the take.
    """

    clip: str
    first_held_out: int
    steps: list[Step] = field(default_factory=list)
    n_steps: int = 0
    generator_state: State = field(default_factory=dict)
    smoother_state: State = field(default_factory=dict)

    @property
    def is_held_out(self) -> bool:
        """Whether the take has begun."""
        return self.n_steps > self.first_held_out


class _Recorder:
    """Notes what graphs are given, keeps what is chosen, and writes the index after each clip."""

    def __init__(self, store: ArrayStore, index: FeedIndex) -> None:
        self._store, self._index = store, index
        self._folder = store.folder.parent
        self._seen = {graph: kept.seen for graph, kept in index.graphs.items()}
        self._kept = {
            graph: {self._priority(feed.arrays): feed for feed in kept.feeds} for graph, kept in index.graphs.items()
        }
        self._session = _Session("", 0)

    def note(self, graph: str, feeds: Mapping[str, Array]) -> None:
        """Keep the inputs of a call, if they are among those chosen so far."""
        if self._session.is_held_out:
            return
        self._seen[graph] = self._seen.get(graph, 0) + 1
        kept = self._kept.setdefault(graph, {})
        priority = self._priority({name: self._store.digest(array) for name, array in feeds.items()})
        if priority in kept or (len(kept) == self._index.limit and priority > max(kept)):
            return
        kept[priority] = FeedInfo(clip=self._session.clip, arrays=self._store.put_all(feeds))
        if len(kept) > self._index.limit:
            del kept[max(kept)]

    def note_step(self, window: SpeakerWindow, state: State, noise: Array, *, is_seam: bool) -> None:
        """Note that a segment is about to be generated."""
        session = self._session
        session.n_steps += 1
        if session.n_steps == session.first_held_out + 1:
            session.generator_state = state
        if session.is_held_out:
            session.steps.append(Step(window, noise, is_seam))

    def note_pose(self, state: State) -> None:
        """Note what the pose was before the first seam of the take."""
        if len(self._session.steps) == 1:
            self._session.smoother_state = state

    def take_clip(self, listener: Listener, clip: SpeakerFile, source: _Source, progress: Progress) -> None:
        """React to a clip up to the end of its take, and write down what was noted."""
        clip_sha256, portrait_sha256 = file_info(clip.path).sha256, file_info(source.path).sha256
        done = {(entry.clip_sha256, entry.portrait_sha256) for entry in self._index.recordings}
        if (clip_sha256, portrait_sha256) in done:
            return
        hop, n_frames = listener.generator.hop, clip.frames or sum(len(chunk.video) for chunk in clip.chunks())
        n_segments = n_frames // hop
        if n_segments < SHORTEST:
            raise CalibrationError(
                f"{clip.path} has {n_frames} frames, which make {n_segments} segments of {hop}. Give a clip of "
                f"{SHORTEST * hop} frames or more."
            )
        n_held_out = max(2, min(TAKE_STEPS, n_segments // 3))
        self._session = _Session(clip.path.name, n_segments - n_held_out)
        self._play(listener, clip, n_segments, progress)
        session = self._session
        if len(session.steps) < 2:
            raise CalibrationError(
                f"{clip.path} ended after {session.n_steps} of {n_segments} segments. Repair the clip."
            )
        entry = Recording(
            clip=session.clip,
            clip_sha256=clip_sha256,
            portrait=source.path.name,
            portrait_sha256=portrait_sha256,
            frames=n_segments * hop,
            held_out_from=session.first_held_out * hop,
            recorded=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._write(entry, self._take(source.picture))

    def _play(self, listener: Listener, clip: SpeakerFile, n_segments: int, progress: Progress) -> None:
        region = (
            listener.find_region(
                clip, progress=lambda n: progress(f"{clip.path.name}: finding the face", n, clip.frames)
            )
            if listener.reads_pictures
            else centre_square((clip.width, clip.height))
        )
        generator = cast(Generator, _NotingGenerator(listener.generator, self))
        smoother = _NotingSmoother(listener.chain.smoother, self)
        chain = replace(listener.chain, generator=generator, smoother=smoother)
        noise, track, hop = seeded_noise(self._index.seed), FaceTrack(region=region), generator.hop
        with Stream(chain, samples=1, noise=noise, track=track) as stream:
            for chunk in clip.chunks(hop):
                stream.push(video=chunk.video, audio=chunk.audio)
                for _ in stream.pull():
                    pass
                progress(f"{clip.path.name}: recording", self._session.n_steps, n_segments)
                if self._session.n_steps >= n_segments:
                    return
            stream.finish()
            for _ in stream.pull():
                pass

    def _take(self, picture: Array) -> TakeInfo:
        session, store = self._session, self._store
        return TakeInfo(
            clip=session.clip,
            portrait=store.put(picture),
            generator_state=store.put_all(session.generator_state),
            smoother_state=store.put_all(session.smoother_state),
            steps=[
                StepInfo(window=store.put_all(step.window), noise=store.put(step.noise), is_seam=step.is_seam)
                for step in session.steps
            ],
        )

    def _write(self, entry: Recording, take: TakeInfo) -> None:
        graphs = {
            graph: GraphFeeds(seen=self._seen[graph], feeds=[kept[priority] for priority in sorted(kept)])
            for graph, kept in sorted(self._kept.items())
        }
        self._index = msgspec.structs.replace(
            self._index,
            recordings=[*self._index.recordings, entry],
            graphs=graphs,
            takes=[*self._index.takes, take],
        )
        write_whole(self._folder / INDEX, encode_index(self._index))
        self._store.keep_only(digests_of(self._index))

    def _priority(self, arrays: Mapping[str, str]) -> str:
        """Where a feed stands in the choice: depends on its content and the seed alone."""
        content = "".join(f"{name} {digest} " for name, digest in sorted(arrays.items()))
        return hashlib.sha256(f"{self._index.seed} {content}".encode()).hexdigest()


class _NotingEngine:
    """An engine that tells what it is given."""

    def __init__(self, engine: Engine, graph: str, recorder: _Recorder) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine, self._graph, self._recorder = engine, graph, recorder

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.run`."""
        self._recorder.note(self._graph, feeds)
        return self._engine.run(feeds)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


class _NotingGenerator:
    """A generator that tells what its steps are made of; everything else is that of the one inside."""

    def __init__(self, generator: Generator, recorder: _Recorder) -> None:
        self._generator, self._recorder = generator, recorder
        self._n_steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """See `Generator.step`."""
        index, generator = self._n_steps, self._generator
        self._n_steps += 1
        is_seam = not index or reach(generator, index) > reach(generator, index - 1)
        self._recorder.note_step(speaker, state, noise, is_seam=is_seam)
        return generator.step(speaker, state, noise, steps)


class _NotingSmoother(Smoother):
    """PosNet, telling the pose that it goes on from."""

    def __init__(self, smoother: Smoother, recorder: _Recorder) -> None:
        self._smoother, self._recorder = smoother, recorder

    def step(self, segment: Array, state: State) -> tuple[Array, State]:
        """See `Smoother.step`."""
        self._recorder.note_pose(state)
        return self._smoother.step(segment, state)


def _black(info: GraphInfo) -> Engine:
    ((name, spec),) = info.outputs.items()

    def black(feeds: Mapping[str, Array]) -> dict[str, Array]:
        sizes = check_feeds(info.inputs, feeds)
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape]
        return {name: np.zeros(shape, spec.dtype)}

    return FakeEngine(black, info.inputs, info.outputs)
