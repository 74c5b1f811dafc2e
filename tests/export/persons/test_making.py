"""Persons made of files: the published styles and weights in, a person's file out, and what is refused."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import onnx
import psutil
import pytest
import torch
from support.commands import pflx, refusal
from support.export.personal_weights import (
    denoiser_weights,
    encoder_weights,
    modifier_shapes,
    modifier_weights,
)
from support.golden_arrays import coefficient_track, golden
from support.lagging import Windowed
from support.persons.step_graphs import step_graphs
from support.places import MEDIA
from support.sample_bundle import fill_bundle

from pflx.engines import Array, Bundle, Manifest, Provenance, write_manifest
from pflx.engines.bundle.manifest import MeanFace
from pflx.export import CheckpointError, ComponentError, ExportSettings, WrongComponentError
from pflx.export.checkpoints import read_in_parts
from pflx.export.checkpoints.kinds import RENDER_NOTE
from pflx.export.components import load_generator
from pflx.export.errors import PersonalisationError
from pflx.export.models import PerFRDiffCondition, PerFRDiffDenoise, PerFRDiffRender, load_model
from pflx.export.persons import Mode, PersonNetworks, make_person, read_listening, watch_listening
from pflx.export.persons.denoiser import write_generic
from pflx.runtime.generators.diffusion import TIMESTEPS
from pflx.runtime.generators.speaker_window import Ahead, SpeakerWindows, Window
from pflx.runtime.media.clip import speaker_for
from pflx.runtime.persons import Person, read_person
from pflx.runtime.persons.person import MODES
from pflx.runtime.speaker.face_track import FaceTrack, SpeakerView
from pflx.runtime.speaker.faces import BlazeFace
from pflx.runtime.speaker.landmarks import LandmarkExtractor

MEAN_FACE = np.linspace(-0.4, 0.5, 58).astype(np.float32)
EDITED = ("to_3dmm_expr.weight", "to_3dmm_pos.weight", *(f"decoder.layers.6.linear{n}.weight" for n in (1, 2)))


def save(path: Path, arrays: dict[str, Any], *, momentum: bool = False, **beside: Any) -> Path:
    """As the public training code saves a network; with `momentum`, the optimiser's numbers beside it."""
    state_dict = {key: torch.from_numpy(value) for key, value in arrays.items()}
    state = {n: {"momentum_buffer": torch.zeros_like(value)} for n, value in enumerate(state_dict.values()) if momentum}
    optimizer = {"state": state, "param_groups": [{"lr": 0.001}]}
    torch.save({"state_dict": state_dict, "optimizer": optimizer, **beside}, path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The published files, with a hypernetwork that is 16 wide."""
    folder = tmp_path_factory.mktemp("published")
    return {
        "denoiser": save(folder / "denoiser.pth", denoiser_weights("render")),
        "encoder": save(folder / "encoder.pth", encoder_weights()),
        "modifier": save(folder / "modifier.pth", modifier_weights("render"), momentum=True),
    }


@pytest.fixture(scope="module")
def generic() -> dict[str, torch.Tensor]:
    network = load_model("perfrdiff_render", denoiser_weights("render"))
    assert isinstance(network, PerFRDiffRender)
    weights = network.v5_weights()
    return {key: weights[key] for key in EDITED}


@pytest.fixture(scope="module")
def bundle(files: dict[str, Path], generic: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What of a bundle of PerFRDiffRender counts for making a person."""
    folder = tmp_path_factory.mktemp("bundle") / "me.pflx"
    folder.mkdir()
    write_generic(folder, generic)
    return sealed(folder, with_steps(folder, generic), sha256(files["denoiser"]), RENDER_NOTE)


def with_steps(folder: Path, generic: dict[str, torch.Tensor]) -> Manifest:
    manifest = fill_bundle(folder)
    steps = step_graphs(folder, {key: value.numpy() for key, value in generic.items()})
    roles = {name.removeprefix("perfrdiff_"): name for name in steps}
    generator = msgspec.structs.replace(manifest.generator, graphs={**manifest.generator.graphs, **roles})
    return msgspec.structs.replace(manifest, generator=generator, graphs={**manifest.graphs, **steps})


def sealed(folder: Path, manifest: Manifest, digest: str, note: str) -> Path:
    source = Provenance(slot="generator", source="denoiser.pth", sha256=digest, keys=146, note=note)
    changed = msgspec.structs.replace(
        manifest,
        untrained=None,
        generator=msgspec.structs.replace(manifest.generator, name="perfrdiff"),
        mean_face=MeanFace(source="mean_face.npy", values=[float(value) for value in MEAN_FACE]),
        provenance=[source],
    )
    write_manifest(folder, changed)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return recorded(tmp_path, 750)


def recorded(folder: Path, frames: int) -> Path:
    """The fixture's clip of person 0 as FaceVerse's tracker would write it: with the mean face."""
    path = folder / f"listener{frames}.npy"
    np.save(path, coefficient_track("person0", frames) + MEAN_FACE)
    return path


def made(bundle: Path, files: dict[str, Path], clip: Path, mode: Mode = "shift") -> Person:
    opened = Bundle.open(bundle)
    networks = PersonNetworks(files["encoder"], files["modifier"], mode)
    return make_person(opened, read_listening(clip, opened.manifest), networks, name="Ada")


def test_the_command_makes_the_published_person(
    bundle: Path, files: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    target = tmp_path / "ada.person"
    networks = ("--person-encoder", files["encoder"], "--modifier", files["modifier"])
    outcome = pflx("person", "make", bundle, "--coefficients", clip, *networks, "-o", target)
    assert outcome.code == 0, outcome.err
    assert "ada, of 750 frames of listener750.npy." in outcome.out
    assert "personal data" in outcome.out
    assert 4e6 < target.stat().st_size < 4.6e6
    person, case = read_person(target), golden("persons")
    assert np.abs(person.style - case["proj"][0]).max() <= 1e-5
    matrices = [np.concatenate([person.weights[key] for key in keys]) for keys in (EDITED[:2], EDITED[2:3], EDITED[3:])]
    for branch, matrix in enumerate(matrices):
        expected = case[f"render_p0_b{branch}_weight_probe"]
        assert np.abs(matrix @ case[f"render_probe_b{branch}"] - expected).max() <= 1e-4
    assert person.denoiser == sha256(files["denoiser"])
    assert (person.encoder, person.hypernetwork) == (sha256(files["encoder"]), sha256(files["modifier"]))
    assert (person.name, person.mode, person.frames, person.source) == ("ada", "shift", 750, "listener750.npy")


@pytest.mark.parametrize("spoilt", ["first", "second"])
def test_a_person_whose_graph_and_denoiser_disagree_is_not_written(
    files: dict[str, Path], clip: Path, generic: dict[str, torch.Tensor], tmp_path: Path, spoilt: str
) -> None:
    """A graph for persons that reads a matrix of theirs wrongly: half of what it says."""
    folder = tmp_path / "me.pflx"
    folder.mkdir()
    write_generic(folder, generic)
    manifest = with_steps(folder, generic)
    path = folder / "graphs/perfrdiff_personal.fp32.onnx"
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.output[0] == spoilt)
    model.graph.node.remove(node)
    node.output[0] = "whole"
    half = onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT, (), [0.5])
    model.graph.initializer.append(half)
    for place, each in enumerate((node, onnx.helper.make_node("Mul", ["whole", "half"], [spoilt]))):
        model.graph.node.insert(place, each)
    onnx.save_model(model, path)
    sealed(folder, manifest, sha256(files["denoiser"]), RENDER_NOTE)
    networks = ("--person-encoder", files["encoder"], "--modifier", files["modifier"])
    said = refusal("person", "make", folder, "--coefficients", clip, *networks, "-o", tmp_path / "ada.person")
    assert re.search(r"with this person's weights, 'next' is 0\.\d+ away from the denoiser that has them inside", said)
    assert not (tmp_path / "ada.person").exists()


