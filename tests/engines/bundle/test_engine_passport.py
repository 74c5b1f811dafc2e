"""Passports against machines, and machines as their driver describes them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import msgspec
import pytest

from pflx.engines import DeviceError, PassportError
from pflx.engines.bundle.driver import Gpu, NoGpu, find_gpus, require_driver, use_gpu, why_no_gpu
from pflx.engines.bundle.engine_passport import (
    Machine,
    Mismatch,
    Passport,
    Source,
    compare,
    require_match,
    this_machine,
)
from pflx.engines.gpu.cuda import open_cuda

HERE = Machine(
    backend="tensorrt-rtx",
    backend_version="1.7.1",
    compute_capability="sm_89",
    driver="13.0",
    os="Linux x86_64",
)
MADE_HERE = Passport(
    file="engines/posnet.plan",
    graph="posnet",
    precision="fp16",
    backend="tensorrt-rtx",
    backend_version="1.7.1",
    onnx_sha256="aa",
    compute_capabilities=["sm_86", "sm_89"],
    profile={},
    driver="12.8",
    os="Linux x86_64",
    created="2026-01-02T03:04:05+00:00",
)


def test_an_engine_matches_the_machine_it_was_made_for_whatever_the_driver() -> None:
    assert compare(MADE_HERE, HERE, Source(onnx_sha256="aa")) == []
    require_match(MADE_HERE, HERE, "me.pflx", Source(onnx_sha256="aa"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"backend": "tensorrt"}, Mismatch("backend", "tensorrt-rtx", "tensorrt")),
        ({"backend_version": "1.8"}, Mismatch("backend_version", "1.7.1", "1.8")),
        ({"compute_capability": "sm_90"}, Mismatch("compute_capability", "sm_86 sm_89", "sm_90")),
        ({"compute_capability": None}, Mismatch("compute_capability", "sm_86 sm_89", "no GPU")),
        ({"os": "Windows AMD64"}, Mismatch("os", "Linux x86_64", "Windows AMD64")),
    ],
)
def test_each_field_that_differs_is_named_with_the_command_that_helps(
    change: dict[str, Any], expected: Mismatch
) -> None:
    machine = msgspec.structs.replace(HERE, **change)
    assert compare(MADE_HERE, machine) == [expected]
    words = f"{expected.field} is {expected.here} here, built for {expected.built_for}"
    with pytest.raises(PassportError, match=words) as caught:
        require_match(MADE_HERE, machine, "me.pflx")
    assert f"pflx build me.pflx --engine {machine.backend}" in str(caught.value)


def test_a_graph_that_changed_after_the_build_is_noticed() -> None:
    assert compare(MADE_HERE, HERE, Source(onnx_sha256="bb")) == [Mismatch("onnx_sha256", "aa", "bb")]


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ("p1", "p1", []),
        ("p1", "p2", [Mismatch("policy_sha256", "p1", "p2")]),
        (None, "p2", [Mismatch("policy_sha256", "no policy", "p2")]),
        ("p1", None, [Mismatch("policy_sha256", "p1", "no policy")]),
    ],
)
def test_an_engine_of_another_precision_policy_is_noticed(
    then: str | None, now: str | None, expected: list[Mismatch]
) -> None:
    made = msgspec.structs.replace(MADE_HERE, policy_sha256=then)
    assert compare(made, HERE, Source(onnx_sha256="aa", policy_sha256=now)) == expected
    for mismatch in expected:
        with pytest.raises(PassportError, match=f"policy_sha256 is {mismatch.here} here, built for {then or 'no'}"):
            require_match(made, HERE, "me.pflx", Source(onnx_sha256="aa", policy_sha256=now))


class FakeDriver:
    """Answers as libcuda does: 0 for success, the value through a pointer."""

    def __init__(self, n_gpus: int, state: int = 0) -> None:
        self.n_gpus, self.state = n_gpus, state

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.state

    def __getattr__(self, name: str) -> Callable[..., int]:
        def answer(pointer: Any, *arguments: int) -> int:
            if name == "cuDeviceGetName":
                pointer.value = b"RTX"
                return 0
            values = {"cuDeviceGetCount": self.n_gpus, "cuDeviceGet": 0, "cuDriverGetVersion": 12080}
            pointer._obj.value = values.get(name, {75: 8, 76: 9}.get(arguments[0] if arguments else 0))
            return 0

        return answer


@pytest.fixture
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: request.param)


@pytest.mark.parametrize("driver", [FakeDriver(2)], indirect=True)
@pytest.mark.usefixtures("driver")
def test_gpus_are_described_as_the_driver_describes_them() -> None:
    assert find_gpus() == [Gpu("RTX", "sm_89", "12.8")] * 2


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize("driver", [FakeDriver(1)], indirect=True)
@pytest.mark.usefixtures("driver")
def test_a_machine_is_described_in_the_terms_of_a_passport() -> None:
    machine = this_machine("tensorrt-rtx")
    assert (machine.compute_capability, machine.driver) == ("sm_89", "12.8")
    assert machine.backend_version.startswith("1.")
    with pytest.raises(DeviceError, match=r"cuda:1, this machine has 1 GPU"):
        this_machine("tensorrt-rtx", device=1)


@pytest.mark.parametrize("driver", [FakeDriver(1, state=100), FakeDriver(0)], indirect=True)
@pytest.mark.usefixtures("driver")
def test_a_driver_without_a_usable_gpu_counts_as_none() -> None:
    assert find_gpus() == []


def test_no_driver_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_gpus() == []
    assert why_no_gpu() == NoGpu(False, "there is no NVIDIA driver or GPU here")


@pytest.mark.parametrize(
    ("driver", "broken", "said"),
    [
        (FakeDriver(0, state=3), True, "answers 3: it cannot be used in a process that was forked"),
        (FakeDriver(0, state=100), False, "answers 100: it shows no GPU: see CUDA_VISIBLE_DEVICES"),
        (FakeDriver(0), False, "answers 100: it shows no GPU"),
        (FakeDriver(0, state=803), True, "answers 803: its library and its kernel module are of different versions"),
        (FakeDriver(0, state=804), True, "answers 804: CUDA's compatibility library does not support this GPU"),
        (FakeDriver(0, state=999), True, "answers 999: its kernel module does not answer, as after sleep"),
        (FakeDriver(0, state=12345), True, "answers 12345: see `nvidia-smi`"),
    ],
    indirect=["driver"],
)
@pytest.mark.usefixtures("driver")
def test_a_driver_that_fails_is_told_with_what_to_do(broken: bool, said: str) -> None:
    found = why_no_gpu()
    assert found.broken == broken
    assert found.reason.startswith(f"the NVIDIA driver {said}")
    with pytest.raises(DeviceError, match=re.escape(f"Asked for cuda:0, and {found.reason}. See `pflx doctor`.")):
        open_cuda(0)


@pytest.mark.parametrize(
    ("driver", "cuda", "enough"), [("13.0", "13.3", True), ("13.2", "12.8", True), ("12.8", "13.0", False)]
)
def test_a_driver_has_to_be_as_new_as_the_major_version_of_cuda(driver: str, cuda: str, enough: bool) -> None:
    gpu = Gpu("RTX", "sm_89", driver)
    if enough:
        require_driver(gpu, "a library", cuda)
        return
    with pytest.raises(
        DeviceError, match=r"a library is of CUDA 13.0, and the driver of RTX supports CUDA 12.8 at most"
    ):
        require_driver(gpu, "a library", cuda)


class FakeContexts(FakeDriver):
    """Keeps which context was made current."""

    current: int | None = None

    def cuDeviceGet(self, pointer: Any, ordinal: int) -> int:  # noqa: N802
        pointer._obj.value = ordinal
        return 0 if ordinal < self.n_gpus else 101

    def cuDevicePrimaryCtxRetain(self, pointer: Any, device: Any) -> int:  # noqa: N802
        pointer._obj.value = 0x1000 + device.value
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        self.current = context.value
        return 0


def test_a_build_takes_the_gpu_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeContexts(2)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    use_gpu(1)
    assert driver.current == 0x1001
    with pytest.raises(DeviceError, match=r"cuda:2: the NVIDIA driver answers 101: CUDA_VISIBLE_DEVICES names"):
        use_gpu(2)
