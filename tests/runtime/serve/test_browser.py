"""The page in a real browser, with a made-up camera and microphone, on a real server."""

from __future__ import annotations

import asyncio
import base64
import http.client
import re
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.places import MEDIA
from support.serve.chromium import Chromium, Page, chromium, find_chromium, wait_for
from support.serve.serve_client import loopback_only  # noqa: F401
from support.serve.serve_listener import SIDE, nodding_listener

from pflx.runtime import load_portrait
from pflx.runtime.serve.app import listen, make_app, make_server
from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.peer import Peer
from pflx.runtime.serve.settings import ServeSettings

BINARY = find_chromium()
pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium is installed (or name one by PFLX_CHROMIUM)")

PORTRAIT = MEDIA / "portrait_astronaut_256.png"


class Server:
    """A server in a thread of its own, on a free port."""

    def __init__(self, **settings: Any) -> None:
        self.settings = ServeSettings(port=0, max_load=10, **settings)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
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

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        with listen(self.settings) as socket, nodding_listener(PORTRAIT) as listener:
            port = socket.getsockname()[1]
            self.lobby = Lobby({"nodding": listener}, load_portrait(PORTRAIT), self.settings)
            self._server = make_server(make_app(self.lobby, port))
            self.url = f"http://localhost:{port}/"
            self._ready.set()
            await self._server.serve(sockets=[socket])


def write_camera(path: Path) -> None:
    """Y4M, 320x240 at 25 fps: five seconds of the webcam clip."""
    with av.open(MEDIA / "webcam_cap12_12s.mp4") as clip, path.open("wb") as file:
        file.write(b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420jpeg\n")
        for number, frame in enumerate(clip.decode(video=0)):
            if number == 125:
                return
            picture = frame.reformat(width=320, height=240, format="yuv420p").to_ndarray()
            file.write(b"FRAME\n" + picture.tobytes())


def write_microphone(path: Path) -> None:
    """WAV, 48 kHz: a second and a half of silence and three of speech, again and again."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    with av.open(MEDIA / "podium_speech_8s.mp4") as clip:
        parts = [part.to_ndarray().ravel() for frame in clip.decode(audio=0) for part in resampler.resample(frame)]
    speech = np.concatenate(parts)[: 3 * 48_000]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(np.concatenate([np.zeros(72_000, np.int16), speech]).tobytes())


@dataclass
class Window:
    """A browser with a camera and a microphone, and a server."""

    server: Server
    browser: Chromium

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A new tab with the page in it. When it is closed, its session ends."""
        page = self.browser.new_page()
        page.call("Page.enable")
        page.resize((1280, 900))  # so wide that the video stays in view
        page.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH_POLICY)
        page.open(self.server.url)
        page.until("document.querySelector('#choice option, #form')")
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
            page.until(_IS_LIVE)
            yield page


