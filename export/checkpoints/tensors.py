"""Tensors that are no weights a network computes with, whatever their shape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pflx.export.errors import CheckpointError

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_REPEATED_BYTES = 1 << 20
"""From this size on, a view that repeats fewer numbers is refused."""


def check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Collection[str]) -> None:
    """Refuse tensors that hold no plain floating-point numbers, before anything is computed with them.

    Args:
        path: for the message.
        tensors: by key.
        expected: keys that the network computes with; only these must be floats.

    Raises:
        CheckpointError: naming the first, its dtype and what to do.
    """
    for fault, fix in _RULES:
        if keys := list(fault(tensors, expected)):
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            kind = f"{tensors[keys[0]].dtype}".removeprefix("torch.")
            raise CheckpointError(path, f"holds '{keys[0]}'{more} as {fix.format(dtype=kind)}")


def _quantised(tensors: Mapping[str, Tensor], _: Collection[str]) -> Iterator[str]:
    return (key for key, value in tensors.items() if value.is_quantized)


def _sparse(tensors: Mapping[str, Tensor], _: Collection[str]) -> Iterator[str]:
    return (key for key, value in tensors.items() if value.layout != torch.strided)


def _meta(tensors: Mapping[str, Tensor], _: Collection[str]) -> Iterator[str]:
    return (key for key, value in tensors.items() if value.is_meta)


def _repeated(tensors: Mapping[str, Tensor], _: Collection[str]) -> Iterator[str]:
    for key, value in tensors.items():
        needed = value.numel() * value.element_size()
        if needed > _REPEATED_BYTES and needed > value.untyped_storage().nbytes():
            yield key


def _complex(tensors: Mapping[str, Tensor], expected: Collection[str]) -> Iterator[str]:
    return (key for key, value in tensors.items() if key in expected and value.is_complex())


def _no_floats(tensors: Mapping[str, Tensor], expected: Collection[str]) -> Iterator[str]:
    for key, value in tensors.items():
        if key in expected and value.dtype not in _FLOATS:
            yield key


_Rule = Callable[[Mapping[str, Tensor], Collection[str]], Iterator[str]]
_RULES: tuple[tuple[_Rule, str], ...] = (
    (_quantised, "quantised {dtype}; save it as float where it was made: value.dequantize()"),
    (_sparse, "a sparse tensor of {dtype}; save it as a dense one where it was made: value.to_dense()"),
    (_meta, "a meta tensor of {dtype}, which has no numbers; save it after its weights were loaded"),
    (_repeated, "a view of {dtype} that repeats few numbers to a huge shape; save it whole: value.contiguous()"),
    (_complex, "{dtype}, and the network computes with real numbers; pass a checkpoint in float32 or float16"),
    (_no_floats, "{dtype}, which is no weight without its scales; pass the checkpoint in float32 or float16"),
)
