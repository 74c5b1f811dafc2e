"""Several runs that may be held against one another, or the reason why they may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise

import msgspec
import numpy as np

from pflx.engines import Array, FeedError
from pflx.runtime.evaluation.distance import FEATURES
from pflx.runtime.evaluation.evaluate import Inputs
from pflx.runtime.evaluation.predictions import WITH_POSNET, WITHOUT_POSNET
from pflx.runtime.evaluation.results import SCHEMA, Evaluation
from pflx.runtime.text_table import count


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a comparison.

    Attributes:
        name: what it is called.
        evaluation: what is told of it.
    """

    name: str
    evaluation: Evaluation


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Several runs, judged alike.

    Attributes:
        schema: version of the description of an evaluation.
        command: the command line that made it.
        features: D of the tracks that the challenge's figures are compared of.
        runs: in the order given.
    """

    schema: int = SCHEMA
    command: str = ""
    features: int
    runs: list[Run]


@dataclass(frozen=True)
class Facts:
    """What runs have to have in common, as `facts_of` has it."""

    name: str
    clips: int
    samples: int
    frames: int
    features: int
    ids: tuple[str, ...]
    neighbours: Array
    listener: str
    speaker: str


def facts_of(name: str, inputs: Inputs, features: int | None = None) -> Facts:
    """What one of several runs must have in common with the others. It holds none of the run's tracks.

    Args:
        name: of the run.
        inputs: of the run.
        features: D of the track to compare; None: the emotion where the run tells it, else the coefficients.

    Raises:
        FeedError: the run has no such track.
    """
    clips, samples, frames = inputs.predictions.shape
    there = [track.shape[-1] for track in inputs.tracks.values()]
    chosen = features or (FEATURES if FEATURES in there else there[0])
    if chosen not in there:
        told = " and ".join(map(str, sorted(set(there))))
        raise FeedError(f"{name} has tracks of {told} features, none of {chosen}. Leave out --features {chosen}.")
    return Facts(
        name=name,
        clips=clips,
        samples=samples,
        frames=frames,
        features=chosen,
        ids=inputs.predictions.ids,
        neighbours=np.eye(clips) if inputs.neighbours is None else inputs.neighbours,
        listener=_digest(inputs.listener),
        speaker=_digest(inputs.speaker),
    )


def check_comparable(runs: Sequence[Facts]) -> None:
    """Refuse runs whose figures say nothing beside one another.

    Raises:
        FeedError: two of them are of other clips, numbers of reactions, frames or features, or are held against other
            neighbours, true reactions or speakers. The sentence names both.
    """
    for one, other in pairwise(runs):
        if (difference := _difference(one, other)) is not None:
            raise FeedError(f"{one.name} and {other.name} cannot be compared: {difference}.")


def _difference(one: Facts, other: Facts) -> str | None:
    """What tells two runs apart, and what to do about it."""
    a, b = one.name, other.name
    if one.clips != other.clips:
        return f"{a} has {count(one.clips, 'clip')}, {b} {other.clips}; react to the same clips"
    if one.ids and other.ids and one.ids != other.ids:
        row = next(row for row, ids in enumerate(zip(one.ids, other.ids, strict=True)) if ids[0] != ids[1])
        return f"clip {row} is {one.ids[row]} in {a} and {other.ids[row]} in {b}; react to the same clips"
    if one.samples != other.samples:
        return (
            f"{a} has {count(one.samples, 'reaction')} to each clip, {b} {other.samples}, and FRCorr and FRDist are "
            "sums over them; make as many with --samples"
        )
    if one.frames != other.frames:
        return f"{a} has {count(one.frames, 'frame')}, {b} {other.frames}; take as many with pflx collect --frames"
    if one.features != other.features:
        return f"{a} has {one.features} features, {b} {other.features}; choose those of both with --features"
    if not np.array_equal(one.neighbours, other.neighbours):
        mean, others = (float(run.neighbours.sum(axis=1).mean()) for run in (one, other))
        return (
            f"{a} has {mean:.3g} appropriate reactions to a clip on average, {b} has others, {others:.3g}; pass one "
            "--neighbours for both"
        )
    for what, option, own, its in (
        ("true reactions", "--listener", one.listener, other.listener),
        ("speakers", "--speaker", one.speaker, other.speaker),
    ):
        if own and its and own != its:
            return f"{a} holds other {what} than {b}; pass one {option} for both"
    return None


def _digest(array: Array | None) -> str:
    return "" if array is None else sha256(np.ascontiguousarray(array, np.float64).data).hexdigest()


def as_shown(inputs: Inputs) -> Inputs:
    """A run by the track that was shown, where it holds another beside it and none was asked for."""
    has_both = inputs.posnet is None and {WITH_POSNET, WITHOUT_POSNET} <= inputs.predictions.tracks.keys()
    return replace(inputs, posnet=True) if has_both else inputs
