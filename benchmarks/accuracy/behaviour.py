"""What the backchannel listener does when somebody speaks, pauses or is silent: nods, blinks and seams.

python benchmarks/accuracy/behaviour.py [--media FOLDER] [--seeds 60] [--before CHECKOUT]

The sounds are those of `tests/media`, and those of FOLDER with these names: dialog_2spk_30s.wav, talk_d20_7s.mp4,
speech_librivox_7s.wav. Their pauses of 0.3 s or more after a second of speech are found by the level of the sound, not
by what the listener hears them with. A nod is told by the generator's state, a blink by the lids. With `--before`, all
of it is measured once more on another checkout, whose figures stand beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pflx.engines import Array, GeneratorInfo
from pflx.runtime import Listener, SpeakerSettings, open_speaker, seeded_noise
from pflx.runtime.bench.measure.environment import commit_of
from pflx.runtime.builtin import builtin_bundle
from pflx.runtime.generators import make_generator
from pflx.runtime.speaker.hearing import Heard, Hearing
from pflx.runtime.speaker.landmarks import ARKIT_NAMES
from pflx.runtime.speaker.pfl import Region

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import report  # noqa: E402 it lies beside the folder of this file

RATE_HZ, HOP, FPS = 16_000, 8, 25
SEGMENT_S = HOP / FPS
PIECE = RATE_HZ // FPS * HOP
INFO = GeneratorInfo(name="backchannel", window=HOP, hop=HOP, needs=["audio", "coefficients"], graphs={})
SOUNDS = ("dialogue_19s.flac", "podium_speech_8s.mp4")
OTHERS = ("dialog_2spk_30s.wav", "speech_librivox_7s.wav", "talk_d20_7s.mp4")
PAUSE_S, AFTER_S, WITHIN_S = 0.3, 1.0, 1.5
BELOW_DB, TICK = 30.0, RATE_HZ // 100
BLINK = ARKIT_NAMES.index("eyeBlinkLeft")
LONG_S = 1200


class Overheard:
    """What is heard of a sound, found once for all listeners."""

    def __init__(self, sound: Array) -> None:
        ears = Hearing()
        self.heard = ears.step(sound, ears.start())[0]

    @property
    def speech_s(self) -> float:
        """Seconds in which somebody speaks."""
        return float((self.heard.voice >= 0.5).sum()) / 100

    def start(self) -> dict[str, Array]:
        """Before the first sound."""
        return {"at": np.array([-PIECE // TICK])}

    def step(self, sound: Array, state: Mapping[str, Array]) -> tuple[Heard, dict[str, Array]]:
        """The next piece; nothing before the sound begins, and after it."""
        ticks = int(state["at"][0]) + np.arange(len(sound) // TICK)
        is_there = (ticks >= 0) & (ticks < len(self.heard.voice))
        at = np.clip(ticks, 0, len(self.heard.voice) - 1)
        return (
            Heard(*(np.where(is_there, told[at], 0).astype(np.float32) for told in self.heard)),
            {"at": np.array([int(ticks[-1]) + 1])},
        )


def sound_of(path: Path) -> Array:
    """Of a clip, in whole segments, float32 at 16 kHz."""
    sound = np.concatenate([chunk.audio for chunk in open_speaker(path, RATE_HZ).chunks()])
    return sound[: len(sound) // PIECE * PIECE]


def pauses(sound: Array) -> list[float]:
    """When pauses begin: 30 dB below the loudest for 0.3 s, after a second in which no such silence is longer."""
    level = np.convolve(
        np.square(sound[: len(sound) // TICK * TICK].astype(np.float64)).reshape(-1, TICK).mean(axis=1),
        np.full(3, 1 / 3),
        "same",
    )
    is_loud = 10 * np.log10(level + 1e-12) > 10 * np.log10(np.percentile(level, 95)) - BELOW_DB
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_loud, [0]]).astype(int)))
    begins, ends = edges[::2] / 100, edges[1::2] / 100
    found, since = [], begins[0] if len(begins) else 0.0
    for end, following in zip(ends[:-1], begins[1:], strict=True):
        if following - end >= PAUSE_S:
            found += [float(end)] if end - since >= AFTER_S else []
            since = following
    return found


def listeners(hearing: Any, seconds: float, seed: int, samples: int) -> tuple[Array, list[list[float]]]:
    """Coefficients of some listeners, [M, T, 58], and when each began to nod."""
    generator: Any = make_generator(INFO, {})
    generator._hearing = hearing
    state, noise = generator.start(samples), seeded_noise(seed)
    speaker = {"audio": np.zeros((HOP, PIECE // HOP), np.float32), "coefficients": np.zeros((HOP, 58), np.float32)}
    nods: list[list[float]] = [[] for _ in range(samples)]
    segments, before = [], state["nods"][:, 1]
    for index in range(int(seconds / SEGMENT_S) + 5):
        draws = np.stack([noise(index, sample, generator.noise_size) for sample in range(samples)])
        reaction, state = generator.step(speaker, state, draws)
        segments.append(reaction.coefficients)
        last = state["nods"][:, 1]
        for sample in np.flatnonzero((last[:, 1:4] != before[:, 1:4]).any(axis=1)).tolist():
            nods[sample].append((index + 1) * SEGMENT_S - float(last[sample, 0]))
        before = last
    return np.concatenate(segments, axis=1), nods


def of_speech(paths: list[Path], seeds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Nods in each sound: how many a minute of speech, of which pauses, and the first of a short try."""
    for path in paths:
        sound = sound_of(path)
        ears = Overheard(sound)
        _, nods = listeners(ears, len(sound) / RATE_HZ, 0, seeds)
        found = pauses(sound)
        answered = [[any(0 < nod - pause <= WITHIN_S for nod in each) for pause in found] for each in nods]
        firsts = np.array([min(each, default=np.inf) for each in nods])
        yield (
            path.name,
            {
                "seconds": len(sound) / RATE_HZ,
                "speech_s": round(ears.speech_s, 2),
                "nods_per_minute_of_speech": round(sum(map(len, nods)) / seeds * 60 / ears.speech_s, 1),
                "pauses_s": found,
                "answered": [round(float(share), 2) for share in np.mean(answered, axis=0)] if found else [],
                "seeds_with_a_nod": int(np.isfinite(firsts).sum()),
                "first_nod_median_s": None if np.isinf(np.median(firsts)) else round(float(np.median(firsts)), 2),
            },
        )


