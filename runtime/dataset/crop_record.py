"""What lies beside cropped clips: a record for each, the last thing to be written of it, and an index of the folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

import pflx
from pflx.engines import OutputError
from pflx.engines.files.locks import locked
from pflx.engines.files.writer import write_whole
from pflx.runtime.dataset.crop import ClipCrop, CropError, CropSettings
from pflx.runtime.frames.timing import FPS

INDEX = "crop.json"
RECORD = ".crop.json"
"""What a record's name ends in, behind the clip's."""

Edges = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""


class CropSetup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all clips of a folder have in common.

    Attributes:
        crop: mode, window and size.
        detector: what finds the faces.
        duration_s: of each clip, at most; None for all of it.
    """

    crop: CropSettings
    detector: str
    duration_s: float | None = None

    def told(self) -> str:
        """In a few words."""
        crop, cut = self.crop, "" if self.duration_s is None else f", the first {self.duration_s:g} s"
        pixels = "" if crop.square_pixels else ", stored pixels"
        detector = self.detector.rpartition(".")[2]
        return f"{crop.pfl}, window {crop.window}, size {crop.size}, faces by {detector}{pixels}{cut}"


class CropRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one clip was cropped.

    Attributes:
        pflx: version that did it.
        source: the clip.
        source_sha256: of its bytes.
        setup: mode, window, size, detector.
        frame_size: width and height of its pictures, upright.
        fps: of all that follows.
        frames: how many there are.
        regions: one for all frames, or one for each.
        boxes: x, y, width, height of the face that was followed, of each frame; null without one.
        faces: how many were found, in each frame.
        outliers: see `ClipCrop.outliers`.
        video: name of the video beside this file; null where an outlier was left out.
    """

    pflx: str
    source: str
    source_sha256: str
    setup: CropSetup
    frame_size: tuple[int, int]
    fps: int
    frames: int
    regions: tuple[Edges, ...]
    boxes: tuple[tuple[float, float, float, float] | None, ...]
    faces: tuple[int, ...]
    outliers: tuple[str, ...]
    video: str | None


class CropRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A clip in the index.

    Attributes:
        source: the clip.
        video: whether there is one of its crop.
        frames: at 25 fps.
        region: of the whole clip; null if it floats, or failed.
        outliers: see `ClipCrop.outliers`.
        error: why it could not be cropped; null if it was.
    """

    source: str
    video: bool = False
    frames: int = 0
    region: Edges | None = None
    outliers: tuple[str, ...] = ()
    error: str | None = None


class CropIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a folder of crops.

    Attributes:
        pflx: version that wrote it last.
        setup: of all its clips.
        clips: by the path of their video in the folder.
    """

    pflx: str
    setup: CropSetup
    clips: dict[str, CropRow] = {}


def record_of(crop: ClipCrop, setup: CropSetup, source_sha256: str, video: str | None) -> CropRecord:
    """The record of a clip."""
    return CropRecord(
        pflx=pflx.__version__,
        source=str(crop.clip.path),
        source_sha256=source_sha256,
        setup=setup,
        frame_size=(crop.clip.width, crop.clip.height),
        fps=FPS,
        frames=crop.frames,
        regions=tuple(region.edges for region in crop.regions),
        boxes=tuple(None if box is None else (box[0], box[1], box[2], box[3]) for box in crop.boxes),
        faces=crop.faces,
        outliers=crop.outliers(),
        video=video,
    )


def row_of(record: CropRecord) -> CropRow:
    """What the index says of a clip."""
    floats = record.setup.crop.pfl == "floating"
    return CropRow(
        source=record.source,
        video=record.video is not None,
        frames=record.frames,
        region=None if floats else record.regions[0],
        outliers=record.outliers,
    )


def record_path(video: Path) -> Path:
    """Where the record of a video is."""
    return video.with_name(video.stem + RECORD)


def write_record(video: Path, record: CropRecord) -> None:
    """Write the record of a video, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(record_path(video), msgspec.json.encode(record) + b"\n")


def read_record(video: Path) -> CropRecord | None:
    """The record of a video; None where there is none that can be read."""
    try:
        return msgspec.json.decode(record_path(video).read_bytes(), type=CropRecord)
    except (OSError, msgspec.MsgspecError, CropError):
        return None


def begin_index(folder: Path, setup: CropSetup, *, redo: bool) -> None:
    """Make the folder, or look at what is in it, and write down what its clips have in common.

    Args:
        folder: of crops.
        setup: that is asked for.
        redo: take the folder even if its clips were cropped otherwise.

    Raises:
        OutputError: it cannot be made, or holds something else.
        CropError: its clips were cropped otherwise.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shown = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}. Choose another place.") from error
    if shown and INDEX not in shown:
        raise OutputError(f"{folder} is there and holds no crops. Choose a new folder.")
    found = _read_index(folder)
    if found is not None and found.setup != setup and not redo:
        raise CropError(
            f"{folder} holds crops of other settings ({found.setup.told()}) than asked for ({setup.told()}). Give "
            "those, another folder, or --redo to crop all anew."
        )
    if found is None or found.setup != setup:
        _write_index(folder, CropIndex(pflx.__version__, setup))


def add_rows(folder: Path, setup: CropSetup, rows: Mapping[str, CropRow]) -> None:
    """Add clips to the index of a folder, in the place of those of the same names.

    Raises:
        OutputError: it cannot be written.
    """
    with locked(folder):
        found = _read_index(folder)
        before = found.clips if found is not None and found.setup == setup else {}
        _write_index(folder, CropIndex(pflx.__version__, setup, dict(sorted({**before, **rows}.items()))))


def _read_index(folder: Path) -> CropIndex | None:
    try:
        return msgspec.json.decode((folder / INDEX).read_bytes(), type=CropIndex)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, CropError) as error:
        raise CropError(
            f"{folder / INDEX} is no index of crops ({error}). Remove it, or choose a new folder."
        ) from error


def _write_index(folder: Path, index: CropIndex) -> None:
    write_whole(folder / INDEX, msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n")
