"""Every generator on a real clip, through the whole listener: its real graphs, real features, and a fake renderer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from support.exported_generators import exported_generator
from support.fakes import ONE_FACE, fake_engines, fake_manifest, portrait_of
from support.live.live_sessions import run
from support.places import MEDIA

from pflx.engines import Array, Bundle, Engine, GeneratorInfo, OrtEngine, SmootherInfo
from pflx.runtime import (
    GeneratorOptions,
    Listener,
    ListenerFrame,
    Recorded,
    Region,
    Rung,
    SpeakerSettings,
    open_speaker,
)
from pflx.runtime.live.clock import VirtualClock

CLIP = MEDIA / "podium_speech_8s.mp4"
KINDS = ("reactface", "perfrdiff", "transvae", "belfusion", "backchannel")
FRAMES = 60
REGION = Region(20, 20, 220, 220)


def emotion() -> Recorded:
    waves = np.sin(0.1 * np.arange(FRAMES)[:, None] + np.arange(25))
    return Recorded(np.asarray(0.5 + 0.4 * waves, np.float32))


Made = tuple[GeneratorInfo, int, Mapping[str, Path]]
"""What the manifest says of a generator, the rate of its sound, and its graphs with that of PosNet."""


def made(kind: str, request: pytest.FixtureRequest) -> Made:
    if kind == "reactface":
        bundle = Bundle.open(request.getfixturevalue("exported"), verify=False)
        info = bundle.manifest.generator
        paths = {graph: bundle.graph_path(graph, "fp32") for graph in (*info.graphs.values(), "posnet")}
        return info, bundle.manifest.sample_rate_hz, paths
    found = exported_generator(kind)
    return (
        found.parts.info,
        found.parts.sample_rate_hz,
        {name: found.graphs.path(name, "fp32") for name in found.graphs.infos},
    )


def opened(info: GeneratorInfo, rate: int, paths: Mapping[str, Path]) -> Listener:
    """A listener on the generator's and PosNet's real graphs; it renders in no time."""
    engines: dict[str, Engine] = {graph: OrtEngine(path) for graph, path in paths.items()}
    manifest = fake_manifest(
        generator=info,
        smoother=SmootherInfo(name="posnet", slide=info.hop, graphs={"smooth": "posnet"}),
        sample_rate_hz=rate,
    )
    return Listener(
        manifest,
        {**fake_engines(), **engines},
        portrait_of(),
        lookahead=3,
        speaker=SpeakerSettings(detector=ONE_FACE, extractors={"coefficients": "landmarks", "emotion": emotion()}),
        options=GeneratorOptions(steps=3) if info.name == "perfrdiff" else None,
    )


@pytest.fixture(name="kind", params=KINDS)
def each_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="listener")
def listener_of_a_kind(kind: str, request: pytest.FixtureRequest) -> Iterator[Listener]:
    with opened(*made(kind, request)) as listener:
        yield listener


def tracks(frames: list[ListenerFrame]) -> Array:
    """[frames, 58 and more] of all that a frame says of the reaction."""
    emotions = [np.zeros(25) if frame.emotion is None else frame.emotion for frame in frames]
    rows = zip(frames, emotions, strict=True)
    return np.stack([np.concatenate([frame.coefficients, frame.generated_pose, told]) for frame, told in rows])


def test_a_clip_becomes_a_reaction_however_it_is_pushed(kind: str, listener: Listener) -> None:
    clip = open_speaker(CLIP).limited(FRAMES / 25)
    whole = list(listener.react(clip, speaker=SpeakerSettings(region=REGION), samples=2, seed=3))
    assert [(frame.ledger.frame, frame.sample) for frame in whole] == [(k, m) for k in range(FRAMES) for m in range(2)]
    assert np.isfinite(tracks(whole)).all()
    assert np.ptp(tracks(whole)[::2], axis=0)[:58].max() > 1e-3
    assert (whole[0].emotion is None) == (kind in ("reactface", "backchannel"))
    pieces: list[ListenerFrame] = []
    with listener.stream(speaker=SpeakerSettings(region=REGION), samples=2, seed=3) as stream:
        for chunk in clip.at_rate(listener.sample_rate_hz).chunks(7):
            stream.push(video=chunk.video)
            half = len(chunk.audio) // 2
            stream.push(audio=chunk.audio[:half])
            pieces += islice(stream.pull(), 5)
            stream.push(audio=chunk.audio[half:])
        stream.finish()
        pieces += stream.pull()
    np.testing.assert_array_equal(tracks(pieces), tracks(whole))


def test_a_session_goes_on_from_its_snapshot(listener: Listener) -> None:
    clip = open_speaker(CLIP, listener.sample_rate_hz).limited(FRAMES / 25)
    whole = list(listener.react(clip, speaker=SpeakerSettings(region=REGION), seed=3))
    chunks = list(clip.chunks(10))
    with listener.stream(speaker=SpeakerSettings(region=REGION), seed=3) as stream:
        for chunk in chunks[:3]:
            stream.push(video=chunk.video, audio=chunk.audio)
        frames = list(islice(stream.pull(), 9))
        arrays = {name: value.copy() for name, value in stream.snapshot().items()}
    with listener.resume(arrays, seed=3) as stream:
        for chunk in chunks[3:]:
            stream.push(video=chunk.video, audio=chunk.audio)
        stream.finish()
        frames += stream.pull()
    np.testing.assert_array_equal(tracks(frames), tracks(whole))


def test_a_live_session_shows_the_clips_reaction(listener: Listener) -> None:
    clip = open_speaker(CLIP).limited(FRAMES / 25)
    whole = {frame.ledger.frame: frame for frame in listener.react(clip, speaker=SpeakerSettings(region=REGION))}
    result = run(clip, listener=listener, clock=VirtualClock(10**9), region=REGION)
    shown = [frame for frame in result.frames if frame.degraded is Rung.FULL]
    assert len(shown) >= FRAMES - 25  # the first second of PerFRDiff comes late
    np.testing.assert_array_equal(tracks(shown), tracks([whole[frame.ledger.frame] for frame in shown]))


def test_what_fewer_steps_change_is_told_of_the_generator_that_takes_steps(kind: str, listener: Listener) -> None:
    difference = listener.step_difference(open_speaker(CLIP).limited(FRAMES / 25))
    if kind != "perfrdiff":
        assert difference is None
    else:
        assert difference is not None
        assert (difference.n_steps, difference.solver) == (3, "ddim")
        assert 0 < difference.rms < difference.largest < 1
