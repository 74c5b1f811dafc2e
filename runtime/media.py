"""Video and audio in: any clip as 25 fps RGB pictures and mono sound of one rate on one clock."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from pflx.engines import FeedError, PflxError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, SAMPLE_RATE_HZ, samples_per_frame

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter

log = logging.getLogger(__name__)

StreamKind: TypeAlias = Literal["video", "audio"]

_TIME_TOLERANCE_S = 0.0006  # Matroska and FLV round time stamps to the nearest millisecond
_SHORTEST_PICTURE_S = 0.002  # files of uneven rate often state one tick as the duration of every picture
_AUDIO_TOLERANCE_S = 0.02  # half a frame; below it, uneven stamps are jitter and the samples are contiguous
_LONGEST_OVERLAP_S = 1.0  # audio that goes back further did not overlap: its clock was reset
_LONGEST_GAP_S = 60.0  # a longer step forward is taken for a broken clock, not for a pause


class MediaError(PflxError, OSError):
    """A file that cannot be read as a video, or cannot be written."""


@dataclass(frozen=True)
class SpeakerChunk:
    """Some consecutive frames of a speaker and the sound that belongs to them.

    Attributes:
        video: uint8 [T, H, W, 3] RGB at 25 fps, turned upright.
        audio: float32 [sample rate / 25 * T] mono, about [-1, 1]; zeros where the clip has no sound.
        start_s: when the first frame is shown, from the start of the clip.
        skipped: damaged packets and frames left out so far, video and audio together.
    """

    video: UInt8Array
    audio: Float32Array
    start_s: float
    skipped: int


@dataclass(frozen=True)
class SpeakerFile:
    """A clip that was looked into. It holds no open file: `chunks` opens it anew each time.

    Attributes:
        path: the file.
        width: of a frame in pixels, turned upright. The stored pixels are taken as they are, as OpenCV does
            and the public training data was made, also where a player would stretch them.
        height: of a frame in pixels, turned upright.
        rotation: degrees anticlockwise by which the file asks to turn its pictures; done already.
        source_fps: mean frame rate of the file, if it states one.
        duration_s: length that the file states, if it does.
        frames: expected number of 25 fps frames, from `duration_s`.
        has_audio: whether there is sound.
        origin_s: time stamp of the earlier of the two streams' first frames: the zero of all other times.
        max_frames: 25 fps frames after which the clip is taken to end, if not at its own end.
        sample_rate_hz: of the sound that `chunks` gives, whatever the file's own.
    """

    path: Path
    width: int
    height: int
    rotation: int
    source_fps: float | None
    duration_s: float | None
    frames: int | None
    has_audio: bool
    origin_s: float
    max_frames: int | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def at_rate(self, sample_rate_hz: int) -> SpeakerFile:
        """The same clip, giving its sound at another rate, a multiple of 25 Hz."""
        samples_per_frame(sample_rate_hz)
        return replace(self, sample_rate_hz=sample_rate_hz)

    def limited(self, seconds: float) -> SpeakerFile:
        """The start of the clip: `seconds` of it, rounded to whole frames, or all if it is shorter.

        Raises:
            FeedError: not a number above 0.
        """
        if not 0 < seconds < math.inf:
            raise FeedError(f"A clip cannot be cut to {seconds} s. Give a number above 0.")
        limit = max(1, round(seconds * FPS))
        return replace(self, max_frames=limit, frames=min(self.frames or limit, limit))

    def chunks(self, frames_per_chunk: int = FPS) -> Iterator[SpeakerChunk]:
        """The clip from its start, in order.

        Frame k is the picture that a player shows at k / 25 s: the latest one whose time stamp is not later.
        Before the first picture the first one is shown. The pictures decide the length; sound that is shorter
        or has gaps is filled with silence. Time stamps that run back, or leap by more than a minute, are
        taken for a broken clock: the picture follows the one before it, the sound goes on. What cannot be
        decoded is left out, counted, and warned about once. Memory does not depend on the length.

        Args:
            frames_per_chunk: frames in each chunk but the last, which may have fewer.
        """
        video = _Stream(self.path, "video")
        audio = _Stream(self.path, "audio")
        pictures = islice(_pictures(video, self.origin_s, (self.width, self.height)), self.max_frames)
        sound = _Track(_sound(audio, self.origin_s, self.sample_rate_hz) if self.has_audio else iter(()))
        per_frame = samples_per_frame(self.sample_rate_hz)
        shown = 0
        while batch := list(islice(pictures, frames_per_chunk)):
            samples = sound.take(per_frame * len(batch))
            yield SpeakerChunk(np.stack(batch), samples, shown / FPS, video.skipped + audio.skipped)
            shown += len(batch)


def open_speaker(path: str | Path, sample_rate_hz: int = SAMPLE_RATE_HZ) -> SpeakerFile:
    """Look into a clip: any container, codec, frame rate, sample rate and channel count that FFmpeg reads.

    Args:
        path: the clip.
        sample_rate_hz: of the sound to give, a multiple of 25; see `SpeakerFile.at_rate`.

    Raises:
        FeedError: the rate is no multiple of 25.
        MediaError: there is no such file, it is no video, or none of its pictures can be decoded.
    """
    samples_per_frame(sample_rate_hz)
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path} is a folder. Give a video file.")
    if not path.exists():
        raise MediaError(f"There is no file {path}. Check the path.")
    with _opened(path) as container:
        stream = _stream_of(container, "video")
        if stream is None or _is_picture(container):
            raise MediaError(f"{path} holds no video. Give a clip that shows the speaker.")
        duration_s = _duration_s(container, stream)
        source_fps = float(stream.average_rate) if stream.average_rate else None
        has_track = _stream_of(container, "audio") is not None
    picture = next(iter(_Stream(path, "video")), None)
    if picture is None:
        raise MediaError(f"{path} holds no picture that can be decoded; it is empty or damaged.")
    sound = next(iter(_Stream(path, "audio")), None) if has_track else None
    width, height = picture.width, picture.height
    if _orientation(picture)[0]:
        width, height = height, width
    return SpeakerFile(
        path=path,
        width=width,
        height=height,
        rotation=picture.rotation,
        source_fps=source_fps,
        duration_s=duration_s,
        frames=None if duration_s is None else max(1, math.ceil((duration_s - _TIME_TOLERANCE_S) * FPS)),
        has_audio=sound is not None,
        origin_s=min(_stamp_s(frame) or 0.0 for frame in (picture, sound) if frame is not None),
        sample_rate_hz=sample_rate_hz,
    )


def fit_picture(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """A picture, whole, in a black one of another size; as it is where the size is right.

    Args:
        picture: uint8 [H, W, 3].
        size: width and height in pixels.
    """
    import cv2

    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    scale = min(size[0] / width, size[1] / height)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, fitted, interpolation=cv2.INTER_AREA)
    whole = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    whole[top : top + fitted[1], left : left + fitted[0]] = small
    return whole


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    import av
    from av.error import FFmpegError

    try:
        # Absolute: FFmpeg would take "a:b.mp4" for an address.
        container = av.open(str(path.absolute()), **_tolerance(av.__version__))
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{path} is no video that FFmpeg can read ({reason}).") from error
    with container:
        yield container


def _tolerance(version: str) -> dict[str, Any]:
    """What lets PyAV open a file with a tag that is not UTF-8: from 19 on nothing, before it a word for it."""
    return {} if int(version.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


def _stream_of(container: InputContainer, kind: StreamKind) -> Any:
    """The first stream of its kind that is not a cover picture."""
    from av.stream import Disposition

    for stream in container.streams:
        if stream.type == kind and not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _is_picture(container: InputContainer) -> bool:
    """FFmpeg reads pictures, and text files as terminal art, as if they were videos."""
    name = container.format.name
    return name in ("image2", "tty") or name.endswith("_pipe")


def _duration_s(container: InputContainer, stream: Any) -> float | None:
    import av

    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _stamp_s(frame: av.VideoFrame | av.AudioFrame) -> float | None:
    if frame.pts is None or not frame.time_base:  # None, and 0/1 from PyAV 19 on
        return None
    return float(frame.pts * frame.time_base)


@dataclass
class _Stream:
    """The decoded frames of one stream of a file.

    Each stream opens the file for itself: however the two are interleaved, nothing has to be kept while one
    waits for the other.
    """

    path: Path
    kind: StreamKind
    skipped: int = 0

    def __iter__(self) -> Iterator[Any]:
        from av.error import FFmpegError

        with _opened(self.path) as container:
            stream = _stream_of(container, self.kind)
            packets = container.demux(stream)
            while (packet := self._next(packets, FFmpegError)) is not None:
                try:
                    frames = packet.decode()
                except FFmpegError:
                    self._skip()
                    continue
                yield from (frame for frame in frames if not (frame.is_corrupt and self._skip()))

    def _next(self, packets: Iterator[Any], failure: type[Exception]) -> Any:
        """The next packet; None at the end, also where the file breaks off."""
        try:
            return next(packets, None)
        except failure:
            self._skip()
            return None

    def _skip(self) -> bool:
        if self.skipped == 0:
            log.warning("%s: a damaged part of the %s was left out.", self.path, self.kind)
        self.skipped += 1
        return True


@dataclass
class _PictureClock:
    """Gives each picture its time from the clip's start; it never runs back and never leaps over a minute."""

    origin_s: float
    last_s: float | None = None
    gap_s: float = 1 / FPS

    def place(self, frame: av.VideoFrame) -> float:
        raw = _stamp_s(frame)
        start = self._start(None if raw is None else raw - self.origin_s)
        duration_s = float((frame.duration or 0) * (frame.time_base or 0))
        if duration_s > _SHORTEST_PICTURE_S:
            self.gap_s = duration_s
        elif self.last_s is not None and start > self.last_s:
            self.gap_s = start - self.last_s
        self.last_s = start
        return start

    def _start(self, raw: float | None) -> float:
        if self.last_s is None:
            return max(raw or 0.0, 0.0)
        if raw is None or not self.last_s - _TIME_TOLERANCE_S <= raw <= self.last_s + _LONGEST_GAP_S:
            return self.last_s + self.gap_s
        return max(raw, self.last_s)


