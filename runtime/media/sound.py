"""Sound of any format, rate and channels as mono of one rate; of a clip, from the start of its pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.arrays import BoolArray, Float32Array
from pflx.runtime.media.decoder import LONGEST_GAP_S, DecodedStream, stamp_s

if TYPE_CHECKING:
    import av


_AUDIO_TOLERANCE_S = 0.02  # half a frame; below it, uneven stamps are jitter and the samples are contiguous
_LONGEST_OVERLAP_S = 1.0  # audio that goes back further did not overlap: its clock was reset

_PLAYS = 1e-4  # -80 dB of full scale: what stays below it is the noise of a channel that nothing is connected to
_BLEND = 480  # samples in which a channel that begins later comes in
_LOW = ("LFE", "LFE2")  # channels of subwoofers
_HEARD = 1e-3  # mean amplitude of channels that are worth telling that they cancel ...
_CANCELLED = 0.01  # ... when the mix keeps less than this share of their power ...
_LOOK = 8000  # ... over so many samples

log = logging.getLogger(__name__)


def as_floats(samples: Array) -> Float32Array:
    """Samples of integers, 8 bits unsigned or more signed, or of floats, as float32 in [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples.astype(np.float64) - half * (samples.dtype.kind == "u")) / half).astype(np.float32)


def channels_of(frame: av.AudioFrame) -> Float32Array:
    """What a frame holds, in whatever format, as float32 [channels, N] in [-1, 1]."""
    kind, channels = np.dtype(_DTYPES[frame.format.packed.name]), frame.layout.nb_channels
    # Of eight channels PyAV shows nine planes, and planes are longer than what they hold.
    rows = [np.frombuffer(bytes(plane), kind) for plane in frame.planes[:channels]]
    if frame.format.is_planar:
        return as_floats(np.stack([row[: frame.samples] for row in rows]))
    return as_floats(rows[0][: frame.samples * channels].reshape(-1, channels).T)


_DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32, "dbl": np.float64}


def names_of(frame: av.AudioFrame) -> tuple[str, ...]:
    """Of a frame's channels, such as "FL", in their order."""
    return tuple(channel.name for channel in frame.layout.channels)


class Downmix:
    """Many channels as one: the mean of those that play. So the mix is never louder than the loudest of them.

    A channel plays from its first sample on that is louder than -80 dB; from then on it counts, silent or not. So a
    voice on one side only, or in the middle of six channels, keeps its level. One that begins after the others comes
    in within 10 ms. Subwoofers are left out. Every sample depends on those up to it alone, so any cut into blocks gives
    the same.

    Args:
        tell: called once, when channels of opposite phase have cancelled each other for a while.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell
        self._names: tuple[str, ...] = ()

    def mix(self, samples: Float32Array, names: Sequence[str]) -> Float32Array:
        """The next samples as one channel, float32 [N].

        Args:
            samples: float32 [channels, N].
            names: of the channels; others than before begin anew.
        """
        if tuple(names) != self._names:
            self._begin(tuple(names))
        onsets = self._onsets(samples)
        mixed = np.zeros(samples.shape[1], np.float32)
        for start, stop in pairwise([0, *sorted(set(onsets.values()) - {0}), len(mixed)]):
            self._join([channel for channel, onset in onsets.items() if onset == start])
            mixed[start:stop] = self._weighted(samples[:, start:stop])
        self._listen(samples, mixed)
        return mixed

    def _begin(self, names: tuple[str, ...]) -> None:
        self._names = names
        wanted = [name not in _LOW for name in names]
        self._wanted: BoolArray = np.array(wanted if any(wanted) else [True] * len(names))
        self._plays: BoolArray = np.zeros(len(names), np.bool_)
        even = (self._wanted / self._wanted.sum()).astype(np.float32)  # until one plays
        self._before = self._after = even  # weights that it blends from, and to
        self._blended = _BLEND
        self._forget()

    def _onsets(self, samples: Float32Array) -> dict[int, int]:
        """Where channels begin to play, by channel."""
        waiting = np.flatnonzero(self._wanted & ~self._plays)
        loud = np.abs(samples[waiting]) > _PLAYS
        return {int(channel): int(row.argmax()) for channel, row in zip(waiting, loud, strict=True) if row.any()}

    def _join(self, channels: Sequence[int]) -> None:
        if not channels:
            return
        first = not self._plays.any()
        self._before = self._weights(self._blended)
        self._plays[list(channels)] = True
        self._after = (self._plays / self._plays.sum()).astype(np.float32)
        self._blended = _BLEND if first else 0

    def _weights(self, blended: int) -> Float32Array:
        share = np.float32(min(blended, _BLEND) / _BLEND)
        return np.asarray(self._before + share * (self._after - self._before), np.float32)

    def _weighted(self, samples: Float32Array) -> Float32Array:
        count = samples.shape[1]
        share = np.minimum(np.arange(self._blended, self._blended + count) / _BLEND, 1).astype(np.float32)
        self._blended = min(self._blended + count, _BLEND)
        mixed = np.zeros(count, np.float32)
        for channel, before, after in zip(samples, self._before, self._after, strict=True):
            if before or after:
                mixed += channel * (before + share * (after - before))
        return mixed

    def _forget(self) -> None:
        self._count, self._power, self._kept = 0, 0.0, 0.0

    def _listen(self, samples: Float32Array, mixed: Float32Array) -> None:
        """Notice channels that cancel each other."""
        if self._tell is None or self._plays.sum() < 2:
            return
        self._count += len(mixed)
        self._power += float(np.square(samples[self._plays]).mean(axis=0).sum())
        self._kept += float(np.square(mixed).sum())
        if self._count < _LOOK:
            return
        if self._power > _HEARD**2 * self._count and self._kept < _CANCELLED * self._power:
            self._tell()
            self._tell = None
        self._forget()


def tell_cancelled(name: str) -> None:
    """Say that the channels of a sound cancel each other."""
    log.warning(
        "%s: the channels of its sound are of opposite phase and cancel each other, so that little of it is left. Turn "
        "the sign of one of them, or record in mono.",
        name,
    )


_tell_of_clip = lru_cache(maxsize=256)(tell_cancelled)  # once, however often a clip is read


def sound_blocks(stream: DecodedStream, origin_s: float, rate_hz: int) -> Iterator[Float32Array]:
    """The clip's sound from its start, float32 [N] mono blocks at `rate_hz`, gaps as silence."""
    made, expected_s = 0, 0.0
    downmix = Downmix(partial(_tell_of_clip, str(stream.path)))
    stretch: _Stretch | None = None
    for frame in stream:
        start_s = _sound_start(frame, origin_s, expected_s)
        layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        if stretch is None or stretch.layout != layout or abs(start_s - expected_s) > _AUDIO_TOLERANCE_S:
            if stretch is not None:
                made += len(ending := stretch.push(None))
                yield ending
            target = round(start_s * rate_hz)
            yield from silence(target - made, rate_hz)
            stretch = _Stretch(layout, downmix, rate_hz, skip=max(0, made - target))
            made, expected_s = max(made, target), start_s
        made += len(block := stretch.push(frame))
        yield block
        expected_s += frame.samples / frame.sample_rate
    if stretch is not None:
        yield stretch.push(None)


