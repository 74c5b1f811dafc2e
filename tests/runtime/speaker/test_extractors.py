from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.golden_arrays import golden
from support.places import MEDIA
from support.speaker.webcam import webcam_frames

import pflx.runtime.speaker.landmarks as landmarks_module
from pflx.engines import Array, FakeEngine, TensorSpec
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.speaker.extractor import Extractor, ExtractorError, NeedError
from pflx.runtime.speaker.extractors import open_extractor, require_needs
from pflx.runtime.speaker.faces import DetectorFileError, Face, FrameError, open_packaged
from pflx.runtime.speaker.landmarks import (
    ARKIT_NAMES,
    HEAD_POINTS,
    MODEL_PATH,
    MODEL_SHA256,
    FaceMesh,
    LandmarkExtractor,
    expression,
    head_pose,
)
from pflx.runtime.speaker.recorded import Recorded, read_recorded
from pflx.runtime.speaker.regressor import OnnxExtractor, face_square

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


def values(frames: int = 5, size: int = 58) -> Float32Array:
    return np.random.default_rng(0).standard_normal((frames, size)).astype(np.float32)


MEAN_FACE = values(1)[0]


def portrait() -> UInt8Array:
    return load_portrait(MEDIA / "portrait_astronaut_256.png")


# Recorded values


@given(st.integers(-5, 30))
def test_recorded_values_are_told_by_frame_and_the_ends_are_held(frame: int) -> None:
    recorded = Recorded(values(20))
    expected = values(20)[min(max(frame, 0), 19)]
    np.testing.assert_array_equal(recorded.extract(None, frame), expected)
    assert (recorded.size, recorded.frames) == (58, 20)


def test_the_end_of_the_recorded_values_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded(values(3))
    with caplog.at_level(logging.WARNING):
        for frame in range(6):
            recorded.extract(None, frame)
    assert [record.getMessage() for record in caplog.records] == [
        "The recorded values end after 3 frames; the last row is held from there on."
    ]


def test_changing_what_came_out_does_not_change_what_is_recorded() -> None:
    recorded = Recorded(values())
    recorded.extract(None, 0)[:] = 7
    np.testing.assert_array_equal(recorded.extract(None, 0), values()[0])


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_a_file_of_coefficients_loses_the_mean_face(tmp_path: Path, axis: int | None, kind: str) -> None:
    stored = values() if axis is None else np.expand_dims(values(), axis)
    path = tmp_path / f"speaker{kind}"
    if kind == ".npy":
        np.save(path, stored.astype(np.float64))
    else:
        np.savez(path, coefficients=stored, other=np.zeros(3))
    recorded = read_recorded(path, "coefficients", MEAN_FACE)
    assert recorded.frames == 5
    np.testing.assert_allclose(recorded.extract(None, 2), values()[2] - MEAN_FACE, rtol=1e-6)


@pytest.mark.parametrize("header", ["", ",".join(f"AU{i}" for i in range(25)) + "\n"])
def test_a_table_of_emotion_is_read_with_and_without_names(tmp_path: Path, header: str) -> None:
    path = tmp_path / "emotion.csv"
    rows = values(4, 25)
    path.write_text(header + "".join(",".join(map(str, row)) + "\n" for row in rows.tolist()))
    recorded = read_recorded(path, "emotion", MEAN_FACE)
    assert recorded.size == 25
    np.testing.assert_allclose(recorded.extract(None, 3), rows[3], rtol=1e-6)


def test_the_only_array_of_an_archive_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", whatever=values())
    assert read_recorded(tmp_path / "one.npz", "coefficients").frames == 5


def not_finite() -> Float32Array:
    broken = values()
    broken[3, 7] = np.nan
    return broken


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (values(5, 57), r"\[5, 57\], where \[T, 58\]"),
        (values(5, 25), r"\[5, 25\], where \[T, 58\]"),
        (values()[0], r"\[58\], where \[T, 58\]"),
        (values()[:0], "no frame at all"),
        (not_finite(), "not finite, first in frame 3"),
        (np.stack([values()] * 2), "2 series of 5 frames.*values\\[0\\]"),
        (np.array(["a", "b"]), "no numbers"),
        (np.array([{"a": 1}], object), "holds object, no numbers"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, stored: npt.NDArray[np.generic], message: str) -> None:
    np.save(tmp_path / "values.npy", stored, allow_pickle=True)
    with pytest.raises(ExtractorError, match=message):
        read_recorded(tmp_path / "values.npy", "coefficients", MEAN_FACE)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match="does not exist"):
        read_recorded(tmp_path / "none.npy", "coefficients")
    np.savez(tmp_path / "two.npz", a=values(), b=values())
    with pytest.raises(ExtractorError, match="a, b, but no 'coefficients'"):
        read_recorded(tmp_path / "two.npz", "coefficients")
    for name in ("cut.npz", "cut.npy", "empty.npy"):
        (tmp_path / name).write_bytes(b"" if name == "empty.npy" else b"PK\x03\x04 no archive")
        with pytest.raises(ExtractorError):
            read_recorded(tmp_path / name, "coefficients")
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    with pytest.raises(ExtractorError, match="has 'c' among its numbers"):
        read_recorded(tmp_path / "words.csv", "emotion")


