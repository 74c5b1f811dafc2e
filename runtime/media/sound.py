"""The sound of a clip: mono at one rate from the start of its pictures, gaps as silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.media.decoder import LONGEST_GAP_S, DecodedStream, stamp_s

if TYPE_CHECKING:
    import av


_AUDIO_TOLERANCE_S = 0.02  # half a frame; below it, uneven stamps are jitter and the samples are contiguous
_LONGEST_OVERLAP_S = 1.0  # audio that goes back further did not overlap: its clock was reset


def sound_blocks(stream: DecodedStream, origin_s: float, rate_hz: int) -> Iterator[Float32Array]:
    """The clip's sound from its start, float32 [N] mono blocks at `rate_hz`, gaps as silence."""
    made, expected_s = 0, 0.0
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
            stretch = _Stretch(layout, rate_hz, skip=max(0, made - target))
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


class _Stretch:
    """An unbroken stretch of sound, resampled to mono at `rate_hz`, without its first `skip` samples."""

    def __init__(self, layout: tuple[str, str, int], rate_hz: int, skip: int) -> None:
        import av

        self.layout = layout
        self._skip = skip
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)

    def push(self, frame: av.AudioFrame | None) -> Float32Array:
        """What is ready after one more frame; the rest after None."""
        if frame is not None:
            frame.pts = None  # the samples are contiguous here, whatever the stamps say
        ready = [np.asarray(part.to_ndarray(), np.float32).ravel() for part in self._resampler.resample(frame)]
        samples = np.concatenate([np.zeros(0, np.float32), *ready])
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
