"""Hostile files in numbers: every reader answers with its numbers or with one line, and takes little memory.

    python tools/long_runs/fuzz.py [--inputs 100000] [--seed 0] [--only READER...] [--look]

Good files are changed at random (bytes flipped, cut off, put in, parts of others pasted) and read in worker processes
whose memory is bounded. What raises anything else than a PflxError, or several lines, hangs, or takes more than a
gigabyte is counted and shown. The tests run a small part of the same, with --look, which writes nothing; the counts of
a long run are in benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import resource
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from pflx.engines import PflxError  # noqa: E402

MEMORY = 1 << 30
SECONDS = 20
MEDIA = ROOT / "tests/media"


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Attributes:
        suffix: of the files it reads.
        good: contents to start from.
        read: reads one; what it returns does not count.
        share: of all inputs, relative to the others.
    """

    suffix: str
    good: list[bytes]
    read: Callable[[Path], object]
    share: float = 1.0


def numbers() -> Reader:
    """Coefficients, predictions, head tracks and mean faces."""
    from pflx.calibration.posnet.motion import read_motion
    from pflx.engines.bundle.mean_face import read_mean_face
    from pflx.runtime.evaluation.predictions import read_predictions
    from pflx.runtime.speaker.recorded import read_recorded

    def read(path: Path) -> None:
        all_of(
            lambda: read_recorded(path, "coefficients"),
            lambda: read_predictions(path),
            lambda: read_motion(path, 8),
            lambda: read_mean_face(str(path)),
        )

    track = np.random.default_rng(0).standard_normal((40, 58)).astype(np.float32)
    plain, packed, single, face = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(plain, coefficients=track[None], generated_pose=track[None, :, :6], fps=25, hop=8)
    np.savez_compressed(packed, coefficients=track)
    np.save(single, track)
    np.save(face, track[0])
    return Reader(".npz", [each.getvalue() for each in (plain, packed, single, face)], read, 3)


def snapshots() -> Reader:
    """Snapshots of a stream, changed and sealed again."""
    from support.sessions import SOUND, VIDEO, listener

    from pflx.runtime.frames.snapshot import sealed, unsealed

    source = listener()
    stream = source.stream(samples=2, seed=5)
    stream.push(video=VIDEO[:20], audio=SOUND)
    next(stream.pull())
    good = io.BytesIO()
    arrays: dict[str, Any] = unsealed(stream.snapshot())
    np.savez(good, **arrays)

    def read(path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as found:
                kept = sealed({name: found[name] for name in found})
        except Exception:  # not the reader that is tried
            kept = {}
        resumed = source.resume(kept)
        resumed.finish()
        list(resumed.pull())

    return Reader(".npz", [good.getvalue()], read, 2)


def documents() -> Iterator[Reader]:
    """Manifests and policies."""
    from support.sample_bundle import ORIGIN, sample_manifest

    from pflx.engines.bundle.manifest import decode_manifest, encode_manifest
    from pflx.engines.bundle.policy import GraphPolicy, Policy, encode_policy, read_policy

    manifest = encode_manifest(sample_manifest(("fp32", "fp16")))
    yield Reader(".json", [manifest], lambda path: decode_manifest(path.read_bytes(), "it"), 2)
    graphs = {"posnet": GraphPolicy(skeleton="cd" * 32, fp32_nodes=["node_mean", "node_linear"])}
    policy = Policy(created="2026-01-02T03:04:05+00:00", pflx="0.1.0", graphs=graphs, origin=ORIGIN)
    yield Reader(".json", [encode_policy(policy)], read_policy)


def checkpoints() -> Reader:
    """Weights: PyTorch's archive and its older form, safetensors, an index of shards."""
    import torch
    from safetensors.torch import save

    from pflx.export import load_component, untrained

    weights = untrained("posnet", 0, slide=8)
    archive, older = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": weights, "epoch": 3}, archive)
    torch.save(weights, older, _use_new_zipfile_serialization=False)
    index = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "shard.safetensors")}).encode()
    good = [archive.getvalue(), older.getvalue(), save(weights), index]
    return Reader(".pt", good, lambda path: load_component(path, "posnet", slide=8), 0.5)


