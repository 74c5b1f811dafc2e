"""The same promises on real graphs: an exported bundle, a real clip, ONNX Runtime on the CPU.

Pictures take a second each here, so most tests let a fake engine draw: it shows any bit of a coefficient that changes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.commands import pflx
from support.fakes import Recording
from support.grouped import grouped
from support.places import MEDIA

from pflx.engines import Array, Bundle, Engine, FakeEngine, OrtEngine
from pflx.export.chain import FrameDifference
from pflx.runtime import (
    EngineSettings,
    Listener,
    ListenerFrame,
    Region,
    SpeakerSettings,
    load_portrait,
    open_speaker,
    seeded_noise,
)
from pflx.runtime.bundle_engines import CALL_SIZES
from pflx.runtime.media.video_writer import VideoWriter

WEBCAM, PORTRAIT = MEDIA / "webcam_cap12_12s.mp4", MEDIA / "portrait_astronaut_256.png"
REGION = Region(72, 22, 328, 278)
FRAMES = 20
Content = tuple[int, bytes, bytes, bytes]


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return Bundle.open(exported, verify=False)


@pytest.fixture(scope="module")
def engines(bundle: Bundle) -> Iterator[dict[str, Engine]]:
    """All graphs in FP32, opened as `Listener.open` does: other options round differently."""
    paths = {graph: bundle.graph_path(graph, "fp32") for graph in bundle.manifest.graphs}
    opened: dict[str, Engine] = {graph: OrtEngine(path, sizes=CALL_SIZES) for graph, path in paths.items()}
    yield opened
    for engine in opened.values():
        engine.close()


@pytest.fixture(scope="module")
def input_of_a_second() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The webcam's pictures with the podium's voice."""
    chunk = next(open_speaker(WEBCAM).chunks(FRAMES))
    voice = next(open_speaker(MEDIA / "podium_speech_8s.mp4").chunks(FRAMES))
    return chunk.video, voice.audio


@pytest.fixture(scope="module")
def listener(bundle: Bundle, engines: dict[str, Engine]) -> Listener:
    """All real but the frame renderer."""
    return Listener(bundle.manifest, engines | {"pirender_frame": quick(engines)}, PORTRAIT, lookahead=5)


def quick(engines: Mapping[str, Engine]) -> FakeEngine:
    """Draws a hash of the coefficient track in the place of a face."""
    real = engines["pirender_frame"]

    def draw(feeds: Mapping[str, Array]) -> dict[str, Array]:
        digest = hashlib.sha256(feeds["coefficients"].tobytes() + feeds["frames"].tobytes()).digest()
        return {"image": np.resize(np.frombuffer(digest, np.uint8), (1, 1, 256, 256, 3))}

    return FakeEngine(draw, real.inputs, real.outputs)


def content(frame: ListenerFrame) -> Content:
    arrays = (frame.image, frame.coefficients, frame.generated_pose)
    image, coefficients, pose = (array.tobytes() for array in arrays)
    return frame.sample, image, coefficients, pose


def whole(listener: Listener, given: tuple[Array, Array], **options: Any) -> list[ListenerFrame]:
    given_options: dict[str, Any] = {"region": REGION, "seed": 5} | options
    with listener.stream(**grouped(given_options, "speaker")) as stream:
        stream.push(video=given[0], audio=given[1])
        stream.finish()
        return list(stream.pull())


@pytest.fixture(scope="module")
def expected(listener: Listener, input_of_a_second: tuple[Array, Array]) -> list[ListenerFrame]:
    return whole(listener, input_of_a_second, samples=2)


def test_the_reaction_is_finite_and_moves(expected: list[ListenerFrame]) -> None:
    track = np.stack([frame.coefficients for frame in expected]).reshape(FRAMES, 2, 58)
    assert np.isfinite(track).all()
    assert np.abs(np.diff(track, axis=0)).max() > 1e-3
    assert np.abs(track[:, 0] - track[:, 1]).max() > 1e-3


def test_any_cut_of_real_input_gives_the_same_frames(
    listener: Listener, input_of_a_second: tuple[Array, Array], expected: list[ListenerFrame]
) -> None:
    video, audio = input_of_a_second
    frames: list[ListenerFrame] = []
    with listener.stream(speaker=SpeakerSettings(region=REGION), seed=5, samples=2) as stream:
        for start in range(0, FRAMES, 3):
            stream.push(audio=audio[start * 640 : (start + 3) * 640])
            frames += islice(stream.pull(), 5)
            stream.push(video=video[start : start + 3])
        stream.finish()
        frames += stream.pull()
    assert list(map(content, frames)) == list(map(content, expected))


def test_offline_is_the_stream_fed_from_the_real_file(
    listener: Listener, input_of_a_second: tuple[Array, Array], tmp_path: Path
) -> None:
    """The region is looked up with the real detector, at frames that the pixels of an MP4 have."""
    clip = tmp_path / "second.mp4"
    with VideoWriter(clip, size=(400, 300), audio=True) as writer:
        writer.write(input_of_a_second[0][:12])
        writer.write_audio(input_of_a_second[1][: 12 * 640])
    offline = list(listener.react(clip, seed=5))
    (chunk,) = open_speaker(clip).chunks()
    region = listener.find_region(clip)
    streamed = whole(listener, (chunk.video, chunk.audio), region=region)
    assert list(map(content, offline)) == list(map(content, streamed))
    assert len(offline) == 12
    assert region.width == region.height == 256


