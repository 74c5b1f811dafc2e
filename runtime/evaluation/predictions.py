"""Reading predictions, true reactions, speakers and neighbours from `.npy` and `.npz`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pflx.engines import Array, PflxError
from pflx.engines.files.array_file import read_arrays
from pflx.runtime.frames.coefficients import COEFFICIENTS, POSE

WITH_POSNET = "with PosNet"
WITHOUT_POSNET = "without PosNet"
EMOTION = "emotion"
PREDICTIONS = "predictions"

_RUN_KEYS = {"coefficients", "generated_pose"}
_PREDICTION_KEYS = ("pred", "predictions")
_LISTENER_KEYS = ("listener_gt", "listener")
_SPEAKER_KEYS = ("speaker",)
_NEIGHBOUR_KEYS = ("neighbour", "neighbours")


class InputError(PflxError, ValueError):
    """A file holds no numbers that can be evaluated."""


class InputMissingError(InputError, FileNotFoundError):
    """There is no file at the path."""


@dataclass(frozen=True)
class Predictions:
    """What a file predicts.

    Attributes:
        path: the file.
        tracks: name to `[N, K, T, D]`; all of one N, K and T.
        fps: frames per second; None where the file does not say.
        hop: frames of a segment; None where the file does not say.
        untrained: seed of made-up weights; None for trained ones, or where the file does not say.
        chain: what of the chain was left out or exchanged, in words; empty where the file does not say.
        listener: `[N, T, D]` true reactions that came with them.
        speaker: `[N, T, D]` that came with them.
        neighbours: `[N, N]` that came with them.
        ids: what the clips are called; empty where the file does not say.
    """

    path: Path
    tracks: Mapping[str, Array]
    fps: float | None = None
    hop: int | None = None
    untrained: int | None = None
    chain: tuple[str, ...] = ()
    listener: Array | None = field(default=None, repr=False)
    speaker: Array | None = field(default=None, repr=False)
    neighbours: Array | None = field(default=None, repr=False)
    ids: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """N clips, K reactions to each, T frames."""
        clips, samples, frames = next(iter(self.tracks.values())).shape[:3]
        return clips, samples, frames


def read_predictions(path: Path) -> Predictions:
    """Read predictions.

    Args:
        path: of `pflx run --coefficients` or `pflx collect` (`.npz`); or an array `[N, K, T, D]`, or `[K, T, D]` of
            one clip, as `.npy` or in an `.npz`, alone or as `pred`. Beside any of them there may be `listener_gt`,
            `speaker` and `neighbour`.

    Raises:
        InputMissingError: there is no such file.
        InputError: it is neither, holds no such array, or one that is not finite.
    """
    arrays = _read(path)
    if arrays.keys() >= _RUN_KEYS:
        found = _of_run(path, arrays)
    else:
        pred = _batch(path, _pick(path, arrays, _PREDICTION_KEYS), "predictions", "[N, K, T, D] or [K, T, D]", 4)
        found = Predictions(path, {PREDICTIONS: pred})
    clips = found.shape[0]
    listener, speaker, neighbours = (
        next((arrays[key] for key in keys if key in arrays), None)
        for keys in (_LISTENER_KEYS, _SPEAKER_KEYS, _NEIGHBOUR_KEYS)
    )
    return replace(
        found,
        listener=None if listener is None else _track(path, listener),
        speaker=None if speaker is None else _track(path, speaker),
        neighbours=None if neighbours is None else _checked_neighbours(path, neighbours, clips),
        ids=_ids(path, arrays, clips),
    )


def read_track(path: Path, name: str) -> Array:
    """Read true reactions, or speakers.

    Args:
        path: `[N, T, D]`, or `[T, D]` of one clip, as `.npy` or in an `.npz`, alone or under its name.
        name: `listener` or `speaker`.

    Returns:
        float [N, T, D], finite.

    Raises:
        InputMissingError, InputError: as `read_predictions`.
    """
    keys = _LISTENER_KEYS if name == "listener" else _SPEAKER_KEYS
    return _track(path, _pick(path, _read(path), keys))


def read_neighbours(path: Path, clips: int) -> Array:
    """Read which reactions are appropriate to which clip, `[clips, clips]` of 0 and 1.

    Raises:
        InputMissingError, InputError: as `read_predictions`; or a clip has none.
    """
    return _checked_neighbours(path, _pick(path, _read(path), _NEIGHBOUR_KEYS), clips)


def _of_run(path: Path, arrays: Mapping[str, Array]) -> Predictions:
    """Both tracks of `pflx run --coefficients` or `pflx collect`: as it was shown, and with the generator's pose."""
    shown, pose = arrays["coefficients"], arrays["generated_pose"]
    if shown.ndim not in (3, 4) or shown.shape[-1] != COEFFICIENTS or pose.shape != (*shown.shape[:-1], 6):
        raise InputError(
            f"{path} is not of pflx run: coefficients {list(shown.shape)} and generated_pose {list(pose.shape)} are "
            f"not [S, T, {COEFFICIENTS}] and [S, T, 6], nor [N, S, T, {COEFFICIENTS}] and [N, S, T, 6]."
        )
    generated = shown.copy()
    generated[..., POSE] = pose
    posnet = bool(_number(path, arrays, "posnet", 1))
    # Without PosNet, both are the same.
    tracks = {WITH_POSNET: shown, WITHOUT_POSNET: generated} if posnet else {WITHOUT_POSNET: shown}
    if "emotion" in arrays:
        tracks[EMOTION] = arrays["emotion"]
    batches = {name: _batch(path, track, name, "[S, T, D]", 4) for name, track in tracks.items()}
    if len({batch.shape[:3] for batch in batches.values()}) > 1:
        raise InputError(f"{path}: emotion {list(tracks[EMOTION].shape)} is of another length than coefficients.")
    fps, hop, untrained = (_number(path, arrays, key, no) for key, no in (("fps", 25), ("hop", 0), ("untrained", -1)))
    if fps <= 0 or hop < 0:
        raise InputError(f"{path} has {fps:g} fps and segments of {hop:g} frames. Neither is below 0, nor fps 0.")
    return Predictions(
        path,
        batches,
        fps=fps,
        hop=int(hop) or None,
        untrained=None if untrained < 0 else int(untrained),
        chain=(*(() if posnet else (WITHOUT_POSNET,)), *_words(path, arrays)),
    )


