"""Visitors on a real WebRTC connection, without a browser: what they see, set, and how it ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest.mock import create_autospec

import av
import numpy as np
import pytest
from aiortc import RTCRtpSender
from aiortc.mediastreams import AudioStreamTrack
from PIL import Image
from support.fakes import ONE_FACE, Failing, fake_engines, fake_listener, portrait_of
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.scene import GREY, PORTRAIT, RED, Scene, is_red, plain, play, threads, told_last
from support.serve.serve_client import (
    WISH,
    Camera,
    Visitor,
    loopback_only,  # noqa: F401
    packed,
    shape_of,
    until,
)
from support.serve.serve_listener import SIDE, moved, nodding_listener

from pflx.runtime import Face, Listener
from pflx.runtime.frames.event import Event
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.rendering.portrait import load_whole
from pflx.runtime.serve.screen import ListenerTrack, TrackSink

# What a visitor sees


def test_a_visitor_sees_the_portrait_25_times_a_second_by_its_time_stamps() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(pictures=30)
        shown = visitor.pictures[-1].to_ndarray(format="rgb24").astype(float)
        portrait = np.asarray(Image.open(PORTRAIT).convert("RGB").resize((SIDE, SIDE)), float)
        assert np.abs(shown - portrait).mean() < 12
        pts = [frame.pts for frame in visitor.pictures if frame.pts is not None]
        assert np.median(np.diff(pts)) == pytest.approx(3600, abs=20)

    play(act, nodding_listener(PORTRAIT))


@pytest.mark.parametrize("samples", [2, 3])
def test_listeners_are_shown_side_by_side(samples: int) -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(WISH | {"samples": samples})
        assert visitor.pictures[0].to_ndarray(format="rgb24").shape[:2] == shape_of(samples)

    play(act)


def test_a_portrait_that_is_sent_takes_the_place_of_the_first() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        assert not is_red(visitor.pictures[-1])
        content = packed(Image.new("RGB", (300, 300), RED), "PNG")
        answer = await visitor.ask("own_portrait", content)
        assert not answer.kind
        await until(lambda: is_red(visitor.pictures[-1]))

    play(act, nodding_listener(plain(GREY)))


def test_a_portrait_stays_when_the_settings_change() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        content = packed(Image.new("RGB", (300, 300), RED), "PNG")
        assert not (await visitor.ask("own_portrait", content)).kind
        assert not (await visitor.ask("tune", wish=WISH | {"samples": 2})).kind
        await until(lambda: visitor.pictures[-1].width == 2 * SIDE)
        await until(lambda: is_red(visitor.pictures[-1]))

    play(act, nodding_listener(plain(GREY)))


def test_a_portrait_that_cannot_be_read_changes_nothing() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        answer = await visitor.ask("own_portrait", b"no picture")
        assert answer.kind == "portrait"
        tiny = packed(Image.new("RGB", (20, 20)), "PNG")
        answer = await visitor.ask("own_portrait", tiny)
        assert answer.kind == "portrait"
        seen = len(visitor.pictures)
        await visitor.see(seen + 5)
        assert not is_red(visitor.pictures[-1])

    play(act, nodding_listener(plain(GREY)))


def test_a_visitor_without_a_microphone_is_shown_a_listener_too() -> None:
    async def act(here: Scene) -> None:
        await here.seated(sound=False, pictures=10)

    play(act)


def test_the_cheaper_codec_is_taken_whatever_the_browser_likes_best() -> None:
    async def act(here: Scene) -> None:
        visitor = here.visitor()
        codecs = RTCRtpSender.getCapabilities("video").codecs
        (video,) = (each for each in visitor.connection.getTransceivers() if each.kind == "video")
        video.setCodecPreferences(sorted(codecs, key=lambda codec: codec.mimeType != "video/H264"))
        answer = await visitor.come()
        lines = answer.ok["sdp"].splitlines()
        chosen = next(line for line in lines if line.startswith("m=video")).split()[3]
        assert f"a=rtpmap:{chosen} VP8/90000" in lines
        await visitor.see(3)

    play(act)


def test_what_the_session_reads_is_what_the_camera_saw() -> None:
    seen: list[tuple[int, ...]] = []

    class Detector:
        def detect(self, frame_rgb: Any) -> list[Face]:
            seen.append(frame_rgb.shape)
            return ONE_FACE.detect(frame_rgb)

    async def act(here: Scene) -> None:
        await here.seated(camera=Camera((80, 60)))
        await until(lambda: len(seen) > 3)
        assert set(seen[-3:]) == {(640, 640, 3)}  # the first are of the warm-up

    play(act, fake_listener(detector=Detector()))


def test_a_visitor_without_a_camera_is_heard_and_sees_the_listener() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(sees=False)
        await visitor.see(5)
        assert len(here.lobby.peers) == 1

    play(act)


# Settings


def test_dials_change_the_delay_of_the_running_connection() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        await until(lambda: visitor.told)
        wish = WISH | {"lookahead": 5, "playout_ms": 160}
        answer = await visitor.ask("tune", wish=wish)
        assert not answer.kind
        await until(lambda: (told_last(visitor)["algorithmic_ms"], told_last(visitor)["playout_ms"]) == (520, 160))
        seen = len(visitor.pictures)
        await visitor.see(seen + 10)
        pts = [frame.pts or 0 for frame in visitor.pictures]
        assert min(np.diff(pts)) > 0
        assert len(here.lobby.peers) == 1

    play(act)


def test_another_bundle_can_be_chosen() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        assert visitor.pictures[-1].width == 64
        assert not (await visitor.ask("tune", wish=WISH | {"listener": 1})).kind
        await until(lambda: visitor.pictures[-1].width == SIDE)

    play(act, fake_listener(), nodding_listener(PORTRAIT))


def test_the_page_is_told_what_there_is_to_choose_from() -> None:
    async def act(here: Scene) -> None:
        choices = (await here.browser.ask("GET", "/api/choices")).json
        assert [each["name"] for each in choices["listeners"]] == ["fake-0", "fake-1"]
        assert [each["untrained"] for each in choices["listeners"]] == [True, False]
        assert [each["persons"] for each in choices["listeners"]] == [[], []]
        assert choices["wish"] == {"listener": 0, "samples": 1, "lookahead": 2, "playout_ms": 100, "person": 0}
        visitor = here.visitor()
        assert (await visitor.begin(None)).ok["wish"] == choices["wish"]
        assert visitor.begun["ice_servers"] == []

    play(act, fake_listener(), nodding_listener(PORTRAIT), lookahead=2)


def test_settings_for_which_there_is_no_time_are_refused_and_the_session_goes_on_as_before() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        answers = iter([0.0, None])  # of its time: nothing for the new settings, anything for the old
        here.lobby.peers[visitor.id]._allowed = lambda listener: next(answers)
        answer = await visitor.ask("tune", wish=WISH | {"samples": 3})
        assert answer.kind == "busy"
        assert visitor.id in here.lobby.peers
        seen = len(visitor.pictures)
        await visitor.see(seen + 10)
        assert visitor.pictures[-1].width == SIDE

    play(act, nodding_listener(PORTRAIT))


def test_who_has_no_time_for_the_old_settings_either_must_leave_and_is_told_so() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        here.lobby.peers[visitor.id]._allowed = lambda listener: 0.0
        answer = await visitor.ask("tune", wish=WISH | {"samples": 3})
        assert answer.kind == "busy"
        await until(lambda: not here.lobby.peers)
        await until(lambda: visitor.told[-1]["type"] == "ended")

    play(act, nodding_listener(PORTRAIT))


def test_what_the_listener_does_is_told_at_once_and_with_the_next_figures() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        (peer,) = here.lobby.peers.values()
        peer.tell([Event("nod", 1.2, 30, "pause", 6.5, 0.4)])
        peer.tell([Event("blink", 2.0, 50)])
        await until(lambda: any(message.get("events") for message in visitor.told if message["type"] == "panel"))
        expected = [("nod", "pause", 1), ("blink", "", 2)]
        for kind in ("events", "panel"):
            told = [event for message in visitor.told if message["type"] == kind for event in message["events"]]
            assert [(event["kind"], event["because"], event["id"]) for event in told] == expected
        assert told[0]["size"] == 6.5

    play(act)


def test_the_listener_that_comes_with_pflx_is_said_to_blink() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(sees=False)
        await until(lambda: any(message["type"] == "events" for message in visitor.told))
        told = next(message["events"] for message in visitor.told if message["type"] == "events")
        assert {event["kind"] for event in told} == {"blink"}  # nobody speaks

    with Listener.open(None, PORTRAIT) as listener:
        play(act, listener, portraits={"astronaut": load_whole(PORTRAIT)})


def test_the_events_of_the_first_listener_come_out_of_its_frames() -> None:
    nod, told = Event("nod", 0.0, 0, "pause"), list[Event]()
    sink = TrackSink(create_autospec(ListenerTrack, instance=True), 2, told.extend)
    picture, numbers = portrait_of(), np.zeros(58, np.float32)
    for sample in (0, 1):
        ledger = Ledger(frame=0, sample=sample, segment=0, picture=0, rung=Rung.FULL, time_s=0.0, deadline=1)
        frame = ListenerFrame(picture, numbers, numbers[:6], 0.0, sample, FaceState.LOCKED, ledger, events=(nod,))
        sink.show(frame)
    assert told == [nod]


# How it ends


async def nothing_left(here: Scene) -> None:
    """Everything of all visitors is gone within a second."""
    begun = time.monotonic()
    await until(lambda: not here.lobby.peers and not threads())
    assert time.monotonic() - begun < 1
    await asyncio.sleep(0.05)  # what was cancelled ends with the next round of the loop
    theirs = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    assert not {name for name in theirs if name.startswith(("Peer.", "PeerFeed."))}


def test_stop_frees_everything_within_a_second() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        (peer,) = here.lobby.peers.values()
        begun = time.monotonic()
        assert not (await visitor.ask("leave")).kind
        await nothing_left(here)
        assert time.monotonic() - begun < 1
        assert peer.screen.readyState == "ended"
        assert visitor.line is not None
        assert visitor.line.closed == 1000

    play(act)


def test_a_page_that_is_closed_frees_everything() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        await visitor.leave()
        await nothing_left(here)

    play(act)


def test_a_page_that_falls_silent_is_given_up() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        for sender in visitor.connection.getSenders():
            await sender.stop()  # as a telephone does that goes to sleep
        await until(lambda: not here.lobby.peers)
        await until(lambda: visitor.told[-1]["type"] == "ended")
        assert visitor.told[-1]["reason"] == "Nothing was heard of this page for a while."
        await nothing_left(here)

    play(act, patience_s=0.5)


def test_a_visitor_who_never_connects_is_given_up() -> None:
    async def act(here: Scene) -> None:
        visitor = here.visitor()
        assert not (await visitor.offered(await visitor.offer())).kind
        assert here.lobby.peers
        await until(lambda: not here.lobby.peers)
        await nothing_left(here)

    play(act, connect_s=1.0)


def test_a_listener_that_fails_ends_the_session_and_tells_no_secret() -> None:
    engines = fake_engines()
    engines["pirender_frame"] = Failing(engines["pirender_frame"], at=20)

    async def act(here: Scene) -> None:
        visitor = here.visitor()
        await visitor.come()
        await until(lambda: visitor.told and visitor.told[-1]["type"] == "ended")
        assert visitor.told[-1]["reason"] == "The listener has failed. The server's log says why."
        await nothing_left(here)
        await here.seated()  # the next one is served

    play(act, fake_listener(engines))


def test_the_end_of_the_server_ends_all_sessions() -> None:
    left: list[Visitor] = []

    async def act(here: Scene) -> None:
        left.extend([await here.seated(), await here.seated()])
        await here.lobby.close()
        await nothing_left(here)
        await until(lambda: all(visitor.told[-1]["type"] == "ended" for visitor in left))

    play(act)
    assert len(left) == 2


def test_a_microphone_that_comes_to_an_end_leaves_a_listener_who_sees() -> None:
    class Short(AudioStreamTrack):
        async def recv(self) -> av.AudioFrame:
            frame = await super().recv()
            if (frame.pts or 0) > 4000:
                self.stop()
            return frame  # type: ignore[return-value]

    async def act(here: Scene) -> None:
        visitor = here.visitor(sound=False)
        visitor.connection.addTrack(Short())
        await visitor.come()
        await visitor.see(40)

    play(act)


def test_moving_a_picture_is_seen_in_it() -> None:
    portrait = np.asarray(Image.open(PORTRAIT).convert("RGB").resize((SIDE, SIDE)), np.uint8)
    assert not np.array_equal(moved(portrait, 1.0), portrait)
    np.testing.assert_array_equal(moved(portrait, 1.0)[24:], portrait[:-24])
    np.testing.assert_array_equal(portrait_of(1), portrait_of(1))
