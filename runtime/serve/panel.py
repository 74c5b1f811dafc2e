"""The latency panel: figures of the last ten seconds of a session, from its ledgers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pflx.runtime.bench.measure.reaction import Response, find_responses, hears
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import FPS, NS_PER_MS
from pflx.runtime.generators import Generator
from pflx.runtime.latency.percentiles import Distribution, distribution, figures
from pflx.runtime.live.session import LiveSession

SPAN_S = 10
"""The figures are of the last so many seconds."""

_EVERY = 3  # frames between the moments that a reaction is looked up for; no divisor of any hop but itself


class PanelFigures(msgspec.Struct, frozen=True):
    """What a visitor sees, of the last ten seconds; in ms. None where nothing of it is known yet.

    Attributes:
        reaction_ms: median time from something that the visitor does to the first picture that depends on it.
        reaction_p95_ms: 95th percentile of it.
        age_ms: median age of the newest thing that a shown picture depends on.
        age_p95_ms: 95th percentile of it.
        missed: frames that were not shown in full at their deadline.
        frames: frames that were due.
        rungs: frames shown, by how they were made.
        rung: how the last one was made.
        fps: new pictures a second.
    """

    reaction_ms: float | None
    reaction_p95_ms: float | None
    age_ms: float | None
    age_p95_ms: float | None
    missed: int | None
    frames: int
    rungs: dict[str, int]
    rung: str
    fps: float | None


class Panel:
    """Remembers a session's ledgers for a while.

    Args:
        samples: of the session.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._ledgers: deque[Ledger] = deque(maxlen=SPAN_S * FPS * samples)
        self._told = -1  # number of the last speaker frame whose reaction was given out

    def record(self, ledger: Ledger) -> None:
        """Take a ledger in; called by the session's threads."""
        self._ledgers.append(ledger)

    def ledgers(self) -> list[Ledger]:
        """Those of the last ten seconds, in the order of their frames."""
        return sorted(self._ledgers.copy(), key=lambda ledger: (ledger.frame, ledger.sample))

    def figures(self, session: LiveSession, generator: Generator) -> PanelFigures | None:
        """What they come to; None before the first picture.

        Args:
            session: whose they are.
            generator: of the session.
        """
        ledgers = self.ledgers()
        if not any(ledger.emitted for ledger in ledgers):
            return None
        return panel_figures(
            ledgers,
            hop=generator.hop,
            hears=hears(generator),
            samples=self._samples,
            algorithmic_ms=session.algorithmic_delay_ms,
            playout_ms=session.settings.playout_ms,
        )

    def fresh_reactions(self, session: LiveSession, generator: Generator) -> list[float]:
        """Delays of the reactions that are known since it was asked last, in ms; see `_EVERY`.

        Args:
            session: whose they are.
            generator: of the session.
        """
        declared_ns = round(session.declared_delay_ms * NS_PER_MS)
        fresh = [each for each in _responses(self.ledgers(), declared_ns, hears(generator)) if each.slot > self._told]
        self._told = max((each.slot for each in fresh), default=self._told)
        return [each.latency_ms for each in fresh]


def panel_figures(
    ledgers: Sequence[Ledger], *, hop: int, hears: bool, samples: int, algorithmic_ms: float, playout_ms: float
) -> PanelFigures:
    """The figures of some ledgers, as `pflx bench-latency` defines them.

    Args:
        ledgers: in the order of their frames; one or more was shown.
        hop: frames per segment.
        hears: whether sound reaches the generator; see `find_responses`.
        samples: reactions.
        algorithmic_ms: what the algorithm costs.
        playout_ms: what was granted on top.
    """
    found = figures(ledgers, hop=hop, algorithmic_ms=algorithmic_ms, playout_ms=playout_ms, samples=samples)
    declared_ns = round((algorithmic_ms + playout_ms) * NS_PER_MS)
    delays_ms = [response.latency_ms for response in _responses(ledgers, declared_ns, hears)]
    reaction = distribution(delays_ms) if delays_ms else None
    last = max((ledger for ledger in ledgers if ledger.emitted), key=lambda ledger: ledger.emitted or 0)
    return PanelFigures(
        reaction_ms=_value(reaction, "p50"),
        reaction_p95_ms=_value(reaction, "p95"),
        age_ms=_value(found.age, "p50"),
        age_p95_ms=_value(found.age, "p95"),
        missed=found.missed,
        frames=found.frames,
        rungs=found.rungs,
        rung=Rung(last.rung).name,
        fps=found.fps_shown,
    )


def _responses(ledgers: Sequence[Ledger], declared_ns: int, hears: bool) -> Iterator[Response]:
    """To events in the middle of every third frame: the first picture that depends on them."""
    moments = [(ledger.frame + 0.5) / FPS for ledger in ledgers if ledger.sample == 0 and ledger.frame % _EVERY == 0]
    return find_responses(ledgers, moments, declared_ns, hears=hears)


def _value(known: Distribution | None, percentile: str) -> float | None:
    """A percentile, where there is enough to tell it."""
    quantile: Any = None if known is None else getattr(known, percentile)
    return None if quantile is None else float(quantile.value)
