"""Pictures of FFmpeg in another pixel format or size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av

_ONE_THREAD = 1 << 20
"""Pixels up to which a picture is converted by the thread that asks."""


class Converter:
    """Converts pictures, and keeps its tables, which take as long to make as a picture.

    FFmpeg shares each picture out among all cores. With one of 256 pixels a side that costs more than the work itself
    (0.83 ms of CPU with threads that begin with the call, 0.18 with those there are, 0.15 alone), and live sessions
    have other use for the cores.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame, **wanted: Any) -> av.VideoFrame:
        """The frame as it is wanted; itself where it is so already.

        Args:
            frame: any picture.
            wanted: what PyAV's `VideoReformatter.reformat` takes: `format`, `width`, `height`, `interpolation`, ….
        """
        pixels = max(frame.width * frame.height, wanted.get("width", 0) * wanted.get("height", 0))
        return self._reformatter.reformat(frame, threads=1 if pixels <= _ONE_THREAD else 0, **wanted)
