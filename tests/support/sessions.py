"""Sessions on the fake listener: one speaker, fed in any portions, and the frames that must come out."""

from __future__ import annotations

from itertools import islice
from typing import Any

from hypothesis import strategies as st
from support.fakes import Faces, fake_listener, frames_of, sound_of
from support.grouped import grouped

from pflx.engines import Array
from pflx.runtime import Listener, ListenerFrame, Stream

FRAMES = 27
VIDEO, SOUND = frames_of(FRAMES), sound_of(FRAMES)
WINK = Faces(lambda index: [(8.0, 5.0, 20.0, 20.0)] if index % 3 else [])

Action = tuple[str, int]
ACTIONS = st.lists(st.tuples(st.sampled_from(["video", "audio", "pull"]), st.integers(0, 9000)), max_size=25)


def listener(**options: Any) -> Listener:
    given: dict[str, Any] = {"detector": WINK, "lookahead": 3} | options
    return fake_listener(**given)


def content(frame: ListenerFrame) -> tuple[Any, ...]:
    """All of a frame but the time stamps."""
    arrays = (frame.image, frame.coefficients, frame.generated_pose)
    return (frame.sample, frame.time_s, frame.face, *(array.tobytes() for array in arrays))


def whole(source: Listener, video: Array = VIDEO, sound: Array = SOUND, **options: Any) -> list[ListenerFrame]:
    """All frames of one push, one finish and one pull."""
    with source.stream(**grouped(options, "speaker")) as stream:
        stream.push(video=video, audio=sound)
        stream.finish()
        return list(stream.pull())


class Session:
    """Feeds a stream piece by piece and keeps what comes out."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.frames: list[ListenerFrame] = []
        self._seen = self._heard = 0

    def act(self, what: str, amount: int) -> None:
        if what == "pull":
            self.frames += islice(self.stream.pull(), amount % 20)
        elif what == "video":
            count = amount % 12
            self.stream.push(video=VIDEO[self._seen : self._seen + count])
            self._seen += count
        else:
            self.stream.push(audio=SOUND[self._heard : self._heard + amount])
            self._heard += amount

    def end(self) -> list[tuple[Any, ...]]:
        self.stream.push(video=VIDEO[self._seen :], audio=SOUND[self._heard :])
        self.stream.finish()
        self.frames += self.stream.pull()
        return [content(frame) for frame in self.frames]


EXPECTED = {samples: [content(frame) for frame in whole(listener(), samples=samples, seed=5)] for samples in (1, 3)}
