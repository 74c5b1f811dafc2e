"""A listener in an event loop: frames come when they are due, and the loop goes on meanwhile."""

import asyncio
import sys

from pflx.runtime import Listener


async def watch(bundle: str, portrait: str, clip: str) -> None:
    """Print what a session shows of a clip that is played at its own pace."""
    with await Listener.aopen(bundle, portrait) as listener:
        async with listener.alive(clip) as session:  # starts, and ends, beside the loop
            async for frame in session.frames():  # one reader of any number
                print(f"{frame.time_s:.2f} s", frame.degraded.name, frame.image.shape)


if __name__ == "__main__":
    asyncio.run(watch(*sys.argv[1:]))