# Needs


def test_a_generator_whose_needs_are_met_passes() -> None:
    require_needs("perfrdiff", ("coefficients", "mfcc"), {"coefficients": Recorded(values())})
    require_needs("reactface", ("video", "audio"), {})


@pytest.mark.parametrize(("need", "size"), [("coefficients", 58), ("emotion", 25)])
def test_an_unmet_need_is_named_with_the_ways_to_meet_it(need: str, size: int) -> None:
    with pytest.raises(NeedError) as caught:
        require_needs("somebody", ("mfcc", need), {})
    message = str(caught.value)
    for part in ("somebody", need, f"--speaker-{need}", f"extractors={{'{need}'", f"[T, {size}]", "REGRESSOR.onnx"):
        assert part in message
    assert ("'landmarks'" in message) == (need == "coefficients")
    assert "\n" not in message


def test_an_extractor_of_another_size_does_not_meet_a_need() -> None:
    with pytest.raises(NeedError, match="58 numbers of coefficients, the extractor gives 25"):
        require_needs("perfrdiff", ("coefficients",), {"coefficients": Recorded(values(5, 25))})


def test_extractors_are_opened_by_what_the_user_names(tmp_path: Path) -> None:
    np.save(tmp_path / "speaker.npy", values())
    assert isinstance(open_extractor(tmp_path / "speaker.npy", "coefficients", MEAN_FACE), Recorded)
    assert isinstance(open_extractor("landmarks", "coefficients", MEAN_FACE), LandmarkExtractor)
    save_regressor(tmp_path / "mine.onnx", [1, 8, 8, 3], TensorProto.UINT8, 25)
    assert open_extractor(tmp_path / "mine.onnx", "emotion", MEAN_FACE).size == 25
    with pytest.raises(ExtractorError, match="Landmarks give coefficients, no emotion"):
        open_extractor("landmarks", "emotion", MEAN_FACE)
    with pytest.raises(ExtractorError, match=r"'speaker.mat' is no coefficients source"):
        open_extractor("speaker.mat", "coefficients", MEAN_FACE)


# Landmarks


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


