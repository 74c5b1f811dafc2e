"""`pflx collect`: all rows of `pflx batch` in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.support.console import print_error, print_line, progress_bar
from pflx.cli.support.paths import check_apart, check_output

_MOST_TOLD = 20


def collect(
    folder: Annotated[Path, typer.Argument(help="Folder that `pflx batch` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .npz.")],
    frames: Annotated[
        int | None, typer.Option(min=1, help="Take so many of each; needed where lengths differ.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Write what there is, though rows are missing.")
    ] = False,
) -> None:
    """Put all reactions into one file, [N, M, T, 58] and [N, M, T, 25], in the order of the index."""
    from pflx.runtime.dataset.collect import collect, save_collected

    check_output(output, ".npz")
    check_apart(reads={"FOLDER": folder}, writes={"--output": output})
    with progress_bar() as report:
        found = collect(folder, frames=frames, progress=lambda done, total: report("reading", done, total))
    for each in found.missing[:_MOST_TOLD]:
        print_error(f"{each.row.id} is missing. {each.why}")
    if len(found.missing) > _MOST_TOLD:
        print_error(f"And {len(found.missing) - _MOST_TOLD} more are missing.")
    if found.missing and not allow_missing:
        total = len(found.missing) + len(found.rows)
        print_error(
            f"{len(found.missing)} of {total} rows are missing, and nothing was written. Run `pflx batch` again, or "
            "take what there is with --allow-missing."
        )
        raise typer.Exit(1)
    save_collected(output, found)
    for line in found.left_out:
        print_line(line)
    for name, array in found.arrays.items():
        if array.ndim > 1:
            print_line(f"{name} {list(array.shape)}")
    print_line(f"Wrote {output}")
