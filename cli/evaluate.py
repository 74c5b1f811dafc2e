"""`pflx evaluate`: how good predicted reactions are, and how smooth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.support.console import command_line, err, print_line, progress_bar
from pflx.cli.support.paths import check_apart, check_output

_Predictions = Annotated[
    Path, typer.Argument(help="Of `pflx run --coefficients`, .npz; or [N, K, T, D] or [K, T, D], .npy or .npz.")
]
_Listener = Annotated[Path | None, typer.Option(help="True reactions [N, T, D] or [T, D]: for FRCorr and FRDist.")]
_Speaker = Annotated[Path | None, typer.Option(help="Of the speakers, likewise: for FRSyn.")]
_Neighbours = Annotated[
    Path | None, typer.Option(help="[N, N] of 0 and 1: reactions (columns) appropriate to a clip (row).")
]
_Video = Annotated[Path | None, typer.Option(help="Rendered from the predictions: for flicker and dynamic degree.")]
_Hop = Annotated[int | None, typer.Option(min=1, help="Frames of a segment, where the file does not say.")]
_PosNet = Annotated[
    bool | None, typer.Option("--with-posnet/--without-posnet", help="One of the two tracks of a run; by default both.")
]
_Plot = Annotated[Path | None, typer.Option(help="Also draw the pose over time with the seams, .png.")]
_Json = Annotated[Path | None, typer.Option(help="Also write all figures, .json.")]
_AllSamples = Annotated[
    bool, typer.Option("--all-samples", help="FRSyn of all reactions too; the published one is of the first.")
]


def evaluate(
    predictions: _Predictions,
    listener: _Listener = None,
    speaker: _Speaker = None,
    neighbours: _Neighbours = None,
    video: _Video = None,
    hop: _Hop = None,
    posnet: _PosNet = None,
    plot: _Plot = None,
    json: _Json = None,
    all_samples: _AllSamples = False,
) -> None:
    """Judge predicted reactions: the REACT challenge's metrics, seams, jerk, flicker. See docs/evaluation.md."""
    from pflx.runtime.evaluation.evaluate import Inputs, evaluate
    from pflx.runtime.evaluation.plot import check_plot, save_plot
    from pflx.runtime.evaluation.predictions import read_neighbours, read_predictions, read_track
    from pflx.runtime.evaluation.results import save_evaluation
    from pflx.runtime.evaluation.summary import evaluation_lines

    check_output(plot, ".png")
    check_output(json, ".json")
    check_apart(
        reads={
            "PREDICTIONS": predictions,
            "--listener": listener,
            "--speaker": speaker,
            "--neighbours": neighbours,
            "--video": video,
        },
        writes={"--plot": plot, "--json": json},
    )
    given = read_predictions(predictions)
    inputs = Inputs(
        predictions=given,
        listener=read_track(listener, "listener") if listener else given.listener,
        speaker=read_track(speaker, "speaker") if speaker else given.speaker,
        neighbours=read_neighbours(neighbours, given.shape[0]) if neighbours else given.neighbours,
        video=video,
        hop=hop,
        posnet=posnet,
        all_samples=all_samples,
    )
    if plot:
        check_plot(inputs)
    if given.untrained is not None:
        err.print(f"[yellow]Untrained weights[/] (seed {given.untrained}): the figures mean nothing.", soft_wrap=True)
    with progress_bar() as report:
        found = evaluate(inputs, command=command_line(), progress=report)
    for line in evaluation_lines(found):
        print_line(line)
    if json:
        save_evaluation(json, found)
    if plot:
        save_plot(plot, inputs, found)
    for path in filter(None, (json, plot)):
        print_line(f"Wrote {path}")
