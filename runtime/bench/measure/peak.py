"""The most operations a second that a machine makes: what the speed of a graph is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pflx.engines import Engine, OrtEngine
from pflx.runtime.frames.timing import Clock

PEAK_MEANS = "The peak is the best of many float32 matrix products in ONNX Runtime, with the threads of one graph."
"""What was measured, in a sentence."""

_SIDE = 1024  # beyond it a product is no faster, only longer: 10 to 100 ms
_VISIT_NS = 500_000_000


class Peak:
    """A large float32 matrix product, in the library and with the threads that the graphs run with.

    Attributes:
        gflops: the best so far, in 10^9 a second; 0 before the first visit.
    """

    def __init__(self, product: Engine, clock: Clock) -> None:
        self.gflops = 0.0
        self._product, self._clock = product, clock
        matrix = np.random.default_rng(0).random((_SIDE, _SIDE), np.float32)
        self._feeds = {"a": matrix, "b": matrix}

    def visit(self) -> None:
        """Half a second of products; to be called between other measurements, for clocks float."""
        until = self._clock() + _VISIT_NS
        while self._clock() < until:
            begun = self._clock()
            self._product.run(self._feeds)
            self.gflops = max(self.gflops, 2 * _SIDE**3 / max(1, self._clock() - begun))


@contextmanager
def open_peak(threads: int | None, clock: Clock = time.perf_counter_ns) -> Iterator[Peak]:
    """The peak of the CPU.

    Args:
        threads: None for the backend's own choice.
        clock: in ns.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        path.write_bytes(_product_model(_SIDE))
        product = OrtEngine(path, threads=threads)
    with closing(product):
        yield Peak(product, clock)


def _product_model(side: int) -> bytes:
    """An ONNX model of one matrix product, `c = a b`, all float32 [side, side].

    Source: onnx.proto; the numbers are those of its fields.
    """
    dimension = _message(1, _number(1, side))
    matrix = _message(2, _message(1, _number(1, 1) + _message(2, dimension * 2)))
    node = _message(1, b"a") + _message(1, b"b") + _message(2, b"c") + _message(4, b"MatMul")
    values = (_message(field, _message(1, name) + matrix) for field, name in ((11, b"a"), (11, b"b"), (12, b"c")))
    graph = _message(1, node) + _message(2, b"product") + b"".join(values)
    return _number(1, 8) + _message(7, graph) + _message(8, _message(1, b"") + _number(2, 13))


def _message(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
