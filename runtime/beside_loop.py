"""What takes long, beside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def beside_loop(act: Callable[[], Result], undo: Callable[[Result], object] | None = None) -> Result:
    """What `act` returns, called in a thread while the event loop goes on.

    Args:
        act: what takes long.
        undo: gets the result of which nobody wants to know any more, for the task was cancelled meanwhile.
    """
    working = asyncio.ensure_future(asyncio.to_thread(act))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        # A thread cannot be cancelled. Nothing that it opened may stay open, and nothing may be closed under it.
        await asyncio.wait([working])
        if undo is not None and not working.cancelled() and working.exception() is None:
            await asyncio.to_thread(undo, working.result())
        raise
