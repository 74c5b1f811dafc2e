"""PosNet across segments: the pose of a new segment continues the last emitted pose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pflx.engines import Array, Engine
from pflx.engines.gpu.placement import kept
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.generators import Generator, SpeakerWindow, State


class Smoother:
    """PosNet on one segment at a time, one pose of state per sample.

    The first segment passes unchanged, and so does one that was made in one piece with the segment before; of every
    other the six pose numbers are rewritten, and the expression is left alone.

    Source: PFLPosNet (ACM MM 2025), Eq. 11-13.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(self) -> State:
        """The state before the first segment: no pose yet."""
        return {}

    def resume(self, segment: Array) -> State:
        """The state after a segment that is shown as it is, float32 [M, slide, 58]."""
        return {"last_pose": segment[:, -1, POSE].copy()}

    def step(self, segment: Array, state: State) -> tuple[Array, State]:
        """Smooth one segment.

        Args:
            segment: float32 [M, slide, 58], mean face subtracted.
            state: of `start`, or of the last step.

        Returns:
            The smoothed segment, of the same shape, and the next state.
        """
        if not state:
            return segment, self.resume(segment)
        smoothed = self._engine.run({"segment": segment, "last_pose": state["last_pose"]})
        return kept(smoothed["smoothed"]), {"last_pose": kept(smoothed["pose"])}

    def join(self, segment: Array, state: State, *, is_seam: bool) -> tuple[Array, State]:
        """`step` where there is a seam before the segment; else it is shown as it is."""
        return self.step(segment, state) if is_seam else (segment, self.resume(segment))


class NoPosNet(Smoother):
    """In the place of PosNet, where none is needed or wanted: all is shown as it was generated."""

    def __init__(self) -> None:
        pass

    def resume(self, segment: Array) -> State:
        """No state."""
        return {}

    def step(self, segment: Array, state: State) -> tuple[Array, State]:
        """The segment itself."""
        return segment, state


def make_smoother(generator: Generator, engine: Engine, *, wanted: bool = True) -> Smoother:
    """What joins the segments of a generator.

    Args:
        generator: that makes them.
        engine: runs PosNet, if the generator leaves seams.
        wanted: False leaves the seams open.
    """
    return NoPosNet() if generator.is_joined or not wanted else Smoother(engine)


def joined_segments(
    generator: Generator,
    smoother: Smoother,
    steps: Iterable[tuple[SpeakerWindow, Array, bool]],
    state: State,
    pose: State,
) -> Iterator[tuple[Array, Array]]:
    """A stretch of a session without a stream: what is read in each step is known.

    Args:
        generator: makes the segments.
        smoother: joins them.
        steps: speaker window, noise float32 [M, noise size], and whether there is a seam to close before the segment.
        state: of the generator, before the first step.
        pose: of the smoother, likewise.

    Yields:
        Each segment as it was generated and as it is shown, float32 [M, hop, 58], mean face subtracted.
    """
    for window, noise, is_seam in steps:
        reaction, state = generator.step(window, state, noise)
        raw = reaction.coefficients
        joined, pose = smoother.join(raw, pose, is_seam=is_seam)
        yield raw, joined
