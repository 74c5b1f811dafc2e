"""The speaker's coefficients from face landmarks: a stand-in for FaceVerse, in real time on the CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines import Engine
from pflx.runtime.frames.arrays import Float32Array, Float64Array, UInt8Array
from pflx.runtime.speaker.extractor import NOWHERE, Place
from pflx.runtime.speaker.face_track import find_face
from pflx.runtime.speaker.faces import BlazeFace, FaceDetector, bears_threads, check_frame, open_packaged
from pflx.runtime.speaker.pfl import Box

Square: TypeAlias = tuple[float, float, float, float]
"""Centre x, centre y and side in pixels, and the angle by which it is turned, clockwise in the picture, in rad."""

MODEL_PATH = Path(__file__).parent / "data" / "face_landmarks.onnx"
MODEL_SHA256 = "93dcc27163f974cab1fd79893c2f69f6696b85ed2a50b8413e1bafd1804d3562"
SIDE = 256
"""Side in pixels of the square the network looks at."""
MIN_SCORE = 0.5
"""Below it the square shows no face. Source: MediaPipe Face Landmarker, min_face_presence_confidence."""

NOSE = 1
"""The landmark at the tip of the nose."""
HEAD_POINTS = {
    NOSE: (0.0, 0.0, 0.0),
    152: (0.0, 330.0, 65.0),  # chin
    33: (-225.0, -170.0, 135.0),  # outer corner of the eye on the picture's left
    263: (225.0, -170.0, 135.0),  # and on its right
    61: (-150.0, 150.0, 125.0),  # corner of the mouth on the picture's left
    291: (150.0, 150.0, 125.0),  # and on its right
}
"""Landmark → x right, y down, z away from the camera: the six-point head that is widely used for head pose.

Source: S. Mallick, "Head Pose Estimation using OpenCV and Dlib" (2016).
"""
HEAD_UNITS_PER_DM = 450.0 / 0.89
"""Between the outer corners of the eyes lie 450 units here and 89 mm in MediaPipe's canonical face."""

# fmt: off
ARKIT_NAMES = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp",
    "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft",
    "noseSneerRight", "tongueOut",
)
# fmt: on
"""The 52 expression coefficients, in the order of Apple's documentation of ARFaceAnchor.BlendShapeLocation."""

_NETWORK_NAMES = ("_neutral", *sorted(ARKIT_NAMES[:-1]))
"""What the network tells, in its order; it does not tell tongueOut. Source: face_blendshapes_graph.cc."""
_TO_ARKIT = np.array([_NETWORK_NAMES.index(name) for name in ARKIT_NAMES[:-1]])

# From BlazeFace's box to the square that fits the landmarks: medians over frames of five clips.
_DOWN, _WIDER = -0.035, 1.685
_MARGIN = 1.5  # of the square around the landmarks. Source: MediaPipe, face_landmarker_graph.cc

# FaceVerse's tracker, per PFLPosNet 6c274a2: a camera at z = 10 of focal length 1315 px for a picture of 512 px.
_FOCAL_PER_SIDE, _CAMERA_Z = 1315 / 512, 10.0


@dataclass(frozen=True)
class FaceLandmarks:
    """One face, in detail.

    Attributes:
        points: float32 [478, 3]; x and y in pixels of the picture, z in the same unit, about 0 at the head's middle
            and smaller towards the camera.
        blendshapes: float32 [52] in 0..1, named by `_neutral` and ARKit's names in alphabetical order.
        score: that this is a face, 0..1.
    """

    points: Float32Array
    blendshapes: Float32Array
    score: float


@dataclass(frozen=True)
class HeadPose:
    """How a head stands before the camera; axes x right, y down, z forward. R = Rz(roll) Ry(yaw) Rx(pitch).

    Attributes:
        pitch_deg: nose down is positive.
        yaw_deg: nose towards the picture's left is positive.
        roll_deg: clockwise in the picture is positive.
        translation: x, y, z of the tip of the nose in head units, under a focal length of the picture's width.
    """

    pitch_deg: float
    yaw_deg: float
    roll_deg: float
    translation: tuple[float, float, float]


