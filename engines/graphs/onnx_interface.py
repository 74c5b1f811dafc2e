"""What an ONNX file takes and gives, read off its bytes without a library: weights and nodes are passed over.

Source: onnx.proto (ModelProto, GraphProto, ValueInfoProto, TypeProto), and the wire format of protocol buffers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pflx.engines.graphs.protocol import TensorSpec

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_NAME, _VALUE_TYPE, _INITIALIZER_NAME = 1, 2, 8
_TYPE_TENSOR, _ELEMENT, _SHAPE, _DIMENSION, _SIZE, _SYMBOL = 1, 1, 2, 1, 1, 2

_ELEMENTS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""TensorProto.DataType."""

_Message: TypeAlias = memoryview


@dataclass(frozen=True)
class OnnxTensor:
    """An input or output as the file has it.

    Attributes:
        dtype: its name; `type 17` where it is none that numpy has.
        shape: a size, the name of a dynamic dimension, or None where neither is said; None as a whole if there is none.
    """

    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        """Write `float32 [samples, 3]`."""
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


def read_interface(content: bytes) -> tuple[dict[str, OnnxTensor], dict[str, OnnxTensor]]:
    """Inputs and outputs of a graph by name, in its order; inputs with a default are left out.

    Raises:
        ValueError: the bytes are no ONNX file.
    """
    inputs: dict[str, OnnxTensor] = {}
    outputs: dict[str, OnnxTensor] = {}
    defaults = set()
    for graph in _parts(memoryview(content), _MODEL_GRAPH):
        inputs |= map(_tensor, _parts(graph, _GRAPH_INPUT))
        outputs |= map(_tensor, _parts(graph, _GRAPH_OUTPUT))
        defaults |= {_text(each, _INITIALIZER_NAME) for each in _parts(graph, _GRAPH_INITIALIZER)}
    if not outputs:
        raise ValueError("no graph with an output")
    return {name: tensor for name, tensor in inputs.items() if name not in defaults}, outputs


def first_difference(content: bytes, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> str | None:
    """How a graph differs from what is said of it: a sentence without its begin and full stop.

    A dimension that is said to be dynamic must be so in the file, under any name; one of a said size may be dynamic.
    None where there is no difference, or no ONNX file, which the library that is to load it tells.

    Args:
        content: of the ONNX file.
        inputs: what it is said to take.
        outputs: what it is said to give.
    """
    try:
        found_inputs, found_outputs = read_interface(content)
    except ValueError:
        return None
    for verb, said, found in (("takes", inputs, found_inputs), ("gives", outputs, found_outputs)):
        for name in dict.fromkeys((*said, *found)):
            if name not in found:
                return f"{verb} no '{name}', which its manifest says is {said[name]}; it {verb} {', '.join(found)}"
            if name not in said:
                return f"{verb} '{name}', {found[name]}, of which its manifest says nothing"
            if not _fits(said[name], found[name]):
                return f"{verb} '{name}' as {found[name]}; its manifest says {said[name]}"
    return None


def _fits(said: TensorSpec, found: OnnxTensor) -> bool:
    if said.dtype.name != found.dtype:
        return False
    if found.shape is None:
        return True
    return len(said.shape) == len(found.shape) and all(
        size == known or not isinstance(known, int) for size, known in zip(said.shape, found.shape, strict=True)
    )


def _tensor(value: _Message) -> tuple[str, OnnxTensor]:
    element, shape = 0, None
    for kind in _parts(value, _VALUE_TYPE):
        for tensor in _parts(kind, _TYPE_TENSOR):
            for number, part in _fields(tensor):
                if number == _ELEMENT and isinstance(part, int):
                    element = part
                elif number == _SHAPE and not isinstance(part, int):
                    shape = tuple(map(_dimension, _parts(part, _DIMENSION)))
    return _text(value, _NAME), OnnxTensor(_ELEMENTS.get(element, f"type {element}"), shape)


def _dimension(dimension: _Message) -> int | str | None:
    for number, part in _fields(dimension):
        if number == _SIZE and isinstance(part, int):
            return part if part < 1 << 63 else None  # -1 stands for any
        if number == _SYMBOL and not isinstance(part, int):
            return str(part, "utf-8", "replace") or None
    return None


def _text(message: _Message, number: int) -> str:
    return next((str(part, "utf-8", "replace") for part in _parts(message, number)), "")


def _parts(message: _Message, number: int) -> Iterator[_Message]:
    """The messages, texts and bytes in a field."""
    return (part for found, part in _fields(message) if found == number and not isinstance(part, int))


def _fields(message: _Message) -> Iterator[tuple[int, int | _Message]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > len(message) - at:
            raise ValueError("it is cut off")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: _Message, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
