"""Arrays, memory and streams of a GPU, on one made of Python."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gpu.fake_cuda import FakeCuda, RaceError
from torch.utils.dlpack import from_dlpack

from pflx.engines.gpu.array import DeviceArray, host_view, row_copies
from pflx.engines.gpu.cuda import parse_device
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.placement import concatenate, fetch, kept
from pflx.engines.gpu.streams import Stream
from pflx.engines.graphs.protocol import DeviceError, DeviceMemoryError, EngineError, FeedError

Values = np.ndarray[Any, Any]


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device(FakeCuda())
    yield made
    made.close()


def cuda_of(device: Device) -> FakeCuda:
    assert isinstance(device.cuda, FakeCuda)
    return device.cuda


def numbers(*shape: int, dtype: Any = np.float32) -> Values:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def add_one(device: Device, source: DeviceArray, stream: Stream, *, waits: bool = True) -> DeviceArray:
    """A kernel; without `waits` it forgets to ask whether its input is ready."""
    address = source.use_on(stream) if waits else source.address
    made = device.empty(source.shape, source.dtype, stream)
    target, shape, dtype = made.address, made.shape, made.dtype  # a kernel keeps no array alive

    def run() -> None:
        host_view(target, shape, dtype)[...] = host_view(address, shape, dtype) + 1

    reads, writes = [(address, source.nbytes)], [(made.address, made.nbytes)]
    cuda_of(device).launch_kernel(run, reads, writes, stream.handle)
    return made.written(stream.mark())


def test_an_array_goes_to_the_gpu_and_comes_back(device: Device) -> None:
    for array in (numbers(3, 4), np.array([True, False]), numbers(5, dtype=np.int64), np.zeros((0, 4), np.uint8)):
        placed = device.upload(array)
        assert (placed.shape, placed.dtype, placed.ndim, placed.size) == (
            array.shape,
            array.dtype,
            array.ndim,
            array.size,
        )
        np.testing.assert_array_equal(np.asarray(placed), array)


def test_the_host_may_write_into_its_array_as_soon_as_it_is_handed_over(device: Device) -> None:
    array = numbers(4)
    placed = device.upload(array)
    array[:] = -1
    np.testing.assert_array_equal(np.asarray(placed), numbers(4))


def test_nothing_waits_until_an_array_is_asked_for(device: Device) -> None:
    cuda = cuda_of(device)
    there = add_one(device, device.upload(numbers(4)), device.streams.named("generate"))
    coming = fetch(there)
    assert cuda.pending
    assert not coming.is_done
    assert not cuda.calls["synchronize"] + cuda.calls["wait_host"]
    np.testing.assert_array_equal(coming.wait(), numbers(4) + 1)
    assert coming.is_done
    assert coming.wait() is coming.wait()


def test_a_chain_over_four_streams_is_ordered_by_its_data_alone(device: Device) -> None:
    made = device.upload(numbers(64))
    for name in ("generate", "render", "generate", "render"):
        made = add_one(device, made, device.streams.named(name))
    np.testing.assert_array_equal(np.asarray(made), numbers(64) + 4)


def test_a_reader_that_does_not_ask_is_a_race(device: Device) -> None:
    """What the other tests rely on: the fake finds a missing event."""
    made = add_one(device, device.upload(numbers(4)), device.streams.named("generate"))
    with pytest.raises(RaceError, match=r"reads what stream \d+ writes"):
        add_one(device, made, device.streams.named("render"), waits=False)


def test_memory_is_handed_out_again_only_behind_its_last_reader(device: Device) -> None:
    cuda = cuda_of(device)
    generate, render = device.streams.named("generate"), device.streams.named("render")
    results = []
    for round_ in range(20):
        made = add_one(device, device.upload(numbers(256) + round_), generate)
        results.append(fetch(add_one(device, made, render)))
        del made  # its memory may be taken by the next round while `render` has not begun
    for round_, result in enumerate(results):
        np.testing.assert_array_equal(result.wait(), numbers(256) + round_ + 2)
    assert cuda.calls["malloc"] <= 6


def test_memory_taken_back_without_its_readers_would_be_a_race(device: Device) -> None:
    generate, render = device.streams.named("generate"), device.streams.named("render")
    made = add_one(device, device.upload(numbers(4)), generate)
    add_one(device, made, render)
    made._lease.users.discard(render)  # as if the pool had forgotten whoever reads it
    del made
    with pytest.raises(RaceError):
        device.concatenate([add_one(device, device.upload(numbers(4)), generate) for _ in range(3)], 0)


def test_after_the_first_rounds_nothing_is_allocated(device: Device) -> None:
    cuda = cuda_of(device)

    def work() -> None:
        made = add_one(device, device.upload(numbers(32)), device.streams.named("generate"))
        fetch(add_one(device, made, device.streams.named("render"))).wait()

    for _ in range(3):
        work()
    before = {name: cuda.calls[name] for name in ("malloc", "malloc_host", "create_event", "create_stream")}
    for _ in range(50):
        work()
    assert {name: cuda.calls[name] for name in before} == before


def test_page_locked_memory_is_double_buffered_and_then_waited_for(device: Device) -> None:
    cuda = cuda_of(device)
    placed = [device.upload(numbers(16384) + n) for n in range(5)]
    assert cuda.calls["malloc_host"] == 2
    assert cuda.calls["wait_host"] == 3
    for n, array in enumerate(placed):
        np.testing.assert_array_equal(np.asarray(array), numbers(16384) + n)


def test_a_copy_that_nobody_waits_for_keeps_its_memory_until_it_has_arrived(device: Device) -> None:
    made = device.upload(numbers(8))
    fetch(made)
    np.testing.assert_array_equal(np.asarray(device.upload(numbers(8) + 5)), numbers(8) + 5)
    np.testing.assert_array_equal(np.asarray(made), numbers(8))


@pytest.mark.parametrize(
    "key",
    [
        1,
        -1,
        slice(1, 3),
        (slice(None), slice(2, 4)),
        (slice(None), -1, slice(1, 3)),
        (0, slice(1, None)),
        (None, slice(0, 2)),
        (..., slice(1, 2)),
        (slice(None), slice(None), 2),
        (2, 3, 4),
        (slice(2, 2),),
    ],
)
def test_views_and_copies_are_those_of_numpy(device: Device, key: Any) -> None:
    array = numbers(3, 4, 5)
    view = device.upload(array)[key]
    expected = array[key]
    assert view.shape == expected.shape
    np.testing.assert_array_equal(np.asarray(view), expected)
    copied = view.copy()
    assert copied.is_contiguous
    np.testing.assert_array_equal(np.asarray(copied), expected)


def test_an_index_of_numbers_and_a_reshape_without_a_copy_are_refused(device: Device) -> None:
    placed = device.upload(numbers(3, 4))
    indices: Any = np.array([0, 2])
    with pytest.raises(FeedError, match="whole numbers, slices and new axes"):
        placed[indices]
    assert placed.reshape(2, -1).shape == (2, 6)
    with pytest.raises(FeedError, match=r"\[3, 2\] is no view of shape \[6\]"):
        placed[:, :2].reshape(6)
    with pytest.raises(FeedError, match="is no view"):
        placed.reshape(5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_are_put_together_as_numpy_does(data: st.DataObject) -> None:
    device = Device(FakeCuda())
    axis = data.draw(st.integers(0, 2))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    parts: list[Values] = []
    placed: list[Any] = []
    for number in range(data.draw(st.integers(1, 4))):
        own = [*shape]
        own[axis] = data.draw(st.integers(0, 4))
        whole = numbers(*(size + 2 for size in own)) + 100 * number
        cut = tuple(slice(1, 1 + size) for size in own)
        parts.append(whole[cut])
        placed.append(device.upload(whole)[cut] if number == 0 or data.draw(st.booleans()) else whole[cut])
    made = concatenate(placed, axis)
    assert made.is_contiguous
    np.testing.assert_array_equal(np.asarray(made), np.concatenate(parts, axis))
    device.close()


def test_on_the_host_the_same_functions_are_numpys() -> None:
    array = numbers(2, 3)
    assert fetch(array).wait() is array
    assert kept(array) is not array
    np.testing.assert_array_equal(concatenate([array, array], 1), np.concatenate([array, array], 1))


def test_rows_are_copied_in_as_few_copies_as_their_strides_allow() -> None:
    assert row_copies((3, 8), (32, 4), (32, 4), 4) == [(0, 96, 0, 96, 96, 1)]
    assert row_copies((3, 4), (16, 4), (32, 4), 4) == [(0, 16, 0, 32, 16, 3)]
    assert len(row_copies((2, 3, 4), (48, 16, 4), (512, 64, 4), 4)) == 2
    assert row_copies((), (), (), 4) == [(0, 4, 0, 4, 4, 1)]


# Other libraries


def test_numpy_and_pytorch_take_an_array_without_a_copy(device: Device) -> None:
    placed = device.upload(numbers(2, 3))
    np.asarray(placed)  # the fake has done its work
    taken = from_dlpack(placed)
    assert taken.data_ptr() == placed.address
    np.testing.assert_array_equal(taken.numpy(), numbers(2, 3))
    np.testing.assert_array_equal(np.from_dlpack(cast(Any, placed)), numbers(2, 3))
    np.testing.assert_array_equal(from_dlpack(placed[:, 1:]).numpy(), numbers(2, 3)[:, 1:])


def test_an_array_of_pytorch_is_taken_without_a_copy_and_kept_until_it_is_read(device: Device) -> None:
    cuda, values = cuda_of(device), torch.arange(6, dtype=torch.float32).reshape(2, 3)
    address = values.data_ptr()
    cuda.live[address] = np.from_dlpack(values).view(np.uint8).reshape(-1)  # the fake knows whose memory it is
    adopted = device.adopt(values)
    assert (adopted.address, adopted.shape) == (address, (2, 3))
    made = add_one(device, adopted, device.streams.named("render"))
    np.testing.assert_array_equal(np.asarray(made), numbers(2, 3) + 1)


class Interface:
    """An array of a library that has the CUDA Array Interface only, as pycuda's."""

    def __init__(self, array: DeviceArray, **changes: Any) -> None:
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **changes}
        self.array = array


