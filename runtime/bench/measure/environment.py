"""The machine that figures hold for: processor, memory, clocks, GPU, versions, and what else was running."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.runtime.bench.report.report import Environment

_ROOT = Path(__file__).resolve().parents[3]
_CPUS = Path("/sys/devices/system/cpu")
_SAYS_NOTHING = (":(exclude)docs", ":(exclude)benchmarks/results")
"""What in a checkout changes no figure."""
_NVIDIA = Path("/proc/driver/nvidia/version")
_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "opencv-python-headless",
    "av",
    "pillow",
    "msgspec",
    "psutil",
)


def describe_environment(device: str = "cpu") -> Environment:
    """Look at the machine; called before a measurement, so that `load` is that of others.

    Args:
        device: what the graphs run on; of several GPUs, the one it names is described.
    """
    gpu = _gpu(device)
    return Environment(
        pflx=_version("pflx") or "not installed",
        commit=commit_of(_ROOT),
        python=platform.python_version(),
        os=platform.platform(),
        cpu=_cpu_name(),
        cores=psutil.cpu_count(logical=False),
        threads_of_machine=psutil.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        frequency=describe_frequency(),
        gpu=gpu.name if gpu else None,
        driver=nvidia_driver() if gpu else None,
        sm=gpu.compute_capability if gpu else None,
        cuda=gpu.driver if gpu else None,
        packages={name: known for name in _PACKAGES if (known := _version(name))},
        load=round(psutil.getloadavg()[0], 2),
    )


def commit_of(checkout: Path) -> str | None:
    """The commit of a checkout, with `-dirty` where code was changed since; None outside of git."""
    if not (checkout / ".git").exists():
        return None
    git = ["git", "-C", str(checkout)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True)
        changed = subprocess.check_output([*git, "diff", "HEAD", "--name-only", "--", ".", *_SAYS_NOTHING], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("-dirty" if changed else "")


def describe_frequency(cpus: Path = _CPUS) -> str:
    """Say whether the processor's clock floats, and where it is now; worth asking again at the end of a measurement.

    Args:
        cpus: the kernel's folder of logical cores, each with a `cpufreq` folder if the kernel steers its clock.

    Returns:
        `locked, 2.4 GHz`, `floating, 0.8 to 3.5 GHz by schedutil, 2.4 GHz now`, or `not stated`.
    """
    policies = list(_policies(cpus))
    if not policies:
        return "not stated"
    current = f"{_mean([now for *_, now in policies]) / 1e6:.1f} GHz"
    if all(low == high for _, low, high, _ in policies):
        return f"locked, {current}"
    low, high = min(low for _, low, *_ in policies), max(high for _, _, high, _ in policies)
    governors = ", ".join(sorted({governor for governor, *_ in policies}))
    return f"floating, {low / 1e6:.1f} to {high / 1e6:.1f} GHz by {governors}, {current} now"


def nvidia_driver(path: Path = _NVIDIA) -> str | None:
    """Version of the NVIDIA driver, which CUDA itself does not tell; None where the kernel does not state it."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", path.read_text())
    except OSError:
        return None
    return found[1] if found else None


def resident_mb() -> float:
    """Main memory that this process holds now, in 10^6 bytes."""
    return float(psutil.Process().memory_info().rss) / 1e6


def _policies(cpus: Path) -> Iterator[tuple[str, int, int, int]]:
    """Governor, least, largest and current frequency in kHz of every core that states them."""
    for folder in sorted(cpus.glob("cpu[0-9]*/cpufreq")):
        try:
            governor = (folder / "scaling_governor").read_text().strip()
            low, high, now = (int((folder / f"scaling_{name}_freq").read_text()) for name in ("min", "max", "cur"))
        except (OSError, ValueError):
            continue
        yield governor, low, high, now


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)


def _gpu(device: str) -> Gpu | None:
    gpus = find_gpus()
    number = device.partition(":")[2]
    ordinal = int(number) if number.isdecimal() else 0
    return gpus[ordinal] if ordinal < len(gpus) else None


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
