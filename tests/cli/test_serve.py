"""`pflx serve` with fake engines: what it listens at, what it says, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from PIL import Image
from support.commands import Outcome, pflx, refusal
from support.fakes import open_fake, portrait_of, write_fake_bundle
from support.persons.tiny_bundle import made_up_person
from support.serve.logs import logging_kept

from pflx.runtime import Listener, bundle_engines
from pflx.runtime.cluster import site as site_module
from pflx.runtime.cluster.site import Site, SiteSettings
from pflx.runtime.persons import write_person
from pflx.runtime.serve import TurnServer
from pflx.runtime.serve import app as app_module
from pflx.runtime.serve.guard import Guard
from pflx.runtime.serve.lobby import Lobby

TOKEN = "a token of some length"


class Scene:
    """Fake bundles and a portrait; serving ends at once, and what was served is remembered."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.served: list[tuple[str, int]] = []
        self.closed: list[Listener] = []
        self.closed_while_serving: list[int] = []
        self.settings: Any = None
        self.portraits: list[str] = []
        self.port = 0
        Image.fromarray(portrait_of()).save(folder / "me.png")
        for name in ("one", "two"):
            write_fake_bundle(folder / f"{name}.pflx")
        patch.setattr(bundle_engines, "OrtEngine", open_fake)
        patch.setattr(uvicorn.Server, "serve", self._serve)
        patch.setattr(app_module, "Guard", self._guard(Guard))
        patch.setattr(app_module, "make_app", self._remembering(app_module.make_app))
        close = Listener.close

        def closing(listener: Listener) -> None:
            self.closed.append(listener)
            close(listener)

        patch.setattr(Listener, "close", closing)

    def serve(self, *bundles: str, options: tuple[str, ...] = ()) -> Outcome:
        paths = [str(self.folder / name) for name in bundles or ("one.pflx",)]
        return pflx("serve", *paths, "--portrait", self.folder / "me.png", "--port", 0, *options)

    def refuse(self, *options: str, code: int = 1) -> str:
        return refusal("serve", self.folder / "one.pflx", "-p", self.folder / "me.png", *options, code=code)

    def _remembering(self, make_app: Any) -> Any:
        def make(lobby: Lobby, *given: Any) -> Guard:
            self.portraits = lobby.describe()["portraits"]
            return cast("Guard", make_app(lobby, *given))

        return make

    async def _serve(self, sockets: list[socket.socket]) -> None:
        self.served += [each.getsockname()[:2] for each in sockets]
        self.closed_while_serving.append(len(self.closed))
        await asyncio.sleep(0)

    def _guard(self, guard: Any) -> Any:
        def make(app: Any, sign_in: Any, settings: Any, port: int, limits: Any) -> Any:
            self.settings, self.port = settings, port
            return guard(app, sign_in, settings, port, limits)

        return make


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_it_serves_on_loopback_and_says_where(scene: Scene) -> None:
    outcome = scene.serve()
    assert outcome.code == 0, outcome.err
    ((host, port),) = scene.served
    assert host == "127.0.0.1"
    assert port == scene.port
    assert outcome.out == f"Serving at http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    assert "Untrained weights" in outcome.err


def test_every_bundle_is_offered_and_closed_at_the_end(scene: Scene) -> None:
    assert scene.serve("one.pflx", "two.pflx").code == 0
    assert scene.closed_while_serving == [0]
    assert len(scene.closed) == 2


def test_portraits_are_told_apart_by_the_names_of_their_files(scene: Scene) -> None:
    Image.fromarray(portrait_of(1)).save(scene.folder / "you.jpg")
    assert scene.serve(options=("-p", str(scene.folder / "you.jpg"), "-p", str(scene.folder / "me.png"))).code == 0
    assert scene.portraits == ["me-1", "you", "me-3"]


def test_without_a_portrait_it_is_the_one_that_comes_with_pflx(scene: Scene) -> None:
    assert pflx("serve", scene.folder / "one.pflx", "--port", 0).code == 0
    assert scene.portraits == ["portrait"]


def test_what_it_is_told_reaches_the_server(scene: Scene) -> None:
    given = ("--max-sessions", "2", "--max-load", "0.5", "--max-samples", "1", "--lookahead", "3", "--playout-ms", "60")
    assert scene.serve(options=(*given, "--ice-server", "stun:stun.example:3478", "--seed", "9")).code == 0
    told = scene.settings
    assert (told.max_sessions, told.max_load, told.max_samples, told.seed) == (2, 0.5, 1, 9)
    assert (told.lookahead, told.playout_ms, told.ice_servers) == (3, 60, ("stun:stun.example:3478",))


