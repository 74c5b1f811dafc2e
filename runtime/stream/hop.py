"""One hop, whole: speaker frames → window → generator → turns → PosNet → pictures.

    motion, state = make_segment(chain, frames, state, noise)     # `hop` coefficient frames of M reactions
    pictures = make_pictures(chain, track, count, portrait)       # of those whose look-ahead is known by now

Both are functions of their arguments: what one hop leaves to the next is its `HopState`. `stream.py` says when they are
called, `coefficient_track.py` which coefficients a picture sees, `segment_maker.py` what is done about numbers that are
not finite, and `render_queue.py` how pictures come back from a GPU, or are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pflx.engines import Array
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.generators import Reaction, State
from pflx.runtime.generators.protocol import SelfReader, TurnTaker
from pflx.runtime.generators.speaker_window import Ahead, SpeakerState, Window
from pflx.runtime.rendering.renderers import Features
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.stream import turn_taking
from pflx.runtime.stream.chain import Chain
from pflx.runtime.stream.turn_taking import Direction

_NOTHING = Ahead()


@dataclass(frozen=True)
class HopState:
    """What one hop leaves to the next: values, never changed in place.

    Attributes:
        speaker: where the face is, and the end of the last window.
        generator: the generator's own.
        turns: how the listener takes turns.
        pose: PosNet's, the last pose of every reaction.
    """

    speaker: SpeakerState
    generator: State
    turns: State
    pose: State

    @classmethod
    def start(cls, chain: Chain, face: FaceTrack, samples: int) -> HopState:
        """Before the first hop of M reactions."""
        return cls(
            chain.speaker.start(face),
            chain.generator.start(samples),
            turn_taking.start(samples),
            chain.smoother.start(),
        )


class Motion(NamedTuple):
    """What a hop makes.

    Attributes:
        reaction: float32 [M, hop, 58] as generated, and blended as it was told to; mean face subtracted.
        joined: the same after PosNet.
        face: the speaker's.
        started: when the generator was called, in ns.
        generated: when it had yielded the segment.
        smoothed: when PosNet had joined it to the one before.
    """

    reaction: Reaction
    joined: Array
    face: FaceState
    started: int
    generated: int
    smoothed: int


class Pictures(NamedTuple):
    """Pictures of one call of the renderer.

    Attributes:
        images: uint8 [count, H, W, 3] RGB, where the renderer makes them.
        begun: when it was called, in ns.
        rendered: when it returned.
    """

    images: Array
    begun: int
    rendered: int


def make_segment(
    chain: Chain,
    frames: Window,
    state: HopState,
    noise: Array,
    *,
    steps: int | None = None,
    ahead: Ahead = _NOTHING,
    is_seam: bool = True,
    told: Direction | None = None,
) -> tuple[Motion, HopState]:
    """The next segment.

    Args:
        chain: the stages.
        frames: the speaker's new ones.
        state: of `HopState.start`, or of the hop before.
        noise: float32 [M, noise size], standard normal.
        steps: denoising steps; None takes the most.
        ahead: what was done for the first of the frames already.
        told: whose turn it is; None for a listener to whom nobody told anything.
        is_seam: False for a segment that was made in one piece with the one before, which PosNet then leaves alone.
    """
    window, speaker = chain.speaker.step(frames, state.speaker, ahead)
    started = chain.clock()
    before, turns = state.generator, state.turns
    if told is not None and isinstance(chain.generator, TurnTaker):
        before = chain.generator.told(before, answers=told.span.roles[0].turn == "listening")
    reaction, generator = chain.generator.step(window, before, noise, steps)
    if told is not None:
        reaction, turns = turn_taking.take_turns(reaction, turns, told)
    generated = chain.clock()
    joined, pose = chain.smoother.join(reaction.coefficients, state.pose, is_seam=is_seam)
    if chain.settings.generator_history == "adjusted" and isinstance(chain.generator, SelfReader):
        generator = chain.generator.remember(before, generator, joined)
    motion = Motion(reaction, joined, speaker.face.watch.state, started, generated, chain.clock())
    return motion, HopState(speaker, generator, turns, pose)


def make_pictures(chain: Chain, track: Array, count: int, portrait: Features) -> Pictures:
    """The pictures of `count` frames of one reaction.

    Args:
        chain: the stages.
        track: float32 [count + 26, 58], the coefficients around them, mean face subtracted.
        count: how many.
        portrait: of the renderer's `prepare`.
    """
    begun = chain.clock()
    images = chain.renderer.render(track, count, portrait)
    return Pictures(images, begun, chain.clock())
