"""The weights that the fixture of PerFRDiff's personalisation, tests/golden/persons.npz, was made with."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
from support.golden_arrays import golden

from pflx.export.models.weights import fill, generator

SEED = 11
WIDTH = 16
"""Of the fixture's hypernetworks; the published ones are 1024 wide."""
GAINS = {
    "shared_layers.0.": (8.0, 1.0),
    "shared_layers.1.": (3.0, 1.0),
    "branches.0.": (0.01, 0.02),
    "branches.1.": (0.06, 0.2),
    "branches.2.": (0.06, 0.2),
}
"""Factors of weight and bias on top of the usual scale: a person's shift is a third of the weight it is added to."""

Weights = dict[str, npt.NDArray[np.float32]]


def denoiser_weights(variant: str) -> Weights:
    """Of the denoiser that is edited, 'render' or 'v1', under its public keys and without tables."""
    fixture, keys = ("persons", "denoiser_render_keys") if variant == "render" else ("perfrdiff", "denoiser_v1_keys")
    shapes = json.loads(str(golden(fixture)[keys]))
    tables = ("query_pos.pe", "mem_pos.pe") if variant == "render" else ()
    made = fill({key: tuple(shape) for key, shape in shapes.items() if key not in tables}, SEED)
    heads = ("to_3dmm_feat.bias", "to_emotion_feat.bias")
    return made | {key: 0.15 * made[key] for key in heads if key in made}


def modifier_shapes(variant: str, width: int = WIDTH) -> dict[str, tuple[int, ...]]:
    """Of the hypernetwork of 'render' or 'v1', as published or narrower."""
    shapes = json.loads(str(golden("persons")[f"{variant}_keys"]))
    return {key: tuple(width if size == 1024 else size for size in shape) for key, shape in shapes.items()}


def modifier_weights(variant: str) -> Weights:
    """Of the fixture's hypernetwork of 'render' or 'v1'."""
    made = fill(modifier_shapes(variant), SEED)
    return {key: (value.astype(np.float64) * gain(key)).astype(np.float32) for key, value in made.items()}


def first_rows(key: str, rows: int) -> npt.NDArray[np.float32]:
    """The first rows of a weight of the fixture's full hypernetwork, 1024 wide, without those behind them."""
    values = generator(key, SEED).standard_normal((rows, 1024)) / math.sqrt(1024)
    return (values.astype(np.float32).astype(np.float64) * gain(key)).astype(np.float32)


def gain(key: str) -> float:
    """Of a weight or bias of the hypernetwork."""
    weight, bias = next(gains for prefix, gains in GAINS.items() if key.startswith(prefix))
    return bias if key.endswith("bias") else weight


def encoder_weights() -> Weights:
    """Of the person encoder."""
    shapes = json.loads(str(golden("persons")["encoder_keys"]))
    return fill({key: tuple(shape) for key, shape in shapes.items() if not key.endswith(".pe")}, SEED)
