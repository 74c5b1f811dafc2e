"""Live sessions of the listener that comes with pflx: how many are kept on this machine, and what one costs.

    PYTHONPATH=benchmarks python benchmarks/live/sessions.py CLIP PORTRAIT [--sessions 2 4 8] [--voices 10 20]

    ... --against FOLDER     the same of another checkout, in turns
    ... --seconds 60 --name sessions_minute

CLIP is the speaker of every session. With --voices, they are heard and not seen. A number is kept as in `pflx
bench-latency --mode sessions`: at most 0.1 % of all frames missed, and no segment that takes longer than it lasts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import report

from pflx.runtime import open_speaker
from pflx.runtime.bench.measure.environment import commit_of

_MEASURE = """
import json, resource, sys
from pathlib import Path
from pflx.runtime import Listener
from pflx.runtime.bench.measure.plan import Plan
from pflx.runtime.bench.measure.sessions import measure_sessions
from pflx.runtime.live.clock import SystemClock

clip, portrait, sessions, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
plan = Plan(stub=True, portrait=portrait, speaker=clip, duration_s=seconds)
with Listener.open(portrait=portrait) as listener:
    begun = resource.getrusage(resource.RUSAGE_SELF)
    row = measure_sessions(listener, plan, sessions, SystemClock())
    ended = resource.getrusage(resource.RUSAGE_SELF)
busy = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
print(json.dumps({
    "sessions": sessions, "kept": row.kept, "missed": row.dmr, "turnaround_p99_ms": row.turnaround_p99_ms,
    "cpu_ms_per_frame": round(1000 * busy / (sessions * seconds * 25), 2),
}))
"""


def voice_of(clip: Path, folder: Path) -> Path:
    """The sound of a clip, as a file of sound alone."""
    sound = np.concatenate([chunk.audio for chunk in open_speaker(clip).chunks(25)])
    path = folder / "voice.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path


def measure(checkout: Path, clip: Path, portrait: Path, sessions: int, seconds: float) -> dict[str, Any]:
    """So many sessions at once, in a process of their own."""
    words = [sys.executable, "-c", _MEASURE, str(clip), str(portrait), str(sessions), str(seconds)]
    with TemporaryDirectory() as folder:
        done = subprocess.run(words, env=report.of_checkout(checkout), cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(checkout.name, found, flush=True)
    return found


def words(numbers: Sequence[int]) -> str:
    """As they are given in a command."""
    return " ".join(map(str, numbers))


def main() -> None:
    """One number of sessions after the other, each in all checkouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("portrait", type=Path)
    parser.add_argument("--sessions", type=int, nargs="*", default=[1, 2, 4, 6, 8, 10])
    parser.add_argument("--voices", type=int, nargs="*", default=[10, 20])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    parser.add_argument("--name", default="sessions_cpu", help="of the JSON")
    given = parser.parse_args()
    checkouts = {"here": Path(__file__).resolve().parents[2]}
    if given.against:
        checkouts["there"] = given.against.resolve()
    command = "PYTHONPATH=benchmarks python benchmarks/live/sessions.py CLIP PORTRAIT"
    command += f" --sessions {words(given.sessions)} --voices {words(given.voices)}"
    content: dict[str, Any] = {
        "command": f"{command} --seconds {given.seconds:g}" + (" --against FOLDER" if given.against else ""),
        "machine": report.machine(1),
        "clip": given.clip.name,
        "seconds": given.seconds,
        "commits": {name: commit_of(checkout) for name, checkout in checkouts.items()},
    }
    with TemporaryDirectory() as folder:
        speakers = {
            "seen": (given.clip.resolve(), given.sessions),
            "heard": (voice_of(given.clip, Path(folder)), given.voices),
        }
        for speaker, (clip, numbers) in speakers.items():
            rows: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
            for n, sessions in enumerate(numbers):
                for name in sorted(checkouts, reverse=bool(n % 2)):
                    portrait = given.portrait.resolve()
                    rows[name].append(measure(checkouts[name], clip, portrait, sessions, given.seconds))
            content[speaker] = rows
    report.write(given.name, content)


if __name__ == "__main__":
    main()
