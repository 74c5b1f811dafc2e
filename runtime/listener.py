"""The public face of the runtime: open a bundle, let it react."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from pflx.engines import Array, Bundle, Engine, Manifest
from pflx.engines.gpu.device import Device
from pflx.runtime.beside_loop import beside_loop
from pflx.runtime.bundle_engines import AS_IT_IS, EngineSettings, close_engines, open_bundle, sessions_at_once
from pflx.runtime.frames.coefficients import WINDOW_RADIUS, check_lookahead
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FPS, Clock
from pflx.runtime.generators import Generator, GeneratorOptions, Persons, make_generator
from pflx.runtime.generators.protocol import StepDifference, delay_frames
from pflx.runtime.generators.speaker_side import SpeakerSide
from pflx.runtime.live.clock import LiveClock
from pflx.runtime.live.session import LiveSession
from pflx.runtime.live.settings import PROMPT, LiveSettings
from pflx.runtime.media.clip import SpeakerFile, speaker_for
from pflx.runtime.media.sinks import Shown, as_sinks
from pflx.runtime.media.sources import Source, Timed, as_source
from pflx.runtime.persons import Whom, read_person
from pflx.runtime.rendering.renderers import NoPictures, Portrait, make_renderer, several_portraits
from pflx.runtime.sharing import Sharing
from pflx.runtime.speaker.clip_region import clip_region
from pflx.runtime.speaker.extractors import check_voice_alone
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.speaker.faces import FaceDetector
from pflx.runtime.speaker.pfl import Region, centre_square
from pflx.runtime.speaker.settings import UNKNOWN, SpeakerSettings
from pflx.runtime.stream.chain import PUBLISHED, Chain, ChainSettings, Noise, as_noise, check_history
from pflx.runtime.stream.first_window import first_window_difference
from pflx.runtime.stream.played import played
from pflx.runtime.stream.posnet import make_smoother
from pflx.runtime.stream.saved import chosen_seed, snapshot_samples
from pflx.runtime.stream.stream import Stream


class Listener:
    """A bundle with its engines open, and the portraits it animates.

    One listener serves one thread; its streams share its engines and take turns. `persons` knows whom it may be.

    Args:
        manifest: what the bundle holds.
        engines: by graph name. They are closed with the listener.
        portrait: picture of the listener, or one per sample.
        lookahead: coefficient frames to wait for, 0…13: more is smoother and later; `warp` reads, and waits for, none.
        foresight: of `pflx calibrate foresight`, or its file: foretells frames that were not waited for.
        speaker: what is known of every speaker.
        options: what is chosen of the generator.
        person: whose weights the generator has, or the file of `pflx person make`; None for nobody in particular.
        chain: what is left out of the published chain, or exchanged.
        badge: whether pictures get a label in a corner that says "AI".
        clock: stamps the ledgers, monotonic, in ns.
        gpu: that the engines run on; closed with the listener.
        render: False needs no portrait and no renderer: all that comes out is coefficients, images of frames are empty.
        at_once: live sessions that may use the engines at the same time, in threads of their own.

    Raises:
        FeedError: the look-ahead is out of range, there is no portrait, or the generator does not take an option.
        PortraitError, BundleError, PersonError: a portrait cannot be read; the generator is unknown; see `persons`.
    """

    def __init__(
        self,
        manifest: Manifest,
        engines: Mapping[str, Engine],
        portrait: Portrait | Sequence[Portrait] = (),
        *,
        lookahead: int = WINDOW_RADIUS,
        foresight: Foresight | str | Path | None = None,
        speaker: SpeakerSettings = UNKNOWN,
        options: GeneratorOptions | None = None,
        person: Whom | None = None,
        chain: ChainSettings = PUBLISHED,
        badge: bool = False,
        clock: Clock = time.perf_counter_ns,
        gpu: Device | None = None,
        render: bool = True,
        at_once: int = 1,
    ) -> None:
        check_lookahead(lookahead)
        self.manifest, self._engines, self._gpu = manifest, engines, gpu
        self.persons = Persons(manifest, make_generator(manifest.generator, engines, options))
        generator = self.persons.generator(person)
        chosen = chain.on(manifest)
        check_history(generator, manifest.generator.name, chosen)
        self._known, self._speakers = speaker, SpeakerSide(manifest, speaker, chosen.crop)
        ahead = generator.hop if gpu else 1
        renderer = make_renderer(manifest.renderer, engines, manifest.preview, ahead=ahead) if render else NoPictures()
        self._chain = Chain(
            speaker=self._speakers.windows(generator),
            generator=generator,
            smoother=make_smoother(generator, engines[manifest.smoother.graphs["smooth"]], wanted=chosen.posnet),
            renderer=renderer,
            portraits=[renderer.prepare(each) for each in (several_portraits(portrait) if render else [""])],
            mean_face=np.array(manifest.mean_face.values, np.float32),
            lookahead=min(lookahead, renderer.radius),
            clock=clock,
            settings=chosen,
            foresight=Foresight.read(foresight, generator.hop) if isinstance(foresight, (str, Path)) else foresight,
            badge=badge,
        )
        self._sharing = Sharing(at_once)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | None = None,
        portrait: Portrait | Sequence[Portrait] = (),
        *,
        device: str = "cpu",
        engines: EngineSettings = AS_IT_IS,
        renderer: str | None = None,
        size: int | None = None,
        lookahead: int = WINDOW_RADIUS,
        foresight: Foresight | str | Path | None = None,
        speaker: SpeakerSettings = UNKNOWN,
        options: GeneratorOptions | None = None,
        person: Whom | None = None,
        chain: ChainSettings = PUBLISHED,
        badge: bool = False,
        render: bool = True,
    ) -> Self:
        """Open a bundle.

        Args:
            bundle: the folder `NAME.pflx`, `hf://ORG/NAME`, or one that is open; None is the one that comes with pflx.
            portrait: picture of the listener (path, or uint8 [H, W, 3] RGB), or one per sample.
            device: "cpu", "cuda" or "cuda:N".
            engines: how the graphs are run.
            renderer: the one to use of those in the bundle; None takes its own, "warp" its preview.
            size: side of a picture in pixels, a multiple of 4; None takes the bundle's. "warp" makes pictures of any.
            lookahead: see the class.
            foresight: see the class.
            speaker: see the class.
            options: see the class.
            person: see the class.
            chain: see the class.
            badge: see the class.
            render: see the class.

        Raises:
            BundleError, HubError, DeviceError, EngineError, PassportError, BackendMissingError, PortraitError,
                PersonError: what cannot be opened.
        """
        whom = None if person is None else read_person(person)  # what is no person is told before engines are opened
        shown = partial(cls, portrait=portrait, lookahead=lookahead, foresight=foresight, badge=badge, render=render)
        made = partial(shown, speaker=speaker, options=options, person=whom, chain=chain)
        opened, found, gpu = open_bundle(bundle, renderer, size, device, engines, render=render)
        try:
            return made(opened.manifest, found, gpu=gpu, at_once=sessions_at_once(opened, gpu, engines))
        except BaseException:
            close_engines(found, gpu)
            raise

    @classmethod
    async def aopen(cls, *given: Any, **options: Any) -> Self:
        """`open`, in an event loop, which goes on meanwhile. Takes, gives and raises the same."""
        return await beside_loop(partial(cls.open, *given, **options), undo=cls.close)

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
    def made_with(self) -> Mapping[str, Any]:
        """What its reactions are made with, by the names of `ChainSettings`, as it comes to on this bundle."""
        return asdict(self._chain.settings)

    @property
    def lookahead(self) -> int:
        """Coefficient frames that rendering waits for."""
        return self._chain.lookahead

    @property
    def algorithmic_delay_ms(self) -> float:
        """How far the listener trails the speaker on infinitely fast hardware, in ms.

        A frame waits for its segment to close, at worst the whole hop less the segment's lead, and for its look-ahead.
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
        seed: int | Noise = 0,
        speaker: SpeakerSettings = UNKNOWN,
        person: Whom | None = None,
        audio: bool = True,
        start_s: float = 0.0,
        render: bool = True,
    ) -> Stream:
        """A live session whose clock is the caller's.

        Args:
            samples: M parallel reactions.
            seed: of their noise, or what makes the noise.
            speaker: what is known of this one, in place of what the listener was told.
            person: whose weights the generator has, or its file; None leaves it as the listener was opened.
            audio: False for a speaker without sound.
            start_s: time of the first frame on the speaker's media clock.
            render: False makes the same coefficients alone: images are empty, and frames come with their segment.

        Raises:
            FeedError, PersonError: a setting out of range; the person is of another bundle.
            NeedError: the generator reads something of the speaker that nothing gives.
        """
        chain, track = self._session_chain(speaker, person), FaceTrack(region=speaker.region or self._known.region)
        chain = chain.drawing(render)
        return Stream(chain, samples=samples, noise=as_noise(seed), track=track, audio=audio, start_s=start_s)

    def resume(
        self,
        snapshot: Mapping[str, Array],
        *,
        seed: int | Noise | None = None,
        speaker: SpeakerSettings = UNKNOWN,
        person: Whom | None = None,
        portrait: Portrait | None = None,
    ) -> Stream:
        """A stream that goes on where `Stream.snapshot` was taken, here or in another process.

        Args:
            snapshot: of a stream on the same bundle, with the same look-ahead and foresight.
            seed: that of the snapshot, which None takes; or what made the noise of that stream.
            speaker: as that stream had it; its region is part of the snapshot.
            person: the one of that stream, of which the snapshot has the hash; another is refused.
            portrait: what that stream showed, if not the listener's; the snapshot has its hash, another is logged.

        Raises:
            StreamError: the arrays are no snapshot, or it does not fit.
            NeedError, PersonError, PortraitError: see `stream` and `Stream.set_portrait`.
        """
        samples, seed = snapshot_samples(snapshot), chosen_seed(seed, snapshot)
        stream = self.stream(samples=samples, seed=seed, speaker=speaker, person=person)
        if portrait is not None:
            stream.set_portrait(portrait)
        stream.restore(snapshot)
        return stream

    def find_region(
        self,
        clip: SpeakerFile | str | Path,
        *,
        detector: FaceDetector | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Region:
        """The fixed region of a whole clip: the first of the two passes over a file.

        Args:
            clip: of the speaker.
            detector: finds the face; by default the listener's.
            progress: called with the number of frames searched so far.

        Raises:
            MediaError: the clip cannot be read.
            NeedError: it has no pictures.
        """
        clip = speaker_for(clip, self.manifest)
        if not clip.has_pictures:
            check_voice_alone(self.manifest.generator.name, ("video",), {}, (), clip.path)
        return clip_region(clip, detector or self._speakers.detector, self._speakers.pfl, progress)

    def react(
        self,
        clip: SpeakerFile | str | Path,
        *,
        samples: int = 1,
        seed: int | Noise = 0,
        speaker: SpeakerSettings = UNKNOWN,
        person: Whom | None = None,
        portrait: Portrait | None = None,
        render: bool = True,
    ) -> Iterator[ListenerFrame]:
        """React to a clip: a stream fed from a file. Memory does not grow with the clip.

        Args:
            clip: of the speaker.
            samples: M parallel reactions.
            seed: see `stream`.
            speaker: see `stream`. For a generator that reads pictures, a pass over the clip finds an unknown region.
            person: see `stream`.
            portrait: shown in place of the listener's.
            render: see `stream`.

        Yields:
            One frame per sample and 1/25 s of the clip.

        Raises:
            MediaError, PortraitError: the clip, or the portrait, cannot be read.
            NeedError, PersonError: see `stream`.
        """
        clip = speaker_for(clip, self.manifest)
        chain = self._session_chain(speaker, person, clip)  # what lacks is told before the long search for the face
        region = speaker.region or self._known.region
        if region is None and self.reads_pictures:
            region = self.find_region(clip, detector=speaker.detector)
        track = FaceTrack(region=region or centre_square((clip.width, clip.height)))
        with Stream(chain.drawing(render), samples=samples, noise=as_noise(seed), track=track) as stream:
            if portrait is not None:
                stream.set_portrait(portrait)
            yield from played(clip, stream, chain.generator.hop, on_gpu=self._gpu is not None)

    def step_difference(
        self, clip: SpeakerFile | str | Path, *, seed: int = 0, speaker: SpeakerSettings = UNKNOWN
    ) -> StepDifference | None:
        """How far the chosen denoising steps are from the trained sampler, on the first window of a clip.

        Args:
            clip: of the speaker.
            seed: of the noise.
            speaker: see `stream`.

        Returns:
            None for the trained sampler itself, and for a generator that does not denoise.
        """
        return first_window_difference(self._session_chain(speaker, None), speaker_for(clip, self.manifest), seed)

    def live(
        self,
        source: Source | SpeakerFile | str | Path | Iterable[Timed],
        sink: Shown | Sequence[Shown] | None = None,
        settings: LiveSettings = PROMPT,
        *,
        samples: int = 1,
        seed: int | Noise | None = None,
        speaker: SpeakerSettings = UNKNOWN,
        person: Whom | None = None,
        snapshot: Mapping[str, Array] | None = None,
        record: Callable[[Ledger], None] | None = None,
        clock: LiveClock | None = None,
    ) -> LiveSession:
        """React in real time. The session has started when this returns; use it in a `with` block.

            with listener.live("speaker.mp4", show) as session:  # or WebcamSource(), or any iterable of Timed
                session.wait()

        Args:
            source: a clip, played at its own pace; a camera; or time-stamped pictures and sound.
            sink: gets every frame when it is due: a function, an .mp4, an object such as WindowSink(), or several, of
                which none stops another (`sink_errors`). Without: `session.frames()`.
            settings: how it keeps time.
            samples: M parallel reactions.
            seed: see `stream`; None is that of the snapshot, or 0. With another one the listener blinks at other times.
            speaker: see `stream`.
            person: see `stream`; with a snapshot, see `resume`.
            snapshot: of a session or stream, to go on from.
            record: gets every frame's ledger, in the session's threads: must return at once, and not use the session.
            clock: what all of it runs on; None is the machine's clock. Sessions of one listener share one.

        Raises:
            FeedError: a setting out of range, or no source or sink.
            ListenerFullError: there is no time left for this session; the running ones go on.
            MediaError: a clip cannot be read, or a file not be written.
            StreamError: the snapshot is of something else.
            NeedError, PersonError: see `stream`.
        """
        sharing = self._sharing
        sharing.run_on(clock)
        clip = speaker_for(source, self.manifest) if isinstance(source, str | Path | SpeakerFile) else None
        chain = settings.on(self._session_chain(speaker, person, clip, alone=True), sharing.turn.clock)
        track = FaceTrack(region=speaker.region or self._known.region)
        stream = Stream(chain, samples=samples, noise=as_noise(chosen_seed(seed, snapshot)), track=track)
        if snapshot is not None:
            stream.go_on_from(snapshot)
        feed, sinks = as_source(clip or source, self.sample_rate_hz), as_sinks(sink, clip or source)
        session = LiveSession(
            chain, stream, feed, sinks, sharing.turn, settings, samples, record, lambda: sharing.is_crowded
        )
        sharing.add(session)
        return session.start(lambda load: sharing.admit(load, settings.max_load))

    @asynccontextmanager
    async def alive(self, *given: Any, **options: Any) -> AsyncIterator[LiveSession]:
        """`live`, in an event loop, which goes on while the session starts and ends. Takes and raises the same.

        async with listener.alive(source) as session:
            async for frame in session.frames():
                ...
        """
        session = await beside_loop(partial(self.live, *given, **options), undo=LiveSession.close)
        try:
            yield session
        finally:
            await beside_loop(session.close)
        session.check()

    @property
    def load(self) -> float:
        """Share of its engines' time that the live sessions take which run, by what they cost lately."""
        return self._sharing.load

    @property
    def reads_pictures(self) -> bool:
        """Whether the generator sees the speaker; else only what extractors find counts."""
        return "video" in self.generator.needs

    def _session_chain(
        self, speaker: SpeakerSettings, person: Whom | None, clip: SpeakerFile | None = None, *, alone: bool = False
    ) -> Chain:
        """The chain of one session, of one clip if that is known, in which the generator gets all that it needs.

        With `alone`, it looks at the speaker beside the engines' work, if it can; else it takes turns with them. Where
        sessions use the engines at the same time, looking is part of their turns.
        """
        shared, sharing = self._chain.speaker, self._sharing
        lock = sharing.looking if alone and sharing.places > 1 else None
        windows, looks_alone = self._speakers.of_session(self.generator, shared, speaker, clip, alone=alone, lock=lock)
        generator = self._chain.generator if person is None else self.persons.generator(person)
        return replace(self._chain, speaker=windows, generator=generator, looks_alone=looks_alone)

    def close(self) -> None:
        """Close all engines; closing twice is harmless."""
        close_engines(self._engines, self._gpu)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
