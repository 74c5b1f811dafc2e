"""A line that becomes too narrow for the listener's video: what the server sends, and what a browser shows of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from aiortc import RTCPeerConnection
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.rtp import RTCP_RTPFB_NACK, RtcpRtpfbPacket
from support.serve.bad_network import BadNetwork, bad_network
from support.serve.chromium import wait_for
from support.serve.window import IS_LIVE, Server, Window

from pflx.runtime.builtin import DEMO
from pflx.runtime.rendering.portrait import load_picture
from pflx.runtime.serve.network.narrow import LEAST_BPS, REPAIR_S, spare_the_line
from pflx.runtime.serve.peer import Peer
from pflx.runtime.serve.settings import ServedListener

KBIT_PER_S = 300
LONGEST_FREEZE_S = 0.5
TRIES = 3
"""A machine that is busy otherwise stops the browser, too."""
LARGEST_SKEW_MS = 80
"""Between the visitor's sound and picture; see `test_bad_network`."""

_KEEP_PEERS = """
window.peers = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); peers.push(this); }
};
"""
_WATCH = """
(() => {
  const video = document.getElementById('listener');
  window.came = [];
  const next = () => { came.push(performance.now() / 1000); video.requestVideoFrameCallback(next); };
  next();
})()
"""
_RECEIVED = """
(async () => {
  const entries = [...(await peers.at(-1).getStats()).values()];
  const { framesReceived, packetsLost } = entries.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
  return [framesReceived, packetsLost];
})()
"""


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadNetwork]:
    """Between the server of this process and whoever comes next."""
    take_offer, answer = Peer.take_offer, Peer.answer
    with bad_network() as found:

        async def offered(peer: Peer, sdp: str) -> None:
            await take_offer(peer, found.offered(sdp))

        async def answered(peer: Peer) -> str:
            return found.answered(await answer(peer))

        monkeypatch.setattr(Peer, "take_offer", offered)
        monkeypatch.setattr(Peer, "answer", answered)
        found.weather.delay_s = 0.02
        yield found


def kbit_per_s(network: BadNetwork, seconds: float) -> float:
    """That the server sends."""
    begun, before = time.monotonic(), network.down.came
    time.sleep(seconds)
    return (network.down.came - before) * 8 / 1000 / (time.monotonic() - begun)


def longest(moments: list[float]) -> float:
    """Time between two of these moments."""
    return max(later - earlier for earlier, later in pairwise(moments))


@pytest.mark.slow
def test_where_little_comes_through_the_server_sends_less_and_a_browser_goes_on_showing_pictures(
    network: BadNetwork, window: Window
) -> None:
    portrait = load_picture(DEMO / "portrait.png")
    with (
        Server(lambda: ServedListener(None, portrait).open(), {"portrait": portrait}) as server,
        Window(server, window.browser).page(first=_KEEP_PEERS) as page,
    ):
        page.click("go")
        page.until(IS_LIVE)
        (peer,) = server.lobby.peers.values()
        session = peer.session
        assert session is not None
        page.run(_WATCH)
        assert kbit_per_s(network, 3) > 1.3 * KBIT_PER_S
        assert not network.down.crowded_out
        freezes_s, skews_ms = [LONGEST_FREEZE_S], [0.0]
        while freezes_s[-1] >= LONGEST_FREEZE_S and len(freezes_s) <= TRIES:
            network.weather.kbit_per_s = None
            page.run("new Promise((then) => setTimeout(then, 2000)).then(() => came.length = 0)")
            network.weather.kbit_per_s = KBIT_PER_S
            sent, end = [time.monotonic()], time.monotonic() + 6
            while time.monotonic() < end:
                before = peer.screen.sent
                time.sleep(0.01)
                skews_ms.append(session.stats.av_offset_ms)
                sent += [time.monotonic()] * (peer.screen.sent > before)
            assert network.down.crowded_out  # so narrow was it
            freezes_s.append(longest(page.run("came")) - longest(sent))  # beyond those of the server itself
        received, before = page.run(_RECEIVED)[0], peer.screen.sent
        assert kbit_per_s(network, 3) < 1.1 * KBIT_PER_S  # which the server has learnt from what the browser reports
        assert page.run(_RECEIVED)[0] - received > 0.8 * (peer.screen.sent - before)
        assert freezes_s[-1] < LONGEST_FREEZE_S
        assert max(map(abs, skews_ms)) < LARGEST_SKEW_MS
        # The panel: of the pictures that it says were sent, none is missing but those of which a packet is.
        network.weather.kbit_per_s = None
        told = peer.report()
        received, lost = page.run(_RECEIVED)
        wait_for(lambda: page.run(_RECEIVED)[0] >= told["emitted"] - told["unsent"] - lost)
        assert received <= peer.screen.sent
        page.until(f"document.getElementById('unsent').textContent === '{peer.screen.dropped}'")


def test_a_packet_that_is_asked_for_again_and_again_is_repeated_now_and_then() -> None:
    async def act() -> None:
        sender = RTCPeerConnection().addTransceiver("video").sender
        repeated, now = list[int](), [100.0]

        async def repeat(sequence_number: int) -> None:
            repeated.append(sequence_number)

        setattr(sender, "_retransmit", repeat)  # noqa: B010 - what aiortc has for it
        spare_the_line(sender, lambda: now[0])
        asked = RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=2, lost=[7, 8])
        await sender._handle_rtcp_packet(asked)
        await sender._handle_rtcp_packet(asked)
        asked.lost = [8, 9, 135]  # which is where 7 was
        await sender._handle_rtcp_packet(asked)
        assert repeated == [7, 8, 9, 135]
        now[0] += REPAIR_S
        await sender._handle_rtcp_packet(asked)
        assert repeated == [7, 8, 9, 135, 8, 9, 135]

    asyncio.run(act())


def test_the_rate_of_the_video_goes_down_as_far_as_a_face_can_still_be_seen() -> None:
    async def act() -> None:
        spare_the_line(RTCPeerConnection().addTransceiver("video").sender)
        encoder = Vp8Encoder()
        encoder.target_bitrate = 10_000
        assert encoder.target_bitrate == LEAST_BPS == 100_000

    asyncio.run(act())
