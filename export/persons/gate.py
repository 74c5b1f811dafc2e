"""Is a person right in a bundle? Its graph for persons is held against its denoiser with those weights put in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from pflx.engines import Array, Bundle, OrtEngine
from pflx.engines.bundle.manifest import PERSONAL_ROLE
from pflx.export.generators.perfrdiff import personal_recipe
from pflx.export.parity import ParityError, largest_difference
from pflx.runtime.generators.diffusion import TIMESTEPS

_STEPS = (0, len(TIMESTEPS) // 2, len(TIMESTEPS) - 2)
"""Rows of the timesteps that are looked at: almost nothing but noise, half of it, hardly any."""


def check_person(bundle: Bundle, generic: Mapping[str, Array], weights: Mapping[str, Array]) -> float:
    """Hold a person's steps against those of the denoiser, two ways to one result.

    One way gives the weights to the graph for persons. The other puts them into the denoiser's own graph, in the place
    of the generic ones, which are found by value, lying or standing: names and orientation are an exporter's affair.
    What the bundle has in FP16, too, has to stay finite.

    Args:
        bundle: of PerFRDiffRender, exported for persons.
        generic: the weights that a person replaces, float32, by their keys in the denoiser.
        weights: the person's, likewise.

    Returns:
        The largest difference of a coefficient.

    Raises:
        ParityError: the two are further apart than an export may be from its network.
    """
    graphs, files = bundle.manifest.generator.graphs, bundle.manifest.graphs
    personal, denoise = graphs[PERSONAL_ROLE], graphs["denoise"]
    past = "shift" in files[denoise].inputs
    recipe = personal_recipe(use_past_frames=past)
    example = recipe.example(1, {"samples": 1})
    calls = [{**example, **weights, "step": np.array([row])} for row in _STEPS]
    made = _made(OrtEngine(bundle.graph_path(personal, "fp32")), calls)
    folded = _folded(onnx.load(bundle.graph_path(denoise, "fp32")), generic, weights)
    expected = _made(OrtEngine(denoise, read=folded.SerializeToString), calls)
    apart = {name: largest_difference(expected[name], made[name]) for name in recipe.outputs}
    for name, bound in recipe.tolerance.items():
        if apart[name] > bound:
            raise ParityError(
                f"{personal}: with this person's weights, '{name}' is {apart[name]:.3g} away from the denoiser that "
                f"has them inside, allowed is {bound:g}. Check the mode, and the hypernetwork for huge weights; or "
                "export the bundle again."
            )
    if "fp16" in files[personal].files:
        half = _made(OrtEngine(bundle.graph_path(personal, "fp16")), calls)
        if not all(np.isfinite(value).all() for value in half.values()):
            raise ParityError(
                f"{personal}: this person's weights leave the range of FP16. Make the person for a bundle that was "
                "exported with --precision fp32."
            )
    return max(apart.values())


def _made(engine: OrtEngine, calls: list[dict[str, Array]]) -> dict[str, Array]:
    """What a graph makes of every call, one after the other; of what it does not read it is told nothing."""
    made: dict[str, list[Array]] = {name: [] for name in engine.outputs}
    for call in calls:
        for name, value in engine.run({name: call[name] for name in engine.inputs}).items():
            made[name].append(np.array(value, np.float32))
    engine.close()
    return {name: np.stack(values) for name, values in made.items()}


def _folded(model: onnx.ModelProto, generic: Mapping[str, Array], weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The denoiser's graph with a person's weights in it.

    Raises:
        ParityError: a generic weight is not in it.
    """
    before, after = _joined(generic), _joined(weights)
    found = set()
    for tensor in model.graph.initializer:
        for key, weight in before.items():
            if tuple(tensor.dims) not in (weight.shape, weight.T.shape):
                continue
            value = numpy_helper.to_array(tensor)
            for turned in (False, True):
                if np.array_equal(value, weight.T if turned else weight):
                    own = after[key].T if turned else after[key]
                    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(own), tensor.name))
                    found.add(key)
    if missing := sorted(before.keys() - found):
        raise ParityError(f"{model.graph.name} holds no {missing[0]} as persons edit it. Export the bundle again.")
    return model


def _joined(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The same, with the two heads as the one that PerFRDiffRender has, whose `pos_fusion` passes poses on."""
    heads = ("to_3dmm_expr.weight", "to_3dmm_pos.weight")
    rest = {key: value for key, value in weights.items() if key not in heads}
    return {"to_3dmm_feat.weight": np.concatenate([weights[key] for key in heads]), **rest}
