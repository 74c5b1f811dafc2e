"""Curves of what was measured against what it costs, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pflx.calibration.reports import INSTALL
from pflx.engines.files.writer import write_whole
from pflx.engines.graphs.protocol import import_backend

_INK, _SOFT, _PALE, _WARNING = "#1c2430", "#5d6b7c", "#dfe4ea", "#c8362b"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_DPI = 120


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        name: for the legend.
        x: where its points are.
        y: their values; None where there is none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        label: what is drawn upwards, with its unit.
        lines: of the panel.
        asked: a value that is asked for, drawn across; None for none.
    """

    label: str
    lines: Sequence[Line]
    asked: float | None = None


def save_curves(path: Path, panels: Sequence[Panel], *, title: str, x: str, untrained: int | None) -> None:
    """Draw panels above one another, over one axis.

    Args:
        path: PNG that appears complete, or not at all.
        panels: from above.
        title: of the picture.
        x: what is drawn to the right, with its unit.
        untrained: seed of made-up weights, which the picture then warns of.

    Raises:
        BackendMissingError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    import_backend("matplotlib", INSTALL)
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window

    figure = Figure(figsize=(9, 1 + 2.8 * len(panels)), facecolor="white", layout="constrained")
    rows: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, panel in zip(rows[:, 0], panels, strict=True):
        _draw(axes, panel)
    rows[-1, 0].set_xlabel(x, color=_INK)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=_INK)
    if untrained is not None:
        warning = f"UNTRAINED WEIGHTS (SEED {untrained}): SHAPES MEAN LITTLE, VALUES NOTHING"
        figure.supxlabel(warning, x=0.99, ha="right", fontsize=8, color=_WARNING)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    write_whole(path, content.getbuffer())


def _draw(axes: Any, panel: Panel) -> None:
    for line, colour in zip(panel.lines, _COLOURS, strict=False):
        known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], "o-", color=colour, markersize=4, label=line.name)
    if panel.asked is not None:
        axes.axhline(panel.asked, color=_SOFT, linewidth=1, linestyle="--", label=f"asked: {panel.asked:g}")
    axes.set_ylabel(panel.label, color=_INK, fontsize=9)
    axes.grid(axis="y", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    axes.tick_params(colors=_SOFT, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(_PALE)
    if panel.lines:
        axes.legend(frameon=False, fontsize=9)
