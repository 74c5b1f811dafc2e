"""FRRea of the REACT challenge: how far rendered pictures are from real ones, by the features of a network (FID).

Which network is the user's choice, and figures of two networks cannot be compared. The challenge's is Inception v3 as
pytorch-fid has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from pflx.engines import Array, OrtEngine
from pflx.runtime.evaluation.pictures.videos import Progress
from pflx.runtime.evaluation.predictions import InputError, InputMissingError
from pflx.runtime.evaluation.results import Realism, UndefinedError
from pflx.runtime.media.clip import CLIPS, open_speaker
from pflx.runtime.rendering.picture_file import read_picture

STEP = 30
"""Every so many frames of a video are looked at. Source: the REACT 2024 challenge, FRRea."""

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_BATCH = 16
_MOST_FEATURES = 16_384
"""Whose covariance takes 2 GB."""


class Spread:
    """Mean and covariance of rows that are given in portions; as large as the covariance, however many rows there are.

    Args:
        features: D, numbers of a row.
    """

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean: Array = np.zeros(features)
        self._scatter: Array = np.zeros((features, features))

    def add(self, rows: Array) -> None:
        """Take in rows [B, D]. Source: Chan, Golub, LeVeque 1979, the merge of two portions."""
        rows = rows.astype(np.float64)
        count, mean = len(rows), rows.mean(axis=0)
        centred, apart, total = rows - mean, mean - self.mean, self.count + count
        self._scatter += centred.T @ centred + np.outer(apart, apart) * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total

    @property
    def covariance(self) -> Array:
        """Unbiased, float64 [D, D].

        Raises:
            UndefinedError: fewer than two rows.
        """
        if self.count < 2:
            raise UndefinedError(f"a covariance takes 2 pictures or more, there is {self.count}; give more, or longer")
        covariance: Array = self._scatter / (self.count - 1)
        return covariance


def frechet_distance(one: Spread, other: Spread) -> float:
    """The squared Fréchet distance of two normal distributions: |m - m'|² + tr(C + C' - 2 (C C')^½).

    C C' has the eigenvalues of C^½ C' C^½, which is symmetric: so the trace of the root is had without the root of a
    matrix that is not, which rounding makes complex where a covariance is singular.

    Raises:
        UndefinedError: fewer than two rows of either.
    """
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    crossed = np.linalg.eigvalsh(root @ other.covariance @ root)
    shared = float(np.sqrt(np.maximum(crossed, 0)).sum())
    apart = float(np.square(one.mean - other.mean).sum())
    return max(0.0, apart + float(np.trace(one.covariance) + np.trace(other.covariance)) - 2 * shared)


class FeatureNetwork:
    """A graph that turns pictures into rows of features.

    Its layout is read from the graph: one input [N, 3, H, W] or [N, H, W, 3] in RGB, uint8 0…255 or float 0…1; what
    else it wants (another range, a mean) has to be in the graph. Pictures are scaled to H and W where they are numbers.
    One output [N, D], or [N, D, 1, 1].

    Args:
        path: of the ONNX file.

    Raises:
        BackendMissingError: onnxruntime is not installed.
        EngineError: the file is missing, or no graph that can be loaded.
        InputError: the graph takes or gives something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = OrtEngine(path)
        if len(self._engine.inputs) != 1 or len(self._engine.outputs) != 1:
            raise InputError(
                f"{path} has inputs {', '.join(self._engine.inputs)} and outputs {', '.join(self._engine.outputs)}. "
                "Give a graph of one input and one output."
            )
        ((self._input, spec),) = self._engine.inputs.items()
        ((self._output, _),) = self._engine.outputs.items()
        shape, self._dtype = spec.shape, spec.dtype
        self._channels_first = len(shape) == 4 and shape[1] == 3
        if len(shape) != 4 or not (self._channels_first or shape[3] == 3) or self._dtype.kind not in "uf":
            raise InputError(
                f"{path} takes {spec}. Give a graph that takes [N, 3, H, W] or [N, H, W, 3], uint8 or float."
            )
        height, width = shape[2:] if self._channels_first else shape[1:3]
        self._size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
        self._batch = shape[0] if isinstance(shape[0], int) else None

    def spread(self, pictures: Iterable[Array], count: Callable[[int], None] = lambda _: None) -> Spread:
        """Mean and covariance of the features of some pictures.

        Args:
            pictures: uint8 [H, W, 3] RGB, one by one.
            count: is told how many there were so far.

        Raises:
            UndefinedError: there is none.
            InputError: the graph gives no finite rows.
            FeedError: it does not take pictures of that size.
        """
        spread = None
        for rows in self._rows(map(self._scaled, pictures)):
            if rows.shape[1] > _MOST_FEATURES:
                raise InputError(
                    f"{self.path} gives {rows.shape[1]:,} features, more than {_MOST_FEATURES:,}. Let it average over "
                    "places in the picture."
                )
            spread = spread or Spread(rows.shape[1])
            spread.add(rows)
            count(spread.count)
        if spread is None:
            raise UndefinedError("there is no picture")
        return spread

    def _rows(self, pictures: Iterator[Array]) -> Iterator[Array]:
        for _, alike in groupby(pictures, lambda picture: picture.shape):
            while batch := list(islice(alike, self._batch or _BATCH)):
                yield self._features(np.stack(batch))

    def _features(self, pictures: Array) -> Array:
        """[B, D] of uint8 [B, H, W, 3]."""
        count = len(pictures)
        if self._batch is not None and count < self._batch:  # the last ones; the graph takes no fewer
            pictures = np.concatenate([pictures, np.repeat(pictures[-1:], self._batch - count, axis=0)])
        fed = pictures if self._dtype == np.uint8 else (pictures / np.float32(255)).astype(self._dtype)
        fed = np.ascontiguousarray(fed.transpose(0, 3, 1, 2) if self._channels_first else fed)
        found = self._engine.run({self._input: fed})[self._output]
        if found.ndim < 2 or len(found) != len(pictures) or found.size != found.shape[0] * found.shape[1]:
            raise InputError(
                f"{self.path} gives {list(found.shape)} of {len(pictures)} pictures. It has to give [N, D]."
            )
        if not np.isfinite(found).all():
            raise InputError(f"{self.path} gives features that are not finite. Check its range: float input is 0…1.")
        return found.reshape(found.shape[:2])[:count]

    def _scaled(self, picture: Array) -> Array:
        import cv2

        if self._size is None or picture.shape[1::-1] == self._size:
            return picture
        shrinks = self._size[0] < picture.shape[1]
        return np.asarray(
            cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        )


class RealPictures:
    """Real pictures, and the network that rendered ones are held against them with.

    Args:
        network: of both.
        places: pictures, clips, and folders of them; of a clip every 30th frame is taken.
        progress: is called as work goes on.

    Raises:
        InputMissingError: there is no such place.
        InputError: a folder holds none, or the graph gives no features.
        PortraitError, MediaError: a file cannot be read.
        FeedError: the graph does not take pictures of that size.
    """

    def __init__(self, network: FeatureNetwork, places: Sequence[Path], progress: Progress = lambda *_: None) -> None:
        self._network = network
        files = [file for place in places for file in _files(place)]
        pictures = (picture for file in files for picture in _pictures(file))
        self._real = network.spread(pictures, lambda count: progress("looking at real pictures", count, None))

    def distance_to(self, pictures: Iterable[Array], count: Callable[[int], None] = lambda _: None) -> Realism:
        """FRRea of rendered pictures.

        Args:
            pictures: uint8 [H, W, 3] RGB, one by one.
            count: is told how many there were so far.

        Raises:
            UndefinedError: fewer than two pictures on either side.
            InputError, FeedError: see `FeatureNetwork.spread`.
        """
        rendered = self._network.spread(pictures, count)
        return Realism(
            fr_rea=frechet_distance(rendered, self._real),
            network=str(self._network.path),
            features=rendered.mean.size,
            pictures=rendered.count,
            real=self._real.count,
        )


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise InputMissingError(f"{place} does not exist. Check the path.")
    if not place.is_dir():
        return [place]
    found = [
        path
        for path in sorted(place.rglob("*"))
        if path.suffix.lower() in _PICTURES | CLIPS and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        raise InputError(
            f"{place} holds neither pictures ({', '.join(sorted(_PICTURES))}) nor clips. Give another folder."
        )
    return found


def _pictures(file: Path) -> Iterator[Array]:
    if file.suffix.lower() in _PICTURES:
        yield np.asarray(read_picture(file))
        return
    for index, picture in enumerate(picture for chunk in open_speaker(file).chunks() for picture in chunk.video):
        if index % STEP == 0:
            yield picture
