"""The GPU path on real hardware: one command that needs this repository, a CUDA machine and its wheels.

    python benchmarks/gpu.py [--bundle ME.pflx] [--work DIR] [--device cuda:0] [--only STEP ...]
                             [--minutes 8] [--seconds 1.5]

It probes what there is, exports a bundle from seeded weights unless one is given, compares the GPU's pictures with the
CPU's, and measures: each graph, PyTorch's plain modules beside it, a segment end to end, a live session, and many.

The steps are in gpu_steps/. Each runs in a process of its own, with its own time limit, and leaves DIR/STEP.json; one
that is complete there is not run again. So the command can be repeated until nothing is left, and a step that crashes
costs only itself. All together make DIR/gpu_NAME.json and benchmarks/results/gpu_NAME.json, NAME being that of the GPU.
Without a GPU only the former is written, and says so.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TYPINGS = ROOT / "typings"
_PYTHONPATH = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
if importlib.util.find_spec("pflx") is None:  # not installed: the links in there are the package
    sys.path.append(str(TYPINGS))
    _PYTHONPATH.append(str(TYPINGS))
os.environ["PYTHONPATH"] = os.pathsep.join(_PYTHONPATH)  # for the steps, which run in another folder

import report  # noqa: E402
from gpu_steps.record import Record, Setting, read_step, rounded, say, unmeasured, write_step  # noqa: E402

_PACKAGES = (
    "onnxruntime-gpu",
    "cuda-bindings",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "triton",
    "msgspec",
    "pillow",
    "psutil",
)
_SMI = (
    "name,driver_version,memory.total,pstate,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,"
    "power.draw,power.limit,temperature.gpu,pcie.link.gen.current,pcie.link.width.current,mig.mode.current"
)


@dataclass(frozen=True)
class Step:
    """A part of the measurement.

    Attributes:
        name: of it.
        function: module and function that do it.
        usual_s: how long it is expected to take; it is not begun when less is left.
        limit_s: after which it is ended.
        needs: steps that make what it reads.
    """

    name: str
    function: str
    usual_s: float
    limit_s: float
    needs: tuple[str, ...] = ()


STEPS = (
    Step("probe", "gpu_steps.probe:probe", 20, 150),
    Step("export", "gpu_steps.probe:export", 80, 300),
    Step("parity", "gpu_steps.engines:parity", 20, 150, ("export",)),
    Step("engines", "gpu_steps.engines:engines", 45, 240, ("export",)),
    Step("torch", "gpu_steps.pytorch:plain_modules", 90, 240, ("export",)),
    Step("hop", "gpu_steps.runtime:hop", 60, 240, ("export",)),
    Step("realtime", "gpu_steps.runtime:realtime", 35, 150, ("export",)),
    Step("sessions", "gpu_steps.runtime:sessions", 90, 240, ("export",)),
    Step("export_perfrdiff", "gpu_steps.probe:export_perfrdiff", 60, 240),
    Step("diffusion", "gpu_steps.engines:diffusion", 20, 150, ("export_perfrdiff",)),
    Step("profile", "gpu_steps.pytorch:profile", 15, 90, ("export",)),
)
BY_NAME: Mapping[str, Step] = {step.name: step for step in STEPS}
_BUNDLES = {"export": "untrained.pflx", "export_perfrdiff": "perfrdiff.pflx"}


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    bundle = options.bundle.resolve() if options.bundle else options.work.resolve() / _BUNDLES["export"]
    setting = Setting(options.work.resolve(), bundle, options.device, options.seconds, options.begun or time.time())
    if options.step:
        sys.exit(run_step(BY_NAME[options.step], setting))
    results = run_all(setting, options) if setting.gpu else without_gpu(setting)
    write_results(setting, results, command(options))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="in FP32 and FP16; by default one is exported")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "pflx_gpu", help="for all files")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), metavar="STEP", help=", ".join(BY_NAME))
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no step is begun")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement")
    parser.add_argument("--step", choices=list(BY_NAME), help=argparse.SUPPRESS)
    parser.add_argument("--begun", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


def command(options: argparse.Namespace) -> str:
    """What was typed, without paths."""
    given = [f"--minutes {options.minutes:g} --seconds {options.seconds:g} --device {options.device}"]
    if options.bundle:
        given.insert(0, "--bundle BUNDLE")
    if options.only:
        given.append(f"--only {' '.join(options.only)}")
    return f"python benchmarks/gpu.py {' '.join(given)}"


def run_step(step: Step, setting: Setting) -> int:
    """Do one step in this process; the exit code."""
    record = Record(step.name, setting)
    module, function = step.function.split(":")
    try:
        getattr(importlib.import_module(module), function)(setting, record)
    except Exception as error:
        traceback.print_exc()
        record.found |= unmeasured(error)
        record.write(complete=False)
        return 1
    record.write(complete=True)
    return 0


def without_gpu(setting: Setting) -> dict[str, Any]:
    """What every step found where there is nothing to measure."""
    say(f"{setting.device}: no GPU here; nothing is run", setting.begun)
    return {step.name: {"not_run": "no GPU"} for step in STEPS}


def run_all(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for and what that needs, one step after the other; the results of all steps, by name."""
    wanted = set(options.only or BY_NAME)
    wanted |= {need for name in wanted for need in BY_NAME[name].needs}
    left = []
    for step in STEPS:
        reason = "it was not asked for" if step.name not in wanted else run_if_due(step, setting, options)
        if reason and step.name in wanted:
            left.append(step.name)
            say(f"{step.name}: not run: {reason}", setting.begun)
        if reason and not read_step(setting.work, step.name):
            write_step(setting.work, step.name, {"not_run": reason}, complete=False, gpu=None)
    say(f"left: {', '.join(left) or 'nothing'}", setting.begun)
    return {step.name: read_step(setting.work, step.name).get("result", {}) for step in STEPS}


