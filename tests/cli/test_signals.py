"""Signals to stop: what is said, what the exit code is, and that it holds at any moment, imports included."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import MEDIA

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

SAID = "pflx: Stopped. Nothing half-written was left.\n"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

HOOKED = """
import importlib.abc, signal, sys

awaited, how = sys.argv[1], int(sys.argv[2])

class Stopping(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == awaited:
            sys.meta_path.remove(self)
            exec("signal.raise_signal(how)")  # as in the exec of a dataclass

sys.meta_path.insert(0, Stopping())
from pflx.__main__ import main
sys.argv = ["pflx", *sys.argv[3:]]
main()
"""

IMPORTS = """
import signal, sys
from pflx.cli import doctor, main
from pflx.cli.support import signals
from pflx.cli.support.signals import asked_to_end, ended_by, stoppable
from pflx.engines import EngineError
"""

DOCTOR = 'sys.argv = ["pflx", "doctor"]; main()'


def stopped_at(module: str, how: signal.Signals, folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that gets a signal when it first imports a module."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and its children do
    (folder / "hooked.py").write_text(HOOKED)
    command = [sys.executable, "-m", "hooked", module, str(int(how)), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_while_the_command_itself_loads_is_answered(tmp_path: Path, how: signal.Signals) -> None:
    assert stopped_at("typer", how, tmp_path, "--help") == (128 + how, "", SAID)


@pytest.mark.parametrize(
    ("module", "how"), [*zip(["pflx.runtime.listener", "onnxruntime", "av"], SIGNALS, strict=True)]
)
def test_a_signal_while_a_verb_loads_what_it_needs_is_answered(
    tmp_path: Path, module: str, how: signal.Signals
) -> None:
    clip, portrait = MEDIA / "podium_speech_8s.mp4", MEDIA / "portrait_astronaut_256.png"
    arguments = ("run", clip, "-p", portrait, "-o", "out.mp4", "--coefficients", "out.npz")
    assert stopped_at(module, how, tmp_path, *arguments) == (128 + how, "", SAID)
    assert {path.name for path in tmp_path.iterdir()} <= {"hooked.py", "__pycache__"}


@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_at_work_has_its_own_exit_code(how: signal.Signals) -> None:
    working = f"doctor.find_gpus = lambda: signal.raise_signal({int(how)})"
    assert in_its_own_process(f"{working}\n{DOCTOR}") == (128 + how, "", SAID)


@pytest.mark.parametrize("kind", ["EngineError", "RuntimeError"])
def test_what_fails_because_it_was_stopped_counts_as_stopped(kind: str) -> None:
    code = f"""
def fail():
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise {kind}("a module that was half imported") from None

doctor.find_gpus = fail
{DOCTOR}"""
    assert in_its_own_process(code) == (143, "", SAID)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    code = f"""
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
doctor.examine = lambda: signal.raise_signal(signal.SIGHUP) or ()
try:
    {DOCTOR}
finally:
    print(signal.getsignal(signal.SIGHUP).name)"""
    ended, said, erred = in_its_own_process(code)
    assert (ended, said.split()[-1], erred) == (0, "SIG_IGN", "")


def test_impatient_presses_do_not_interrupt_the_cleaning_up() -> None:
    code = """
before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
try:
    with stoppable() as stop:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            print("cleaned", stop.code)
except KeyboardInterrupt:
    print([signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before)"""
    assert in_its_own_process(code) == (0, "cleaned 143\nTrue\n", "")


def test_what_ends_by_itself_is_asked_to_before_the_signal_does_the_rest() -> None:
    code = """
try:
    with stoppable() as stop, ended_by("SIGHUP", lambda: print("asked")):
        signal.raise_signal(signal.SIGHUP)
        print("ended")
except KeyboardInterrupt:
    print(stop.code)"""
    assert in_its_own_process(code) == (0, "asked\nended\n129\n", "")


def in_its_own_process(code: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a test process holds libraries that take signals in ways of their own."""
    command = [sys.executable, "-c", f"{IMPORTS}{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_whoever_asks_for_an_end_waits_for_it_and_insists_on_it_later() -> None:
    code = """
before = signal.getsignal(signal.SIGTERM)
with stoppable() as stop:
    try:
        with asked_to_end("Soon.") as is_asked:
            print(is_asked(), flush=True)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # the same wish
            print(is_asked(), stop.number, flush=True)
    except KeyboardInterrupt:
        print("afterwards", stop.code, flush=True)
    stop.number, signals._ONE_WISH_S = None, 0.0
    try:
        with asked_to_end("Soon.") as is_asked:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            print("never")
    except KeyboardInterrupt:
        print("at once", stop.code, flush=True)
print(signal.getsignal(signal.SIGTERM) == before)"""
    said = "False\nTrue None\nafterwards 143\nat once 130\nTrue\n"
    assert in_its_own_process(code) == (0, said, "\npflx: Soon.\n\npflx: Soon.\n")
