"""Whom the listener behaves like: what the page offers, what a session then is, and that nobody else is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live.live_sessions import watchdog  # noqa: F401
from support.persons.tiny_bundle import made_up_person, personal_bundle
from support.serve.chromium import wait_for
from support.serve.scene import PORTRAIT, Scene, play
from support.serve.serve_client import WISH, loopback_only  # noqa: F401
from support.serve.serve_listener import SIDE, nodding_listener
from support.serve.window import IS_LIVE, Server, Window

from pflx.runtime import Listener, PersonError, SpeakerSettings
from pflx.runtime.rendering.portrait import load_whole
from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.peer import Peer
from pflx.runtime.speaker.extractors import LANDMARKS

_CHOOSE_FIRST = """
{
  const dial = document.getElementById('person');
  dial.value = '1';
  dial.dispatchEvent(new Event('change'));
}
"""
FACE = {"astronaut": load_whole(PORTRAIT)}
ADA, BOB = made_up_person(1, "Ada"), made_up_person(2, "Bob <b>")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return personal_bundle(tmp_path_factory.mktemp("persons") / "tiny.pflx").path


def opened(bundle: Path) -> Listener:
    speaker = SpeakerSettings(extractors={"coefficients": LANDMARKS})
    return Listener.open(bundle, PORTRAIT, size=SIDE, speaker=speaker)  # small: the test is not of how quick it is


@pytest.fixture
def listener(bundle: Path) -> Iterator[Listener]:
    with opened(bundle) as made:
        yield made


def person_of(peer: Peer) -> str:
    """SHA-256 of the person that a visitor's session is of; empty for nobody."""
    assert peer.session is not None
    return peer.session.snapshot()["person"].tobytes().hex()


def test_a_session_is_of_the_person_that_the_visitor_chose(listener: Listener) -> None:
    async def act(here: Scene) -> None:
        choices = (await here.browser.ask("GET", "/api/choices")).json
        assert [each["persons"] for each in choices["listeners"]] == [["Ada", "Bob <b>"], []]
        visitor = await here.seated()
        peer = here.lobby.peers[visitor.id]
        assert person_of(peer) == ""
        for number, sha256 in ((2, BOB.sha256), (1, ADA.sha256), (0, "")):
            answer = await visitor.ask("tune", wish=WISH | {"person": number})
            assert not answer.kind, answer.message
            assert await here.lobby.in_thread(person_of, peer) == sha256
        for wish in ({"person": 3}, {"person": 1, "listener": 1}):
            refused = await visitor.ask("tune", wish=WISH | wish)
            assert (refused.kind, refused.message) == ("wish", "There is no such person.")
        assert peer.session is not None
        assert peer.session.is_running

    play(act, listener, nodding_listener(PORTRAIT), portraits=FACE, persons=[ADA, BOB])


def test_a_person_of_no_listener_is_told_before_anybody_comes(listener: Listener) -> None:
    stranger = made_up_person(3, "Eve", denoiser="ab" * 32)
    listeners = {"tiny": listener, "nodding": nodding_listener(PORTRAIT)}
    with pytest.raises(PersonError, match="Eve was made for the denoiser of SHA-256 abababababab"):
        Lobby(listeners, FACE, ServeSettings(), [ADA, stranger])


def test_the_page_offers_persons_and_keeps_the_choice_in_the_address(window: Window, bundle: Path) -> None:
    with Server(lambda: opened(bundle), portraits=FACE, persons=[ADA, BOB]) as server:
        here = Window(server, window.browser)
        with here.page("#person=Bob%20%3Cb%3E") as page:
            names = "[...document.getElementById('person').options].map((each) => each.textContent)"
            assert page.run(names) == ["Nobody in particular", "Ada", "Bob <b>"]
            page.run("document.getElementById('settings').open = true")
            assert page.run("document.getElementById('person').value") == "2"
            page.click("go")
            page.until(IS_LIVE)
            (peer,) = server.lobby.peers.values()
            assert person_of(peer) == BOB.sha256
            page.run(_CHOOSE_FIRST)
            wait_for(lambda: peer.wish is not None and peer.wish.person == 1)
            assert person_of(peer) == ADA.sha256
            assert page.run("location.hash") == "#person=Ada"
            page.until(IS_LIVE)
    with window.page() as page:
        assert page.run("document.getElementById('person-field').hidden")
