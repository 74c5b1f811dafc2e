"""The queues of a live session, each with its capacity in milliseconds, its owner and its policy.

| queue | what waits | capacity | taken by | without room |
|---|---|---|---|---|
| `speaker` | slots of the speaker no segment was made of yet | two hops and 500 ms | worker | the oldest goes |
| `frames` | slots before their deadline, with their frames | declared delay and `stale_ms` | player | the oldest goes |
| `viewer` | frames due and not taken yet, for each reader | `queue_ms` | the caller | `policy` |
| `sink` | frames due and not shown yet, for each of several sinks | `stale_ms` | its thread | the oldest goes |
"""

from __future__ import annotations

from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FRAME_NS, NS_PER_MS
from pflx.runtime.live.playout import Due
from pflx.runtime.live.queues import MediaQueue, Policy
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.live.timeline import Slot

FRAME_MS = FRAME_NS / NS_PER_MS
_SLACK_MS = 500.0  # of the speaker queue, over the two hops that it needs anyhow


def speaker_queue(hop: int) -> MediaQueue[Slot]:
    """Of slots for segments of so many frames."""
    capacity_ms = 2 * hop * FRAME_MS + _SLACK_MS
    return MediaQueue("speaker", "worker", Policy.DROP_OLDEST, capacity_ms, FRAME_MS, lambda slot: slot.scheduled)


def frame_queue(declared_delay_ms: float, settings: LiveSettings) -> MediaQueue[Due]:
    """Of slots that are shown after a delay."""
    capacity_ms = declared_delay_ms + settings.stale_ms + FRAME_MS
    return MediaQueue("frames", "player", Policy.DROP_OLDEST, capacity_ms, FRAME_MS, lambda due: due.scheduled)


def viewer_queue(
    samples: int, settings: LiveSettings, policy: Policy, *, latest: bool = False
) -> MediaQueue[ListenerFrame]:
    """Of frames for whoever iterates, `samples` of them in each slot; of one slot for the latest alone."""
    capacity_ms = FRAME_MS if latest else max(settings.queue_ms, FRAME_MS)
    policy = Policy.LATEST if latest else policy
    return MediaQueue("viewer", "viewer", policy, capacity_ms, FRAME_MS / samples, _emitted)


def sink_queue(samples: int, settings: LiveSettings) -> MediaQueue[ListenerFrame]:
    """Of frames for one of several sinks."""
    capacity_ms = max(settings.stale_ms, FRAME_MS)
    return MediaQueue("sink", "sink", Policy.DROP_OLDEST, capacity_ms, FRAME_MS / samples, _emitted)


def _emitted(frame: ListenerFrame) -> int:
    return frame.ledger.emitted or 0
