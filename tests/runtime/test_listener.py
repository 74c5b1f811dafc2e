"""The listener: opening a bundle, regions of clips, and files as streams."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.fakes import (
    MEAN_FACE,
    ONE_FACE,
    SIZE,
    Faces,
    fake_engine,
    fake_engines,
    fake_listener,
    open_fake,
    portrait_of,
    sound_of,
    write_fake_bundle,
)
from support.places import MEDIA

from pflx.engines import BundleError, Engine, EngineError, FakeEngine, FeedError
from pflx.runtime import (
    BlazeFace,
    EngineSettings,
    FaceState,
    Listener,
    ListenerFrame,
    MediaError,
    PortraitError,
    Region,
    SpeakerSettings,
    bundle_engines,
    open_speaker,
)
from pflx.runtime.bundle_engines import CALL_SIZES
from pflx.runtime.media.video_writer import VideoWriter

PODIUM = MEDIA / "podium_speech_8s.mp4"
UNSEEN = Faces(lambda _: [])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds and a bit of grey noise with sound."""
    path = tmp_path_factory.mktemp("clips") / "noise.mp4"
    pictures = np.random.default_rng(0).integers(90, 160, (53, 48, 64, 3), np.uint8)
    with VideoWriter(path, size=(64, 48), audio=True) as writer:
        writer.write(pictures)
        writer.write_audio(sound_of(53))
    return path


def content(frames: Iterable[ListenerFrame]) -> list[tuple[Any, ...]]:
    return [
        (
            frame.sample,
            frame.time_s,
            frame.face,
            hashlib.sha256(frame.image.tobytes()).digest(),
            frame.coefficients.tobytes(),
        )
        for frame in frames
    ]


@pytest.mark.parametrize("frames_per_push", [1, 7, 64])
def test_offline_is_the_stream_fed_from_the_file(frames_per_push: int) -> None:
    """A real clip and the real face detector; 11.94 fps and 24 kHz become 25 fps and 16 kHz on the way."""
    listener = fake_listener(detector=BlazeFace(), lookahead=13)
    region = listener.find_region(PODIUM)
    expected = content(listener.react(PODIUM, samples=2, seed=3, speaker=SpeakerSettings(region=region)))
    frames: list[ListenerFrame] = []
    with listener.stream(samples=2, seed=3, speaker=SpeakerSettings(region=region)) as stream:
        for chunk in open_speaker(PODIUM).chunks(frames_per_push):
            stream.push(video=chunk.video)
            frames += stream.pull()
            stream.push(audio=chunk.audio)
        stream.finish()
        frames += stream.pull()
    assert content(frames) == expected
    assert len(expected) == 2 * sum(len(chunk.video) for chunk in open_speaker(PODIUM).chunks())


def test_react_looks_the_region_up_in_a_pass_of_its_own() -> None:
    listener = fake_listener(detector=BlazeFace())
    region = listener.find_region(open_speaker(PODIUM))
    assert content(listener.react(PODIUM)) == content(
        listener.react(str(PODIUM), speaker=SpeakerSettings(region=region))
    )


def test_the_region_of_a_clip_holds_its_face() -> None:
    seen: list[int] = []
    region = fake_listener(detector=BlazeFace()).find_region(PODIUM, progress=seen.append)
    assert 0 <= region.left < region.right <= 320
    assert 0 <= region.top < region.bottom <= 240
    assert seen == sorted(seen)
    assert seen[-1] == sum(len(chunk.video) for chunk in open_speaker(PODIUM).chunks())


