"""The public face of the runtime: open a bundle, let it react."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TypeAlias
from weakref import WeakSet

import numpy as np

from pflx.engines import Array, Bundle, Engine, FeedError, Manifest
from pflx.engines.bundle.manifest import with_renderer
from pflx.engines.gpu.device import Device
from pflx.runtime.bundle_engines import Library, close_engines, open_engines
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FPS, Clock
from pflx.runtime.generators import Generator, GeneratorOptions, default_sources, make_generator
from pflx.runtime.generators.protocol import Denoiser, StepDifference, delay_frames
from pflx.runtime.generators.speaker_window import Ahead, SpeakerWindows
from pflx.runtime.live.clock import LiveClock, SystemClock, Turn
from pflx.runtime.live.errors import ListenerFullError
from pflx.runtime.live.queues import Policy
from pflx.runtime.live.session import LiveSession
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.media.clip import SpeakerFile, open_speaker
from pflx.runtime.media.sinks import Sink, as_sink
from pflx.runtime.media.sources import Source, Timed, as_source
from pflx.runtime.rendering.renderers import Portrait, make_renderer
from pflx.runtime.speaker.extractor import Extractor
from pflx.runtime.speaker.extractors import open_extractors, require_needs
from pflx.runtime.speaker.face_track import FaceTrack, SpeakerView, find_face, session_region
from pflx.runtime.speaker.faces import BlazeFace, FaceDetector
from pflx.runtime.speaker.pfl import Box, Region, centre_square
from pflx.runtime.speaker.recorded import Recorded
from pflx.runtime.stream.chain import Chain, Noise, seeded_noise
from pflx.runtime.stream.inbox import Inbox
from pflx.runtime.stream.posnet import Smoother
from pflx.runtime.stream.stream import Stream

log = logging.getLogger(__name__)

_CROWDED = 0.5
"""Share of the engines' time from which what counts is that all sessions keep up, not how early each picture is."""

_READ_AHEAD = 4
"""Segments whose input is read at a time where segments are made side by side with pictures."""

Extractors: TypeAlias = Mapping[str, Extractor | str | Path]
"""Need (`coefficients` or `emotion`) to what gives it: an extractor, or what `open_extractor` takes."""