def _pictures(stream: _Stream, origin_s: float, size: tuple[int, int]) -> Iterator[UInt8Array]:
    """The picture shown at 0, 1/25, 2/25 … s, uint8 [H, W, 3] each; only what is shown is made RGB."""
    from av.video.reformatter import VideoReformatter

    # One converter for all, and one look at the side data: asking a frame for either makes a reference cycle with it,
    # and hundreds of whole pictures would wait for Python's garbage collector.
    reformatter, orientation = VideoReformatter(), None
    index = 0
    for frame, until_s in _spans(stream, _PictureClock(origin_s)):
        orientation = orientation or _orientation(frame)
        rgb = None
        while index / FPS + _TIME_TOLERANCE_S < until_s:
            rgb = _upright(frame, size, orientation, reformatter) if rgb is None else rgb
            yield rgb
            index += 1


def _spans(stream: _Stream, clock: _PictureClock) -> Iterator[tuple[av.VideoFrame, float]]:
    """Each picture with the time at which it gives way to the next."""
    held = None
    for frame in stream:
        start = clock.place(frame)
        if held is not None:
            yield held, start
        held = frame
    if held is not None:
        yield held, max((clock.last_s or 0.0) + clock.gap_s, 2 * _TIME_TOLERANCE_S)


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Transpose first, then mirror left to right, then top to bottom, as the display matrix says."""
    from av.sidedata.sidedata import Type

    side_data: Any = frame.side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return (True, c < 0, b < 0) if abs(a) < abs(b) else (False, a < 0, d < 0)


def _upright(
    frame: av.VideoFrame, size: tuple[int, int], orientation: tuple[bool, bool, bool], reformatter: VideoReformatter
) -> UInt8Array:
    """The picture as uint8 [H, W, 3] RGB of `size` (width, height), as a player would show it."""
    transpose, mirror, flip = orientation
    width, height = size[::-1] if transpose else size
    converted = reformatter.reformat(frame, width=width, height=height, format="rgb24")
    rgb = np.asarray(converted.to_ndarray(), np.uint8)
    rgb = rgb.swapaxes(0, 1) if transpose else rgb
    rgb = rgb[:, ::-1] if mirror else rgb
    return rgb[::-1] if flip else rgb


def _sound(stream: _Stream, origin_s: float, rate_hz: int) -> Iterator[Float32Array]:
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
    stamp_s = _stamp_s(frame)
    if stamp_s is None:
        return expected_s
    start_s = max(stamp_s - origin_s, 0.0)
    return start_s if -_LONGEST_OVERLAP_S <= start_s - expected_s <= _LONGEST_GAP_S else expected_s


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


class _Track:
    """Takes samples off a run of blocks by count; silence after the end."""

    def __init__(self, blocks: Iterator[Float32Array]) -> None:
        self._blocks = blocks
        self._rest = np.zeros(0, np.float32)

    def take(self, count: int) -> Float32Array:
        parts, missing = [self._rest], count - len(self._rest)
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            missing -= len(block)
        parts.append(np.zeros(max(missing, 0), np.float32))
        samples = np.concatenate(parts)
        self._rest = samples[count:]
        return samples[:count]
