"""HLG, PQ and wide gamuts are shown as the SDR picture that they were made of; how pictures are converted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import VideoReformatter
from support.media.clips import PictureTrack, likeness_db, read, scene, write_tracks

from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.decoding.converter import Converter

BT709, BT2020, P3 = 1, 9, 12
PQ, HLG, LINEAR = 16, 18, 8
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""Light of BT.709 to BT.2020. Source: ITU-R BT.2087."""
TO_P3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])
WHITE_NITS = 203.0

Floats = npt.NDArray[np.float64]


def pq(nits: Floats) -> Floats:
    """Source: SMPTE ST 2084."""
    power = (nits / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg(nits: Floats) -> Floats:
    """Of a display of 1000 cd/m². Source: ITU-R BT.2100."""
    shown = nits / 1000
    luma = np.maximum(shown @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene_light = shown * luma ** (1 / 1.2 - 1)
    high = 0.17883277 * np.log(np.maximum(12 * scene_light - 0.28466892, 1e-9)) + 0.55991073
    return np.asarray(np.where(scene_light <= 1 / 12, np.sqrt(3 * scene_light), high))


def deep_frame(signal: Floats, matrix: int = BT2020) -> av.VideoFrame:
    """A signal in [0, 1], [H, W, 3] RGB, as 10-bit limited Y'CbCr of BT.2020 or BT.709."""
    red, blue = (0.2627, 0.0593) if matrix == BT2020 else (0.2126, 0.0722)
    y = signal @ [red, 1 - red - blue, blue]
    cb, cr = (signal[..., 2] - y) / (2 - 2 * blue), (signal[..., 0] - y) / (2 - 2 * red)
    planes = [64 + 876 * y, 512 + 896 * cb, 512 + 896 * cr]
    frame = av.VideoFrame(signal.shape[1], signal.shape[0], "yuv444p10le")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = np.round(values)
        plane.update(rows.tobytes())
    return frame


def write_colours(path: Path, signals: list[Floats], transfer: int, primaries: int, matrix: int = BT2020) -> Path:
    frames = [deep_frame(np.clip(signal, 0, 1), matrix) for signal in signals]
    facts: dict[str, Any] = {"color_trc": transfer, "color_primaries": primaries, "colorspace": matrix}
    facts["color_range"] = 1
    return write_tracks(path, PictureTrack(frames, pix_fmt="yuv444p10le", options={"crf": "2"}, facts=facts))


@pytest.mark.parametrize(("transfer", "curve"), [(HLG, hlg), (PQ, pq)])
def test_hdr_is_shown_as_the_sdr_picture_it_was_made_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, transfer: int, curve: Any
) -> None:
    pictures = [scene(index) for index in range(5)]
    light = [(picture / 255) ** 2.4 @ TO_BT2020.T * WHITE_NITS for picture in pictures]
    path = write_colours(tmp_path / "hdr.mp4", [curve(each) for each in light], transfer, BT2020)
    assert likeness_db(read(open_speaker(path)).video, np.stack(pictures)) > 36
    assert not caplog.records


@pytest.mark.parametrize(("transfer", "white"), [(HLG, 0.75), (PQ, 0.58)])
def test_the_signal_of_reference_white_is_white_and_so_is_what_is_brighter(
    tmp_path: Path, transfer: int, white: float
) -> None:
    """Source of the signals: ITU-R BT.2408, table 1."""
    signals = [np.full((32, 32, 3), level) for level in (0.0, white, 0.95)]
    black, reference, brighter = read(open_speaker(write_colours(tmp_path / "w.mp4", signals, transfer, BT2020))).video
    assert black.max() <= 1
    assert reference.min() >= 254
    assert brighter.min() == 255


@pytest.mark.parametrize(
    ("primaries", "matrix", "gamut"), [(P3, BT709, TO_P3), (BT2020, BT2020, TO_BT2020)], ids=["P3", "BT.2020"]
)
def test_a_wide_gamut_is_brought_to_that_of_screens(tmp_path: Path, primaries: int, matrix: int, gamut: Floats) -> None:
    pictures = [scene(index) for index in range(5)]
    signals = [((picture / 255) ** 2.4 @ gamut.T) ** (1 / 2.4) for picture in pictures]
    path = write_colours(tmp_path / "wide.mp4", signals, BT709, primaries, matrix)
    assert likeness_db(read(open_speaker(path)).video, np.stack(pictures)) > 36


def test_colours_of_sdr_are_ffmpegs_bit_for_bit(tmp_path: Path) -> None:
    facts = {"color_trc": BT709, "color_primaries": BT709, "colorspace": BT709, "color_range": 1}
    path = write_tracks(tmp_path / "sdr.mp4", PictureTrack([scene(index) for index in range(5)], facts=facts))
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(read(open_speaker(path)).video, expected)


def test_a_curve_that_is_not_undone_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_colours(tmp_path / "linear.mp4", [scene(0) / 255] * 3, LINEAR, BT709)
    with caplog.at_level(logging.WARNING):
        read(open_speaker(path))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: its colours (linear light) are taken as they are stored."
    ]


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
