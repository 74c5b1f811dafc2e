"""What it costs to react as a person, and what it changes: windows and hops of a person and of nobody, taken in turns.

    python benchmarks/persons/reacting.py [--work DIR] [--threads 2] [--rounds 8] [--persons 8]

The bundle is PerFRDiff with seeded weights and a graph for persons, over the warped portrait. The persons are made up,
too: to every edited tensor, seeded numbers are added of the deviation that the output of a hypernetwork has before it
is trained. What they change says that they change it, and nothing of trained ones.

A call is one denoising step, the least times of its nodes added up. A window is 49 of them; a hop is a window, PosNet,
and 25 pictures. Nobody's is the graph that every bundle has, with its weights inside; a person's is the one that is
given them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pflx.engines import Array, Bundle
from pflx.runtime import EngineSettings, Listener, Person, SpeakerSettings, read_person
from pflx.runtime.builtin import DEMO
from pflx.runtime.generators import Generator
from pflx.runtime.generators.protocol import Personal, SpeakerWindow
from pflx.runtime.persons import write_person

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import report  # noqa: E402 it lies beside the folder of this file

SHIFT = 0.0204
"""Deviation of what a hypernetwork with PyTorch's first weights adds."""
WINDOWS = 4


def exported(folder: Path) -> Path:
    """A bundle of seeded weights that takes persons; the one that is there, if there is one."""
    if (folder / "reacting.pflx").exists():
        return folder / "reacting.pflx"
    import torch

    from pflx.export import ExportSettings, export_bundle, load_components, untrained

    torch.save({"state_dict": untrained("perfrdiff", 0)}, folder / "denoiser.pth")
    settings = ExportSettings(persons=True)
    components = load_components(generator=[folder / "denoiser.pth"], mean_face="zero", settings=settings)
    return export_bundle(folder / "reacting.pflx", components).path


def made_up(bundle: Bundle, seed: int) -> Person:
    """A person of a bundle, whose weights are nobody's and seeded numbers."""
    rng = np.random.default_rng(seed)
    generic = nobodys_weights(bundle)
    return Person(
        name=f"person {seed}",
        style=rng.standard_normal(512, np.float32),
        weights={
            name: generic[name] + np.float32(SHIFT) * rng.standard_normal(generic[name].shape, np.float32)
            for name in generic
        },
        denoiser=next(each.sha256 for each in bundle.manifest.provenance if each.slot == "generator"),
        encoder="0" * 64,
        hypernetwork="0" * 64,
        mode="shift",
        frames=750,
        source="seeded",
        created="2026-01-01T00:00:00Z",
    )


def nobodys_weights(bundle: Bundle) -> dict[str, Array]:
    """The tensors that persons have instead, as the seeded checkpoint has them."""
    from pflx.export import untrained

    graphs = bundle.manifest.graphs
    edited = graphs["perfrdiff_personal"].inputs.keys() - graphs["perfrdiff_denoise"].inputs.keys()
    return {name: np.asarray(value, np.float32) for name, value in untrained("perfrdiff", 0).items() if name in edited}


def speaker_windows() -> list[SpeakerWindow]:
    """Of somebody whose coefficients move slowly, seeded."""
    rng = np.random.default_rng(1)
    steps = 0.05 * rng.standard_normal((50 + 25 * WINDOWS, 58), np.float32).cumsum(axis=0)
    sound = 20 * rng.standard_normal((len(steps), 78), np.float32)
    starts = range(0, 25 * WINDOWS, 25)
    return [{"coefficients": steps[start : start + 50], "mfcc": sound[start : start + 50]} for start in starts]


def reaction(generator: Generator, seed: int = 0) -> Array:
    """float32 [frames, 58] of one sample."""
    state, made = generator.start(1), []
    noise = np.random.default_rng(seed).standard_normal((1, generator.noise_size), np.float32)
    for window in speaker_windows():
        segment, state = generator.step(window, state, noise)
        made.append(segment.coefficients[0])
    return np.concatenate(made)


def differences(listener: Listener, persons: Sequence[Person]) -> dict[str, Any]:
    """How far reactions to one speaker are apart, in root mean squares."""
    nobody, one, other = (reaction(listener.persons.generator(person)) for person in (None, *persons[:2]))
    again = reaction(listener.persons.generator(persons[0]), seed=1)

    def rms(a: Array, b: Array) -> float:
        return round(float(np.sqrt(np.mean(np.square(a - b)))), 4)

    return {
        "frames": len(nobody),
        "two_persons": rms(one, other),
        "a_person_and_nobody": rms(one, nobody),
        "one_person_with_other_noise": rms(one, again),
        "deviation_over_time_of_nobody": round(float(nobody.std(axis=0).mean()), 4),
    }


def window_of(generator: Generator) -> Callable[[], object]:
    """One window, always the same."""
    noise = np.random.default_rng(0).standard_normal((1, generator.noise_size), np.float32)
    state, (window, *_) = generator.start(1), speaker_windows()
    return partial(generator.step, window, state, noise)


