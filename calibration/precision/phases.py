"""The four phases of an upsampling convolution, put together in one step.

The deploy form of the renderer computes nearest ×2 and a 3×3 convolution as four 2×2 convolutions, and interleaves
their results along the columns and then the rows. ONNX Runtime takes no time for that; OpenVINO takes a ninth of a
frame's. One DepthToSpace does the same, to the bit, in a sixth of that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx
from onnx import helper

_STEPS = ("Unsqueeze", "Concat", "Reshape")
_PHASES = ((1, 1, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (0, 0, 1, 1))
"""Padding (top, left, bottom, right) of the phases in their order (row, column)."""


def join_phases(model: onnx.ModelProto) -> int:
    """Rewrite, in place, every group of four phases that is found; how many were."""
    graph = model.graph
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    place = {node.name: n for n, node in enumerate(nodes)}
    groups = list(_groups(graph, readers))
    for phases, between, end in groups:
        joined, channels = f"{end}.phases", [phase.output[0] for phase in phases]
        nodes[place[between[-1].name]] = helper.make_node(
            "DepthToSpace", [joined], [end], name=f"{end}.join", blocksize=2, mode="DCR"
        )
        nodes[place[between[-2].name]] = helper.make_node("Concat", channels, [joined], name=f"{end}.concat", axis=1)
        for node in between[:-2]:
            nodes[place[node.name]].Clear()
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type)
    return len(groups)


def _groups(
    graph: onnx.GraphProto, readers: dict[str, list[onnx.NodeProto]]
) -> Iterator[tuple[list[onnx.NodeProto], list[onnx.NodeProto], str]]:
    """Four phases in their order, the nodes that interleave them in the order they run, and their result."""
    order = {node.name: n for n, node in enumerate(graph.node)}
    for read in readers.values():
        phases = {_padding(node): node for node in read if node.op_type == "Conv"}
        if not set(_PHASES) <= phases.keys():
            continue
        chains = [_chain(phases[padding], readers) for padding in _PHASES]
        ends = {chain[-1].output[0] for chain in chains if chain}
        if len(ends) == 1 and all(chains):
            between = {node.name: node for chain in chains for node in chain}
            ordered = sorted(between.values(), key=lambda node: order[node.name])
            yield [phases[padding] for padding in _PHASES], ordered, ends.pop()


def _chain(node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    """The six nodes behind a phase that interleave columns and rows; none if it is read otherwise."""
    chain: list[onnx.NodeProto] = []
    for step in _STEPS * 2:
        following = readers[node.output[0]]
        if len(following) != 1 or following[0].op_type != step:
            return []
        node = following[0]
        chain.append(node)
    axes = [attribute.i for node in chain for attribute in node.attribute if attribute.name == "axis"]
    return chain if axes == [4, 3] else []


def _padding(node: onnx.NodeProto) -> tuple[int, ...]:
    attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    plain = attributes.get("kernel_shape") == [2, 2] and attributes.get("strides", [1, 1]) == [1, 1]
    return tuple(attributes.get("pads", ())) if plain else ()
