"""From a bundle to engines on a device: what is opened where, what is refused, and the CPU in the place of a GPU."""

from __future__ import annotations

import gc
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.fakes import (
    FUNCTIONS,
    INPUTS,
    ONE_FACE,
    OUTPUTS,
    fake_listener,
    frames_of,
    portrait_of,
    sound_of,
    write_fake_bundle,
)
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import FunctionContext
from support.gpu.fake_machine import GPU, Machine, passport_of, plan_of
from support.gpu.fake_trt import FakeTrt, Plan
from support.gpu.user_cache import put_user_cache
from support.live.live_sessions import (
    contents,
    watchdog,  # noqa: F401
)

from pflx.engines import Bundle, BundleError, Engine, PassportError
from pflx.engines.bundle.driver import Gpu
from pflx.engines.bundle.engine_passport import Passport
from pflx.engines.bundle.manifest import MANIFEST, encode_manifest
from pflx.engines.bundle.writer import install_engine
from pflx.engines.gpu.device import Device
from pflx.engines.graphs.protocol import BackendMissingError, DeviceError, EngineError, FeedError, PflxError
from pflx.runtime import EngineSettings, Listener, SpeakerSettings, bundle_engines
from pflx.runtime.bundle_engines import close_engines, open_device, open_engines

H200 = Gpu("NVIDIA H200", "sm_90", "13.0")
NO_DRIVER = "Asked for cuda:0, and there is no NVIDIA driver or GPU here. See `pflx doctor`."
GPU_LIBRARIES: list[Any] = ["onnxruntime", "tensorrt", "tensorrt-rtx"]
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    put_user_cache(tmp_path / "cache", monkeypatch)
    monkeypatch.setattr("pflx.engines.gpu.device.open_cuda", made.open_cuda)
    for module in ("pflx.engines.bundle.engine_passport", "pflx.runtime.bundle_engines"):
        monkeypatch.setattr(f"{module}.find_gpus", lambda: [GPU])
    monkeypatch.setattr(bundle_engines, "OrtEngine", made.open_cpu)
    monkeypatch.setattr(bundle_engines, "OrtContext", made.open_gpu)
    return made


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose driver shows no GPU."""
    made = Machine()
    for module in ("pflx.engines.gpu.cuda", "pflx.engines.bundle.engine_passport", "pflx.runtime.bundle_engines"):
        monkeypatch.setattr(f"{module}.find_gpus", list)
    monkeypatch.setattr(bundle_engines, "OrtEngine", made.open_cpu)
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_fake_bundle(tmp_path / "me.pflx")


def rewrite_passport(bundle: Path, old: Passport, new: Passport) -> None:
    manifest = Bundle.open(bundle, verify=False).manifest
    engines = [new if each == old else each for each in manifest.engines]
    (bundle / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, engines=engines)))


@pytest.fixture
def tensorrt(machine: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTrt]:
    """Install a TensorRT made of Python, and engines of it in the bundle; `changes` are of one graph's passport."""

    def install(library: Any, *, engines: bool = True, changed: str = "", **changes: Any) -> FakeTrt:
        made = FakeTrt(
            FakeCuda(),
            {plan_of(g): Plan(FUNCTIONS[g], INPUTS[g], OUTPUTS[g]) for g in FUNCTIONS},
            library != "tensorrt",
        )
        module = made.module()
        machine.cudas[0], machine.trt = made.cuda, made
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for graph in FUNCTIONS if engines else ():
            given = passport_of(bundle, graph, library, module.__version__)
            installed = install_engine(bundle, given, plan_of(graph))
            if graph == changed:
                rewrite_passport(bundle, installed, msgspec.structs.replace(installed, **changes))
        return made

    return install


@contextmanager
def opened(bundle: Path, device: str, **settings: Any) -> Iterator[tuple[dict[str, Engine], Device | None]]:
    engines, gpu = open_engines(Bundle.open(bundle), device, EngineSettings(**settings))
    yield engines, gpu
    close_engines(engines, gpu)


def assert_closed(engines: Iterable[Engine]) -> None:
    for engine in engines:
        with pytest.raises(EngineError, match="closed"):
            engine.run({})


def reaction(listener: Listener, samples: int = 1) -> list[tuple[Any, ...]]:
    with listener.stream(seed=5, samples=samples) as stream:
        stream.push(video=frames_of(30), audio=sound_of(30))
        stream.finish()
        return contents(stream.pull())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Devices and libraries