def test_how_it_ends_what_it_is_called_and_what_its_pictures_say_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scene.serve(options=("--drain", "30", "--badge")).code == 0
    assert (scene.settings.drain_s, scene.settings.replica) == (30, None)
    assert [listener.chain.badge for listener in scene.closed] == [True]
    monkeypatch.setenv("PFLX_REPLICA", "blue")
    assert scene.serve().code == 0
    assert (scene.settings.drain_s, scene.settings.replica) == (0, "blue")
    assert not scene.closed[-1].chain.badge
    assert "--drain" in scene.refuse("--drain", "-1", code=2)


def test_proxies_and_the_address_before_them_are_told(scene: Scene) -> None:
    proxies = ("--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.0/8")
    outcome = scene.serve(options=(*proxies, "--public-url", "https://me.example", "--token", TOKEN))
    assert scene.settings.trusted_proxies == ("127.0.0.1", "10.0.0.0/8")
    assert scene.settings.origins == ("https://me.example",)
    assert "Serving at https://me.example" in outcome.out
    assert "'proxy' is no address of a proxy" in scene.refuse("--trusted-proxy", "proxy")


def test_ports_and_the_address_that_is_announced_are_told(scene: Scene) -> None:
    assert scene.serve(options=("--udp-ports", "50000-50100", "--announce", "203.0.113.7")).code == 0
    assert (scene.settings.udp_ports, scene.settings.announce) == ((50_000, 50_100), "203.0.113.7")
    assert scene.serve(options=("--udp-ports", "50000")).code == 0
    assert scene.settings.udp_ports == (50_000, 50_000)
    for given in ("50100-50000", "many", "1-70000", "5-6-7"):
        assert f"{given}" in (said := scene.refuse("--udp-ports", given))
        assert "is no range of UDP ports. Give one such as 50000-50100" in said
    assert "'me.example' is no IP address" in scene.refuse("--announce", "me.example")


