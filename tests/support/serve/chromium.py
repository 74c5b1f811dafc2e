"""A headless Chromium, driven by its DevTools protocol over two pipes: no driver, no port, no package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-default-browser-check",
    "--mute-audio",
    "--remote-debugging-pipe",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)

_PUT_PIPES = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads commands at 3 and answers at 4."""


class BrowserError(Exception):
    """The browser said no, or nothing in time."""


def find_chromium() -> str | None:
    """Where the browser is; `PFLX_CHROMIUM` names another one."""
    return os.environ.get("PFLX_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Go to an address, and wait for the page."""
        self.call("Page.enable")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, expression: str) -> Any:
        """What an expression comes to; a promise is waited for."""
        given = {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.call("Runtime.evaluate", **given)
        if "exceptionDetails" in answer:
            raise BrowserError(answer["exceptionDetails"].get("exception", {}).get("description", answer))
        return answer["result"].get("value")

    def until(self, expression: str, timeout_s: float = 20) -> None:
        """Wait until an expression comes to something true."""
        end = time.monotonic() + timeout_s
        while not self.run(f"Boolean({expression})"):
            if time.monotonic() > end:
                raise BrowserError(
                    f"Not true after {timeout_s:g} s: {expression}\n{self.run('document.body.innerText')}"
                )
            time.sleep(0.05)

    def text(self, id: str) -> str:
        """What an element shows."""
        return str(self.run(f"document.getElementById({id!r}).textContent"))

    def click(self, id: str) -> None:
        """Press a button."""
        self.run(f"document.getElementById({id!r}).click()")

    def choose_file(self, id: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=f"#{id}")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def resize(self, size: tuple[int, int], scale: float = 1) -> bool:
        """Make the tab so wide and high; whether it is a telephone's then."""
        mobile = size[0] < 600
        given = {"width": size[0], "height": size[1], "deviceScaleFactor": scale, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **given)
        return mobile

    def screenshot(self, *, size: tuple[int, int], dark: bool = False, scale: float = 1) -> bytes:
        """PNG of the whole page in a window of that width."""
        mobile = self.resize(size, scale)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        time.sleep(0.4)
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=mobile)["data"])


class Chromium:
    """The process, and what is asked of it."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._number, self._buffer = 0, b""

    def new_page(self) -> Page:
        """A tab of its own."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        return Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """One command of the protocol; what happens meanwhile is passed over."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            came = os.read(self._back, 1 << 20)
            if not came:
                raise BrowserError(f"The browser has ended with {self._process.poll()}.")
            self._buffer += came
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextmanager
def chromium(binary: str, profile: Path, flags: Sequence[str] = ()) -> Iterator[Chromium]:
    """The browser, with a profile of its own; it ends with the block."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    call = [binary, *_FLAGS, f"--user-data-dir={profile}", *flags, "about:blank"]
    command = [sys.executable, "-c", _PUT_PIPES, str(theirs_in), str(theirs_out), *call]
    process = subprocess.Popen(
        command,
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Chromium(process, ours_out, ours_in)
    try:
        yield browser
    finally:
        _end(browser, process)
        os.close(ours_out)
        os.close(ours_in)


def _end(browser: Chromium, process: subprocess.Popen[bytes]) -> None:
    try:
        browser.call("Browser.close")
        process.wait(5)
    except (BrowserError, OSError, subprocess.TimeoutExpired):
        process.kill()
        process.wait(5)


def wait_for(what: Callable[[], object], timeout_s: float = 20) -> None:
    """Wait for something in this process to come true."""
    end = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > end:
            raise BrowserError(f"Not true after {timeout_s:g} s.")
        time.sleep(0.02)