def test_modes_are_those_of_the_file() -> None:
    assert get_args(Mode) == MODES


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_edits_the_generic_weights(
    bundle: Path, files: dict[str, Path], clip: Path, generic: dict[str, torch.Tensor], mode: Mode
) -> None:
    plain = made(bundle, files, clip, "weight").weights
    person = made(bundle, files, clip, mode)
    assert person.mode == mode
    for key, weight in generic.items():
        edit = torch.from_numpy(plain[key])
        expected = {"shift": weight + edit, "offset": weight * (1 + edit), "weight": edit}[mode]
        torch.testing.assert_close(torch.from_numpy(person.weights[key]), expected, rtol=0, atol=1e-6)
        assert float(edit.abs().max()) > 0.01


def test_what_comes_after_half_a_minute_is_not_read(
    bundle: Path, files: dict[str, Path], clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        longer = made(bundle, files, recorded(tmp_path, 900))
    assert not caplog.records
    assert longer.frames == 750
    assert longer.sha256 == made(bundle, files, clip).sha256


def test_fewer_frames_are_warned_of_and_far_fewer_refused(
    bundle: Path, files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        person = made(bundle, files, recorded(tmp_path, 600))
    assert "has 600 frames of a listener. The person encoder was trained with 750" in caplog.text
    assert np.abs(person.style - golden("persons")["proj_600"][0]).max() <= 1e-5  # and nothing was padded
    with pytest.raises(PersonalisationError, match=r"has 249 frames of a listener, 10\.0 s; 250 are the least"):
        made(bundle, files, recorded(tmp_path, 249))


def test_a_clip_is_looked_at_as_a_live_speaker_is(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = Bundle.open(bundle).manifest
    with caplog.at_level(logging.WARNING):
        listening = watch_listening(MEDIA / "webcam_cap12_12s.mp4", "landmarks", manifest)
    assert listening.source == "webcam_cap12_12s.mp4 by landmarks"
    assert "frames of a listener" in caplog.text
    expected = live_coefficients(MEDIA / "webcam_cap12_12s.mp4", manifest)
    np.testing.assert_array_equal(listening.coefficients, expected[: len(listening.coefficients)])


def live_coefficients(path: Path, manifest: Manifest) -> Array:
    """What a generator of a live session reads of somebody, a second at a time."""
    extractors = {"coefficients": LandmarkExtractor(manifest.mean_face.values)}
    view = SpeakerView(BlazeFace(), manifest.pfl, crops=False)
    windows = SpeakerWindows(Windowed(25, 25, 0, 0), view, extractors, 16_000)
    state, rows = windows.start(FaceTrack()), []
    for second, chunk in enumerate(speaker_for(path, manifest).chunks()):
        numbers = np.arange(25 * second, 25 * second + 25)
        window, state = windows.step(Window(list(chunk.video), chunk.audio, numbers, 0, 0, 0, 0), state, Ahead())
        rows.append(window["coefficients"])
    return np.concatenate(rows)


def test_clips_that_show_no_listener_are_refused(bundle: Path, files: dict[str, Path], tmp_path: Path) -> None:
    networks = ("--person-encoder", files["encoder"], "--modifier", files["modifier"], "-o", tmp_path / "me.person")
    short = MEDIA / "podium_speech_8s.mp4"
    assert "has 219 frames of a listener, 8.8 s" in refusal("person", "make", bundle, "--clip", short, *networks)
    sound = MEDIA / "dialogue_19s.flac"
    assert "holds sound alone" in refusal("person", "make", bundle, "--clip", sound, *networks)
    both = ("--clip", short, "--coefficients", recorded(tmp_path, 750))
    assert "holds coefficients already. Leave out --clip" in refusal("person", "make", bundle, *both, *networks)
    assert "nobody to make a person of" in refusal("person", "make", bundle, *networks)
    assert not (tmp_path / "me.person").exists()


def test_bundles_of_other_denoisers_are_refused(
    files: dict[str, Path], clip: Path, generic: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    for name in ("v5.pflx", "bare.pflx", "face.pflx"):
        (tmp_path / name).mkdir()
    write_generic(tmp_path / "v5.pflx", generic)
    other = sealed(tmp_path / "v5.pflx", fill_bundle(tmp_path / "v5.pflx"), "ab" * 32, "state_dict")
    with pytest.raises(PersonalisationError, match=r"has denoiser\.pth of perfrdiff for a generator, and persons are"):
        made(other, files, clip)
    bare = sealed(tmp_path / "bare.pflx", fill_bundle(tmp_path / "bare.pflx"), "ab" * 32, RENDER_NOTE)
    with pytest.raises(PersonalisationError, match=r"was exported without --persons\. Export it again"):
        made(bare, files, clip)
    fill_bundle(tmp_path / "face.pflx")
    with pytest.raises(PersonalisationError, match=r"has reactface for a generator"):
        made(tmp_path / "face.pflx", files, clip)


def test_other_hypernetworks_are_refused(bundle: Path, files: dict[str, Path], clip: Path, tmp_path: Path) -> None:
    def said(arrays: dict[str, Any], **beside: Any) -> str:
        path = save(tmp_path / "other.pth", arrays, **beside)
        with pytest.raises((PersonalisationError, WrongComponentError)) as caught:
            made(bundle, {**files, "modifier": path}, clip)
        return str(caught.value)

    assert "edits the original PerFRDiff's denoiser, which yields emotion" in said(modifier_weights("v1"))
    nested = {f"hypernet.{key}": value for key, value in modifier_weights("v1").items()}
    others = {
        "personality_encoder.1.weight": np.ones((128, 5), np.float32),
        "eeg_head.0.weight": np.ones((3, 512), np.float32),
    }
    react = "the hypernetwork of REACT 2026's PerFRDiff, not PerFRDiff's hypernetwork"
    assert f"{react}: it makes layers in an order of its own" in said(nested)
    assert react in said(nested | others, epoch=3, personal_condition_mode="3dmm_personality", train_eeg=False)
    # Its bare keys look like the published ones, and layers of one size may lie in another order.
    assert react in said(modifier_weights("render"), personal_condition_mode="3dmm_only")
    encoder = "holds PerFRDiff's encoder of persons, not PerFRDiff's hypernetwork: pass it to --person-encoder."
    assert encoder in said(encoder_weights())
    denoiser = "holds PerFRDiffRender's denoiser, not PerFRDiff's hypernetwork: pass it to --generator of pflx export."
    assert denoiser in said(denoiser_weights("render"))
    wrapped = {f"module.{key}": value for key, value in modifier_weights("render").items()}
    save(tmp_path / "other.pth", wrapped)
    person = made(bundle, {**files, "modifier": tmp_path / "other.pth"}, clip)
    assert person.sha256 == made(bundle, files, clip).sha256


def test_a_style_that_is_no_number_is_told_before_anything_is_edited(
    bundle: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    rows = coefficient_track("person0", 750)
    rows[100, 3] = 1e30
    np.save(tmp_path / "huge.npy", rows)
    with pytest.raises(PersonalisationError, match=r"style of huge\.npy is not finite.*largest of which is 1e\+30"):
        made(bundle, files, tmp_path / "huge.npy")


def test_a_file_that_cannot_be_read_in_parts_is_refused(tmp_path: Path) -> None:
    weights = {key: torch.from_numpy(value) for key, value in modifier_weights("render").items()}
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="old format, which is read as a whole; where it fits into memory"):
        read_in_parts(tmp_path / "old.pth", "perfrdiff_modifier")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux, which tells what is in memory")
def test_what_was_read_of_a_large_file_does_not_stay_in_memory(tmp_path: Path) -> None:
    shapes = modifier_shapes("render", 96)
    arrays = {key: np.full(shape, 0.5, np.float32) for key, shape in shapes.items()}
    size = sum(value.nbytes for value in arrays.values())
    save(tmp_path / "large.pth", arrays)
    del arrays
    reader, _ = read_in_parts(tmp_path / "large.pth", "perfrdiff_modifier")
    before, most = psutil.Process().memory_info().rss, 0
    for start in range(0, 524288, 16384):
        for branch in (1, 2):
            rows = reader.rows(f"branches.{branch}.weight", start, start + 16384)
            assert float(rows.sum()) == 0.5 * 96 * 16384
            most = max(most, psutil.Process().memory_info().rss - before)
    assert size > 400e6
    assert most < 60e6


def test_folded_into_an_export_it_gives_the_published_call(
    bundle: Path, files: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    outcome = pflx(
        *("person", "make", bundle, "--coefficients", clip, "--person-encoder", files["encoder"]),
        *("--modifier", files["modifier"], "-o", tmp_path / "ada.person"),
    )
    assert outcome.code == 0, outcome.err
    parts, read = load_generator([files["denoiser"]], ExportSettings(), tmp_path / "ada.person")
    assert [entry.slot for entry in read] == ["generator", "person"]
    assert (read[0].sha256, read[1].sha256) == (sha256(files["denoiser"]), sha256(tmp_path / "ada.person"))
    modules, case = parts.modules(), golden("persons")
    condition, denoise = modules["perfrdiff_condition"], modules["perfrdiff_denoise"]
    assert isinstance(condition, PerFRDiffCondition)
    assert isinstance(denoise, PerFRDiffDenoise)
    x, speaker, sound = (torch.from_numpy(case[f"render_call_{name}"]) for name in ("x", "coeffs", "audio"))
    step = torch.tensor([TIMESTEPS.index(500)])
    for row in range(2):
        one = slice(row, row + 1)
        with torch.inference_mode():
            keys, values = condition(speaker[one], sound[one])
            _, clean = denoise(x[one], torch.zeros_like(x[one]), step, torch.zeros(3), keys, values)
        assert np.abs(clean.numpy() - case["render_p0_t500_cfg"][one].clip(-1, 1)).max() <= 1e-4


def test_a_person_of_another_denoiser_is_not_folded(
    bundle: Path, files: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    networks = ("--person-encoder", files["encoder"], "--modifier", files["modifier"])
    assert pflx("person", "make", bundle, "--coefficients", clip, *networks, "-o", tmp_path / "a.person").code == 0
    other = save(tmp_path / "other.pth", {**denoiser_weights("render"), "decoder.norm.bias": np.zeros(512, np.float32)})
    made_for = re.escape(f"was made for the denoiser with SHA-256 {sha256(files['denoiser'])[:12]}…")
    with pytest.raises(ComponentError, match=f"{made_for}.*other.pth is another one"):
        load_generator([other], ExportSettings(), tmp_path / "a.person")
    alone = refusal("export", "--person", tmp_path / "a.person", "-o", tmp_path / "me.pflx")
    assert "Give its checkpoint with --generator, too." in alone
    with pytest.raises(ComponentError, match="Leave out --persons, or --person"):
        load_generator([files["denoiser"]], ExportSettings(persons=True), tmp_path / "a.person")
