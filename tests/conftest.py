from __future__ import annotations

import os
import signal
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from hypothesis import settings
from support.exported import exported as exported

_EXPORTING = (
    "tests/export/test_belfusion.py",
    "tests/export/test_generators.py",
    "tests/export/test_transvae.py",
    "tests/runtime/generators/test_belfusion.py",
    "tests/runtime/generators/test_families.py",
    "tests/runtime/generators/test_transvae.py",
)
"""They use `support.exported_generators`."""

_WHOLE_NETWORKS = (*_EXPORTING, "tests/export/persons/", "tests/export/test_perfrdiff", "tests/export/test_warp.py")
"""Exported, or computed at the size that they are published in."""

_PACKAGES = ("numpy", "opencv-python-headless", "av", "onnxruntime", "onnxruntime-gpu", "torch", "onnx", "onnxscript")


settings.register_profile("pflx", deadline=None)  # how long a case takes says nothing of it on a busy machine
settings.load_profile("pflx")


def pytest_configure() -> None:
    """Shells let background jobs ignore Ctrl-C, and every child inherits that; the tests press it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)  # a width of the terminal that holds for ever once the console has seen it
    _share_cores()
    _tensorrt()  # its libraries are loaded before any test puts another driver in the place of the real one


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole networks are slow. One file that needs the exported bundle comes first, the others last.

    So nobody waits while it is made.
    """
    for item in items:
        if "exported" in getattr(item, "fixturenames", ()) or item.nodeid.startswith(_WHOLE_NETWORKS):
            item.add_marker(pytest.mark.slow)
    needy = {item.path for item in items if "exported" in getattr(item, "fixturenames", ())}
    first = min(needy, default=None)
    items.sort(
        key=lambda item: 0 if item.path == first else 3 if item.path in needy else 1 + (not _exports(item.nodeid))
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """By files, in the order above; those that export generators go to one worker, which does so once."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc] # xdist tells no types
        def _split_scope(self, nodeid: str) -> str:
            return "exported generators" if _exports(nodeid) else str(super()._split_scope(nodeid))

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def _exports(nodeid: str) -> bool:
    return nodeid.startswith(_EXPORTING)


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
