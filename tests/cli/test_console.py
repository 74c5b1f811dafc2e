"""Where the command speaks: closed and full outputs, plain letters, narrow and silent terminals."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from threading import Event

import pytest
from support.commands import pflx

from pflx.cli.support import console
from pflx.cli.support.console import progress_bar

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="of pipes and devices as POSIX has them")


def shell(line: str, folder: Path, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a line of bash; `pflx` is the command."""
    script = f'pflx() {{ "{sys.executable}" -m pflx "$@"; }}; {line}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, timeout=120, env={**os.environ, **environment}
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("verb", ["--help", "--version"])
def test_a_reader_who_leaves_is_told_in_one_line(tmp_path: Path, verb: str) -> None:
    said = "pflx: The output could not be written: Broken pipe.\n"
    assert shell(f"exec 3> >(exec true); wait $!; pflx {verb} >&3", tmp_path) == (1, "", said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("verb", ["--help", "--version"])
def test_a_full_output_is_told_in_one_line(tmp_path: Path, verb: str) -> None:
    said = "pflx: The output could not be written: No space left on device.\n"
    assert shell(f"pflx {verb} > /dev/full", tmp_path) == (1, "", said)


def test_closed_outputs_do_no_harm(tmp_path: Path) -> None:
    assert shell("pflx --version >&-", tmp_path) == (0, "", "")
    assert shell("pflx bogus 2>&-", tmp_path) == (2, "", "")
    assert shell("pflx bogus 2> /dev/full", tmp_path) == (2, "", "")


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_of_plain_letters_gets_plain_letters(tmp_path: Path, locale: dict[str, str]) -> None:
    code, out, err = shell("pflx serve --help", tmp_path, COLUMNS="40", **locale)
    assert (code, err) == (0, "")
    assert out.isascii()
    assert not [line for line in out.splitlines() if len(line) > 40 >= max(map(len, line.split()))]
    code, _, err = shell("pflx inspect \"$(printf 'caf\\xc3\\xa9 90\\xc2\\xb0\\xff')\"", tmp_path, **locale)
    assert code == 1
    assert err.isascii()
    assert err.count("\n") == 1


@pytest.mark.parametrize("columns", ["40", "300"])
def test_lines_are_whole_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    assert (
        pflx("run").err == "pflx: pflx run needs SPEAKER and --portrait. For example: pflx run speaker.mp4 -p me.png\n"
    )


class Listening(StringIO):
    """A stderr that tells when a line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        self.heard.set()
        return written


def test_long_work_without_a_terminal_is_told_of_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_SAY_EVERY_S", 0.01)
    with redirect_stderr(Listening()) as said, progress_bar() as report:
        report("rendering", 120, 750)
        said.heard.clear()
        assert said.heard.wait(60)
    assert "rendering: 120 of 750, after 0 s\n" in said.getvalue()
