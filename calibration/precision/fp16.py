"""Which nodes must stay in FP32: as few as reach a bound on pictures and motion, found by trying.

Candidates are emulated (see `emulation`), play the held-out takes, and are held against FP32 from end to end. Nodes
are kept in the order of what they lose in FP16 by themselves (see `ranges`), which decides only where the search
begins: what is kept is what the pictures need, and whatever an export would refuse for its range.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import onnx
import onnxruntime

import pflx
from pflx.calibration.feeds.feeds import Feeds, calibrated
from pflx.calibration.feeds.replay import PICTURES, Performance, play
from pflx.calibration.judge import Bound, Judgement, judge
from pflx.calibration.precision.export_feeds import feeds_of_an_export
from pflx.calibration.precision.fp16_report import TOGETHER, Fp16Report, GraphResult, Trial
from pflx.calibration.precision.ranges import by_risk, measure_ranges
from pflx.calibration.precision.timing import call_ms
from pflx.calibration.progress import Progress, silent
from pflx.engines import Array, Bundle, Engine, OrtEngine
from pflx.engines.bundle.policy import GraphPolicy, Origin, Policy
from pflx.engines.gpu.device import Device
from pflx.engines.graphs.threads import check_threads
from pflx.export.mixed import Choices, Typed, convert, require_converter, skeleton
from pflx.export.precision.emulation import emulate, emulate_typed, opened
from pflx.runtime.bench.measure.environment import describe_environment

PSNR_DB = 45.0
"""Lowest PSNR of a picture unless told; what `pflx export` asks of FP16 graphs."""
_SHOWN_RANGES = 20
_PACKAGES = ("numpy", "onnx", "nvidia-modelopt", "scikit-image")


@dataclass(frozen=True)
class Fp16Options:
    """How to search.

    Attributes:
        bound: what is asked of pictures and motion.
        trials: candidates per graph, at most, at least 2.
        curve: candidates per graph, at least: where the search ends sooner, more are judged for the curve.
        pictures: rendered of each take.
        threads: CPU threads; None takes one per physical core.
        device: a GPU on which every candidate is converted and timed besides; None for none.

    Raises:
        ThreadsError: fewer than one thread, or more than `most_threads()`.
    """

    bound: Bound = field(default_factory=lambda: Bound(psnr_db=PSNR_DB))
    trials: int = 24
    curve: int = 6
    pictures: int = PICTURES
    threads: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        check_threads(self.threads)


def calibrate_fp16(
    bundle: Bundle, feeds: Feeds, options: Fp16Options | None = None, *, progress: Progress = silent
) -> tuple[Policy, Fp16Report]:
    """Find the policy of a bundle.

    Args:
        bundle: with FP32 graphs.
        feeds: recorded from it.
        options: how to search.
        progress: told about every candidate.

    Returns:
        The policy, which holds if `together` of the report has no faults, and the report.

    Raises:
        CalibrationError: the feeds are of another bundle.
        BackendMissingError: ModelOpt or scikit-image is not installed.
        DeviceError: the device is not there.
        EngineError: a graph does not run.
    """
    feeds.require_match(bundle)
    bundle = calibrated(bundle)
    require_converter()
    began = time.monotonic()
    with _Stage(bundle, feeds, options or Fp16Options(), progress) as stage:
        graphs = [stage.search(name) for name in stage.by_cost()]
        together = stage.judge_together({found.graph: found.fp32_nodes for found in graphs})
        exported = stage.judge_exported()
        report = stage.report(graphs, together, exported, time.monotonic() - began)
    return _policy(bundle, report), report


def smallest(
    order: Sequence[str], accepts: Callable[[Sequence[str]], bool], *, begin: int = 1, trials: int = 24
) -> list[str]:
    """As few of the names as are accepted: a beginning of `order` by doubling and halving, then less of it.

    That all of them are accepted is known, and not tried. What is found is small, not proven to be the smallest.

    Args:
        order: names, those that are most likely needed first.
        accepts: judges a selection, which is in the order of `order`.
        begin: with how many to begin, after none was refused.
        trials: calls of `accepts`, at most.

    Returns:
        The selection, in the order of `order`.
    """
    left = trials

    def is_accepted(chosen: Sequence[str]) -> bool:
        nonlocal left
        left -= 1
        return accepts(chosen)

    if left and is_accepted([]):
        return []
    refused, kept, size = 0, list(order), max(1, begin)
    while left and size < len(order) and len(kept) == len(order):
        if is_accepted(order[:size]):
            kept = list(order[:size])
        else:
            refused, size = size, 2 * size
    while left and len(kept) - refused > 1:
        middle = (refused + len(kept)) // 2
        if is_accepted(order[:middle]):
            kept = list(order[:middle])
        else:
            refused = middle
    return _thinned(kept, is_accepted, lambda: left > 0)


def _thinned(
    names: Sequence[str], is_accepted: Callable[[Sequence[str]], bool], may_go_on: Callable[[], bool]
) -> list[str]:
    """Leave out what can be: halves first, then smaller parts, and what is least likely needed first."""
    kept = list(names)
    size = len(kept) // 2
    while size:
        for start in reversed(range(0, len(kept), size)):
            fewer = kept[:start] + kept[start + size :]
            if may_go_on() and fewer and is_accepted(fewer):
                kept = fewer
        size //= 2
    return kept


class _Stage:
    """The takes, the graphs as far as they are decided, and the judge."""

    def __init__(self, bundle: Bundle, feeds: Feeds, options: Fp16Options, progress: Progress) -> None:
        self._bundle, self._feeds, self._options, self._tell = bundle, feeds, options, progress
        self._takes = feeds.takes()
        self._engines: dict[str, Engine] = {}
        self._export_feeds: Mapping[str, Sequence[Mapping[str, Array]]] = {}
        self._reference: list[Performance] = []
        self._gpu: Device | None = None
        self._stack = ExitStack()

    def __enter__(self) -> _Stage:
        """Play the takes in FP32."""
        with ExitStack() as stack:
            if self._options.device:
                self._gpu = stack.enter_context(closing(Device.open(self._options.device)))
            for graph in self._bundle.manifest.graphs:
                engine = OrtEngine(self._bundle.graph_path(graph, "fp32"), threads=self._options.threads)
                self._engines[graph] = _Remembering(stack.enter_context(closing(engine)))
            self._export_feeds = feeds_of_an_export(self._bundle.manifest, self._engines)
            self._tell("reference", 0, None)
            self._reference = self._play(self._engines)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close all graphs."""
        self._stack.close()

    def by_cost(self) -> list[str]:
        """The graphs; the one that gains most in FP16 first, so that the error that is allowed is left to it."""
        graphs = self._bundle.manifest.graphs
        return sorted(graphs, key=lambda name: -(graphs[name].flops or 0))

    def search(self, graph: str) -> GraphResult:
        """Decide one graph, with those before it as they were decided and those after it in FP32."""
        self._tell(f"{graph}: ranges", 0, None)
        feeds = chain(self._feeds.of_graph(graph), self._export_feeds[graph])
        search = _Search(graph, self._model(graph), feeds, self._options.threads)

        def judged(chosen: Sequence[str]) -> bool:
            return not self._try(search, [*search.required, *chosen]).faults

        if search.required:
            self._try(search, [])  # nobody may have it, but the report shows what it would be like
        rest = [node for node in search.order if node not in search.required]
        left = max(1, self._options.trials - len(search.trials))
        kept = [*search.required, *smallest(rest, judged, begin=search.overflowing - len(search.required), trials=left)]
        for size in search.untried(self._options.curve):
            self._try(search, search.order[:size])
        nodes = search.choices.with_movers(kept)
        decided = self._stack.enter_context(opened(emulate(search.model, nodes), self._options.threads))
        self._engines[graph] = _Remembering(decided)
        return search.result(nodes)

    def judge_together(self, policy: Mapping[str, Sequence[str]]) -> Trial:
        """All graphs, converted as the export converts them."""
        with TemporaryDirectory(prefix="pflx-") as folder:
            models = {
                graph: convert(self._bundle.graph_path(graph, "fp32"), nodes, Path(folder, f"{graph}.fp16.onnx"))
                for graph, nodes in policy.items()
            }
        return self._judge_all(models, sum(map(len, policy.values())))

    def judge_exported(self) -> Trial | None:
        """The FP16 graphs of the bundle; None if it has none."""
        graphs = self._bundle.manifest.graphs
        if not all("fp16" in info.files for info in graphs.values()):
            return None
        models = {graph: onnx.load(str(self._bundle.graph_path(graph, "fp16"))) for graph in graphs}
        return self._judge_all(models, sum(len(info.fp32_nodes.get("fp16", ())) for info in graphs.values()))

    def report(self, graphs: list[GraphResult], together: Trial, exported: Trial | None, seconds: float) -> Fp16Report:
        """All that was found."""
        return Fp16Report(
            pflx=pflx.__version__,
            bundle=self._bundle.name,
            untrained=self._bundle.manifest.untrained,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            feeds_sha256=self._feeds.sha256(),
            takes=len(self._takes),
            pictures=self._options.pictures,
            bound=self._options.bound,
            graphs=graphs,
            together=together,
            exported=exported,
            versions={name: version(name) for name in _PACKAGES} | {"onnxruntime": str(onnxruntime.__version__)},
            environment=describe_environment(),
        )

    def _model(self, graph: str) -> onnx.ModelProto:
        return onnx.load(str(self._bundle.graph_path(graph, "fp32")))

    def _try(self, search: _Search, chosen: Sequence[str]) -> Trial:
        nodes = search.choices.with_movers(chosen)
        limit = max(self._options.trials, self._options.curve)
        self._tell(f"{search.graph}: {len(nodes)} nodes in FP32", len(search.trials), limit)
        with opened(emulate(search.model, nodes), self._options.threads) as engine:
            judgement = self._judge(self._engines | {search.graph: engine})
        trial = Trial(
            graph=search.graph,
            fp32_nodes=len(nodes),
            fp16_share=search.fp16_share(chosen),
            judgement=judgement,
            faults=self._options.bound.faults(judgement),
            engine_ms=self._time(search, nodes) if self._gpu else None,
        )
        search.trials.append(trial)
        return trial

    def _time(self, search: _Search, nodes: Sequence[str]) -> float:
        assert self._gpu
        info = self._bundle.manifest.graphs[search.graph]
        with TemporaryDirectory(prefix="pflx-") as folder:
            path = Path(folder, f"{search.graph}.onnx")
            convert(self._bundle.graph_path(search.graph, "fp32"), nodes, path)
            return call_ms(path, info, next(self._feeds.of_graph(search.graph)), self._gpu)

    def _judge_all(self, models: Mapping[str, onnx.ModelProto], fp32_nodes: int) -> Trial:
        self._tell(TOGETHER, 0, None)
        with ExitStack() as stack:
            engines: dict[str, Engine] = {
                graph: stack.enter_context(opened(emulate_typed(model), self._options.threads))
                for graph, model in models.items()
            }
            judgement = self._judge(engines)
        return Trial(
            graph=TOGETHER,
            fp32_nodes=fp32_nodes,
            fp16_share=None,
            judgement=judgement,
            faults=self._options.bound.faults(judgement),
        )

    def _judge(self, engines: Mapping[str, Engine]) -> Judgement:
        return judge(self._reference, self._play(engines), self._bundle.manifest.generator.hop)

    def _play(self, engines: Mapping[str, Engine]) -> list[Performance]:
        manifest, pictures = self._bundle.manifest, self._options.pictures
        return [play(take, manifest, engines, pictures=pictures) for take in self._takes]


