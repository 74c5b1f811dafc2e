"""The public face of the runtime: open a bundle, let it react."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from pflx.engines import Array, Bundle, Engine, FeedError, Manifest, OrtEngine
from pflx.runtime.clock import LiveClock, SystemClock, Turn
from pflx.runtime.faces import BlazeFace, FaceDetector
from pflx.runtime.generators import Generator, make_generator
from pflx.runtime.latency import Ledger, Rung
from pflx.runtime.live import LiveSession
from pflx.runtime.media import FPS, SpeakerFile, open_speaker
from pflx.runtime.pfl import Box, Region
from pflx.runtime.queues import Policy
from pflx.runtime.rendering import WINDOW_RADIUS, Portrait, Renderer
from pflx.runtime.session import LiveSettings
from pflx.runtime.sinks import Sink, as_sink
from pflx.runtime.smoothing import Smoother
from pflx.runtime.sources import Source, Timed, as_source
from pflx.runtime.speaker import FaceTrack, SpeakerView, find_face, session_region
from pflx.runtime.stream import Chain, Clock, ListenerFrame, Noise, Stream, seeded_noise

log = logging.getLogger(__name__)

CALL_SIZES = {"speakers": 1, "portraits": 1, "frames": 1, "track": 2 * WINDOW_RADIUS + 1}
"""Named dimensions of a bundle's graphs that have the same size in every call of a stream."""


