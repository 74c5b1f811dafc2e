"""How good predicted reactions are: the metrics of the REACT challenge, and how smooth motion and pictures are.

What each figure is, to the letter: docs/evaluation.md. `pflx evaluate` is the command. Nothing that serves a listener
imports this package.
"""

from __future__ import annotations

from pflx.runtime.evaluation.challenge import fr_corr, fr_div, fr_dvs, fr_var
from pflx.runtime.evaluation.distance import fr_dist
from pflx.runtime.evaluation.evaluate import Inputs, evaluate
from pflx.runtime.evaluation.pictures.flicker import judge_pictures
from pflx.runtime.evaluation.predictions import (
    InputError,
    InputMissingError,
    Predictions,
    read_neighbours,
    read_predictions,
    read_track,
)
from pflx.runtime.evaluation.results import (
    Border,
    Challenge,
    Evaluation,
    LeftOut,
    Motion,
    PictureFigures,
    UndefinedError,
    save_evaluation,
)
from pflx.runtime.evaluation.smoothness import judge_motion
from pflx.runtime.evaluation.synchrony import fr_syn, lag_correlation, lags

__all__ = [
    "Border",
    "Challenge",
    "Evaluation",
    "InputError",
    "InputMissingError",
    "Inputs",
    "LeftOut",
    "Motion",
    "PictureFigures",
    "Predictions",
    "UndefinedError",
    "evaluate",
    "fr_corr",
    "fr_dist",
    "fr_div",
    "fr_dvs",
    "fr_syn",
    "fr_var",
    "judge_motion",
    "judge_pictures",
    "lag_correlation",
    "lags",
    "read_neighbours",
    "read_predictions",
    "read_track",
    "save_evaluation",
]
