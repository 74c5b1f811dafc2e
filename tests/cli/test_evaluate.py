"""`pflx evaluate` on what `pflx run` writes and on arrays: what it prints, writes, leaves out and refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.commands import Outcome, pflx, refusal
from support.fakes import Faces, frames_of, open_fake, portrait_of, sound_of, write_fake_bundle
from support.golden_arrays import golden
from support.places import GOLDEN, MEDIA
from support.predictions import numbers, of_run

import pflx.runtime.generators.speaker_side as side_module
from pflx.engines import Array, Engine, FakeEngine, OrtEngine
from pflx.runtime import bundle_engines
from pflx.runtime.evaluation import Inputs, evaluate, read_predictions
from pflx.runtime.evaluation.plot import draw_pose
from pflx.runtime.media.video_writer import VideoWriter

FACE = Faces(lambda _: [(20.0, 10.0, 24.0, 24.0)])
FRAMES = 48


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """What `pflx run --side-by-side --coefficients` with fake engines wrote: the video, and the coefficients."""
    monkeypatch.setattr(bundle_engines, "OrtEngine", open_fake)
    monkeypatch.setattr(side_module, "BlazeFace", lambda: FACE)
    write_fake_bundle(tmp_path / "me.pflx")
    Image.fromarray(portrait_of()).save(tmp_path / "me.png")
    with VideoWriter(tmp_path / "clip.mp4", size=(48, 40), audio=True) as writer:
        writer.write(frames_of(FRAMES))
        writer.write_audio(sound_of(FRAMES))
    video, track = tmp_path / "reaction.mp4", tmp_path / "track.npz"
    places = ("--bundle", tmp_path / "me.pflx", "--portrait", tmp_path / "me.png", "-o", video, "--coefficients", track)
    outcome = pflx("run", tmp_path / "clip.mp4", *places, "--samples", 2, "--side-by-side")
    assert outcome.code == 0, outcome.err
    return video, track


@pytest.fixture
def case(tmp_path: Path) -> dict[str, Path]:
    """The published case of 25 emotion features, one array a file."""
    arrays = golden("evaluation_emotion25")
    names = {"pred": "pred", "listener": "listener_gt", "speaker": "speaker", "neighbours": "neighbour"}
    for name, key in names.items():
        np.save(tmp_path / f"{name}.npy", arrays[key])
    return {name: tmp_path / f"{name}.npy" for name in names}


def done(*arguments: str | Path | int) -> Outcome:
    outcome = pflx("evaluate", *arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def report(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def left_out(outcome: Outcome) -> list[str]:
    return outcome.out.partition("\nLeft out\n")[2].partition("Wrote")[0].splitlines()


def test_the_published_case_gives_the_published_numbers(case: dict[str, Path], tmp_path: Path) -> None:
    options = [part for name in ("listener", "speaker", "neighbours") for part in (f"--{name}", case[name])]
    outcome = done(case["pred"], *options, "--all-samples", "--json", tmp_path / "found.json")
    published, found = golden("evaluation_emotion25"), report(tmp_path / "found.json")
    (track,) = found["challenge"]
    for name in ("FRCorr", "FRDist", "FRDvs", "FRVar", "FRDiv"):
        assert track[name] == pytest.approx(float(published[name]), rel=1e-5)
    assert (track["FRSyn"], track["lags"]) == (float(published["FRSyn_mp"]), published["FRSyn_per"].tolist())
    assert track["FRSyn_all"] == pytest.approx(float(published["FRSyn_all"]))
    assert "  FRDist           6.906  lower is better" in outcome.out
    assert "3 clips, 2 reactions to each, 100 frames at 25 fps" in outcome.out
    assert "2 reactions are appropriate to a clip on average" in outcome.out


def test_an_npz_with_all_arrays_needs_no_options() -> None:
    outcome = done(GOLDEN / "evaluation_3dmm58.npz", "--hop", 25)
    assert "  FRCorr      0.05761  higher is better" in outcome.out
    assert "rotation, velocity jump, deg/s" in outcome.out
    assert [line.split(":")[0].strip() for line in left_out(outcome)] == [
        "flicker and dynamic degree",
        "FRRea",
        "VBench",
        "FRDist",
    ]


def test_what_is_not_given_is_left_out_with_what_to_pass(case: dict[str, Path]) -> None:
    outcome = done(case["pred"])
    assert left_out(outcome) == [
        "  flicker and dynamic degree: pass --video FILE or FOLDER, rendered from these.",
        "  FRRea: pass --video FILE or FOLDER, --fid-network NET.onnx and --real FOLDER of real pictures or clips.",
        "  VBench: pass --vbench RESULT.json of VBench, which takes the folder that --vbench-folder DIR writes.",
        "  FRCorr, FRDist: pass --listener FILE, [N, T, 25] or [T, 25].",
        "  FRSyn: pass --speaker FILE, [N, T, 25] or [T, 25].",
        "  smoothness: it is that of the pose, which 25 features do not have.",
    ]
    assert "appropriate" not in outcome.out
    alone = done(case["pred"], "--listener", case["listener"])
    assert "No --neighbours: to each clip its own true reaction only is appropriate." in alone.out


def test_a_run_is_judged_with_and_without_posnet(run: tuple[Path, Path], tmp_path: Path) -> None:
    video, track = run
    outcome = done(track, "--video", video, "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png")
    assert outcome.err == "Untrained weights (seed 7): the figures mean nothing.\n"
    found = report(tmp_path / "a.json")
    assert (found["hop"], found["fps"], found["frames"], found["samples"]) == (8, 25, FRAMES, 2)
    rows = {(row["track"], row["quantity"]): row for row in found["motion"]}
    assert len(rows) == 4
    for quantity in ("rotation", "translation"):
        smoothed, generated = (rows[name, quantity]["jump"] for name in ("with PosNet", "without PosNet"))
        assert smoothed["at_borders"] < generated["at_borders"]
        assert smoothed["borders"] == 2 * (FRAMES // 8 - 1)
    assert found["pictures"]["part"] == "the first reaction, right of the speaker"
    assert found["pictures"]["frames"] == FRAMES
    assert found["pictures"]["flicker"] > 10
    lines = outcome.out.splitlines()
    header = next(line for line in lines if "with PosNet" in line)
    assert header.index("with PosNet") < header.index("without PosNet")
    assert lines[-2:] == [f"Wrote {tmp_path / 'a.json'}", f"Wrote {tmp_path / 'a.png'}"]


@pytest.mark.parametrize(("option", "kept"), [("--with-posnet", "with PosNet"), ("--without-posnet", "without PosNet")])
def test_one_track_can_be_asked_for(run: tuple[Path, Path], tmp_path: Path, option: str, kept: str) -> None:
    both, one = tmp_path / "both.json", tmp_path / "one.json"
    done(run[1], "--json", both)
    done(run[1], option, "--json", one, "--plot", tmp_path / "one.png")
    for part in ("challenge", "motion"):
        assert report(one)[part] == [row for row in report(both)[part] if row["track"] == kept]


def test_the_emotion_of_a_run_is_held_against_an_emotional_listener(tmp_path: Path) -> None:
    emotion = numbers(2, 30, 25)
    track = of_run(tmp_path / "run.npz", emotion=emotion)
    np.save(tmp_path / "gt.npy", emotion[1])
    outcome = done(track, "--listener", tmp_path / "gt.npy", "--json", tmp_path / "a.json")
    found = {row["track"]: row for row in report(tmp_path / "a.json")["challenge"]}
    assert found["emotion"]["FRCorr"] > 0.9
    assert found["emotion"]["FRDist"] > 1
    assert (found["with PosNet"]["FRCorr"], found["with PosNet"]["FRDist"]) == (None, None)
    assert "Challenge, 58, 58, 25 features" in outcome.out
    assert (
        "  FRCorr (with PosNet, without PosNet): --listener has 25 features; pass one of [N, T, 58] or [T, 58] in "
        "its place."
    ) in left_out(outcome)


def test_too_few_segments_are_refused_with_the_reason(tmp_path: Path) -> None:
    outcome = done(of_run(tmp_path / "run.npz", hop=np.array(25)))
    assert "no z-score: 2 borders between segments are too few; it takes 4: give a longer motion" in outcome.out
    assert "(n/a)" in outcome.out


@pytest.mark.parametrize("hop", [5, 25])
def test_the_plot_shows_both_tracks_and_the_seams(tmp_path: Path, hop: int) -> None:
    turning = np.zeros((1, 50, 58))
    turning[..., 52:] = np.linspace(0, 1, 50)[None, :, None]
    content = {"coefficients": turning, "generated_pose": turning[..., 52:] + 0.5, "hop": np.array(hop)}
    inputs = Inputs(predictions=read_predictions(of_run(tmp_path / "run.npz", **content)))
    rows = draw_pose(inputs, evaluate(inputs)).axes
    assert len(rows) == 6
    names = [row.get_ylabel().partition(",")[0] for row in rows]
    assert names == ["pitch", "yaw", "roll", "translation x", "translation y", "translation z"]
    for row, unit in zip(rows, ["deg"] * 3 + ["unit"] * 3, strict=True):
        times = [np.asarray(line.get_xdata()) for line in row.lines]
        seams = [line for line, time in zip(row.lines, times, strict=True) if np.ptp(time) == 0]
        assert [time[0] for time in times if np.ptp(time) == 0] == [border / 25 for border in range(hop, 50, hop)]
        shown, generated = (line for line in row.lines if line not in seams)
        assert (shown.get_label(), generated.get_label()) == ("with PosNet", "without PosNet")
        scale = 180 / np.pi if unit == "deg" else 1
        np.testing.assert_allclose(np.subtract(generated.get_ydata(), shown.get_ydata()), 0.5 * scale, rtol=1e-5)
        assert row.get_ylabel().endswith(unit)


@pytest.mark.parametrize("posnet", [True, False])
def test_a_line_is_broad_only_where_another_lies_over_it(tmp_path: Path, posnet: bool) -> None:
    pose = np.zeros((1, 50, 58))
    pose[..., 52:] = np.linspace(0, 1, 50)[None, :, None]
    content = {"coefficients": pose, "generated_pose": pose[..., 52:], "posnet": np.array(posnet)}
    inputs = Inputs(predictions=read_predictions(of_run(tmp_path / "run.npz", **content)))
    lines = [line for line in draw_pose(inputs, evaluate(inputs)).axes[0].lines if np.ptp(np.asarray(line.get_xdata()))]
    assert [line.get_linewidth() > 2 for line in lines] == ([False, True] if posnet else [False])


@pytest.mark.parametrize("turn", [-np.pi, 0, np.pi])
def test_the_pitch_is_drawn_about_0_whichever_way_the_head_is_turned(tmp_path: Path, turn: float) -> None:
    nod = np.zeros((1, 50, 58))
    nod[..., 52] = turn + np.radians(10 * np.sin(np.arange(50)))
    nod[:, 25:, 52] -= 2 * np.pi * np.sign(turn)  # the same angles, the other way round
    content = {"coefficients": nod, "generated_pose": nod[..., 52:]}
    inputs = Inputs(predictions=read_predictions(of_run(tmp_path / "run.npz", **content)))
    pitch = draw_pose(inputs, evaluate(inputs)).axes[0]
    for line in pitch.lines[-2:]:
        np.testing.assert_allclose(np.asarray(line.get_ydata()), 10 * np.sin(np.arange(50)), atol=1e-4)


def test_a_resting_head_is_drawn_at_rest_and_the_curves_apart(tmp_path: Path) -> None:
    still = np.zeros((1, 50, 58))
    still[..., 52:] = 1e-4 * np.random.default_rng(0).standard_normal((50, 6))
    content = {"coefficients": still, "generated_pose": still[..., 52:]}
    inputs = Inputs(predictions=read_predictions(of_run(tmp_path / "run.npz", **content)))
    for index, row in enumerate(draw_pose(inputs, evaluate(inputs)).axes):
        low, high = row.get_ylim()
        assert high - low == pytest.approx(5.0 if index < 3 else 0.02)
        shown, generated = row.lines[-2:]
        assert generated.get_linewidth() > 2 * shown.get_linewidth()
        assert generated.get_zorder() < shown.get_zorder()


@pytest.mark.parametrize(("frames", "drawn_s", "said"), [(750, 30, ""), (1000, 30, " (first 30 of 40 s)")])
def test_no_more_than_30_seconds_are_drawn_and_the_title_says_so(
    tmp_path: Path, frames: int, drawn_s: float, said: str
) -> None:
    content = {"coefficients": numbers(1, frames, 58), "generated_pose": numbers(1, frames, 6)}
    inputs = Inputs(predictions=read_predictions(of_run(tmp_path / "run.npz", **content)))
    figure = draw_pose(inputs, evaluate(inputs))
    assert figure.get_suptitle() == f"Pose of the listener, run.npz{said}"
    assert figure.axes[0].get_xlim() == (0, drawn_s)
    assert {len(np.asarray(row.lines[-1].get_ydata())) for row in figure.axes} == {750}


def test_the_picture_holds_both_colours_and_is_as_wide_as_a_screen(tmp_path: Path) -> None:
    widths = []
    for frames in (50, 750):
        track = of_run(
            tmp_path / "run.npz", coefficients=numbers(1, frames, 58), generated_pose=numbers(1, frames, 6) + 1
        )
        done(track, "--plot", tmp_path / "a.png")
        picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
        for colour in ((0x00, 0x72, 0xB2), (0xF2, 0xA8, 0x6F)):
            assert (np.abs(picture - colour).sum(axis=2) < 12).sum() > 500
        widths.append(picture.shape[1])
    assert widths == [1440, 1440]


def test_the_same_input_draws_the_same_plot(tmp_path: Path) -> None:
    track = of_run(tmp_path / "run.npz")
    for name in ("a.png", "b.png"):
        done(track, "--plot", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pred.npy", "--listener", "short.npy"], "The listener is [3, 99, 25]; pred.npy takes [3, 100, 25]."),
        (["pred.npy", "--speaker", "wide.npy"], "The speaker is [3, 100, 58]; pred.npy takes [3, 100, 25]."),
        (
            ["pred.npy", "--neighbours", "eye.npy"],
            "eye.npy: neighbours of shape [2, 2] do not fit 3 clips. Give [3, 3].",
        ),
        (
            ["pred.npy", "--speaker", "nan.npy"],
            "nan.npy is nan at clip 2, frame 8, feature 1. Repair it, or predict anew.",
        ),
        (["pred.npy", "--plot", "a.png"], "--plot draws the pose, which the 25 features in pred.npy do not have."),
        (["pred.npy", "--plot", "a.svg"], "a.svg does not end in .png. Try a.png."),
        (["pred.npy", "--json", "none/a.json"], "There is no folder none."),
        (
            ["pred.npy", "--with-posnet"],
            "pred.npy holds one track only, predictions. Leave out --with-posnet, or give what pflx run --coefficients "
            "wrote with PosNet.",
        ),
        (["pred.npy", "--video", "clip.mp4"], "--video clip.mp4 is one clip, pred.npy holds 3. Give the folder"),
        (["run.npz", "--video", "clip.mp4"], "clip.mp4 has 5 frames, run.npz has 30: not of one run."),
        (["run.npz", "--video", "none.mp4"], "none.mp4 does not exist. Check the path."),
        (["run.npz", "--hop", "25"], "run.npz has segments of 8 frames, not 25. Leave --hop out."),
        (["none.npz"], "none.npz does not exist. Check the path."),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    track = numbers(3, 100, 25)
    broken = track.copy()
    broken[2, 8, 1] = np.nan
    arrays = {"pred": numbers(3, 2, 100, 25), "short": track[:, :99], "wide": numbers(3, 100, 58), "nan": broken}
    for name, array in (arrays | {"eye": np.eye(2)}).items():
        np.save(f"{name}.npy", array)
    of_run(Path("run.npz"))
    with VideoWriter(Path("clip.mp4"), size=(48, 40), audio=False) as writer:
        writer.write(frames_of(5))
    before = set(tmp_path.iterdir())
    assert said in refusal("evaluate", *arguments)
    assert set(tmp_path.iterdir()) == before


def test_without_matplotlib_the_plot_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refusal("evaluate", of_run(tmp_path / "run.npz"), "--plot", tmp_path / "a.png")
    assert said == "pflx: matplotlib is not installed. Install it: pip install 'pflx[evaluate]'"
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_without_dtaidistance_only_the_warped_distance_is_left_out(
    case: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dtaidistance", None)
    outcome = done(case["pred"], "--listener", case["listener"])
    assert any("FRDist: dtaidistance is not installed" in line for line in left_out(outcome))
    assert "FRCorr" in outcome.out


def test_a_real_bundles_motion_is_judged(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real generator, PosNet and clip; only the renderer, which draws what the figures do not read, is quick."""
    monkeypatch.setattr(bundle_engines, "OrtEngine", _quick)
    monkeypatch.setattr(side_module, "BlazeFace", lambda: FACE)
    portrait, track = MEDIA / "portrait_astronaut_256.png", tmp_path / "track.npz"
    places = ("--bundle", exported, "--portrait", portrait, "-o", tmp_path / "a.mp4", "--coefficients", track)
    outcome = pflx("run", MEDIA / "podium_speech_8s.mp4", "--duration", "1.92", "--precision", "fp32", *places)
    assert outcome.code == 0, outcome.err
    done(track, "--video", tmp_path / "a.mp4", "--plot", tmp_path / "a.png", "--json", tmp_path / "a.json")
    found = report(tmp_path / "a.json")
    assert found["frames"] == FRAMES
    for row in found["motion"]:
        for border in (row["jump"], row["velocity_jump"], row["acceleration_jump"]):
            assert border["borders"] >= 4
            assert np.isfinite(border["z"])
        assert row["speed"] > 0
    assert found["pictures"]["part"] == "the whole picture"
    picture = Image.open(tmp_path / "a.png")
    assert picture.format == "PNG"


def _quick(path: Path, **options: Any) -> Engine:
    """In the place of `OrtEngine`: it, but for the frames."""
    real = OrtEngine(path, **options)
    if not path.name.startswith("pirender_frame"):
        return real

    def draw(feeds: Mapping[str, Array]) -> dict[str, Array]:
        digest = hashlib.sha256(feeds["coefficients"].tobytes() + feeds["frames"].tobytes()).digest()
        return {"image": np.resize(np.frombuffer(digest, np.uint8), (1, 1, 256, 256, 3))}

    return FakeEngine(draw, real.inputs, real.outputs)


def test_neither_the_runtime_nor_the_command_loads_the_evaluation_before_it_is_asked_for() -> None:
    code = "import sys, pflx.runtime, pflx.cli; sys.exit(any('runtime.evaluation' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