class _Search:
    """One graph and what was tried with it."""

    def __init__(
        self, graph: str, model: onnx.ModelProto, feeds: Iterable[Mapping[str, Array]], threads: int | None
    ) -> None:
        self.graph, self.model = graph, model
        typed = Typed(model)
        self.choices = Choices(typed)
        self.trials: list[Trial] = []
        self._convertible = len(typed.convertible)
        self._ranges = by_risk(measure_ranges(model, feeds, threads))
        self.order = [found.node for found in self._ranges]
        self.overflowing = sum(found.error is None for found in self._ranges)
        self.required = [found.node for found in self._ranges if found.needs_fp32]

    def fp16_share(self, chosen: Sequence[str]) -> float:
        """Share of the numbers that are stored in FP16, of those among which is chosen."""
        kept = set(chosen)
        total = sum(found.values for found in self._ranges)
        return sum(found.values for found in self._ranges if found.node not in kept) / total if total else 0.0

    def untried(self, count: int) -> list[int]:
        """How many of the riskiest nodes to keep for the rest of a curve of so many points."""
        spread = np.geomspace(1, max(1, len(self.order)), max(0, count - len(self.trials)) + 1)[:-1]
        return sorted({int(size) for size in spread} - {0})

    def result(self, fp32_nodes: list[str]) -> GraphResult:
        """What was found."""
        return GraphResult(
            graph=self.graph,
            convertible=self._convertible,
            overflowing=self.overflowing,
            fp32_nodes=fp32_nodes,
            trials=self.trials,
            riskiest=self._ranges[:_SHOWN_RANGES],
        )


class _Remembering:
    """An engine that runs no feeds twice: the graphs that are not being searched are given the same in every trial."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._known: dict[bytes, dict[str, Array]] = {}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph, or return what it returned for equal feeds."""
        digest = sha256()
        for name, value in sorted(feeds.items()):
            digest.update(f"{name} {value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        key = digest.digest()
        if key not in self._known:
            self._known[key] = dict(self._engine.run(feeds))
        return self._known[key]

    def close(self) -> None:
        """Close the graph."""
        self._engine.close()


def _policy(bundle: Bundle, report: Fp16Report) -> Policy:
    graphs = {
        found.graph: GraphPolicy(
            skeleton=skeleton(onnx.load(str(bundle.graph_path(found.graph, "fp32")))), fp32_nodes=found.fp32_nodes
        )
        for found in report.graphs
    }
    origin = Origin(
        bundle=report.bundle,
        untrained=report.untrained,
        feeds=report.feeds_sha256,
        bound=msgspec.to_builtins(report.bound),
        judged=msgspec.to_builtins(report.together.judgement),
        evaluations=sum(len(found.trials) for found in report.graphs) + 1,
        versions=report.versions,
    )
    return Policy(created=report.created, pflx=pflx.__version__, graphs=graphs, origin=origin)
