"""Untrained weights: seeded, well scaled, the same on every machine."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

# Gains on top of the fan-in scale; the first key part that matches counts.
_GAINS = (
    ("decoder.final.model.0.weight", 0.35),  # the image stays clear of tanh's ends
    ("flow_out.2.weight", 2.5),  # the portrait moves by a few pixels of the flow grid
    ("mlp_gamma.weight", 0.5),
    ("mlp_beta.weight", 0.5),
    ("video_encoder.fc.weight", 5.0),  # averaged over space, video features hardly differ
    ("layers.9.linear.weight", 0.3),  # BeLFusion's prediction stays clear of its clamp
    ("to_3dmm_expr.weight", 0.15),  # guidance by 7.5 would drive predictions into their clamp
    ("to_3dmm_pos.weight", 0.15),
    ("to_3dmm_feat.weight", 0.15),
    ("to_emotion_feat.weight", 0.15),
)
_BOUNDS = {"statistics.min": -0.5, "statistics.max": 0.5}  # where BeLFusion's hidden states lie
_POSNET_PREFIXES = ("encoder.0.", "encoder.2.", "fc1.", "fc2.", "fc3.")


def generator(name: str, seed: int) -> np.random.Generator:
    """Return the random stream that belongs to `name` and `seed`, whatever else is drawn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())])))


def fill(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Return one float32 array per key; each depends on its key, its shape and `seed` only.

    Matrices and kernels are normal with variance gain² / fan-in, norm scales lie around 1, biases are small.
    """
    return {key: _fill_one(key, shape, seed) for key, shape in shapes.items()}


def _fill_one(key: str, shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    values = generator(key, seed).standard_normal(shape)
    leaf = key.rpartition(".")[2]
    if leaf == "weight_g":
        values = 2.0 + 0.2 * values
    elif leaf.endswith("bias") or leaf.startswith("bias_"):
        values *= 0.05
    elif key in _BOUNDS:
        values = _BOUNDS[key] + 0.05 * values
    elif leaf.startswith(("weight_ih", "weight_hh")):
        values /= math.sqrt(shape[1])
    elif not leaf.endswith(("weight", "weight_v")):
        values *= 0.5  # learned tokens
    elif len(shape) == 1 or (len(shape) == 3 and shape[1:] == (1, 1)):
        values = 1.0 + 0.1 * values
    else:
        values *= _gain(key)
        values /= math.sqrt(math.prod(shape[1:]))
    return np.ascontiguousarray(values, dtype=np.float32)


def _gain(key: str) -> float:
    for part, gain in _GAINS:
        if part in key:
            return gain
    return math.sqrt(2.0) if key.startswith(_POSNET_PREFIXES) else 1.0