def feeds() -> Iterator[Reader]:
    """Recorded feeds: an index, and an array that it names."""
    from pflx.calibration.feeds.feeds import (
        ArrayStore,
        FeedIndex,
        FeedInfo,
        Feeds,
        GraphFeeds,
        StepInfo,
        TakeInfo,
        encode_index,
    )

    with tempfile.TemporaryDirectory() as folder:
        store = ArrayStore(Path(folder))
        name = store.put(np.arange(12, dtype=np.float32))
        array = (Path(folder) / f"{name}.npy").read_bytes()
    take = TakeInfo(
        clip="a.mp4",
        portrait=name,
        generator_state={"x": name},
        smoother_state={},
        steps=[StepInfo(window={"video": name}, noise=name, is_seam=True)],
    )
    kept = {"posnet": GraphFeeds(seen=1, feeds=[FeedInfo(clip="a.mp4", arrays={"x": name})])}
    facts: dict[str, Any] = {
        "pflx": "0.1.0",
        "bundle": "me.pflx",
        "graph_sha256": {"posnet": "ab" * 32},
        "seed": 0,
        "limit": 3,
    }
    index = encode_index(FeedIndex(**facts, graphs=kept, takes=[take]))

    def read(content: bytes, stored: bytes, folder: Path) -> None:
        (folder / "arrays").mkdir(parents=True, exist_ok=True)
        (folder / "feeds.json").write_bytes(content)
        (folder / "arrays" / f"{name}.npy").write_bytes(stored)
        opened = Feeds.open(folder)
        opened.takes()
        list(opened.of_graph("posnet"))

    yield Reader(".json", [index], lambda path: read(path.read_bytes(), array, path.parent / "feeds"))
    yield Reader(".npy", [array], lambda path: read(index, path.read_bytes(), path.parent / "feeds"))


def pictures() -> Reader:
    """Portraits."""
    from PIL import Image

    from pflx.runtime.rendering.portrait import load_portrait

    good = []
    picture = Image.open(MEDIA / "portrait_astronaut_256.png").convert("RGB").resize((96, 96))
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        made = io.BytesIO()
        picture.save(made, kind)
        good.append(made.getvalue())
    return Reader(".png", good, load_portrait, 2)


def clips() -> Reader:
    """Speakers."""
    from pflx.runtime import open_speaker

    good = (MEDIA / "podium_speech_8s.mp4").read_bytes()

    def read(path: Path) -> None:
        for _ in open_speaker(path).limited(0.5).chunks():
            pass

    return Reader(".mp4", [good], read, 0.15)


def persons() -> Reader:
    """Files of persons."""
    from support.persons.tiny_bundle import made_up_person

    from pflx.runtime.persons import read_person, write_person

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.person"
        write_person(made_up_person(0), path)
        return Reader(".person", [path.read_bytes()], read_person)


def readers() -> list[tuple[str, Reader]]:
    """Every reader by name."""
    manifests, policies = documents()
    indices, arrays = feeds()
    return [
        ("numbers", numbers()),
        ("snapshots", snapshots()),
        ("manifests", manifests),
        ("policies", policies),
        ("checkpoints", checkpoints()),
        ("indices of feeds", indices),
        ("arrays of feeds", arrays),
        ("pictures", pictures()),
        ("persons", persons()),
        ("clips", clips()),
    ]


def all_of(*reads: Callable[[], object]) -> None:
    """Try several readers, each of which may refuse in one line.

    Raises:
        PflxError: the last refusal, if all did, or one of several lines.
    """
    refusals = []
    for read in reads:
        try:
            read()
        except PflxError as error:
            if "\n" in str(error):
                raise
            refusals.append(error)
    if len(refusals) == len(reads):
        raise refusals[-1]


