"""Draw every state of the page of `pflx serve`, each at three widths, light and dark.

    python tools/pictures/draw_serve_pages.py FOLDER             full size, to be looked at: STATE_WIDTH_SCHEME.png
    python tools/pictures/draw_serve_pages.py FOLDER --docs      and sheets of them, scaled down, into docs/images/serve
    python tools/pictures/draw_serve_pages.py FOLDER live full   some states only

The listener is the one that comes with pflx, camera and microphone are clips of the tests. Needs Chromium and
pflx[cpu,serve].
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from itertools import islice, product
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from support.places import MEDIA  # noqa: E402
from support.serve.chromium import Page, chromium, find_chromium  # noqa: E402
from support.serve.recordings import fake_devices  # noqa: E402
from support.serve.window import IS_LIVE, STATE, Server, Window  # noqa: E402

from pflx.runtime import Listener, open_speaker  # noqa: E402
from pflx.runtime.frames.arrays import UInt8Array  # noqa: E402
from pflx.runtime.rendering.portrait import load_whole  # noqa: E402

SIZES = {1280: 800, 768: 1024, 390: 844}
"""Width and height of a window: a desk, a tablet, a telephone."""

SCHEMES = ("light", "dark")
PORTRAIT = ROOT / "runtime" / "data" / "demo" / "portrait.png"
FACES: Mapping[str, int] = {"podium_speech_8s": 40, "webcam_cap12_12s": 10}
"""Clips of the tests, and which frame of each is a portrait to choose."""

STYLE = ROOT / "runtime" / "serve" / "page" / "style.css"
TOKEN = "a token of some length"
DOCS = ROOT / "docs" / "images" / "serve"
SHEET_HEIGHT, GAP, COLOURS = 340, 8, 150
ANSWER_S = 40  # until the listener has answered to the clip

_CONNECTION = "import('/scripts/connection.js').then((module) => module.%s)"
_REFUSAL = "failed({ kind: '%s', message: '%s' })"
_FULL = "All 4 places are taken."
_BUSY = (
    "With you it would be at work 98% of its time, and 70% are allowed. "
    "Fewer listeners side by side, or a lighter one, take less."
)


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("states", nargs="*", help=f"by default all: {', '.join(STATES)}")
    parser.add_argument("--docs", action="store_true", help="sheets into docs/images/serve, too")
    given = parser.parse_intermixed_args()  # options may stand between
    if unknown := set(given.states) - STATES.keys():
        parser.error(f"there is no state {', '.join(sorted(unknown))}; there are {', '.join(STATES)}.")
    given.folder.mkdir(parents=True, exist_ok=True)
    with opened(given.folder) as (window, guarded):
        for name in given.states or STATES:
            pictures = dict(drawn(guarded if name.startswith("token") else window, name))
            for (width, scheme), picture in pictures.items():
                picture.save(given.folder / f"{name}_{width}_{scheme}.png")
            if given.docs:
                DOCS.mkdir(parents=True, exist_ok=True)
                sheet(pictures).save(DOCS / f"{name}.png", optimize=True)
            print(name, flush=True)


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Window, Window]]:
    """A browser with a server, and with one that asks for a token."""
    binary = find_chromium()
    if binary is None:
        sys.exit("No Chromium is installed. Install it, or name one by PFLX_CHROMIUM.")
    with ExitStack() as stack:
        stack.enter_context(patch("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"]))
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = ["--allow-loopback-in-peer-connection", "--hide-scrollbars", *fake_devices(temporary)]
        portraits = {"demo": load_whole(PORTRAIT), **{name: face(name, number) for name, number in FACES.items()}}
        servers = [Server(lambda: Listener.open(None, PORTRAIT), portraits, token=token) for token in (None, TOKEN)]
        for server in servers:
            stack.enter_context(server)
        browser = stack.enter_context(chromium(binary, temporary / "profile", flags))
        yield Window(servers[0], browser), Window(servers[1], browser)


def face(clip: str, number: int) -> UInt8Array:
    """A frame of a clip of the tests."""
    frames = (picture for chunk in open_speaker(MEDIA / f"{clip}.mp4").chunks() for picture in chunk.video)
    return np.array(next(islice(frames, number, None)))


def drawn(window: Window, name: str) -> Iterator[tuple[tuple[int, str], Image.Image]]:
    """A state at all widths and in both schemes."""
    path, act = STATES[name]
    with window.page(path) as page:
        page.resize((1280, SIZES[1280]))
        act(page)
        for width, scheme in product(SIZES, SCHEMES):
            content = page.screenshot(size=(width, SIZES[width]), dark=scheme == "dark")
            yield (width, scheme), Image.open(BytesIO(content)).convert("RGB")


def sheet(pictures: Mapping[tuple[int, str], Image.Image]) -> Image.Image:
    """All pictures of a state side by side, cut at the height of their windows and scaled down."""
    cells = []
    for (width, _), picture in pictures.items():
        cut = picture.crop((0, 0, width, SIZES[width]))
        cells.append(cut.resize((round(width * SHEET_HEIGHT / cut.height), SHEET_HEIGHT), Image.Resampling.LANCZOS))
    whole = Image.new("RGB", (sum(cell.width + GAP for cell in cells) - GAP, SHEET_HEIGHT), "white")
    left = 0
    for cell in cells:
        whole.paste(cell, (left, 0))
        left += cell.width + GAP
    return in_few_colours(whole)


def in_few_colours(picture: Image.Image) -> Image.Image:
    """With a palette: all colours of the page, which are rare beside a face, and the most frequent others."""
    named = [bytes.fromhex(colour) for colour in re.findall(r"#([0-9a-f]{6})\b", STYLE.read_text())]
    frequent = picture.quantize(COLOURS, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*b"".join(dict.fromkeys(named)), *frequent[: 3 * COLOURS]])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


# States


def _as_opened(page: Page) -> None:
    page.until("[...document.images].every((image) => image.complete)")


def _live(page: Page, button: str = "go") -> None:
    page.click(button)
    page.until(IS_LIVE)
    page.until("/^(Nod|Look|Smil)/.test(document.getElementById('answer').textContent)", ANSWER_S)
    page.until("document.getElementById('heard').textContent === 'I hear you'")


def _details(page: Page) -> None:
    _live(page)
    page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


def _voice(page: Page) -> None:
    _live(page, "voice")
    page.click("mute")


def _asking(page: Page) -> None:
    page.run("navigator.mediaDevices.getUserMedia = () => new Promise(() => {})")
    page.click("go")
    page.until(f"{STATE} === 'asking'")


def _refused(page: Page) -> None:
    page.run("navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))")
    page.click("go")
    page.until(f"{STATE} === 'failed'")


def _ended(act: str) -> Callable[[Page], None]:
    def end(page: Page) -> None:
        page.run("window.setTimeout = ((real) => (act, wait) => real(act, wait > 900 ? 1e8 : wait))(setTimeout)")
        page.click("go")
        page.until(IS_LIVE)
        time.sleep(1)
        page.run(_CONNECTION % act)

    return end


def _recording(page: Page) -> None:
    _live(page)
    page.click("record")
    page.until("document.getElementById('recording-time').textContent === '0:03'")


def _clip(page: Page) -> None:
    _recording(page)
    page.click("record")
    page.until("document.getElementById('clip').open && document.getElementById('clip-video').readyState >= 2")


def _dropping(page: Page) -> None:
    page.run("document.body.classList.add('dropping')")


def _no_face(page: Page) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (300, 300), "green").save(Path(folder) / "green.png")
        page.choose_file("portrait", Path(folder) / "green.png")
        page.until("document.getElementById('portrait-help').classList.contains('bad')")


def _three(page: Page) -> None:
    page.click("go")
    page.until(IS_LIVE)
    page.until("document.getElementById('heard').textContent === 'I hear you'")


def _large(page: Page) -> None:
    _live(page)
    page.click("full-screen")
    page.until("document.fullscreenElement")


def _wrong(page: Page) -> None:
    page.run("document.getElementById('token').value = 'wrong'; document.querySelector('button').click()")
    page.until("document.getElementById('problem').textContent")


STATES: Mapping[str, tuple[str, Callable[[Page], None]]] = {
    "token": ("", _as_opened),
    "token_wrong": ("", _wrong),
    "missing": ("nowhere", _as_opened),
    "idle": ("", _as_opened),
    "asking": ("", _asking),
    "refused": ("", _refused),
    "live": ("", _live),
    "details": ("", _details),
    "voice_muted": ("", _voice),
    "three": ("#samples=3", _three),
    "large": ("", _large),
    "recording": ("", _recording),
    "clip": ("", _clip),
    "dropping": ("", _dropping),
    "no_face": ("", _no_face),
    "lost": ("", _ended("lose('The connection was lost.')")),
    "full": ("", _ended(_REFUSAL % ("full", _FULL))),
    "busy": ("", _ended(_REFUSAL % ("busy", _BUSY))),
}


if __name__ == "__main__":
    main()
