"""Every figure in benchmarks/results that needs no GPU, measured again by one command; takes an hour and a half.

    pip install MNN==3.6.1 tslearn==0.10.0
    pip install --target WORK/opencv4 --no-deps 'opencv-python-headless<5'
    python tools/measure_all.py WORK [--only networks warp ...]

WORK keeps what is made on the way: bundles with seeded weights, and recorded feeds. Two steps want what was put there
before: `posnet_fit` the folder `tracks` (`tools/make_head_tracks.py` says how), and `behaviour` the folder `media`, of
sounds, and `before`, a checkout to hold it against. The rest of the machine should be idle.
Afterwards: python tools/figures.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MEDIA = Path("tests/media")
CLIPS = (MEDIA / "podium_speech_8s.mp4", MEDIA / "webcam_cap12_12s.mp4")
PORTRAIT = MEDIA / "portrait_astronaut_256.png"
BENCH = ("pflx", "bench-latency")
LIVE = ("--portrait", PORTRAIT, "--speaker", CLIPS[0], "--duration", 20, "--threads", 2)

Words = tuple[object, ...]
"""Of a command; what begins with @ lies in WORK."""

BUNDLES: dict[str, Words] = {
    "me": (),
    **{name: ("--untrained", 0, "--kind", name) for name in ("reactface", "perfrdiff", "transvae", "belfusion")},
}

STEPS: dict[str, Words] = {
    "networks": ("networks.py", "@reactface.pflx", "--rounds", 12),
    "warp": ("warp.py", "@reactface.pflx", CLIPS[1], PORTRAIT),
    "stream": ("stream.py", "@reactface.pflx", CLIPS[0], PORTRAIT),
    "perfrdiff": ("perfrdiff.py", "--rounds", 5),
    "persons_adding": ("persons/adding.py",),
    "persons_reacting": ("persons/reacting.py",),
    "winograd": ("winograd.py", "@reactface.pflx"),
    "webrtc": ("webrtc.py",),
    "sessions": ("live/sessions.py", CLIPS[1], PORTRAIT),
    "visitors": ("live/visitors.py",),
    "browser": ("live/browser.py",),
    "visitors_on_ray": ("live/visitors_on_ray.py",),
    "start": ("live/start.py", CLIPS[1], PORTRAIT),
    "baselines": ("baselines.py", CLIPS[0]),
    "evaluation": ("evaluation.py", "--rounds", 5, "--full-split"),
    "crop": ("dataset/crop.py", "@opencv4", *CLIPS),
    "dataset": ("dataset/resumed.py", *CLIPS),
    "behaviour": ("accuracy/behaviour.py", "--media", "@media", "--before", "@before"),
    "hops": ("accuracy/hops.py", "@reactface.pflx", CLIPS[0], PORTRAIT),
    "generators": (
        *("generators.py", CLIPS[1], PORTRAIT),
        *(f"@{name}.pflx" for name in ("reactface", "perfrdiff", "transvae", "belfusion")),
    ),
    "imitated_gpu": ("imitated_gpu.py", "--sessions", 12, 13, 14, 15, 16, "--seconds", 20),
    "memory": ("memory.py", "@reactface.pflx", PORTRAIT),
    "latency": ("latency.py", "@reactface.pflx", PORTRAIT),
    "latency_backchannel": (*BENCH, "@me.pflx", "--portrait", PORTRAIT, "--duration", 600),
    "latency_transvae": (*BENCH, "@transvae.pflx", *LIVE),
    "latency_belfusion": (*BENCH, "@belfusion.pflx", *LIVE),
    "latency_perfrdiff": (*BENCH, "@perfrdiff.pflx", *LIVE, "--speaker-coefficients", "landmarks"),
    "quantised": ("quantised.py", "@reactface.pflx", "@feeds"),
    "lookahead": ("pflx", "calibrate", "lookahead", "@reactface.pflx", "--feeds", "@feeds"),
    "posnet_fit": (
        *("posnet_fit.py", "@tracks/cap12_edit.npy", "@tracks/cap13_edit2.npy"),
        *("--fit", "@tracks/franck.npy"),
    ),
    "calibrate_fp16": (
        *("pflx", "calibrate", "fp16", "@reactface.pflx", "--feeds", "@feeds", "-o", "@policy.json"),
        *("--pictures", 4),
    ),
}
JSON_OPTION = {"calibrate_fp16": "--report"}


def run(words: Words, work: Path) -> None:
    """Run a command of this checkout, in it, so that reports name no path of the machine."""
    first, *rest = (str(word).replace("@", f"{os.path.relpath(work, ROOT)}/") for word in words)
    is_script = first.endswith(".py")
    program = [sys.executable, f"benchmarks/{first}"] if is_script else [beside_python(first)]
    print("+", first, *rest, flush=True)
    environment = {**os.environ, **({"PYTHONPATH": "benchmarks"} if is_script else {})}  # for those in its folders
    subprocess.run([*program, *rest], cwd=ROOT, check=True, env=environment)


def beside_python(command: str) -> str:
    """The command that is installed with this Python."""
    return str(Path(sys.executable).with_name(command))


def prepare(work: Path, needed: str) -> None:
    """Make the bundles and feeds that a step names, where they are not there yet."""
    for name, options in BUNDLES.items():
        if f"{name}.pflx" in needed and not (work / f"{name}.pflx").exists():
            run(("pflx", "export", *options, "-o", f"@{name}.pflx"), work)
    if "feeds" in needed and not (work / "feeds").exists():
        speakers = [word for clip in CLIPS for word in ("--speaker", clip)]
        run(("pflx", "calibrate", "record", "@reactface.pflx", *speakers, "-p", PORTRAIT, "-o", "@feeds"), work)


def measure(name: str, work: Path) -> None:
    """Run one step; benchmarks write their JSON themselves, verbs of pflx are told to."""
    words = STEPS[name]
    prepare(work, " ".join(map(str, words)))
    if words[0] == "pflx":
        words = (*words, JSON_OPTION.get(name, "--json"), f"benchmarks/results/{name}.json")
    run(words, work)


def main() -> None:
    """One step after the other, so that none disturbs another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=[*STEPS])
    given = parser.parse_args()
    given.work.mkdir(exist_ok=True)
    failed = []
    for name in given.only:
        try:
            measure(name, given.work.resolve())
        except subprocess.CalledProcessError as error:  # what comes after it is measured all the same
            failed.append(f"{name} (exit status {error.returncode})")
    sys.exit(f"Failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
