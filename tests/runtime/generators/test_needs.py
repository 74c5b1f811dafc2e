"""What a generator reads of the speaker beyond picture and sound: given, or refused before the session begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fakes import MEAN_FACE, frames_of, sound_of
from support.lagging import PERFRDIFF, REGION, Counting, lagging

from pflx.engines import FeedError
from pflx.runtime import Extractor, Listener, NeedError, Recorded, SpeakerSettings, open_extractor
from pflx.runtime.media.video_writer import VideoWriter

STARTS: dict[str, Any] = {
    "stream": lambda listener, clip: listener.stream(),
    "react": lambda listener, clip: next(listener.react(clip)),
    "live": lambda listener, clip: listener.live(clip, lambda frame: None),
}


def needy() -> Listener:
    listener = lagging(PERFRDIFF)
    listener._speakers._extractors = {}
    return listener


@pytest.fixture(name="clip")
def speaker_clip(tmp_path: Path) -> Path:
    path = tmp_path / "speaker.mp4"
    with VideoWriter(path, size=(48, 40), audio=True) as writer:
        writer.write(frames_of(30))
        writer.write_audio(sound_of(30))
    return path


@pytest.mark.parametrize("start", STARTS)
def test_a_need_that_is_not_met_is_told_before_anything_runs(start: str, clip: Path) -> None:
    with pytest.raises(NeedError, match=r"coefficients.*--speaker-coefficients.*FILE.npy.*landmarks.*REGRESSOR.onnx"):
        STARTS[start](needy(), clip)


def test_an_extractor_of_another_size_is_refused() -> None:
    with pytest.raises(NeedError, match="58 numbers of coefficients, the extractor gives 25"):
        needy().stream(speaker=SpeakerSettings(extractors={"coefficients": Recorded(np.zeros((9, 25), np.float32))}))


def test_a_session_brings_its_own_extractor() -> None:
    extractor = Counting()
    with needy().stream(speaker=SpeakerSettings(region=REGION, extractors={"coefficients": extractor})) as stream:
        stream.push(video=frames_of(5, size=(32, 32)), audio=sound_of(5))
        assert len(list(stream.pull())) == 5
    assert extractor.asked == [0, 1, 2, 3, 4]


def test_a_file_is_opened_and_the_mean_face_subtracted(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "speaker.npy"
    np.save(path, np.arange(30, dtype=np.float32)[:, None] + MEAN_FACE)
    frames = list(needy().react(clip, speaker=SpeakerSettings(extractors={"coefficients": path})))
    ends = [frame.coefficients[1].item() for frame in frames]
    assert ends == pytest.approx([4.0] * 10 + [9.0] * 5 + [14.0] * 5 + [19.0] * 5 + [24.0] * 5, abs=1e-5)


def test_a_file_is_opened_once_for_a_clip(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "speaker.npy", list[str]()
    np.save(path, np.zeros((30, 58), np.float32))

    def counting(given: str | Path, need: str, mean_face: Any) -> Extractor:
        opened.append(need)
        return open_extractor(given, need, mean_face)

    monkeypatch.setattr("pflx.runtime.speaker.extractors.open_extractor", counting)
    next(needy().react(clip, speaker=SpeakerSettings(extractors={"coefficients": path})))
    assert opened == ["coefficients"]


def test_too_short_a_record_is_told_before_the_first_frame(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "speaker.npy"
    np.save(path, np.zeros((12, 58), np.float32))
    with pytest.raises(FeedError, match="recorded for 12 frames, and the clip has 30"):
        next(needy().react(clip, speaker=SpeakerSettings(extractors={"coefficients": path})))


def test_in_a_live_session_the_record_follows_the_speakers_frames(clip: Path) -> None:
    shown: list[tuple[int, float]] = []
    values = np.repeat(np.arange(30, dtype=np.float32)[:, None], 58, axis=1)
    with needy().live(
        clip,
        lambda frame: shown.append((frame.ledger.frame, frame.coefficients[1].item())),
        speaker=SpeakerSettings(region=REGION, extractors={"coefficients": Recorded(values)}),
    ) as session:
        session.wait()
    assert shown
    for frame, end in shown:
        if frame >= 10:
            assert end == frame // 5 * 5 - 1
