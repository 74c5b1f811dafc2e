"""The speaker's side of a session: where the face is, and the crop that the generator sees."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, PflInfo
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.speaker.faces import FaceDetector
from pflx.runtime.speaker.pfl import (
    Box,
    Mode,
    Region,
    centre_crop,
    centre_square,
    choose_face,
    crop,
    fixed_region,
    floating_region,
)

log = logging.getLogger(__name__)

CROP_SIZE = 256
"""Side of the PFL crop in pixels. Source: PFLPosNet, Eq. 8."""
GENERATOR_SIDE = 224
"""Side of what the generator sees: the middle of the crop. Source: ReactFace fa4b3a4, pre-processing."""
CALIBRATION_FRAMES = 50
"""Frames with a face that an online session gathers before its region is frozen: 2 s, one window of PFLPosNet."""
WATCH_FRAMES = 25
"""Once the region is frozen and the face is there, one frame a second is searched for it."""
SEARCH_FRAMES = 5
"""While the face is missed, one frame in five is searched: a frame without a face is the most expensive to search."""

LOST_AFTER_FRAMES = 50
"""A face not seen for 2 s at 25 fps is lost: a blink of the detector, a hand before the face or a glance
at the keyboard is over sooner, and with one look a second it still takes two misses."""


Nose: TypeAlias = tuple[float, float]
"""The tip of the nose, x and y in pixels."""

NoseFinder: TypeAlias = Callable[[UInt8Array, Box], Nose | None]
"""A picture, uint8 [H, W, 3] RGB, and the box of a face in it → where its nose is; None if it is not seen."""


@dataclass(frozen=True)
class FaceWatch:
    """The face state as a value: `next` gives the one after a look.

    | state | face found | face missed |
    |---|---|---|
    | LOCKED | LOCKED | COASTING |
    | COASTING | LOCKED | COASTING, LOST once 50 frames have passed since the face was seen |
    | LOST | REACQUIRED | LOST |
    | REACQUIRED | LOCKED | LOST |

    One miss never loses a locked face and one hit never locks a lost one, however far the looks lie apart.
    A stream starts as LOST: nothing was seen yet.

    Attributes:
        state: where it stands.
        unseen_frames: frames since the face was last seen, at 25 fps; counts from the start while none was.
    """

    state: FaceState = FaceState.LOST
    unseen_frames: int = 0

    def next(self, found: bool, frames_since_last_look: int) -> FaceWatch:
        """The state after a look that did or did not find the face."""
        if found:
            known = self.state is not FaceState.LOST
            return FaceWatch(FaceState.LOCKED if known else FaceState.REACQUIRED)
        unseen = self.unseen_frames + frames_since_last_look
        coasting = self.state is FaceState.LOCKED or (self.state is FaceState.COASTING and unseen < LOST_AFTER_FRAMES)
        return FaceWatch(FaceState.COASTING if coasting else FaceState.LOST, unseen)

    def to_array(self) -> npt.NDArray[np.int64]:
        """int64 [2]: state, unseen frames."""
        return np.array([self.state, self.unseen_frames], np.int64)

    @classmethod
    def from_array(cls, values: npt.NDArray[np.int64]) -> FaceWatch:
        """What `to_array` wrote."""
        return cls(FaceState(int(values[0])), int(values[1]))


def session_region(boxes: npt.ArrayLike, frame_size: tuple[int, int], pfl: PflInfo) -> Region:
    """The region of a session, from the boxes of its face.

    `pfl.mode` decides the arithmetic, and `floating`, whose squares have the side of this region, takes that of
    `release`. The window is fitted to the picture first: grown where the face with its padding is larger than the
    window (the released arithmetic would cut it off), shrunk where the frame is smaller (it would read outside); what
    still leaves the frame, of a face about as large as the frame, is shifted back.
    Without any box it is the largest centred square.

    Args:
        boxes: [N, 4] x, y, w, h in pixels.
        frame_size: width and height in pixels.
        pfl: mode, window and padding of the bundle.
    """
    rows = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(rows):
        return centre_square(frame_size)
    face = int(np.ceil(rows[:, 2:].mean(axis=0).max())) + 2 * pfl.padding
    window = min(max(pfl.window, face), *frame_size)
    mode = cast(Mode, "release" if pfl.mode == "floating" else pfl.mode)
    region = fixed_region(rows, frame_size, mode=mode, window=window, padding=pfl.padding)
    left = min(max(region.left, 0), frame_size[0] - region.width)
    top = min(max(region.top, 0), frame_size[1] - region.height)
    return Region(left, top, left + region.width, top + region.height)


@dataclass(frozen=True)
class FaceTrack:
    """What is known of the speaker's face so far; a value.

    Attributes:
        region: the frozen region, None while it is calibrated.
        boxes: x, y, w, h of the followed face per frame with a face, while calibrating; after that the last one alone,
            if the crop floats, or nothing is cropped.
        watch: the face state.
        frames: speaker frames seen so far.
        last_look: index of the frame last searched, -1 for none.
        nose: where it was seen last, if the crop floats.
    """

    region: Region | None = None
    boxes: tuple[Box, ...] = ()
    watch: FaceWatch = field(default_factory=FaceWatch)
    frames: int = 0
    last_look: int = -1
    nose: Nose | None = None

    def to_arrays(self) -> dict[str, Array]:
        """As plain arrays, for a snapshot."""
        region = self.region
        edges = () if region is None else region.edges
        return {
            "region": np.array(edges, np.int64),
            "boxes": np.array(self.boxes, np.float64).reshape(-1, 4),
            "watch": self.watch.to_array(),
            "seen": np.array([self.frames, self.last_look], np.int64),
            "nose": np.array(self.nose or (), np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array]) -> FaceTrack:
        """What `to_arrays` wrote."""
        edges = [int(edge) for edge in arrays["region"]]
        frames, last_look = (int(value) for value in arrays["seen"])
        nose = [float(value) for value in arrays["nose"]]
        return cls(
            region=Region(*edges) if edges else None,
            boxes=tuple(tuple(map(float, row)) for row in arrays["boxes"]),
            watch=FaceWatch.from_array(arrays["watch"]),
            frames=frames,
            last_look=last_look,
            nose=(nose[0], nose[1]) if nose else None,
        )


@dataclass(frozen=True)
class Cropped:
    """What was done for the first frames of a segment before the rest of it is there.

    Attributes:
        pictures: uint8 [T, 224, 224, 3], room for the whole segment; filled if the region was frozen before it.
        count: how many frames were searched and, then, cropped.
        track: what is known of the face after these.
        noses: where the nose is in each of them, if the crop floats.
    """

    pictures: UInt8Array
    count: int
    track: FaceTrack
    noses: tuple[Nose | None, ...] = ()


class SpeakerView:
    """Crops the speaker, calibrating the region first where none is given.

    Until `CALIBRATION_FRAMES` frames with a face are gathered every frame is searched, and each segment uses the region
    of the boxes so far. Then the region is frozen, for head translation must show, and one frame a second is searched
    to watch whether the face is still there; so it is from the start where nothing is cropped. While it is missed every
    fifth frame is searched, and the frame after it is found again. Which frames are searched depends on what is in the
    stream alone, never on how it was pushed.

    With a finder of noses the crop floats: that region gives the side of a square around the nose of each frame, and
    every frame is searched, for the face nearest to the last one. A nose that is not found stays where it was; before
    the first it is the fixed region that is cropped.

    Args:
        detector: finds the face.
        pfl: mode, window and padding.
        crops: False only watches the face, for a generator that reads no pictures.
        nose: finds the nose for a crop that floats; None for a fixed one.
    """

    def __init__(
        self, detector: FaceDetector, pfl: PflInfo, *, crops: bool = True, nose: NoseFinder | None = None
    ) -> None:
        self._detector = detector
        self._pfl = pfl
        self._crops = crops
        self._nose = nose
        self._warned = False

    def step(
        self, frames: Sequence[UInt8Array] | UInt8Array, track: FaceTrack, ahead: Cropped | None = None
    ) -> tuple[UInt8Array, FaceTrack]:
        """Crop the frames of one segment.

        Args:
            frames: uint8 [H, W, 3] RGB each, whole frames of one size.
            track: what is known so far.
            ahead: what `crop_ahead` made of the first of them.

        Returns:
            uint8 [T, 224, 224, 3], none without crops, and what is known now.
        """
        size = _size(frames[0])
        ahead = ahead or Cropped(self._room(len(frames)), 0, track)
        n_cropped = 0 if track.region is None else ahead.count
        track, noses = ahead.track, [*ahead.noses]
        for frame in frames[ahead.count :]:
            track = self._look(frame, size, track)
            noses.append(track.nose)
        if not self._crops:
            return ahead.pictures, track
        region = track.region or session_region(track.boxes, size, self._pfl)
        if not track.boxes and track.region is None:
            self._warn_once(region)
        for index in range(n_cropped, len(frames)):  # one by one: whole frames are never copied
            ahead.pictures[index] = _cut(frames[index], region, noses[index])
        return ahead.pictures, track

    def crop_ahead(self, frames: Sequence[UInt8Array], length: int, track: FaceTrack, ahead: Cropped | None) -> Cropped:
        """Do what can be done while a segment waits for its last frames: search all, crop once the region is frozen.

        Args:
            frames: the first frames of the segment.
            length: frames of the whole segment.
            track: what is known before the first of them.
            ahead: what was made of the first of them so far, or None.
        """
        ahead = ahead or Cropped(self._room(length), 0, track)
        for frame in frames[ahead.count :]:
            seen = self._look(frame, _size(frame), ahead.track)
            if self._crops and track.region is not None:
                ahead.pictures[ahead.count] = _cut(frame, track.region, seen.nose)
            ahead = Cropped(ahead.pictures, ahead.count + 1, seen, (*ahead.noses, seen.nose))
        return ahead

    @property
    def floats(self) -> bool:
        """Whether the crop follows the nose."""
        return self._nose is not None

    def _look(self, frame: UInt8Array, size: tuple[int, int], track: FaceTrack) -> FaceTrack:
        index = track.frames
        track = replace(track, frames=index + 1)
        if self._nose is None and track.last_look >= 0 and index - track.last_look < self._pause(track):
            return track
        box = find_face(self._detector, frame, track.boxes[-1] if track.boxes else None)
        watch = track.watch.next(box is not None, index - track.last_look)
        track = replace(track, watch=watch, last_look=index)
        if box is not None and not self._crops:
            track = replace(track, boxes=(box,))  # the one to follow
        elif box is not None and track.region is None:
            track = replace(track, boxes=(*track.boxes, box))
            if len(track.boxes) == CALIBRATION_FRAMES:
                track = replace(track, region=session_region(track.boxes, size, self._pfl))
        elif self._nose is not None and box is not None:
            track = replace(track, boxes=(box,))
        if self._nose is not None and box is not None:
            track = replace(track, nose=self._nose(frame, box) or track.nose)
        return track

    def needs_again(self, track: FaceTrack) -> bool:
        """Whether pictures that were looked at are to be cropped later: while the region is not known."""
        return self._crops and track.region is None

    def _pause(self, track: FaceTrack) -> int:
        """Frames from one look to the next."""
        if track.watch.unseen_frames:
            return SEARCH_FRAMES
        confirming = track.watch.state is FaceState.REACQUIRED
        return 1 if confirming or self.needs_again(track) else WATCH_FRAMES

    def _room(self, frames: int) -> UInt8Array:
        return np.empty((frames if self._crops else 0, GENERATOR_SIDE, GENERATOR_SIDE, 3), np.uint8)

    def _warn_once(self, region: Region) -> None:
        if not self._warned:
            log.warning("No face in the speaker's first frames: using the middle of the frame, %s.", region)
            self._warned = True


def _size(frame: UInt8Array) -> tuple[int, int]:
    return frame.shape[1], frame.shape[0]


def _cut(frame: UInt8Array, region: Region, nose: Nose | None) -> UInt8Array:
    """What the generator sees of a whole frame: the region, or a square of its side around the nose."""
    region = region if nose is None else floating_region(nose, max(region.width, region.height))
    return centre_crop(crop(frame[None], region, CROP_SIZE)[0], GENERATOR_SIDE)


def find_face(detector: FaceDetector, frame: UInt8Array, previous: Box | None) -> Box | None:
    """The face to follow in uint8 [H, W, 3] RGB, given the last one; None if there is none. See `choose_face`."""
    boxes = [face.box for face in detector.detect(frame) if np.isfinite(face.box).all()]
    index = choose_face(boxes, previous)
    return None if index is None else boxes[index]
