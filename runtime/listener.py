"""The public face of the runtime: open a bundle, let it react."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from pflx.engines import Array, Bundle, Engine, FeedError, Manifest, OrtEngine
from pflx.runtime.faces import BlazeFace, FaceDetector
from pflx.runtime.generators import Generator, make_generator
from pflx.runtime.media import FPS, SpeakerFile, open_speaker
from pflx.runtime.pfl import Box, Region
from pflx.runtime.rendering import WINDOW_RADIUS, Portrait, Renderer
from pflx.runtime.smoothing import Smoother
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