class FaceMesh:
    """MediaPipe's face landmarks and blendshapes on the CPU, one thread.

    The face is found first, and looked at twice: in the square that its box suggests, then in the one that the
    landmarks of the first look suggest, turned with the eyes. `follow` takes that from the look before, as MediaPipe
    does, and so costs one look.

    Args:
        detector: finds the face; by default `BlazeFace`. Of several, the largest is taken.
        engine: runs the model; by default ONNX Runtime on the file that comes with pflx.

    Raises:
        DetectorFileError: a model file is missing or its SHA-256 is wrong.

    Source: MediaPipe Face Landmarker, version 1 (Apache-2.0): FaceMesh V2 and Blendshape V2, joined into one graph.
    """

    def __init__(self, *, detector: FaceDetector | None = None, engine: Engine | None = None) -> None:
        self._detector = detector or BlazeFace()
        self._engine = engine if engine is not None else open_packaged(MODEL_PATH, MODEL_SHA256)
        self.any_thread = engine is None and bears_threads(self._detector)

    def find(self, picture: UInt8Array) -> FaceLandmarks | None:
        """The largest face in uint8 [H, W, 3] RGB; None if there is none.

        Raises:
            FrameError: not such an array.
        """
        box = find_face(self._detector, picture, None)
        return None if box is None else self.find_in(picture, box)

    def find_in(self, picture: UInt8Array, box: Box) -> FaceLandmarks | None:
        """The face that was found in a box; None if, looked at closely, there is none.

        Args:
            picture: uint8 [H, W, 3] RGB.
            box: x, y, width, height in pixels, as `BlazeFace` gives it.
        """
        x, y, width, height = box
        side = max(width, height)
        first = self._look(picture, (x + width / 2, y + height / 2 + _DOWN * side, _WIDER * side, 0.0))
        if first.score < MIN_SCORE:
            return None
        second = self._look(picture, _square_around(first.points))
        return second if second.score >= MIN_SCORE else None

    def follow(self, picture: UInt8Array, square: Square | None) -> tuple[FaceLandmarks | None, Square | None]:
        """The face in a square; the largest in the picture, as `find` gives it, where there is none.

        Args:
            picture: uint8 [H, W, 3] RGB.
            square: what the last call returned; None before the first.

        Returns:
            The face, and the square in which to look for it the next time; None for both if there is none.

        Raises:
            FrameError: not such an array.
        """
        check_frame(picture)
        face = None if square is None else self._look(picture, square)
        if face is None or face.score < MIN_SCORE:
            face = self.find(picture)
        return face, None if face is None else _square_around(face.points)

    def nose_in(self, picture: UInt8Array, box: Box) -> tuple[float, float] | None:
        """Where the tip of the nose is, x and y in pixels, of a face that was found in a box; None as in `find_in`."""
        face = self.find_in(picture, box)
        return None if face is None else (float(face.points[NOSE, 0]), float(face.points[NOSE, 1]))

    def _look(self, picture: UInt8Array, square: Square) -> FaceLandmarks:
        import cv2

        to_picture = _from_square(square)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = np.asarray(cv2.warpAffine(picture, to_picture, (SIDE, SIDE), flags=how), np.uint8)
        found = self._engine.run({"crop": crop[None], "to_picture": to_picture})
        return FaceLandmarks(found["landmarks"], found["blendshapes"], float(found["score"][0]))


