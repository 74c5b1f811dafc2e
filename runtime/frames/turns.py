"""Whose turn it is in a conversation, and what a listener may be told to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pflx.engines import FeedError

TurnName: TypeAlias = Literal["idle", "listening", "thinking", "speaking"]
"""What the listener is doing in the conversation, as its application knows it."""
TURNS: tuple[TurnName, ...] = get_args(TurnName)

CueName: TypeAlias = Literal["nod"]
"""What the listener can be told to do."""
CUES: tuple[CueName, ...] = get_args(CueName)


@dataclass(frozen=True)
class Role:
    """What the listener does in the conversation from some frame on.

    Attributes:
        turn: its part.
        hears: whether it hears the speaker.
        shown: whether its pictures are made.
    """

    turn: TurnName = "listening"
    hears: bool = True
    shown: bool = True


LISTENING = Role()


def as_role(turn: TurnName, hears: bool | None, shown: bool) -> Role:
    """The role of a turn; who speaks or is idle does not hear unless told to.

    Raises:
        FeedError: there is no such turn.
    """
    if turn not in TURNS:
        raise FeedError(f"turn is {turn!r}; give one of {', '.join(TURNS)}.")
    return Role(turn, turn in ("listening", "thinking") if hears is None else bool(hears), bool(shown))


def check_cue(cue: CueName) -> None:
    """Refuse what no listener can do, with a FeedError."""
    if cue not in CUES:
        raise FeedError(f"cue is {cue!r}; give one of {', '.join(CUES)}.")
