"""What a faster variant of the graphs was admitted for, and whether this machine is that.

TensorRT engines are files with a passport. ONNX Runtime and OpenVINO compile on opening, so what they make of a graph
with less than FP32 in it depends on the library and on the CPU: its admission records both.
"""

from __future__ import annotations

import logging
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from pflx.engines.bundle.engine_passport import PassportError

log = logging.getLogger(__name__)

_FEATURES = {
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16"),
}
"""Of those that a kernel names: the ones that libraries choose their INT8 and bf16 code by."""


class Admission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The terms on which a variant was found as good as was asked.

    Attributes:
        libraries: that may run it.
        judged_with: library and version that the pictures were made with.
        inference: graph to the precision it computes in, `bf16`, where that is less than the file's own.
        cpu: instruction sets of the CPU that it was judged on; empty if it depends on none.
        lowest_psnr_db: of a picture against FP32.
        created: time, ISO 8601.
    """

    libraries: list[str]
    judged_with: str
    inference: dict[str, str] = {}
    cpu: list[str] = []
    lowest_psnr_db: float
    created: str


def require_admitted(admission: Admission, variant: str, library: str, *, on_gpu: bool = False) -> None:
    """Refuse a variant where it was not judged; warn where another version of the library may compute otherwise.

    Args:
        admission: of the variant.
        variant: what messages call it.
        library: that is to run it.
        on_gpu: whether on a GPU.

    Raises:
        PassportError: it was judged for another library, or on a CPU that has what this one lacks.
    """
    if library not in admission.libraries or (on_gpu and admission.cpu):
        place = " on the CPU" if admission.cpu else ""
        raise PassportError(
            f"{variant} was admitted for {' and '.join(admission.libraries)}{place}, not for {library}"
            f"{' on a GPU' if on_gpu else ''}. Give that engine, or take another precision."
        )
    if lacking := sorted(set(admission.cpu) - set(cpu_features())):
        raise PassportError(
            f"{variant} was judged on a CPU with {' '.join(lacking)}, which this one lacks, so that it would compute "
            "something else. Calibrate on this machine, or take another precision."
        )
    here = library_version(library)
    if admission.judged_with.startswith(f"{library} ") and admission.judged_with != here:
        log.warning("%s was judged with %s, here is %s.", variant, admission.judged_with, here)


def is_admitted(admission: Admission, library: str) -> bool:
    """Whether a variant may run on this machine's CPU, with a library."""
    return library in admission.libraries and bool(admission.cpu) and set(admission.cpu) <= set(cpu_features())


def library_version(library: str) -> str:
    """Name and version of an installed library, like `openvino 2026.4.1`."""
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"{library}, not installed"


@cache
def cpu_features(info: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """The instruction sets of this CPU that libraries choose INT8 and bf16 code by, sorted.

    Where the system does not list them, the one name of the architecture.
    """
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return tuple(sorted(_FEATURES & set(flags))) or (platform.machine(),)
