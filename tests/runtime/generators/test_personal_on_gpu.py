"""Persons on a GPU made of Python: one captured loop of denoising steps serves all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import FunctionContext
from support.persons.tiny_bundle import made_up_person, personal_bundle

from pflx.engines import Array, Bundle, OrtEngine
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine
from pflx.runtime.generators import Generator, Persons, make_generator

PERSONS = [None, made_up_person(1), made_up_person(2)]
RNG = np.random.default_rng(0)
SPEAKER = {"coefficients": RNG.standard_normal((50, 58)).astype(np.float32)}
SPEAKER["mfcc"] = 30 * RNG.standard_normal((50, 78)).astype(np.float32)
NOISE = RNG.standard_normal((2, 2900)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return personal_bundle(tmp_path_factory.mktemp("persons") / "tiny.pflx")


@pytest.fixture
def device() -> Iterator[Device]:
    with closing(Device(FakeCuda())) as made:
        yield made


def on_cpu(bundle: Bundle) -> dict[str, OrtEngine]:
    return {graph: OrtEngine(bundle.graph_path(graph)) for graph in bundle.manifest.generator.graphs.values()}


def reaction(generator: Generator) -> Array:
    made = generator.step(SPEAKER, generator.start(2), NOISE)[0].coefficients
    return np.array(made)


def test_a_captured_loop_is_right_for_whoever_comes_next(bundle: Bundle, device: Device) -> None:
    graphs, stream = on_cpu(bundle), device.streams.named("generate")
    expected = Persons(bundle.manifest, make_generator(bundle.manifest.generator, graphs))
    engines = {
        name: DeviceEngine(
            name, FunctionContext(graph.run, graph.inputs, graph.outputs, device, stream, name), device, stream
        )
        for name, graph in graphs.items()
    }
    persons = Persons(bundle.manifest, make_generator(bundle.manifest.generator, engines))
    generators, others = ([each.generator(person) for person in PERSONS] for each in (persons, expected))
    for who in (1, 1, 2, 1, 0, 2, 2, 0, 1):
        np.testing.assert_array_equal(reaction(generators[who]), reaction(others[who]))
    assert (engines["perfrdiff_personal"].captures, engines["perfrdiff_personal"].replays) == (1, 6)
    assert engines["perfrdiff_denoise"].captures == 1
    for engine in engines.values():
        engine.close()