def of_no_speech() -> dict[str, int]:
    """Nods of 8 listeners in 20 s of what is no speech."""
    rng = np.random.default_rng(0)
    time_s = np.arange(20 * RATE_HZ) / RATE_HZ
    sounds = {
        "silence": np.zeros(20 * RATE_HZ),
        "noise": 0.1 * rng.standard_normal(20 * RATE_HZ),
        "tone": 0.3 * np.sin(2 * np.pi * 120 * time_s),
    }
    whole = 20 * RATE_HZ // PIECE * PIECE
    ears = {name: Overheard(sound[:whole].astype(np.float32)) for name, sound in sounds.items()}
    return {name: sum(map(len, listeners(each, 20, 0, 8)[1])) for name, each in ears.items()}


def of_blinks(seeds: int) -> dict[str, Any]:
    """Blinks of one listener in silence for long, and when the first ones of many come."""
    silence = Overheard(np.zeros(PIECE, np.float32))
    lids = listeners(silence, LONG_S, 0, 1)[0][0, :, BLINK] > 0.5
    gaps = np.diff(np.flatnonzero(lids[1:] & ~lids[:-1])) / FPS
    firsts = (listeners(silence, 30, 1, seeds)[0][..., BLINK] > 0.5).argmax(axis=1) / FPS
    return {
        "per_minute": round(60 / float(gaps.mean()), 1),
        "gap_s": {f"p{share}": round(float(np.percentile(gaps, share)), 2) for share in (5, 50, 95)},
        "longest_gap_s": round(float(gaps.max()), 2),
        "first_s": {f"p{share}": round(float(np.percentile(firsts, share)), 2) for share in (0, 50, 100)},
    }


def jumps(track: Array) -> Array:
    """Of the steps of a track but for the first and the last, [T - 3]."""
    steps = np.diff(track.astype(np.float64), axis=0)
    return np.asarray(np.linalg.norm(steps[1:-1] - (steps[:-2] + steps[2:]) / 2, axis=1))


def of_seams(path: Path) -> dict[str, Any]:
    """Mean jump of the pose in a clip, at seams and within segments, as generated and as it is shown.

    A jump is what of a step from frame to frame the steps before and after it do not explain.
    """
    region = Region(0, 0, 32, 32)
    portrait = ROOT / "tests/media/portrait_astronaut_256.png"
    with Listener.open(builtin_bundle(), portrait) as listener:
        frames = list(listener.react(path, speaker=SpeakerSettings(region=region)))
    poses = {
        "generated": np.stack([frame.generated_pose for frame in frames]),
        "shown": np.stack([frame.coefficients[52:] for frame in frames]),
    }
    at_seams = np.arange(2, len(frames) - 1) % HOP == 0
    found: dict[str, Any] = {}
    for name, pose in poses.items():
        turns, shifts = (jumps(part) for part in (np.degrees(pose[:, :3]), pose[:, 3:]))
        for where, rows in (("at_seams", at_seams), ("within", ~at_seams)):
            found[f"{name}_{where}"] = {
                "rotation_deg": float(f"{turns[rows].mean():.3g}"),
                "translation": float(f"{shifts[rows].mean():.3g}"),
            }
    return found


def measured(media: Path | None, seeds: int) -> dict[str, Any]:
    """All figures of this checkout."""
    paths = [ROOT / "tests/media" / name for name in SOUNDS]
    paths += [media / name for name in OTHERS if media and (media / name).exists()]
    speech = dict(of_speech(paths, seeds))
    answered = [share for figures in speech.values() for share in figures["answered"]]
    return {
        "speech": speech,
        "pauses_answered": round(float(np.mean(answered)), 2),
        "nods_where_nobody_speaks": of_no_speech(),
        "blinks": of_blinks(seeds),
        "seams": of_seams(ROOT / "tests/media/podium_speech_8s.mp4"),
    }


def elsewhere(checkout: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The same of another checkout."""
    command = [sys.executable, __file__, "--print", "--seeds", str(args.seeds)]
    command += ["--media", str(args.media)] if args.media else []
    made = subprocess.run(command, env=report.of_checkout(checkout), check=True, capture_output=True, text=True)
    return {"commit": commit_of(checkout), **json.loads(made.stdout)}


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, help="folder with more clips")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--print", action="store_true", help="only print the figures")
    args = parser.parse_args()
    figures = measured(args.media, args.seeds)
    if args.print:
        print(json.dumps(figures))
        return
    before = {} if args.before is None else {"before": elsewhere(args.before, args)}
    command = "python benchmarks/accuracy/behaviour.py --media FOLDER --before CHECKOUT"
    what = f"the backchannel listener beside {args.seeds} seeds; pauses by the level of the sound"
    machine = report.machine(1)
    report.write("behaviour", {"what": what, "command": command, "machine": machine, **before, "now": figures})


if __name__ == "__main__":
    main()
