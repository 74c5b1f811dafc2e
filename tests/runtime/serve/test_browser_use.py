"""The page for everybody: keyboard, screen readers, small windows, dark rooms, pages beside the first."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import numpy as np
import pytest
from support.serve.chromium import Page, wait_for
from support.serve.serve_listener import SIDE
from support.serve.window import IS_LIVE, Server, Window, press

_TOKEN = "a token of some length"


def test_all_of_it_works_from_the_keyboard(window: Window) -> None:
    with window.page() as page:
        page.run("document.getElementById('settings').firstElementChild.focus()")
        press(page, "Enter")
        page.run("document.body.tabIndex = -1, document.body.focus()")
        seen = []
        for _ in range(20):
            press(page, "Tab")
            seen.append(page.run("document.activeElement.id || document.activeElement.name || 'none'"))
        order = ["go", "voice", "portraits", "portrait", "lookahead", "playout"]
        assert [id for id in dict.fromkeys(seen) if id in order] == order
        page.run("document.getElementById('go').focus()")
        press(page, "Enter")
        page.until(IS_LIVE)
        page.run("document.getElementById('mute').focus()")
        press(page, " ")
        assert page.text("mute").strip() == "Unmute"
        page.run("document.getElementById('playout').focus()")
        press(page, "ArrowRight", 2)
        page.run("document.getElementById('lookahead').focus()")
        press(page, "ArrowRight")
        assert page.text("playout-value") == "120 ms"
        assert page.text("lookahead-value") == "6 frames, 240 ms"
        page.until("document.getElementById('playout-used').textContent === '120 ms'")
        page.until("document.getElementById('algorithmic').textContent === '560 ms'")
        page.run("document.querySelector('#samples input').focus()")
        press(page, "ArrowRight")
        page.until(f"document.getElementById('listener').videoWidth === {2 * SIDE}")
        page.run("document.getElementById('go').focus()")
        press(page, " ")
        wait_for(lambda: not window.server.lobby.peers)


def test_everything_has_a_name_for_a_screen_reader(window: Window) -> None:
    with window.live() as page:
        page.run("document.getElementById('settings').open = true")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", []))
        ]
        controls = [(role, name) for role, name in named if role != "RootWebArea"]
        assert len(controls) > 12
        assert all(name for _, name in controls), controls
        roles = {role for role, _ in controls}
        assert {"button", "slider", "combobox", "radio"} <= roles
        assert page.run("document.querySelectorAll('main, h1').length") == 2
        spoken = (
            "[...document.querySelectorAll('[role=status][aria-live=polite], [role=alert]')].map((each) => each.id)"
        )
        assert page.run(spoken) == ["status", "notice", "portrait-help", "said"]
        assert page.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_and_can_be_read(window: Window, width: int, dark: bool) -> None:
    with window.page() as page:
        page.screenshot(size=(width, 800), dark=dark)
        assert page.run("document.documentElement.scrollWidth") <= width
        small = (
            "[...document.querySelectorAll('button, select, .button, .segments label, .portraits label, summary')]"
            ".filter((e) => e.offsetParent)"
        )
        assert page.run(f"Math.min(...{small}.map((e) => e.getBoundingClientRect().height))") >= 44
        style = "getComputedStyle(document.documentElement).getPropertyValue"
        colours = {
            name: page.run(f"{style}('--{name}')")
            for name in ("paper", "card", "ink", "soft", "accent", "on-accent", "edge")
        }
        pairs = [(text, ground) for text in ("ink", "soft") for ground in ("paper", "card")] + [("on-accent", "accent")]
        assert min(contrast(colours[text], colours[ground]) for text, ground in pairs) >= 4.5
        assert (
            min(contrast(colours["edge"], colours[ground]) for ground in ("paper", "card")) >= 3
        )  # of what is pressed
        assert (luminance(colours["paper"]) < 0.2) == dark


def luminance(colour: str) -> float:
    """Of a colour #rrggbb. Source: WCAG 2.2, relative luminance."""
    shares = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    """Source: WCAG 2.2, contrast ratio."""
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_a_visitor_signs_in_with_the_token(window: Window) -> None:
    with Server(token=_TOKEN) as server, Window(server, window.browser).page("#samples=2") as page:
        assert page.run("location.pathname") == "/sign-in"
        assert page.run("document.querySelector('.card').getBoundingClientRect().width") >= 300
        for token in ("wrong", _TOKEN):
            page.run(f"document.getElementById('token').value = {token!r}")
            page.run("document.querySelector('button').click()")
            if token == "wrong":
                page.until("document.getElementById('problem').textContent === 'This is not the token.'")
        page.until("location.pathname === '/' && document.querySelector('#choice option')")
        assert page.run("document.querySelector('#samples :checked').value") == "2"


def test_an_address_that_leads_nowhere_has_a_page_that_says_so(window: Window) -> None:
    with window.page("nowhere") as page:
        assert page.text("title") == "There is no such page"
        assert page.run("performance.getEntriesByType('navigation')[0].responseStatus") == 404
        page.run("document.querySelector('a').click()")
        page.until("location.pathname === '/' && document.querySelector('#choice option')")


def test_what_is_drawn_moves_little_for_who_wants_less_motion(window: Window) -> None:
    with window.live() as page:
        page.run("CanvasRenderingContext2D.prototype.clearRect = () => { window.drawn = (window.drawn ?? 0) + 1; }")
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        drawn = page.run(
            "new Promise((done) => setTimeout(() => { drawn = 0; setTimeout(() => done(drawn), 1500); }, 1200))"
        )
        assert 1 <= drawn <= 2
        assert page.run("getComputedStyle(document.getElementById('said')).transitionDuration") == "0s"
        page.call("Emulation.setEmulatedMedia", features=[])
        page.until("drawn > 20")


def axe() -> Path | None:
    """The script of axe-core: `PFLX_AXE` names it, or it comes with the package axe-core-python."""
    named, package = os.environ.get("PFLX_AXE"), importlib.util.find_spec("axe_core_python")
    if named is not None:
        return Path(named)
    return Path(package.origin).with_name("axe.min.js") if package is not None and package.origin else None


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page."""
    script = axe()
    assert script is not None
    page.run(script.read_text() + "; undefined")
    return list(
        page.run(
            "axe.run(document).then((found) => found.violations.map((each) => `${each.id}: "
            "${each.nodes.map((node) => node.html).join(' ')}`))"
        )
    )


@pytest.mark.skipif(
    axe() is None, reason="axe-core is not installed (pip install axe-core-python, or name it by PFLX_AXE)"
)
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_wrong_in_any_state(window: Window, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    for path in ("nowhere", "sign-in"):
        with window.page(path) as page:
            page.call("Emulation.setEmulatedMedia", features=[scheme])
            assert violations(page) == []
    with window.page() as page:
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        assert violations(page) == []
        page.click("go")
        page.until(IS_LIVE)
        page.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        page.until("document.getElementById('total').textContent !== '–'")
        time.sleep(0.5)  # until the listener is no longer half transparent
        assert violations(page) == []
        page.run("import('/scripts/connection.js').then((module) => module.lose('The connection was lost.'))")
        assert page.run("document.getElementById('notice').hidden") is False
        assert violations(page) == []