RESUME = """
import sys
import numpy as np
from itertools import islice
from pflx.engines import Bundle
from pflx.runtime import EngineSettings, Listener

bundle = Bundle.open(sys.argv[1], verify=False)
listener = Listener.open(bundle, sys.argv[2], engines=EngineSettings(precision="fp32"), lookahead=5)
with np.load(sys.argv[3], allow_pickle=False) as given:
    snapshot = dict(given)
video, audio = snapshot.pop("rest_video"), snapshot.pop("rest_audio")
stream = listener.resume(snapshot, seed=5)
stream.push(video=video, audio=audio)
frames = list(islice(stream.pull(), 3))
np.savez(sys.argv[4], image=[f.image for f in frames], coefficients=[f.coefficients for f in frames])
"""


def test_a_new_process_goes_on_with_the_same_pictures(
    bundle: Bundle, engines: dict[str, Engine], input_of_a_second: tuple[Array, Array], tmp_path: Path
) -> None:
    """Real pictures: the last frame that was due before, and two that need the next segment."""
    video, audio = input_of_a_second
    stream = Listener(bundle.manifest, engines, PORTRAIT, lookahead=5).stream(
        speaker=SpeakerSettings(region=REGION), seed=5
    )
    stream.push(video=video[:13], audio=audio[: 13 * 640])
    assert len(list(islice(stream.pull(), 2))) == 2
    saved: dict[str, Any] = {"rest_video": video[13:], "rest_audio": audio[13 * 640 :]} | stream.snapshot()
    np.savez(tmp_path / "snapshot.npz", **saved)
    stream.push(video=video[13:], audio=audio[13 * 640 :])
    frames = list(islice(stream.pull(), 3))
    arguments = [bundle.path, PORTRAIT, tmp_path / "snapshot.npz", tmp_path / "frames.npz"]
    subprocess.run([sys.executable, "-c", RESUME, *map(str, arguments)], env=os.environ, check=True)
    with np.load(tmp_path / "frames.npz", allow_pickle=False) as resumed:
        np.testing.assert_array_equal(resumed["coefficients"], np.stack([frame.coefficients for frame in frames]))
        np.testing.assert_array_equal(resumed["image"], np.stack([frame.image for frame in frames]))


def test_two_samples_are_two_single_runs_with_the_same_noise(
    listener: Listener, input_of_a_second: tuple[Array, Array], expected: list[ListenerFrame]
) -> None:
    """To float rounding: a batch of two takes other kernels than two batches of one."""
    noise = seeded_noise(5)
    for sample in (0, 1):
        alone = whole(listener, input_of_a_second, seed=lambda segment, _, size, m=sample: noise(segment, m, size))
        shown = [frame.coefficients for frame in expected if frame.sample == sample]
        np.testing.assert_allclose(np.stack([f.coefficients for f in alone]), np.stack(shown), atol=2e-5)


def test_posnet_touches_only_the_pose_and_takes_the_jump_out(
    bundle: Bundle, engines: dict[str, Engine], input_of_a_second: tuple[Array, Array]
) -> None:
    generator = Recording(engines["reactface_listener"])
    mixed = engines | {"reactface_listener": generator, "pirender_frame": quick(engines)}
    frames = whole(Listener(bundle.manifest, mixed, PORTRAIT, lookahead=0), input_of_a_second)
    generated = np.concatenate([result["reaction"][0] for result in generator.results])[:FRAMES]
    shown = np.stack([frame.coefficients for frame in frames])
    np.testing.assert_array_equal(shown[:, :52], generated[:, :52])
    np.testing.assert_array_equal(shown[:8], generated[:8])
    np.testing.assert_array_equal(np.stack([frame.generated_pose for frame in frames]), generated[:, 52:])
    assert (shown[8:, 52:] != generated[8:, 52:]).any()


def test_half_precision_runs_and_stays_close(
    bundle: Bundle, engines: dict[str, Engine], input_of_a_second: tuple[Array, Array]
) -> None:
    with Listener.open(bundle, PORTRAIT, engines=EngineSettings(precision="fp16"), lookahead=0) as half:
        pairs = []
        for listener in (half, Listener(bundle.manifest, engines, PORTRAIT, lookahead=0)):
            stream = listener.stream(speaker=SpeakerSettings(region=REGION), seed=5)
            stream.push(video=input_of_a_second[0], audio=input_of_a_second[1])
            pairs.append(next(stream.pull()))
    np.testing.assert_allclose(pairs[0].coefficients, pairs[1].coefficients, atol=0.05)
    assert FrameDifference.between(pairs[1].image, pairs[0].image).psnr_db > 40


def test_run_makes_a_video_of_a_real_bundle(
    bundle: Bundle, input_of_a_second: tuple[Array, Array], tmp_path: Path
) -> None:
    clip, output, track = tmp_path / "short.mp4", tmp_path / "reaction.mp4", tmp_path / "track.npz"
    with VideoWriter(clip, size=(400, 300), audio=True) as writer:
        writer.write(input_of_a_second[0][:3])
        writer.write_audio(input_of_a_second[1][: 3 * 640])
    places = ("--portrait", PORTRAIT, "--output", output, "--coefficients", track)
    outcome = pflx("run", clip, "--bundle", bundle.path, *places, "--lookahead", 0, "--side-by-side")
    assert outcome.code == 0, outcome.err
    assert outcome.err == "Untrained weights (seed 0): the pictures mean nothing.\n"
    made = open_speaker(output)
    assert (made.width, made.height, made.source_fps, made.has_audio) == (512, 256, 25, True)
    pictures = np.concatenate([chunk.video for chunk in made.chunks()])
    assert len(pictures) == 3
    assert np.abs(pictures[0, :, 256:].astype(int) - load_portrait(PORTRAIT)).mean() > 1
    with np.load(track, allow_pickle=False) as arrays:
        assert arrays["coefficients"].shape == (1, 3, 58)
        assert int(arrays["untrained"]) == 0
