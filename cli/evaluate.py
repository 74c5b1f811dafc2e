"""`pflx evaluate`: how good predicted reactions are, and how smooth; of one run, or of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pflx.cli.support.console import Report, command_line, err, out, print_line, progress_bar
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import FeedError

if TYPE_CHECKING:
    from pflx.runtime.evaluation.comparison import Comparison, Facts
    from pflx.runtime.evaluation.evaluate import Inputs
    from pflx.runtime.evaluation.pictures.frechet import RealPictures
    from pflx.runtime.evaluation.results import Evaluation


class Part(StrEnum):
    """Columns of a table that belong together."""

    CHALLENGE = "challenge"
    PICTURES = "pictures"
    POSE = "pose"


class Form(StrEnum):
    """How a table is written; also its file's suffix."""

    MD = "md"
    CSV = "csv"
    TEX = "tex"


_Predictions = Annotated[
    list[Path],
    typer.Argument(
        help="Of `pflx run --coefficients` or `pflx collect`, .npz; or [N, K, T, D] or [K, T, D], .npy or .npz. "
        "Several are compared."
    ),
]
_Listener = Annotated[Path | None, typer.Option(help="True reactions [N, T, D] or [T, D]: for FRCorr and FRDist.")]
_Speaker = Annotated[Path | None, typer.Option(help="Of the speakers, likewise: for FRSyn.")]
_Neighbours = Annotated[
    Path | None, typer.Option(help="[N, N] of 0 and 1: reactions (columns) appropriate to a clip (row).")
]
_Video = Annotated[
    list[Path] | None,
    typer.Option(help="Rendered from the predictions, a clip or the folder of them; once for each run: for flicker."),
]
_Hop = Annotated[int | None, typer.Option(min=1, help="Frames of a segment, where the file does not say.")]
_PosNet = Annotated[
    bool | None, typer.Option("--with-posnet/--without-posnet", help="One of the two tracks of a run; by default both.")
]
_Plot = Annotated[Path | None, typer.Option(help="Also draw the pose over time with the seams, .png.")]
_Json = Annotated[Path | None, typer.Option(help="Also write all figures, .json.")]
_AllSamples = Annotated[
    bool, typer.Option("--all-samples", help="FRSyn of all reactions too; the published one is of the first.")
]
_Table = Annotated[
    Form | None, typer.Option(help="A row for each run, the best in bold. By default Markdown where runs are several.")
]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write the table there, .md, .csv or .tex, and not to stdout.")
]
_Name = Annotated[list[str] | None, typer.Option(help="What a run is called; once for each. By default as its file.")]
_Features = Annotated[
    int | None, typer.Option(min=1, help="Compare tracks of so many: 25, the emotion, where runs tell it; else 58.")
]
_Part = Annotated[
    list[Part] | None, typer.Option(help="Columns of the table: may be several; by default all that can be told.")
]
_VbenchFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Only write a folder of the videos for VBench, and how to call it.")
]
_Vbench = Annotated[
    list[Path] | None, typer.Option(metavar="RESULT", help="What VBench wrote, …_eval_results.json; may be several.")
]
_Network = Annotated[
    Path | None, typer.Option("--fid-network", help="For FRRea: pictures → features, .onnx; see docs/evaluation.md.")
]
_Real = Annotated[
    list[Path] | None, typer.Option(help="For FRRea: real pictures, clips, or folders of them; may be several.")
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
    table: _Table = None,
    output: _Output = None,
    name: _Name = None,
    part: _Part = None,
    features: _Features = None,
    fid_network: _Network = None,
    real: _Real = None,
    vbench: _Vbench = None,
    vbench_folder: _VbenchFolder = None,
) -> None:
    """Judge predicted reactions: the REACT challenge's metrics, seams, jerk, flicker. See docs/evaluation.md."""
    from pflx.runtime.evaluation.comparison import check_comparable
    from pflx.runtime.evaluation.pictures.vbench import read_vbench, video_names
    from pflx.runtime.evaluation.plot import check_plot, save_plot
    from pflx.runtime.evaluation.summary import evaluation_lines

    form = _form(table, output, len(predictions))
    check_output(plot, ".png")
    check_output(json, ".json")
    check_apart(
        reads={
            "PREDICTIONS": predictions,
            "--listener": listener,
            "--speaker": speaker,
            "--neighbours": neighbours,
            "--video": video,
            "--fid-network": fid_network,
            "--real": real,
            "--vbench": vbench,
        },
        writes={"--plot": plot, "--json": json, "--output": output, "--vbench-folder": vbench_folder},
    )
    if form and plot:
        raise FeedError("--plot draws one run. Leave it out, or evaluate that run alone.")
    if form is None and (features or part):
        option = "--features" if features else "--part"
        raise FeedError(f"{option} is for tables. Leave it out, or add --table md.")
    if (vbench or vbench_folder) and not video:
        raise FeedError("VBench judges videos. Give those of each run: --video.")
    runs = _runs(predictions, name, video)
    reader = _Reader(listener, speaker, neighbours, hop, posnet, all_samples, as_shown=form is not None)
    only = reader.read(runs[0]) if len(runs) == 1 else None
    for_vbench = bool(vbench or vbench_folder)
    seen = [_look(run, only or reader.read(run), features, in_table=bool(form), for_vbench=for_vbench) for run in runs]
    names = video_names({run.name: videos for run, (_, videos) in zip(runs, seen, strict=True) if videos})
    if only and plot:
        check_plot(only)
    facts = [fact for fact, _ in seen if fact]
    check_comparable(facts)
    if vbench_folder:
        if output or json or plot:
            raise FeedError("--vbench-folder writes the folder and judges nothing. Leave out -o, --json and --plot.")
        _write_vbench_folder(vbench_folder, names)
        return
    judged = read_vbench(vbench or (), names)
    with progress_bar() as report:
        real_pictures = _real_pictures(fid_network, real, report)

        def judge(run: _Run) -> Evaluation:
            """A function, so that each run is forgotten before the next one is read."""
            inputs = replace(
                only or reader.read(run),
                steadiness=not part or Part.PICTURES in part,
                real=real_pictures,
                vbench=judged.get(run.name, {}),
            )
            return _judge(run, inputs, report, len(runs))

        found = [judge(run) for run in runs]
    if form:
        _tell_several(runs, found, facts[0].features, form, part or list(Part), output, json)
        return
    for line in evaluation_lines(found[0]):
        print_line(line)
    if json:
        _save(json, found[0], print_line)
    if only and plot:
        save_plot(plot, only, found[0])
        print_line(f"Wrote {plot}")


