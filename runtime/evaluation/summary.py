"""An evaluation as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pflx.runtime.evaluation.results import NAMES, Border, Evaluation, Motion, PictureFigures, Realism
from pflx.runtime.text_table import count, table

_BETTER = {
    "fr_corr": ("higher", "concordance with an appropriate reaction, summed over reactions"),
    "fr_dist": ("lower", "warped distance to one, summed over reactions"),
    "fr_dvs": ("higher", "spread between clips"),
    "fr_var": ("higher", "variance over time"),
    "fr_div": ("higher", "spread between reactions to one clip"),
    "fr_syn": ("lower", "lag to the speaker in frames, of the first reaction, as published"),
    "fr_syn_all": ("lower", "the same of all reactions"),
}
_BORDERS: tuple[tuple[str, str, Callable[[Motion], Border | None]], ...] = (
    ("jump", "{unit}", lambda motion: motion.jump),
    ("velocity jump", "{unit}/s", lambda motion: motion.velocity_jump),
    ("acceleration jump", "{unit}/s²", lambda motion: motion.acceleration_jump),
)


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """The whole evaluation, one string a line."""
    return [
        *_head(evaluation),
        *_section(f"Challenge, {_features(evaluation)} features", _challenge(evaluation)),
        *_section("Seams: mean at borders of segments (z-score against the inside; 0 is best)", _seams(evaluation)),
        *_section("Motion", _motion(evaluation)),
        *_section("Pictures", _pictures(evaluation.pictures)),
        *_section("Against real pictures", _realism(evaluation.realism)),
        *_section("VBench, mean over videos", _vbench(evaluation)),
        *_section("Left out", _left_out(evaluation)),
    ]


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", title, *lines] if lines else []


def _head(evaluation: Evaluation) -> Iterator[str]:
    e = evaluation
    hop = "segments not known" if e.hop is None else f"segments of {e.hop} frames"
    yield (
        f"{e.predictions}: {count(e.clips, 'clip')}, {count(e.samples, 'reaction')} to each, {count(e.frames, 'frame')}"
        f" at {e.fps:g} fps, {', '.join([hop, *e.chain])}"
    )
    if any(track.fr_corr is not None for track in e.challenge):
        yield (
            "No --neighbours: to each clip its own true reaction only is appropriate."
            if e.neighbours is None
            else f"{e.neighbours:.3g} reactions are appropriate to a clip on average."
        )


def _challenge(evaluation: Evaluation) -> list[str]:
    tracks = evaluation.challenge
    rows = []
    for field, (better, meaning) in _BETTER.items():
        values = [getattr(track, field) for track in tracks]
        if any(value is not None for value in values):
            rows.append((NAMES[field], *map(figure, values), f"{better} is better: {meaning}"))
    return table([("", *(track.track for track in tracks)), *rows]) if rows else []


def _features(evaluation: Evaluation) -> str:
    """`58`, or `58, 58, 25` of the columns where they differ."""
    numbers = [str(track.features) for track in evaluation.challenge]
    return ", ".join(numbers if len(set(numbers)) > 1 else numbers[:1])


def _seams(evaluation: Evaluation) -> list[str]:
    rows = []
    for quantity in _quantities(evaluation):
        motions = _of(evaluation, quantity)
        if motions[0].jump is None:
            continue
        for name, unit, tell in _BORDERS:
            label = f"{quantity}, {name}, {unit.format(unit=motions[0].unit)}"
            rows.append((label, *(_border(tell(motion)) for motion in motions)))
    return [*table([("", *_tracks(evaluation)), *rows]), *_refusals(evaluation)] if rows else []


def _refusals(evaluation: Evaluation) -> list[str]:
    """Why z-scores are missing, each reason once."""
    borders = (tell(motion) for motion in evaluation.motion for *_, tell in _BORDERS)
    reasons = dict.fromkeys(border.refused for border in borders if border is not None and border.refused)
    return [f"  no z-score: {reason}" for reason in reasons]


def _motion(evaluation: Evaluation) -> list[str]:
    rows = []
    for quantity in _quantities(evaluation):
        motions = _of(evaluation, quantity)
        for name, per, remark in (("jerk", "s³", "lower is smoother"), ("speed", "s", "without any, all is smooth")):
            values = (figure(getattr(motion, name)) for motion in motions)
            rows.append((f"{quantity}, {name}, {motions[0].unit}/{per}", *values, remark))
    return table([("", *_tracks(evaluation)), *rows]) if rows else []


def _pictures(pictures: PictureFigures | None) -> list[str]:
    if pictures is None:
        return []
    unexplained = "n/a" if pictures.unexplained_flicker is None else figure(pictures.unexplained_flicker)
    rows = [
        ("flicker, levels of 255", figure(pictures.flicker), "lower is steadier: difference of consecutive pictures"),
        (
            "temporal flickering",
            figure(pictures.temporal_flickering),
            "higher is steadier: VBench's, of unscaled pictures",
        ),
        ("unexplained flicker, levels", unexplained, "lower is steadier: what is left of it after the optical flow"),
        ("dynamic degree, px/frame", figure(pictures.dynamic_degree), "fastest 5 % of the flow, at 256 px"),
    ]
    borders = (
        ("unexplained flicker at borders", pictures.flicker_at_borders),
        ("flow at borders, px/frame", pictures.flow_at_borders),
    )
    for name, border in borders:
        if border:
            rows.append((name, _border(border), border.refused or "z-score against the inside"))
    videos = f", {count(pictures.videos, 'video')}" if pictures.videos > 1 else ""
    return [f"  {pictures.path}, {pictures.part}{videos}", *table([("", "value"), *rows])]


def _realism(realism: Realism | None) -> list[str]:
    if realism is None:
        return []
    few = f"; too few for {realism.features:,} features: not to be compared" if realism.too_few else ""
    remark = f"lower is closer: {realism.pictures:,} pictures, {realism.real:,} real ones{few}"
    return [f"  {realism.network}", *table([("", "value"), ("FRRea", figure(realism.fr_rea), remark)])]


def _vbench(evaluation: Evaluation) -> list[str]:
    rows = [(name.replace("_", " "), figure(value)) for name, value in evaluation.vbench.items()]
    return table([("", "value"), *rows]) if rows else []


def _left_out(evaluation: Evaluation) -> list[str]:
    """One line for each reason, with the figures it holds for; the track is named where others have the figure."""
    n_tracks = len(evaluation.challenge)
    reasons: dict[str, dict[str, list[str]]] = {}
    for item in evaluation.left_out:
        reasons.setdefault(item.why, {}).setdefault(item.figure, []).append(item.track)
    lines = []
    for why, figures in reasons.items():
        tracks = next(iter(figures.values()))
        of = f" ({', '.join(tracks)})" if tracks[0] and len(tracks) < n_tracks else ""
        lines.append(f"  {', '.join(figures)}{of}: {why}.")
    return lines


def _quantities(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(motion.quantity for motion in evaluation.motion))


def _tracks(evaluation: Evaluation) -> list[str]:
    return list(dict.fromkeys(motion.track for motion in evaluation.motion))


def _of(evaluation: Evaluation, quantity: str) -> list[Motion]:
    return [motion for motion in evaluation.motion if motion.quantity == quantity]


def _border(border: Border | None) -> str:
    if border is None or border.at_borders is None:
        return "n/a"
    z = "n/a" if border.z is None else f"{round(border.z, 1) + 0:+}"  # + 0: never "-0.0"
    return f"{figure(border.at_borders)} ({z})"


def figure(value: float | None) -> str:
    """Four digits, and no exponent below a million; `n/a` of none."""
    if value is None:
        return "n/a"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
