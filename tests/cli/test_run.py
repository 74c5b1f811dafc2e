"""`pflx run` with fake engines: what it writes, and what it says when it cannot."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.commands import Outcome, pflx, refusal
from support.fakes import (
    HOP,
    MEAN_FACE,
    SIZE,
    Faces,
    fake_listener,
    open_fake,
    portrait_of,
    sound_of,
    write_fake_bundle,
)
from support.media.clips import SoundTrack, write_tracks

import pflx.runtime.generators.speaker_side as side_module
from pflx.cli.crop import Pfl
from pflx.cli.support.options import Crop
from pflx.engines.bundle.driver import find_gpus
from pflx.runtime import bundle_engines, open_speaker
from pflx.runtime.evaluation import read_predictions
from pflx.runtime.media.mark import SOURCE_TYPE
from pflx.runtime.media.video_writer import VideoWriter

FRAMES = 30
FACE = Faces(lambda _: [(20.0, 10.0, 24.0, 24.0)])


@dataclass(frozen=True)
class Scene:
    """A fake bundle, a portrait and a clip, and a place for results."""

    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "me.pflx"

    @property
    def output(self) -> Path:
        return self.folder / "out" / "reaction.mp4"

    def clip(self, *, size: tuple[int, int] = (64, 48), sound: bool = True) -> Path:
        path = self.folder / f"clip{size[0]}x{size[1]}{'s' if sound else ''}.mp4"
        pictures = np.random.default_rng(0).integers(90, 160, (FRAMES, size[1], size[0], 3), np.uint8)
        with VideoWriter(path, size=size, audio=sound) as writer:
            writer.write(pictures)
            if sound:
                writer.write_audio(sound_of(FRAMES))
        return path

    def arguments(self, **changes: str | Path | int | None) -> list[str]:
        given = {"bundle": self.bundle, "portrait": self.folder / "me.png", "output": self.output} | changes
        return [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]

    def run(self, clip: Path, *flags: str, **changes: str | Path | int | None) -> Outcome:
        outcome = pflx("run", clip, *flags, *self.arguments(**changes))
        assert outcome.code == 0, outcome.err
        return outcome

    def refuse(self, clip: Path | str, *flags: str, **changes: str | Path | int | None) -> str:
        """The one line of an error; nothing may be left behind."""
        before = set(self.folder.rglob("*"))
        said = refusal("run", clip, *flags, *self.arguments(**changes))
        assert set(self.folder.rglob("*")) == before
        return said


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(bundle_engines, "OrtEngine", open_fake)
    monkeypatch.setattr(side_module, "BlazeFace", lambda: FACE)
    write_fake_bundle(tmp_path / "me.pflx")
    Image.fromarray(portrait_of()).save(tmp_path / "me.png")
    (tmp_path / "out").mkdir()
    return Scene(tmp_path)


def decoded(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    clip = open_speaker(path)
    assert clip.source_fps == 25
    chunks = list(clip.chunks())
    sound = np.concatenate([chunk.audio for chunk in chunks])
    return np.concatenate([chunk.video for chunk in chunks]), sound if clip.has_audio else np.zeros(0, np.float32)


def test_the_video_says_what_made_it_and_on_its_pictures_where_wanted(scene: Scene) -> None:
    clip = scene.clip()
    scene.run(clip)
    plain = decoded(scene.output)[0].astype(int)
    with av.open(str(scene.output)) as container:
        assert SOURCE_TYPE in container.metadata["comment"]
    scene.run(clip, "--badge")
    labelled = decoded(scene.output)[0].astype(int)
    ground = np.array([30, 30, 30])
    assert np.abs(labelled[:, 8:18, 8:12] - ground).mean() < np.abs(plain[:, 8:18, 8:12] - ground).mean() - 20


def test_the_video_shows_the_reaction_frame_by_frame_with_the_speakers_sound(scene: Scene) -> None:
    clip = scene.clip()
    outcome = scene.run(clip)
    pictures, sound = decoded(scene.output)
    expected = np.stack([frame.image for frame in fake_listener(detector=FACE, lookahead=13).react(clip)])
    assert pictures.shape == expected.shape == (FRAMES, SIZE, SIZE, 3)
    means = pictures.mean(axis=(1, 2, 3)) - expected.mean(axis=(1, 2, 3))
    assert np.abs(means).max() < 8
    _, spoken = decoded(clip)
    assert np.corrcoef(sound, spoken)[0, 1] > 0.9
    assert outcome.out.splitlines() == [
        f"Wrote {scene.output}",
        "The reaction trails the speaker by 840 ms at most, computing aside.",
    ]
    assert outcome.err == "Untrained weights (seed 7): the pictures mean nothing.\n"
    assert list(scene.output.parent.iterdir()) == [scene.output]


def test_a_voice_alone_is_refused_in_one_line_by_a_generator_that_reads_pictures(scene: Scene) -> None:
    voice = write_tracks(scene.folder / "voice.wav", SoundTrack(sound_of(FRAMES)[None], codec="pcm_s16le"))
    outcome = pflx("run", voice, *scene.arguments())
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == (
        f"pflx: reactface reads the speaker's pictures, and {voice} holds sound alone. "
        "Give a clip that shows the speaker."
    )
    assert not list(scene.output.parent.iterdir())


def test_a_clip_without_sound_gives_a_video_without_sound(scene: Scene) -> None:
    scene.run(scene.clip(sound=False))
    pictures, sound = decoded(scene.output)
    assert len(pictures) == FRAMES
    assert len(sound) == 0


@pytest.mark.parametrize("size", [(63, 47), (64, 400), (640, 66)])
def test_odd_and_long_sizes_are_taken(scene: Scene, size: tuple[int, int]) -> None:
    scene.run(scene.clip(size=size), "--side-by-side")
    pictures, _ = decoded(scene.output)
    assert pictures.shape == (FRAMES, SIZE, 2 * SIZE, 3)


def test_side_by_side_shows_the_whole_speaker_and_all_reactions(scene: Scene) -> None:
    scene.run(scene.clip(size=(64, 32)), "--side-by-side", samples=2)
    pictures, _ = decoded(scene.output)
    assert pictures.shape == (FRAMES, SIZE, 3 * SIZE, 3)
    speaker = pictures[:, :, :SIZE].astype(float).mean(axis=(0, 2, 3))
    assert speaker[18:46].min() > 90
    assert max(speaker[:14].max(), speaker[50:].max()) < 20


def test_several_samples_are_numbered_and_differ(scene: Scene) -> None:
    outcome = scene.run(scene.clip(), samples=2)
    paths = [scene.output.with_name(f"reaction-{sample}.mp4") for sample in (0, 1)]
    assert sorted(scene.output.parent.iterdir()) == paths
    first, second = (decoded(path) for path in paths)
    assert len(first[0]) == len(second[0]) == FRAMES
    assert (first[0] != second[0]).any()
    np.testing.assert_array_equal(first[1], second[1])
    assert outcome.out.splitlines()[:2] == [f"Wrote {path}" for path in paths]


def test_the_coefficients_are_those_of_the_frames(scene: Scene) -> None:
    clip, path = scene.clip(), scene.folder / "out" / "track.npz"
    scene.run(clip, samples=2, seed=4, lookahead=5, coefficients=path)
    frames = list(fake_listener(detector=FACE, lookahead=5).react(clip, samples=2, seed=4))
    shown = np.stack([frame.coefficients for frame in frames]).reshape(FRAMES, 2, 58).swapaxes(0, 1)
    with np.load(path, allow_pickle=False) as track:
        np.testing.assert_array_equal(track["coefficients"], shown)
        np.testing.assert_array_equal(track["generated_pose"][:, :HOP], shown[:, :HOP, 52:])
        np.testing.assert_allclose(track["time_s"], np.arange(FRAMES) / 25)
        assert track["face"].shape == (FRAMES,)
        assert track["region"].tolist() == [16, 6, 48, 38]
        assert (int(track["fps"]), int(track["hop"]), int(track["untrained"])) == (25, HOP, 7)
        assert np.abs(shown.mean(axis=(0, 1)) - MEAN_FACE).max() < 2
    assert len(list(path.parent.iterdir())) == 3


def test_the_trace_has_every_frame_and_segment(scene: Scene) -> None:
    path = scene.folder / "out" / "run.json"
    outcome = scene.run(scene.clip(), samples=2, trace=path)
    assert f"Wrote {path}\n" in outcome.out
    events = json.loads(path.read_bytes())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    rows = Counter(names[event["tid"]] for event in events if event["ph"] == "X")
    assert rows == {
        "generator": -(-FRAMES // HOP),
        "PosNet": -(-FRAMES // HOP),
        "render, sample 0": FRAMES,
        "render, sample 1": FRAMES,
        "copy to host": 2 * FRAMES,
    }
    assert events[0]["args"]["name"].startswith("pflx run clip")
    assert len(list(path.parent.iterdir())) == 3


def test_the_same_seed_writes_the_same_track(scene: Scene) -> None:
    clip, tracks = scene.clip(), []
    for seed in (1, 1, 2):
        scene.run(clip, seed=seed, coefficients=scene.folder / "track.npz")
        with np.load(scene.folder / "track.npz") as track:
            tracks.append(track["coefficients"])
    np.testing.assert_array_equal(tracks[0], tracks[1])
    assert (tracks[0] != tracks[2]).any()


def test_a_clip_without_a_face_works_and_is_warned_about_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(side_module, "BlazeFace", lambda: Faces(lambda _: []))
    clip = scene.clip()
    with caplog.at_level(logging.WARNING):
        scene.run(clip)
    assert len(decoded(scene.output)[0]) == FRAMES
    assert [record.getMessage() for record in caplog.records] == [
        f"No face in {clip}: using the middle of the frame, Region(left=8, top=0, right=56, bottom=48)."
    ]


def test_an_old_result_is_replaced(scene: Scene) -> None:
    scene.output.write_text("old")
    scene.run(scene.clip())
    assert len(decoded(scene.output)[0]) == FRAMES


def test_a_path_with_brackets_is_shown_as_it_is(scene: Scene) -> None:
    output = scene.folder / "out" / "[red]take[1].mp4"
    assert f"Wrote {output}\n" in scene.run(scene.clip(), output=output).out
    assert output.is_file()
    missing = scene.folder / "[bold]no[/].mp4"
    assert str(missing) in scene.refuse(missing)


def test_a_speaker_that_is_no_clip_is_named(scene: Scene) -> None:
    text = scene.folder / "speech.mp4"
    text.write_text("Friends, Romans, countrymen\n" * 50)
    empty = scene.folder / "empty.mp4"
    empty.touch()
    for speaker, said in (
        (scene.folder / "none.mp4", "none.mp4 does not exist"),
        (text, "is text, no clip"),
        (empty, "is empty"),
        (scene.folder, "is a folder"),
        (scene.folder / "me.png", "is a picture (PNG)"),
    ):
        line = scene.refuse(speaker)
        assert str(speaker) in line
        assert said in line


def test_a_bundle_that_is_none_or_changed_is_named(scene: Scene) -> None:
    clip = scene.clip()
    assert "none.pflx does not exist. Make one: pflx export -o" in scene.refuse(clip, bundle=scene.folder / "none.pflx")
    graph = scene.bundle / "graphs" / "posnet.fp32.onnx"
    content = bytearray(graph.read_bytes())
    content[3] ^= 1
    graph.write_bytes(content)
    line = scene.refuse(clip)
    assert "the content of 'graphs/posnet.fp32.onnx' has changed. Copy the bundle again, or export it again." in line


def test_a_portrait_that_is_none_is_named(scene: Scene) -> None:
    clip = scene.clip()
    assert "none.png does not exist" in scene.refuse(clip, portrait=scene.folder / "none.png")
    assert "is no picture that can be read" in scene.refuse(clip, portrait=clip)
    Image.new("RGB", (40, 40)).save(scene.folder / "small.png")
    assert "is 40x40 px" in scene.refuse(clip, portrait=scene.folder / "small.png")


def test_a_place_that_cannot_be_written_is_named_before_the_work(scene: Scene) -> None:
    clip, lost = scene.clip(), scene.folder / "lost"
    for changes, said in (
        ({"output": lost / "a.mp4"}, f"There is no folder {lost}"),
        ({"output": scene.folder / "a.avi"}, "does not end in .mp4"),
        (
            {"output": clip},
            f"--output {clip} is SPEAKER {clip}, which would be replaced. Choose another",
        ),
        ({"coefficients": lost / "a.npz"}, f"There is no folder {lost}"),
        ({"coefficients": scene.folder / "a.npy"}, "does not end in .npz. Try"),
        ({"trace": lost / "a.json"}, f"There is no folder {lost}"),
        ({"trace": scene.folder / "a.html"}, "does not end in .json. Try"),
    ):
        assert said in scene.refuse(clip, **changes)
    (scene.folder / "out" / "reaction-1.mp4").mkdir()
    assert "is a folder" in scene.refuse(clip, samples=2)
    (scene.folder / "a.npz").mkdir()
    assert "is a folder" in scene.refuse(clip, coefficients=scene.folder / "a.npz")
    assert clip.stat().st_size > 1000


def test_a_precision_that_the_bundle_lacks_is_named(scene: Scene) -> None:
    assert "has no fp16 variant; it has fp32" in scene.refuse(scene.clip(), precision="fp16")


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named_and_the_cpu_taken_only_where_that_was_asked_for(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    said = scene.refuse(scene.clip(), device="cuda:0")
    assert "Asked for cuda:0, and there is no NVIDIA driver or GPU here" in said
    assert "tensorrt runs on a GPU only" in scene.refuse(scene.clip(), engine="tensorrt")
    with caplog.at_level(logging.WARNING):
        scene.run(scene.clip(), "--fallback", device="cuda:0")
    told = "Asked for cuda:0, and there is no NVIDIA driver or GPU here. See `pflx doctor`. Running on the CPU."
    assert [record.getMessage() for record in caplog.records] == [told]


def test_a_failure_in_the_middle_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, before = scene.clip(), set(scene.folder.rglob("*"))
    looks = iter(range(FRAMES + 1))  # one for each frame in the first pass, and one in the second

    def look(_: int) -> list[tuple[float, float, float, float]]:
        if next(looks) == FRAMES:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(side_module, "BlazeFace", lambda: Faces(look))
    outcome = pflx("run", clip, *scene.arguments(samples=2, coefficients=scene.folder / "a.npz"))
    assert outcome.code != 0
    assert next(looks, None) is None
    assert set(scene.folder.rglob("*")) == before


def test_without_posnet_the_coefficients_are_as_generated_and_the_file_says_so(scene: Scene) -> None:
    clip, path = scene.clip(), scene.folder / "track.npz"
    scene.run(clip, "--without-posnet", samples=2, seed=4, coefficients=path)
    frames = list(fake_listener(detector=FACE).react(clip, samples=2, seed=4))
    generated = np.stack([frame.generated_pose for frame in frames]).reshape(FRAMES, 2, 6).swapaxes(0, 1)
    with np.load(path, allow_pickle=False) as track:
        np.testing.assert_array_equal(track["coefficients"][..., 52:], generated)
        np.testing.assert_array_equal(track["generated_pose"], generated)
        assert track["posnet"].item() is False
    assert [*read_predictions(path).tracks] == ["without PosNet"]
    judged = pflx("evaluate", path)
    head, *_, columns = judged.out.splitlines()[:4]
    told = "30 frames at 25 fps, segments of 8 frames, without PosNet, crop release"
    assert head == f"{path}: 1 clip, 2 reactions to each, {told}"
    assert columns.strip() == "without PosNet"
    assert pflx("evaluate", path, "--without-posnet").out.splitlines()[1:] == judged.out.splitlines()[1:]
    refused = pflx("evaluate", path, "--with-posnet")
    assert refused.code == 1
    assert refused.err.splitlines()[-1] == (
        f"pflx: {path} holds one track only, without PosNet. Leave out --with-posnet, or give what pflx run "
        "--coefficients wrote with PosNet."
    )


def test_another_crop_and_another_history_are_those_of_the_listener(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mesh:
        """Sees the nose left of the middle of the face."""

        def nose_in(self, picture: npt.NDArray[np.uint8], box: tuple[float, ...]) -> tuple[float, float]:
            return 25.0, 22.0

    monkeypatch.setattr(side_module, "FaceMesh", Mesh)
    clip, path, tracks = scene.clip(), scene.folder / "track.npz", []
    cases: list[tuple[dict[str, str], dict[str, Any], str]] = [
        ({"crop": "floating"}, {"crop": "floating"}, "crop floating"),
        ({"crop": "paper"}, {"crop": "paper"}, "crop paper"),
        ({"crop": "pfl"}, {}, "crop release"),
        (
            {"generator-history": "adjusted"},
            {"generator_history": "adjusted"},
            "crop release, generator history adjusted",
        ),
    ]
    for options, chain, told in cases:
        scene.run(clip, seed=4, coefficients=path, **options)
        expected = np.stack([frame.coefficients for frame in fake_listener(detector=FACE, **chain).react(clip, seed=4)])
        with np.load(path, allow_pickle=False) as track:
            np.testing.assert_array_equal(track["coefficients"][0], expected)
        assert pflx("evaluate", path).out.splitlines()[0].endswith(f"segments of 8 frames, {told}")
        tracks.append(expected.tobytes())
    assert len({*tracks}) == 4


def test_the_words_for_a_crop_are_those_of_pflx_crop() -> None:
    assert [crop.value for crop in Crop] == ["pfl", *(each.value for each in Pfl)]
