"""A model as OpenVINO's CPU plug-in computes it fastest; each form equal to what stands in the file.

The renderer's graph is written so that ONNX Runtime and TensorRT are quick with it. Three of its forms are slow here:

- A layer norm written as moments and one scale and shift: OpenVINO goes over the features three times. One
  mean-variance normalisation, with the bias back in the convolution before it, is a single operator.
- The four phases of an upsampling convolution, put together along the columns and then the rows. DepthToSpace does so
  in one step, to the bit.
- Features of a portrait that are spread over its frames, in five dimensions: a layout that convolutions do not have.

A form that is not found is left as it is.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Output: TypeAlias = Any
"""An `openvino.Output`: what a node gives."""


def take_fast_forms(openvino: Any, model: Any) -> dict[str, int]:
    """Rewrite a model in place, whose shapes are as they will be in a call.

    Args:
        openvino: the package.
        model: an `openvino.Model`.

    Returns:
        How many of each form were found: `phases`, `broadcasts`, `layer_norms`.
    """
    return {
        "phases": sum(_join_phases(openvino, node) for node in _nodes(model, "Reshape")),
        "broadcasts": sum(_in_four(openvino, node) for node in _nodes(model, "Multiply", "Add")),
        "layer_norms": sum(_normalise(openvino, node) for node in _nodes(model, "Sqrt")),
    }


def _nodes(model: Any, *kinds: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() in kinds]


def _join_phases(openvino: Any, node: Any) -> bool:
    rows = _stacked(node, 3)
    phases = [phase for row in rows for phase in _stacked(row.get_node(), 4)]
    if len(phases) != 4:
        return False
    operators = openvino.opset13
    joined = operators.depth_to_space(operators.concat(phases, 1), "blocks_first", 2)
    return _replace(node, joined)


def _stacked(node: Any, axis: int) -> list[Output]:
    """The two things that were stacked along an axis, which was then flattened into the one before; else none."""
    if node.get_type_name() != "Reshape":
        return []
    concat = node.input_value(0).get_node()
    if concat.get_type_name() != "Concat" or concat.get_attributes()["axis"] != axis or concat.get_input_size() != 2:
        return []
    parts = [concat.input_value(n).get_node() for n in (0, 1)]
    if any(part.get_type_name() != "Unsqueeze" or _constant(part.input_value(1)) != axis for part in parts):
        return []
    return [part.input_value(0) for part in parts]


def _in_four(openvino: Any, node: Any) -> bool:
    """Compute in four dimensions what has five, of which the first is one."""
    shape = node.output(0).get_partial_shape()
    if shape.is_dynamic or len(shape) != 5 or shape[0].get_length() != 1:
        return False
    sides = [_without_first(openvino, node.input_value(n)) for n in (0, 1)]
    operators = openvino.opset13
    four = (operators.multiply if node.get_type_name() == "Multiply" else operators.add)(*sides)
    for reader in list(node.output(0).get_target_inputs()):
        if reader.get_node().get_type_name() == "Reshape":
            _replace(reader.get_node(), four)
    return _replace(node, operators.unsqueeze(four, 0))


def _without_first(openvino: Any, value: Output) -> Output:
    """Of five dimensions, or fewer that are spread over the first: the last four."""
    shape = value.get_partial_shape()
    if len(shape) < 5:
        return value
    node, four = value.get_node(), list(shape)[1:]
    if node.get_type_name() in ("Unsqueeze", "Reshape") and list(node.input_value(0).get_partial_shape()) == four:
        return node.input_value(0)
    return openvino.opset13.squeeze(value, 0).output(0)


def _normalise(openvino: Any, root: Any) -> bool:
    """Replace the layer norm over channels and pixels whose deviation is the root, if it is one."""
    inverse = _only_reader(root, "Divide", "Power")
    scale = inverse and _only_reader(inverse, "Multiply")
    variance = _of(root.input_value(0), "Add")
    difference = variance and _of(variance.input_value(0), "Subtract")
    if not (scale and difference):
        return False
    epsilon, gain = _constant(variance.input_value(1)), _constant_array(_other(scale, inverse))
    readers = [reader.get_node() for reader in scale.output(0).get_target_inputs()]
    products = [node for node in readers if node.get_type_name() == "Multiply"]
    centred = [node for node in products if _of(_other(node, scale), "Subtract")]
    plain = [node for node in products if node not in centred]
    if epsilon is None or gain is None or len(readers) != 2 or len(centred) != 1 or len(plain) != 1:
        return False
    end, shift = _only_reader(plain[0], "Add"), _only_reader(centred[0], "Add")
    if not (end and shift) or _other(end, plain[0]).get_node() != shift:
        return False
    features, centre = _other(plain[0], scale), _other(centred[0], scale).get_node()
    bias, offset = _constant_array(centre.input_value(0)), _constant_array(_other(shift, centred[0]))
    if bias is None or offset is None:
        return False
    if not _moments_of(features, centre.input_value(1), difference.input_value(0)):
        return False
    operators = openvino.opset13
    if bias.any():
        features = operators.add(features, operators.constant(bias)).output(0)
    axes = operators.constant(np.array([1, 2, 3], np.int64))
    normal = operators.mvn(features, axes, True, epsilon, "inside_sqrt")
    scaled = operators.multiply(normal, operators.constant(gain))
    return _replace(end, operators.add(scaled, operators.constant(offset)))


def _moments_of(features: Output, mean: Output, power: Output) -> bool:
    """Whether these are means, over channels and pixels, of features and of their squares."""
    first, square = _averaged(mean), _averaged(power)
    if first is None or square is None or first != features:
        return False
    product = _of(square, "Multiply")
    return product is not None and product.input_value(0) == features and product.input_value(1) == features


def _averaged(value: Output) -> Output | None:
    """What was averaged over its pixels, perhaps offset, and then over its channels."""
    outer = _of(value, "ReduceMean")
    if outer is None or _constant_list(outer.input_value(1)) != [1]:
        return None
    inner = _of(outer.input_value(0), "ReduceMean") or _of(outer.input_value(0), "Add")
    if inner is not None and inner.get_type_name() == "Add":
        inner = _of(inner.input_value(0), "ReduceMean")
    if inner is None or _constant_list(inner.input_value(1)) != [2, 3]:
        return None
    return inner.input_value(0)


def _replace(old: Any, new: Any) -> bool:
    """Let everybody who reads one node read another, if it gives the same shape."""
    if new.output(0).get_partial_shape() != old.output(0).get_partial_shape():
        return False
    new.set_friendly_name(old.get_friendly_name())
    for reader in list(old.output(0).get_target_inputs()):
        reader.replace_source_output(new.output(0))
    return True


def _of(value: Output, kind: str) -> Any:
    """The node that gives a value, if it is of a kind; else None."""
    node = value.get_node()
    return node if node.get_type_name() == kind else None


def _only_reader(node: Any, *kinds: str) -> Any:
    """The one node that reads a node, if it is of a kind; else None."""
    readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
    return readers[0] if len(readers) == 1 and readers[0].get_type_name() in kinds else None


def _other(node: Any, known: Any) -> Output:
    """Of the two that a node reads, the one that does not come from the known node."""
    return node.input_value(1 if node.input_value(0).get_node() == known else 0)


def _constant_array(value: Output) -> Any | None:
    node = _of(value, "Constant")
    return None if node is None else np.array(node.data)


def _constant_list(value: Output) -> list[int] | None:
    array = _constant_array(value)
    return None if array is None else sorted(array.ravel().tolist())


def _constant(value: Output) -> float | None:
    array = _constant_array(value)
    return None if array is None or array.size != 1 else float(array.ravel()[0])
