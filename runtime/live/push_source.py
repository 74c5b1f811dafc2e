"""A speaker who is pushed: for whoever has a camera, a capture card, a WebRTC track or a voice agent."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Condition
from typing import Any, Generic, TypeVar

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.pixels import PixelFormat, Size, shaped, to_rgb
from pflx.runtime.frames.timing import NS_PER_MS, NS_PER_S, Clock, samples_per_frame
from pflx.runtime.live.timeline import MediaClock
from pflx.runtime.media.pictures import fit_picture
from pflx.runtime.media.sound import Downmix, MonoResampler, as_floats, tell_cancelled
from pflx.runtime.media.sources import Timed
from pflx.runtime.stream.inbox import check_sound

_PAUSE_NS = NS_PER_S // 5  # sound without a stamp that comes later than this after the last had a pause before it
_APART_S = 0.02  # stamps within it are jitter: the sound is unbroken
_SLOTH, _HASTE = 0.75, 1.25  # less, and more, than a network makes of it ...
_LOOK_NS = 3 * NS_PER_S  # ... over so long
_RATES_HZ = (4_000, 768_000)
_MOST_CHANNELS = 64
_SOUNDS = ("int16", "int32", "float32", "float64")

log = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Picture:
    """A picture as it was pushed, a copy; None for a camera that was switched off."""

    stamp_s: float
    image: UInt8Array | None = None
    format: PixelFormat = PixelFormat.RGB
    size: Size = (0, 0)
    rotation: int = 0


@dataclass(frozen=True)
class _Block:
    """Sound as it was pushed, float32 [channels, N], a copy."""

    stamp_s: float
    samples: Float32Array
    rate_hz: int
    names: tuple[str, ...]


class _Box(Generic[Item]):
    """What waits for its reader. Bounded: the oldest makes room.

    Args:
        news: guards it.
        most_ns: media time that may wait.

    Attributes:
        dropped: how many had to go.
    """

    def __init__(self, news: Condition, most_ns: int) -> None:
        self.dropped = 0
        self.closed = False
        self._news, self._most_ns = news, most_ns
        self._items: deque[tuple[Item, int]] = deque()

    def put(self, item: Item, at: int) -> None:
        """Lay an item out; never waits for its reader. Called with the condition held.

        Args:
            item: the newest.
            at: where it lies in media time, in ns.
        """
        if self.closed:
            return
        while self._items and at - self._items[0][1] >= self._most_ns:
            self._items.popleft()
            self.dropped += 1
        self._items.append((item, at))
        self._news.notify_all()

    def clear(self) -> None:
        """Forget what waits. Called with the condition held."""
        self._items.clear()

    def close(self) -> None:
        """No more will come, and what waits is left. Called with the condition held."""
        self.closed = True
        self._news.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._news:
                while not self._items and not self.closed:
                    self._news.wait()
                if self.closed:
                    return
                item, _ = self._items.popleft()
            yield item


class PushSource:
    """A live source that pictures and sound are pushed into, as they come, from any thread or event loop.

        source = PushSource(listener.sample_rate_hz)
        with listener.live(source, show):
            source.put_video(picture, format="bgr")
            source.put_audio(samples, 48_000, channels=2)

    Nothing in here waits: what the session does not read in time makes room for what is newer, and is counted. Pictures
    may have any size, rate and rotation, and change them: each is put, whole, into one black square, so that a face
    stays where it is when a connection sends larger pictures after a while. Sound may have any rate and number of
    channels, and change them; it becomes the mean of those that play.

    A speaker without a camera is listened to all the same: see `video` and `set_camera`.

    Args:
        sample_rate_hz: that the listener hears, `Listener.sample_rate_hz`.
        video: False for a speaker who will never have a camera.
        audio: False for one who will never have a microphone.
        max_side: of the square that pictures are put into, in pixels; larger pictures are made smaller.
        picture_ms: pictures that may wait to be read, by the time in which they came.
        sound_ms: sound that may wait to be read.
        name: of the speaker, in what is logged.
        clock: monotonic, in ns, of the session, which must be a real one: it stamps what comes without a stamp.

    Raises:
        FeedError: a setting out of range.
    """

    live = True

    def __init__(
        self,
        sample_rate_hz: int,
        *,
        video: bool = True,
        audio: bool = True,
        max_side: int = 640,
        picture_ms: float = 120.0,
        sound_ms: float = 500.0,
        name: str = "The pushed speaker",
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        samples_per_frame(sample_rate_hz)
        if not 16 <= max_side <= 4096:
            raise FeedError(f"max_side is {max_side}; give 16 to 4096 pixels.")
        for what, given in (("picture_ms", picture_ms), ("sound_ms", sound_ms)):
            if not 0 < given < float("inf"):
                raise FeedError(f"{what} is {given}; give more than 0 milliseconds.")
        if not (video or audio):
            raise FeedError("A speaker without pictures and without sound is nobody. Leave video or audio at True.")
        self._rate_hz, self._sees, self._hears = sample_rate_hz, video, audio
        self._side, self._name, self._clock = max_side, name, clock
        self._news = Condition()
        self._pictures: _Box[_Picture] = _Box(self._news, round(picture_ms * NS_PER_MS))
        self._blocks: _Box[_Block] = _Box(self._news, round(sound_ms * NS_PER_MS))
        self._camera = video
        self._heard_ns = 0  # of sound that came
        self._stamped = MediaClock(live=True)  # of whoever pushes; pictures and sound are stamped on one
        self._arriving = _Arrivals()
        self._read = self._warned = False

    @property
    def sample_rate_hz(self) -> int | None:
        """Of the sound that it gives; None for a speaker without a microphone."""
        return self._rate_hz if self._hears else None

    @property
    def dropped(self) -> int:
        """Pictures and blocks of sound that came faster than they were read."""
        return self._pictures.dropped + self._blocks.dropped

    def put_video(
        self,
        image: Any,
        *,
        format: PixelFormat | str = PixelFormat.RGB,
        size: Size | None = None,
        rotation: int = 0,
        time_s: float | None = None,
    ) -> None:
        """Push one picture; it is copied. While the camera is off, or after `close`, nothing happens.

        Args:
            image: uint8 array, or bytes: "rgb" and "bgr" [H, W, 3], "rgba" [H, W, 4], "grey" [H, W], "i420" and
                "nv12" [H · 3 / 2, W], BT.601, limited range; rows without padding.
            format: how its bytes are laid out.
            size: width and height in pixels, where the array's shape does not tell them: of flat bytes, and of I420 and
                NV12 of odd size.
            rotation: degrees by which it is to be turned clockwise to stand upright, as WebRTC has it: 0, 90, 180, 270.
            time_s: when it was captured, on a clock that `put_audio` shares; None is now.

        Raises:
            FeedError: it is no such picture, or the source was made with video=False.
        """
        if not self._sees:
            raise FeedError("This PushSource was made with video=False, and got a picture. Leave that out.")
        if rotation not in (0, 90, 180, 270):
            raise FeedError(f"rotation is {rotation}; give 0, 90, 180 or 270 degrees, clockwise.")
        pixels, kind, size = shaped(image, format, size)
        copied = pixels.copy()
        with self._news:
            now = self._clock()
            stamp_s = now / NS_PER_S if time_s is None else self._placed(0, time_s, time_s, now)
            if self._camera:
                self._pictures.put(_Picture(stamp_s, copied, kind, size, rotation), now)

    def put_audio(self, samples: Any, rate_hz: int, channels: int = 1, *, time_s: float | None = None) -> None:
        """Push some sound; it is copied. After `close` nothing happens.

        Args:
            samples: int16, int32 or float array, or bytes of int16: one dimension, channels by turns, or [N, channels],
                or [channels, N]. Floats lie in [-1, 1].
            rate_hz: samples per second of each channel.
            channels: how many there are.
            time_s: when the first sample was captured, on a clock that `put_video` shares; None is now, less the
                length, and blocks that follow one another stay unbroken whatever delays them a little.

        Raises:
            FeedError: it is no such sound, or the source was made with audio=False.
        """
        if not self._hears:
            raise FeedError("This PushSource was made with audio=False, and got sound. Leave that out.")
        sound = _sound(samples, rate_hz, channels)
        length_s = sound.shape[1] / rate_hz
        with self._news:
            now = self._clock()
            if time_s is None:
                stamp_s = self._arriving.place(length_s, now)
                self._tell_of_haste(rate_hz)
            else:
                stamp_s = self._placed(1, time_s, time_s + length_s, now)
            self._heard_ns += round(length_s * NS_PER_S)
            if length_s:
                self._blocks.put(_Block(stamp_s, sound, int(rate_hz), _names(channels)), self._heard_ns)

    def set_camera(self, on: bool) -> None:
        """Tell that the speaker's camera was switched on or off. At once, at any time, any number of times.

        While it is off, and before it was on for the first time, the listener hears a speaker whose face it does not
        see, and its frames go on.
        """
        if on and not self._sees:
            raise FeedError("This PushSource was made with video=False, and its camera is to be on. Leave that out.")
        with self._news:
            if self._camera == on:
                return
            self._camera = on
            if not on:
                now = self._clock()
                self._pictures.clear()
                self._pictures.put(_Picture(now / NS_PER_S), now)

    def tracks(self) -> Sequence[Iterator[Timed]]:
        """The pictures, and the sound if there is any.

        Raises:
            FeedError: another session reads it.
        """
        with self._news:
            if self._read:
                raise FeedError("A PushSource feeds one session, and this one was used. Push to another one, too.")
            self._read = True
        return [self._seen(), self._heard()] if self._hears else [self._seen()]

    def close(self) -> None:
        """End it, from any thread; closing twice is harmless."""
        with self._news:
            self._pictures.close()
            self._blocks.close()

    def _placed(self, track: int, start_s: float, end_s: float, now: int) -> float:
        """A time stamp of whoever pushes, on the session's clock, in s."""
        if not np.isfinite(start_s):
            raise FeedError(f"time_s is {start_s}; give seconds on the speaker's clock, or None.")
        self._stamped.observe(track, start_s, end_s, now)
        return self._stamped.at(start_s) / NS_PER_S

    def _tell_of_haste(self, rate_hz: int) -> None:
        if not self._warned and not _SLOTH < self._arriving.haste < _HASTE:
            self._warned = True
            log.warning(
                "%s: sound comes %.1f times as fast as time passes, by its rate of %d Hz. Give put_audio its right "
                "rate, or push it as it is heard.",
                self._name,
                self._arriving.haste,
                rate_hz,
            )

    def _seen(self) -> Iterator[Timed]:
        with self._news:
            dark = not self._camera
            if dark:
                self._pictures.clear()
        if dark:
            yield self._dark(self._clock() / NS_PER_S)
        for picture in self._pictures:
            if picture.image is None:
                yield self._dark(picture.stamp_s)
                continue
            rgb = to_rgb(picture.image, picture.format, picture.size)
            upright = np.ascontiguousarray(np.rot90(rgb, -picture.rotation // 90))
            yield Timed(picture.stamp_s, video=fit_picture(upright, (self._side, self._side)))

    def _dark(self, stamp_s: float) -> Timed:
        return Timed(stamp_s, video=np.zeros((self._side, self._side, 3), np.uint8), dark=True)

    def _heard(self) -> Iterator[Timed]:
        downmix, run = Downmix(partial(tell_cancelled, self._name)), None
        for block in self._blocks:
            if run is None or not run.goes_on(block):
                if run is not None and (rest := run.end()) is not None:
                    yield rest
                run = _Run(block, self._rate_hz)
            made = run.push(block, downmix.mix(block.samples, block.names))
            if made is not None:
                yield made


class _Arrivals:
    """Stamps blocks of sound that have none, by their arrival: they follow one another, but for pauses.

    Attributes:
        haste: how much more sound came lately than time has passed; 1 where it is as it should be.
    """

    def __init__(self) -> None:
        self.haste = 1.0
        self._since = self._came_ns = self._last = 0
        self._paused = False
        self._clock = MediaClock(live=True)
        self._end_s = 0.0  # of all that came, pauses included
        self._begun = False

    def place(self, length_s: float, now: int) -> float:
        """When a block that comes now began, in s."""
        self._measure(round(length_s * NS_PER_S), now)
        if self._begun:
            late = now - self._clock.at(self._end_s + length_s)
            self._end_s += late / NS_PER_S if late > _PAUSE_NS else 0
        start_s, self._end_s, self._begun = self._end_s, self._end_s + length_s, True
        self._clock.observe(0, start_s, self._end_s, now)
        return self._clock.at(start_s) / NS_PER_S

    def _measure(self, length_ns: int, now: int) -> None:
        last, self._last = self._last, now
        if not self._begun:
            self._since = now
            return
        self._paused |= now - last > _PAUSE_NS + length_ns
        self._came_ns += length_ns
        if now - self._since >= _LOOK_NS:
            haste = self._came_ns / (now - self._since)
            self.haste = max(1.0, haste) if self._paused else haste
            self._since, self._came_ns, self._paused = now, 0, False


class _Run:
    """Blocks that follow one another without a gap, as mono of one rate.

    What comes out is stamped by counting: a resampler hands out a little later what it takes in, by how much depends on
    how the blocks are cut, and nothing of that may be heard.

    Args:
        first: block of the run.
        rate_hz: to make.
    """

    def __init__(self, first: _Block, rate_hz: int) -> None:
        self._kind = (first.rate_hz, first.names)
        self._start_s, self._taken, self._made = first.stamp_s, 0, 0
        self._apart_s = 0.0
        self._rate_hz = rate_hz
        self._resampler = MonoResampler(first.rate_hz, rate_hz)

    def goes_on(self, block: _Block) -> bool:
        """Whether a block is the next of this run."""
        apart_s = block.stamp_s - self._expected_s() - self._apart_s
        return self._kind == (block.rate_hz, block.names) and abs(apart_s) <= _APART_S

    def push(self, block: _Block, mono: Float32Array) -> Timed | None:
        """The next block, mixed to mono; what is ready of the run."""
        self._apart_s = block.stamp_s - self._expected_s()
        self._taken += len(mono)
        return self._told(self._resampler.push(mono))

    def end(self) -> Timed | None:
        """What is left of the run."""
        return self._told(self._resampler.push(None))

    def _expected_s(self) -> float:
        return self._start_s + self._taken / self._kind[0]

    def _told(self, made: Float32Array) -> Timed | None:
        stamp_s = self._start_s + self._made / self._rate_hz + self._apart_s
        self._made += len(made)
        return Timed(stamp_s, audio=made) if len(made) else None


def _names(channels: int) -> tuple[str, ...]:
    """Of so many channels; the fourth of six or eight is a subwoofer's, as WAVE has them."""
    return tuple("LFE" if index == 3 and channels in (6, 8) else f"channel {index}" for index in range(channels))


def _sound(samples: Any, rate_hz: int, channels: int) -> Float32Array:
    """float32 [channels, N] of whatever was pushed, a copy."""
    if not _is_whole(channels, 1, _MOST_CHANNELS):
        raise FeedError(f"channels is {channels!r}; give 1 to {_MOST_CHANNELS}.")
    if not _is_whole(rate_hz, *_RATES_HZ):
        raise FeedError(f"rate_hz is {rate_hz!r}; give samples per second, such as 16000 or 48000.")
    if isinstance(samples, bytes | bytearray | memoryview):
        samples = np.frombuffer(samples, np.int16)
    if not isinstance(samples, np.ndarray) or samples.dtype.name not in _SOUNDS:
        found = samples.dtype if isinstance(samples, np.ndarray) else type(samples).__name__
        raise FeedError(f"Sound is an array of {', '.join(_SOUNDS)}, or bytes of int16; got {found}.")
    sound = np.array(as_floats(_rows(samples, channels)), np.float32, order="C")
    if samples.dtype.kind != "i":
        check_sound(sound.reshape(-1))
    return sound


def _is_whole(given: object, lowest: int, highest: int) -> bool:
    return isinstance(given, int | np.integer) and not isinstance(given, bool) and lowest <= int(given) <= highest


def _rows(samples: np.ndarray[Any, Any], channels: int) -> np.ndarray[Any, Any]:
    """[channels, N]."""
    shape = samples.shape
    if samples.ndim == 2 and shape[1] == channels:
        return samples.T
    if samples.ndim == 2 and shape[0] == channels:
        return samples
    if (samples.ndim == 1 or (samples.ndim == 2 and shape[0] == 1)) and samples.size % channels == 0:
        return samples.reshape(-1, channels).T
    raise FeedError(
        f"Sound of {channels} channels is [N · {channels}] by turns, [N, {channels}] or [{channels}, N]; got "
        f"{list(shape)}. Give the number of its channels."
    )
