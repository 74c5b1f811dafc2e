"""Recording feeds of every graph from real clips, and playing the takes that were held out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from support.commands import pflx, refusal
from support.exported import linked_copy
from support.persons.tiny_bundle import personal_bundle
from support.places import MEDIA

from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.record import RecordOptions, _black, record
from pflx.calibration.feeds.replay import react, render
from pflx.calibration.precision.int8_target import TARGETS, quantisable
from pflx.engines import Bundle, Engine, OrtEngine, OutputError, PflxError, check_feeds
from pflx.runtime import Listener, SpeakerFile, open_speaker
from pflx.runtime.bundle_engines import CALL_SIZES
from pflx.runtime.speaker.extractors import LANDMARKS

PORTRAIT = MEDIA / "portrait_astronaut_256.png"
OPTIONS = RecordOptions(limit=3, threads=1)
HOP = 8


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return Bundle.open(exported, verify=False)


@pytest.fixture(scope="module")
def clips() -> list[SpeakerFile]:
    """Two seconds of two real speakers: six segments each, of which two are held out."""
    return [open_speaker(MEDIA / name).limited(2.0) for name in ("webcam_cap12_12s.mp4", "podium_speech_8s.mp4")]


@pytest.fixture(scope="module")
def feeds(bundle: Bundle, clips: list[SpeakerFile], tmp_path_factory: pytest.TempPathFactory) -> Feeds:
    return record(bundle, clips, PORTRAIT, tmp_path_factory.mktemp("recorded") / "feeds", options=OPTIONS)


@pytest.fixture(scope="module")
def engines(bundle: Bundle) -> Iterator[dict[str, Engine]]:
    """The real graphs, but for the one that takes half a second for a picture."""
    with ExitStack() as stack:
        opened: dict[str, Engine] = {
            graph: _black(info)
            if graph == "pirender_frame"
            else stack.enter_context(closing(OrtEngine(bundle.graph_path(graph, "fp32"), threads=1, sizes=CALL_SIZES)))
            for graph, info in bundle.manifest.graphs.items()
        }
        yield opened


def test_nothing_is_recorded_or_quantised_of_a_graph_whose_weights_come_with_the_call(tmp_path: Path) -> None:
    bundle = personal_bundle(tmp_path / "tiny.pflx")
    clip = open_speaker(MEDIA / "webcam_cap12_12s.mp4").limited(5.0)
    feeds = record(
        bundle, [clip], PORTRAIT, tmp_path / "feeds", options=OPTIONS, extractors={"coefficients": LANDMARKS}
    )
    feeds.require_match(bundle)
    without_it = {"perfrdiff_condition", "perfrdiff_denoise"}
    assert {name for name in feeds.index.graphs if name.startswith("perfrdiff")} == without_it
    quantised = quantisable(bundle.manifest, TARGETS["openvino"])
    assert {name for name in quantised if name.startswith("perfrdiff")} == without_it


def test_every_graph_has_feeds_that_it_takes(bundle: Bundle, feeds: Feeds) -> None:
    preview = bundle.manifest.preview
    assert preview is not None
    used = bundle.manifest.graphs.keys() - set(preview.graphs.values())
    assert feeds.index.graphs.keys() == used
    for graph in used:
        recorded, info = list(feeds.of_graph(graph)), bundle.manifest.graphs[graph]
        assert 1 <= len(recorded) <= OPTIONS.limit
        for each in recorded:
            check_feeds(info.inputs, each)


def test_no_feed_is_kept_twice_and_calls_are_counted(feeds: Feeds) -> None:
    for kept in feeds.index.graphs.values():
        assert len({tuple(sorted(feed.arrays.items())) for feed in kept.feeds}) == len(kept.feeds)
    assert feeds.index.graphs["reactface_speaker"].seen == 8  # four of six segments, of two clips
    assert feeds.index.graphs["pirender_portrait"].seen == 1


def test_arrays_that_many_feeds_share_are_stored_once(feeds: Feeds) -> None:
    frames = feeds.index.graphs["pirender_frame"].feeds
    assert len(frames) == OPTIONS.limit
    assert len({feed.arrays["warp_features"] for feed in frames}) == 1


def test_nothing_that_is_held_out_is_recorded(feeds: Feeds) -> None:
    recorded = {feed.arrays["video"] for feed in feeds.index.graphs["reactface_speaker"].feeds}
    held_out = {step.window["video"] for take in feeds.index.takes for step in take.steps}
    assert len(feeds.index.takes) == 2
    assert held_out
    assert not recorded & held_out
    assert [entry.held_out_from for entry in feeds.index.recordings] == [4 * HOP, 4 * HOP]


def test_a_take_played_again_is_what_the_session_made(
    bundle: Bundle, clips: list[SpeakerFile], feeds: Feeds, engines: dict[str, Engine]
) -> None:
    listener = Listener(bundle.manifest, engines, PORTRAIT, lookahead=0)
    shown = [frame for frame in listener.react(clips[0]) if frame.time_s >= 4 * HOP / 25 - 1e-6][: 2 * HOP]
    generated, smoothed = react(feeds.takes()[0], bundle.manifest, engines)
    np.testing.assert_array_equal(smoothed[0], np.stack([frame.coefficients for frame in shown]))
    np.testing.assert_array_equal(generated[0, :, 52:], np.stack([frame.generated_pose for frame in shown]))


def test_the_order_of_clips_and_the_number_of_runs_change_nothing(
    bundle: Bundle, clips: list[SpeakerFile], feeds: Feeds, tmp_path: Path
) -> None:
    first, *others = reversed(clips)
    one_by_one = record(bundle, [first], PORTRAIT, tmp_path / "feeds", options=OPTIONS)
    for clip in others:
        one_by_one = record(bundle, [clip], PORTRAIT, tmp_path / "feeds", options=OPTIONS)
    assert one_by_one.sha256() == feeds.sha256()
    kept = {graph: [feed.arrays for feed in kept.feeds] for graph, kept in feeds.index.graphs.items()}
    assert {graph: [feed.arrays for feed in kept.feeds] for graph, kept in one_by_one.index.graphs.items()} == kept


def test_a_recording_that_was_stopped_keeps_the_clips_it_finished_and_goes_on(
    bundle: Bundle, clips: list[SpeakerFile], feeds: Feeds, tmp_path: Path
) -> None:
    def stop(doing: str, done: int, _: int | None) -> None:
        if "podium" in doing and "recording" in doing and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(bundle, clips, PORTRAIT, tmp_path / "feeds", options=OPTIONS, progress=stop)
    stopped = Feeds.open(tmp_path / "feeds")
    assert [entry.clip for entry in stopped.index.recordings] == [clips[0].path.name]
    assert len(stopped.takes()) == 1
    resumed = record(bundle, clips, PORTRAIT, tmp_path / "feeds", options=OPTIONS)
    assert resumed.sha256() == feeds.sha256()
    names = {path.stem for path in (tmp_path / "feeds/arrays").iterdir()}
    assert names == {path.stem for path in (feeds.folder / "arrays").iterdir()}


def test_a_window_reaches_the_segments_that_are_closed_when_its_frame_is_due(bundle: Bundle) -> None:
    seen: list[np.ndarray] = []
    info = bundle.manifest.graphs["pirender_frame"]

    class Noting:
        inputs, outputs = info.inputs, info.outputs

        def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            seen.append(feeds["coefficients"][0, :, 0])
            return {"image": np.zeros((1, 1, 256, 256, 3), np.uint8)}

    with closing(OrtEngine(bundle.graph_path("pirender_portrait", "fp32"), threads=1)) as portrait:
        engines: dict[str, Engine] = {"pirender_portrait": portrait, "pirender_frame": Noting()}  # type: ignore[dict-item]
        track = np.repeat(np.arange(60, dtype=np.float32)[None, :, None], 58, axis=2)
        picture = np.zeros((256, 256, 3), np.uint8)
        render(picture, track, np.array([20, 22, 55]), bundle.manifest, engines, lookahead=2)
    np.testing.assert_array_equal(seen[0], np.minimum(np.arange(7, 34), 23))  # frame 22 is of the third segment
    np.testing.assert_array_equal(seen[1], np.minimum(np.arange(9, 36), 31))  # frame 24 is of the fourth
    np.testing.assert_array_equal(seen[2], np.minimum(np.arange(42, 69), 59))  # the track ends


def test_feeds_of_another_bundle_are_refused(feeds: Feeds, exported: Path, tmp_path: Path) -> None:
    other = linked_copy(exported, tmp_path / "other.pflx")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"][manifest["graphs"]["posnet"]["files"]["fp32"]]["sha256"] = "0" * 64
    (other / "manifest.json").unlink()
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CalibrationError, match=r"whose posnet differ from those of .*other\.pflx"):
        feeds.require_match(Bundle.open(other, verify=False))


def test_a_folder_that_was_recorded_otherwise_is_refused(
    bundle: Bundle, clips: list[SpeakerFile], feeds: Feeds
) -> None:
    with pytest.raises(CalibrationError, match="seed 0 and limit 3, not 5 and 3"):
        record(bundle, clips, PORTRAIT, feeds.folder, options=RecordOptions(seed=5, limit=3))


def test_a_folder_of_other_things_is_left_alone(bundle: Bundle, clips: list[SpeakerFile], tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no recorded feeds"):
        record(bundle, clips, PORTRAIT, tmp_path, options=OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_clip_that_is_too_short_is_refused(bundle: Bundle, clips: list[SpeakerFile], tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"25 frames, which make 3 segments of 8\. Give a clip of 32 frames"):
        record(bundle, [clips[0].limited(1.0)], PORTRAIT, tmp_path / "feeds", options=OPTIONS)


def test_damaged_feeds_are_named(feeds: Feeds, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(feeds.folder, tmp_path / "feeds"))
    name = feeds.index.graphs["posnet"].feeds[0].arrays["segment"]
    damaged = copy / "arrays" / f"{name}.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CalibrationError, match=f"{name}.npy has changed"):
        list(Feeds.open(copy).of_graph("posnet"))
    damaged.unlink()
    with pytest.raises(CalibrationError, match=f"{name}.npy does not exist.*Record the feeds again"):
        list(Feeds.open(copy).of_graph("posnet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9}, "has schema 9"),
        ({"unknown": 1}, "is malformed"),
        (
            {"takes": [{"clip": "", "portrait": "../a", "generator_state": {}, "smoother_state": {}, "steps": []}]},
            "no hash",
        ),
    ],
)
def test_an_index_that_is_not_ours_is_refused(
    feeds: Feeds, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    index = json.loads((feeds.folder / "feeds.json").read_text())
    (tmp_path / "feeds.json").write_text(json.dumps({**index, **change}))
    with pytest.raises(PflxError, match=message):
        Feeds.open(tmp_path)


def test_what_is_missing_is_told(feeds: Feeds, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"pflx calibrate record BUNDLE"):
        Feeds.open(tmp_path)
    with pytest.raises(CalibrationError, match="no feeds of graph 'other'"):
        feeds.of_graph("other")


def test_the_command_says_what_it_kept_and_refuses_a_bad_limit(
    exported: Path, feeds: Feeds, clips: list[SpeakerFile]
) -> None:
    given = ("calibrate", "record", exported, "-p", PORTRAIT, "-o", feeds.folder)
    done = pflx(*given, "-s", clips[0].path, "--limit", 3)  # recorded already
    assert done.code == 0, done.err
    assert "reactface_speaker: 3 of 8 calls" in done.out
    assert "--limit" in refusal(*given, "-s", clips[0].path, "--limit", 0, code=2)
    assert "none.mp4 does not exist" in refusal(*given, "-s", feeds.folder / "none.mp4")
