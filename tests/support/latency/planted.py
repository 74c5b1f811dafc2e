"""Ledgers of a session with one worker, as a small open-loop simulation would leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pflx.runtime.frames.ledger import Ledger, Rung

MS = 1_000_000
STEP = 40 * MS
ORIGIN = 7_000 * MS
"""When speaker frame 0 was due: the clock's own zero means nothing."""


def on_time(
    segments: int,
    *,
    hop: int = 4,
    lookahead: int = 0,
    playout_ms: float = 100,
    samples: int = 1,
    generator: int = 10 * MS,
    posnet: int = 2 * MS,
    render: Callable[[int], int] = lambda frame: 5 * MS,
    copy: int = MS,
) -> list[Ledger]:
    """Every frame is rendered in full and shown at its deadline, or as soon as it is ready.

    A frame is due for rendering when the segment of the frame `lookahead` after it is closed.
    """
    ledgers: list[Ledger] = []
    free = ORIGIN
    stamps: dict[int, tuple[int, int, int]] = {}
    for segment in range(segments):
        closed = ORIGIN + (segment + 1) * hop * STEP
        start = max(free, closed)
        stamps[segment] = (start, start + generator, start + generator + posnet)
        free = stamps[segment][2]
        for frame in range(max(0, segment * hop - lookahead), (segment + 1) * hop - lookahead):
            delay = round((hop + lookahead) * STEP + playout_ms * MS)
            for sample in range(samples):
                own = frame // hop
                rendered = free + render(frame)
                deadline = ORIGIN + frame * STEP + delay
                ledgers.append(
                    Ledger(
                        frame=frame,
                        sample=sample,
                        segment=own,
                        picture=frame,
                        rung=Rung.FULL,
                        time_s=frame / 25,
                        scheduled=ORIGIN + (own + 1) * hop * STEP,
                        read=ORIGIN + (own + 1) * hop * STEP + MS,
                        closed=ORIGIN + (own + 1) * hop * STEP + 2 * MS,
                        generator_start=stamps[own][0],
                        generator_end=stamps[own][1],
                        posnet_end=stamps[own][2],
                        render_start=free,
                        render_end=rendered,
                        on_host=rendered + copy,
                        deadline=deadline,
                        emitted=max(deadline, rendered + copy),
                        newest=closed,
                    )
                )
                free = rendered + copy
    return ledgers


def plain(ledgers: Sequence[Ledger]) -> list[Ledger]:
    """The same without a live session: nothing is due, nothing is shown."""
    return [replace(ledger, deadline=None, emitted=None) for ledger in ledgers]
