"""What keeps a server from starting."""

from __future__ import annotations

from pflx.engines import PflxError


class ServeError(PflxError, ValueError):
    """A server cannot be started as it was asked to."""