def silence(samples: int, block: int) -> Iterator[Float32Array]:
    """So many samples of silence, float32, in blocks that need little memory."""
    for start in range(0, samples, block):
        yield np.zeros(min(block, samples - start), np.float32)


def _sound_start(frame: av.AudioFrame, origin_s: float, expected_s: float) -> float:
    stamped_s = stamp_s(frame)
    if stamped_s is None:
        return expected_s
    start_s = max(stamped_s - origin_s, 0.0)
    return start_s if -_LONGEST_OVERLAP_S <= start_s - expected_s <= LONGEST_GAP_S else expected_s


class MonoResampler:
    """Makes an unbroken run of mono sound one of another rate.

    Args:
        from_hz: samples per second of what comes.
        to_hz: of what is made.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        import av

        self._from_hz = from_hz
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=to_hz)

    def push(self, samples: Float32Array | None) -> Float32Array:
        """What is ready after some more samples, float32 [N] both; the rest after None."""
        import av

        frame = None
        if samples is not None:
            if not len(samples):  # FFmpeg knows no empty frame
                return samples
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="flt", layout="mono")
            frame.sample_rate = self._from_hz  # and no stamp: the samples are contiguous here
        ready = [np.asarray(part.to_ndarray(), np.float32).ravel() for part in self._resampler.resample(frame)]
        return np.concatenate([np.zeros(0, np.float32), *ready])


class _Stretch:
    """An unbroken stretch of sound, mixed and resampled to mono at `rate_hz`, without its first `skip` samples."""

    def __init__(self, layout: tuple[str, str, int], downmix: Downmix, rate_hz: int, skip: int) -> None:
        self.layout = layout
        self._downmix, self._skip = downmix, skip
        self._resampler = MonoResampler(layout[2], rate_hz)

    def push(self, frame: av.AudioFrame | None) -> Float32Array:
        """What is ready after one more frame; the rest after None."""
        mixed = None if frame is None else self._downmix.mix(channels_of(frame), names_of(frame))
        samples = self._resampler.push(mixed)
        skipped, self._skip = self._skip, max(0, self._skip - len(samples))
        return samples[skipped:]


class SampleTrack:
    """Takes samples off a run of blocks by count; silence after the end."""

    def __init__(self, blocks: Iterator[Float32Array]) -> None:
        self._blocks = blocks
        self._rest = np.zeros(0, np.float32)

    def take(self, count: int) -> Float32Array:
        """The next samples, float32 [count]."""
        parts, missing = [self._rest], count - len(self._rest)
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            missing -= len(block)
        parts.append(np.zeros(max(missing, 0), np.float32))
        samples = np.concatenate(parts)
        self._rest = samples[count:]
        return samples[:count]