@dataclass(frozen=True)
class _Run:
    """A run as it was given."""

    name: str
    predictions: Path
    video: Path | None


@dataclass(frozen=True)
class _Reader:
    """Reads runs, with what is the same for all of them."""

    listener: Path | None
    speaker: Path | None
    neighbours: Path | None
    hop: int | None
    posnet: bool | None
    all_samples: bool
    as_shown: bool

    def read(self, run: _Run) -> Inputs:
        from pflx.runtime.evaluation.comparison import as_shown
        from pflx.runtime.evaluation.evaluate import Inputs
        from pflx.runtime.evaluation.predictions import read_neighbours, read_predictions, read_track

        given = read_predictions(run.predictions)
        inputs = Inputs(
            predictions=given,
            listener=read_track(self.listener, "listener") if self.listener else given.listener,
            speaker=read_track(self.speaker, "speaker") if self.speaker else given.speaker,
            neighbours=read_neighbours(self.neighbours, given.shape[0]) if self.neighbours else given.neighbours,
            video=run.video,
            hop=self.hop,
            posnet=self.posnet,
            all_samples=self.all_samples,
        )
        return as_shown(inputs) if self.as_shown else inputs


def _form(table: Form | None, output: Path | None, runs: int) -> Form | None:
    """How the table is written; None where there is none."""
    if output is None:
        return table or (Form.MD if runs > 1 else None)
    by_suffix = next((form for form in Form if output.suffix.lower() == f".{form}"), Form.MD)
    form = table or by_suffix
    check_output(output, f".{form}")
    return form