def test_the_cuda_array_interface_is_given_and_taken_with_its_stream(device: Device) -> None:
    made = add_one(device, device.upload(numbers(2, 3)), device.streams.named("generate"))
    interface = made.__cuda_array_interface__
    assert interface["shape"] == (2, 3)
    assert interface["typestr"] == "<f4"
    assert interface["stream"] == device.streams.named("generate").handle
    assert made[:, 1:].__cuda_array_interface__["strides"] == (12, 4)
    adopted = device.adopt(Interface(made))
    np.testing.assert_array_equal(np.asarray(adopted), numbers(2, 3) + 1)


def test_a_lent_array_is_kept_as_long_as_the_gpu_reads_it(device: Device) -> None:
    lent = Interface(add_one(device, device.upload(numbers(4)), device.streams.named("generate")))
    made = add_one(device, device.adopt(lent), device.streams.named("render"))
    del lent
    gc.collect()
    device.adopt(made)  # looks for what can be given back
    assert device._lent
    np.testing.assert_array_equal(np.asarray(made), numbers(4) + 2)
    cuda_of(device).drain()
    device.adopt(made)
    assert not device._lent


def test_what_is_no_array_on_this_gpu_is_refused(device: Device) -> None:
    with pytest.raises(FeedError, match="list is no array"):
        device.adopt([1, 2])

    class Elsewhere:
        def __dlpack__(self, **_: Any) -> object:
            raise AssertionError("not asked")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 3

    with pytest.raises(FeedError, match=r"lies on DLPack device \(2, 3\), not on cuda:0"):
        device.adopt(Elsewhere())


