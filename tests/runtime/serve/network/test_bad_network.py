"""Networks as they are: packets lost, late, held back or gone for a while; what the visitor sees, and is told."""

from __future__ import annotations

from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.serve_client import (
    loopback_only,  # noqa: F401
)
