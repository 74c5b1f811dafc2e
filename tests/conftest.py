from __future__ import annotations

import os
import signal
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from hypothesis import settings
from support.exported import exported as exported

_PACKAGES = ("numpy", "opencv-python-headless", "av", "onnxruntime", "onnxruntime-gpu", "torch", "onnx", "onnxscript")


settings.register_profile("pflx", deadline=None)  # how long a case takes says nothing of it on a busy machine
settings.load_profile("pflx")


def pytest_configure() -> None:
    """Shells let background jobs ignore Ctrl-C, and every child inherits that; the tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)  # a width of the terminal that holds for ever once the console has seen it
    _share_cores()
    _tensorrt()  # its libraries are loaded before any test puts another driver in the place of the real one


def _share_cores() -> None:
    """Give each process its own cores where tests run side by side: all want all, and would wait for one another."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if worker and count and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        number = int(worker.removeprefix("gw"))
        os.sched_setaffinity(0, cores[number :: int(count)] or cores)


def pytest_report_header() -> list[str]:
    """What the run really had."""
    found = [f"{package} {known}" for package in _PACKAGES if (known := _version(package))]
    return [", ".join(found), f"ONNX Runtime providers: {_providers()}; {_tensorrt()}; {os.cpu_count()} CPUs"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _providers() -> str:
    try:
        return ", ".join(import_module("onnxruntime").get_available_providers())
    except ImportError:
        return "none"


def _tensorrt() -> str:
    for module in ("tensorrt", "tensorrt_rtx"):
        try:
            return f"{module} {import_module(module).__version__}"
        except ImportError:
            continue
    return "no TensorRT"