@pytest.mark.parametrize(("device", "ordinal"), [("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_a_gpu_is_named_as_everywhere(machine: Machine, device: str, ordinal: int) -> None:
    gpu = open_device(device, "onnxruntime")
    assert gpu is not None
    assert gpu.name == f"cuda:{ordinal}"
    assert list(machine.cudas) == [ordinal]
    gpu.close()


def test_the_cpu_is_no_gpu(machine: Machine) -> None:
    assert open_device("cpu", "onnxruntime") is None
    assert not machine.cudas


@pytest.mark.parametrize("device", ["gpu", "cuda:", "CUDA", "cuda:-1", "cuda:x", ""])
def test_what_names_no_device_is_refused(machine: Machine, bundle: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=f"Unknown device '{device}'; give cpu, cuda or cuda:N."):
        Listener.open(bundle, portrait_of(), device=device)
    assert not machine.cudas
    assert not machine.on_cpu


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_unknown_library_is_refused_with_those_that_there_are(machine: Machine, bundle: Path, device: str) -> None:
    library: Any = "mnn"
    with pytest.raises(FeedError, match=r"library is 'mnn'; give onnxruntime, openvino, tensorrt, tensorrt-rtx\."):
        Listener.open(bundle, portrait_of(), device=device, engines=EngineSettings(library=library))
    assert not machine.cudas


@pytest.mark.parametrize("threads", [-1, 0, 100_000])
def test_threads_that_no_machine_has_are_refused_before_anything_is_opened(threads: int) -> None:
    with pytest.raises(FeedError, match=f"threads is {threads}; give 1 to "):
        EngineSettings(threads=threads)


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("fallback", [False, True])
def test_tensorrt_on_the_cpu_is_refused(machine: Machine, bundle: Path, library: Any, fallback: bool) -> None:
    with pytest.raises(DeviceError, match=f"{library} runs on a GPU only; give device='cuda', or leave the engine"):
        Listener.open(bundle, portrait_of(), engines=EngineSettings(library=library, fallback=fallback))
    assert not machine.on_cpu


def test_openvino_on_a_gpu_is_refused(machine: Machine, bundle: Path) -> None:
    with pytest.raises(DeviceError, match="openvino runs on the CPU only; give device='cpu', or another engine"):
        Listener.open(bundle, portrait_of(), device="cuda", engines=EngineSettings(library="openvino", fallback=True))
    assert not machine.cudas


@pytest.mark.parametrize("library", ["onnxruntime", "tensorrt"])
def test_without_a_driver_a_gpu_is_refused(no_gpu: Machine, bundle: Path, library: Any) -> None:
    with pytest.raises(DeviceError, match=re.escape(NO_DRIVER)):
        Listener.open(bundle, portrait_of(), device="cuda", engines=EngineSettings(library=library))
    assert not no_gpu.on_cpu


def test_a_gpu_that_is_not_there_is_refused_with_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pflx.engines.gpu.cuda", "pflx.runtime.bundle_engines"):
        monkeypatch.setattr(f"{module}.find_gpus", lambda: [GPU])
    with pytest.raises(DeviceError, match=re.escape("Asked for cuda:1, this machine has 1 GPU(s).")):
        open_device("cuda:1", "onnxruntime")


@needs_rtx
def test_tensorrt_for_rtx_on_a_gpu_that_it_has_no_kernels_for_is_refused_with_the_way_out(
    machine: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_engines, "find_gpus", lambda: [GPU, H200])
    words = re.escape("tensorrt-rtx has no kernels for cuda:1, NVIDIA H200 (sm_90)")
    with pytest.raises(DeviceError, match=f"{words}.*Take onnxruntime, or tensorrt") as caught:
        Listener.open(bundle, portrait_of(), device="cuda:1", engines=EngineSettings(library="tensorrt-rtx"))
    assert "\n" not in str(caught.value)
    assert not machine.cudas
    with pytest.raises(BundleError, match="pflx build"):  # the other GPU is one that it knows
        Listener.open(bundle, portrait_of(), device="cuda:0", engines=EngineSettings(library="tensorrt-rtx"))


# Engines


def test_graphs_are_put_on_the_streams_generate_and_render(machine: Machine, bundle: Path) -> None:
    with opened(bundle, "cuda") as (engines, gpu):
        assert gpu is not None
        assert list(engines) == list(FUNCTIONS)
    assert machine.streams == {
        "reactface_speaker": "generate",
        "reactface_listener": "generate",
        "posnet": "generate",
        "pirender_portrait": "render",
        "pirender_frame": "render",
    }
    machine.assert_gpu_is_given_back()


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("library", GPU_LIBRARIES)
def test_a_listener_on_a_gpu_shows_the_frames_of_the_cpu(
    machine: Machine, bundle: Path, tensorrt: Callable[..., FakeTrt], library: Any, samples: int
) -> None:
    if library != "onnxruntime":
        tensorrt(library)
    with Listener.open(bundle, portrait_of(), speaker=SpeakerSettings(detector=ONE_FACE), lookahead=3) as cpu:
        expected = reaction(cpu, samples)
    with Listener.open(
        bundle,
        portrait_of(),
        device="cuda",
        engines=EngineSettings(library=library, fallback=True),
        speaker=SpeakerSettings(detector=ONE_FACE),
        lookahead=3,
    ) as listener:
        assert (cpu.device, listener.device) == ("cpu", "cuda:0")
        for _ in range(3):  # new, captured, replayed
            assert reaction(listener, samples) == expected
    gc.collect()
    machine.assert_gpu_is_given_back()
    assert machine.cuda.calls["launch"] > 0
    if machine.trt is not None:
        assert machine.trt.count("execute_async_v3") > 0
        assert not machine.trt.alive
    else:
        assert all(context.is_closed for context in machine.on_gpu.values())


@pytest.mark.parametrize("error", [EngineError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_was_opened_is_closed_when_a_later_graph_fails(
    machine: Machine, bundle: Path, device: str, error: BaseException
) -> None:
    machine.fail["pirender_portrait"] = error
    with pytest.raises(type(error)) as caught:
        Listener.open(bundle, portrait_of(), device=device)
    assert caught.value is error
    if device == "cpu":
        manifest = Bundle.open(bundle).manifest
        in_order = sorted(FUNCTIONS, key=lambda graph: manifest.files[manifest.graphs[graph].files["fp32"]].bytes)
        assert list(machine.on_cpu) == in_order[: in_order.index("pirender_portrait")]
        assert machine.on_cpu
        assert_closed(machine.on_cpu.values())
    else:
        assert list(machine.on_gpu) == list(FUNCTIONS)[:3]
        assert all(context.is_closed for context in machine.on_gpu.values())
        assert machine.cuda.calls["malloc"] > 0
        machine.assert_gpu_is_given_back()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_is_closed_when_the_portrait_cannot_be_read(machine: Machine, bundle: Path, device: str) -> None:
    with pytest.raises(PflxError, match="absent"):
        Listener.open(bundle, bundle / "absent.png", device=device)
    assert len(machine.on_cpu) + len(machine.on_gpu) == len(FUNCTIONS)
    assert_closed(machine.on_cpu.values())
    machine.assert_gpu_is_given_back()


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_a_bundle_without_engines_of_the_library_comes_with_the_command_that_builds_them(
    machine: Machine, bundle: Path, tensorrt: Callable[..., FakeTrt], library: Any
) -> None:
    tensorrt(library, engines=False)
    with pytest.raises(BundleError) as caught:
        Listener.open(bundle, portrait_of(), device="cuda", engines=EngineSettings(library=library))
    assert str(caught.value) == (
        f"{bundle} has no {library} engine of graph 'reactface_speaker' in fp32. "
        f"Build it: pflx build {bundle} --engine {library}"
    )
    machine.assert_gpu_is_given_back()


def test_a_variant_that_the_bundle_does_not_have_is_named(machine: Machine, bundle: Path) -> None:
    for device in ("cpu", "cuda"):
        with pytest.raises(BundleError, match="has no fp16 variant; it has fp32"):
            Listener.open(bundle, portrait_of(), device=device, engines=EngineSettings(precision="fp16"))
    machine.assert_gpu_is_given_back()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"onnx_sha256": "0" * 64}, f"onnx_sha256 is [0-9a-f]+ here, built for {'0' * 64}"),
        ({"backend_version": "9.9"}, r"backend_version is 1\S+ here, built for 9.9"),
        ({"compute_capabilities": ["sm_75"]}, "compute_capability is sm_89 here, built for sm_75"),
    ],
)
@pytest.mark.parametrize("library", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_of_another_graph_or_version_is_refused_before_its_file_is_read(
    machine: Machine,
    bundle: Path,
    tensorrt: Callable[..., FakeTrt],
    library: Any,
    change: dict[str, Any],
    words: str,
) -> None:
    made = tensorrt(library, changed="posnet", **change)
    found = Bundle.open(bundle)
    passport = found.passport("posnet", library)
    assert passport is not None
    (bundle / passport.file).unlink()  # whoever read it would say that it is missing
    with pytest.raises(PassportError, match=f"{words}.*pflx build {bundle} --engine {library}"):
        open_engines(found, "cuda", EngineSettings(library))
    loaded = [call[1] for call in made.calls if call[0] == "deserialize"]
    assert loaded == [plan_of("reactface_speaker"), plan_of("reactface_listener")]
    gc.collect()
    assert not made.alive
    machine.assert_gpu_is_given_back()


# The CPU in the place of a GPU


def test_a_gpu_that_cannot_be_had_is_no_silent_cpu(
    no_gpu: Machine, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(DeviceError):
        Listener.open(bundle, portrait_of(), device="cuda:0")
    assert not no_gpu.on_cpu
    assert not caplog.records


@pytest.mark.parametrize("library", ["onnxruntime", "tensorrt"])
def test_with_fallback_the_cpu_is_taken_and_one_warning_holds_the_reason(
    no_gpu: Machine, bundle: Path, library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        listener = Listener.open(
            bundle,
            portrait_of(),
            device="cuda",
            engines=EngineSettings(library=library, fallback=True),
            speaker=SpeakerSettings(detector=ONE_FACE),
            lookahead=3,
        )
    assert warnings(caplog) == [f"{NO_DRIVER} Running on the CPU."]
    assert listener.device == "cpu"
    assert set(no_gpu.on_cpu) == set(FUNCTIONS)
    assert reaction(listener) == reaction(fake_listener(lookahead=3))
    listener.close()


def test_with_fallback_a_library_that_fails_on_the_gpu_gives_it_back_first(
    machine: Machine, bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_gpu(path: Path, *given: Any) -> FunctionContext:
        if path.name.startswith("posnet"):
            raise DeviceError("Asked for cuda:0, ONNX Runtime took CPUExecutionProvider.")
        return machine.open_gpu(path, *given)

    monkeypatch.setattr(bundle_engines, "OrtContext", fail_on_gpu)
    with caplog.at_level(logging.DEBUG), opened(bundle, "cuda", fallback=True) as (engines, gpu):
        assert gpu is None
        assert engines == machine.on_cpu
        machine.assert_gpu_is_given_back()
    assert warnings(caplog) == ["Asked for cuda:0, ONNX Runtime took CPUExecutionProvider. Running on the CPU."]


@pytest.mark.parametrize("engines", [False, True])
def test_with_fallback_missing_engines_and_those_of_another_machine_are_told(
    machine: Machine,
    bundle: Path,
    tensorrt: Callable[..., FakeTrt],
    caplog: pytest.LogCaptureFixture,
    engines: bool,
) -> None:
    tensorrt("tensorrt", engines=engines, changed="posnet", backend_version="9.9")
    with caplog.at_level(logging.WARNING), opened(bundle, "cuda", library="tensorrt", fallback=True) as (_, gpu):
        assert gpu is None
    (told,) = warnings(caplog)
    assert told.endswith(f"pflx build {bundle} --engine tensorrt Running on the CPU.")
    assert ("built for 9.9" in told) == engines
    machine.assert_gpu_is_given_back()


def test_with_fallback_a_missing_package_is_told_with_its_install_line(
    machine: Machine, bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(ordinal: int) -> None:
        raise BackendMissingError("cuda.bindings.runtime", "pip install 'pflx[gpu]'")

    monkeypatch.setattr("pflx.engines.gpu.device.open_cuda", missing)
    with caplog.at_level(logging.WARNING), opened(bundle, "cuda", fallback=True) as (_, gpu):
        assert gpu is None
    assert warnings(caplog) == [
        "cuda.bindings.runtime is not installed. Install it: pip install 'pflx[gpu]' Running on the CPU."
    ]
    assert set(machine.on_cpu) == set(FUNCTIONS)


def test_where_the_gpu_can_be_had_fallback_changes_nothing(
    machine: Machine, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), opened(bundle, "cuda", fallback=True) as (_, gpu):
        assert gpu is not None
    assert not warnings(caplog)
    assert not machine.on_cpu


def test_with_fallback_a_graph_that_fails_on_the_cpu_too_is_an_error(machine: Machine, bundle: Path) -> None:
    machine.fail["pirender_portrait"] = EngineError("broken")
    with pytest.raises(EngineError, match="broken"):
        Listener.open(bundle, portrait_of(), device="cuda", engines=EngineSettings(fallback=True))
    assert machine.on_cpu
    assert_closed(machine.on_cpu.values())
    machine.assert_gpu_is_given_back()
