"""TensorRT for RTX itself: the names that pflx uses of it, and its engines where there is no GPU."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.gpu.fake_cuda import FakeCuda
from support.gpu.user_cache import put_user_cache

from pflx.engines import DeviceError, PassportError, TensorSpec
from pflx.engines.building.compiler import unsupported_gpus
from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.engines.bundle.engine_passport import Profile, require_match, this_machine
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.trt import TrtContext

F32 = np.dtype(np.float32)
GPU = Gpu("NVIDIA GeForce RTX 4090", "sm_89", "13.0")
H200 = Gpu("NVIDIA H200", "sm_90", "13.0")
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_user_cache(tmp_path / "cache", monkeypatch)


@needs_rtx
def test_the_names_that_pflx_uses_are_in_tensorrt_rtx() -> None:
    trt = import_module("tensorrt_rtx")
    for owner, names in {
        "Runtime": ["get_engine_validity", "deserialize_cuda_engine"],
        "ICudaEngine": [
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_mode",
            "get_tensor_shape",
            "get_tensor_dtype",
            "get_tensor_location",
            "device_memory_size_v2",
            "create_execution_context",
            "create_runtime_config",
        ],
        "IExecutionContext": [
            "set_input_shape",
            "set_tensor_address",
            "set_device_memory",
            "execute_async_v3",
            "is_stream_capturable",
        ],
        "IRuntimeConfig": [
            "cuda_graph_strategy",
            "dynamic_shapes_kernel_specialization_strategy",
            "create_runtime_cache",
            "set_execution_context_allocation_strategy",
            "set_runtime_cache",
        ],
        "IRuntimeCache": ["serialize", "deserialize"],
        "IBuilderConfig": ["create_timing_cache", "set_timing_cache", "get_timing_cache", "set_flag"],
        "ITimingCache": ["serialize"],
        "EngineValidity": ["INVALID", "SUBOPTIMAL"],
        "CudaGraphStrategy": ["DISABLED"],
        "DynamicShapesKernelSpecializationStrategy": ["EAGER", "NONE"],
        "TensorIOMode": ["INPUT", "OUTPUT"],
        "TensorLocation": ["DEVICE"],
        "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
        "BuilderFlag": ["REQUIRE_USER_ALLOCATION"],
    }.items():
        assert not set(names) - set(dir(getattr(trt, owner))), owner
    assert int(trt.EngineInvalidityDiagnostics.__members__["UNSUPPORTED_CC"]) == 2
    for dtype in ("float32", "float16", "int64", "int32", "int8", "uint8", "bool"):
        assert trt.nptype(getattr(trt, dtype)) == np.dtype(dtype).type
    assert unsupported_gpus([GPU, H200]) == [H200]


@needs_rtx
@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_a_real_engine_is_refused_in_words_where_there_is_no_gpu(tmp_path: Path) -> None:
    helper = pytest.importorskip("onnx").helper
    from pflx.engines.building.build import build_engine

    tensor = [helper.make_tensor_value_info(name, 1, ["P", 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", tensor[:1], tensor[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "relu.onnx").write_bytes(model.SerializeToString())
    profile: Profile = {"x": ((1, 64), (1, 64), (4, 64))}
    passport = build_engine(
        tmp_path / "relu.onnx", tmp_path / "relu.plan", backend="tensorrt-rtx", profile=profile, precision="fp32"
    )
    with pytest.raises(PassportError, match="compute_capability is no GPU here, built for sm_80"):
        require_match(passport, this_machine("tensorrt-rtx"), "me.pflx")
    with pytest.raises(DeviceError, match="Asked for cuda:0, and there is no NVIDIA driver or GPU here"):
        Device.open("cuda:0")
    device, spec = Device(FakeCuda()), TensorSpec(("P", 64), F32)
    with pytest.raises(
        DeviceError, match=r"relu\.plan: graph 'relu' on cuda:0 needs a GPU, and there is no NVIDIA driver or GPU here"
    ):
        TrtContext(tmp_path / passport.file, passport, {"x": spec}, {"y": spec}, device, device.streams.named("s"))