class Listener:
    """A bundle with its engines open, and the portraits it animates.

    One listener serves one thread; its streams share its engines and take turns.

    Args:
        manifest: what the bundle holds.
        engines: by graph name. They are closed with the listener.
        portrait: picture of the listener, or one per sample.
        lookahead: coefficient frames to wait for before rendering, 0…13: more is smoother and later.
        detector: finds the speaker's face; by default `BlazeFace`.
        clock: stamps the ledgers, monotonic, in ns.

    Raises:
        FeedError: the look-ahead is out of range, or there is no portrait.
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
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        if not 0 <= lookahead <= WINDOW_RADIUS:
            raise FeedError(f"lookahead is {lookahead}; it goes from 0 to {WINDOW_RADIUS} frames.")
        self.manifest = manifest
        self._engines = engines
        self._detector = detector or BlazeFace()
        render_engines = {role: engines[graph] for role, graph in manifest.renderer.graphs.items()}
        renderer = Renderer(render_engines, manifest.renderer.size)
        self._chain = Chain(
            view=SpeakerView(self._detector, manifest.pfl),
            generator=make_generator(manifest.generator, engines),
            smoother=Smoother(engines[manifest.smoother.graphs["smooth"]]),
            renderer=renderer,
            portraits=[renderer.prepare(picture) for picture in _several(portrait)],
            mean_face=np.array(manifest.mean_face.values, np.float32),
            lookahead=lookahead,
            clock=clock,
        )
        self._turn: Turn | None = None

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        portrait: Portrait | Sequence[Portrait],
        *,
        device: str = "cpu",
        precision: str | None = None,
        threads: int | None = None,
        verify: bool = True,
        lookahead: int = WINDOW_RADIUS,
        detector: FaceDetector | None = None,
    ) -> Self:
        """Open a bundle on ONNX Runtime.

        Args:
            bundle: the folder `NAME.pflx`.
            portrait: picture of the listener (path, or uint8 [H, W, 3] RGB), or one per sample.
            device: "cpu", or "cuda:N" for the GPU package of ONNX Runtime.
            precision: a variant the bundle holds; None takes the bundle's own.
            threads: per engine; None leaves it to ONNX Runtime.
            verify: False skips the hashes of the files, not their sizes.
            lookahead: see the class.
            detector: see the class.

        Raises:
            BundleError, DeviceError, EngineError, BackendMissingError, PortraitError: what cannot be opened.
        """
        opened = Bundle.open(bundle, verify=verify)
        engines: dict[str, Engine] = {}
        try:
            for graph in opened.manifest.graphs:
                path = opened.graph_path(graph, precision)
                engines[graph] = OrtEngine(path, device=device, threads=threads, sizes=CALL_SIZES)
            return cls(opened.manifest, engines, portrait, lookahead=lookahead, detector=detector)
        except BaseException:
            _close(engines)
            raise

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

        A frame waits for its segment to close (at worst the whole hop) and for its look-ahead. On average an event
        waits for half a hop only.
        """
        return (self._chain.generator.hop + self._chain.lookahead) * 1000 / FPS

    def stream(
        self,
        *,
        samples: int = 1,
        seed: int = 0,
        noise: Noise | None = None,
        region: Region | None = None,
        audio: bool = True,
        start_s: float = 0.0,
    ) -> Stream:
        """A live session whose clock is the caller's.

        Args:
            samples: M parallel reactions.
            seed: of their noise.
            noise: in place of `seed`.
            region: where the speaker's face is, fixed; None finds it in the first two seconds.
            audio: False for a speaker without sound.
            start_s: time of the first frame on the speaker's media clock.
        """
        noise = noise or seeded_noise(seed)
        track = FaceTrack(region=region)
        return Stream(self._chain, samples=samples, noise=noise, track=track, audio=audio, start_s=start_s)

    def resume(self, snapshot: Mapping[str, Array], *, seed: int = 0, noise: Noise | None = None) -> Stream:
        """A stream that goes on where `Stream.snapshot` was taken, here or in another process.

        Args:
            snapshot: of a stream on the same bundle, with the same look-ahead.
            seed: the one of that stream, or `noise` in its place.
            noise: see `stream`.

        Raises:
            StreamError: the arrays are no snapshot.
        """
        samples = int(snapshot["samples"][0]) if np.size(snapshot.get("samples", ())) else 1
        stream = self.stream(samples=samples, seed=seed, noise=noise)
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
        clip = speaker if isinstance(speaker, SpeakerFile) else open_speaker(speaker)
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
    ) -> Iterator[ListenerFrame]:
        """React to a clip: a stream fed from a file. Memory does not grow with the clip.

        Args:
            speaker: the clip.
            samples: M parallel reactions.
            seed: of their noise.
            noise: in place of `seed`.
            region: where the speaker's face is; None looks it up in a pass over the whole clip first.

        Yields:
            One frame per sample and 1/25 s of the clip.

        Raises:
            MediaError: the clip cannot be read.
        """
        clip = speaker if isinstance(speaker, SpeakerFile) else open_speaker(speaker)
        region = region or self.find_region(clip)
        with self.stream(samples=samples, seed=seed, noise=noise, region=region) as stream:
            for chunk in clip.chunks(self._chain.generator.hop):
                stream.push(video=chunk.video, audio=chunk.audio)
                yield from stream.pull()
            stream.finish()
            yield from stream.pull()

    def live(
        self,
        source: Source | SpeakerFile | str | Path | Iterable[Timed],
        sink: Sink | Callable[[ListenerFrame], object] | str | Path | None = None,
        *,
        playout_ms: float = LiveSettings.playout_ms,
        samples: int = 1,
        seed: int = 0,
        noise: Noise | None = None,
        region: Region | None = None,
        floor: Rung = Rung.HOLD,
        stale_ms: float = LiveSettings.stale_ms,
        queue_ms: float = LiveSettings.queue_ms,
        policy: Policy = Policy.DROP_OLDEST,
        block_ms: float = LiveSettings.block_ms,
        snapshot: Mapping[str, Array] | None = None,
        record: Callable[[Ledger], None] | None = None,
        clock: LiveClock | None = None,
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
            samples: M parallel reactions.
            seed: of their noise.
            noise: in place of `seed`.
            region: where the speaker's face is; None finds it in the first two seconds.
            floor: the lowest rung that may be chosen when time runs short; above HOLD, frames come late instead.
            stale_ms: how late a frame may come, and input may be used, at all.
            queue_ms: frames laid out for whoever iterates.
            policy: what happens when they are not taken.
            block_ms: how long to wait for them to be taken, with the policy BLOCK.
            snapshot: of a session or stream, to go on from.
            record: gets the ledger of every frame, shown or not; called by the session's threads, one at a time. It
                must return at once and not use the session.
            clock: what all of it runs on; None is the machine's clock. Sessions of one listener share one.

        Raises:
            FeedError: a setting out of range, or no source or sink.
            MediaError: a clip cannot be read, or a file not be written.
            StreamError: the snapshot is of something else.
        """
        settings = LiveSettings(playout_ms, samples, floor, stale_ms, queue_ms, policy, block_ms)
        if self._turn is None or (clock is not None and clock is not self._turn.clock):
            self._turn = Turn(clock or SystemClock())
        chain = replace(self._chain, clock=self._turn.clock)
        track = FaceTrack(region=region)
        stream = Stream(chain, samples=samples, noise=noise or seeded_noise(seed), track=track)
        if snapshot is not None:
            stream.restore(snapshot)
            stream.flush()
            stream.reopen()
        session = LiveSession(chain, stream, as_source(source), as_sink(sink), self._turn, settings, record)
        return session.start()

    def close(self) -> None:
        """Close all engines; closing twice is harmless."""
        _close(self._engines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _several(given: Portrait | Sequence[Portrait]) -> Sequence[Portrait]:
    several = [given] if isinstance(given, str | Path | np.ndarray) else list(given)
    if not several:
        raise FeedError("No portrait was given; the listener needs at least one.")
    return several


def _close(engines: Mapping[str, Engine]) -> None:
    for engine in engines.values():
        engine.close()
