"""What large clips cost in memory, and what is said where there is none."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.error import MemoryError as AvMemoryError
from support.fakes import fake_listener
from support.media.clips import PictureTrack, SoundTrack, click_train, greys, read, write_tracks

from pflx.engines import PflxError
from pflx.runtime import SpeakerSettings
from pflx.runtime.media import clip, decoder
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.errors import MediaMemoryError
from pflx.runtime.speaker.pfl import Region

SIZE = (1920, 1080)
PICTURE_BYTES = 1920 * 1080 * 3


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = PictureTrack(greys(40, SIZE), codec="mpeg4", facts={"bit_rate": 2_000_000})
    return write_tracks(tmp_path_factory.mktemp("clips") / "large.mp4", pictures)


@contextmanager
def peak_below(size: int) -> Iterator[None]:
    """FFmpeg's own memory, a few pictures of it, is not seen here."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def test_a_chunk_of_large_pictures_holds_few_and_the_clip_stays_the_same(large: Path) -> None:
    speaker = open_speaker(large)
    with peak_below(13 * PICTURE_BYTES):
        counts = [len(chunk.video) for chunk in speaker.chunks(40)]
    assert counts == [5] * 8
    whole = read(speaker.limited(0.8), 3)
    np.testing.assert_array_equal(read(speaker.limited(0.8), 40).video, whole.video)


def test_reacting_to_large_pictures_keeps_those_alone_that_nobody_has_looked_at(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment takes 8; they are looked at as they come."""
    monkeypatch.setattr(clip, "_CHUNK_BYTES", 1)
    region = SpeakerSettings(region=Region(100, 100, 400, 400))
    with peak_below(6 * PICTURE_BYTES):
        assert len(list(fake_listener().react(open_speaker(large).limited(0.96), speaker=region))) == 24


class _Container:
    """A file whose n-th packet finds no memory."""

    def __init__(self, whole: Any, failing: int) -> None:
        self._whole, self._failing = whole, failing
        self.streams = whole.streams

    def demux(self, stream: Any) -> Iterator[Any]:
        for index, packet in enumerate(self._whole.demux(stream)):
            yield SimpleNamespace(dts=packet.dts, decode=_no_memory) if index == self._failing else packet


def _no_memory() -> None:
    raise AvMemoryError(12, "Cannot allocate memory")


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_out_of_memory_is_no_damaged_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = write_tracks(tmp_path / "clip.mkv", PictureTrack(greys(50)), SoundTrack(click_train(2.0, 16_000)))
    speaker = open_speaker(path)
    opened = decoder.opened

    @contextmanager
    def failing(path: Path) -> Iterator[Any]:
        with opened(path) as container:
            yield _Container(container, 20)

    monkeypatch.setattr(decoder, "opened", failing)
    with pytest.raises(MediaMemoryError, match=r"not enough memory to read .*clip\.mkv") as caught:
        read(speaker)
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, PflxError)


def test_out_of_memory_on_opening_is_told_apart(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    monkeypatch.setattr(av, "open", lambda *_, **__: _no_memory())
    with pytest.raises(MediaMemoryError, match=r"large\.mp4"):
        open_speaker(large)