_WATCH_POLICY = """
window.violations = [];
addEventListener('securitypolicyviolation', (event) => violations.push(event.blockedURI));
"""
_IS_LIVE = "document.getElementById('screen').dataset.state === 'live'"
_TRACKS = "document.getElementById('self').srcObject.getTracks().map((track) => track.id).join()"
_PATHS = ("/../settings.py", "/%2e%2e/settings.py", "/..%2f..%2fsettings.py", "//etc/passwd", "/page/index.html")
_NO_CAMERA = """
const all = navigator.mediaDevices, real = all.getUserMedia.bind(all), none = new DOMException('', 'NotFoundError');
all.getUserMedia = (wanted) => (wanted.video ? Promise.reject(none) : real(wanted));
"""
_UNPLUG_CAMERA = "document.getElementById('self').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))"
_CHOOSE_MICROPHONE = """
(() => {
  const list = document.getElementById('microphone');
  list.selectedIndex = (list.selectedIndex + 1) % list.options.length;
  list.dispatchEvent(new Event('change'));
})()
"""
_STATE = "document.getElementById('screen').dataset.state"
_SNAP = """
(() => {
  const video = document.getElementById('listener'), canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext('2d').drawImage(video, 0, 0);
  return canvas.toDataURL('image/png');
})()
"""
_PLAYED = """
new Promise((done) => {
  const video = document.getElementById('listener');
  let first = null;
  const look = (now, frame) => {
    first ??= frame;
    const seconds = frame.mediaTime - first.mediaTime;
    if (seconds < 2) video.requestVideoFrameCallback(look);
    else done([frame.presentedFrames - first.presentedFrames, seconds]);
  };
  video.requestVideoFrameCallback(look);
})
"""
_DECODED = """
(async () => {
  const video = document.getElementById('listener');
  const before = video.getVideoPlaybackQuality().totalVideoFrames, from = performance.now();
  await new Promise((done) => setTimeout(done, 2000));
  return (video.getVideoPlaybackQuality().totalVideoFrames - before) / (performance.now() - from) * 1000;
})()
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory, loopback_only: None) -> Iterator[Window]:  # noqa: F811
    folder = tmp_path_factory.mktemp("browser")
    write_camera(folder / "camera.y4m")
    write_microphone(folder / "microphone.wav")
    flags = [
        "--allow-loopback-in-peer-connection",
        f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
    ]
    assert BINARY is not None
    with Server() as server, chromium(BINARY, folder / "profile", flags) as browser:
        yield Window(server, browser)


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


def test_the_listener_shows_the_portrait_at_25_frames_a_second(window: Window) -> None:
    with window.live() as page:
        rates: list[float] = []
        while len(rates) < 5 and not any(
            24 <= rate <= 26 for rate in rates
        ):  # other work of the machine may disturb one
            frames, seconds = page.run(_PLAYED)
            rates.append(frames / seconds)
        assert any(24 <= rate <= 26 for rate in rates), rates
        assert any(24 <= page.run(_DECODED) <= 26 for _ in range(5))
        portrait = load_portrait(PORTRAIT, SIDE)
        wait_for(lambda: np.abs(snap(page).astype(float) - portrait).mean() < 12)  # between two nods


def test_the_listener_nods_when_the_visitor_speaks_and_is_still_when_muted(window: Window) -> None:
    with window.live() as page:
        rest = load_portrait(PORTRAIT, SIDE)
        wait_for(lambda: downward(rest, snap(page)) > 6)
        wait_for(lambda: downward(rest, snap(page)) < 1)
        page.click("mute")
        end = time.monotonic() + 6  # more than a round of the sound
        moved = []
        while time.monotonic() < end:
            moved.append((time.monotonic() - end + 6, downward(rest, snap(page))))
            time.sleep(0.05)
        assert max(abs(shift) for since, shift in moved if since > 1.5) < 1
        assert page.run("document.getElementById('mute').getAttribute('aria-pressed')") == "true"


def test_the_panel_shows_the_numbers_of_the_server(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, ...]] = []
    report = Peer.report

    def remember(peer: Peer) -> dict[str, Any]:
        message = report(peer)
        if (figures := message.get("figures")) is not None:
            counts = (str(figures.missed), f"of {figures.frames} frames; {message['missed']} since you began")
            sent.append((told(figures.reaction_ms), told(figures.age_ms), *counts, figures.rung.title()))
        return message

    def told(value: float | None) -> str:
        return "–" if value is None else f"{int(value + 0.5)} ms"

    monkeypatch.setattr(Peer, "report", remember)
    with window.live() as page:
        ids = "['reaction', 'age', 'missed', 'missed-more', 'rung']"
        read = f"{ids}.map((id) => document.getElementById(id).textContent)"
        page.until("document.getElementById('reaction').textContent !== '–'")
        for _ in range(3):
            time.sleep(0.6)
            shown = tuple(page.run(read))
            assert shown in sent, (shown, sent)
            assert sent.index(shown) >= len(sent) - 3
        page.until("parseFloat(document.getElementById('network').textContent) >= 0")
        page.until("Math.abs(parseFloat(document.getElementById('fps').textContent) - 25) < 3")


def test_a_portrait_is_shown_from_the_first_frame_on_and_may_change(window: Window, tmp_path: Path) -> None:
    red, blue, broken = (tmp_path / name for name in ("red.png", "blue.jpg", "broken.png"))
    Image.new("RGB", (300, 200), (220, 20, 20)).save(red)
    Image.new("RGB", (200, 300), (20, 20, 220)).save(blue)
    broken.write_bytes(b"no picture")
    with window.live(lambda page: page.choose_file("portrait", red)) as page:
        assert snap(page)[..., 0].mean() > 180 > 80 > snap(page)[..., 2].mean()
        page.choose_file("portrait", blue)
        wait_for(lambda: snap(page)[..., 2].mean() > 180)
        page.choose_file("portrait", broken)
        page.until("document.getElementById('portrait-help').textContent.includes('Save it as JPEG, PNG or WebP')")
        assert page.run(_STATE) == "live"


def test_all_of_it_works_from_the_keyboard(window: Window) -> None:
    with window.page() as page:
        seen = []
        for _ in range(20):
            press(page, "Tab")
            seen.append(page.run("document.activeElement.id || document.activeElement.tagName"))
        assert {"go", "portrait", "lookahead", "playout", "SUMMARY"} <= set(seen)
        page.run("document.getElementById('go').focus()")
        press(page, "Enter")
        page.until(_IS_LIVE)
        page.run("document.getElementById('playout').focus()")
        press(page, "ArrowRight", 2)
        page.run("document.getElementById('lookahead').focus()")
        press(page, "ArrowRight")
        assert page.text("playout-value") == "120 ms"
        assert page.text("lookahead-value") == "6 frames, 240 ms"
        page.until("document.getElementById('playout-used').textContent === '120 ms'")
        page.until("document.getElementById('algorithmic').textContent === '560 ms'")
        page.run("document.querySelector('#samples input').focus()")
        press(page, "ArrowRight")
        page.until(f"document.getElementById('listener').videoWidth === {2 * SIDE}")
        page.run("document.getElementById('go').focus()")
        press(page, " ")
        wait_for(lambda: not window.server.lobby.peers)


def test_everything_has_a_name_for_a_screen_reader(window: Window) -> None:
    with window.live() as page:
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", []))
        ]
        controls = [(role, name) for role, name in named if role != "RootWebArea"]
        assert len(controls) > 8
        assert all(name for _, name in controls), controls
        roles = {role for role, _ in controls}
        assert {"button", "slider", "combobox", "radio"} <= roles
        assert page.run("document.querySelectorAll('main, h1, [aria-live=polite], [role=alert]').length") == 4
        assert page.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_and_can_be_read(window: Window, width: int, dark: bool) -> None:
    with window.page() as page:
        page.screenshot(size=(width, 800), dark=dark)
        assert page.run("document.documentElement.scrollWidth") <= width
        small = (
            "[...document.querySelectorAll('button, select, .button, .segments label')].filter((e) => e.offsetParent)"
        )
        assert page.run(f"Math.min(...{small}.map((e) => e.getBoundingClientRect().height))") >= 44
        style = "getComputedStyle(document.documentElement).getPropertyValue"
        colours = {
            name: page.run(f"{style}('--{name}')") for name in ("paper", "card", "ink", "soft", "accent", "on-accent")
        }
        pairs = [(text, ground) for text in ("ink", "soft") for ground in ("paper", "card")] + [("on-accent", "accent")]
        assert min(contrast(colours[text], colours[ground]) for text, ground in pairs) >= 4.5
        assert (luminance(colours["paper"]) < 0.2) == dark


def luminance(colour: str) -> float:
    """Of a colour #rrggbb. Source: WCAG 2.2, relative luminance."""
    shares = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    """Source: WCAG 2.2, contrast ratio."""
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_nothing_is_asked_of_anybody_else_and_the_policy_is_kept(window: Window) -> None:
    with window.live() as page:
        asked = page.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert asked
        assert all(re.match(r"(http://localhost:\d+/|blob:http://localhost:)", address) for address in asked), asked
        assert page.run("violations") == []


