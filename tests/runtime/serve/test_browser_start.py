"""How a page begins, in a real browser: the portrait at rest, camera and microphone, who is let in, the address."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.serve.chromium import Page, wait_for
from support.serve.serve_listener import SIDE, nodding_listener, slow
from support.serve.window import IS_LIVE, PORTRAIT, STATE, Server, Window, snap

from pflx.runtime.serve.peer import Peer

_REFUSE = """
const all = navigator.mediaDevices, real = all.getUserMedia.bind(all);
window.asked = [];
all.getUserMedia = (wanted) => {
  asked.push(Object.keys(wanted).sort().join());
  return wanted.%s ? Promise.reject(new DOMException('', '%s')) : real(wanted);
};
"""
_HESITATE = "navigator.mediaDevices.getUserMedia = () => new Promise((done) => { window.answer = done; })"
_AT_REST = """
fetch(document.querySelector('#stills img').src).then((answer) => answer.blob()).then((blob) => new Promise((done) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.readAsDataURL(blob);
}))
"""
_LOSE_GOODBYES = """
const screen = document.getElementById('screen');
window.states = [];
new MutationObserver(() => states.push(screen.dataset.state)).observe(screen, { attributeFilter: ['data-state'] });
WebSocket.prototype.close = () => {};
"""
_BOX = "JSON.stringify(document.querySelector('%s').getBoundingClientRect())"


def refuse(device: str, reason: str) -> Callable[[Page], object]:
    """Have the browser give no such device."""
    return lambda page: page.run(_REFUSE % (device, reason))


def at_rest(page: Page) -> npt.NDArray[np.uint8]:
    """The picture of the listener while nobody is connected, uint8 [H, W, 3]."""
    content = base64.b64decode(page.run(_AT_REST).partition(",")[2])
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"), np.uint8)


def test_the_picture_does_not_jump_when_the_listener_comes_and_goes(window: Window) -> None:
    with window.page() as page:
        rest = at_rest(page)
        assert rest.shape == (SIDE, SIDE, 3)
        page.click("go")
        page.until(IS_LIVE)
        wait_for(lambda: np.abs(snap(page).astype(float) - rest).mean() < 8)  # between two nods
        assert page.run(_BOX % "#stills img") == page.run(_BOX % "#listener")
        page.run("new Promise((done) => setTimeout(done, 500))")  # it has faded in
        page.click("go")
        video = "document.getElementById('listener')"
        assert page.run(f"[getComputedStyle({video}).opacity > 0.5, !!{video}.srcObject]") == [True, True]
        page.until("!document.getElementById('listener').srcObject")


@pytest.mark.parametrize("reason", ["NotAllowedError", "NotFoundError", "NotReadableError"])
def test_a_visitor_without_a_camera_is_heard(window: Window, reason: str) -> None:
    with window.live(refuse("video", reason)) as page:
        assert page.run("asked") == ["audio,video", "audio"]
        said = {
            "NotAllowedError": "was not allowed",
            "NotFoundError": "There is no camera",
            "NotReadableError": "in use",
        }
        assert said[reason] in page.text("said")
        assert "It listens to your voice." in page.text("said")
        assert page.run("document.getElementById('self-view').hidden") is True
        page.until("document.getElementById('heard').textContent === 'I hear you'")


def test_a_visitor_without_a_microphone_is_seen(window: Window) -> None:
    with window.live(refuse("audio", "NotAllowedError")) as page:
        assert "It sees you, and hears nothing." in page.text("said")
        assert page.run("[document.getElementById('mute').disabled, document.getElementById('self-view').hidden]") == [
            True,
            False,
        ]


def test_without_either_the_page_says_how_to_allow_them(window: Window) -> None:
    with window.page() as page:
        page.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
        page.click("go")
        page.until(f"{STATE} === 'failed'")
        assert "Allow it by the symbol beside the address" in page.text("notice-text")
        assert page.text("go").strip() == "Start"
        page.run("delete navigator.mediaDevices.getUserMedia")
        page.click("notice-button")
        page.until(IS_LIVE)


def test_voice_only_asks_for_no_camera_and_the_camera_may_come_later(window: Window) -> None:
    with window.page() as page:
        page.run(_REFUSE % ("none", ""))
        page.click("voice")
        page.until(IS_LIVE)
        assert page.run("asked") == ["audio"]
        assert page.run("location.hash") == "#voice"
        assert page.run("document.getElementById('see').getAttribute('aria-pressed')") == "false"
        for pressed in ("true", "false"):
            page.click("see")
            page.until(f"document.getElementById('see').getAttribute('aria-pressed') === '{pressed}' && {IS_LIVE}")
            assert page.run("document.getElementById('self-view').hidden") == (pressed == "false")
        page.click("go")
        assert page.text("voice") == "With camera"


def test_a_visitor_is_told_that_the_browser_asks(window: Window) -> None:
    with window.page() as page:
        page.run(_HESITATE)
        page.click("go")
        page.until(f"{STATE} === 'asking'")
        assert page.text("notice-title") == "Your browser asks for camera and microphone"
        buttons = "[...document.querySelectorAll('#controls button')].filter((each) => each.offsetParent)"
        assert page.run(f"{buttons}.map((each) => each.id)") == ["go"]
        page.click("notice-button")
        page.until(f"{STATE} === 'idle'")
        assert page.run("document.getElementById('notice').hidden") is True


def test_who_is_alone_is_let_in_however_busy_the_computer_and_the_next_one_is_told(window: Window) -> None:
    busy = Server(lambda: nodding_listener(PORTRAIT, before=slow(lambda: 0.016)), max_load=0.05)
    with busy as server, Window(server, window.browser).live(), Window(server, window.browser).page() as second:
        second.click("go")
        second.until(f"{STATE} === 'full'")
        assert second.text("notice-title") == "This computer is too busy"
        assert "Fewer listeners side by side" in second.text("notice-text")


def test_settings_for_which_there_is_no_time_are_taken_back(window: Window) -> None:
    with window.live() as page:
        (id,) = window.server.lobby.peers
        answers = iter([0.0, None])  # of its time: nothing for the new settings, anything for the old
        window.server.lobby.peers[id]._allowed = lambda listener: next(answers)
        page.run("document.querySelectorAll('#samples input')[2].click()")
        page.until("document.getElementById('said').textContent.includes('no time for that')")
        assert page.run("document.querySelector('#samples :checked').value") == "1"
        assert page.run("location.hash") == ""
        assert page.run(STATE) == "live"
        assert list(window.server.lobby.peers) == [id]


def test_ones_own_session_of_before_does_not_keep_one_out(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "_on_state", lambda peer: None)  # as when nothing is heard of the page's end
    with Server(max_sessions=1) as server, Window(server, window.browser).live() as page:
        (before,) = server.lobby.peers
        page.run(_LOSE_GOODBYES)
        page.run("import('/scripts/connection.js').then((module) => module.again())")
        wait_for(lambda: list(server.lobby.peers) not in ([before], []))
        page.until(IS_LIVE)
        assert len(server.lobby.peers) == 1
        assert "full" not in page.run("states")
        page.run("location.reload()")
        page.until(
            "WebSocket.prototype.close.toString().includes('native') && document.querySelector('#choice option')"
        )
        page.click("go")
        page.until(f"{IS_LIVE} || {STATE} === 'full'")
        assert page.run(STATE) == "live"


def test_the_address_keeps_the_settings(window: Window) -> None:
    with window.page("#samples=2&playout=150&portrait=green&nonsense=1&lookahead=99") as page:
        wish = "import('/scripts/state.js').then(({ state }) => state.wish)"
        expected: dict[str, Any] = {"listener": 0, "samples": 2, "lookahead": 5, "playout_ms": 150, "person": 0}
        assert page.run(wish) == expected
        assert page.run("document.querySelector('#portraits :checked').getAttribute('aria-label')") == "green"
        page.click("go")
        page.until(IS_LIVE)
        assert page.run("document.getElementById('listener').videoWidth") == 2 * SIDE
        green = snap(page).reshape(-1, 3).mean(axis=0)
        assert green[1] - green[0] > 60
        page.run("document.querySelectorAll('#samples input')[0].click()")
        page.run("document.querySelectorAll('#portraits input')[0].click()")
        assert page.run("location.hash") == "#playout=150"
