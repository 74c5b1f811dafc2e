"""Graphs on their way into a bundle: each is traced, checked against its module and described."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import onnx
from torch import nn

from pflx.engines import Engine, GraphInfo, OrtEngine
from pflx.engines.bundle.policy import GraphPolicy, Policy, PolicyError, encode_policy, policy_sha256
from pflx.export.errors import RangeError
from pflx.export.mixed import check_policy, convert, require_converter
from pflx.export.parity import check_graph, count_flops, graph_errors
from pflx.export.precision.watch import LARGEST, Watch, WatchedEngine
from pflx.export.recipes import OPSET, Recipe
from pflx.export.trace import fp32_nodes, stored_parameters, trace, write_as

Precision = Literal["fp32", "fp16"]

POLICY = "policy.fp16.json"
"""The policy of a bundle that was exported with one."""


class GraphFolder:
    """The graphs of one export.

    Attributes:
        precisions: what each graph is written in, FP32 first.
        infos: what the manifest says of each graph, by name.
        errors: what the report says of each.
    """

    def __init__(
        self,
        folder: Path,
        precisions: Sequence[Precision],
        tell: Callable[[str], None],
        policy: Policy | None = None,
    ) -> None:
        """Begin in a folder that becomes a bundle.

        Args:
            folder: its graphs go to `graphs` in it.
            precisions: FP32 is among them.
            tell: told what is about to be done.
            policy: decides the FP16 graphs that it names; in others, the modules do.

        Raises:
            BackendMissingError: a policy was given, and ModelOpt is not installed.
        """
        self.precisions = precisions
        self.infos: dict[str, GraphInfo] = {}
        self.errors: dict[str, dict[str, Any]] = {}
        self._folder, self._tell, self._policy = folder, tell, policy
        self._watches: dict[str, Watch] = {}
        self._recipes: dict[str, Recipe] = {}
        (folder / "graphs").mkdir()
        if policy:
            require_converter()
            (folder / POLICY).write_bytes(encode_policy(policy))

    def path(self, graph: str, precision: str) -> Path:
        """Where a graph lies."""
        return self._folder / "graphs" / f"{graph}.{precision}.onnx"

    def opener(self, precision: str) -> Callable[[str], Engine]:
        """Graph → an engine of it: ONNX Runtime's for FP32, one that emulates FP16 and watches it for others."""
        if precision == "fp32":
            return lambda graph: OrtEngine(self.path(graph, precision))
        return lambda graph: WatchedEngine(self.path(graph, precision), self._watches.setdefault(graph, Watch()))

    def require_range(self) -> None:
        """Look at what was seen of the FP16 graphs that ran so far, and put it into the report.

        Raises:
            RangeError: numbers in one of them do not fit FP16 with a factor of two to spare.
        """
        for graph, watch in self._watches.items():
            if fault := _misfit(watch):
                raise RangeError(f"{graph}: {fault}. {self._way_out(graph)}")
            self.errors[graph]["fp16"]["range"] = watch.report()

    def watch_rest(self) -> None:
        """Run the FP16 graphs that did not run yet, on seeded inputs."""
        for graph, recipe in self._recipes.items():
            if "fp16" in self.precisions and graph not in self._watches:
                with closing(self.opener("fp16")(graph)) as engine:
                    engine.run(recipe.example(1, recipe.size_sets[-1]))

    def add(self, recipe: Recipe, module: nn.Module) -> None:
        """Export a module in every precision; they are all the same of one without weights.

        Raises:
            ParityError: the FP32 graph differs from its module by more than the recipe allows.
            PolicyError: the policy is of another graph of that name.
        """
        self._recipes[recipe.graph] = recipe
        module, model = module.eval(), None
        has_weights = any(True for _ in module.parameters())
        parameters = 0
        islands: dict[str, list[str]] = {}
        for precision in self.precisions:
            self._tell(f"{recipe.graph} {precision}")
            path = self.path(recipe.graph, precision)
            if model is None or has_weights or self._policy_of(recipe.graph):
                model = self._write(module, recipe, precision)
            else:
                write_as(model, recipe, path, precision)
            self._check(module, recipe, precision)
            if precision == "fp32":
                parameters = stored_parameters(model)
            else:
                islands[precision] = fp32_nodes(model)
        self.infos[recipe.graph] = GraphInfo(
            inputs=dict(recipe.inputs),
            outputs=dict(recipe.outputs),
            parameters=parameters,
            flops=count_flops(module, recipe),
            opset=OPSET,
            files={
                precision: self.path(recipe.graph, precision).relative_to(self._folder).as_posix()
                for precision in self.precisions
            },
            fp32_nodes=islands,
            policies=self._policies(recipe.graph),
        )

    def require_all_named(self) -> None:
        """Refuse a policy for a graph that was not added.

        Raises:
            PolicyError: naming it.
        """
        unknown = sorted(self._policy.graphs.keys() - self.infos.keys()) if self._policy else []
        if unknown:
            raise PolicyError(
                f"The policy is also for {', '.join(unknown)}, which this bundle does not have. Calibrate this one."
            )

    def _write(self, module: nn.Module, recipe: Recipe, precision: Precision) -> onnx.ModelProto:
        path, policy = self.path(recipe.graph, precision), self._policy_of(recipe.graph)
        if precision == "fp32" or policy is None:
            return trace(module, recipe, path, precision=precision)
        source = self.path(recipe.graph, "fp32")
        check_policy(onnx.load(str(source)), policy, recipe.graph)
        return convert(source, policy.fp32_nodes, path)

    def _way_out(self, graph: str) -> str:
        begin = "The policy was made for other weights or feeds. " if self._policy_of(graph) else ""
        return (
            f"{begin}Export with --precision fp32, and find the nodes that must stay in FP32: pflx calibrate record "
            "BUNDLE ... -o FEEDS, pflx calibrate fp16 BUNDLE --feeds FEEDS -o POLICY.json; then export with "
            "--precision fp16 --policy POLICY.json."
        )

    def _policies(self, graph: str) -> dict[str, str]:
        """What the manifest says of the policy of a graph."""
        return {"fp16": policy_sha256(self._policy)} if self._policy and graph in self._policy.graphs else {}

    def _policy_of(self, graph: str) -> GraphPolicy | None:
        return self._policy.graphs.get(graph) if self._policy else None

    def _check(self, module: nn.Module, recipe: Recipe, precision: str) -> None:
        sizes = recipe.size_sets if precision == "fp32" else recipe.size_sets[-1:]
        with closing(OrtEngine(self.path(recipe.graph, precision))) as engine:
            errors = graph_errors(module, engine, recipe, sizes)
        if precision == "fp32":
            check_graph(recipe, errors)
        entry = self.errors.setdefault(recipe.graph, {"tolerance_fp32": dict(recipe.tolerance)})
        entry[precision] = {"max_abs_error": errors}


def _misfit(watch: Watch) -> str:
    """What does not fit FP16; empty where all does."""
    if not (weight := watch.weights).largest < LARGEST:
        return (
            f"node '{weight.node}' ({weight.operator}) has a weight that FP16, which ends at {LARGEST:.0f}, cannot hold"
        )
    if (reach := watch.first_misfit) is None:
        broken = sorted(watch.broken)
        return f"output '{broken[0]}' is not finite in FP16" if broken else ""
    node = f"node '{reach.node}' ({reach.operator})"
    if math.isinf(reach.largest):
        return f"{node} makes infinite numbers in FP16"
    if reach.largest > LARGEST:
        return f"{node} makes numbers up to {reach.largest:.3g}, and FP16 ends at {LARGEST:.0f}"
    if not reach.is_finite:
        return f"{node} makes what is no number in FP16"
    return f"{node} makes numbers up to {reach.largest:.0f}, too near to FP16's end at {LARGEST:.0f}"