@pytest.mark.parametrize("reason", ["The network was lost.", ""])
def test_a_connection_that_is_lost_is_made_again(window: Window, reason: str) -> None:
    with window.live() as page:
        (peer,) = window.server.lobby.peers.values()
        window.server.run(peer.close(reason))
        page.until(f"{_STATE} !== 'live'")
        page.until(_IS_LIVE)
        (again,) = window.server.lobby.peers.values()
        assert again is not peer


def test_another_microphone_or_camera_goes_on_over_the_same_connection(window: Window) -> None:
    with window.live() as page:
        (id,) = window.server.lobby.peers
        page.until("!document.getElementById('microphone').disabled")
        for happens in (_CHOOSE_MICROPHONE, _UNPLUG_CAMERA):
            tracks = page.run(_TRACKS)
            page.run(happens)
            page.until(f"{_TRACKS} !== '{tracks}'")
            assert page.run(_DECODED) > 5
        assert list(window.server.lobby.peers) == [id]
        assert page.run(_STATE) == "live"


def test_a_visitor_without_a_camera_is_heard(window: Window) -> None:
    with window.live(lambda page: page.run(_NO_CAMERA)) as page:
        assert [page.run(_DECODED) > 5, page.run("document.getElementById('self').hidden")] == [True, True]


def test_a_page_that_slept_connects_again_when_it_wakes_up(window: Window) -> None:
    with Server(patience_s=1) as server, Window(server, window.browser).live() as page:
        (slept,) = server.lobby.peers
        page.call("Page.setWebLifecycleState", state="frozen")
        server.run(server.lobby.peers[slept].close("Nothing was heard of this page for a while."))
        assert not server.lobby.peers
        page.call("Page.setWebLifecycleState", state="active")
        wait_for(lambda: server.lobby.peers)
        page.until(_IS_LIVE)


def test_a_page_without_a_place_waits_for_one(window: Window) -> None:
    with Server(max_sessions=1) as server:
        small = Window(server, window.browser)
        with small.live() as first, small.page() as second:
            second.click("go")
            second.until(f"{_STATE} === 'full'")
            assert "The only place is taken." in second.text("notice-text")
            assert second.run("document.getElementById('notice').getAttribute('role')") == "alert"
            first.click("go")
            wait_for(lambda: not server.lobby.peers)
            second.click("notice-button")
            second.until(_IS_LIVE)


def test_a_visitor_signs_in_with_the_token(window: Window) -> None:
    with Server(token="a token of some length") as server, Window(server, window.browser).page() as page:
        assert page.run("location.pathname") == "/sign-in"
        for token in ("wrong", "a token of some length"):
            page.run(f"document.getElementById('token').value = {token!r}")
            page.run("document.querySelector('button').click()")
            if token == "wrong":
                page.until("document.getElementById('problem').textContent === 'This is not the token.'")
        page.until("location.pathname === '/' && document.querySelector('#choice option')")


def test_raw_paths_reach_no_file(window: Window) -> None:
    host = window.server.url.removeprefix("http://").rstrip("/")
    with ExitStack() as closing:
        connection = http.client.HTTPConnection(host, timeout=10)
        closing.callback(connection.close)
        for path in _PATHS:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, b"import" in answer.read()) == (404, False)
