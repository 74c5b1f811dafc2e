"""A listener behind a web socket: JPEGs of a speaker at 25 fps in, JPEGs of the listener out, as they are due.

Run it: `pip install 'fastapi[standard]'`, then `PFLX_BUNDLE=me.pflx PFLX_PORTRAIT=me.png fastapi run
examples/fastapi_endpoint.py`.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import cv2
import numpy as np
from fastapi import FastAPI, WebSocket
from fastapi.concurrency import run_in_threadpool

from pflx.runtime import Listener, Stream


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[None]:
    """Open the listener once, for all who connect; its streams take turns."""
    with Listener.open(os.environ["PFLX_BUNDLE"], os.environ["PFLX_PORTRAIT"], lookahead=0) as app.state.listener:
        yield


app = FastAPI(lifespan=opened)
turn = asyncio.Lock()


@app.websocket("/listen")
async def listen(socket: WebSocket) -> None:
    """One speaker."""
    await socket.accept()
    with app.state.listener.stream(audio=False) as stream:
        async for jpeg in socket.iter_bytes():
            async with turn:  # one listener serves one thread at a time
                replies = await run_in_threadpool(react, stream, jpeg)
            for reply in replies:
                await socket.send_bytes(reply)


def react(stream: Stream, jpeg: bytes) -> list[bytes]:
    """What is due after one more picture of the speaker."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is not None:  # else it was none, and is left out
        stream.push(video=np.asarray(picture, np.uint8)[None])
    return [cv2.imencode(".jpg", frame.image[..., ::-1])[1].tobytes() for frame in stream.pull()]