class Track:
    """The speaker's coefficients, whatever the pictures show."""

    size = 58

    def __init__(self) -> None:
        self._rows = speaker_windows()

    def extract(self, picture: Array, frame: int) -> Array:
        row: Array = self._rows[frame // 25 % WINDOWS]["coefficients"][frame % 25]
        return row


def hop_of(listener: Listener, person: Person | None) -> Callable[[], object]:
    """A second of the speaker into a stream, and all that comes out."""
    known = SpeakerSettings(extractors={"coefficients": Track()})
    stream = listener.stream(person=person, speaker=known)
    video, sound = np.zeros((25, 64, 64, 3), np.uint8), np.zeros(listener.sample_rate_hz, np.float32)

    def hop() -> int:
        stream.push(video=video, audio=sound)
        return sum(1 for _ in stream.pull())

    for _ in range(3):  # the second segment was made with the first, and the first picture waits for its look-ahead
        hop()
    return hop


def call_times(bundle: Bundle, person: Person, threads: int) -> dict[str, float]:
    """Least ms of every node of one denoising step, added up."""
    rng = np.random.default_rng(0)
    found: dict[str, float] = {}
    for who, graph in (("nobody", "perfrdiff_denoise"), ("person", "perfrdiff_personal")):
        feeds: dict[str, Array] = {
            name: 0.1 * rng.standard_normal([1 if isinstance(axis, str) else axis for axis in spec.shape], np.float32)
            for name, spec in bundle.manifest.graphs[graph].inputs.items()
        }
        given = {**feeds, "step": np.zeros(1, np.int64), **(person.weights if who == "person" else {})}
        nodes = report.node_times(bundle.graph_path(graph), given, {"samples": 1}, threads=threads, calls=30)
        found[f"{who}_ms"] = round(sum(nodes.values()), 2)
    return {**found, "person_to_nobody": round(found["person_ms"] / found["nobody_ms"], 4)}


def times(listener: Listener, person: Person, rounds: int) -> dict[str, Any]:
    """Of windows and hops, of a person and of nobody, in turns."""
    found: dict[str, Any] = {}
    runs: Mapping[str, Mapping[str, Callable[[], object]]] = {
        "window": {
            "nobody": window_of(listener.persons.generator(None)),
            "person": window_of(listener.persons.generator(person)),
        },
        "hop": {"nobody": hop_of(listener, None), "person": hop_of(listener, person)},
    }
    for what, pair in runs.items():
        seconds = report.interleaved(pair, rounds=rounds)
        found[what] = {who: report.summary(each) for who, each in seconds.items()}
        found[what]["person_to_nobody"] = report.ratio(seconds, "person", "nobody")
    return found


def forget_freed() -> None:
    """Give back what was freed, where the C library can: else the first persons take memory that is counted already."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def adding(listener: Listener, folder: Path, persons: Sequence[Person]) -> dict[str, Any]:
    """What a person more takes in a process that has the bundle open: its file read, its weights placed."""
    paths = [folder / f"{number}.person" for number in range(len(persons))]
    for path, person in zip(paths, persons, strict=True):
        write_person(person, path)
    megabytes = paths[0].stat().st_size / 1e6
    process, kept, read_s, made_s = psutil.Process(), list[Generator](), list[float](), list[float]()
    gc.collect()
    forget_freed()
    before = process.memory_info().rss
    for path in paths:
        begun = time.perf_counter()
        person = read_person(path)
        read = time.perf_counter()
        kept.append(listener.persons.generator(person))
        made_s.append(time.perf_counter() - read)
        read_s.append(read - begun)
    gc.collect()
    forget_freed()
    after = process.memory_info().rss
    assert all(isinstance(each, Personal) and each.person for each in kept)
    return {
        "file_mb": round(megabytes, 2),
        "persons": len(paths),
        "memory_mb_each": round((after - before) / 1e6 / len(paths), 2),
        "read": report.summary(read_s),
        "made_ready": report.summary(made_s),
    }


def opening(bundle: Path, settings: EngineSettings) -> float:
    """Seconds until the bundle is open."""
    begun = time.perf_counter()
    Listener.open(bundle, DEMO / "portrait.png", engines=settings).close()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep the bundle here, and take the one that is here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--persons", type=int, default=8)
    args = parser.parse_args()
    environment, settings = report.machine(args.threads), EngineSettings(threads=args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = exported(args.work or folder)
        bundle = Bundle.open(place, verify=False)
        persons = [made_up(bundle, seed) for seed in range(1, 1 + max(2, args.persons))]
        graphs = bundle.manifest.graphs
        sizes = {graph: bundle.manifest.files[info.files["fp32"]].bytes for graph, info in graphs.items()}
        with Listener.open(bundle, DEMO / "portrait.png", engines=settings) as listener:
            added = adding(listener, folder, persons)
            content = {
                "command": f"python benchmarks/persons/reacting.py --threads {args.threads} --rounds {args.rounds} "
                f"--persons {args.persons}",
                "machine": environment,
                "graphs_mb": {graph: round(sizes[graph] / 1e6, 1) for graph in sizes if graph.startswith("perfrdiff")},
                "opening_s": round(opening(place, settings), 2),
                "adding": added,
                "differences": differences(listener, persons),
                "call": call_times(bundle, persons[0], args.threads),
                **times(listener, persons[0], args.rounds),
            }
    report.write("persons_reacting", content)


if __name__ == "__main__":
    main()
