"""Networks of the chain, one file each, and how they are made from a state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pflx.export.errors import ModelNameError, ModelOptionError
from pflx.export.models import belfusion, perfrdiff, perfrdiff_v1, posnet, reactface, transvae
from pflx.export.models.belfusion import BeLFusion, BeLFusionWindow, EmotionVAE, SkipMLP
from pflx.export.models.keys import Keys, Weights, check_strictly, load_strictly, public_shapes
from pflx.export.models.perfrdiff import EmotionRegressor, PerFRDiff, PerFRDiffRender
from pflx.export.models.perfrdiff_deploy import PerFRDiffCondition, PerFRDiffDenoise, PerFRDiffPersonal
from pflx.export.models.perfrdiff_person import PersonEncoder
from pflx.export.models.perfrdiff_v1 import PerFRDiffV1
from pflx.export.models.pirender import PIRender
from pflx.export.models.posnet import PosNet, PosNetSmoother
from pflx.export.models.reactface import ReactFace, ReactFaceListener, ReactFaceSpeaker
from pflx.export.models.transvae import TransVAE, TransVAEFirst, TransVAENext
from pflx.export.models.weights import fill

__all__ = [
    "NETWORKS",
    "BeLFusion",
    "BeLFusionWindow",
    "EmotionRegressor",
    "EmotionVAE",
    "PIRender",
    "PerFRDiff",
    "PerFRDiffCondition",
    "PerFRDiffDenoise",
    "PerFRDiffPersonal",
    "PerFRDiffRender",
    "PerFRDiffV1",
    "PersonEncoder",
    "PosNet",
    "PosNetSmoother",
    "ReactFace",
    "ReactFaceListener",
    "ReactFaceSpeaker",
    "SkipMLP",
    "TransVAE",
    "TransVAEFirst",
    "TransVAENext",
    "load_model",
    "public_keys",
    "untrained",
    "unused_keys",
]


_PLAIN = Keys()


@dataclass(frozen=True)
class _Network:
    build: Callable[..., nn.Module]
    keys: Keys = _PLAIN
    options: tuple[str, ...] = ()


NETWORKS = {
    "belfusion": _Network(BeLFusion, belfusion.KEYS),
    "belfusion_mlp": _Network(SkipMLP, belfusion.MLP_KEYS),
    "belfusion_vae": _Network(EmotionVAE, belfusion.VAE_KEYS),
    "perfrdiff": _Network(PerFRDiff, perfrdiff.KEYS),
    "perfrdiff_emotion": _Network(EmotionRegressor, perfrdiff.EMOTION_KEYS),
    "perfrdiff_person": _Network(PersonEncoder),
    "perfrdiff_render": _Network(PerFRDiffRender, perfrdiff.KEYS),
    "perfrdiff_v1": _Network(PerFRDiffV1, perfrdiff_v1.KEYS),
    "pirender": _Network(lambda: PIRender(coefficients=58)),
    "pirender73": _Network(lambda: PIRender(coefficients=73)),
    "posnet": _Network(PosNet, options=("slide", "hidden")),
    "reactface": _Network(ReactFace, reactface.KEYS, options=("window",)),
    "transvae": _Network(TransVAE, transvae.KEYS, options=("window",)),
}


def load_model(name: str, state_dict: Weights, **config: int) -> nn.Module:
    """Return a network with the weights of a public checkpoint, in eval mode and without gradients.

    Args:
        name: reactface; perfrdiff (the denoiser of PFLPosNet), perfrdiff_render (that of PerFRDiffRender, with one
            head), perfrdiff_emotion (the regressor of emotion), perfrdiff_person (the encoder of persons) or
            perfrdiff_v1 (the original denoiser); transvae; belfusion, or belfusion_mlp or belfusion_vae alone;
            posnet; pirender or pirender73.
        state_dict: arrays or tensors under the public checkpoint's keys, without prefixes. Weight norm is
            taken in both of PyTorch's spellings. Known keys that no step computes with may be there or not.
        config: reactface and transvae take `window` in frames (8, or another multiple of 8). PosNet's slide and
            width are read from its layers.

    Raises:
        ModelNameError: no such network.
        ModelOptionError: an option that the network does not take, or a value that it cannot work with.
        StateDictError: every missing or unknown key and every wrong shape, in one error.
    """
    network = _network(name, config)
    if name == "posnet" and "fc3.weight" in state_dict:
        config = {**_posnet_size(tuple(state_dict["fc3.weight"].shape)), **config}
        with torch.device("meta"):  # no memory is taken for a size that the file tells, unless all of it is so
            check_strictly(name, network.build(**config), network.keys, state_dict)
    module = network.build(**config)
    load_strictly(name, module, network.keys, state_dict)
    return module.eval().requires_grad_(False)


def _posnet_size(shape: tuple[int, ...]) -> dict[str, int]:
    """Slide and width of a PosNet by the shape of its last layer; none where no layer has such a shape."""
    if len(shape) != 2 or shape[0] < posnet.POSE or shape[1] < 1:
        return {}
    return {"slide": shape[0] // posnet.POSE, "hidden": shape[1]}


def untrained(name: str, seed: int, **config: int) -> dict[str, Tensor]:
    """Return seeded, well-scaled weights under the public checkpoint's keys, float32, to try things out with.

    Args:
        name: as for `load_model`.
        seed: each tensor depends on it, its key and its shape only.
        config: posnet takes `slide` in frames (default 25) and `hidden` (default 512).
    """
    network = _network(name, config)
    with torch.device("meta"):
        shapes = public_shapes(network.build(**config), network.keys)
    return {key: torch.from_numpy(value) for key, value in fill(shapes, seed).items()}


def public_keys(name: str) -> frozenset[str]:
    """Return the keys that a checkpoint of this network must hold, weight norm in its old spelling."""
    network = _network(name, {})
    with torch.device("meta"):
        return frozenset(public_shapes(network.build(), network.keys))


def unused_keys(name: str) -> frozenset[str]:
    """Return the keys that a checkpoint of this network may hold and that no step computes with."""
    return frozenset(_network(name, {}).keys.unread)


def _network(name: str, config: Mapping[str, int]) -> _Network:
    if name not in NETWORKS:
        raise ModelNameError(name, NETWORKS)
    network = NETWORKS[name]
    for option in config:
        if option not in network.options:
            takes = " and ".join(network.options) or "no options"
            raise ModelOptionError(f"{name} takes {takes}, got '{option}'.")
    return network
