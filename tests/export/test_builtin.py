"""The listener that comes with pflx: what the export would make anew, and copies of it without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from make_builtin import make
from support.commands import pflx, refusal

from pflx.engines import Bundle, MeanFace, OutputExistsError, PflInfo
from pflx.runtime.builtin import BuiltinOptions, builtin_bundle, export_builtin

WITHOUT_TORCH = "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'onnxscript'])); "


def plain(path: Path) -> bytes:
    """A graph without the version of whatever wrote it."""
    model = onnx.load(str(path))
    model.producer_version = ""
    return bytes(model.SerializeToString(deterministic=True))


@pytest.mark.slow
def test_exporting_it_again_gives_the_same_graphs(tmp_path: Path) -> None:
    shipped, again = builtin_bundle(), make(tmp_path / "again.pflx")
    assert [*again.manifest.graphs] == [*shipped.manifest.graphs]
    for name, graph in again.manifest.graphs.items():
        for precision, file in graph.files.items():
            assert plain(again.path / file) == plain(shipped.path / file), (name, precision)
    made = msgspec.structs.replace(
        again.manifest,
        created=shipped.manifest.created,
        pflx=shipped.manifest.pflx,
        versions=shipped.manifest.versions,
        files=shipped.manifest.files,
    )
    assert made == shipped.manifest
    checked, known = (json.loads((bundle.path / "report.json").read_text()) for bundle in (again, shipped))
    assert checked["graphs"].keys() == known["graphs"].keys()
    assert known["end_to_end"]["fp32"]["max_levels"] <= 1


@pytest.mark.parametrize("size", [224, 256, 384])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_copy_holds_what_was_asked_for_and_nothing_else(size: int, precision: str, tmp_path: Path) -> None:
    face = MeanFace(source="zero", values=[0.0] * 58)
    cut = PflInfo(mode="paper", window=256, padding=20)
    options = BuiltinOptions("fp16" if precision == "fp16" else "fp32", size, cut, face)
    made = export_builtin(tmp_path / "me.pflx", options)
    bundle = Bundle.open(made.path)
    kept = {"fp32"} if precision == "fp32" else {"fp32", "fp16"}
    assert (bundle.manifest.precision, bundle.manifest.renderer.size) == (precision, size)
    assert (bundle.manifest.pfl, bundle.manifest.mean_face) == (cut, face)
    assert all(graph.files.keys() == kept for graph in bundle.manifest.graphs.values())
    assert json.loads((bundle.path / "report.json").read_text())["end_to_end"].keys() == kept
    assert {file for graph in bundle.manifest.graphs.values() for file in graph.files.values()} == {
        path.relative_to(bundle.path).as_posix() for path in (bundle.path / "graphs").iterdir()
    }
    for name, graph in bundle.manifest.graphs.items():
        source = builtin_bundle()
        for kind, file in graph.files.items():
            assert (bundle.path / file).read_bytes() == source.graph_path(name, kind).read_bytes()


def test_the_command_writes_one_without_pytorch(tmp_path: Path) -> None:
    code = f"{WITHOUT_TORCH}sys.argv = ['pflx', 'export', '-o', 'me.pflx', '--mean-face', 'face.npy']; "
    np.save(tmp_path / "face.npy", np.zeros(58))
    command = [sys.executable, "-c", code + "from pflx.cli import main; main()"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Wrote me.pflx (0.3 MB), graphs in fp32." in done.stdout
    assert "Without weights: generator and renderer." in done.stdout
    assert Bundle.open(tmp_path / "me.pflx").manifest.mean_face.source.startswith("sha256:")


def test_a_copy_takes_no_place_of_another(tmp_path: Path) -> None:
    export_builtin(tmp_path / "me.pflx")
    with pytest.raises(OutputExistsError):
        export_builtin(tmp_path / "me.pflx")
    assert pflx("export", "-o", tmp_path / "me.pflx", "--overwrite", "--size", 224).code == 0
    assert Bundle.open(tmp_path / "me.pflx").manifest.renderer.size == 224


def test_it_remembers_whose_pixels_it_was_trained_on(tmp_path: Path) -> None:
    assert pflx("export", "-o", tmp_path / "me.pflx", "--stored-pixels").code == 0
    assert not Bundle.open(tmp_path / "me.pflx").manifest.pfl.square_pixels
    assert "padding 20 px, pixels as stored" in pflx("inspect", tmp_path / "me.pflx").out


def test_what_it_cannot_be_is_refused_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    assert "size is 301; give a multiple of 4 from 64 to 1024." in refusal("export", "-o", target, "--size", 301)
    assert "Mean face nowhere.npy does not exist" in refusal("export", "-o", target, "--mean-face", "nowhere.npy")
    assert not list(tmp_path.iterdir())
