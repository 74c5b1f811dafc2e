"""The machine that a report describes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil
import pytest

from pflx.runtime.bench.measure.environment import (
    describe_environment,
    describe_frequency,
    nvidia_driver,
    resident_mb,
)


def test_this_machine_is_described() -> None:
    found = describe_environment()
    assert found.threads_of_machine == psutil.cpu_count()
    assert found.memory_gb > 0
    assert found.cpu
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.frequency.partition(",")[0] in {"floating", "locked", "not stated"}
    assert {"numpy", "psutil", "msgspec"} <= set(found.packages)
    assert found.load >= 0
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_gpu_that_is_not_there_is_none() -> None:
    found = describe_environment("cuda:99")
    assert (found.gpu, found.driver, found.sm, found.cuda) == (None, None, None, None)


def plant_cores(folder: Path, *cores: Mapping[str, object]) -> Path:
    for number_, core in enumerate(cores):
        policy = folder / f"cpu{number_}" / "cpufreq"
        policy.mkdir(parents=True)
        for name, value in core.items():
            (policy / f"scaling_{name}").write_text(f"{value}\n")
    return folder


def test_a_clock_that_can_move_is_floating_under_any_governor(tmp_path: Path) -> None:
    slow, fast = (
        {"governor": "performance", "min_freq": 800_000, "max_freq": 3_500_000, "cur_freq": now}
        for now in (2_000_000, 2_800_000)
    )
    said = describe_frequency(plant_cores(tmp_path, slow, fast))
    assert said == "floating, 0.8 to 3.5 GHz by performance, 2.4 GHz now"


def test_a_clock_that_cannot_move_is_locked(tmp_path: Path) -> None:
    core = {"governor": "userspace", "min_freq": 2_400_000, "max_freq": 2_400_000, "cur_freq": 2_400_000}
    assert describe_frequency(plant_cores(tmp_path, core, core)) == "locked, 2.4 GHz"


def test_a_machine_that_does_not_state_its_clock_is_not_guessed_at(tmp_path: Path) -> None:
    assert describe_frequency(tmp_path / "none") == "not stated"
    assert describe_frequency(plant_cores(tmp_path, {"governor": "schedutil", "min_freq": "?"})) == "not stated"


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version 12.2.0\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\n",
    ],
)
def test_the_version_of_the_nvidia_driver_is_read_from_the_kernel(tmp_path: Path, text: str) -> None:
    (tmp_path / "version").write_text(text)
    assert nvidia_driver(tmp_path / "version") == "550.54.14"
    assert nvidia_driver(tmp_path / "none") is None


def test_memory_is_in_megabytes() -> None:
    assert 10 < resident_mb() < 1e6


def test_importing_the_runtime_does_not_import_the_benchmark() -> None:
    code = "import sys, pflx.runtime; sys.exit(not {'pflx.runtime.bench', 'psutil'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
