"""How many threads: what affinity and container leave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pflx.engines.graphs import threads
from pflx.engines.graphs.ort import session_options
from pflx.engines.graphs.threads import library_threads, most_threads, usable_cores


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of sixteen, of which this process may use twelve."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)


def groups(root: Path, files: dict[str, str], own: str = "0::/\n") -> tuple[Path, Path]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "own").write_text(own)
    return root, root / "own"


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, "0::/\n", 12),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 12),
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "1000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "3000000 100000\n"}, "0::/\n", 12),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu:/\n", 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu:/\n", 12),
        ({"a.slice/cpu.max": "300000 100000", "a.slice/b.scope/cpu.max": "max 100000"}, "0::/a.slice/b.scope\n", 3),
        ({"a.slice/cpu.max": "300000 100000"}, "0::/other.slice\n", 12),
        ({"cpu.max": "what?"}, "nonsense", 12),
    ],
)
def test_the_least_of_affinity_and_quotas_counts(
    tmp_path: Path, files: dict[str, str], own: str, expected: int
) -> None:
    assert usable_cores(*groups(tmp_path, files, own)) == expected


@pytest.mark.usefixtures("cores")
def test_a_library_is_told_how_many_cores_are_ours_where_it_would_count_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads.usable_cores, "__defaults__", groups(tmp_path, {"cpu.max": "200000 100000"}))
    assert (library_threads(None), library_threads(5), most_threads()) == (2, 5, 8)
    assert session_options(None, {}, "all").intra_op_num_threads == 2
    assert session_options(5, {}, "all").intra_op_num_threads == 5


def test_a_library_counts_for_itself_where_all_cores_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", usable_cores)
    assert library_threads(None) is None
    assert session_options(None, {}, "all").intra_op_num_threads == 0


@pytest.mark.parametrize("pooled", [True, False])
def test_memory_of_a_call_is_kept_as_asked(pooled: bool) -> None:
    assert session_options(None, {}, "all").enable_cpu_mem_arena
    assert session_options(None, {}, "all", pooled=pooled).enable_cpu_mem_arena is pooled
