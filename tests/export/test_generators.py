"""Every generator on its way into a bundle: its graphs, run by the runtime, against the published network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exported_generators import exported_generator, untrained_posnet
from support.fakes import fake_manifest
from torch import Tensor

from pflx.engines import Array, GeneratorInfo
from pflx.engines.building.build import HISTORY, default_ranges, profile_for
from pflx.export import ParityError
from pflx.export.chain import ChainInput, last_frames, runtime_generator
from pflx.export.exporter import COEFFICIENT_TOLERANCE, react
from pflx.export.generators import FAMILIES, GeneratorParts
from pflx.runtime.generators import Reaction, SpeakerWindow

# ReactFace, the largest, is exported whole for other tests.
KINDS = [kind for kind in FAMILIES if FAMILIES[kind].networks and kind != "reactface"]
SEGMENTS = {"perfrdiff": 3, "transvae": 2, "belfusion": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_the_runtime_on_the_graphs_reacts_as_the_published_network(kind: str) -> None:
    made = exported_generator(kind)
    assert made.reactions.published.shape == (1, SEGMENTS[kind] * made.parts.hop, 58)
    assert 0 < made.reactions.error("fp32") < COEFFICIENT_TOLERANCE / 4
    assert made.reactions.published.std(axis=1).max() > 0.01, "the reaction does not move"


@pytest.mark.parametrize("kind", KINDS)
def test_what_its_fp16_graphs_store_fits_fp16(kind: str) -> None:
    made = exported_generator(kind)
    made.graphs.watch_rest()
    made.graphs.require_range()
    for graph, entry in made.graphs.errors.items():
        found = entry["fp16"]["range"]
        assert found["calls"] > 0, graph
        assert found["nodes"] > 0, graph
        assert 0 < found["largest_weight"] < 100, graph
        assert 0 < found["widest"][0]["largest"] < 1000, graph
    assert made.reactions.graphs["fp16"].shape == made.reactions.published.shape
    assert 0 < made.reactions.error("fp16") < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_manifest_says_of_a_generator_is_so(kind: str) -> None:
    made = exported_generator(kind)
    info, graphs = made.parts.info, made.graphs.infos
    assert (info.name, info.window, info.hop) == (kind, made.parts.window, made.parts.hop)
    assert set(info.graphs.values()) == graphs.keys() - {"posnet"} == {recipe.graph for recipe in made.parts.recipes}
    with runtime_generator(info, made.graphs.opener("fp32")) as generator:
        assert list(generator.needs) == info.needs
        assert (generator.window, generator.hop) == (info.window, info.hop)


@pytest.mark.parametrize("kind", KINDS)
def test_reactions_in_one_batch_are_those_made_one_by_one(kind: str) -> None:
    made = exported_generator(kind)
    with runtime_generator(made.parts.info, made.graphs.opener("fp32")) as generator:
        speaker = ChainInput.seeded(3, generator, made.parts.sample_rate_hz)
        noise = np.random.default_rng(4).standard_normal((3, generator.noise_size), np.float32)
        fewest = generator.steps[-1] if generator.steps else None

        def first(*samples: int) -> Reaction:
            state = generator.start(len(samples))
            return generator.step(speaker.windows[-1], state, noise[list(samples)], fewest)[0]

        together = first(0, 1, 2)
        for sample in range(3):
            alone = first(sample)
            np.testing.assert_allclose(together.coefficients[sample], alone.coefficients[0], atol=1e-4)
            if together.emotion is not None:
                assert alone.emotion is not None
                np.testing.assert_allclose(together.emotion[sample], alone.emotion[0], atol=1e-4)
        assert np.abs(together.coefficients[0] - together.coefficients[1]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_dimension_of_its_graphs_has_a_range_for_engines(kind: str) -> None:
    made = exported_generator(kind)
    ranges = default_ranges(fake_manifest(generator=made.parts.info))
    for graph in made.graphs.infos.values():
        profile = profile_for(graph.inputs, ranges)
        for smallest, usual, largest in profile.values():
            assert all(1 <= a <= b <= c for a, b, c in zip(smallest, usual, largest, strict=True))


def test_a_history_without_a_bound_gets_one_in_engines() -> None:
    def info(**settings: float) -> GeneratorInfo:
        return GeneratorInfo(name="transvae", window=8, hop=8, needs=[], graphs={}, settings=settings)

    assert default_ranges(fake_manifest(generator=info(history=64)))["history"] == (1, 64, 64)
    for unbounded in (info(), info(history=0)):
        assert default_ranges(fake_manifest(generator=unbounded))["history"] == (1, HISTORY, HISTORY)


class Drifting:
    """Another generator, whose published reaction is not the one that its graphs make."""

    def __init__(self, parts: GeneratorParts) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)

    def published(self, windows: Sequence[SpeakerWindow], noise: Sequence[Array]) -> Tensor:
        return self._parts.published(windows, noise) + 0.01


def test_a_reaction_that_is_not_the_published_one_fails_the_export() -> None:
    made = exported_generator("belfusion")
    with pytest.raises(ParityError, match=r"Coefficients of .* belfusion are 0\.0\d+ away .* allowed is 0\.002"):
        react(made.graphs, cast(Any, Drifting(made.parts)), untrained_posnet(made.parts.hop))


@given(st.integers(1, 60), st.integers(0, 80))
def test_a_window_is_the_last_frames_with_nothing_before_the_first(window: int, count: int) -> None:
    frames = np.arange(1, count + 1, dtype=np.float32)[:, None]
    last = last_frames(frames, window)
    assert last.shape == (window, 1)
    expected = np.maximum(np.arange(count - window + 1, count + 1), 0)
    assert (last[:, 0] == expected).all()
