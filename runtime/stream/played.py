"""A stream fed from a file."""

from __future__ import annotations

from collections.abc import Iterator

from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.media.clip import SpeakerFile
from pflx.runtime.stream.stream import Stream

_READ_AHEAD = 4
"""Segments whose input is read at a time where segments are made side by side with pictures."""


def played(clip: SpeakerFile, stream: Stream, hop: int, *, on_gpu: bool) -> Iterator[ListenerFrame]:
    """The frames of a stream that gets all of a clip. Memory does not grow with the clip.

    Args:
        clip: of the speaker.
        stream: that nothing was given to yet.
        hop: frames of a segment.
        on_gpu: whether the next segment is made while the last one is rendered, if its input is there.
    """
    for chunk in clip.chunks(_READ_AHEAD * hop if on_gpu else hop):
        stream.push(video=chunk.video, audio=chunk.audio)
        yield from stream.pull()
        stream.release_pictures()
    stream.finish()
    yield from stream.pull()
