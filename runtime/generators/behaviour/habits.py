"""How the backchannel listener behaves, in numbers: every constant of it, with where it is from.

The table of docs/backchannel.md is this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Habit(NamedTuple):
    """One constant.

    Attributes:
        value: of it.
        unit: of the value.
        meaning: what it says.
        source: who found it; "ours" where it was chosen by looking at the motion.
    """

    value: float
    unit: str
    meaning: str
    source: str


_TRUONG = "ours: 0.3 s of silence, as the network is late; Truong et al. 2010 take pauses"
_LIVELY = "ours; Traunmüller & Eriksson 1995: in semitones, as a deviation"
_TOBIN = "Tobin et al. 1983"
_GLANCE = "ours: shorter than the 2.2 s for which two look each other in the face, Rogers et al. 2018"
_FACE = "ours; Võ et al. 2012: from eyes to nose and mouth, which 0.7 m away are 5 deg apart"
_WARD = "Ward & Tsukahara 2000, the rule for English"

HABITS: Mapping[str, Habit] = {
    "low_pitch": Habit(26, "%", "percentile of the speaker's pitch below which it is low", _WARD),
    "low_for": Habit(0.11, "s", "low pitch that invites feedback", _WARD),
    "speech_before": Habit(0.7, "s", "speech that comes before it", _WARD),
    "apart": Habit(1.8, "s", "from the start of one nod to the next, at least", "ours: the rule's 0.8 s is restless"),
    "wait": Habit(0.7, "s", "from low pitch to the nod", _WARD),
    "pause_for": Habit(0.2, "s", "without a voice that is a pause", _TRUONG),
    "pause_after": Habit(1.0, "s", "speech that comes before it", "ours"),
    "pause_wait": Habit(0.4, "s", "from there to the nod", "ours: 0.7 s into the pause; after half a segment at least"),
    "pause_share": Habit(0.5, "", "share of the pauses that are answered", "ours: listeners differ"),
    "long_turn": Habit(6.5, "s", "speech without a nod that is acknowledged by a small one", "ours"),
    "long_turn_first": Habit(0.48, "", "share of it at first", "ours: who tries it speaks for a few seconds"),
    "long_turn_spread": Habit(0.15, "", "deviation of it, as a share; at most twice that", "ours"),
    "long_turn_wait": Habit(0.5, "s", "from there to the nod", "ours"),
    "low_break": Habit(0.02, "s", "without low pitch that does not end a region of it", "ours: a pitch tracker's gaps"),
    "pause": Habit(0.25, "s", "shorter silence is a part of speech", "Goldman-Eisler 1968"),
    "voice": Habit(0.5, "", "probability from which it is speech", "Silero VAD, its default"),
    "pitch_known": Habit(0.5, "s", "voiced speech until the speaker's pitch is known", "ours"),
    "pitch_memory": Habit(20, "s", "voiced speech after which its pitch counts half", "ours: speakers change"),
    "nod_share": Habit(0.4, "", "share of the low pitches that are answered", "ours: listeners differ"),
    "nod_jitter": Habit(0.08, "s", "deviation of a nod's start; at most twice that", "ours: listeners differ"),
    "nod_deg": Habit(6.5, "deg", "mean depth of the first dip", "ours"),
    "nod_spread": Habit(0.25, "", "deviation of the depth, as a share; at most twice that", "ours"),
    "nod_period": Habit(0.46, "s", "from dip to dip", "Hadar et al. 1983: ordinary movements have 1.8 to 3.7 Hz"),
    "nod_period_spread": Habit(0.1, "", "deviation of the period, as a share; at most twice that", "ours"),
    "small_nod": Habit(0.55, "", "depth of a small nod against another", "ours"),
    "nod_fading": Habit(0.6, "", "depth of each further dip against the one before", "ours"),
    "nod_twice": Habit(0.5, "", "share of nods that dip more than once", "ours"),
    "nod_thrice": Habit(0.15, "", "share of nods that dip three times", "ours"),
    "blinks": Habit(15, "1/min", "blinks", "Sforza et al. 2008: 11 (men), 19 (women) a minute"),
    "blink_spread": Habit(0.6, "", "deviation of the logarithm of the gaps between blinks", "ours"),
    "blink_least": Habit(0.5, "s", "shortest gap", "ours"),
    "blink_most": Habit(15, "s", "longest gap", "ours"),
    "blink_closing": Habit(0.092, "s", "a lid goes down", "VanderWerf et al. 2003"),
    "blink_shut": Habit(0.04, "s", "and rests", "ours: one frame; Kwon et al. 2013 for the four phases"),
    "blink_opening": Habit(0.242, "s", "and goes up, quickly at first", "VanderWerf et al. 2003; Kwon et al. 2013"),
    "mirror_head": Habit(0.3, "", "share of the speaker's head pose that is taken over, left for right", "ours"),
    "mirror_head_deg": Habit(20, "deg", "the speaker's turns count up to it", "ours"),
    "mirror_head_after": Habit(1.7, "s", "delay, with 0.32 s of the window", "ours; Bailenson & Yee 2005 took 4 s"),
    "mirror_rest": Habit(10, "s", "over which the speaker's own rest pose is a mean", "ours"),
    "mirror_smile": Habit(0.6, "", "share of the speaker's smile that is taken over", "ours"),
    "mirror_smile_from": Habit(0.1, "", "weaker smiles of the speaker are none", "ours: a network's zero"),
    "lively_from": Habit(4.2, "st", "deviation of the pitch from which a voice is lively", _LIVELY),
    "lively_to": Habit(6.5, "st", "and from which it is as lively as can be", _LIVELY),
    "lively_known": Habit(1.5, "s", "voiced speech of which that is told", "ours"),
    "lively_memory": Habit(3.0, "s", "voiced speech after which it counts a third", "ours"),
    "lively_smile": Habit(0.4, "", "weight of the smile that answers the liveliest voice", "ours"),
    "smile_seen": Habit(0.12, "", "weight from which a smile is one", "ours"),
    "mirror_smile_after": Habit(0.6, "s", "delay, with 0.32 s of the window", "Dimberg & Thunberg 1998: muscles 0.4 s"),
    "idle_pitch": Habit(0.9, "deg", "deviation of the idle head", "ours"),
    "idle_yaw": Habit(1.4, "deg", "likewise", "ours"),
    "idle_roll": Habit(0.9, "deg", "likewise", "ours"),
    "idle_rate": Habit(1.3, "rad/s", "of the second-order Ornstein-Uhlenbeck process of the idle head", "ours"),
    "idle_most": Habit(2.5, "", "deviations that it never leaves", "ours"),
    "breaths": Habit(15, "1/min", "breaths", f"{_TOBIN}: 17, of which 3 are the deviation"),
    "breath_spread": Habit(0.1, "", "deviation of a breath's duration, as a share; at most twice that", "ours"),
    "breath_in": Habit(0.42, "", "share of a breath in which it is drawn", _TOBIN),
    "breath_rise": Habit(0.02, "dm", "by which the head is up then; shoulders take part in half of it", "ours"),
    "glances_for": Habit(1.2, "s", "mean time for which the eyes look at one point of the speaker's face", _GLANCE),
    "glance_spread": Habit(0.5, "", "deviation of its logarithm", "ours"),
    "glance_least": Habit(0.5, "s", "shortest look", "ours"),
    "glance_most": Habit(5, "s", "longest look", "ours"),
    "glance_up": Habit(2, "deg", "deviation of these points, up and down; at most twice that", _FACE),
    "glance_aside": Habit(2.5, "deg", "likewise, aside", _FACE),
    "attention_after": Habit(0.8, "s", "delay of attention to a voice", "ours"),
    "attention_brow": Habit(0.12, "", "weight of browInnerUp while spoken to", "ours"),
    "voice_begun": Habit(0.2, "s", "speech after which somebody has begun to speak", "ours"),
    "silence_before": Habit(1.0, "s", "without speech before it", "ours"),
    "beginning_wait": Habit(0.34, "s", "from there to the brows", "ours: as soon as a segment allows"),
    "beginning_rise": Habit(0.3, "s", "for which the brows rise; they fall a little more slowly", "ours"),
    "beginning_brow": Habit(0.45, "", "weight of all brows at their highest", "ours"),
    "attention_near": Habit(0.3, "dm", "by which the head comes nearer to who speaks", "ours"),
    "attention_gaze": Habit(0.3, "", "share of the head's turns that the eyes make up for while nobody speaks", "ours"),
    "attention_deg": Habit(1.2, "deg", "by which the head is lowered towards who speaks", "ours"),
    "follow_rate": Habit(25, "rad/s", "of the critically damped head: 80 ms behind what moves it", "ours"),
    "most_speed": Habit(100, "deg/s", "bound of each angle's velocity", "ours: twice what nods need"),
    "most_change": Habit(1000, "deg/s²", "bound of each angle's acceleration", "ours: twice what nods need"),
    "eye_deg": Habit(30, "deg", "turn of an eye at a weight of 1; eyes stay with the speaker", "ours"),
}


def habit(name: str) -> float:
    """The value of a constant."""
    return HABITS[name].value
