"""Pictures of FFmpeg, converted by as many threads as they are worth."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from pflx.runtime.media.decoding.converter import Converter


def noise(width: int, height: int) -> av.VideoFrame:
    rng = np.random.default_rng(0)
    return av.VideoFrame.from_ndarray(rng.integers(0, 256, (height, width, 3), np.uint8), format="rgb24")


@pytest.mark.parametrize(("size", "threads"), [((256, 256), 1), ((1280, 720), 1), ((1920, 1080), 0)])
@pytest.mark.parametrize("wanted", [{"format": "yuv420p"}, {"format": "gray", "width": 64, "height": 48}])
def test_the_picture_is_ffmpegs_and_a_small_one_is_not_shared_out(
    size: tuple[int, int], threads: int, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, converter, given = noise(*size), Converter(), []
    real = converter._reformatter

    class Watched:
        def reformat(self, frame: av.VideoFrame, **options: Any) -> av.VideoFrame:
            given.append(options["threads"])
            return real.reformat(frame, **options)

    monkeypatch.setattr(converter, "_reformatter", Watched())
    for _ in range(2):
        np.testing.assert_array_equal(
            converter.convert(frame, **wanted).to_ndarray(), VideoReformatter().reformat(frame, **wanted).to_ndarray()
        )
    assert given == [threads] * 2


def test_one_that_becomes_large_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    converter, given = Converter(), []
    monkeypatch.setattr(converter, "_reformatter", type("", (), {"reformat": lambda self, f, **o: given.append(o)})())
    converter.convert(noise(64, 64), width=4096, height=2160)
    assert given == [{"threads": 0, "width": 4096, "height": 2160}]


def test_what_is_as_it_is_wanted_stays_itself() -> None:
    frame = noise(64, 48)
    assert Converter().convert(frame, format="rgb24") is frame
