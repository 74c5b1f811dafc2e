"""What was hashed is what runs, whatever becomes of a bundle's files meanwhile."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pflx.engines import Bundle, BundleCorruptError, OrtEngine
from pflx.runtime.builtin import builtin_path
from pflx.runtime.bundle_engines import EngineSettings, close_engines, open_engines

LIBRARIES = ["onnxruntime", *(["openvino"] if find_spec("openvino") else [])]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(builtin_path(), tmp_path / "me.pflx"))


def change(graph: Path) -> None:
    """Put another graph there, which runs as well, and has as many bytes."""
    model = onnx.load(graph)
    size = graph.stat().st_size
    weights = next(each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(1), weights.name))
    onnx.save(model, graph)
    assert graph.stat().st_size == size


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_graph_that_is_replaced_after_the_bundle_was_opened_does_not_run(bundle: Path, library: str) -> None:
    opened = Bundle.open(bundle)
    change(opened.graph_path("posnet"))
    with pytest.raises(BundleCorruptError, match=r"the content of 'graphs/posnet\.fp32\.onnx' has changed"):
        open_engines(opened, settings=EngineSettings(library))  # type: ignore[arg-type]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_graph_that_is_gone_after_the_bundle_was_opened_is_named(bundle: Path, library: str) -> None:
    opened = Bundle.open(bundle)
    opened.graph_path("posnet").unlink()
    with pytest.raises(BundleCorruptError, match=r"'graphs/posnet\.fp32\.onnx' cannot be read: No such file"):
        open_engines(opened, settings=EngineSettings(library))  # type: ignore[arg-type]


@pytest.mark.parametrize("library", LIBRARIES)
def test_engines_compute_what_was_read(bundle: Path, library: str) -> None:
    opened = Bundle.open(bundle)
    engines, gpu = open_engines(opened, settings=EngineSettings(library))  # type: ignore[arg-type]
    plain = OrtEngine(opened.graph_path("posnet"))
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.standard_normal([1 if isinstance(size, str) else size for size in spec.shape]).astype(spec.dtype)
        for name, spec in plain.inputs.items()
    }
    for name, value in plain.run(feeds).items():
        np.testing.assert_allclose(engines["posnet"].run(feeds)[name], value, atol=1e-5)
    plain.close()
    close_engines(engines, gpu)
