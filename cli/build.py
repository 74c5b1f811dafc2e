"""`pflx build`: TensorRT engines for a bundle, on the machine that will run them. No torch needed."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import Annotated

import typer

from pflx.cli.support.console import err, print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument
from pflx.engines import Bundle, DeviceError, PflxError
from pflx.engines.building.build import build_bundle_engines
from pflx.engines.building.compiler import unsupported_gpus
from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.engines.gpu.cuda import open_cuda, parse_device


class Backend(StrEnum):
    """TensorRT flavours."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


def build(
    bundle: BundleArgument,
    engine: Annotated[Backend, typer.Option(help="Library that will run the engines.")] = Backend.TENSORRT_RTX,
    precision: Annotated[str | None, typer.Option(help="fp32 or fp16; by default the bundle's own.")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="GPU generation such as sm_89, repeatable; tensorrt-rtx only.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="cuda[:N]", help="GPU to build on; tensorrt only.")] = "cuda:0",
) -> None:
    """Build or rebuild the TensorRT engines of a bundle. ONNX travels between machines, engines do not."""
    ordinal = parse_device(device)
    if ordinal is None:
        raise DeviceError("Engines are built on a GPU: give --device cuda:N, or none.")
    for gpu in find_gpus()[ordinal : ordinal + 1]:
        _tell_of(gpu, ordinal, engine)
    with progress_bar() as report:
        passports = build_bundle_engines(
            bundle, engine.value, precision, compute_capabilities=capability, progress=report, gpu=ordinal
        )
    manifest = Bundle.open(bundle, verify=False).manifest
    print_untrained(manifest)
    for passport in passports:
        where = " ".join(passport.compute_capabilities)
        megabytes = manifest.files[passport.file].bytes / 1e6
        print_line(f"{passport.graph}: {megabytes:.0f} MB, {passport.precision}, for {where}")
    print_line(f"Built {len(passports)} engines with {passports[0].backend} {passports[0].backend_version}.")


def _tell_of(gpu: Gpu, ordinal: int, engine: Backend) -> None:
    """Say how much memory the GPU has for the build, and whether it will run what is built."""
    with suppress(PflxError):  # without cuda-bindings nothing is known of the memory; the build may do without
        free, total = open_cuda(ordinal).memory()
        err.print(
            f"{gpu.name}, {gpu.compute_capability}: {free / 1e9:.1f} of {total / 1e9:.1f} GB free",
            markup=False,
            soft_wrap=True,
        )
    if engine is Backend.TENSORRT_RTX:
        with suppress(PflxError):  # a library that is missing is the build's to tell
            for left_out in unsupported_gpus([gpu]):
                err.print(
                    f"[yellow]The engines will not run on this GPU[/]: TensorRT for RTX has no kernels for "
                    f"{left_out.name} ({left_out.compute_capability}). ONNX Runtime's CUDA provider and full TensorRT "
                    "run there.",
                    soft_wrap=True,
                )
