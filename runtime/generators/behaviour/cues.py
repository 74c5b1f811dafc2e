"""Where a speaker invites a listener's feedback: by low pitch, as Ward & Tsukahara found, and by a pause; on line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pflx.engines import Array
from pflx.runtime.frames.event import Cause
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.speaker.hearing import HIGHEST_HZ, LOWEST_HZ, TICKS_PER_S, Heard

_BINS_PER_OCTAVE = 48
_N_BINS = int(np.ceil(np.log2(HIGHEST_HZ / LOWEST_HZ) * _BINS_PER_OCTAVE))
_LONG = 60 * TICKS_PER_S  # longer is no longer counted


def _ticks(name: str) -> int:
    return round(habit(name) * TICKS_PER_S)


_LOW_FOR, _LOW_BREAK = _ticks("low_for"), _ticks("low_break")
_SPEECH, _PAUSE, _KNOWN = _ticks("speech_before"), _ticks("pause"), _ticks("pitch_known")
_PAUSE_FOR, _PAUSE_AFTER = _ticks("pause_for"), _ticks("pause_after")
_BEGUN, _SILENT = _ticks("voice_begun"), _ticks("silence_before")
_MEMORY = 0.5 ** (1 / _ticks("pitch_memory"))


@dataclass(frozen=True)
class Turn:
    """How the speaker's turn has gone until now, in ticks of 10 ms.

    Attributes:
        speech: how long somebody has spoken, short silences included.
        silence: since the last voice.
        low: how long the pitch has been low.
        high: since it was low.
        told: 1 once the invitation of this low region was told.
        quiet: since somebody was speaking for more than a moment.
    """

    speech: int = 0
    silence: int = 0
    low: int = 0
    high: int = 0
    told: int = 0
    quiet: int = _LONG

    def next(self, is_voice: bool, is_low: bool) -> Turn:
        """After one more tick."""
        silence = 0 if is_voice else self.silence + 1
        speech = 0 if silence > _PAUSE else self.speech + 1 if is_voice or self.speech else 0
        high = 0 if is_low else self.high + 1
        goes_on = high <= _LOW_BREAK
        low, told = (self.low + is_low, self.told) if goes_on else (0, 0)
        quiet = 0 if is_voice and speech >= _BEGUN else self.quiet + 1
        return Turn(*(min(count, _LONG) for count in (speech, silence, low, high, told, quiet)))

    @property
    def invites(self) -> bool:
        """Whether low pitch invites feedback now, and did not yet in this region."""
        return self.low >= _LOW_FOR and self.speech - self.silence >= _SPEECH and not self.told

    @property
    def pauses(self) -> bool:
        """Whether the speaker has just made a pause of some length, after a while."""
        return self.silence == _PAUSE_FOR and self.speech - self.silence >= _PAUSE_AFTER


class Found(NamedTuple):
    """What was found in a piece of sound.

    Attributes:
        invitations: moments in s, counted back from the end of the piece, at which feedback is invited, and by what.
        beginning: the moment, counted likewise, at which somebody began to speak; None if nobody did.
        spoken_s: for how long somebody spoke.
    """

    invitations: list[tuple[float, Cause]]
    beginning: float | None
    spoken_s: float


def start() -> dict[str, Array]:
    """The state before the first sound: a speaker of unknown pitch who is silent."""
    return {"pitches": np.zeros(_N_BINS), "turn": np.array(astuple(Turn()))}


def find_cues(heard: Heard, state: Mapping[str, Array]) -> tuple[Found, dict[str, Array]]:
    """Where feedback is invited in a piece of sound, and where somebody begins to speak.

    Pitch is low below the 26th percentile of what the speaker's was before this piece.

    Args:
        heard: of the piece.
        state: of `start`, or of the last piece.

    Returns:
        What was found, and the next state.

    Source: Ward & Tsukahara 2000, "Prosodic features which cue back-channel responses in English and Japanese",
    conditions P1 to P3 of the rule for English.
    """
    is_voice = heard.voice >= habit("voice")
    pitched = is_voice & (heard.pitch_hz > 0)
    is_low = pitched & (heard.pitch_hz < _low_hz(state["pitches"]))
    turn, beginning = Turn(*state["turn"].tolist()), None
    invitations: list[tuple[float, Cause]] = []
    for tick, (voice, low) in enumerate(zip(is_voice.tolist(), is_low.tolist(), strict=True), 1):
        before, turn = turn, turn.next(voice, low)
        moment_s = (tick - len(is_low)) / TICKS_PER_S
        if turn.invites:
            invitations.append((moment_s, "low pitch"))
            turn = replace(turn, told=1)
        if turn.pauses:
            invitations.append((moment_s, "pause"))
        if not turn.quiet and before.quiet >= _SILENT:
            beginning = moment_s
    found = Found(invitations, beginning, float(is_voice.sum()) / TICKS_PER_S)
    return found, {"pitches": _remembered(state["pitches"], heard.pitch_hz[pitched]), "turn": np.array(astuple(turn))}


def _low_hz(pitches: Array) -> float:
    """Below it pitch is low; 0 until enough was heard."""
    below = np.cumsum(pitches)
    if below[-1] < _KNOWN:
        return 0.0
    edges = LOWEST_HZ * 2 ** (np.arange(_N_BINS + 1) / _BINS_PER_OCTAVE)
    return float(np.interp(habit("low_pitch") / 100 * below[-1], np.concatenate([[0], below]), edges))


def _remembered(pitches: Array, hz: npt.NDArray[np.float32]) -> Array:
    """How often each pitch was heard, what is long ago counting less, float64 [bins]."""
    bins = np.log2(np.maximum(hz, LOWEST_HZ) / LOWEST_HZ) * _BINS_PER_OCTAVE
    fresh = np.bincount(np.minimum(bins.astype(np.int64), _N_BINS - 1), minlength=_N_BINS)
    return np.asarray(pitches * _MEMORY ** len(hz) + fresh)
