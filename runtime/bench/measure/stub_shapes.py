"""The graphs of every generator by their shapes alone: what a bundle of it would say, without any file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pflx.engines import (
    FeedError,
    GeneratorInfo,
    GraphInfo,
    Manifest,
    MeanFace,
    PflInfo,
    RendererInfo,
    SmootherInfo,
    TensorSpec,
)
from pflx.runtime.frames.timing import samples_per_frame

KINDS = ("reactface", "perfrdiff", "transvae", "belfusion", "backchannel")
"""Generators that there are stubs of."""

Specs: TypeAlias = dict[str, TensorSpec]

_F32, _U8, _I64, _BOOL = (np.dtype(kind) for kind in (np.float32, np.uint8, np.int64, np.bool_))
_SIDE = 224
_WINDOW = 8  # of the generators whose window is chosen at export
_HISTORY = 64  # frames that Trans-VAE looks back on


@dataclass(frozen=True)
class _Family:
    info: GeneratorInfo
    sample_rate_hz: int
    graphs: Mapping[str, tuple[Specs, Specs]]


def stub_manifest(kind: str = "reactface", *, window: int | None = None, size: int = 256) -> Manifest:
    """A generator, PosNet and PIRender by their shapes.

    Args:
        kind: one of `KINDS`.
        window: frames per segment, of a generator that leaves the choice; None takes 8.
        size: side of a picture in pixels.

    Raises:
        FeedError: there is no such generator, or its window cannot be chosen.
    """
    if kind not in KINDS:
        raise FeedError(f"There is no stub of '{kind}'. Take {', '.join(KINDS)}.")
    if window is not None and kind not in ("reactface", "transvae"):
        raise FeedError(f"The window of {kind} is fixed; it cannot be {window}. Leave it out.")
    family = _family(kind, window or _WINDOW)
    graphs = {**family.graphs, **_posnet(family.info.hop), **_pirender(size)}
    return Manifest(
        created="1970-01-01T00:00:00+00:00",
        pflx="0",
        sample_rate_hz=family.sample_rate_hz,
        generator=family.info,
        smoother=SmootherInfo(name="posnet", slide=family.info.hop, graphs={"smooth": "posnet"}),
        renderer=RendererInfo(
            name="pirender", size=size, graphs={"portrait": "pirender_portrait", "frame": "pirender_frame"}
        ),
        pfl=PflInfo(mode="release", window=256, padding=20),
        mean_face=MeanFace(source="zero", values=[0.0] * 58),
        graphs={
            name: GraphInfo(inputs=inputs, outputs=outputs, parameters=0, opset=20, files={})
            for name, (inputs, outputs) in graphs.items()
        },
        untrained=None,
        precision="stub",
        provenance=[],
    )


def _family(kind: str, window: int) -> _Family:
    match kind:
        case "reactface":
            return _reactface(window)
        case "perfrdiff":
            return _perfrdiff()
        case "transvae":
            return _transvae(window)
        case "backchannel":
            return _backchannel()
    return _belfusion()


def _reactface(window: int) -> _Family:
    sides = {"speaker_motion": window, "speaker_audio": 2 * window}
    return _Family(
        GeneratorInfo(
            name="reactface",
            window=window,
            hop=window,
            needs=["video", "audio"],
            graphs={"speaker": "reactface_speaker", "listener": "reactface_listener"},
        ),
        16_000,
        {
            "reactface_speaker": (
                {
                    "video": TensorSpec(("speakers", window, _SIDE, _SIDE, 3), _U8),
                    "audio": _f32("speakers", samples_per_frame(16_000) * window),
                },
                {name: _f32("speakers", length, 128) for name, length in sides.items()},
            ),
            "reactface_listener": (
                {
                    **{name: _f32(1, length, 128) for name, length in sides.items()},
                    "past_reaction": _f32("samples", window, 58),
                    "past_motion": _f32("samples", 128),
                    "eps": _f32("samples", 128),
                    "first": TensorSpec((1,), _BOOL),
                },
                {"reaction": _f32("samples", window, 58), "motion": _f32("samples", 128)},
            ),
        },
    )


def _perfrdiff() -> _Family:
    memory = {"keys": _f32(7, 2, 1, 8, 64, 100), "values": _f32(7, 2, 1, 8, 100, 64)}
    return _Family(
        GeneratorInfo(
            name="perfrdiff",
            window=50,
            hop=25,
            needs=["coefficients", "mfcc"],
            graphs={"condition": "perfrdiff_condition", "denoise": "perfrdiff_denoise"},
            settings={"mfcc_min": -30.0, "mfcc_max": 15.0},
        ),
        44_100,
        {
            "perfrdiff_condition": ({"coefficients": _f32(1, 50, 58), "mfcc": _f32(1, 50, 78)}, memory),
            "perfrdiff_denoise": (
                {
                    "x": _f32("samples", 50, 58),
                    "previous": _f32("samples", 50, 58),
                    "step": TensorSpec((1,), _I64),
                    "update": _f32(3),
                    **memory,
                },
                {"next": _f32("samples", 50, 58), "clean": _f32("samples", 50, 58)},
            ),
        },
    )


def _transvae(window: int) -> _Family:
    new: Specs = {
        "video": TensorSpec((1, window, _SIDE, _SIDE, 3), _U8),
        "mfcc": _f32(1, window, 78),
        "eps": _f32("samples", 128),
    }
    past = {
        "past_features": _f32("history", 32, 55, 55),
        "past_moments": _f32("history", 2, 32),
        "past_mfcc": _f32(1, "history", 78),
        "past_coefficients": _f32("samples", "history", 58),
        "past_emotion": _f32("samples", "history", 25),
    }
    made = {
        "coefficients": _f32("samples", window, 58),
        "emotion": _f32("samples", window, 25),
        "features": _f32(window, 32, 55, 55),
        "moments": _f32(window, 2, 32),
    }
    return _Family(
        GeneratorInfo(
            name="transvae",
            window=window,
            hop=window,
            needs=["video", "mfcc"],
            graphs={"first": "transvae_first", "next": "transvae_next"},
            settings={"history": float(_HISTORY)},
        ),
        44_100,
        {"transvae_first": (new, made), "transvae_next": (new | past, made)},
    )


def _belfusion() -> _Family:
    return _Family(
        GeneratorInfo(name="belfusion", window=50, hop=50, needs=["emotion"], graphs={"react": "belfusion"}),
        16_000,
        {
            "belfusion": (
                {"speaker_emotion": _f32(1, 50, 25), "noise": _f32("samples", 128)},
                {"coefficients": _f32("samples", 50, 58), "emotion": _f32("samples", 50, 25)},
            )
        },
    )


def _backchannel() -> _Family:
    needs = ["audio", "coefficients"]
    return _Family(GeneratorInfo(name="backchannel", window=_WINDOW, hop=_WINDOW, needs=needs, graphs={}), 16_000, {})


def _posnet(slide: int) -> dict[str, tuple[Specs, Specs]]:
    given = {"segment": _f32("samples", slide, 58), "last_pose": _f32("samples", 6)}
    return {"posnet": (given, {"smoothed": _f32("samples", slide, 58), "pose": _f32("samples", 6)})}


def _pirender(size: int) -> dict[str, tuple[Specs, Specs]]:
    features = {
        "source": _f32("portraits", 3, size, size),
        "warp_features": _f32("portraits", 32, size, size),
        "edit_features": _f32("portraits", 64, size, size),
    }
    return {
        "pirender_portrait": ({"portrait": TensorSpec(("portraits", size, size, 3), _U8)}, features),
        "pirender_frame": (
            {**features, "coefficients": _f32("portraits", "track", 58), "frames": TensorSpec(("frames",), _I64)},
            {"image": TensorSpec(("portraits", "frames", size, size, 3), _U8)},
        ),
    }


def _f32(*shape: int | str) -> TensorSpec:
    return TensorSpec(shape, _F32)