def spoilt(good: bytes, rng: random.Random) -> bytes:
    """A good file with some of it changed; archives member by member now and then, so that their sums stay right."""
    if good.startswith(b"PK") and rng.random() < 0.6:
        return _archive(good, rng)
    content = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(content) + 1) if rng.random() < 0.5 else rng.randrange(min(len(content), 512) + 1)
        way = rng.randrange(6)
        if way == 0:
            del content[place:]
        elif way == 1:
            content[place:place] = rng.randbytes(rng.choice((1, 4, 64)))
        elif way == 2:
            other = rng.randrange(len(content) + 1)
            content[place:place] = content[other : other + rng.choice((4, 64, 1024))]
        elif way == 3:
            del content[place : place + rng.choice((1, 4, 64))]
        else:
            for at in range(place, min(place + rng.choice((1, 1, 4)), len(content))):
                content[at] = rng.choice((0, 255, rng.randrange(256), content[at] ^ (1 << rng.randrange(8))))
        content = content or bytearray(b"\0")
    return bytes(content)


def _archive(good: bytes, rng: random.Random) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(made, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, spoilt(content, rng) if name == chosen else content)
    return made.getvalue()


def run(share: tuple[str, int, int]) -> tuple[str, Mapping[str, int], list[str]]:
    """Some inputs of one reader, in this process: how they ended, and what ended badly."""
    name, seed, count = share
    reader = dict(readers())[name]
    resource.setrlimit(resource.RLIMIT_DATA, (3 * MEMORY, 3 * MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    ended: Counter[str] = Counter()
    bad: list[str] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        path = Path(folder) / f"hostile{reader.suffix}"
        for number in range(count):
            rng = random.Random(f"{name} {seed} {number}")
            path.write_bytes(spoilt(rng.choice(reader.good), rng))
            signal.alarm(SECONDS)
            try:
                reader.read(path)
                ended["read"] += 1
            except PflxError as error:
                several = "\n" in str(error)
                ended["refused in several lines" if several else "refused in one line"] += 1
                bad += [f"{name} {seed} {number}: {error}"] * several
            except BaseException as error:
                ended["escaped"] += 1
                bad.append(f"{name} {seed} {number}: {type(error).__name__}: {str(error)[:200]}")
            finally:
                signal.alarm(0)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            if grown > MEMORY:
                ended["took more than a gigabyte"] += 1
                bad.append(f"{name} {seed} {number}: {grown / 1e9:.1f} GB")
                before += grown // 1024
    return name, ended, bad


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def main() -> None:
    """All readers, side by side in as many processes as there are cores."""
    from report import machine, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="names of readers")
    parser.add_argument("--look", action="store_true", help="print the counts, and write nothing")
    given = parser.parse_args()
    found, begun = [each for each in readers() if each[0] in (given.only or [each[0]])], time.monotonic()
    unit = given.inputs / sum(reader.share for _, reader in found)
    parts = 8 if given.inputs > 10_000 else 1
    shares = [
        (name, given.seed * parts + part, math.ceil(unit * reader.share / parts))
        for name, reader in found
        for part in range(parts)
    ]
    counts: dict[str, Counter[str]] = {name: Counter() for name, _ in found}
    bad: list[str] = []
    with ProcessPoolExecutor(max_tasks_per_child=1) as pool:
        for name, ended, faults in pool.map(run, shares):
            counts[name].update(ended)
            bad += faults
    for fault in bad[:50]:
        print(fault)
    by_reader = {name: dict(sorted(counter.items())) for name, counter in counts.items()}
    if given.look:
        print(json.dumps(by_reader, indent=1))
        sys.exit(bool(bad))
    write(
        "fuzz",
        {
            "command": f"python tools/long_runs/fuzz.py --inputs {given.inputs} --seed {given.seed}",
            "machine": machine(2),
            "seconds": round(time.monotonic() - begun),
            "inputs": sum(counter.total() - counter["took more than a gigabyte"] for counter in counts.values()),
            "escaped": len(bad),
            "by_reader": by_reader,
        },
    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