def _runs(predictions: Sequence[Path], names: Sequence[str] | None, videos: Sequence[Path] | None) -> list[_Run]:
    for option, values in (("--name", names), ("--video", videos)):
        if values and len(values) != len(predictions):
            raise FeedError(
                f"{option} is given {len(values)} times for {len(predictions)} runs. Give it once for each."
            )
    called = list(names or (path.stem for path in predictions))
    if twice := next((name for name in called if called.count(name) > 1), None):
        raise FeedError(f"Two runs are called {twice}. Name each: --name A --name B.")
    shown: Sequence[Path | None] = videos or [None] * len(predictions)
    return [_Run(*each) for each in zip(called, predictions, shown, strict=True)]


def _look(
    run: _Run, inputs: Inputs, features: int | None, *, in_table: bool, for_vbench: bool
) -> tuple[Facts | None, list[Path]]:
    """What is kept of a run while others are read: what a table compares, and the videos that VBench judges."""
    from pflx.runtime.evaluation.comparison import facts_of
    from pflx.runtime.evaluation.pictures.videos import videos_of

    videos = videos_of(run.video, inputs.predictions) if for_vbench and run.video else []
    return facts_of(run.name, inputs, features) if in_table else None, videos


def _write_vbench_folder(folder: Path, names: dict[str, tuple[str, Path]]) -> None:
    from pflx.runtime.evaluation.pictures.vbench import vbench_command, write_vbench_folder

    write_vbench_folder(folder, names)
    print_line(f"Wrote {folder}, {len(names)} videos. VBench judges them, on a GPU, by:")
    print_line(f"  {vbench_command(folder)}")
    print_line("Then give its …_eval_results.json to this command: --vbench in the place of --vbench-folder.")


def _real_pictures(network: Path | None, real: Sequence[Path] | None, report: Report) -> RealPictures | None:
    from pflx.runtime.evaluation.pictures.frechet import FeatureNetwork, RealPictures

    if network is None and not real:
        return None
    if network is None or not real:
        raise FeedError("FRRea takes both --fid-network NET.onnx and --real, pictures or clips. Give both, or neither.")
    return RealPictures(FeatureNetwork(network), real, report)


def _judge(run: _Run, inputs: Inputs, report: Report, runs: int) -> Evaluation:
    """All of one run; which of several is said in the progress."""
    from pflx.runtime.evaluation.evaluate import evaluate

    of = "" if runs == 1 else f" of {run.name}"
    found = evaluate(
        inputs, command=command_line(), progress=lambda doing, done, total: report(f"{doing}{of}", done, total)
    )
    if (seed := inputs.predictions.untrained) is not None:
        err.print(f"[yellow]Untrained weights[/]{escape(of)} (seed {seed}): the figures mean nothing.", soft_wrap=True)
    return found


def _tell_several(
    runs: Sequence[_Run],
    found: Sequence[Evaluation],
    features: int,
    form: Form,
    parts: Sequence[Part],
    output: Path | None,
    json: Path | None,
) -> None:
    """The table, to its file; or to stdout, and then what is said besides goes to stderr."""
    from pflx.engines.files.writer import write_whole
    from pflx.runtime.evaluation.comparison import Comparison, Run
    from pflx.runtime.evaluation.table import table_of, write_table

    told = [Run(name=run.name, evaluation=each) for run, each in zip(runs, found, strict=True)]
    comparison = Comparison(command=command_line(), features=features, runs=told)
    table = table_of(comparison, [part.value for part in parts])
    text = write_table(table, form.value)
    for line in table.notes:
        _print_note(line)
    if output:
        write_whole(output, text.encode())
        print_line(f"Wrote {output}")
    else:
        out.print(text, end="", markup=False, soft_wrap=True)
    if json:
        _save(json, comparison, print_line if output else _print_note)


def _save(path: Path, found: Evaluation | Comparison, say: Callable[[str], None]) -> None:
    from pflx.runtime.evaluation.results import save_evaluation

    save_evaluation(path, found)
    say(f"Wrote {path}")


def _print_note(text: str) -> None:
    """One line on stderr."""
    err.print(text, markup=False, soft_wrap=True)
