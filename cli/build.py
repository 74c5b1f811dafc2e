"""`pflx build`: TensorRT engines for a bundle, on the machine that will run them. No torch needed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.console import print_line, print_untrained, progress_bar
from pflx.engines import Bundle
from pflx.engines.build import build_bundle_engines


class Backend(StrEnum):
    """TensorRT flavours."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


def build(
    bundle: Annotated[Path, typer.Argument(help="Bundle made by `pflx export`.")],
    engine: Annotated[Backend, typer.Option(help="Library that will run the engines.")] = Backend.TENSORRT_RTX,
    precision: Annotated[str | None, typer.Option(help="fp32 or fp16; by default the bundle's own.")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="GPU generation such as sm_89, repeatable; tensorrt-rtx only.")
    ] = None,
) -> None:
    """Build or rebuild the TensorRT engines of a bundle. ONNX travels between machines, engines do not."""
    with progress_bar() as report:
        passports = build_bundle_engines(
            bundle, engine.value, precision, compute_capabilities=capability, progress=report
        )
    manifest = Bundle.open(bundle, verify=False).manifest
    print_untrained(manifest)
    for passport in passports:
        where = " ".join(passport.compute_capabilities)
        megabytes = manifest.files[passport.file].bytes / 1e6
        print_line(f"{passport.graph}: {megabytes:.0f} MB, {passport.precision}, for {where}")
    print_line(f"Built {len(passports)} engines with {passports[0].backend} {passports[0].backend_version}.")
