"""A policy keeps what an export would refuse in FP16 for its range, whether or not the pictures show it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from support.places import MEDIA
from support.tiny_graphs import GRAPHS, parsed, tiny_bundle

from pflx.calibration.feeds.record import RecordOptions, record
from pflx.calibration.precision.export_feeds import feeds_of_an_export
from pflx.calibration.precision.fp16 import Fp16Options, calibrate_fp16
from pflx.calibration.precision.fp16_report import Fp16Report
from pflx.calibration.precision.ranges import measure_ranges
from pflx.engines import Array, Bundle, OrtEngine
from pflx.engines.bundle.policy import Policy
from pflx.export.mixed import convert
from pflx.export.precision.watch import ALLOWED, LARGEST, Watch, WatchedEngine
from pflx.runtime import open_speaker

SCALE = 320
"""The squares of the picture are then beyond half of FP16's range, and within it."""
Feeds = Mapping[str, list[dict[str, Array]]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "near.pflx", scale=SCALE)


@pytest.fixture(scope="module")
def export_feeds(bundle: Bundle) -> Feeds:
    with ExitStack() as stack:
        engines = {
            graph: stack.enter_context(closing(OrtEngine(bundle.graph_path(graph), threads=1))) for graph in GRAPHS
        }
        return feeds_of_an_export(bundle.manifest, engines)


@pytest.fixture(scope="module")
def found(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Fp16Report]:
    clips = [open_speaker(MEDIA / "webcam_cap12_12s.mp4").limited(2.0)]
    feeds = record(
        bundle,
        clips,
        MEDIA / "portrait_astronaut_256.png",
        tmp_path_factory.mktemp("recorded") / "feeds",
        options=RecordOptions(limit=2, threads=1),
    )
    return calibrate_fp16(bundle, feeds, Fp16Options(threads=1, trials=4, curve=0, pictures=2))


def seen(path: Path, feeds: list[dict[str, Array]]) -> Watch:
    watch = Watch()
    with closing(WatchedEngine(path, watch, threads=1)) as engine:
        for feed in feeds:
            engine.run(feed)
    return watch


def test_every_graph_is_fed_as_an_export_feeds_it(export_feeds: Feeds) -> None:
    assert export_feeds.keys() == set(GRAPHS)
    assert all(export_feeds.values())
    assert len(export_feeds["reactface_listener"]) == 2


def test_what_comes_near_the_end_is_kept_though_the_pictures_are_good_without(
    bundle: Bundle, found: tuple[Policy, Fp16Report], export_feeds: Feeds, tmp_path: Path
) -> None:
    policy, report = found
    kept = policy.graphs["pirender_frame"].fp32_nodes
    assert {"node_square", "node_power"} <= set(kept)
    renderer = next(each for each in report.graphs if each.graph == "pirender_frame")
    assert renderer.overflowing == 0
    none = next(trial for trial in renderer.trials if trial.fp32_nodes == 0)
    assert not none.faults
    assert not report.together.faults
    source = bundle.graph_path("pirender_frame")
    bare, made = tmp_path / "bare.onnx", tmp_path / "made.onnx"
    convert(source, [], bare)
    convert(source, kept, made)
    misfit = seen(bare, export_feeds["pirender_frame"]).first_misfit
    assert misfit is not None
    assert misfit.node == "node_square"
    assert ALLOWED < misfit.largest < LARGEST
    assert seen(made, export_feeds["pirender_frame"]).first_misfit is None


def test_an_export_accepts_every_graph_of_the_policy(
    bundle: Bundle, found: tuple[Policy, Fp16Report], export_feeds: Feeds, tmp_path: Path
) -> None:
    for graph, decided in found[0].graphs.items():
        convert(bundle.graph_path(graph), decided.fp32_nodes, tmp_path / f"{graph}.onnx")
        assert seen(tmp_path / f"{graph}.onnx", export_feeds[graph]).first_misfit is None


def test_a_node_that_only_takes_large_numbers_is_kept_as_well() -> None:
    text = """(float[n] x) => (float[n] z)
    <float scale = {1000}> { large = Mul (x, scale) z = Div (large, scale) }"""
    model = parsed("through", text)
    ranges = {each.node: each for each in measure_ranges(model, [{"x": np.array([1, -40], np.float32)}], 1)}
    assert (ranges["node_z"].largest, ranges["node_z"].largest_taken) == (40, 40_000)
    assert (ranges["node_large"].largest, ranges["node_large"].largest_taken) == (40_000, 40)
    assert all(each.needs_fp32 for each in ranges.values())
    small = measure_ranges(model, [{"x": np.array([29], np.float32)}], 1)
    assert not any(each.needs_fp32 for each in small)