def test_a_turn_server_is_told_with_a_secret_that_stands_in_a_file(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = scene.folder / "secret"
    secret.write_text("of the relay\n")
    urls = ("turn:turn.example:3478", "turns:turn.example")
    outcome = scene.serve(options=("--turn", urls[0], "--turn", urls[1], "--turn-secret", str(secret)))
    assert scene.settings.turn == TurnServer(urls, secret="of the relay")
    assert "of the relay" not in outcome.out + outcome.err
    monkeypatch.setenv("PFLX_TURN", urls[0])
    scene.serve(options=("--turn-user", "guest", "--turn-password", str(secret)))
    assert scene.settings.turn == TurnServer(urls[:1], user="guest", password="of the relay")
    monkeypatch.setenv("PFLX_TURN_SECRET_FILE", str(secret))
    assert "or both --turn-user NAME and --turn-password FILE" in scene.refuse("--turn-user", "guest")
    scene.serve()
    assert scene.settings.turn == TurnServer(urls[:1], secret="of the relay")


@pytest.mark.parametrize("text", ["", " \n", "one\ntwo\n"])
def test_a_secret_is_one_line_of_a_file_that_can_be_read(scene: Scene, text: str) -> None:
    secret = scene.folder / "secret"
    turn = ("--turn", "turn:turn.example", "--turn-secret", str(secret))
    assert f"--turn-secret {secret} cannot be read (No such file or directory)" in scene.refuse(*turn)
    secret.write_text(text)
    said = scene.refuse(*turn)
    assert f"--turn-secret {secret} holds {len(text.split())} lines. Write it in one line" in said
    assert "two" not in said
    secret.write_bytes(b"\xff\xfe")
    assert "cannot be read (not UTF-8)" in scene.refuse(*turn)


def test_a_secret_of_no_turn_server_is_refused(scene: Scene) -> None:
    (scene.folder / "secret").write_text("of the relay")
    assert "Give --turn turn:HOST:PORT" in scene.refuse("--turn-secret", str(scene.folder / "secret"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "me.example"])
def test_it_does_not_start_for_others_without_a_token(scene: Scene, host: str) -> None:
    assert "can be reached by others. Give a --token" in scene.refuse("--host", host)
    assert "The token has 5 characters" in scene.refuse("--host", host, "--token", "short")
    assert not scene.served


def test_with_a_token_it_does_and_says_how_visitors_come_in(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PFLX_TOKEN", TOKEN)
    outcome = scene.serve(options=("--host", "0.0.0.0", "--origin", "https://me.example"))
    assert outcome.code == 0, outcome.err
    assert "Serving at https://me.example" in outcome.out
    assert "sign in with the token" in outcome.out
    assert "https pages only" not in outcome.out
    assert TOKEN not in outcome.out
    plain = scene.serve(options=("--host", "0.0.0.0", "--origin", "http://me.example:8000"))
    assert "Browsers give a camera to https pages only" in plain.out


def test_a_port_that_is_taken_is_told(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = scene.refuse("--port", str(taken.getsockname()[1]))
    assert "(Address already in use). Choose another --port" in said


def test_a_certificate_and_its_key_belong_together(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("")
    assert "Give the other one, too" in scene.refuse("--certificate", str(tmp_path / "c.pem"))
    assert "none.pem does not exist" in scene.refuse("--certificate", str(tmp_path / "c.pem"), "--key", "none.pem")


def test_what_cannot_be_served_is_refused(scene: Scene, tmp_path: Path) -> None:
    assert "no.png does not exist" in refusal("serve", scene.folder / "one.pflx", "-p", tmp_path / "no.png")
    assert "no.pflx" in refusal("serve", tmp_path / "no.pflx", "-p", scene.folder / "me.png")
    assert "is no origin" in scene.refuse("--origin", "me.example")
    assert "is no ICE server" in scene.refuse("--ice-server", "me.example")
    assert "Give --turn turn:me.example with --turn-secret FILE" in scene.refuse("--ice-server", "turn:me.example")


@pytest.mark.parametrize("missing", ["aiortc", "starlette", "uvicorn", "websockets", "prometheus_client"])
def test_a_missing_package_is_named_with_what_installs_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert f"{missing} is not installed. Install it: pip install 'pflx[serve]'" in scene.refuse()


def test_bundles_of_one_name_are_told_apart() -> None:
    from pflx.cli.serve import _named

    bundles = [Path("a/me.pflx"), Path("b/me.pflx"), Path("c.pflx")]
    assert dict(_named(bundles)) == dict(zip(["me-1", "me-2", "c"], bundles, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--replicas", "1:8"), "--replicas is for servers on a Ray cluster. Give --ray, too."),
        (("--gpus-per-replica", "1"), "--gpus-per-replica is for servers on a Ray cluster. Give --ray, too."),
        (("--ray", "node7"), "ray is 'node7'; give the cluster's HOST:PORT, 'auto' for the one that this machine"),
        (("--ray", "--replicas", "many"), "--replicas is 'many'; give the fewest and the most servers, such as 1:8."),
        (("--ray", "--replicas", "4:2"), "--replicas is 4:2; give the fewest and the most servers, such as 1:8."),
        (("--ray", "--gpus-per-replica", "2.5"), "--gpus-per-replica is 2.5; give 0, a share of one such as 0.5"),
        (("--ray", "--gpus-per-replica", "1"), "Servers with 1 GPUs cannot run on cpu. Give --device cuda with"),
        (("--ray", "--port", "0"), "Behind --ray it takes no free port by itself: give --port."),
    ],
)
def test_options_of_a_cluster_are_refused_in_one_sentence(scene: Scene, options: tuple[str, ...], said: str) -> None:
    assert said in scene.refuse(*options)


@pytest.mark.parametrize("missing", ["ray", "ray.serve"])
def test_without_the_extra_of_clusters_it_says_how_to_install_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert scene.refuse("--ray") == "pflx: ray.serve is not installed. Install it: pip install 'pflx[site]'"


def test_without_it_nothing_of_clusters_is_loaded(scene: Scene) -> None:
    before = {*sys.modules}
    assert scene.serve().code == 0
    assert not [name for name in {*sys.modules} - before if name.split(".")[0] == "ray"]


class Replaced:
    """A site that runs until another one takes its place, at once."""

    def wait(self, until: Callable[[], bool]) -> bool:
        return False


def test_what_it_is_told_reaches_the_servers_of_a_cluster(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[Site, str]] = []

    @contextmanager
    def running(site: Site, address: str) -> Iterator[Replaced]:
        begun.append((site, address))
        yield Replaced()

    monkeypatch.setattr(site_module, "running", running)
    person = made_up_person(1, "Ada")
    write_person(person, scene.folder / "ada.person")
    given = ("--ray", "--port", "8000", "--person", str(scene.folder / "ada.person"), "--badge", "--drain", "7")
    outcome = scene.serve(options=(*given, "--replica", "blue"))
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        "Serving at http://127.0.0.1:8000 (Ctrl-C ends it)",
        "Another site was begun in the place of this one, which ends when its visitors leave.",
    ]
    ((site, address),) = begun
    assert (address, site.settings.port, site.settings.replica) == ("local", 8000, "blue")
    assert (site.site.drain_s, site.site.in_json) == (7, False)
    assert [each.badge for each in site.listeners.values()] == [True]
    assert [(each.name, each.sha256) for each in site.persons] == [("Ada", person.sha256)]
    with logging_kept():
        outcome = scene.serve(options=("--ray", "--port", "8000", "--log", "json"))
    assert [json.loads(line)["event"] for line in outcome.out.splitlines()] == ["server.started", "server.replaced"]
    assert begun[1][0].site == SiteSettings(in_json=True)
