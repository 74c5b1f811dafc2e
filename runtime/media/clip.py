"""Video and audio in: any clip as 25 fps RGB pictures and mono sound of one rate on one clock."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.engines import FeedError, Manifest
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, SAMPLE_RATE_HZ, samples_per_frame
from pflx.runtime.media.decoder import DecodedStream, Track, is_picture, memory_told, opened, stamp_s, stated_duration_s
from pflx.runtime.media.decoding.colours import unread_colours
from pflx.runtime.media.decoding.file_kinds import codec_name, what_is_at, what_it_is
from pflx.runtime.media.decoding.tracks import choose_track
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.orientation import orientation_of, square_size
from pflx.runtime.media.pictures import n_slots, shown_pictures
from pflx.runtime.media.sound import SampleTrack, sound_blocks

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

log = logging.getLogger(__name__)

CLIPS = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)
"""What names of clips in a folder end in; a clip that is named itself may be called anything."""
_CHUNK_BYTES = 32 << 20
"""Of the pictures of a chunk, at most, if it has more than one: 36 of 640x480, 5 of 1920x1080, 1 of 3840x2160."""
_FACELESS = (64, 64)
"""Width and height of the black pictures of a clip that has sound alone."""


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
        shown_size: width and height of a picture, turned upright, its pixels made square.
        stored_size: the same with its pixels as they are stored.
        rotation: degrees anticlockwise by which the file asks to turn its pictures; done already.
        source_fps: mean frame rate of the file, if it states one.
        duration_s: length that the file states, if it does.
        frames: expected number of 25 fps frames, from `duration_s`.
        video: which of its streams has the pictures; None if it has sound alone.
        audio: which of its streams has the sound, if any.
        origin_s: time stamp of the earlier of the two streams' first frames: the zero of all other times.
        square_pixels: whether `chunks` makes pixels square that are not, as a player does; see `with_pixels`.
        max_frames: 25 fps frames after which the clip is taken to end, if not at its own end.
        sample_rate_hz: of the sound that `chunks` gives, whatever the file's own.
        threads: of each decoder; 0 leaves it to FFmpeg, which takes one for each core.
        dub: another file whose sound is heard in place of its own.
    """

    path: Path
    shown_size: tuple[int, int]
    stored_size: tuple[int, int]
    rotation: int
    source_fps: float | None
    duration_s: float | None
    frames: int | None
    video: Track | None
    audio: Track | None
    origin_s: float
    square_pixels: bool = True
    max_frames: int | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ
    threads: int = 0
    dub: SpeakerFile | None = None

    @property
    def width(self) -> int:
        """Of a frame that `chunks` gives, in pixels."""
        return (self.shown_size if self.square_pixels else self.stored_size)[0]

    @property
    def height(self) -> int:
        """Of a frame that `chunks` gives, in pixels."""
        return (self.shown_size if self.square_pixels else self.stored_size)[1]

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures; else `chunks` gives black ones."""
        return self.video is not None

    @property
    def has_audio(self) -> bool:
        """Whether there is sound; else `chunks` gives silence."""
        return (self.dub or self).audio is not None

    def at_rate(self, sample_rate_hz: int) -> SpeakerFile:
        """The same clip, giving its sound at another rate, a multiple of 25 Hz."""
        samples_per_frame(sample_rate_hz)
        return replace(self, sample_rate_hz=sample_rate_hz)

    def with_sound(self, sound: SpeakerFile) -> SpeakerFile:
        """The same pictures with the sound of another file, both from their start on."""
        return replace(self, dub=sound)

    def with_pixels(self, *, square: bool) -> SpeakerFile:
        """The same clip with its pixels square, as a player shows them, or as they are stored, as OpenCV reads them."""
        return replace(self, square_pixels=square)

    def with_threads(self, threads: int) -> SpeakerFile:
        """The same clip with so many threads for each decoder: 1 where many clips are read side by side."""
        return replace(self, threads=threads)

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

        Frame k is the picture nearest to k / 25 s, if one is within 20 ms, else the latest one before. Before the first
        picture the first one is shown. The pictures decide the length; sound that is shorter or has gaps is filled with
        silence. A clip of sound alone has black pictures while it lasts. Time stamps that run back, or leap by more
        than a minute, are taken for a broken clock: the picture follows the one before it, the sound goes on. What
        cannot be decoded is left out, counted, and warned about once. Memory does not depend on the length.

        Args:
            frames_per_chunk: frames in each chunk but the last, which may have fewer. Where pictures are so large that
                they would fill more than 32 MiB, all chunks have fewer.

        Raises:
            MediaError: the file is gone.
            MediaMemoryError: there is not enough memory.
        """
        with memory_told(self.path):
            yield from self._chunks(max(1, min(frames_per_chunk, _CHUNK_BYTES // (self.width * self.height * 3))))

    def _chunks(self, count: int) -> Iterator[SpeakerChunk]:
        speech = self.dub or self
        tracks = ((self.path, self.video), (speech.path, speech.audio))
        streams = {track.kind: DecodedStream(path, track, threads=self.threads) for path, track in tracks if track}
        heard = streams.get("audio")
        blocks = sound_blocks(heard, speech.origin_s, self.sample_rate_hz) if heard else iter(())
        if self.video:
            size = (self.width, self.height)
            pictures = shown_pictures(streams["video"], self.origin_s, size, square=self.square_pixels)
        elif self.dub and self.audio:
            own = DecodedStream(self.path, self.audio, quiet=True)
            pictures = self._black_pictures(sound_blocks(own, self.origin_s, self.sample_rate_hz))
        else:
            blocks, same = tee(blocks)
            pictures = self._black_pictures(same)
        sound, pictures = SampleTrack(blocks), islice(pictures, self.max_frames)
        per_frame = samples_per_frame(self.sample_rate_hz)
        shown = 0
        while (video := _stacked(pictures, count)) is not None:
            samples = sound.take(per_frame * len(video))
            yield SpeakerChunk(video, samples, shown / FPS, sum(each.skipped for each in streams.values()))
            shown += len(video)

    def _black_pictures(self, heard: Iterator[Float32Array]) -> Iterator[UInt8Array]:
        """One for each frame of sound."""
        black = np.zeros((self.height, self.width, 3), np.uint8)
        missing = 0
        for block in heard:
            missing += len(block)
            while missing > 0:
                yield black
                missing -= samples_per_frame(self.sample_rate_hz)


def _stacked(pictures: Iterator[UInt8Array], count: int) -> UInt8Array | None:
    """The next pictures in one array; None at the end."""
    batch = list(islice(pictures, count))
    return np.stack(batch) if batch else None


def open_speaker(path: str | Path, sample_rate_hz: int = SAMPLE_RATE_HZ) -> SpeakerFile:
    """Look into a clip: any container, codec, frame rate, sample rate and channel count that FFmpeg reads.

    Args:
        path: the clip; one of sound alone gives black pictures.
        sample_rate_hz: of the sound to give, a multiple of 25; see `SpeakerFile.at_rate`.

    Raises:
        FeedError: the rate is no multiple of 25.
        MediaError: there is no such file, it is no clip, or none of its pictures can be decoded.
        MediaMemoryError: there is not enough memory.
    """
    samples_per_frame(sample_rate_hz)
    with memory_told(Path(path)):
        return _looked_into(Path(path), sample_rate_hz)


def speaker_for(clip: SpeakerFile | str | Path, manifest: Manifest) -> SpeakerFile:
    """A clip as a bundle hears and sees it: at its rate, with pixels as those of its training data.

    Raises:
        MediaError, MediaMemoryError: see `open_speaker`.
    """
    opened = clip if isinstance(clip, SpeakerFile) else open_speaker(clip)
    return opened.at_rate(manifest.sample_rate_hz).with_pixels(square=manifest.pfl.square_pixels)


def _looked_into(path: Path, sample_rate_hz: int) -> SpeakerFile:
    if (fault := what_is_at(path)) is not None:
        raise MediaError(f"{path} {fault}")
    with opened(path) as container:
        _check_kind(path, container)
        video, audio = choose_track(path, container, "video"), choose_track(path, container, "audio")
        lacks, has_sound = _lack(path, container), bool(container.streams.audio)
        main = video or audio
        streams: Any = container.streams
        stream = None if main is None else streams[main.index]
        duration_s = None if stream is None else stated_duration_s(container, stream)
        states_own = stream is not None and stream.duration is not None  # else it is the end of the longest stream
        rate = None if video is None else streams[video.index].average_rate
    seen = None if video is None else DecodedStream(path, video)
    picture = next(iter(seen or ()), None)
    sound = None if audio is None else next(iter(DecodedStream(path, audio)), None)
    if picture is None and (lacks is not None or sound is None):
        kind = what_it_is(path) or "holds neither pictures nor sound. Give a clip of the speaker."
        raise MediaError(lacks or f"{path} {kind}")
    _note_what_is_lost(path, picture, unheard=has_sound and sound is None)
    sizes = [_FACELESS, _FACELESS]
    if picture is not None and seen is not None:
        turned = -1 if orientation_of(picture)[0] else 1
        stored, square = (picture.width, picture.height), square_size(picture, seen.pixel_aspect)
        sizes = [square[::turned], stored[::turned]]
    origin_s = min(stamp_s(frame) or 0.0 for frame in (picture, sound) if frame is not None)
    late_s = 0.0 if picture is None or not states_own else (stamp_s(picture) or 0.0) - origin_s
    return SpeakerFile(
        path=path,
        shown_size=sizes[0],
        stored_size=sizes[1],
        rotation=0 if picture is None else picture.rotation,
        source_fps=float(rate) if rate else None,
        duration_s=duration_s,
        frames=None if duration_s is None else max(1, n_slots(duration_s + late_s)),
        video=video,
        audio=audio if sound is not None else None,
        origin_s=origin_s,
        sample_rate_hz=sample_rate_hz,
    )


def _check_kind(path: Path, container: InputContainer) -> None:
    """Refuse what FFmpeg opens although it is no clip: pictures, and text."""
    if is_picture(container) or "mov" in container.format.name:
        kind = what_it_is(path)
        if kind is not None or is_picture(container):
            raise MediaError(f"{path} {kind or 'is no clip. Give a video file that shows the speaker.'}")


def _lack(path: Path, container: InputContainer) -> str | None:
    """What to say where no picture can be decoded; None if there is not even a stream of any."""
    from av.stream import Disposition

    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        return None
    if any(each.codec_context is not None for each in streams):
        return f"{path} holds no picture that can be decoded; it is empty or damaged. Record or copy it again."
    codec = codec_name(path, "video")
    return (
        f"{path} holds pictures of a codec that is not known{f' ({codec})' if codec else ''}. "
        "Convert it to H.264 in an MP4 with the program that made it."
    )


def _note_what_is_lost(path: Path, picture: av.VideoFrame | None, *, unheard: bool) -> None:
    if picture is not None and (colours := unread_colours(picture)) is not None:
        log.warning("%s: its colours (%s) are taken as they are stored.", path, colours)
    if unheard:
        codec = codec_name(path, "audio")
        log.warning("%s: its sound%s cannot be decoded, and is taken as silence.", path, f" ({codec})" if codec else "")
