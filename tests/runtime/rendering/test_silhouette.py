"""The network that finds the person in a portrait."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.places import GOLDEN, MEDIA

from pflx.runtime.rendering import silhouette
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.rendering.silhouette import Silhouette
from pflx.runtime.speaker.faces import DetectorFileError


def test_it_tells_what_mediapipe_tells() -> None:
    known = np.load(GOLDEN / "silhouette.npz")
    for name in known.files:
        found = Silhouette().find(load_portrait(MEDIA / "portraits" / name, 256))
        np.testing.assert_allclose(found, known[name] / 255, atol=0.5 / 255 + 1e-3)


@pytest.mark.parametrize("size", [96, 384, 512])
def test_pictures_of_any_size_are_looked_at_in_one(size: int) -> None:
    usual = Silhouette().find(load_portrait(MEDIA / "portraits" / "hopper.jpg", 256))
    other = Silhouette().find(load_portrait(MEDIA / "portraits" / "hopper.jpg", size))
    assert other.shape == (size, size)
    assert other.dtype == np.float32
    assert abs(float(other.mean()) - float(usual.mean())) < 0.02


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "silhouette.onnx").write_bytes(b"other")
    monkeypatch.setattr(silhouette, "MODEL_PATH", tmp_path / "silhouette.onnx")
    with pytest.raises(DetectorFileError, match="not the file pflx was released with"):
        Silhouette()
