"""A vault in this process, as servers have it that share one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pflx.runtime.cluster.vault import Vault
from pflx.runtime.serve.keeping import Claim


class NearVault:
    """Keeps sessions as a vault elsewhere would.

    Attributes:
        vault: what does so; another one is one that was lost.
        kept: the names of what was kept with each call.
    """

    def __init__(self) -> None:
        self.vault = Vault()
        self.kept: list[set[str]] = []

    async def claim(self, id: str) -> Claim:
        return self.vault.claim(id)

    async def keep(self, id: str, epoch: int, parts: Mapping[str, Any]) -> bool:
        self.kept.append({*parts})
        return self.vault.keep(id, epoch, parts)

    async def forget(self, id: str, epoch: int) -> None:
        self.vault.forget(id, epoch)