def run_if_due(step: Step, setting: Setting, options: argparse.Namespace) -> str:
    """Run a step; why it was not run, or an empty string."""
    if step.name == "export" and options.bundle:
        given = {"given": options.bundle.name}
        write_step(setting.work, step.name, given, complete=True, gpu=setting.gpu_name)
        return ""
    if is_complete(step, setting):
        say(f"{step.name}: there already", setting.begun)
        return ""
    missing = [need for need in step.needs if not is_complete(BY_NAME[need], setting)]
    if missing:
        return f"it needs {', '.join(missing)}"
    left_s = 60 * options.minutes - (time.time() - setting.begun)
    if step.usual_s > left_s:
        return f"{left_s:.0f} s were left, and it takes about {step.usual_s:.0f} s"
    failure = launch(step, setting, min(step.limit_s, left_s))
    say(f"{step.name}: {failure or 'done'}", setting.begun)
    return ""


def is_complete(step: Step, setting: Setting) -> bool:
    """Whether a step was done before, on a GPU of this name, and its bundle is still there."""
    content, gpu = read_step(setting.work, step.name), setting.gpu_name
    bundle = {"export": setting.bundle}.get(step.name, setting.work / _BUNDLES.get(step.name, ""))
    is_here = gpu is not None and content.get("gpu") == gpu
    return bool(content.get("complete")) and is_here and bundle.exists()


def launch(step: Step, setting: Setting, limit_s: float) -> str:
    """Run a step in a process of its own; how it failed, or an empty string."""
    (setting.work / f"{step.name}.json").unlink(missing_ok=True)
    words = [sys.executable, Path(__file__).resolve(), "--step", step.name, "--work", setting.work, "--bundle"]
    words += [setting.bundle, "--device", setting.device, "--seconds", setting.seconds, "--begun", setting.begun]
    log = setting.work / f"{step.name}.log"
    with log.open("w") as errors:
        child = subprocess.Popen(
            [str(word) for word in words],
            stderr=errors,
            cwd=setting.work,
            env=environment(setting),
            start_new_session=True,
        )
        try:
            code: int | None = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):  # its own processes must not outlive it
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if code == 0:
        return ""
    found = read_step(setting.work, step.name).get("result", {})
    failure = found.get("failed") or found.get("not_run") or _why(code, limit_s, log)
    if "not_run" not in found:
        found["failed"] = failure
    write_step(setting.work, step.name, found, complete=False, gpu=setting.gpu_name)
    return str(failure)


