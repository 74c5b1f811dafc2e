"""A fake listener whose generator shows what it read, for windows and leads of any length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from support.fakes import fake_listener

from pflx.engines import Array
from pflx.runtime import Listener, ListenerFrame, Region
from pflx.runtime.generators import Reaction, SpeakerWindow, State
from pflx.runtime.generators.speaker_window import SpeakerWindows
from pflx.runtime.speaker.face_track import SpeakerView
from pflx.runtime.stream.posnet import Smoother

REGION = Region(0, 0, 32, 32)
PERFRDIFF, BELFUSION, TRANSVAE, BETWEEN = (10, 5, 5, 5), (10, 10, 10, 0), (8, 8, 0, 8), (9, 6, 2, 6)


class Counting:
    """An extractor that finds the frame's number plus one, or nothing in some frames."""

    size = 58

    def __init__(self, blind: tuple[int, ...] = ()) -> None:
        self.blind, self.asked = blind, list[int]()

    def extract(self, picture: npt.NDArray[np.uint8], frame: int) -> Array | None:
        self.asked.append(frame)
        return None if frame in self.blind else np.full(58, frame + 1, np.float32)


class Windowed:
    """A generator that shows what it read: the first and the last number of its window, and the count of its steps."""

    needs: tuple[str, ...] = ("coefficients", "mfcc")
    noise_size, steps = 4, ()
    is_joined = False

    def __init__(self, window: int, hop: int, lead: int, opening: int) -> None:
        self.window, self.hop, self.lead, self.opening = window, hop, lead, opening

    def start(self, samples: int) -> State:
        return {"steps": np.zeros(1)}

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        assert {need: rows.shape[0] for need, rows in speaker.items()} == dict.fromkeys(self.needs, self.window)
        segment = np.zeros((len(noise), self.hop, 58), np.float32)
        numbers = speaker["coefficients"][:, 0]
        segment[..., 0], segment[..., 1], segment[..., 2] = numbers[0], numbers[-1], state["steps"][0]
        segment[..., 3] = np.arange(self.hop)
        segment[..., 4] = speaker["mfcc"].sum()
        return Reaction(segment, segment[..., :25] + 1), {"steps": state["steps"] + 1}


def lagging(timing: tuple[int, ...], lookahead: int = 3, extractor: Counting | None = None) -> Listener:
    """A fake listener whose generator is `Windowed`; PosNet leaves its segments as they are."""
    listener = fake_listener(lookahead=lookahead)
    generator = Windowed(*timing)
    view = SpeakerView(listener._speakers.detector, listener.manifest.pfl, crops=False)
    speaker = SpeakerWindows(generator, view, {"coefficients": extractor or Counting()}, 16_000)
    listener._chain = replace(
        listener._chain, generator=generator, speaker=speaker, smoother=Still(), mean_face=np.zeros(58, np.float32)
    )
    listener._speakers._extractors["coefficients"] = extractor or Counting()
    return listener


class Still(Smoother):
    """In the place of PosNet: it changes nothing, and keeps what it joined."""

    def __init__(self) -> None:
        self.joined: list[float] = []

    def resume(self, segment: Array) -> State:
        return {}

    def step(self, segment: Array, state: State) -> tuple[Array, State]:
        self.joined.append(segment[0, 0, 2].item())
        return segment, state


def content(frame: ListenerFrame) -> tuple[Any, ...]:
    assert frame.emotion is not None
    numbers = (*frame.coefficients[:5].tolist(), *frame.emotion[:5].tolist())
    return frame.ledger.frame, frame.time_s, numbers, frame.sample, frame.image.tobytes()
