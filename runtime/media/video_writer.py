"""Video and sound out: H.264 with AAC in an MP4."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pflx.engines.files.writer import Replacement
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, SAMPLE_RATE_HZ
from pflx.runtime.media.decoding.converter import Converter
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.mark import COMMENT, append_xmp
from pflx.runtime.media.sound import silence

if TYPE_CHECKING:
    from av.container import OutputContainer

_H264_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf", "h264_nvenc")
_LONGEST_SIDE = 16_384
"""In pixels. Source: x264, `validate_parameters`."""
_BT709, _LIMITED = 1, 1
"""Primaries, transfer and matrix; and range. Source: ITU-T H.273, tables 2 to 4; FFmpeg, AVCOL_RANGE_MPEG."""


def numbered(video: Path, samples: int) -> list[Path]:
    """The places of the videos of reactions: of one the place itself, of several `NAME-0.mp4` and so on."""
    return [video] if samples == 1 else [video.with_stem(f"{video.stem}-{sample}") for sample in range(samples)]


class VideoWriter:
    """An MP4 with H.264 (yuv420p) and, if wanted, AAC sound; complete under its name, or not there at all.

        with VideoWriter("reaction.mp4", size=(256, 256), audio=True) as writer:
            for chunk in chunks:
                writer.write(frames)            # uint8 [T, H, W, 3]
                writer.write_audio(samples)     # float32 [sample rate / 25 * T]

    It is written beside its place and renamed when the block ends well (see `Replacement`); after an exception,
    Ctrl-C included, nothing stays. Colours are those of BT.709 in limited range, and the file says so. Pictures and
    sound may come in turns of any size; keep the turns to a few seconds, what one is ahead of the other waits
    (compressed) in memory. Sound that ends before the pictures is followed by silence. An odd width or height, which
    H.264 in yuv420p cannot hold, is filled up by repeating the last column or row. A file of that name is replaced.

    Args:
        path: where to; the suffix must be .mp4.
        size: (width, height) of the frames in pixels.
        fps: frames per second.
        audio: whether there will be sound (mono).
        sample_rate_hz: of the sound that is given; AAC holds 16000, 44100, 48000 and a few more.
        generated: whether the pictures are a listener's, which the file then says; see `mark`.
        threads: of the encoder; None leaves it to the encoder, which takes more than one for each core. The file's
            bytes depend on it.

    Raises:
        MediaError: another suffix, a side of more than 16384 pixels, no such folder, not writable, no space, or no
            H.264 encoder in PyAV; also when the block ends and no frame was written.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        *,
        fps: int = FPS,
        audio: bool = False,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        generated: bool = False,
        threads: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._converter = Converter()
        self._size, self._rate_hz = size, sample_rate_hz
        self._frames = self._samples = 0
        self._generated = generated
        if self._path.suffix.lower() != ".mp4":
            raise MediaError(f"{self._path} has the suffix '{self._path.suffix}'. pflx writes .mp4 files.")
        if max(size) > _LONGEST_SIDE:
            raise MediaError(
                f"{self._path} would have pictures of {size[0]} x {size[1]} pixels, and {_LONGEST_SIDE} is the longest "
                "side. Make fewer or smaller ones side by side."
            )
        if not self._path.parent.is_dir():
            raise MediaError(f"There is no folder {self._path.parent}. Make it, or choose another place.")
        if self._path.is_dir():
            raise MediaError(f"{self._path} is a folder. Choose another name.")
        with self._failures():
            self._file = Replacement(self._path)
        try:
            with self._failures():
                self._container: OutputContainer = _new_mp4(self._file.partial)
        except BaseException:
            self._file.discard()
            raise
        try:
            with self._failures():
                self._video = _add_video(self._container, size, fps, threads)
                self._audio = _add_audio(self._container, sample_rate_hz) if audio else None
                if generated:
                    self._container.metadata["comment"] = COMMENT
                self._container.start_encoding()  # opens the file: a bad place is found here, not later
        except BaseException:
            self._discard()
            raise

    def write(self, frames: UInt8Array) -> None:
        """Append uint8 [T, H, W, 3] RGB frames."""
        import av

        height, width = frames.shape[1:3]
        if frames.dtype != np.uint8 or (width, height) != self._size or frames.shape[3:] != (3,):
            raise MediaError(
                f"{self._path} takes uint8 [T, {self._size[1]}, {self._size[0]}, 3], got "
                f"{frames.dtype} {list(frames.shape)}."
            )
        even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
        for image in even:
            given = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = self._converter.convert(given, format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)
            frame.pts = self._frames
            self._frames += 1
            self._mux(self._video, frame)

    def write_audio(self, samples: Float32Array) -> None:
        """Append float32 [N] mono samples; beyond [-1, 1] they are clipped."""
        import av

        assert self._audio is not None, "open the writer with audio=True"
        if len(samples) == 0:
            return
        clipped = np.clip(samples, -1.0, 1.0).astype(np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(clipped, format="flt", layout="mono")
        frame.sample_rate, frame.pts = self._rate_hz, self._samples
        self._samples += len(samples)
        self._mux(self._audio, frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if self._frames == 0:
            raise MediaError(f"{self._path} was not written: there was no frame for it.")
        if self._audio is not None:
            length = round(self._frames * self._rate_hz / float(self._video.average_rate))
            for block in silence(length - self._samples, self._rate_hz):
                self.write_audio(block)
            self._mux(self._audio, None)
        self._mux(self._video, None)
        with self._failures():
            self._container.close()
            if self._generated:
                append_xmp(self._file.partial)
            self._file.commit()

    def _discard(self) -> None:
        """Close and remove what is left; a failure here would hide the one that led here."""
        from av.error import FFmpegError

        with suppress(FFmpegError, OSError):
            self._container.close()
        self._file.discard()

    def _mux(self, stream: Any, frame: Any) -> None:
        with self._failures():
            self._container.mux(stream.encode(frame))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        from av.error import FFmpegError

        try:
            yield
        except (FFmpegError, OSError) as error:
            if isinstance(error, MediaError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise MediaError(f"Cannot write {self._path}: {reason}. Check the folder and its space.") from error


def _new_mp4(path: Path) -> OutputContainer:
    import av

    # The index goes to the front, so that a browser can play the file while it loads.
    return av.open(str(path.absolute()), "w", format="mp4", options={"movflags": "+faststart"})


def _add_video(container: OutputContainer, size: tuple[int, int], fps: int, threads: int | None) -> Any:
    import av

    encoder = next((name for name in _H264_ENCODERS if _can_encode(name)), None)
    if encoder is None:
        raise MediaError("PyAV has no H.264 encoder here. Install it from its wheel: pip install --force av")
    options = {"crf": "18", "preset": "veryfast"} if encoder == "libx264" else {}
    stream = container.add_stream(encoder, rate=fps, options=options)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height = size[0] + size[0] % 2, size[1] + size[1] % 2
    stream.pix_fmt = "yuv420p"
    colours = stream.codec_context
    colours.color_primaries = colours.color_trc = colours.colorspace = _BT709
    colours.color_range = _LIMITED
    if threads is not None:
        colours.thread_count = threads
    return stream


def _can_encode(name: str) -> bool:
    import av

    try:
        return av.Codec(name, "w") is not None
    except ValueError:
        return False


def _add_audio(container: OutputContainer, sample_rate_hz: int) -> Any:
    return container.add_stream("aac", rate=sample_rate_hz, layout="mono")
