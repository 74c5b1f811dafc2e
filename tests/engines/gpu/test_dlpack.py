"""DLPack capsules, against numpy and PyTorch as producers and consumers."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils.dlpack import from_dlpack as to_torch

from pflx.engines import FeedError
from pflx.engines.gpu.dlpack import CPU, CUDA, Tensor, give, take

INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES = ["bool", "float16", "float32", "float64", *INTEGERS]
SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (0,), (2, 0, 3), (2, 3, 4), (1, 5, 1)]

# Where fields of DLManagedTensor lie, in bytes; Source: dlpack.h on a 64-bit machine.
CODE, LANES, STRIDES, BYTE_OFFSET, DELETER = 20, 22, 32, 40, 56

read_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))
USED = b"used_dltensor"


class Owner:
    """Something to watch the end of."""


class Exchange:
    """What `from_dlpack` takes."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, *, stream: None = None, **_: object) -> Any:
        return give(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.device


def describe(array: npt.NDArray[Any], owner: object = None) -> Tensor:
    return Tensor(array.ctypes.data, array.shape, array.strides, array.dtype, (CPU, 0), owner or array)


def view(tensor: Tensor) -> npt.NDArray[Any]:
    """The memory of a CPU tensor as an array; valid while the tensor is."""
    return np.from_dlpack(Exchange(tensor))


def watched(shape: tuple[int, ...] = (3,)) -> tuple[Tensor, weakref.ref[Owner]]:
    """A tensor, and its owner, which only the tensor holds; the memory is never freed."""
    owner = Owner()
    buffer = np.zeros(shape, np.float32)
    KEPT.append(buffer)
    return describe(buffer, owner), weakref.ref(owner)


KEPT: list[npt.NDArray[Any]] = []


def address(capsule: object) -> int:
    return int(read_pointer(capsule, b"dltensor") or 0)


def counting(capsule: object) -> tuple[list[int], object]:
    """Put a counter before the deleter of a capsule; the second value must outlive the capsule."""
    managed = address(capsule)
    field = ctypes.c_void_p.from_address(managed + DELETER)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    original, calls = kind(field.value or 0), list[int]()

    def count(managed: int) -> None:
        calls.append(managed)
        original(managed)

    deleter = kind(count)
    field.value = ctypes.cast(deleter, ctypes.c_void_p).value
    return calls, deleter


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_and_torch_read_what_was_given(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    for got in (np.from_dlpack(Exchange(describe(array))), to_torch(Exchange(describe(array))).numpy()):
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
        assert got.ctypes.data == array.ctypes.data or not array.size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_numpy_and_torch_made_is_taken_as_it_is(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    for capsule in (array.__dlpack__(), torch.from_numpy(array).__dlpack__()):
        tensor = take(capsule)
        assert (tensor.shape, tensor.dtype, tensor.device) == (shape, array.dtype, (CPU, 0))
        assert tensor.address == array.ctypes.data or not array.size
        np.testing.assert_array_equal(view(tensor), array)


def test_a_write_is_seen_on_the_other_side() -> None:
    for array in (np.zeros(3, np.float32), torch.zeros(3)):
        tensor = take(array.__dlpack__())
        back = to_torch(Exchange(tensor))
        array[0] = 7
        back[1] = 8
        assert back.tolist() == [7, 8, 0]
        assert array.tolist() == [7, 8, 0]


@pytest.mark.parametrize(
    "cut",
    [
        lambda a: a[1:, ::2],
        lambda a: a.swapaxes(0, 2),
        lambda a: a[:, 1, :],
        lambda a: a[1, 1, 1:][0:0],
        lambda a: a[..., 2],
    ],
)
def test_strided_views_keep_their_strides(cut: Callable[[Any], Any]) -> None:
    base = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    array = cut(base)
    for tensor in (take(array.__dlpack__()), take(cut(torch.from_numpy(base)).__dlpack__())):
        assert tensor.strides == array.strides or not array.size
        np.testing.assert_array_equal(view(tensor), array)
    assert to_torch(Exchange(describe(array))).tolist() == array.tolist()


def test_negative_and_broadcast_strides_survive_numpy() -> None:
    array = np.broadcast_to(np.arange(5.0)[::-1], (3, 5))
    back = take(give(describe(array)))
    assert (back.address, back.strides) == (array.ctypes.data, (0, -8))
    np.testing.assert_array_equal(view(back), array)


def test_a_byte_offset_is_added_and_missing_strides_mean_contiguous() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    capsule = array.__dlpack__()
    ctypes.c_uint64.from_address(address(capsule) + BYTE_OFFSET).value = 8
    ctypes.c_void_p.from_address(address(capsule) + STRIDES).value = None
    tensor = take(capsule)
    assert tensor.address == array.ctypes.data + 8
    assert tensor.strides == array.strides


@pytest.mark.parametrize("device", [(CPU, 0), (CUDA, 0), (CUDA, 3), (3, 0), (13, 1)])
@pytest.mark.parametrize(("shape", "strides"), [((), ()), ((2, 3), (6, 2)), ((2, 3), (2, 64)), ((0, 4), (8, 2))])
def test_the_device_is_carried_and_its_memory_not_touched(
    device: tuple[int, int], shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    tensor = Tensor(0xDEAD00, shape, strides, np.dtype(np.float16), device, Owner())
    assert take(give(tensor))[:-1] == tensor[:-1]


def test_no_elements_need_no_address() -> None:
    assert take(give(Tensor(0, (0,), (4,), np.dtype(np.float32), (CUDA, 0), None))).address == 0


CONSUMERS: list[Callable[[object], object]] = [
    lambda capsule: take(capsule),
    lambda capsule: to_torch(capsule),
    lambda capsule: capsule,
]


@pytest.mark.parametrize("consume", CONSUMERS, ids=["take", "torch", "nobody"])
def test_an_owner_lives_exactly_as_long_as_the_consumer_and_is_released_once(
    consume: Callable[[object], object],
) -> None:
    tensor, alive = watched()
    capsule = give(tensor)
    calls, _keep = counting(capsule)
    del tensor
    held = consume(capsule)
    del capsule
    gc.collect()
    assert alive() is not None
    assert not calls
    del held
    assert alive() is None
    assert len(calls) == 1


@pytest.mark.parametrize("make", [lambda: np.zeros(3), lambda: torch.zeros(3)], ids=["numpy", "torch"])
def test_the_deleter_of_a_producer_is_called_once_when_the_owner_is_dropped(make: Callable[[], Any]) -> None:
    capsule = make().__dlpack__()
    calls, _keep = counting(capsule)
    tensor = take(capsule)
    del capsule
    owner = tensor.owner
    del tensor
    gc.collect()
    assert not calls
    del owner
    assert len(calls) == 1


def test_a_producer_without_a_deleter_is_fine() -> None:
    capsule = np.zeros(3).__dlpack__()
    ctypes.c_void_p.from_address(address(capsule) + DELETER).value = None
    take(capsule)


def test_an_owner_is_released_from_a_thread_of_python() -> None:
    tensor, alive = watched()
    held = [take(give(tensor))]
    del tensor
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert alive() is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs pthreads")
def test_an_owner_is_released_from_a_thread_that_python_did_not_start() -> None:
    tensor, alive = watched()
    capsule = give(tensor)
    del tensor
    managed = address(capsule)
    rename(capsule, USED)
    deleter = ctypes.c_void_p.from_address(managed + DELETER)
    thread = ctypes.c_void_p()
    libc = ctypes.CDLL(None)
    assert libc.pthread_create(ctypes.byref(thread), None, deleter, ctypes.c_void_p(managed)) == 0
    assert libc.pthread_join(thread, None) == 0
    assert alive() is None
    del capsule


def refuse(*_: object) -> None:
    raise AssertionError


@pytest.mark.parametrize("consume", CONSUMERS, ids=["take", "torch", "nobody"])
def test_an_exception_that_passes_while_memory_is_released_arrives_whole(consume: Callable[[object], object]) -> None:
    tensor, alive = watched()
    tensors = [tensor]
    del tensor
    with pytest.raises(ZeroDivisionError):
        refuse(consume(give(tensors.pop())), 1 // 0)
    assert alive() is None


def test_a_thousand_rounds_leak_nothing() -> None:
    array = np.zeros((4, 5), np.float32)
    ends = list[weakref.ref[Any]]()

    def once() -> None:
        owner = Owner()
        ends.append(weakref.ref(owner))
        given = describe(array, owner)
        give(given)
        there = take(give(given))
        to_torch(Exchange(there)).add_(1)
        np.from_dlpack(Exchange(take(torch.from_numpy(array).__dlpack__())))
        ends.append(weakref.ref(there.owner))
        with pytest.raises(FeedError):
            take(torch.zeros(2, dtype=torch.bfloat16).__dlpack__())

    once()
    gc.collect()
    references, objects = sys.getrefcount(array), len(gc.get_objects())
    for _ in range(1000):
        once()
    assert all(end() is None for end in ends)
    ends.clear()
    gc.collect()
    assert sys.getrefcount(array) == references
    assert len(gc.get_objects()) < objects + 100
    assert (array == 1001).all()


def test_a_used_capsule_is_refused() -> None:
    for capsule in (np.zeros(3).__dlpack__(), torch.zeros(3).__dlpack__()):
        tensor = take(capsule)
        with pytest.raises(FeedError, match=r"unused .* got one named used_dltensor"):
            take(capsule)
        assert view(tensor).tolist() == [0, 0, 0]


@pytest.mark.parametrize("thing", [None, 3, b"dltensor", np.zeros(3)])
def test_what_is_no_capsule_is_refused(thing: object) -> None:
    with pytest.raises(FeedError, match=f"got {type(thing).__name__}"):
        take(thing)


def test_a_capsule_of_something_else_is_refused() -> None:
    with pytest.raises(FeedError, match="got one named datetime"):
        take(__import__("datetime").datetime_CAPI)
    with pytest.raises(FeedError, match="got one named dltensor_versioned"):
        take(torch.zeros(3).__dlpack__(max_version=(1, 0)))


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.bfloat16, "code 4, 16 bits"),
        (torch.float8_e4m3fn, "code 10, 8 bits"),
        (torch.complex64, "code 5, 64 bits"),
    ],
)
def test_a_dtype_that_has_no_counterpart_is_refused_and_the_capsule_left_alone(
    dtype: torch.dtype, message: str
) -> None:
    source = torch.zeros(3, dtype=dtype)
    capsule = source.__dlpack__()
    with pytest.raises(FeedError, match=message) as caught:
        take(capsule)
    assert "\n" not in str(caught.value)
    assert to_torch(capsule).data_ptr() == source.data_ptr()


def test_vector_elements_are_refused() -> None:
    tensor, alive = watched()
    capsule = give(tensor)
    del tensor
    ctypes.c_uint16.from_address(address(capsule) + LANES).value = 4
    with pytest.raises(FeedError, match="4 lanes"):
        take(capsule)
    del capsule
    assert alive() is None


def test_bool_is_code_6_and_uint8_stays_uint8() -> None:
    capsule = give(describe(np.array([True])))
    assert ctypes.c_uint8.from_address(address(capsule) + CODE).value == 6
    ctypes.c_uint8.from_address(address(capsule) + CODE).value = 1
    assert take(capsule).dtype == np.uint8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": np.dtype(">f4")}, "got >f4"),
        ({"dtype": np.dtype(object)}, r"got \|O"),
        ({"dtype": np.dtype(np.complex64)}, "got <c8"),
        ({"address": 0}, "address 0"),
        ({"strides": (6,)}, "multiple of itemsize"),
        ({"strides": (4, 4)}, "strides"),
    ],
)
def test_a_tensor_that_dlpack_cannot_describe_is_refused(change: dict[str, Any], message: str) -> None:
    tensor, alive = watched()
    with pytest.raises(FeedError, match=message) as caught:
        give(tensor._replace(**change))
    assert "\n" not in str(caught.value)
    del tensor, caught
    gc.collect()
    assert alive() is None


def test_an_interpreter_that_ends_with_tensors_in_use_ends_quietly() -> None:
    code = """
import sys, threading
import numpy as np
import torch
from pflx.engines.gpu.dlpack import Tensor, give, take

array = np.zeros(3, np.float32)
tensor = Tensor(array.ctypes.data, (3,), (4,), array.dtype, (1, 0), array)
class Late:
    def __init__(self, held): self.held, self.me = held, self
late = Late([give(tensor), take(give(tensor)), torch.from_dlpack(give(tensor)), take(torch.zeros(3).__dlpack__())])
torch.kept = [take(array.__dlpack__()), torch.from_dlpack(give(tensor)), give(tensor)]
sys.kept = [take(array.__dlpack__()), give(tensor)]
threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
