"""A whole listener made of Python functions: the five graphs with their real names and shapes, in milliseconds.

Every function is pure and computes row by row, so that equal input gives equal bits whatever the batch is, and any
bit of a coefficient window changes the picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from support.grouped import grouped
from support.sample_bundle import F32, ROLES

from pflx.engines import (
    Array,
    Engine,
    EngineError,
    FakeEngine,
    GeneratorInfo,
    GraphInfo,
    Manifest,
    MeanFace,
    PflInfo,
    RendererInfo,
    SmootherInfo,
    TensorSpec,
    write_manifest,
)
from pflx.runtime import Face, Listener, Region

HOP = 8
SIZE = 64
SIDE = 224
MEAN_FACE = (np.arange(58, dtype=np.float32) - 29) / 100
REGION = Region(4, 2, 36, 34)

_U8, _I64, _BOOL = np.dtype(np.uint8), np.dtype(np.int64), np.dtype(np.bool_)
Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def _f32(*shape: int | str) -> TensorSpec:
    return TensorSpec(shape, F32)


_FEATURES = {
    "source": _f32("portraits", 3, SIZE, SIZE),
    "warp_features": _f32("portraits", 32, SIZE, SIZE),
    "edit_features": _f32("portraits", 64, SIZE, SIZE),
}
INPUTS: dict[str, dict[str, TensorSpec]] = {
    "reactface_speaker": {
        "video": TensorSpec(("speakers", HOP, SIDE, SIDE, 3), _U8),
        "audio": _f32("speakers", 640 * HOP),
    },
    "reactface_listener": {
        "speaker_motion": _f32(1, HOP, 128),
        "speaker_audio": _f32(1, 2 * HOP, 128),
        "past_reaction": _f32("samples", HOP, 58),
        "past_motion": _f32("samples", 128),
        "eps": _f32("samples", 128),
        "first": TensorSpec((1,), _BOOL),
    },
    "posnet": {"segment": _f32("samples", HOP, 58), "last_pose": _f32("samples", 6)},
    "pirender_portrait": {"portrait": TensorSpec(("portraits", SIZE, SIZE, 3), _U8)},
    "pirender_frame": {
        **_FEATURES,
        "coefficients": _f32("portraits", "track", 58),
        "frames": TensorSpec(("frames",), _I64),
    },
}
OUTPUTS: dict[str, dict[str, TensorSpec]] = {
    "reactface_speaker": {
        "speaker_motion": _f32("speakers", HOP, 128),
        "speaker_audio": _f32("speakers", 2 * HOP, 128),
    },
    "reactface_listener": {"reaction": _f32("samples", HOP, 58), "motion": _f32("samples", 128)},
    "posnet": {"smoothed": _f32("samples", HOP, 58), "pose": _f32("samples", 6)},
    "pirender_portrait": _FEATURES,
    "pirender_frame": {"image": TensorSpec(("portraits", "frames", SIZE, SIZE, 3), _U8)},
}


def _speaker(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    waves = np.linspace(0.5, 2, 128)
    brightness = feeds["video"][:, :, ::5, ::5].astype(np.int64).sum(axis=(2, 3, 4)) / 1e5
    loudness = feeds["audio"].reshape(len(feeds["audio"]), 2 * HOP, 320).astype(np.float64).sum(axis=-1) / 50
    return {
        "speaker_motion": np.sin(brightness[..., None] * waves).astype(np.float32),
        "speaker_audio": np.cos(loudness[..., None] * waves).astype(np.float32),
    }


def _listener(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    past = feeds["past_reaction"][:, -1:] * np.float32(0 if feeds["first"][0] else 0.5)
    heard = feeds["speaker_audio"][:, ::2, :58] * np.float32(0.3)
    motion = feeds["past_motion"] * np.float32(0.5) + feeds["eps"]
    seen = feeds["speaker_motion"][:, :, 64:122] * np.float32(0.3)
    return {"reaction": past + heard + seen + motion[:, None, :58] * np.float32(0.2), "motion": motion}


def _posnet(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    smoothed = feeds["segment"].copy()
    jump = feeds["last_pose"] - smoothed[:, 0, 52:]
    fading = np.float32(0.5) ** np.arange(HOP, dtype=np.float32)
    smoothed[..., 52:] += fading[None, :, None] * jump[:, None]
    return {"smoothed": smoothed, "pose": np.ascontiguousarray(smoothed[:, -1, 52:])}


def _portrait(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    source = np.moveaxis(feeds["portrait"], -1, 1).astype(np.float32) / np.float32(255)
    return {
        "source": np.ascontiguousarray(source),
        "warp_features": np.repeat(source[:, :1], 32, axis=1),
        "edit_features": np.repeat(source[:, 1:2], 64, axis=1),
    }


def picture(window: Array, source: Array) -> npt.NDArray[np.uint8]:
    """uint8 [SIZE, SIZE, 3] that any bit of the 27 coefficient frames or of the portrait changes."""
    content = np.ascontiguousarray(window).tobytes() + np.ascontiguousarray(source).tobytes()
    digest = np.frombuffer(hashlib.blake2b(content).digest(), np.uint8)
    return np.resize(digest, (SIZE, SIZE, 3))


def _frame(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    last = feeds["coefficients"].shape[1] - 1
    windows = [np.clip(np.arange(frame - 13, frame + 14), 0, last) for frame in feeds["frames"].tolist()]
    pairs = zip(feeds["coefficients"], feeds["source"], strict=True)
    return {
        "image": np.stack([np.stack([picture(track[rows], source) for rows in windows]) for track, source in pairs])
    }


FUNCTIONS: dict[str, Function] = {
    "reactface_speaker": _speaker,
    "reactface_listener": _listener,
    "posnet": _posnet,
    "pirender_portrait": _portrait,
    "pirender_frame": _frame,
}


class Recording:
    """Another engine, and a copy of all that went in and out of it."""

    def __init__(self, engine: Engine) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.feeds: list[dict[str, Array]] = []
        self.results: list[dict[str, Array]] = []
        self._engine = engine

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.feeds.append({name: np.array(value) for name, value in feeds.items()})
        results = self._engine.run(feeds)
        self.results.append({name: np.array(value) for name, value in results.items()})
        return results

    def close(self) -> None:
        self._engine.close()


class Reusing:
    """Another engine that returns the same buffers from every call, as the protocol allows it to."""

    def __init__(self, engine: Engine) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine = engine
        self._buffers: dict[tuple[str, tuple[int, ...]], Array] = {}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        results = {}
        for name, value in self._engine.run(feeds).items():
            buffer = self._buffers.setdefault((name, value.shape), np.empty_like(value))
            np.copyto(buffer, value)
            results[name] = buffer
        return results

    def close(self) -> None:
        self._engine.close()


class Failing:
    """Another engine whose n-th call fails, once."""

    def __init__(self, engine: Engine, *, at: int) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.calls = 0
        self._engine, self._at = engine, at

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.calls += 1
        if self.calls == self._at:
            raise EngineError("once")
        return self._engine.run(feeds)

    def close(self) -> None:
        self._engine.close()


class Faces:
    """A detector that is told what it sees: frame n of `frames_of` has `script(n)` in it."""

    def __init__(self, script: Callable[[int], Sequence[tuple[float, float, float, float]]]) -> None:
        self.searched: list[int] = []
        self._script = script

    def detect(self, frame_rgb: npt.NDArray[np.uint8]) -> list[Face]:
        index = int(frame_rgb[0, 0, 0]) + 256 * int(frame_rgb[0, 0, 1])
        self.searched.append(index)
        return [Face(box, 1.0) for box in self._script(index)]


ONE_FACE = Faces(lambda _: [(10.0, 6.0, 16.0, 16.0)])


def frames_of(count: int, *, size: tuple[int, int] = (48, 40), seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 [count, H, W, 3] noise that differs from frame to frame; the first pixel holds the frame's number."""
    frames = np.random.default_rng(seed).integers(0, 256, (count, size[1], size[0], 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return frames


def sound_of(frames: float, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """float32 [640 * frames] noise."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(640 * frames)).astype(np.float32)


def portrait_of(seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def fake_engine(graph: str, function: Function | None = None) -> FakeEngine:
    return FakeEngine(function or FUNCTIONS[graph], INPUTS[graph], OUTPUTS[graph])


def fake_engines(**functions: Function) -> dict[str, Engine]:
    """All five graphs; `functions` takes the place of some."""
    return {graph: fake_engine(graph, functions.get(graph)) for graph in FUNCTIONS}


def fake_manifest(**changes: Any) -> Manifest:
    graphs = {
        name: GraphInfo(
            inputs=INPUTS[name],
            outputs=OUTPUTS[name],
            parameters=1,
            opset=20,
            files={"fp32": f"graphs/{name}.fp32.onnx"},
        )
        for name in FUNCTIONS
    }
    fields: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "pflx": "0.1.0",
        "untrained": 7,
        "generator": GeneratorInfo(
            name="reactface", window=HOP, hop=HOP, needs=["video", "audio"], graphs=_roles("speaker", "listener")
        ),
        "smoother": SmootherInfo(name="posnet", slide=HOP, graphs=_roles("smooth")),
        "renderer": RendererInfo(name="pirender", size=SIZE, graphs=_roles("portrait", "frame")),
        "pfl": PflInfo(mode="release", window=32, padding=2),
        "mean_face": MeanFace(source="sha256:0", values=MEAN_FACE.tolist()),
        "graphs": graphs,
        "precision": "fp32",
        "provenance": [],
    }
    return Manifest(**fields | changes)


def _roles(*names: str) -> dict[str, str]:
    return {role: ROLES[role] for role in names}


def fake_listener(engines: Mapping[str, Engine] | None = None, **options: Any) -> Listener:
    """A listener on fake engines, with a detector that sees one face; takes the fields of its settings, too."""
    given: dict[str, Any] = {"detector": ONE_FACE, "lookahead": 0, "portrait": portrait_of()} | options
    manifest = given.pop("manifest", None) or fake_manifest()
    return Listener(manifest, engines or fake_engines(), **grouped(given, "speaker", "chain"))


def write_fake_bundle(folder: Path, **changes: Any) -> Path:
    """A bundle on the disk whose graphs are small files that no ONNX Runtime could open."""
    (folder / "graphs").mkdir(parents=True)
    manifest = fake_manifest(**changes)
    for name, graph in manifest.graphs.items():
        for file in graph.files.values():
            (folder / file).write_bytes(b"graph " + name.encode())
    (folder / "report.json").write_text('{"graphs": {}, "end_to_end": {}}')
    write_manifest(folder, manifest)
    return folder


def open_fake(path: Path, **_: object) -> FakeEngine:
    """In the place of `OrtEngine`: the fake of the graph whose file it is."""
    return fake_engine(path.name.split(".")[0])