def _read(path: Path) -> dict[str, Array]:
    """The arrays of a file by name; the only one of an `.npy` is called "". All are real numbers."""
    if path.is_dir():
        raise InputError(f"{path} is a folder. Give an .npy or .npz file.")
    return read_arrays(path, InputError, InputMissingError)


def _pick(path: Path, arrays: Mapping[str, Array], keys: tuple[str, ...]) -> Array:
    """The array of one of these names, or the only one there is."""
    named = next((arrays[key] for key in keys if key in arrays), None)
    if named is not None:
        return named
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise InputError(f"{path} holds {', '.join(arrays) or 'nothing'}. Call the array '{keys[0]}', or give it alone.")


def _track(path: Path, array: Array) -> Array:
    return _batch(path, array, "a track", "[N, T, D] or [T, D]", 3)


def _batch(path: Path, array: Array, name: str, expected: str, axes: int) -> Array:
    """A finite float array of `axes` axes, a leading one of size 1 added where there is one less."""
    array = _numbers(path, array)
    if array.ndim not in (axes, axes - 1) or 0 in array.shape:
        raise InputError(f"{path}: {name} of shape {list(array.shape)} cannot be evaluated. Give {expected}.")
    whole = array.reshape((1,) * (axes - array.ndim) + array.shape)
    _check_finite(path, whole)
    return whole


def _numbers(path: Path, array: Array) -> Array:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {array.dtype}. Give real numbers, like float32.")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _check_finite(path: Path, array: Array) -> None:
    """Refuse the first number that is not finite, and say where it is."""
    for clip, part in enumerate(array):  # one by one: a mask of all would take as much memory again
        if np.isfinite(part).all():
            continue
        *sample, frame, feature = map(int, np.argwhere(~np.isfinite(part))[0])
        where = "".join([f"clip {clip}, ", *(f"sample {index}, " for index in sample)])
        value = part[(*sample, frame, feature)]
        raise InputError(f"{path} is {value} at {where}frame {frame}, feature {feature}. Repair it, or predict anew.")


def _checked_neighbours(path: Path, array: Array, clips: int) -> Array:
    array = _numbers(path, array)
    if array.shape != (clips, clips):
        raise InputError(
            f"{path}: neighbours of shape {list(array.shape)} do not fit {clips} clips. Give [{clips}, {clips}]."
        )
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{path}: neighbours are 0 or 1, here is {array[~np.isin(array, (0, 1))][0]}.")
    if not array.any(axis=1).all():
        row = int(np.argmin(array.any(axis=1)))
        raise InputError(f"{path}: row {row} has no neighbour. Set at least [{row}, {row}] to 1.")
    return array


def _ids(path: Path, arrays: Mapping[str, Array], clips: int) -> tuple[str, ...]:
    if "ids" not in arrays:
        return ()
    ids = arrays["ids"]
    if ids.shape != (clips,) or ids.dtype.kind != "U" or len(set(ids.tolist())) < clips:
        raise InputError(
            f"{path}: ids {list(ids.shape)} of {ids.dtype} do not name {clips} clips. Give one name to each."
        )
    return tuple(ids.tolist())


def _words(path: Path, arrays: Mapping[str, Array]) -> Iterator[str]:
    """How the speaker was cropped, and what history a generator had; that which all have is not told."""
    for key in ("crop", "generator_history"):
        word = arrays.get(key, np.array(""))
        if word.size != 1 or word.dtype.kind != "U":
            raise InputError(f"{path}: {key} is {word.dtype} {list(word.shape)}, not a word.")
        if word.item() not in ("", "generated"):
            yield f"{key} {word.item()}".replace("_", " ")


def _number(path: Path, arrays: Mapping[str, Array], key: str, default: float) -> float:
    if key not in arrays:
        return default
    value = arrays[key]
    if value.size != 1 or value.dtype.kind not in "fiub" or not np.isfinite(value).all():
        raise InputError(f"{path}: {key} is {value.tolist()}, not a number.")
    return float(value.item())
