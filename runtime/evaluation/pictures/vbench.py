"""What VBench says of the videos of runs: the folder that it judges, and its results read back.

VBench (Huang et al. 2024) brings networks of its own, and is not called from here. In its mode `custom_input` it takes
every `.mp4` of a folder, and writes `results_…_eval_results.json`: dimension to [figure of all videos, [{"video_path",
"video_results", …}, …]]. Source: VBench 45e79ec, `vbench/__init__.py`, `vbench/launch/evaluate.py`.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from pflx.engines import FeedError, OutputError
from pflx.runtime.evaluation.predictions import InputError, InputMissingError

DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "imaging_quality",
    "dynamic_degree",
)
"""Those that take VBench's networks and no prompt."""

FLICKERING = "temporal_flickering"
_PERCENT = {"imaging_quality"}
"""Told of a video as 0…100; of all videos as 0…1 since VBench 0.1.5."""
_SHOWN = 3


def video_names(runs: Mapping[str, Sequence[Path]]) -> dict[str, tuple[str, Path]]:
    """What the videos of runs are called in the folder for VBench: `RUN--ID.mp4`.

    Args:
        runs: name to videos, those of one run below one folder.

    Returns:
        Name of the file to its run and its video.

    Raises:
        FeedError: a video is no `.mp4`, or two would have one name.
    """
    found: dict[str, tuple[str, Path]] = {}
    for run, videos in runs.items():
        root = _common(videos)
        for video in videos:
            if video.suffix.lower() != ".mp4":
                raise FeedError(f"VBench takes .mp4, and {video} is none. Write it as .mp4.")
            inside = PurePosixPath(video.relative_to(root).as_posix()).with_suffix("")
            name = f"{_plain(run)}--{_plain(str(inside))}.mp4"
            if name in found:
                raise FeedError(f"{found[name][1]} and {video} would both be {name} for VBench. Rename one of them.")
            found[name] = (run, video)
    return found


def write_vbench_folder(folder: Path, names: Mapping[str, tuple[str, Path]]) -> None:
    """Fill a folder with the videos, as links where there are links, and as copies elsewhere.

    Raises:
        OutputError: it holds other videos, which VBench would judge too; or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in folder.iterdir() if path.name not in names]
        if others:
            raise OutputError(f"{folder} holds {sorted(others)[0]}, which VBench would judge too. Choose a new folder.")
        for name, (_, video) in names.items():
            place = folder / name
            place.unlink(missing_ok=True)
            try:
                place.symlink_to(video.resolve())
            except (OSError, NotImplementedError):
                shutil.copyfile(video, place)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}. Choose another place.") from error


def vbench_command(folder: Path) -> str:
    """The command that judges such a folder, for a shell. It takes VBench, and a GPU."""
    results = folder.with_name(f"{folder.name}-results")
    words = ("--videos_path", str(folder), "--dimension", " ".join(DIMENSIONS), "--output_path", str(results))
    return shlex.join(["vbench", "evaluate", *words, "--mode", "custom_input"])


def read_vbench(files: Iterable[Path], names: Mapping[str, tuple[str, Path]]) -> dict[str, dict[str, float]]:
    """VBench's figures of each run, means over its videos.

    For videos of one length they equal what VBench tells of the run alone, up to rounding.

    Args:
        files: that VBench wrote; one dimension is in one of them.
        names: as `video_names` has them.

    Returns:
        Run to dimension to 0…1.

    Raises:
        InputMissingError: there is no such file.
        InputError: it is none of VBench's, tells one dimension twice, lacks videos, or has others.
    """
    found: dict[str, dict[str, float]] = {run: {} for run, _ in names.values()}
    of: dict[str, Path] = {}
    for file in files:
        for dimension, scores in _scores(file).items():
            if dimension in of:
                raise InputError(f"{of[dimension]} and {file} both tell {dimension}. Give one of them.")
            of[dimension] = file
            _check_videos(file, dimension, scores.keys(), names.keys())
            for run, told in found.items():
                own = [score for name, score in scores.items() if names[name][0] == run]
                told[dimension] = float(np.mean(own)) / (100 if dimension in _PERCENT else 1)
    return found


def _scores(file: Path) -> dict[str, dict[str, float]]:
    """Dimension to name of a video to its score."""
    try:
        told: Any = msgspec.json.decode(file.read_bytes())
        scores = {dimension: _by_name(videos) for dimension, (_, videos) in told.items()}
    except FileNotFoundError as error:
        raise InputMissingError(f"{file} does not exist. Check the path.") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{file} is no result of VBench. Give its …_eval_results.json: {{dimension: [figure, [{{video_path, "
            "video_results}, …]]}."
        ) from error
    if not scores:
        raise InputError(f"{file} tells no dimension. Run VBench with --dimension.")
    return scores


def _by_name(videos: Any) -> dict[str, float]:
    scores: dict[str, float] = {}
    for each in videos:
        name, score = PurePosixPath(each["video_path"].replace("\\", "/")).name, float(each["video_results"])
        if name in scores or not np.isfinite(score):
            raise ValueError(name)
        scores[name] = score
    return scores


def _check_videos(file: Path, dimension: str, told: Iterable[str], wanted: Iterable[str]) -> None:
    there, needed = set(told), set(wanted)
    if missing := sorted(needed - there):
        raise InputError(f"{file} has no {dimension} of {_some(missing)}. Run VBench on the whole folder again.")
    if unknown := sorted(there - needed):
        raise InputError(f"{file} tells {dimension} of {_some(unknown)}, of none of these runs. Give their runs, too.")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _common(videos: Sequence[Path]) -> Path:
    """The deepest folder that holds all of them."""
    first = videos[0].parent
    return next(folder for folder in (first, *first.parents) if all(folder in each.parents for each in videos))


def _plain(name: str) -> str:
    """A name for a file."""
    return "".join("~" if letter in '/\\:*?"<>|' else letter for letter in name)
