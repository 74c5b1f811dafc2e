"""`pflx serve`: a listener in the browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.support.cluster import ClusterOptions
from pflx.cli.support.console import print_line, print_untrained
from pflx.cli.support.network import NetworkOptions
from pflx.cli.support.operation import Log, OperationOptions
from pflx.cli.support.options import AnySeed, Badge, Emotion, EngineOptions, Size, fetched, grouped
from pflx.cli.support.signals import asked_to_end, ended_by
from pflx.engines import OutputError

if TYPE_CHECKING:
    from socket import socket as Socket

    from pflx.runtime import Listener, Person
    from pflx.runtime.cluster.site import SiteSettings
    from pflx.runtime.frames.arrays import UInt8Array
    from pflx.runtime.serve import ServeSettings
    from pflx.runtime.serve.settings import ServedListener

_Bundles = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Bundles made by `pflx export`, or hf://ORG/NAME, to choose from. [the listener that comes with pflx]",
        callback=fetched,
    ),
]
_Portraits = Annotated[
    list[Path] | None,
    typer.Option(
        "--portrait",
        "-p",
        help="Picture of the listener, or several to choose from; visitors may send theirs. [that of `pflx demo`]",
    ),
]
_Persons = Annotated[
    list[Path] | None,
    typer.Option("--person", metavar="FILE", help="Of `pflx person make`, or several: visitors choose one, or nobody."),
]
_Host = Annotated[str, typer.Option(help="Address to listen at; anything but loopback needs a token.")]
_Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
_Token = Annotated[
    str | None, typer.Option(envvar="PFLX_TOKEN", help="What visitors must know, 16 characters or more.")
]
_Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--origin",
        "--public-url",
        metavar="URL",
        help="Where browsers find it, besides the address: https://me.example.",
    ),
]
_Certificate = Annotated[Path | None, typer.Option(help="For https: certificate, PEM.")]
_Key = Annotated[Path | None, typer.Option(help="For https: its key, PEM.")]
_MaxSessions = Annotated[int, typer.Option(min=1, help="Visitors at once.")]
_MaxLoad = Annotated[
    float, typer.Option(min=0.01, help="Share of their time that the engines may be busy with all visitors.")
]
_MaxSamples = Annotated[int, typer.Option(min=1, max=4, help="Listeners side by side that may be asked for.")]
_Lookahead = Annotated[int, typer.Option(min=0, max=13, help="Frames waited for before rendering, at first.")]
_Playout = Annotated[float, typer.Option(min=0, max=1000, help="Time to work in, at first.")]


_DRAINING = "Nobody new is let in; it ends when the last visitor has left, or after --drain. Once more ends it at once."
_REPLACED = "Another site was begun in the place of this one, which ends when its visitors leave."


@grouped
def serve(
    bundles: _Bundles = None,
    portrait: _Portraits = None,
    person: _Persons = None,
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    token: _Token = None,
    origins: _Origins = None,
    certificate: _Certificate = None,
    key: _Key = None,
    max_sessions: _MaxSessions = 4,
    max_load: _MaxLoad = 0.7,
    max_samples: _MaxSamples = 3,
    lookahead: _Lookahead = 5,
    playout_ms: _Playout = 100,
    speaker_emotion: Emotion = None,
    size: Size = None,
    badge: Badge = False,
    seed: AnySeed = None,
    *,
    engines: EngineOptions,
    network: NetworkOptions,
    operation: OperationOptions,
    cluster: ClusterOptions,
) -> None:
    """Serve a page on which visitors talk to a listener, with their camera and microphone."""
    from pflx.runtime import read_person
    from pflx.runtime.builtin import DEMO, builtin_path
    from pflx.runtime.rendering.portrait import load_picture
    from pflx.runtime.serve import ServeSettings, require_server
    from pflx.runtime.serve.settings import ServedListener

    _check_certificate(certificate, key)
    settings = ServeSettings(
        host=host,
        port=port,
        token=token,
        origins=tuple(origins or ()),
        secure=certificate is not None,
        max_sessions=max_sessions,
        max_load=max_load,
        max_samples=max_samples,
        lookahead=lookahead,
        playout_ms=playout_ms,
        seed=seed,
        **network.settings(),
        **operation.settings(),
    )
    in_json = operation.log is Log.JSON
    site = cluster.settings(engines.device, operation.drain, in_json)
    require_server()
    paths = portrait or [DEMO / "portrait.png"]
    pictures = {name: load_picture(path) for name, path in _named(paths)}
    listeners = {
        name: ServedListener(
            str(bundle.absolute()) if bundles else None,  # every process has the one that comes with pflx
            next(iter(pictures.values())) if site else paths[0],
            device=engines.device,
            engines=engines.settings(),
            size=size,
            lookahead=lookahead,
            extractors=_extractors(bundle, speaker_emotion),
            badge=badge,
        )
        for name, bundle in _named(bundles or [builtin_path()])
    }
    persons = [*map(read_person, person or [])]
    if site is None:
        _serve_here(listeners, pictures, persons, settings, certificate, key, in_json)
    else:
        _serve_from_cluster(listeners, pictures, persons, settings, site, cluster.ray or "")


def _serve_here(
    served: Mapping[str, ServedListener],
    portraits: Mapping[str, UInt8Array],
    persons: Sequence[Person],
    settings: ServeSettings,
    certificate: Path | None,
    key: Path | None,
    in_json: bool,
) -> None:
    from pflx.runtime.serve.app import listen
    from pflx.runtime.serve.network.ports import run_within
    from pflx.runtime.serve.operation.journal import log_json

    if in_json:
        log_json(sys.stdout)
    with listen(settings) as socket, ExitStack() as opened:  # a port that is taken is told before anything is opened
        listeners: dict[str, Listener] = {}
        for name, each in served.items():
            listeners[name] = opened.enter_context(each.open())
            print_untrained(listeners[name].manifest)
        run_within(
            settings.udp_ports, _serve(listeners, portraits, persons, settings, socket, certificate, key, in_json)
        )


def _serve_from_cluster(
    served: Mapping[str, ServedListener],
    portraits: Mapping[str, UInt8Array],
    persons: Sequence[Person],
    settings: ServeSettings,
    how: SiteSettings,
    address: str,
) -> None:
    from pflx.engines import Bundle
    from pflx.runtime.builtin import builtin_path
    from pflx.runtime.cluster.site import Site, running
    from pflx.runtime.serve.operation.journal import log_json, tell

    site = Site(served, portraits, settings, how, persons)
    if how.in_json:
        log_json(sys.stdout)
    with running(site, address) as begun:
        for each in served.values():
            print_untrained(Bundle.open(each.bundle or builtin_path(), verify=False).manifest)
        _greet(settings, settings.port, how.in_json)
        with asked_to_end(_DRAINING) as asked:
            if not begun.wait(asked):
                if how.in_json:
                    tell("server.replaced", message=_REPLACED)
                else:
                    print_line(_REPLACED)
                return
            begun.end()


async def _serve(
    listeners: Mapping[str, Listener],
    portraits: Mapping[str, UInt8Array],
    persons: Sequence[Person],
    settings: ServeSettings,
    socket: Socket,
    certificate: Path | None,
    key: Path | None,
    in_json: bool,
) -> None:
    from pflx.runtime.serve.app import make_app, make_server
    from pflx.runtime.serve.lobby import Lobby

    port: int = socket.getsockname()[1]
    lobby = Lobby(listeners, portraits, settings, persons)
    drain = lobby.drain if settings.drain_s else None
    app = make_app(lobby, port)
    server = make_server(app, close=lobby.close, drain=drain, certificate=certificate, key=key)
    _greet(settings, port, in_json)
    with ended_by("SIGHUP", partial(setattr, server, "should_exit", True)):  # the others uvicorn takes by itself
        await server.serve(sockets=[socket])


def _greet(settings: ServeSettings, port: int, in_json: bool) -> None:
    from pflx.runtime.serve.operation.journal import tell

    greeting = _greeting(settings, port)
    if in_json:
        tell("server.started", message=greeting[0], port=port)
        return
    for line in greeting:
        print_line(line)


def _greeting(settings: ServeSettings, port: int) -> list[str]:
    scheme = "https" if settings.secure else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    lines = [f"Serving at {(*settings.origins, f'{scheme}://{host}:{port}')[0]} (Ctrl-C ends it)"]
    if settings.token is not None:
        lines.append("Visitors sign in with the token, or come by a link that ends in /?token=…")
    if not settings.is_loopback and not any(origin.startswith("https") for origin in settings.allowed_origins(port)):
        lines.append("Browsers give a camera to https pages only: give --certificate and --key, or use a proxy.")
    return lines


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise OutputError("https takes both a --certificate and its --key. Give the other one, too.")
    for path in filter(None, (certificate, key)):
        if not path.is_file():
            raise OutputError(f"{path} does not exist. Check the path.")


def _named(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Bundles or pictures with what the page calls them: names of files or repositories, told apart where alike."""
    stems = [_stem(path) for path in paths]
    for place, (stem, path) in enumerate(zip(stems, paths, strict=True), 1):
        yield stem if stems.count(stem) == 1 else f"{stem}-{place}", path


def _stem(bundle: Path) -> str:
    from pflx.engines.hub.cache import cached_name

    name = cached_name(bundle)
    return Path(os.path.realpath(bundle)).stem if name is None else Path(name.partition("@")[0]).name


def _extractors(bundle: Path, emotion: str | None) -> dict[str, str]:
    """What tells of the speaker what the generator reads: its own default or face landmarks, and what was named."""
    from pflx.engines import Bundle
    from pflx.runtime.generators import default_sources
    from pflx.runtime.speaker.extractors import LANDMARKS

    generator = Bundle.open(bundle, verify=False).manifest.generator
    given = {"coefficients": LANDMARKS, **default_sources(generator.name), "emotion": emotion}
    return {need: value for need, value in given.items() if value is not None and need in generator.needs}