@pytest.mark.parametrize("name", ["cuda_stream", "ptr", "handle"])
def test_streams_of_other_libraries_are_taken(device: Device, name: str) -> None:
    handle = cuda_of(device).create_stream()
    stream = device.streams.foreign(type("Theirs", (), {name: handle})())
    assert stream.handle == handle
    assert device.streams.foreign(stream).handle == handle  # __cuda_stream__
    assert device.streams.foreign(handle) is stream
    own = device.streams.named("render")
    assert device.streams.foreign(own.handle) is own
    with pytest.raises(FeedError, match="str is no CUDA stream"):
        device.streams.foreign("0")


# Ends


def test_closing_gives_everything_back_a_hundred_times() -> None:
    cuda = FakeCuda()
    for _ in range(100):
        device = Device(cuda)
        made = add_one(device, device.upload(numbers(32)), device.streams.named("generate"))
        coming = fetch(made)
        device.close()
        device.close()
        assert not cuda.live
        assert not cuda.live_host
        del made, coming  # dropped after their device
    for made_by, dropped_by in (("create_stream", "destroy_stream"), ("create_event", "destroy_event")):
        assert cuda.calls[made_by] == cuda.calls[dropped_by]


def test_a_closed_device_says_so() -> None:
    device = Device(FakeCuda())
    device.close()
    with pytest.raises(EngineError, match="cuda:0 was closed"):
        device.upload(numbers(4))


def test_no_memory_left_is_an_error_of_its_own() -> None:
    device = Device(FakeCuda(total=4096))
    with pytest.raises(DeviceMemoryError):
        device.upload(numbers(4096))
    assert issubclass(DeviceMemoryError, MemoryError)
    device.close()


def test_a_lost_gpu_can_be_closed() -> None:
    cuda = FakeCuda()
    device = Device(cuda)
    device.upload(numbers(4))
    cuda.fail["synchronize"] = EngineError("lost")
    device.close()


@pytest.mark.parametrize(("text", "ordinal"), [("cpu", None), ("cuda", 0), ("cuda:3", 3)])
def test_devices_are_named_as_everywhere(text: str, ordinal: int | None) -> None:
    assert parse_device(text) == ordinal


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="cpu, cuda or cuda:N"):
        parse_device(device)
