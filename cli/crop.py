"""`pflx crop`: clips → their crops, as the paper's preprocessing makes them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.support.console import err, print_line, progress_bar
from pflx.cli.support.options import FRAME_S
from pflx.cli.support.paths import check_apart
from pflx.engines.graphs.threads import most_threads, usable_cores

if TYPE_CHECKING:
    from pflx.runtime.dataset.crop_folder import Cropping


class Pfl(StrEnum):
    """What is cropped out of a clip."""

    RELEASE = "release"
    PAPER = "paper"
    FLOATING = "floating"


def crop(
    clips: Annotated[list[Path], typer.Argument(help="Clips, and folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of crops to make, or to go on with.")],
    pfl: Annotated[
        Pfl, typer.Option(help="The released code's square, the paper's formula, or the nose in the middle.")
    ] = Pfl.RELEASE,
    size: Annotated[int, typer.Option(min=16, max=4096, help="Side of the videos, in pixels.")] = 256,
    window: Annotated[int, typer.Option(min=1, max=8192, help="Side of what is cropped, in pixels of the clip.")] = 256,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=FRAME_S, help="Only the first S seconds of each clip.")
    ] = None,
    stored_pixels: Annotated[
        bool, typer.Option("--stored-pixels", help="Take pixels that are not square as stored, as OpenCV does.")
    ] = False,
    leave_out_outliers: Annotated[
        bool, typer.Option("--leave-out-outliers", help="Make no videos of clips without the one face.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=most_threads(), help="Processes, with one thread each. [one a core]")
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Crop all anew, whatever is there.")] = False,
) -> None:
    """Crop clips by the face, one region for each, with their sound. Run again, it goes on. See docs/cropping.md."""
    from pflx.runtime.dataset.crop import CropError, CropSettings
    from pflx.runtime.dataset.crop_folder import crop_clips

    check_apart(reads={"CLIPS": clips}, writes={"--output": output})
    settings = CropSettings(pfl=pfl.value, window=window, size=size, square_pixels=not stored_pixels)
    began = monotonic()
    try:
        with progress_bar() as report:
            found = crop_clips(
                clips,
                output,
                settings,
                duration_s=duration,
                workers=workers or usable_cores(),
                leave_out_outliers=leave_out_outliers,
                redo=redo,
                progress=report,
            )
    except KeyboardInterrupt:
        with suppress(OSError, SystemExit):  # of a terminal that was closed
            err.print("Clips that are done stay; the same command goes on with the others.", soft_wrap=True)
        raise
    for line in _summary(found, monotonic() - began):
        print_line(line)
    print_line(f"Wrote {output / 'crop.json'}")
    failed = [each for each in found if each.row.error]
    if failed:
        raise CropError(
            f"{len(failed)} of {len(found)} could not be cropped. Mend or remove what failed, and run again."
        )


def _summary(found: Sequence[Cropping], took_s: float) -> list[str]:
    """What came of the clips, and which are outliers."""
    good = [each for each in found if not each.row.error]
    new = [each for each in good if each.is_new]
    rate = f" in {took_s:.0f} s, {len(new) / took_s:.2g} clips/s" if new else ""
    videos = sum(each.row.video for each in good)
    lines = [
        f"{len(found)} clip{'s' * (len(found) != 1)}: {len(new)} cropped now{rate}; {len(good) - len(new)} before; "
        f"{len(good) - videos} left out; {len(found) - len(good)} failed"
    ]
    kinds = sorted({kind for each in good for kind in each.row.outliers})
    for kind in kinds:
        names = [each.name for each in good if kind in each.row.outliers]
        lines.append(f"  {kind} ({len(names)}): {', '.join(names)}")
    lines += [f"  failed: {each.row.error}" for each in found if each.row.error]
    return lines
