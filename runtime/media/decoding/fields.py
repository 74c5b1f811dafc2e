"""Whole pictures out of interlaced ones, whose odd and even lines were taken one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import av
    from av.filter import Graph

T = TypeVar("T")


def whole_pictures(pictures: Iterable[tuple[av.VideoFrame, T]]) -> Iterator[tuple[av.VideoFrame, T]]:
    """The same pictures, with both fields of each at one moment, that of the first; whole ones stay as they are.

    Args:
        pictures: each with whatever belongs to it.
    """
    weaver: _Deinterlacer | None = None
    waiting: deque[T] = deque()
    for frame, belonging in pictures:
        form = (frame.width, frame.height, frame.format.name)
        if weaver is not None and weaver.form != form:
            yield from ((ready, waiting.popleft()) for ready in weaver.push(None))
            weaver = None
        if weaver is None and frame.interlaced_frame:
            weaver = _Deinterlacer(form)
        if weaver is None:
            yield frame, belonging
        else:
            waiting.append(belonging)
            yield from ((ready, waiting.popleft()) for ready in weaver.push(frame))
    if weaver is not None:
        yield from ((ready, waiting.popleft()) for ready in weaver.push(None))


class _Deinterlacer:
    """FFmpeg's bwdif: one picture out for each one in, a picture late; what is marked as whole passes."""

    def __init__(self, form: tuple[int, int, str]) -> None:
        from av.filter import Graph
        from av.video.format import VideoFormat

        self.form = form
        width, height, name = form
        graph: Graph = Graph()
        source = graph.add_buffer(
            width=width, height=height, format=VideoFormat(name, width, height), time_base=Fraction(1, 1000)
        )
        weave = graph.add("bwdif", mode="send_frame", deint="interlaced")
        sink = graph.add("buffersink")
        source.link_to(weave)
        weave.link_to(sink)
        graph.configure()
        self._graph, self._count = graph, 0

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """What is ready after one more picture; the rest after None."""
        from av.error import BlockingIOError, EOFError

        if frame is not None:
            frame.pts, self._count = self._count, self._count + 1  # their times are kept outside
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