def test_the_network_computes_what_it_does_in_mediapipes_own_runtime() -> None:
    case = golden("face_landmarks")
    engine = open_packaged(MODEL_PATH, MODEL_SHA256)
    found = engine.run({"crop": portrait()[None], "to_picture": np.eye(2, 3, dtype=np.float32)})
    np.testing.assert_allclose(found["landmarks"], case["landmarks"], rtol=0, atol=5e-3)  # pixels
    np.testing.assert_allclose(found["score"], case["score"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["blendshapes"], case["blendshapes"], rtol=0, atol=1e-3)


def test_angles_agree_with_those_measured_by_other_software(mesh: FaceMesh) -> None:
    case = golden("head_pose")
    poses = []
    for picture in webcam_frames(case["frames"]):
        face = mesh.find(picture)
        assert face is not None
        pose = head_pose(face.points, (picture.shape[1], picture.shape[0]))
        assert pose is not None
        poses.append([pose.pitch_deg, pose.yaw_deg, pose.roll_deg])
    errors = np.abs(np.array(poses) - case["angles_deg"])
    assert np.ptp(case["angles_deg"][:, 1]) > 40
    assert (np.median(errors, axis=0) < 5).all(), np.median(errors, axis=0)


def test_equal_pictures_give_equal_numbers_whatever_came_between(mesh: FaceMesh) -> None:
    extractor: Extractor = LandmarkExtractor(np.zeros(58), mesh=mesh)
    first, second = webcam_frames(np.array([0, 100]))
    before = extractor.extract(first, 0)
    extractor.extract(second, 1)
    after = extractor.extract(first, 77)
    assert before is not None
    assert after is not None
    assert before.dtype == np.float32
    assert before.shape == (extractor.size,) == (58,)
    np.testing.assert_array_equal(before, after)


def test_the_mean_face_is_subtracted(mesh: FaceMesh) -> None:
    raw = LandmarkExtractor(np.zeros(58), mesh=mesh).extract(portrait())
    less = LandmarkExtractor(np.full(58, 0.25), mesh=mesh).extract(portrait())
    assert raw is not None
    assert less is not None
    np.testing.assert_allclose(raw - less, 0.25, atol=1e-6)


@pytest.mark.parametrize(("mean_pitch", "upright"), [(0.0, math.pi), (3.0, math.pi), (-3.0, -math.pi)])
def test_angles_lie_around_the_half_turn_that_the_mean_face_has(
    mesh: FaceMesh, mean_pitch: float, upright: float
) -> None:
    mean_face = np.zeros(58)
    mean_face[52] = mean_pitch
    numbers = LandmarkExtractor(mean_face, mesh=mesh).extract(portrait())
    assert numbers is not None
    assert abs(numbers[52] + mean_pitch - upright) < 0.6


def test_a_smile_is_seen_in_the_smiling_portrait_and_not_in_the_webcam_frame(mesh: FaceMesh) -> None:
    smiling = LandmarkExtractor(np.zeros(58), mesh=mesh).extract(portrait())
    serious = LandmarkExtractor(np.zeros(58), mesh=mesh).extract(webcam_frames(np.array([0]))[0])
    assert smiling is not None
    assert serious is not None
    smile = ARKIT_NAMES.index("mouthSmileLeft")
    assert smiling[smile] > 0.5 > serious[smile]
    assert (smiling[:52] >= 0).all()
    assert (smiling[:52] <= 1).all()


def test_turning_the_picture_turns_the_roll(mesh: FaceMesh) -> None:
    import cv2

    turn = cv2.getRotationMatrix2D((128, 128), -20, 1)  # clockwise
    turned = np.asarray(cv2.warpAffine(portrait(), turn, (256, 256)), np.uint8)
    poses = []
    for picture in (portrait(), turned):
        face = mesh.find(picture)
        assert face is not None
        poses.append(head_pose(face.points, (256, 256)))
    upright, rolled = poses
    assert upright is not None
    assert rolled is not None
    assert rolled.roll_deg - upright.roll_deg == pytest.approx(20, abs=3)


def test_a_picture_without_a_face_gives_nothing(mesh: FaceMesh) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    assert LandmarkExtractor(np.zeros(58), mesh=mesh).extract(noise) is None


def test_a_box_that_holds_no_face_gives_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    assert FaceMesh(detector=FixedDetector((50, 50, 80, 80))).find(noise) is None


def test_what_is_no_picture_is_refused(mesh: FaceMesh) -> None:
    with pytest.raises(FrameError):
        LandmarkExtractor(np.zeros(58), mesh=mesh).extract(np.zeros((64, 64), np.uint8))


def test_a_changed_landmark_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "changed.onnx").write_bytes(MODEL_PATH.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(landmarks_module, "MODEL_PATH", tmp_path / "changed.onnx")
    with pytest.raises(DetectorFileError, match="Reinstall"):
        FaceMesh()


@given(st.floats(-40, 40), st.floats(-50, 50), st.floats(-60, 60), st.floats(-300, 300), st.floats(1500, 6000))
def test_the_pose_of_a_drawn_head_is_found(pitch: float, yaw: float, roll: float, x: float, z: float) -> None:
    import cv2

    turns = [cv2.Rodrigues(np.eye(3)[axis] * math.radians(angle))[0] for axis, angle in enumerate((pitch, yaw, roll))]
    head = np.array(list(HEAD_POINTS.values())) @ (turns[2] @ turns[1] @ turns[0]).T + [x, 40, z]
    points = np.zeros((478, 3))
    points[list(HEAD_POINTS), :2] = head[:, :2] / head[:, 2:] * 640 + [320, 240]
    pose = head_pose(points, (640, 480))
    assert pose is not None
    assert (pose.pitch_deg, pose.yaw_deg, pose.roll_deg) == pytest.approx((pitch, yaw, roll), abs=0.1)
    assert pose.translation == pytest.approx((x, 40, z), abs=0.005 * z)


def test_the_networks_weights_are_put_in_arkits_order() -> None:
    alphabetical = ["_neutral", *sorted(ARKIT_NAMES[:-1])]
    weights = expression(np.arange(52))
    assert [alphabetical[int(weight)] for weight in weights[:51]] == list(ARKIT_NAMES[:-1])
    assert (ARKIT_NAMES[51], weights[51]) == ("tongueOut", 0)
    # MediaPipe's documented positions, so that the alphabet is not taken on trust.
    for position, name in {1: "browDownLeft", 9: "eyeBlinkLeft", 25: "jawOpen", 44: "mouthSmileLeft"}.items():
        assert alphabetical[position] == name


# A network of the user's own


class FixedDetector:
    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self._boxes = boxes

    def detect(self, frame_rgb: UInt8Array) -> list[Face]:
        return [Face(box, 1.0) for box in self._boxes]


BOX = FixedDetector((40.0, 40.0, 20.0, 20.0))


def save_regressor(path: Path, shape: list[int | str], kind: int, size: int) -> None:
    """A graph that gives the mean of all pixels, n times."""
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["numbers"]),
    ]
    graph = helper.make_graph(
        nodes,
        "regressor",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [1, size])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def regressor(shape: tuple[int | str, ...], dtype: type, size: int, calls: list[Array]) -> FakeEngine:
    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        calls.append(feeds["image"])
        return {"numbers": np.full((1, size), feeds["image"].astype(np.float32).mean(), np.float32)}

    inputs = {"image": TensorSpec(shape, np.dtype(dtype))}
    return FakeEngine(run, inputs, {"numbers": TensorSpec((1, size), np.dtype(np.float32))})


