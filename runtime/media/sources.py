"""Where a live session gets the speaker from: a file, any iterable, or a camera with a microphone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, SAMPLE_RATE_HZ, samples_per_frame
from pflx.runtime.media.clip import SpeakerFile, open_speaker

_BLOCKS = 25  # of sound, that all must tell of another rate ...
_OTHER_RATE = 0.08  # ... by so much: 44100 and 48000 Hz are 9 % apart


@dataclass(frozen=True, eq=False)
class Timed:
    """A picture, some sound, or both, with the time at which they were captured. The session checks them.

    Attributes:
        time_s: of the picture, or of the first sample, on the source's media clock. Its zero means nothing, but
            pictures and sound share it.
        video: uint8 [H, W, 3] RGB, one picture. The pictures may come at any rate.
        audio: float32 [N], mono in [-1, 1], at the listener's rate (`Manifest.sample_rate_hz`).
        dark: the camera is off from here on: `video` shows nobody, goes on until another comes, and none is waited for.
    """

    time_s: float
    video: UInt8Array | None = None
    audio: Float32Array | None = None
    dark: bool = False

    def copied(self) -> Timed:
        """The same with arrays of its own: a source may write its next picture into the ones it gave."""
        return Timed(
            self.time_s,
            None if self.video is None else self.video.copy(),
            None if self.audio is None else self.audio.copy(),
            self.dark,
        )


@runtime_checkable
class Source(Protocol):
    """A speaker in real time."""

    @property
    def live(self) -> bool:
        """Whether the stamps come from a running clock, as with a camera.

        If not, the session holds every item back until its time has come.
        """
        ...

    @property
    def sample_rate_hz(self) -> int | None:
        """Of the sound it gives; None if it gives none."""
        ...

    def tracks(self) -> Sequence[Iterator[Timed]]:
        """What there is to read, each to be read in a thread of its own, in the order of time within a track."""
        ...

    def close(self) -> None:
        """End it, from any thread: the reads end soon. Closing twice is harmless."""
        ...


def as_source(
    given: Source | SpeakerFile | str | Path | Iterable[Timed], sample_rate_hz: int = SAMPLE_RATE_HZ
) -> Source:
    """The source that was meant: a clip by its path, an iterable of `Timed`, or a source as it is.

    Args:
        given: what the user gave.
        sample_rate_hz: the listener's. A clip gives its sound at it; items of an iterable are taken to have it.

    Raises:
        FeedError: it is none of these, or a source whose sound has another rate.
        MediaError: the clip cannot be read.
    """
    if isinstance(given, str | Path | SpeakerFile):
        return FileSource(given, sample_rate_hz=sample_rate_hz)
    if not isinstance(given, type):
        if isinstance(given, Source):
            return _checked_rate(given, sample_rate_hz)
        if isinstance(given, Iterable):
            return IterableSource(given, sample_rate_hz=sample_rate_hz)
    kind = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    raise FeedError(
        f"{kind} is no source. Give a path, an iterable of Timed items, or an object with live, sample_rate_hz, "
        "tracks and close, such as WebcamSource()."
    )


def _checked_rate(source: Source, sample_rate_hz: int) -> Source:
    if source.sample_rate_hz not in (None, sample_rate_hz):
        kind = type(source).__name__
        fix = f"Make it with {kind}(..., sample_rate_hz={sample_rate_hz})."
        if isinstance(source, IterableSource):  # which gives its items as they are
            fix = (
                f"Resample its sound to {sample_rate_hz} Hz, and say so: sample_rate_hz={sample_rate_hz}. "
                "Or push it: PushSource takes any rate."
            )
        raise FeedError(
            f"The {kind} gives sound at {source.sample_rate_hz} Hz, the listener hears {sample_rate_hz} Hz. {fix}"
        )
    return source


class FileSource:
    """A clip, at the pace of its own clock.

    One track: picture k at k / 25 s, then the 1/25 s of sound that begins there; silence where the clip has none.

    Args:
        clip: path, or a clip that was looked into.
        loop: begin again at the end; time goes on.
        sample_rate_hz: of the sound; None leaves it at the clip's `SpeakerFile.sample_rate_hz`.

    Raises:
        FeedError: the rate is no multiple of 25.
        MediaError: the clip cannot be read.
    """

    live = False

    def __init__(
        self, clip: SpeakerFile | str | Path, *, loop: bool = False, sample_rate_hz: int | None = None
    ) -> None:
        clip = clip if isinstance(clip, SpeakerFile) else open_speaker(clip)
        self.clip = clip if sample_rate_hz is None else clip.at_rate(sample_rate_hz)
        self._loop = loop
        self._closed = False

    @property
    def path(self) -> Path:
        """Of the clip."""
        return self.clip.path

    @property
    def sample_rate_hz(self) -> int:
        """See the class."""
        return self.clip.sample_rate_hz

    def tracks(self) -> Sequence[Iterator[Timed]]:
        """The one track, from the start."""
        return [self._items()]

    def close(self) -> None:
        """End it; closing twice is harmless."""
        self._closed = True

    def _items(self) -> Iterator[Timed]:
        numbers = count()
        for _ in count() if self._loop else range(1):
            for chunk in self.clip.chunks(1):
                time_s = next(numbers) / FPS
                for item in (Timed(time_s, video=chunk.video[0]), Timed(time_s, audio=chunk.audio)):
                    if self._closed:
                        return
                    yield item


class IterableSource:
    """Any iterable of `Timed` items, in order of time.

    `close` takes effect when the iterable yields: an iterable that waits for ever cannot be ended from here. The items
    go on as they are: sound of another rate, or of several channels, is for `PushSource`.

    Args:
        items: pictures and sound, apart or together.
        live: whether they come as they are captured; else the session holds them back until their time.
        sample_rate_hz: of the sound in them; it must be the listener's.

    Raises:
        FeedError: the rate is no multiple of 25.
    """

    def __init__(self, items: Iterable[Timed], *, live: bool = False, sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
        samples_per_frame(sample_rate_hz)
        self._items = items
        self._live = live
        self._sample_rate_hz = sample_rate_hz
        self._closed = False

    @property
    def live(self) -> bool:
        """See the class."""
        return self._live

    @property
    def sample_rate_hz(self) -> int:
        """See the class."""
        return self._sample_rate_hz

    def tracks(self) -> Sequence[Iterator[Timed]]:
        """The one track."""
        return [self._checked()]

    def close(self) -> None:
        """End it with the next item; closing twice is harmless."""
        self._closed = True

    def _checked(self) -> Iterator[Timed]:
        rate = _StatedRate(self._sample_rate_hz)
        for item in self._items:
            if self._closed:
                return
            if not isinstance(item, Timed):
                raise FeedError(f"The source yielded {type(item).__name__}; it must yield Timed(time_s, video, audio).")
            rate.look(item)
            yield item


class _StatedRate:
    """Notices sound that has another rate than was stated: every block is longer, or shorter, than its stamps say."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._last: tuple[float, int] | None = None
        self._found: deque[float] = deque(maxlen=_BLOCKS)  # samples per second by the stamps

    def look(self, item: Timed) -> None:
        """Look at the next item; raises FeedError."""
        if not isinstance(item.audio, np.ndarray) or not item.audio.size:
            return
        before, self._last = self._last, (item.time_s, item.audio.size)
        if before is not None and item.time_s > before[0]:
            self._found.append(before[1] / (item.time_s - before[0]))
        if len(self._found) < _BLOCKS:
            return
        lowest, highest = min(self._found), max(self._found)
        if highest > 1.02 * lowest or abs(highest / self._rate_hz - 1) < _OTHER_RATE:
            return
        raise FeedError(
            f"By its time stamps the sound has {round(highest, -2):.0f} Hz, and {self._rate_hz} Hz was stated. "
            "Resample it, or push it: PushSource takes any rate."
        )
