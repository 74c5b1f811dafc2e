"""ONNX Runtime 1.32 reports its use, and keeps a number of the machine for it; with pflx it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

RUN = """
import sys
from pflx.engines.graphs.ort import OrtEngine, import_onnxruntime
import_onnxruntime().InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""
GRAPH = ROOT / "runtime/data/256/listener.pflx/graphs/posnet.fp32.onnx"


def kept_at_home(home: Path, **said: str) -> set[str]:
    """Files that a process leaves in its home folder that opens a graph."""
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | said
    subprocess.run([sys.executable, "-c", RUN, GRAPH], env=environment, check=True, capture_output=True)
    return {path.name for path in home.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep it elsewhere")
def test_nothing_is_kept_to_report_with(tmp_path: Path) -> None:
    assert kept_at_home(tmp_path / "home") == set()


@pytest.mark.parametrize("said", ["0", "1"])
def test_who_has_decided_keeps_the_decision(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    ask = "import os, pflx; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", said)
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout == f"{said}\n"
