"""Which of a file's streams is read: its default one, unless there is nothing in it; and how it is stamped."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from enum import IntEnum
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.runtime.media.decoder import DecodedStream, StreamKind, Track, opened, stamp_s

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

log = logging.getLogger(__name__)

_SILENT = 1e-3  # peak of full scale: what a coder makes of silence lies below, a quiet room above
_MOVING_PICTURES = 3
_MOVING_WITHIN_S = 1.0
"""A video that moves shows its third picture within a second of its first; slides do not."""
_LOOK_PACKETS = 48
"""Packets or pictures that are looked at for the order of their stamps: several runs of B frames."""


class _Worth(IntEnum):
    """What is in a stream."""

    UNDECODABLE = 0
    NEXT_TO_NOTHING = 1  # silence, or pictures that do not move
    FULL = 2


_WORDS: dict[StreamKind, str] = {"video": "video", "audio": "sound"}
_FAULTS = {
    ("video", _Worth.UNDECODABLE): "cannot be decoded",
    ("audio", _Worth.UNDECODABLE): "cannot be decoded",
    ("video", _Worth.NEXT_TO_NOTHING): "has hardly a picture a second",
    ("audio", _Worth.NEXT_TO_NOTHING): "is silent",
}


def choose_track(path: Path, container: InputContainer, kind: StreamKind) -> Track | None:
    """The stream of a kind that the file says is the default one, if there is something in it; else the first that has.

    Cover pictures do not count. Where none has anything, the first that can be decoded is taken, and where none can be,
    none. A note says which streams before it were passed over.

    Args:
        path: the file.
        container: the same, open.
        kind: pictures or sound.
    """
    from av.stream import Disposition

    streams = [stream for stream in container.streams if stream.type == kind]
    covers = {stream.index for stream in streams if stream.disposition & Disposition.attached_pic}
    defaults = {stream.index for stream in streams if stream.disposition & Disposition.default}
    order = sorted((each.index for each in streams if each.index not in covers), key=lambda each: each not in defaults)
    worths = {index: _Worth.FULL for index in order if len(order) == 1}  # without a rival, whatever it is
    for index in order if len(order) > 1 else ():
        worths[index] = _worth(path, Track(kind, index))
        if worths[index] is _Worth.FULL:
            break
    chosen = max(worths, key=lambda index: worths[index], default=None)
    if chosen is None or worths[chosen] is _Worth.UNDECODABLE:
        return None
    reasons = dict.fromkeys(covers, "is a cover picture")
    reasons |= {index: _FAULTS[kind, worth] for index, worth in worths.items() if worth is not _Worth.FULL}
    before = [each.index for each in streams if each.index < chosen or each.index in worths]
    _note(path, kind, chosen, {each: reasons.get(each, "is not the default") for each in before if each != chosen})
    return Track(kind, chosen, kind == "video" and _has_only_decode_times(path, chosen))


def _note(path: Path, kind: StreamKind, chosen: int, passed_over: dict[int, str]) -> None:
    if passed_over:
        told = ", ".join(f"stream {index} {reason}" for index, reason in passed_over.items())
        log.warning("%s: the %s of stream %d is taken; %s.", path, _WORDS[kind], chosen, told)


def _worth(path: Path, track: Track) -> _Worth:
    """What is in a stream."""
    with closing(iter(DecodedStream(path, track, quiet=True))) as frames:
        first = next(frames, None)
        if first is None:
            return _Worth.UNDECODABLE
        full = _moves(first, frames) if track.kind == "video" else _is_heard(first, frames)
    return _Worth.FULL if full else _Worth.NEXT_TO_NOTHING


def _moves(first: av.VideoFrame, frames: Iterator[av.VideoFrame]) -> bool:
    later: Sequence[av.VideoFrame] = list(islice(frames, _MOVING_PICTURES - 1))
    start_s, end_s = stamp_s(first), stamp_s(later[-1]) if later else None
    known = start_s is not None and end_s is not None
    return len(later) == _MOVING_PICTURES - 1 and (not known or (end_s or 0) - (start_s or 0) <= _MOVING_WITHIN_S)


def _is_heard(first: av.AudioFrame, frames: Iterator[av.AudioFrame]) -> bool:
    frame: av.AudioFrame | None = first
    while frame is not None:
        if _peak(np.asarray(frame.to_ndarray())) > _SILENT:
            return True
        frame = next(frames, None)
    return False


def _peak(samples: np.ndarray[Any, Any]) -> float:
    """The loudest sample, 1 at full scale, whatever the format."""
    if samples.dtype == np.uint8:
        return float(np.abs(samples.astype(np.float32) - 128).max(initial=0)) / 128
    scale = np.iinfo(samples.dtype).max if np.issubdtype(samples.dtype, np.integer) else 1
    return float(np.abs(samples.astype(np.float64)).max(initial=0)) / scale


def _has_only_decode_times(path: Path, index: int) -> bool:
    """Whether pictures leave the decoder in another order than their stamps say, as those of AVI with B frames do."""
    with opened(path) as container:
        stream: Any = container.streams[index]
        if stream.codec_context is None or not stream.codec_context.has_b_frames:
            return False
        packets = islice(container.demux(stream), _LOOK_PACKETS)
        if _runs_back([packet.pts for packet in packets if packet.pts is not None]):
            return False  # stamps that are not in the order of decoding are those of showing
    with closing(iter(DecodedStream(path, Track("video", index), quiet=True))) as frames:
        stamps = [frame.pts for frame in islice(frames, _LOOK_PACKETS)]
    return None in stamps or _runs_back([stamp for stamp in stamps if stamp is not None])


def _runs_back(stamps: list[int]) -> bool:
    return any(later < earlier for earlier, later in pairwise(stamps))