def environment(setting: Setting) -> dict[str, str]:
    """Of a step: what PyTorch compiles is kept for the next time."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    return {**{name: str(setting.work / folder) for name, folder in caches.items()}, **os.environ}


def _why(code: int | None, limit_s: float, log: Path) -> str:
    ended = f"not done in {limit_s:.0f} s" if code is None else f"the process ended with code {code}"
    if code is not None and code < 0:
        ended = f"the process was ended by signal {signal.Signals(-code).name}"
    said = log.read_text(errors="replace").strip().splitlines()[-1:]
    return ": ".join([ended, *said])[:500]


def write_results(setting: Setting, results: Mapping[str, Any], typed: str) -> None:
    """Put all steps into one file; among the committed results only what was really run."""
    gpu = setting.gpu
    content: dict[str, Any] = {
        "command": typed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(setting),
        "machine": {**report.machine(os.cpu_count() or 1), "gpu": setting.gpu_name},
        "versions": {name: known for name in _PACKAGES if (known := _version(name))},
        "targets": targets(results),
        "steps": dict(results),
    }
    name = re.sub(r"[^a-z0-9]+", "_", gpu.name.lower()).strip("_") if gpu else "none"
    text = json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"
    paths = [setting.work / f"gpu_{name}.json"]
    if gpu and any("not_run" not in result for result in results.values()):
        report.RESULTS.mkdir(exist_ok=True)
        paths.append(report.RESULTS / f"gpu_{name}.json")
    for path in paths:
        path.write_text(text)
        say(f"wrote {path}", setting.begun)
    if not gpu:
        say(f"nothing was written to {report.RESULTS}: nothing was measured", setting.begun)
    for row in content["targets"]:
        say(f"target {row['target']}: {row['value']}, met: {row['met']}", setting.begun)


def targets(steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is aimed at on one GPU of the H200's class, and whether it was reached; None where it was not measured."""
    eight = _at(steps, "engines", "fp16 pirender_frame x8", "captured", "median_ms")
    hop_ms = _at(steps, "hop", "captured", "hop", "p99_ms")
    alone, overlapped = (_at(steps, "hop", "overhead", name) for name in ("captured_without_crop", "overlap"))
    fp32, fp16 = (_at(steps, "parity", precision, "met") for precision in ("fp32", "fp16"))
    kept = _at(steps, "sessions", "kept")
    return [
        _target("FP32 pictures: at most 1 level from the CPU's on 99.9 % of the values", fp32, fp32),
        _target("FP16 pictures: PSNR of at least 45 dB", fp16, fp16),
        _target("PIRender FP16, ms a frame at batch 8: <= 1.0", eight and rounded(eight / 8), eight and eight <= 8.0),
        _target(
            "ReactFace hop of 8 frames, crop of its last speaker frame included, p99 ms: <= 20",
            hop_ms,
            _most(hop_ms, 20),
        ),
        _target(
            "own overhead over the engines' sum without overlap, without the crop: <= 0.05", alone, _most(alone, 0.05)
        ),
        _target(
            "the same with overlap, all crops included: < 0", overlapped, None if overlapped is None else overlapped < 0
        ),
        _target(
            "sessions of 25 fps at once with a DMR of at most 0.1 %: >= 16", kept, None if kept is None else kept >= 16
        ),
    ]


def _target(target: str, value: Any, met: bool | None) -> dict[str, Any]:
    return {"target": target, "value": value, "met": met}


def _most(value: float | None, limit: float) -> bool | None:
    return None if value is None else value <= limit


def _at(found: Any, *names: str) -> Any:
    """What lies so deep, or None."""
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def hardware(setting: Setting) -> dict[str, Any]:
    """The GPU, and what `nvidia-smi` says of it, if it is there."""
    gpu = setting.gpu
    if gpu is None:
        return {"gpu": None}
    facts: dict[str, Any] = {"gpu": gpu.name, "sm": gpu.compute_capability, "cuda_of_driver": gpu.driver}
    return {**facts, "device": setting.device, "nvidia_smi": nvidia_smi(setting.device)}


def nvidia_smi(device: str) -> dict[str, str] | None:
    """Name of each fact to its value; None where the command is not there."""
    ordinal = device.partition(":")[2] or "0"
    query = ["nvidia-smi", f"--query-gpu={_SMI}", "--format=csv,noheader", f"--id={ordinal}"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return dict(zip(_SMI.split(","), _cells(done.stdout), strict=False))
    return None


def _cells(line: str) -> Sequence[str]:
    return [cell.strip() for cell in line.split(",")]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
