"""A real browser with a made-up camera and microphone, a server, and what a test looks at in a page."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from support.places import MEDIA
from support.serve.chromium import Chromium, Page, wait_for
from support.serve.serve_listener import SIDE, nodding_listener

from pflx.runtime import Listener, Person
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.rendering.portrait import load_whole
from pflx.runtime.serve.app import listen, make_app, make_server
from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.network.ports import run_within
from pflx.runtime.serve.settings import ServeSettings

PORTRAIT = MEDIA / "portrait_astronaut_256.png"
PORTRAITS: Mapping[str, UInt8Array] = {
    "astronaut": load_whole(PORTRAIT),
    "green": np.full((96, 128, 3), (30, 160, 40), np.uint8),
}
STATE = "document.getElementById('screen').dataset.state"
IS_LIVE = f"{STATE} === 'live'"
SHOWN = "document.getElementById('listener').getVideoPlaybackQuality().totalVideoFrames"


class Server:
    """A server in a thread of its own, on a free port."""

    def __init__(
        self,
        listener: Callable[[], Listener] = lambda: nodding_listener(PORTRAIT),
        portraits: Mapping[str, UInt8Array] = PORTRAITS,
        persons: Sequence[Person] = (),
        **settings: Any,
    ) -> None:
        self.settings = ServeSettings(**{"port": 0, "max_load": 10, **settings})
        self._open, self._portraits, self._persons = listener, portraits, persons
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.lobby: Lobby
        self.url = ""

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(10)
        wait_for(lambda: self._server.started)
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def run(self, work: Any) -> None:
        """Do something in the server's event loop."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _run(self) -> None:
        run_within(self.settings.udp_ports, self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        with listen(self.settings) as socket, self._open() as listener:
            port = socket.getsockname()[1]
            self.lobby = Lobby({"nodding": listener}, self._portraits, self.settings, self._persons)
            self._server = make_server(make_app(self.lobby, port), close=self.lobby.close)
            self.url = f"http://localhost:{port}/"
            self._ready.set()
            await self._server.serve(sockets=[socket])


@dataclass
class Window:
    """A browser with a camera and a microphone, and a server."""

    server: Server
    browser: Chromium

    @contextmanager
    def page(self, path: str = "", *, first: str = "") -> Iterator[Page]:
        """A new tab with the page in it, where a script may run first. When it is closed, its session ends."""
        page = self.browser.new_page()
        page.call("Page.enable")
        page.resize((1280, 900))  # so wide that the video stays in view
        page.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_POLICY + first)
        page.open(self.server.url + path)
        page.until("document.querySelector('#choice option, #form, .alone')")
        before = len(self.server.lobby.peers)
        try:
            yield page
        finally:
            page.call("Page.close")
        wait_for(lambda: len(self.server.lobby.peers) <= before)

    @contextmanager
    def live(self, act: Callable[[Page], object] = lambda page: None) -> Iterator[Page]:
        """A tab that shows the listener; `act` comes before the start."""
        with self.page() as page:
            act(page)
            page.click("go")
            page.until(IS_LIVE)
            yield page


_WATCH_POLICY = """
window.violations = [];
addEventListener('securitypolicyviolation', (event) => violations.push(event.blockedURI));
"""
_SNAP = """
(() => {
  const video = document.getElementById('listener'), canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext('2d').drawImage(video, 0, 0);
  return canvas.toDataURL('image/png');
})()
"""


def snap(page: Page) -> npt.NDArray[np.uint8]:
    """What the listener's video shows, uint8 [H, W, 3]."""
    content = base64.b64decode(page.run(_SNAP).partition(",")[2])
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"), np.uint8)


def downward(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> float:
    """By how many px the middle of the picture went down, by optical flow."""
    pair = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before, after)]
    flow = cv2.calcOpticalFlowFarneback(pair[0], pair[1], None, 0.5, 4, 25, 3, 7, 1.5, 0)  # type: ignore[call-overload]
    return float(np.median(flow[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4, 1]))


def press(page: Page, key: str, times: int = 1) -> None:
    """Press a key as a person does."""
    codes = {"Tab": 9, "ArrowRight": 39, " ": 32, "Enter": 13}
    text = {" ": {"text": " "}, "Enter": {"text": "\r"}}.get(key, {})
    for _ in range(times):
        for kind in ("keyDown", "keyUp"):
            given = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            page.call("Input.dispatchKeyEvent", **given, **(text if kind == "keyDown" else {}))