class Listener:
    """A bundle with its engines open, and the portraits it animates.

    One listener serves one thread; its streams share its engines and take turns.

    Args:
        manifest: what the bundle holds.
        engines: by graph name. They are closed with the listener.
        portrait: picture of the listener, or one per sample.
        lookahead: coefficient frames to wait for before rendering, 0…13: more is smoother and later. A renderer that
            reads fewer does not wait for the rest; `warp` waits for none.
        detector: finds the speaker's face; by default `BlazeFace`.
        extractors: what gives the speaker's `coefficients` or `emotion`, for a generator that reads them: an extractor,
            the path of a file of numbers or of an ONNX regressor, or `landmarks`. A session may bring its own. A
            generator that makes do with landmarks takes them by itself.
        options: what is chosen of the generator.
        clock: stamps the ledgers, monotonic, in ns.
        gpu: that the engines run on; closed with the listener.

    Raises:
        FeedError: the look-ahead is out of range, there is no portrait, or the generator does not take an option.
        PortraitError: a portrait cannot be read.
        BundleError: the bundle's generator is unknown.
    """

    def __init__(
        self,
        manifest: Manifest,
        engines: Mapping[str, Engine],
        portrait: Portrait | Sequence[Portrait],
        *,
        lookahead: int = WINDOW_RADIUS,
        detector: FaceDetector | None = None,
        extractors: Extractors | None = None,
        options: GeneratorOptions | None = None,
        clock: Clock = time.perf_counter_ns,
        gpu: Device | None = None,
    ) -> None:
        lookahead = _checked_lookahead(lookahead)
        self.manifest = manifest
        self._engines, self._gpu = engines, gpu
        self._detector, self._own_detector = detector or BlazeFace(), detector is None
        self._extractors = self._opened({**default_sources(manifest.generator.name), **(extractors or {})})
        generator = make_generator(manifest.generator, engines, options)
        renderer = make_renderer(manifest.renderer, engines, manifest.preview, ahead=generator.hop if gpu else 1)
        self._chain = Chain(
            speaker=self._windows(generator, self._detector, self._extractors),
            generator=generator,
            smoother=Smoother(engines[manifest.smoother.graphs["smooth"]]),
            renderer=renderer,
            portraits=[renderer.prepare(picture) for picture in _several(portrait)],
            mean_face=np.array(manifest.mean_face.values, np.float32),
            lookahead=min(lookahead, renderer.radius),
            clock=clock,
        )
        self._turn: Turn | None = None
        self._sessions: WeakSet[LiveSession] = WeakSet()
        self._sessions_lock = Lock()  # sessions of one listener may be begun in several threads

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        portrait: Portrait | Sequence[Portrait],
        *,
        device: str = "cpu",
        engine: Library = "onnxruntime",
        precision: str | None = None,
        threads: int | None = None,
        fallback: bool = False,
        verify: bool = True,
        lookahead: int = WINDOW_RADIUS,
        detector: FaceDetector | None = None,
        extractors: Extractors | None = None,
        options: GeneratorOptions | None = None,
        renderer: str | None = None,
    ) -> Self:
        """Open a bundle.

        Args:
            bundle: the folder `NAME.pflx`.
            portrait: picture of the listener (path, or uint8 [H, W, 3] RGB), or one per sample.
            device: "cpu", "cuda" or "cuda:N".
            engine: what runs the graphs: "onnxruntime", on the CPU also "openvino", on a GPU also "tensorrt" or
                "tensorrt-rtx", with engines in the bundle that `pflx build` has made.
            precision: a variant the bundle holds; None takes the bundle's own.
            threads: of the CPU, per engine; None leaves it to the library.
            fallback: take the CPU, with a logged warning, where what was asked for cannot be had.
            verify: False skips the hashes of the files, not their sizes.
            lookahead: see the class.
            detector: see the class.
            extractors: see the class.
            options: see the class.
            renderer: the one to use of those in the bundle; None takes its own, "warp" its preview.

        Raises:
            BundleError, DeviceError, EngineError, PassportError, BackendMissingError, PortraitError: what cannot be
                opened.
        """
        opened = Bundle.open(bundle, verify=verify)
        if renderer is not None:
            opened = replace(opened, manifest=with_renderer(opened.manifest, renderer, str(bundle)))
        engines, gpu = open_engines(opened, device, engine, precision=precision, threads=threads, fallback=fallback)
        try:
            return cls(
                opened.manifest,
                engines,
                portrait,
                lookahead=lookahead,
                detector=detector,
                extractors=extractors,
                options=options,
                gpu=gpu,
            )
        except BaseException:
            close_engines(engines, gpu)
            raise

    @property
    def device(self) -> str:
        """What it runs on: "cpu", or a GPU like "cuda:0"."""
        return "cpu" if self._gpu is None else self._gpu.name

    @property
    def chain(self) -> Chain:
        """The stages that its streams share, for whoever puts another one in the place of one of them."""
        return self._chain

    @property
    def generator(self) -> Generator:
        """The generator, with its window and hop."""
        return self._chain.generator

    @property
    def lookahead(self) -> int:
        """Coefficient frames that rendering waits for."""
        return self._chain.lookahead

    @property
    def algorithmic_delay_ms(self) -> float:
        """How far the listener trails the speaker on infinitely fast hardware, in ms.

        A frame waits for its segment to close (at worst the whole hop, less what the segment lies ahead of the speaker)
        and for its look-ahead.
        """
        return delay_frames(self._chain.generator, self._chain.lookahead) * 1000 / FPS

    @property
    def sample_rate_hz(self) -> int:
        """Of the sound that its sessions take."""
        return self.manifest.sample_rate_hz

    def stream(
        self,
        *,
        samples: int = 1,
        seed: int = 0,
        noise: Noise | None = None,
        region: Region | None = None,
        audio: bool = True,
        start_s: float = 0.0,
        extractors: Extractors | None = None,
    ) -> Stream:
        """A live session whose clock is the caller's.

        Args:
            samples: M parallel reactions.
            seed: of their noise.
            noise: in place of `seed`.
            region: where the speaker's face is, fixed; None finds it in the first two seconds.
            audio: False for a speaker without sound.
            start_s: time of the first frame on the speaker's media clock.
            extractors: of this session, in place of the listener's.

        Raises:
            FeedError: a setting out of range.
            NeedError: the generator reads something of the speaker that nothing gives.
        """
        chain, noise = self._session_chain(extractors), noise or seeded_noise(seed)
        track = FaceTrack(region=region)
        return Stream(chain, samples=samples, noise=noise, track=track, audio=audio, start_s=start_s)

    def resume(
        self,
        snapshot: Mapping[str, Array],
        *,
        seed: int = 0,
        noise: Noise | None = None,
        extractors: Extractors | None = None,
    ) -> Stream:
        """A stream that goes on where `Stream.snapshot` was taken, here or in another process.

        Args:
            snapshot: of a stream on the same bundle, with the same look-ahead.
            seed: the one of that stream, or `noise` in its place.
            noise: see `stream`.
            extractors: see `stream`.

        Raises:
            StreamError: the arrays are no snapshot.
            NeedError: see `stream`.
        """
        samples = int(snapshot["samples"][0]) if np.size(snapshot.get("samples", ())) else 1
        stream = self.stream(samples=samples, seed=seed, noise=noise, extractors=extractors)
        stream.restore(snapshot)
        return stream

    def find_region(
        self, speaker: SpeakerFile | str | Path, *, progress: Callable[[int], None] | None = None
    ) -> Region:
        """The fixed region of a whole clip: the first of the two passes over a file.

        Args:
            speaker: the clip.
            progress: called with the number of frames searched so far.
        """
        clip = self._open(speaker)
        boxes: list[Box] = []
        done = 0
        for chunk in clip.chunks():
            for frame in chunk.video:
                box = find_face(self._detector, frame, boxes[-1] if boxes else None)
                boxes += [] if box is None else [box]
            done += len(chunk.video)
            if progress:
                progress(done)
        region = session_region(boxes, (clip.width, clip.height), self.manifest.pfl)
        if not boxes:
            log.warning("No face in %s: using the middle of the frame, %s.", clip.path, region)
        return region

    def react(
        self,
        speaker: SpeakerFile | str | Path,
        *,
        samples: int = 1,
        seed: int = 0,
        noise: Noise | None = None,
        region: Region | None = None,
        extractors: Extractors | None = None,
    ) -> Iterator[ListenerFrame]:
        """React to a clip: a stream fed from a file. Memory does not grow with the clip.

        Args:
            speaker: the clip.
            samples: M parallel reactions.
            seed: of their noise.
            noise: in place of `seed`.
            region: where the speaker's face is; None looks it up in a pass over the whole clip first, if the generator
                reads pictures.
            extractors: see `stream`.

        Yields:
            One frame per sample and 1/25 s of the clip.

        Raises:
            MediaError: the clip cannot be read.
            NeedError: see `stream`.
        """
        clip = self._open(speaker)
        chain = self._session_chain(
            extractors, clip.frames
        )  # what is lacking is told before the long search for the face
        if region is None:
            region = self.find_region(clip) if self.reads_pictures else centre_square((clip.width, clip.height))
        track = FaceTrack(region=region)
        with Stream(chain, samples=samples, noise=noise or seeded_noise(seed), track=track) as stream:
            # On a GPU the next segment is made while the last one is rendered, if its input is there.
            segments = _READ_AHEAD if self._gpu else 1
            for chunk in clip.chunks(segments * self._chain.generator.hop):
                stream.push(video=chunk.video, audio=chunk.audio)
                yield from stream.pull()
            stream.finish()
            yield from stream.pull()

    def step_difference(
        self, speaker: SpeakerFile | str | Path, *, seed: int = 0, extractors: Extractors | None = None
    ) -> StepDifference | None:
        """How far the chosen denoising steps are from the trained sampler, on the first window of a clip.

        Args:
            speaker: the clip.
            seed: of the noise.
            extractors: see `stream`.

        Returns:
            None for the trained sampler itself, and for a generator that does not denoise.
        """
        chain = self._session_chain(extractors)
        if not isinstance(chain.generator, Denoiser) or chain.generator.is_trained_sampler:
            return None
        inbox = Inbox(silent=False, sample_rate_hz=self.sample_rate_hz)
        for chunk in islice(self._open(speaker).chunks(chain.generator.window), 1):
            inbox.add(chunk.video, chunk.audio, chain.clock())
        taken = inbox.window(inbox.n_frames)
        window, _ = chain.speaker.step(taken, chain.speaker.start(FaceTrack()), Ahead())
        return chain.generator.step_difference(window, seeded_noise(seed)(0, 0, chain.generator.noise_size)[None])

    def live(
        self,
        source: Source | SpeakerFile | str | Path | Iterable[Timed],
        sink: Sink | Callable[[ListenerFrame], object] | str | Path | None = None,
        *,
        playout_ms: float = LiveSettings.playout_ms,
        lookahead: int | None = None,
        samples: int = 1,
        seed: int = 0,
        noise: Noise | None = None,
        region: Region | None = None,
        floor: Rung = Rung.HOLD,
        stale_ms: float = LiveSettings.stale_ms,
        queue_ms: float = LiveSettings.queue_ms,
        policy: Policy = Policy.DROP_OLDEST,
        block_ms: float = LiveSettings.block_ms,
        extractors: Extractors | None = None,
        snapshot: Mapping[str, Array] | None = None,
        record: Callable[[Ledger], None] | None = None,
        clock: LiveClock | None = None,
        max_load: float | None = None,
    ) -> LiveSession:
        """React in real time. The session has started when this returns; use it in a `with` block.

            with listener.live("speaker.mp4", show) as session:  # or WebcamSource(), or any iterable of Timed
                session.wait()
            with listener.live(WebcamSource()) as session:       # without a sink: iterate, also with `async for`
                for frame in session:
                    ...

        Args:
            source: a clip, played at its own pace; a camera; or time-stamped pictures and sound.
            sink: gets every frame when it is due: a function, an .mp4 to write, or an object such as WindowSink().
            playout_ms: time to work in, on top of the algorithmic delay; more misses fewer deadlines, and is later.
                `pflx bench-latency` finds the smallest that misses none.
            lookahead: of this session, in place of the listener's.
            samples: M parallel reactions.
            seed: of their noise.
            noise: in place of `seed`.
            region: where the speaker's face is; None finds it in the first two seconds.
            floor: the lowest rung that may be chosen when time runs short; above HOLD, frames come late instead.
            stale_ms: how late a frame may come, and input may be used, at all.
            queue_ms: frames laid out for whoever iterates.
            policy: what happens when they are not taken.
            block_ms: how long to wait for them to be taken, with the policy BLOCK.
            extractors: see `stream`.
            snapshot: of a session or stream, to go on from.
            record: gets the ledger of every frame, shown or not; called by the session's threads, one at a time. It
                must return at once and not use the session.
            clock: what all of it runs on; None is the machine's clock. Sessions of one listener share one.
            max_load: share of their time that the engines may be busy with all sessions of this listener, by what the
                running ones cost and this one has cost while it was warmed up; None admits every session.

        Raises:
            FeedError: a setting out of range, or no source or sink.
            ListenerFullError: there is no time left for this session; the running ones go on.
            MediaError: a clip cannot be read, or a file not be written.
            StreamError: the snapshot is of something else.
            NeedError: see `stream`.
        """
        settings = LiveSettings(playout_ms, samples, floor, stale_ms, queue_ms, policy, block_ms)
        if floor is Rung.WARPED and not self._chain.renderer.has_mover:
            raise FeedError("floor is Rung.WARPED, and the bundle has no preview to move pictures with; give another.")
        if self._turn is None or (clock is not None and clock is not self._turn.clock):
            self._turn = Turn(clock or SystemClock())
        waits = self.lookahead if lookahead is None else min(_checked_lookahead(lookahead), self._chain.renderer.radius)
        chain = replace(self._session_chain(extractors, alone=True), clock=self._turn.clock, lookahead=waits)
        track = FaceTrack(region=region)
        stream = Stream(chain, samples=samples, noise=noise or seeded_noise(seed), track=track)
        if snapshot is not None:
            stream.restore(snapshot)
            stream.flush()
            stream.reopen()
        feed = as_source(source, self.sample_rate_hz)
        session = LiveSession(
            chain, stream, feed, as_sink(sink), self._turn, settings, record, lambda: self.load > _CROWDED
        )
        with self._sessions_lock:
            self._sessions.add(session)
        return session.start(lambda load: self._admit(load, max_load))

    @property
    def load(self) -> float:
        """Share of their time that the engines are busy with the live sessions that run, by what these cost lately."""
        with self._sessions_lock:
            sessions = list(self._sessions)
        return sum(session.load for session in sessions if session.is_running)

    @property
    def reads_pictures(self) -> bool:
        """Whether the generator sees the speaker; else only what extractors find counts."""
        return "video" in self.generator.needs

    def _admit(self, load: float, max_load: float | None) -> None:
        """Refuse a session of so much load, which does not run yet, beside those that do."""
        if max_load is not None and load + self.load > max_load:
            raise ListenerFullError(load + self.load, max_load)

    def _windows(
        self, generator: Generator, detector: FaceDetector, extractors: Mapping[str, Extractor]
    ) -> SpeakerWindows:
        view = SpeakerView(detector, self.manifest.pfl, crops="video" in generator.needs)
        return SpeakerWindows(generator, view, extractors, self.sample_rate_hz)

    def _opened(self, extractors: Extractors | None) -> dict[str, Extractor]:
        return open_extractors(extractors or {}, self.manifest.mean_face.values)

    def _session_chain(self, extractors: Extractors | None, frames: int | None = None, *, alone: bool = False) -> Chain:
        """The chain of one session, of so many frames, in which the generator gets all that it needs.

        With `alone`, it looks at the speaker with a detector of its own where the listener's is of pflx; where anything
        else looks, which may not be made for two sessions at once, it takes turns with the engines.
        """
        given = {**self._extractors, **self._opened(extractors)}
        require_needs(self.manifest.generator.name, self.generator.needs, given)
        for need, extractor in given.items():
            if isinstance(extractor, Recorded) and frames is not None and extractor.frames < frames - 1:
                raise FeedError(
                    f"The speaker's {need} are recorded for {extractor.frames} frames, and the clip has {frames}. "
                    f"Give those of this clip at {FPS} fps, or cut the clip."
                )
        needed = {need: extractor for need, extractor in given.items() if need in self._chain.generator.needs}
        if alone and self._own_detector and all(isinstance(each, Recorded) for each in needed.values()):
            windows = self._windows(self._chain.generator, BlazeFace(), given)
            return replace(self._chain, speaker=windows, looks_alone=True)
        return replace(self._chain, speaker=self._chain.speaker.with_extractors(given))

    def _open(self, speaker: SpeakerFile | str | Path) -> SpeakerFile:
        if isinstance(speaker, SpeakerFile):
            return speaker.at_rate(self.sample_rate_hz)
        return open_speaker(speaker, self.sample_rate_hz)

    def close(self) -> None:
        """Close all engines; closing twice is harmless."""
        close_engines(self._engines, self._gpu)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _checked_lookahead(lookahead: int) -> int:
    if not 0 <= lookahead <= WINDOW_RADIUS:
        raise FeedError(f"lookahead is {lookahead}; it goes from 0 to {WINDOW_RADIUS} frames.")
    return lookahead


def _several(given: Portrait | Sequence[Portrait]) -> Sequence[Portrait]:
    several = [given] if isinstance(given, str | Path | np.ndarray) else list(given)
    if not several:
        raise FeedError("No portrait was given; the listener needs at least one.")
    return several