def test_a_clip_without_a_face_shows_its_middle_and_is_warned_about_once(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener = fake_listener(detector=UNSEEN)
    with caplog.at_level(logging.WARNING):
        frames = list(listener.react(clip))
    assert len(frames) == 53
    assert {frame.face for frame in frames} == {FaceState.LOST}
    assert listener.find_region(clip) == Region(8, 0, 56, 48)
    assert [r.getMessage() for r in caplog.records][:1] == [
        f"No face in {clip}: using the middle of the frame, Region(left=8, top=0, right=56, bottom=48)."
    ]
    assert len(caplog.records) == 2


def test_a_portrait_may_be_a_file_an_array_or_several(tmp_path: Path) -> None:
    picture = portrait_of(3)
    cv2.imwrite(str(tmp_path / "me.png"), picture[..., ::-1])
    for portrait in (picture, tmp_path / "me.png", str(tmp_path / "me.png"), [picture], [tmp_path / "me.png"]):
        engines = fake_engines()
        listener = fake_listener(engines, portrait=portrait)
        stream = listener.stream()
        stream.push(video=np.zeros((8, 40, 48, 3), np.uint8), audio=sound_of(8))
        images = [frame.image for frame in stream.pull()]
        assert images[0].shape == (SIZE, SIZE, 3)
        assert isinstance(engines["pirender_portrait"], FakeEngine)
        assert engines["pirender_portrait"].calls == 1


def test_the_features_of_a_portrait_are_computed_once(clip: Path) -> None:
    engines = fake_engines()
    frames = list(fake_listener(engines, portrait=[portrait_of(0), portrait_of(1)]).react(clip, samples=4))
    assert len(frames) == 4 * 53
    calls = {graph: engine.calls for graph, engine in engines.items() if isinstance(engine, FakeEngine)}
    assert calls == {
        "reactface_speaker": 7,
        "reactface_listener": 7,
        "posnet": 6,
        "pirender_portrait": 2,
        "pirender_frame": 4 * 53,
    }


@pytest.mark.parametrize("lookahead", [0, 13])
def test_without_pictures_the_numbers_are_the_same_and_nothing_is_rendered(clip: Path, lookahead: int) -> None:
    engines = fake_engines()
    listener = fake_listener(engines, lookahead=lookahead)
    drawn = list(listener.react(clip, samples=2, seed=3))
    rendered = _calls(engines, "pirender_frame")
    bare = list(listener.react(clip, samples=2, seed=3, render=False))
    assert (rendered, _calls(engines, "pirender_frame")) == (2 * 53, 2 * 53)
    assert {frame.image.shape for frame in bare} == {(0, 0, 3)}
    _assert_same_numbers(bare, drawn)
    blind = Listener(listener.manifest, engines, speaker=SpeakerSettings(detector=ONE_FACE), render=False)
    _assert_same_numbers(list(blind.react(clip, samples=2, seed=3)), drawn)
    assert _calls(engines, "pirender_portrait") == 1


def test_a_stream_without_pictures_gives_a_frame_as_soon_as_its_segment_is_closed() -> None:
    listener = fake_listener(lookahead=13)
    stream = listener.stream(render=False)
    stream.push(video=np.zeros((8, 40, 48, 3), np.uint8), audio=sound_of(8))
    assert [frame.ledger.frame for frame in stream.pull()] == [*range(8)]


def test_a_reaction_shows_another_portrait_where_it_is_given_one(clip: Path) -> None:
    other = portrait_of(5)
    shown = next(fake_listener().react(clip, portrait=other)).image
    np.testing.assert_array_equal(shown, next(fake_listener(portrait=other).react(clip)).image)
    assert not np.array_equal(shown, next(fake_listener().react(clip)).image)


def _calls(engines: Mapping[str, Engine], graph: str) -> int:
    engine = engines[graph]
    assert isinstance(engine, FakeEngine)
    return engine.calls


def _assert_same_numbers(some: Sequence[ListenerFrame], others: Sequence[ListenerFrame]) -> None:
    for one, other in zip(some, others, strict=True):
        assert (one.sample, one.time_s, one.face) == (other.sample, other.time_s, other.face)
        np.testing.assert_array_equal(one.coefficients, other.coefficients)
        np.testing.assert_array_equal(one.generated_pose, other.generated_pose)


def test_coefficients_come_with_the_mean_face(clip: Path) -> None:
    engines = fake_engines(reactface_listener=lambda feeds: {**_still(len(feeds["eps"]))})
    for frame in fake_listener(engines).react(clip, samples=2):
        np.testing.assert_array_equal(frame.coefficients, MEAN_FACE)
        np.testing.assert_array_equal(frame.generated_pose, MEAN_FACE[52:])


def _still(samples: int) -> dict[str, Any]:
    return {"reaction": np.zeros((samples, 8, 58), np.float32), "motion": np.zeros((samples, 128), np.float32)}


@pytest.mark.parametrize("lookahead", [-1, 14])
def test_a_look_ahead_out_of_range_is_refused(lookahead: int) -> None:
    with pytest.raises(FeedError, match=f"lookahead is {lookahead}; it goes from 0 to 13"):
        fake_listener(lookahead=lookahead)


@pytest.mark.parametrize("lookahead", [0, 13])
def test_the_delay_is_a_hop_and_the_look_ahead(lookahead: int) -> None:
    listener = fake_listener(lookahead=lookahead)
    assert listener.lookahead == lookahead
    assert listener.algorithmic_delay_ms == (8 + lookahead) * 40


def test_no_portrait_is_refused() -> None:
    with pytest.raises(FeedError, match="No portrait was given"):
        fake_listener(portrait=[])


@pytest.mark.parametrize("speaker", ["nowhere.mp4", __file__])
def test_a_speaker_that_is_no_clip_is_an_error_in_one_line(speaker: str) -> None:
    with pytest.raises(MediaError) as caught:
        next(fake_listener().react(speaker))
    assert "\n" not in str(caught.value)


def test_closing_a_listener_closes_its_engines_once_or_twice() -> None:
    engines = fake_engines()
    with fake_listener(engines) as listener:
        stream = listener.stream()
    listener.close()
    stream.push(video=np.zeros((8, 40, 48, 3), np.uint8), audio=sound_of(8))
    with pytest.raises(EngineError, match="closed"):
        list(stream.pull())


def test_a_bundle_is_opened_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    opened: list[tuple[str, Any]] = []

    def record(path: Path, **options: Any) -> FakeEngine:
        content = options.pop("read")()
        assert content == path.read_bytes()
        opened.append((path.name, options))
        return open_fake(path)

    monkeypatch.setattr(bundle_engines, "OrtEngine", record)
    bundle = write_fake_bundle(tmp_path / "me.pflx")
    with Listener.open(
        bundle,
        portrait_of(),
        engines=EngineSettings(threads=3),
        lookahead=2,
        speaker=SpeakerSettings(detector=ONE_FACE),
    ) as listener:
        assert listener.lookahead == 2
        assert len(list(listener.react(clip))) == 53
    assert sorted(name for name, _ in opened) == sorted(f"{graph}.fp32.onnx" for graph in fake_engines())
    assert all(
        options == {"threads": 3, "sizes": {**CALL_SIZES, "side": SIZE, "half": SIZE // 2}, "pooled": False}
        for _, options in opened
    )
    with pytest.raises(BundleError, match="no fp16 variant; it has fp32"):
        Listener.open(bundle, portrait_of(), engines=EngineSettings(precision="fp16"))


def test_what_was_opened_is_closed_when_the_rest_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[FakeEngine] = []

    refused = ["pirender_portrait"]

    def open_most(path: Path, **_: object) -> FakeEngine:
        if path.name.split(".")[0] in refused:
            raise EngineError("no")
        engines.append(fake_engine(path.name.split(".")[0]))
        return engines[-1]

    monkeypatch.setattr(bundle_engines, "OrtEngine", open_most)
    bundle = write_fake_bundle(tmp_path / "me.pflx")
    for failure in (EngineError, PortraitError):
        with pytest.raises(failure):
            Listener.open(bundle, "nobody.png", speaker=SpeakerSettings(detector=ONE_FACE))
        assert engines
        for engine in engines:
            with pytest.raises(EngineError, match="closed"):
                engine.run({})
        engines.clear()
        refused.clear()


def test_importing_the_runtime_loads_no_torch_and_no_heavy_backend() -> None:
    heavy = ("torch", "cv2", "av", "onnxruntime", "PIL", "tensorrt", "tensorrt_rtx", "onnx", "typer")
    code = f"import sys, pflx.runtime; sys.exit(' '.join(set({heavy}) & sys.modules.keys()) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
