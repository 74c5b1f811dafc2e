"""What an engine was built for, and whether this machine is that."""

from __future__ import annotations

import platform
from typing import TypeAlias

import msgspec

from pflx.engines.bundle.driver import find_gpus
from pflx.engines.bundle.tensorrt_library import Backend, import_tensorrt
from pflx.engines.graphs.protocol import DeviceError, PflxError

Profile: TypeAlias = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""For every input: its smallest, usual and largest shape."""


class PassportError(PflxError, RuntimeError):
    """An engine was built for another machine, library or graph."""


class Passport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one engine was built from and for.

    Attributes:
        file: path of the engine inside the bundle.
        graph: name of the graph.
        precision: which variant of the graph.
        backend: the library that built it, and that alone can run it.
        backend_version: exact version of that library.
        onnx_sha256: hash of the ONNX file it was built from.
        policy_sha256: hash of the precision policy that the file was made with; None without one.
        compute_capabilities: GPU generations it runs on, like `sm_89`.
        profile: the shapes it takes.
        driver: CUDA version of the driver it was built under; None without one.
        os: operating system and processor, like `Linux x86_64`.
        created: time of the build, ISO 8601.
    """

    file: str
    graph: str
    precision: str
    backend: Backend
    backend_version: str
    onnx_sha256: str
    compute_capabilities: list[str]
    profile: Profile
    driver: str | None
    os: str
    created: str
    policy_sha256: str | None = None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The side of a passport that the machine decides; None where there is no GPU."""

    backend: Backend
    backend_version: str
    compute_capability: str | None
    driver: str | None
    os: str


class Mismatch(msgspec.Struct, frozen=True):
    """One field in which an engine and a machine differ."""

    field: str
    built_for: str
    here: str


def this_machine(backend: Backend, device: int = 0) -> Machine:
    """Describe this machine in the terms of a passport.

    Args:
        backend: the library that would run the engine.
        device: which GPU, as the driver counts them.

    Raises:
        BackendMissingError: the library is not installed.
        DeviceError: there are GPUs, but no `device` among them.
    """
    gpus = find_gpus()
    if gpus and device >= len(gpus):
        raise DeviceError(f"Asked for cuda:{device}, this machine has {len(gpus)} GPU(s).")
    gpu = gpus[device] if gpus else None
    return Machine(
        backend=backend,
        backend_version=str(getattr(import_tensorrt(backend), "__version__", "unknown")),
        compute_capability=gpu.compute_capability if gpu else None,
        driver=gpu.driver if gpu else None,
        os=operating_system(),
    )


def operating_system() -> str:
    """Name the operating system and the processor, like `Linux x86_64`."""
    return f"{platform.system()} {platform.machine()}"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The side of a passport that the bundle decides.

    Attributes:
        onnx_sha256: hash of the graph as it is now.
        policy_sha256: hash of the precision policy that it was made with; None without one.
    """

    onnx_sha256: str
    policy_sha256: str | None = None


def compare(passport: Passport, machine: Machine, source: Source | None = None) -> list[Mismatch]:
    """List the fields in which an engine and a machine differ; empty means that it may be loaded.

    The driver is recorded but not compared: an engine does not depend on it.

    Args:
        passport: of the engine, read from the manifest before a byte of the engine is.
        machine: from `this_machine`.
        source: the graph as it is now; None leaves it out.
    """
    capability = machine.compute_capability
    pairs = [
        ("backend", passport.backend, machine.backend),
        ("backend_version", passport.backend_version, machine.backend_version),
        ("os", passport.os, machine.os),
    ]
    if source:
        pairs += [
            ("policy_sha256", passport.policy_sha256 or "no policy", source.policy_sha256 or "no policy"),
            ("onnx_sha256", passport.onnx_sha256, source.onnx_sha256),
        ]
    found = [Mismatch(*pair) for pair in pairs if pair[1] != pair[2]]
    if capability not in passport.compute_capabilities:
        capabilities = " ".join(passport.compute_capabilities)
        found.append(Mismatch("compute_capability", capabilities, capability or "no GPU"))
    return found


def require_match(passport: Passport, machine: Machine, bundle_name: str, source: Source | None = None) -> None:
    """Refuse an engine that was not built for this machine and graph.

    Args:
        passport: of the engine.
        machine: from `this_machine`.
        bundle_name: folder of the bundle, for the command that the message gives.
        source: the graph as it is now; None leaves it out.

    Raises:
        PassportError: naming every field that differs, and the command that rebuilds.
    """
    found = compare(passport, machine, source)
    if not found:
        return
    differences = "; ".join(f"{m.field} is {m.here} here, built for {m.built_for}" for m in found)
    raise PassportError(
        f"{passport.file}: {differences}. Rebuild it: pflx build {bundle_name} --engine {machine.backend}"
    )
