"""What there is to a conversation, in a real browser: meter, events, figures, portraits, one's own picture, a clip."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.serve.chromium import Page, wait_for
from support.serve.serve_listener import SIDE
from support.serve.window import IS_LIVE, STATE, Window, snap

from pflx.runtime.frames.event import Event
from pflx.runtime.serve.peer import Peer

_DROP = """
(async () => {
  const canvas = new OffscreenCanvas(200, 100), pen = canvas.getContext('2d'), data = new DataTransfer();
  pen.fillStyle = '#2030d0';
  pen.fillRect(0, 0, 200, 100);
  data.items.add(new File([await canvas.convertToBlob()], 'blue.png', { type: 'image/png' }));
  const given = { dataTransfer: data, bubbles: true, cancelable: true };
  const give = (type) => document.body.dispatchEvent(new DragEvent(type, given));
  give('dragenter');
  const told = document.body.classList.contains('dropping');
  give('drop');
  return told && !document.body.classList.contains('dropping');
})()
"""
_FIGURES = """
['total', 'reaction', 'network', 'buffer'].map((id) => parseFloat(document.getElementById(id).textContent))
"""
_ASKED = "performance.getEntriesByType('resource').filter(({ name }) => !name.startsWith('blob:')).length"
_CENTRE = """
(() => {
  const [box, all] = ['self-view', 'screen'].map((id) => document.getElementById(id).getBoundingClientRect());
  const across = (box.x + box.width / 2 - all.x) / all.width, down = (box.y + box.height / 2 - all.y) / all.height;
  return [across, down, box.x + 9, box.y + 9];
})()
"""


def test_the_meter_says_that_the_visitor_is_heard(window: Window) -> None:
    with window.live() as page:
        page.until("document.getElementById('heard').textContent === 'I hear you'")
        page.until("document.getElementById('meter').style.getPropertyValue('--level') > 0.4")
        page.until("document.getElementById('heard').textContent === 'I am listening'")


def test_what_the_listener_does_is_told_with_its_reason_and_when_it_could_be_seen(window: Window) -> None:
    with window.live(lambda page: page.run("localStorage.removeItem('pflx-met')")) as page:
        assert page.text("answer") == "Say something, then pause: it nods."
        (peer,) = window.server.lobby.peers.values()
        page.until("document.getElementById('heard').textContent === 'I hear you'")
        page.until("document.getElementById('heard').textContent === 'I am listening'")  # 0.8 s after the last word
        window.server.run(told(peer, Event("blink", 1.0, 25)))
        window.server.run(told(peer, Event("nod", 1.0, 25, "pause", 6.0, 0.4)))
        page.until("document.getElementById('answer').textContent === 'Nodded: you paused'")
        after = float(page.text("visible").removesuffix(" s"))
        assert 0.8 <= after <= 6  # as long as it takes this machine; the words ended 0.8 s before the nod at least
        assert page.text("visible-more") == "from the end of your words"
        marks = page.run(
            "import('/scripts/strip.js').then(({ marks }) => marks.map(({ kind, cause }) => [kind, cause !== null]))"
        )
        assert marks == [["blink", False], ["nod", True]]  # each once, though told with the figures again
        time.sleep(1)
        assert page.run("import('/scripts/strip.js').then(({ marks }) => marks.length)") == 2
        window.server.run(told(peer, Event("smile", 2.0, 50, "face")))
        page.until("document.getElementById('answer').textContent === 'Smiled: you smiled'")
    with window.live() as page:
        assert page.text("answer") == ""


async def told(peer: Peer, event: Event) -> None:
    """A listener does something."""
    peer.tell([event])


def test_the_first_figure_is_all_of_the_way(window: Window) -> None:
    with window.live() as page:
        page.until("document.getElementById('total').textContent !== '–'")
        for _ in range(3):
            time.sleep(0.6)
            total, *parts = page.run(_FIGURES)
            assert total == pytest.approx(sum(parts) / 1000, abs=0.008)  # all of them are rounded
        page.click("go")
        assert [page.text(id) for id in ("total", "visible", "fps")] == ["–"] * 3


def test_a_portrait_of_the_server_is_chosen_by_a_click(window: Window) -> None:
    with window.live() as page:
        page.run("document.querySelector('#portraits input[aria-label=green]').click()")
        wait_for(lambda: np.ptp(snap(page).reshape(-1, 3).mean(axis=0)) > 60)
        assert page.run("location.hash") == "#portrait=green"
        assert page.run("document.querySelector('#stills img').src").endswith("/stills/0/1.png")


def test_a_picture_is_dropped_on_the_page(window: Window) -> None:
    with window.page() as page:
        assert page.run(_DROP) is True
        page.until("document.querySelector('#portraits :checked').getAttribute('aria-label') === 'blue.png'")
        assert page.run("document.querySelector('#stills img').naturalWidth") == SIDE  # cut as the listener has it
        page.click("go")
        page.until(IS_LIVE)
        assert snap(page)[..., 2].mean() > 150 > 80 > snap(page)[..., 0].mean()


def test_the_visitors_own_picture_goes_where_it_is_put(window: Window) -> None:
    with window.live() as page:
        assert page.run("document.getElementById('self-view').dataset.corner") == "bottom-left"
        page.click("self-view")
        assert page.run("document.getElementById('self-view').dataset.corner") == "bottom-right"
        page.run("new Promise((done) => setTimeout(done, 400))")
        across, down, x, y = page.run(_CENTRE)
        assert min(across, down) > 0.7
        for kind, at in (
            ("mousePressed", (x, y)),
            ("mouseMoved", (x - 80, y - 300)),
            ("mouseMoved", (x - 90, y - 320)),
        ):
            page.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", buttons=1, clickCount=1)
        page.call("Input.dispatchMouseEvent", type="mouseReleased", x=x - 90, y=y - 320, button="left", clickCount=1)
        assert page.run("document.getElementById('self-view').dataset.corner") == "top-right"
        page.until("document.getElementById('self-view').classList.contains('small')")


def test_the_face_fills_the_screen_and_comes_back(window: Window) -> None:
    with window.live() as page:
        page.click("full-screen")
        page.until("document.fullscreenElement?.id === 'view'")
        page.until("document.getElementById('full-screen').innerText.trim() === 'Smaller'")
        page.click("full-screen")
        page.until("!document.fullscreenElement")
        page.until("document.getElementById('full-screen').innerText.trim() === 'Enlarge'")


def test_a_clip_is_recorded_in_the_browser_and_nowhere_else(window: Window) -> None:
    with window.live() as page:
        asked = page.run(_ASKED)
        page.click("record")
        page.until("!document.getElementById('recording').hidden")
        page.until("document.getElementById('recording-time').textContent === '0:02'")
        page.click("record")
        page.until("document.getElementById('clip').open && document.getElementById('clip-video').readyState >= 2")
        assert page.run("document.getElementById('clip-video').videoWidth") == 512
        page.run("document.getElementById('clip-video').currentTime = 1e6")  # its length is not in its head
        page.until("document.getElementById('clip-video').currentTime > 1.5")
        link = page.run("(({ href, download }) => [href, download])(document.getElementById('clip-save'))")
        assert link[0].startswith("blob:")
        assert link[1].startswith("listener-")
        page.click("clip-close")
        page.until("!document.getElementById('clip').open && !document.getElementById('clip-video').src")
        assert page.run(_ASKED) == asked
        assert page.run("violations") == []
        assert page.run(STATE) == "live"


def test_the_panel_shows_the_numbers_of_the_server(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, ...]] = []
    report = Peer.report

    def remember(peer: Peer) -> dict[str, Any]:
        message = report(peer)
        if (figures := message.get("figures")) is not None:
            counts = f"{figures.missed} of {figures.frames}; {message['missed']} since you began"
            sent.append((shown_as(figures.reaction_ms), shown_as(figures.age_ms), counts))
        return message

    def shown_as(value: float | None) -> str:
        return "–" if value is None else f"{int(value + 0.5)} ms"

    monkeypatch.setattr(Peer, "report", remember)
    with window.live() as page:
        ids = "['reaction', 'age', 'missed']"
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
    with window.live(lambda page: choose(page, red)) as page:
        assert snap(page)[..., 0].mean() > 180 > 80 > snap(page)[..., 2].mean()
        page.choose_file("portrait", blue)
        wait_for(lambda: snap(page)[..., 2].mean() > 180)
        page.choose_file("portrait", broken)
        page.until("document.getElementById('portrait-help').textContent.includes('Save it as JPEG, PNG or WebP')")
        assert page.run(STATE) == "live"
        assert page.run("document.querySelector('#portraits :checked').getAttribute('aria-label')") == "blue.jpg"


def choose(page: Page, path: Path) -> None:
    """A picture of the visitor's own, before the start."""
    page.choose_file("portrait", path)
    page.until(f"document.querySelector('#portraits :checked').getAttribute('aria-label') === '{path.name}'")


def test_what_is_wrong_with_a_picture_is_told_at_once_and_aloud(window: Window, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with window.page() as page:
        page.choose_file("portrait", broken)
        page.until("document.getElementById('portrait-help').textContent.includes('Save it as JPEG, PNG or WebP')")
        told = "document.getElementById('portrait-help').closest('[aria-live=polite], [role=alert]') !== null"
        assert page.run(told) is True
        assert page.run("document.querySelector('#portraits :checked').getAttribute('aria-label')") == "astronaut"
