"""The committed reports about latency, each as `pflx bench-latency` writes it: figures, machine, versions, command.

    cpu     a live session on a bundle, on this machine's CPU
    stub    the same with networks that cost nothing: what is left is pflx's own cost
    engine  every graph of the bundle alone
    soak    one hour with stubs on a virtual clock: does anything grow or drift?

python benchmarks/latency.py BUNDLE PORTRAIT [--only cpu stub engine soak]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from report import RESULTS

from pflx.runtime import VirtualClock
from pflx.runtime.bench.measure.plan import LATE_INSTEAD, Plan
from pflx.runtime.bench.measure.soak import run_soak
from pflx.runtime.bench.report.report import save_report
from pflx.runtime.bench.report.summary import report_lines

PLAYOUT_MS = 100
SOAK_S = 3600


def measure(name: str, *options: object) -> None:
    """Run the command as a user would."""
    pflx = Path(sys.executable).with_name("pflx")
    json = os.path.relpath(RESULTS / f"latency_{name}.json")
    words = [pflx, "bench-latency", *options, "--playout-ms", PLAYOUT_MS, "--json", json]
    subprocess.run([str(word) for word in words], check=True)


def soak() -> None:
    """An hour in a few minutes."""
    command = "python benchmarks/latency.py BUNDLE PORTRAIT --only soak"
    plan = Plan(stub=True, duration_s=SOAK_S, live=replace(LATE_INSTEAD, playout_ms=PLAYOUT_MS), command=command)
    report = run_soak(plan, VirtualClock())
    save_report(RESULTS / "latency_soak.json", report)
    print("\n".join(report_lines(report)))


def main() -> None:
    """Run what was asked for, one after the other, on an otherwise idle machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("portrait", type=Path)
    parser.add_argument("--only", nargs="+", choices=["cpu", "stub", "engine", "soak"])
    options = parser.parse_args()
    wanted = options.only or ["cpu", "stub", "engine", "soak"]
    given = (options.bundle, "--portrait", options.portrait)
    if "cpu" in wanted:
        measure("cpu", *given, "--duration", 60)
    if "stub" in wanted:
        measure("stub", *given, "--duration", 300, "--stub")
    if "engine" in wanted:
        measure("engine", *given, "--mode", "engine")
    if "soak" in wanted:
        soak()


if __name__ == "__main__":
    main()
