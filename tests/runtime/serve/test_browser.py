"""The page in a real browser, with a made-up camera and microphone, on a real server."""

from __future__ import annotations

import http.client
import re
import time
from contextlib import ExitStack

import numpy as np
import pytest
from support.serve.chromium import wait_for
from support.serve.serve_listener import SIDE
from support.serve.window import IS_LIVE, PORTRAIT, STATE, Server, Window, downward, snap

from pflx.runtime import load_portrait

_TRACKS = "document.getElementById('self').srcObject.getTracks().map((track) => track.id).join()"
_PATHS = ("/../settings.py", "/%2e%2e/settings.py", "/..%2f..%2fsettings.py", "//etc/passwd", "/page/index.html")
_UNPLUG_CAMERA = "document.getElementById('self').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))"
_CHOOSE_MICROPHONE = """
(() => {
  const list = document.getElementById('microphone');
  list.selectedIndex = (list.selectedIndex + 1) % list.options.length;
  list.dispatchEvent(new Event('change'));
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


def test_the_listener_nods_when_the_visitor_speaks_and_is_still_until_unmuted(window: Window) -> None:
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
        assert (page.text("mute").strip(), page.text("heard")) == ("Unmute", "You are muted")
        page.click("mute")
        assert page.text("mute").strip() == "Mute"
        wait_for(lambda: downward(rest, snap(page)) > 6)


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
        page.until(f"{STATE} !== 'live'")
        page.until(IS_LIVE)
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
        assert page.run(STATE) == "live"


def test_a_page_that_slept_connects_again_when_it_wakes_up(window: Window) -> None:
    with Server(patience_s=1) as server, Window(server, window.browser).live() as page:
        (slept,) = server.lobby.peers
        page.call("Page.setWebLifecycleState", state="frozen")
        server.run(server.lobby.peers[slept].close("Nothing was heard of this page for a while."))
        assert not server.lobby.peers
        page.call("Page.setWebLifecycleState", state="active")
        wait_for(lambda: server.lobby.peers)
        page.until(IS_LIVE)


def test_a_page_without_a_place_waits_for_one(window: Window) -> None:
    with Server(max_sessions=1) as server:
        small = Window(server, window.browser)
        with small.live() as first, small.page() as second:
            second.click("go")
            second.until(f"{STATE} === 'full'")
            assert "The only place is taken." in second.text("notice-text")
            assert second.run("document.getElementById('notice').getAttribute('role')") == "alert"
            first.click("go")
            wait_for(lambda: not server.lobby.peers)
            second.click("notice-button")
            second.until(IS_LIVE)


def test_raw_paths_reach_no_file(window: Window) -> None:
    host = window.server.url.removeprefix("http://").rstrip("/")
    with ExitStack() as closing:
        connection = http.client.HTTPConnection(host, timeout=10)
        closing.callback(connection.close)
        for path in _PATHS:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, b"import" in answer.read()) == (404, False)
