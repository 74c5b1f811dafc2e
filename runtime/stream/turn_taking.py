"""A listener who takes turns: its motion fades to that of one who does not react, and back; it nods when told to.

Between generator and PosNet, for any generator. One that tells how it would rest (`Reaction.rest`) rests so; any other
sways and blinks as the backchannel listener does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from pflx.engines import Array
from pflx.engines.gpu.placement import fetch
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.frames.event import CAUSES, KINDS, Noted, as_events
from pflx.runtime.frames.timing import FPS
from pflx.runtime.generators import Reaction, State
from pflx.runtime.generators.behaviour import gestures
from pflx.runtime.generators.behaviour.gestures import AXES, BLINK_NOISE, NOD_NOISE, Manner
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.speaker.landmarks import ARKIT_NAMES
from pflx.runtime.stream.turn_book import Span

Draw: TypeAlias = Callable[[int], Array]
"""size → float32 [M, size], standard normal: other numbers than the generator's."""

BLEND_FRAMES = 10
"""Frames from one motion to the other: 400 ms."""
_FRAME_S = 1 / FPS
_CUED = Manner("cue", "wait", apart=False)
_BLINK = KINDS.index("blink")
_EYES_UP = [ARKIT_NAMES.index(f"eyeLookUp{side}") for side in ("Left", "Right")]


class Direction(NamedTuple):
    """What a segment is told.

    Attributes:
        span: what.
        draw: noise for it.
    """

    span: Span
    draw: Draw


def start(samples: int) -> State:
    """The state before the first segment: a listener who reacts; frames of the blend, nods asked for, rest."""
    return {
        "share": np.array([BLEND_FRAMES]),
        "nods": gestures.no_nods(samples),
        "blinks": gestures.no_blinks(samples),
        "sway": gestures.no_sway(samples),
    }


def fits(state: State, samples: int) -> bool:
    """Whether arrays, such as a snapshot's, are such a state of so many samples."""
    wanted = start(samples)
    if state.keys() != wanted.keys():
        return False
    shapes = all((state[name].shape, state[name].dtype) == (wanted[name].shape, wanted[name].dtype) for name in wanted)
    return shapes and all(np.isfinite(array).all() for array in state.values()) and _are_states(state)


def _are_states(state: State) -> bool:
    causes = state["nods"][..., -1]
    return bool(0 <= state["share"][0] <= BLEND_FRAMES and ((causes >= 0) & (causes < len(CAUSES))).all())


def take_turns(reaction: Reaction, state: State, direction: Direction) -> tuple[Reaction, State]:
    """What a segment becomes of whoever was told whose turn it is.

    Args:
        reaction: of the generator.
        state: of `start`, or of the last segment.
        direction: what was told for it.

    Returns:
        The reaction, untouched where nothing was told, and the next state.
    """
    span, hop = direction.span, len(direction.span.roles)
    shares = _shares(int(state["share"][0]), span)
    times = np.arange(hop) * _FRAME_S
    nods = state["nods"]
    if not span.cues and min(shares) == BLEND_FRAMES and not _is_nodding(nods):
        return reaction, state
    noise = np.asarray(direction.draw(_noise_size(hop)), np.float64)
    cue_draws, blink_draws, sway_draws = np.split(noise, [NOD_NOISE, NOD_NOISE + BLINK_NOISE], axis=1)
    cue_draws[:, 1] = 0.0  # without delay
    for row in span.cues:
        nods = gestures.plan_nod(nods, row * _FRAME_S, cue_draws, _CUED)
    events = list(map(Noted._make, reaction.events.tolist()))
    rest, after = reaction.rest, state
    if rest is None and min(shares) < BLEND_FRAMES:
        rest, after, blinks = _rest(state, times, blink_draws, sway_draws)
        events += blinks
    weights = _weights(shares)
    told = [event for event in events if _is_seen(event, weights, rests=reaction.rest is None)]
    if rest is not None and not weights.any():  # the generator's numbers need not even arrive
        made = rest
    else:
        made = fetch(reaction.coefficients).wait()
        made = made if rest is None else _blended(made, rest, weights)
    made = _with_nods(made, gestures.nod_pitch(nods, times))
    told += gestures.begun_nods(nods, times, _FRAME_S)
    return (
        reaction._replace(coefficients=made, rest=None, events=as_events(told)),
        {**after, "share": np.array([shares[-1]]), "nods": gestures.later_nods(nods, hop * _FRAME_S)},
    )


def _noise_size(hop: int) -> int:
    return NOD_NOISE + BLINK_NOISE + hop * AXES * 2


def _shares(share: int, span: Span) -> list[int]:
    """Of each frame, how many of `BLEND_FRAMES` the generator's motion counts."""
    shares = []
    for role in span.roles:
        share += 1 if role.turn in ("listening", "thinking") else -1
        share = min(max(share, 0), BLEND_FRAMES)
        shares.append(share)
    return shares


def _weights(shares: list[int]) -> Array:
    """How much the generator's motion counts, [hop] in 0…1: it begins and ends to change smoothly."""
    return gestures.eased(np.array(shares) / BLEND_FRAMES)


def _is_nodding(nods: Array) -> bool:
    since, _, period, dips, _ = np.moveaxis(nods, -1, 0)
    return bool((since < period * dips).any())


def _rest(state: State, times: Array, blink_draws: Array, sway_draws: Array) -> tuple[Array, State, list[Noted]]:
    """A listener who sways and blinks, float32 [M, hop, 58], mean face subtracted; the next state, and its blinks."""
    samples, hop, step_s = len(blink_draws), len(times), len(times) * _FRAME_S
    closed, blinks = gestures.blink(state["blinks"], times, step_s, blink_draws)
    angles, sway = gestures.sway(state["sway"], _FRAME_S, sway_draws.reshape(samples, hop, AXES, 2))
    events = list(gestures.begun_blinks(state["blinks"], blinks, times, _FRAME_S))
    return gestures.head_and_eyes(angles, closed, angles), {**state, "blinks": blinks, "sway": sway}, events


def _is_seen(event: Noted, weights: Array, *, rests: bool) -> bool:
    """Whether what begins is to be seen in the blend; lids that rest are the same where the generator tells how."""
    weight = weights[int(event.row)]
    if event.kind != _BLINK:
        return bool(weight >= 0.5)
    return not rests or bool(weight < 0.5)


def _blended(made: Array, rest: Array, weights: Array) -> Array:
    shares = weights.astype(np.float32)[None, :, None]
    blended = np.where(shares > 0, made * shares, np.float32(0)) + rest * (1 - shares)
    return np.asarray(np.where(shares == 1, made, blended), np.float32)


def _with_nods(made: Array, pitch: Array) -> Array:
    """With nods of so many deg, [M, hop], while which the eyes stay where they were."""
    if not pitch.any():
        return made
    made = made.copy()
    made[..., POSE.start] += np.radians(pitch).astype(np.float32)
    made[..., _EYES_UP] += (pitch / habit("eye_deg")).astype(np.float32)[..., None]
    return made
