"""`pflx demo`: everything comes with pflx, and what comes out is a video of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.commands import pflx, refusal

from pflx.runtime import open_speaker
from pflx.runtime.builtin import DEMO


def test_it_needs_nothing_and_says_where_the_video_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launched: list[str] = []
    monkeypatch.setattr("typer.launch", launched.append)
    done = pflx("demo")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "Wrote pflx-demo.mp4"
    assert "pflx run CLIP -p PICTURE" in done.out
    assert launched == []  # nobody looks at a terminal
    video, speaker = open_speaker("pflx-demo.mp4"), open_speaker(DEMO / "speaker.mp4")
    assert video.has_audio
    frames = np.concatenate([chunk.video for chunk in video.chunks()])
    assert len(frames) == sum(len(chunk.video) for chunk in speaker.chunks())
    listener = frames[:, :, -256:].astype(float)
    assert np.abs(np.diff(listener, axis=0)).mean(axis=(1, 2, 3)).max() > 0.5, "it moves"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    assert "no folder" in refusal("demo", "-o", tmp_path / "nowhere" / "a.mp4")