@pytest.mark.parametrize(
    ("shape", "dtype", "fed", "low"),
    [
        ((1, 16, 8, 3), np.uint8, (1, 16, 8, 3), 0),
        ((1, 3, 16, 8), np.uint8, (1, 3, 16, 8), 0),
        ((1, 16, 8, 3), np.float32, (1, 16, 8, 3), -1),
        (("N", 3, "H", "W"), np.float32, (1, 3, 224, 224), -1),
    ],
)
def test_the_graph_decides_how_it_is_fed(
    shape: tuple[int | str, ...], dtype: type, fed: tuple[int, ...], low: float
) -> None:
    calls: list[Array] = []
    engine = regressor(shape, dtype, 58, calls)
    extractor = OnnxExtractor("mine.onnx", "coefficients", MEAN_FACE, detector=BOX, engine=engine)
    numbers = extractor.extract(np.zeros((100, 100, 3), np.uint8), 0)
    assert calls[0].shape == fed
    assert calls[0].dtype == dtype
    assert (calls[0] == low).all()
    assert numbers is not None
    np.testing.assert_allclose(numbers, low - MEAN_FACE, rtol=1e-6)


def test_a_graph_from_a_file_gives_emotion(tmp_path: Path) -> None:
    save_regressor(tmp_path / "mine.onnx", [1, 8, 8, 3], TensorProto.UINT8, 25)
    extractor = OnnxExtractor(tmp_path / "mine.onnx", "emotion", MEAN_FACE, detector=BOX)
    numbers = extractor.extract(np.full((100, 100, 3), 90, np.uint8), 0)
    assert numbers is not None
    np.testing.assert_allclose(numbers, np.full(25, 90))


def test_without_a_face_the_network_is_not_asked() -> None:
    engine = regressor((1, 8, 8, 3), np.uint8, 58, [])
    extractor = OnnxExtractor("mine.onnx", "coefficients", detector=FixedDetector(), engine=engine)
    assert extractor.extract(np.zeros((100, 100, 3), np.uint8), 0) is None
    assert engine.calls == 0


def test_the_square_is_the_box_and_a_margin_and_black_outside() -> None:
    picture = np.full((100, 100, 3), 50, np.uint8)
    picture[40:60, 40:60] = 200
    square = face_square(picture, (40.0, 40.0, 20.0, 20.0), (26, 26))
    np.testing.assert_array_equal(square[3:23, 3:23], 200)
    assert (square[0] == 50).all()
    outside = face_square(picture, (-10.0, 40.0, 20.0, 20.0), (26, 26))
    assert not outside[:, :12].any()
    assert outside[13, 14:].all()


@pytest.mark.parametrize(
    ("shape", "kind", "size", "message"),
    [
        ([1, 8, 8, 4], TensorProto.UINT8, 58, "the input is uint8"),
        ([2, 8, 8, 3], TensorProto.UINT8, 58, "the input is uint8"),
        ([8, 8, 3], TensorProto.UINT8, 58, "the input is uint8"),
        ([1, 8, 8, 3], TensorProto.FLOAT16, 58, "the input is float16"),
        ([1, 8, 8, 3], TensorProto.UINT8, 25, r"gives float32 \[1, 58\]"),
    ],
)
def test_a_graph_that_is_no_regressor_is_refused(
    tmp_path: Path, shape: list[int | str], kind: int, size: int, message: str
) -> None:
    save_regressor(tmp_path / "mine.onnx", shape, kind, size)
    with pytest.raises(ExtractorError, match=message):
        OnnxExtractor(tmp_path / "mine.onnx", "coefficients", MEAN_FACE, detector=BOX)


def test_numbers_that_are_not_finite_are_refused() -> None:
    specs = {"image": TensorSpec((1, 8, 8, 3), np.dtype(np.uint8))}
    out = {"numbers": TensorSpec(("N", 58), np.dtype(np.float32))}
    engine = FakeEngine(lambda feeds: {"numbers": np.full((1, 58), np.nan, np.float32)}, specs, out)
    extractor = OnnxExtractor("mine.onnx", "coefficients", detector=BOX, engine=engine)
    with pytest.raises(ExtractorError, match="frame 4"):
        extractor.extract(np.zeros((100, 100, 3), np.uint8), 4)
