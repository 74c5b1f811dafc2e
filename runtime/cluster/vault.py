"""The last snapshot of every session of a site, and which of its servers may serve which session."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pflx.runtime.serve.keeping import Claim, Kept

log = logging.getLogger(__name__)

KEPT_S = 300.0
"""How long a session can be gone on with after it was kept last: longer than a page takes to connect again."""

_MOST = 2000
"""Sessions; each has tens of kB, and up to 3 MB where a visitor has sent a picture."""
_ANSWER_S = 5.0
"""For the vault to answer, before a session goes on without it."""


@dataclass
class _Record:
    epoch: int
    kept: Kept
    until: float


class Vault:
    """Keeps in memory what sessions go on from. It has no threads, and knows of no cluster.

    A session has an epoch, which grows each time that a server claims it. What a server with an older one would keep is
    refused: so it learns that another one serves the session now, and ends its own. What was lost with the process that
    this lives in comes again with the next snapshots of who still serves it.

    Args:
        clock: in s, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._site: str | None = None

    def begin(self, site: str) -> None:
        """A site was begun, in the place of any other."""
        self._site = site

    def site(self) -> str | None:
        """The one that was begun last; None if nobody has said so since this process began."""
        return self._site

    def claim(self, id: str) -> Claim:
        """Take a session over. Of one that is not known, epoch 0, for which nothing is remembered."""
        record = self._records.get(id)
        if record is None or record.until < self._clock():
            self._records.pop(id, None)
            return Claim(0, None)
        record.epoch += 1
        return Claim(record.epoch, record.kept)

    def keep(self, id: str, epoch: int, parts: Mapping[str, Any]) -> bool:
        """Keep some fields of `Kept`; False if a server with a later epoch has the session."""
        record = self._records.pop(id, None)
        if record is not None and epoch < record.epoch:
            self._records[id] = record
            return False
        kept = replace(Kept() if record is None else record.kept, **parts)
        self._records[id] = _Record(epoch, kept, self._clock() + KEPT_S)
        self._make_room()
        return True

    def forget(self, id: str, epoch: int) -> None:
        """The visitor has ended it; of a later epoch, it is another visitor's to end."""
        record = self._records.get(id)
        if record is not None and epoch >= record.epoch:
            del self._records[id]

    def __len__(self) -> int:
        return len(self._records)

    def _make_room(self) -> None:
        """Leave out those that were not kept for the longest time."""
        now = self._clock()
        while self._records and (len(self._records) > _MOST or next(iter(self._records.values())).until < now):
            self._records.popitem(last=False)


class VaultActor:
    """The vault as servers on all nodes of a Ray cluster have it; where it does not answer, sessions do without.

    Args:
        ray: the module, connected to the cluster.
        name: of the actor, one for each site. It is begun by whoever asks first; when it dies, Ray begins it again,
            empty.
    """

    def __init__(self, ray: Any, name: str) -> None:
        options = {"name": name, "get_if_exists": True, "lifetime": "detached", "max_restarts": -1, "num_cpus": 0}
        self._ray = ray
        self._actor = ray.remote(Vault).options(**options).remote()
        self._is_lost = False

    async def claim(self, id: str) -> Claim:
        """See `Keeper`; nothing is known of any session while the vault is away."""
        claim: Claim = await self._answered(self._actor.claim.remote(id), Claim(0, None))
        return claim

    async def keep(self, id: str, epoch: int, parts: Mapping[str, Any]) -> bool:
        """See `Keeper`."""
        taken: bool = await self._answered(self._actor.keep.remote(id, epoch, parts), True)
        return taken

    async def forget(self, id: str, epoch: int) -> None:
        """See `Keeper`."""
        await self._answered(self._actor.forget.remote(id, epoch), None)

    def begin(self, site: str) -> None:
        """See `Vault`; waits until it is so, or the vault is away."""
        self._waited_for(self._actor.begin.remote(site))

    def site(self) -> str | None:
        """See `Vault`; None where the vault is away."""
        site: str | None = self._waited_for(self._actor.site.remote())
        return site

    def _waited_for(self, answer: Any) -> Any:
        try:
            return self._ray.get(answer, timeout=_ANSWER_S)
        except Exception as error:  # as below
            log.info("The vault does not answer: %s", type(error).__name__)
            return None

    async def _answered(self, answer: Any, otherwise: Any) -> Any:
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(answer.future()), _ANSWER_S)
        except Exception as error:  # of Ray, which has many kinds, or that nothing came in time
            if not self._is_lost:
                log.warning("The vault does not answer (%s): whoever connects again begins anew.", type(error).__name__)
            self._is_lost = True
            return otherwise
        self._is_lost = False
        return found
