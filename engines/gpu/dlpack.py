"""DLPack capsules, read and made: arrays go to and come from PyTorch or CuPy without a copy, on any device.

The unversioned capsule only, the one that `__dlpack__()` without `max_version` gives. Streams are the caller's
concern: nothing here waits for a GPU.

Source: DLPack 1.3, dlpack.h, and its Python specification.
"""

from __future__ import annotations

import ctypes
import weakref
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from pflx.engines.graphs.protocol import FeedError

CPU, CUDA = 1, 2  # DLDeviceType; Source: dlpack.h, kDLCPU and kDLCUDA

_FRESH, _USED = b"dltensor", b"used_dltensor"
_KINDS: dict[tuple[int, int], np.dtype[Any]] = {
    (0, 8): np.dtype(np.int8),
    (0, 16): np.dtype(np.int16),
    (0, 32): np.dtype(np.int32),
    (0, 64): np.dtype(np.int64),
    (1, 8): np.dtype(np.uint8),
    (1, 16): np.dtype(np.uint16),
    (1, 32): np.dtype(np.uint32),
    (1, 64): np.dtype(np.uint64),
    (2, 16): np.dtype(np.float16),
    (2, 32): np.dtype(np.float32),
    (2, 64): np.dtype(np.float64),
    (6, 8): np.dtype(np.bool_),
}
"""Dtype by DLDataTypeCode and bits. A producer that codes bool as uint8 gives uint8: nothing tells them apart."""


class Tensor(NamedTuple):
    """Memory of an array on some device, described.

    Attributes:
        address: of the first element, byte offset included; any number where there are no elements.
        shape: elements per axis.
        strides: bytes from one element to the next, per axis.
        dtype: one of float16/32/64, int8/16/32/64, uint8/16/32/64, bool; native byte order.
        device: DLDeviceType (`CPU`, `CUDA`; 3 is pinned and 13 managed CUDA memory) and ordinal.
        owner: keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]
    owner: object


class _Managed(ctypes.Structure):
    """DLManagedTensor, with its DLTensor, DLDevice and DLDataType written out."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("ordinal", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_read_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_read_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))

# A capsule keeps the pointer to its name, not a copy, and may outlive this module: the bytes must never go.
ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))(_USED)


def take(capsule: object) -> Tensor:
    """Consume a capsule.

    A tensor whose owner is still alive when the interpreter ends is left to the end of the process: its
    producer may be gone by then.

    Args:
        capsule: what `array.__dlpack__()` gave. Unless this returns, it is untouched.

    Returns:
        The tensor. When its `owner` is dropped, the deleter of the producer is called, once, in that thread.

    Raises:
        FeedError: no capsule, one that is used or versioned, or elements that numpy has no dtype for.
    """
    if not _is_valid(capsule, _FRESH):
        raise FeedError(f"take needs an unused DLPack capsule named dltensor, got {_describe(capsule)}.")
    managed = _open(capsule)
    dtype = _KINDS.get((managed.code, managed.bits))
    if dtype is None or managed.lanes != 1:
        raise FeedError(
            f"A DLPack tensor of type code {managed.code}, {managed.bits} bits, {managed.lanes} lanes has no numpy "
            "dtype here: cast it to a float16/32/64, integer or bool tensor first."
        )
    shape = tuple(managed.shape[: managed.ndim])
    if managed.strides:
        strides = tuple(step * dtype.itemsize for step in managed.strides[: managed.ndim])
    else:
        strides = _pack(shape, dtype.itemsize)
    owner = _Owner()
    # Before the renaming, so that at no moment nobody, or both, would call the deleter: _release looks at the name.
    weakref.finalize(owner, _release, capsule, managed).atexit = False
    _rename(capsule, _USED)
    address = (managed.data or 0) + managed.byte_offset
    return Tensor(address, shape, strides, dtype, (managed.device_type, managed.ordinal), owner)


def give(tensor: Tensor) -> object:
    """Make a capsule, to be returned by `__dlpack__`.

    The capsule is one that numpy made: a destructor or deleter written in Python would crash the interpreter
    whenever it runs while an exception passes, as when a consumer refuses the capsule.

    Args:
        tensor: what to give. Nothing is read from its memory.

    Returns:
        The capsule. `tensor.owner` lives until the consumer calls the deleter, from any thread, or until the
        capsule is dropped unconsumed.

    Raises:
        FeedError: the dtype is none of those of `Tensor`, there are elements at address 0, or the strides
            are not whole elements.
    """
    if tensor.dtype not in _KINDS.values():
        raise FeedError(f"DLPack tensors of pflx are native floats, integers or bool, got {tensor.dtype.str}.")
    if not tensor.address and 0 not in tensor.shape:
        raise FeedError(f"A tensor of shape {list(tensor.shape)} has elements, but address 0.")
    try:
        capsule = np.asarray(_Loan(tensor)).__dlpack__()
    except (BufferError, ValueError) as error:
        raise FeedError(f"shape {tensor.shape} with strides {tensor.strides} is no DLPack tensor: {error}") from error
    managed = _open(capsule)
    managed.data, managed.byte_offset = tensor.address, 0
    managed.device_type, managed.ordinal = tensor.device
    return capsule


class _Owner:
    """Its end is the end of a taken tensor."""

    __slots__ = ("__weakref__",)


class _Loan:
    """What numpy's array of a given tensor has as its base; numpy must not touch memory that may be a GPU's."""

    def __init__(self, tensor: Tensor) -> None:
        self.owner = tensor.owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": tensor.dtype.str,
            "shape": tensor.shape,
            "strides": tensor.strides,
            "data": (tensor.address or 1, False),  # numpy before 2.1 refuses a 0, even where nothing is stored
        }


def _open(capsule: object) -> _Managed:
    address = _read_pointer(capsule, _FRESH)
    assert address
    return _Managed.from_address(address)


def _release(capsule: object, managed: _Managed) -> None:
    if managed.deleter and _is_valid(capsule, _USED):
        _DELETER(managed.deleter)(ctypes.addressof(managed))


def _pack(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of a C-contiguous array."""
    return tuple(accumulate(shape[:0:-1], int.__mul__, initial=itemsize))[::-1] if shape else ()


def _describe(capsule: object) -> str:
    kind = type(capsule).__name__
    return f"one named {(_read_name(capsule) or b'').decode()}" if kind == "PyCapsule" else kind