class LandmarkExtractor:
    """Coefficients from face landmarks, for speakers that no FaceVerse tracker saw. An approximation: docs/features.md.

    Expression: the 51 weights that MediaPipe's blendshape network tells, in ARKit's order; tongueOut is 0. Rotation:
    `head_pose` in FaceVerse's terms, (π + pitch, -yaw, -roll) in rad. Translation: what FaceVerse's tracker would see
    in the centred square of the picture, in model units taken for decimetres.

    Args:
        mean_face: [58], the bundle's; subtracted. Its pitch says whether FaceVerse's angles lie around π or -π.
        mesh: finds the landmarks.

    Raises:
        DetectorFileError: a model file is missing or its SHA-256 is wrong.
    """

    size = 58

    def __init__(self, mean_face: npt.ArrayLike, *, mesh: FaceMesh | None = None) -> None:
        self._mean_face = np.asarray(mean_face, np.float64)
        turns = round((float(self._mean_face[52]) - math.pi) / math.tau)
        self._upright = math.pi + turns * math.tau
        self._mesh = mesh or FaceMesh()
        self.any_thread = self._mesh.any_thread

    def extract(self, picture: UInt8Array, frame: int = 0) -> Float32Array | None:
        """float32 [58] with the mean face subtracted; None without a face. The frame's number does not matter.

        Raises:
            FrameError: the picture is not uint8 [H, W, 3] RGB.
        """
        return self._told(self._mesh.find(picture), picture)

    def follow(self, picture: UInt8Array, frame: int, place: Place) -> tuple[Float32Array | None, Place]:
        """The same by `FaceMesh.follow`, in half the time: angles differ by less than from one look to the next.

        Args:
            picture: see `extract`.
            frame: its number, which does not matter.
            place: the square to look in, or `NOWHERE`.

        Raises:
            FrameError: the picture is not uint8 [H, W, 3] RGB.
        """
        x, y, side, angle = place.tolist()
        face, square = self._mesh.follow(picture, (x, y, side, angle) if side > 0 else None)
        return self._told(face, picture), NOWHERE if square is None else np.array(square)

    def _told(self, face: FaceLandmarks | None, picture: UInt8Array) -> Float32Array | None:
        pose = None if face is None else head_pose(face.points, (picture.shape[1], picture.shape[0]))
        if face is None or pose is None:
            return None
        rotation, translation = self._in_faceverse(pose, (picture.shape[1], picture.shape[0]))
        raw = np.concatenate([expression(face.blendshapes), rotation, translation])
        return np.asarray(raw - self._mean_face, np.float32)

    def _in_faceverse(self, pose: HeadPose, size: tuple[int, int]) -> tuple[Float64Array, Float64Array]:
        """Its y points up and its z towards the camera, and its head is stored lying on its face: half a turn more."""
        pitch, yaw, roll = np.radians([pose.pitch_deg, pose.yaw_deg, pose.roll_deg])
        x, y, z = np.array(pose.translation) / HEAD_UNITS_PER_DM
        distance = z * _FOCAL_PER_SIDE * min(size) / size[0]
        return np.array([self._upright + pitch, -yaw, -roll]), np.array([x, -y, _CAMERA_Z - distance])


def expression(blendshapes: npt.ArrayLike) -> Float64Array:
    """FaceMesh's 52 weights as the 52 of ARKit, in `ARKIT_NAMES`' order."""
    weights = np.asarray(blendshapes, np.float64)
    return np.append(weights[_TO_ARKIT], 0.0)


def head_pose(points: npt.NDArray[np.floating], size: tuple[int, int]) -> HeadPose | None:
    """The pose that puts the six-point head on its landmarks; None if there is no such pose.

    Args:
        points: [478, 2 or 3] in pixels.
        size: width and height of the picture; the focal length is taken to be the width.

    Source: OpenCV solvePnP (SQPnP, then Levenberg-Marquardt on the reprojection error).
    """
    import cv2

    width, height = size
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float64)
    head, seen = np.array(list(HEAD_POINTS.values())), np.asarray(points[list(HEAD_POINTS), :2], np.float64)
    found, turn, shift = cv2.solvePnP(head, seen, camera, np.zeros(0), flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return None
    turn, shift = cv2.solvePnPRefineLM(head, seen, camera, np.zeros(0), turn, shift)
    rotation = cv2.Rodrigues(turn)[0]
    pitch = math.atan2(rotation[2, 1], rotation[2, 2])
    yaw = math.asin(min(max(-rotation[2, 0], -1.0), 1.0))
    roll = math.atan2(rotation[1, 0], rotation[0, 0])
    x, y, z = (float(value) for value in shift.ravel())
    return HeadPose(math.degrees(pitch), math.degrees(yaw), math.degrees(roll), (x, y, z))


def _square_around(points: Float32Array) -> Square:
    """The square for the next look: around all landmarks, upright for the head."""
    across = points[263, :2] - points[33, :2]
    angle = math.atan2(across[1], across[0])
    upright = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = points[:, :2] @ upright.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    x, y = upright.T @ ((low + high) / 2)
    return float(x), float(y), _MARGIN * float(max(high - low)), angle


def _from_square(square: Square) -> Float32Array:
    """float32 [2, 3]: pixels of the square, SIDE a side, to pixels of the picture."""
    x, y, side, angle = square
    along, across = (side / SIDE * turn for turn in (math.cos(angle), math.sin(angle)))
    half = SIDE / 2
    return np.array(
        [[along, -across, x - half * (along - across)], [across, along, y - half * (across + along)]], np.float32
    )
