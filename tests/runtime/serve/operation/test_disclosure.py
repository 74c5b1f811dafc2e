"""What visitors and programs are told the listener is, and what is kept of a visit: nothing."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.scene import PORTRAIT, Scene, play, told_last
from support.serve.serve_client import (
    loopback_only,  # noqa: F401
    until,
)
from support.serve.window import IS_LIVE, Window

from pflx.runtime import Listener
from pflx.runtime.media.mark import SOURCE_TYPE
from pflx.runtime.rendering.portrait import load_whole

_watched: list[tuple[str, int]] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event == "open":
        path, mode, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or (isinstance(mode, str) and re.search("[wax+]", mode)):
            _watched.append((str(path), flags))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Files that this process opens to write to; home, temporary files and the working folder are in `tmp_path`."""
    global _watched
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if not getattr(_note, "is_set", False):  # a hook stays for good
        sys.addaudithook(_note)
        _note.is_set = True  # type: ignore[attr-defined]
    _watched = []
    yield _watched
    _watched = None


def test_a_visit_leaves_no_file(written: list[tuple[str, int]], tmp_path: Path) -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(pictures=10)
        answer = await here.browser.ask("PUT", "/api/stills/0", PORTRAIT.read_bytes())
        assert answer.status == 200
        await until(lambda: visitor.told)
        await visitor.see(len(visitor.pictures) + 10)

    with Listener.open(None, PORTRAIT) as listener:
        play(act, listener, portraits={"astronaut": load_whole(PORTRAIT)})
    assert [path for path, _ in written if path != os.devnull] == []
    assert list(tmp_path.rglob("*")) == []


def test_what_writes_a_file_would_be_seen(written: list[tuple[str, int]], tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("a visitor")
    np.save(tmp_path / "kept.npy", np.zeros(2))
    assert len(written) == 2


class _Page(HTMLParser):
    """Its meta tags."""

    def __init__(self) -> None:
        super().__init__()
        self.meta: dict[str | None, str | None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            given = dict(attrs)
            self.meta[given.get("name")] = given.get("content")


def test_programs_are_told_by_header_page_and_panel() -> None:
    async def act(here: Scene) -> None:
        answer = await here.browser.ask("GET", "/")
        assert answer.headers["ai-disclosure"] == "mode=machine-generated"
        page = _Page()
        page.feed(answer.body.decode())
        assert page.meta["digitalSourceType"] == SOURCE_TYPE
        assert "ai-disclosure" not in (await here.browser.ask("GET", "/style.css")).headers
        visitor = await here.seated()
        await until(lambda: visitor.told)
        assert told_last(visitor)["digital_source_type"] == SOURCE_TYPE

    play(act)


SHOWN = "[...document.querySelectorAll('p')].filter((each) => each.checkVisibility()).map((each) => each.innerText)"


def test_visitors_are_told_before_the_camera_is_asked_for_and_as_long_as_they_look(window: Window) -> None:
    def before(page: Any) -> None:
        told = " ".join(page.run(SHOWN))
        assert "The listener is AI-generated: nobody sits there." in told
        assert "your camera and microphone go to this server and nowhere else" in told
        assert "It records nothing" in told

    with window.live(before) as page:
        page.until(IS_LIVE)
        assert "AI-generated" in page.run(SHOWN)
