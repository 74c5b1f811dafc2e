"""`pflx export` and bad input: one clear line, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.commands import refusal
from torch import nn

import pflx.export
from pflx.cli.export import Kind
from pflx.engines import OutputError
from pflx.engines.bundle.mean_face import read_mean_face
from pflx.export import (
    FAMILIES,
    ComponentError,
    Components,
    ExportOptions,
    ExportSettings,
    export_bundle,
    untrained,
)

Usage = namedtuple("Usage", "total used free")


class Network(nn.Module):
    """Stands for a network that is large in earnest: it has weights and a slide."""

    def __init__(self, slide: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))
        self.slide = slide


class Parts:
    """Stands for a generator."""

    name = "reactface"

    def __init__(self, hop: int) -> None:
        self.hop = hop

    def modules(self) -> dict[str, nn.Module]:
        return {"graph": Network()}


def components(hop: int = 8, slide: int = 8) -> Components:
    return Components(
        generator=cast(Any, Parts(hop)),
        posnet=cast(Any, Network(slide)),
        renderer=cast(Any, SimpleNamespace(weights=1000)),
        mean_face_info=read_mean_face("zero"),
        untrained=0,
    )


@pytest.fixture(scope="module")
def posnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "posnet.pth"
    torch.save(untrained("posnet", 0), path)
    return path


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(work: Path, *arguments: str | Path, code: int = 1) -> str:
    """The one line of a failed export into `work`, which must stay as it was."""
    before = sorted(work.rglob("*"))
    said = refusal("export", *arguments, code=code)
    assert sorted(work.rglob("*")) == before
    return said


def checkpoints(generator: Path, posnet: Path, renderer: Path | None = None) -> list[str | Path]:
    return ["--generator", generator, "--posnet", posnet, "--renderer", renderer or posnet, "-o", "me.pflx"]


@pytest.mark.parametrize("slot", ["--generator", "--posnet", "--renderer"])
def test_checkpoints_and_a_seed_do_not_go_together(work: Path, posnet: Path, slot: str) -> None:
    both = refused(work, slot, posnet, "--untrained", "0", "-o", "me.pflx")
    assert "--untrained makes all weights up and takes no checkpoints" in both


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--precision", "fp8", "'fp8'; give fp32 or fp16."),
        ("--engine", "openvino", "'openvino'; give none, tensorrt or tensorrt-rtx."),
        ("--pfl", "floating", "'floating'; give release or paper."),
        ("--kind", "wav2lip", "'wav2lip'; give reactface, perfrdiff, transvae, belfusion or backchannel."),
        ("--window", "0", "'0'; give a whole number, 1 or more."),
        ("--history", "all", "'all'; give a whole number, 0 or more."),
        ("--untrained", "-1", "'-1'; give a whole number, 0 or more."),
        ("--untrained", "many", "'many'; give a whole number, 0 or more."),
        ("--colour", "red", "pflx export has no option --colour. See `pflx export --help`."),
    ],
)
def test_an_unknown_option_or_value_is_named_with_the_choices(work: Path, option: str, value: str, said: str) -> None:
    line = refused(work, "--untrained", "0", "-o", "me.pflx", option, value, code=2)
    assert option in line
    assert line.endswith(said)


def test_a_kind_goes_with_made_up_weights_only(work: Path, posnet: Path) -> None:
    line = refused(work, *checkpoints(posnet, posnet), "--kind", "transvae")
    assert "--kind transvae goes with --untrained; checkpoints are known by their keys." in line
    line = refused(work, *checkpoints(posnet, posnet), "--kind", "backchannel")
    assert "The backchannel generator has no weights. Leave out --generator, or --kind backchannel." in line


def test_every_generator_can_be_asked_for_by_its_kind() -> None:
    assert {kind.value for kind in Kind} == FAMILIES.keys()


def test_what_was_chosen_reaches_the_generator(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def record(*given: Any, **named: Any) -> Components:
        seen.append((given, named))
        raise ComponentError("seen")

    monkeypatch.setattr(pflx.export, "untrained_components", record)
    monkeypatch.setattr(pflx.export, "load_components", record)
    begin = ("--mean-face", "zero", "-o", "me.pflx")
    refused(work, *begin, "--untrained", "3", "--kind", "perfrdiff", "--mfcc-range", "-30", "40", "--use-past-frames")
    refused(work, *begin, "--untrained", "3", "--kind", "transvae", "--window", "16", "--history", "32")
    files = ("--generator", "a.pth", "--generator", "b.pth", "--posnet", "c.pth", "--renderer", "d.pth")
    refused(work, *begin, *files)
    diffusion, variational, trained = seen
    settings = ExportSettings(mfcc_range=(-30, 40), use_past_frames=True)
    assert diffusion == ((3,), {"kind": "perfrdiff", "mean_face": "zero", "settings": settings})
    assert variational[1]["settings"] == ExportSettings(window=16, history=32)
    assert trained[1]["generator"] == [Path("a.pth"), Path("b.pth")]
    assert trained[1]["settings"] == ExportSettings()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("reactface", ("--window", "12"), "multiple of 8 frames, got 12"),
        ("transvae", ("--window", "12"), "windows of 8 or 16 frames, got 12"),
        ("belfusion", ("--window", "8"), "--window is for reactface and transvae, not for belfusion. Leave it out."),
        ("reactface", ("--use-past-frames",), "--use-past-frames is for perfrdiff, not for reactface."),
        ("perfrdiff", ("--mfcc-range", "3", "1"), "An MFCC range from 3 to 1 is empty."),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(work: Path, kind: str, options: tuple[str, ...], said: str) -> None:
    assert said in refused(work, "--untrained", "0", "--kind", kind, "-o", "me.pflx", *options)


def test_the_place_is_checked_before_any_weight_is_read(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pflx.export, "untrained_components", lambda *_, **__: pytest.fail("weights were made"))
    (work / "old.pflx").mkdir()
    (work / "file").touch()
    for output, said in (
        ("me.onnx", "A bundle's name ends in .pflx, 'me.onnx' does not. Try me.onnx.pflx."),
        ("lost/me.pflx", "lost is no folder. Make it, or write me.pflx elsewhere."),
        ("file/me.pflx", "file is no folder. Make it, or write me.pflx elsewhere."),
        ("old.pflx", "old.pflx exists. Give another name, or replace it with --overwrite."),
    ):
        assert said in refused(work, "--untrained", "0", "-o", output)
    assert "is no bundle, and is not replaced" in refused(work, "--untrained", "0", "-o", "old.pflx", "--overwrite")


def test_a_file_that_is_no_checkpoint_is_named(work: Path, posnet: Path) -> None:
    (work / "cut.pth").write_bytes(posnet.read_bytes()[:-5000])
    (work / "notes.pth").write_text("lr = 1e-4\n" * 100)
    (work / "empty.pth").touch()
    for name, said in (
        ("none.pth", "does not exist"),
        ("cut.pth", "is damaged: a zip archive that is truncated"),
        ("notes.pth", "is no PyTorch checkpoint"),
        ("empty.pth", "is empty"),
        (".", "is a directory"),
    ):
        line = refused(work, *checkpoints(work / name, posnet), "--mean-face", "zero")
        assert str(work / name) in line
        assert said in line


def test_a_network_in_the_wrong_slot_is_told_where_it_goes(work: Path, posnet: Path) -> None:
    line = refused(work, *checkpoints(posnet, posnet), "--mean-face", "zero")
    assert (
        f"--generator {posnet} holds PosNet, not what the generator of a bundle is made of: pass it to --posnet."
        in line
    )


def test_trained_weights_need_a_mean_face(work: Path, posnet: Path) -> None:
    line = refused(work, *checkpoints(posnet, posnet))
    assert "No mean face" in line
    assert "Pass --mean-face mean_face.npy of the training data, or --mean-face zero to go without." in line


def test_a_mean_face_that_is_none_is_named(work: Path, posnet: Path) -> None:
    np.save("short.npy", np.zeros(57))
    np.save("nan.npy", np.full(58, np.nan))
    np.save("words.npy", np.array(["a"] * 58))
    np.save("pickle.npy", np.array([{}] * 58), allow_pickle=True)
    np.savez("many.npz", face=np.zeros(58), other=np.zeros(58))
    Path("text.npy").write_text("0 " * 58)
    Path("empty.npy").touch()
    for name, said in (
        ("none.npy", "does not exist"),
        ("short.npy", "is float64 [57], not 58 numbers"),
        ("nan.npy", "holds NaN or infinite values"),
        ("words.npy", "not 58 numbers"),
        ("pickle.npy", "holds object, no numbers"),
        ("many.npz", "is 2 arrays, not 58 numbers"),
        ("text.npy", "is no .npy, .npz or .csv of numbers"),
        ("empty.npy", "is no .npy, .npz or .csv of numbers"),
        (".", "is a folder"),
    ):
        line = refused(work, *checkpoints(posnet, posnet), "--mean-face", name)
        assert f"Mean face {name}" in line
        assert said in line


def test_a_mean_face_is_taken_in_any_shape_and_known_by_its_hash(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 58)
    np.save(tmp_path / "face.npy", values.reshape(1, 1, 58))
    face = read_mean_face(str(tmp_path / "face.npy"))
    np.testing.assert_allclose(face.values, values, atol=1e-6)
    assert face.source.startswith("sha256:")


def test_a_posnet_of_another_slide_than_the_hop_is_refused_with_what_to_do() -> None:
    with pytest.raises(ComponentError) as caught:
        components(hop=8, slide=25)
    assert str(caught.value) == (
        "PosNet was trained for a slide of 25 frames, the hop of reactface is 8. "
        "Train or fit a PosNet with a slide of 8 and pass it to --posnet."
    )


def test_a_size_that_cannot_be_rendered_is_named(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pflx.export, "untrained_components", lambda *_, **__: components())
    assert "Frames of 300 px cannot be rendered" in refused(work, "--untrained", "0", "-o", "me.pflx", "--size", "300")


def test_a_full_disk_is_known_before_the_work(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pflx.export, "untrained_components", lambda *_, **__: components())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 9000, 9000))
    line = refused(work, "--untrained", "0", "-o", "me.pflx")
    assert "needs 0 MB, its disk has 0 MB free. Free some." in line
    with pytest.raises(OutputError):
        export_bundle(work / "me.pflx", components(), ExportOptions(precision="fp16", engine="tensorrt-rtx"))
    assert not list(work.iterdir())


def test_a_missing_package_is_named_with_its_extra(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pflx.export", None)
    line = refused(work, "--untrained", "0", "-o", "me.pflx")
    assert "pip install 'pflx[cpu,export]'" in line


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_an_export_in_the_middle_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-m", "pflx", "export", "--untrained", "0", "-o", "me.pflx"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ)
    while process.poll() is None and not list(tmp_path.glob(".pflx-*.part/graphs")):
        time.sleep(0.1)
    process.send_signal(how)
    _, said = process.communicate()
    assert process.returncode == 128 + how
    assert said == "pflx: Stopped. Nothing half-written was left.\n"
    assert not list(tmp_path.iterdir())
