"""bf16: what OpenVINO computes in it, the variant in the bundle, and that it is chosen where it was admitted."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.calibration.drawn_graphs import F32
from support.calibration.painting import painting_bundle
from support.commands import pflx, refusal
from support.places import MEDIA

from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.record import RecordOptions, record
from pflx.calibration.judge import Bound
from pflx.calibration.precision import bf16 as bf16_module
from pflx.calibration.precision.bf16 import Bf16Report, Bf16Result, calibrate_bf16, report_lines
from pflx.calibration.precision.inference import has_bf16
from pflx.calibration.precision.variants import add_variant
from pflx.engines import Admission, Array, Bundle
from pflx.engines.bundle.variant_admission import cpu_features
from pflx.runtime import EngineSettings, Listener, open_speaker
from pflx.runtime.bundle_engines import precision_of

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

PORTRAIT = MEDIA / "portrait_astronaut_256.png"
PODIUM = MEDIA / "podium_speech_8s.mp4"
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute in bf16")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return painting_bundle(tmp_path_factory.mktemp("bundle") / "me.pflx")


@pytest.fixture(scope="module")
def feeds(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Feeds:
    clip = open_speaker(PODIUM).limited(2.0)
    folder = tmp_path_factory.mktemp("recorded") / "feeds"
    return record(bundle, [clip], PORTRAIT, folder, options=RecordOptions(limit=3, threads=1))


@pytest.fixture(scope="module")
def found(bundle: Bundle, feeds: Feeds) -> Bf16Result:
    return calibrate_bf16(bundle, feeds, bound=Bound(ssim=0.9), threads=1)


def admitted(libraries: list[str], cpu: list[str]) -> Admission:
    return Admission(
        libraries=libraries, judged_with="openvino 1", cpu=cpu, lowest_psnr_db=40.0, created="2026-01-01T00:00:00+00:00"
    )


def pictures(bundle: Bundle, precision: str) -> Array:
    settings = EngineSettings(library="openvino", precision=precision, threads=1)
    with Listener.open(bundle.path, PORTRAIT, engines=settings) as listener:
        clip = open_speaker(PODIUM).limited(1.0)
        return np.stack([frame.image for frame in listener.react(clip, seed=0)]).astype(F32)


@needs_bf16
def test_the_variant_computes_in_bf16_and_is_as_near_as_its_admission_says(
    bundle: Bundle, found: Bf16Result, tmp_path: Path
) -> None:
    assert found.admission.inference["pirender_frame"] == "bf16"
    assert found.admission.libraries == ["openvino"]
    assert found.admission.cpu == list(cpu_features())
    target = tmp_path / "new.pflx"
    add_variant(bundle, target, "bf16", {}, admission=found.admission, fp32_nodes={}, report=found.report)
    own = Bundle.open(target)
    assert own.graph_path("pirender_frame", "bf16") == own.graph_path("pirender_frame", "fp32")
    exact, rounded = pictures(own, "fp32"), pictures(own, "bf16")
    error = np.square(exact - rounded).mean(axis=(1, 2, 3))
    assert 0 < error.max() < 255**2 / 10**3.6
    np.testing.assert_array_equal(pictures(own, "auto"), rounded)


@needs_bf16
def test_its_report_is_told_and_kept(found: Bf16Result) -> None:
    lines = list(report_lines(found.report))
    assert lines[0].startswith("Judged with openvino ")
    assert "pirender_frame" in lines[0]
    assert f"{found.report.judgement.lowest_psnr_db:.1f}"[:3] in lines[-1]
    assert msgspec.json.decode(msgspec.json.encode(found.report), type=Bf16Report) == found.report


@needs_bf16
def test_the_command_puts_it_into_the_bundle(tmp_path: Path, feeds: Feeds) -> None:
    own = painting_bundle(tmp_path / "me.pflx")
    report = tmp_path / "bf16.json"
    outcome = pflx(
        *("calibrate", "bf16", own.path, "--feeds", feeds.folder, "--psnr", 30, "--json", report, "--threads", 1)
    )
    assert outcome.code == 0, outcome.err
    assert f"pflx run CLIP -b {own.path} -p PICTURE --engine openvino --precision bf16" in outcome.out
    assert json.loads(report.read_text())["inference"]["pirender_frame"] == "bf16"
    assert "bf16 for openvino" in pflx("inspect", own.path).out


@needs_bf16
def test_what_the_pictures_do_not_bear_is_refused(bundle: Bundle, feeds: Feeds) -> None:
    with pytest.raises(CalibrationError, match=r"Not one graph bears bf16: .* Ask for less, like --psnr 116"):
        calibrate_bf16(bundle, feeds, bound=Bound(psnr_db=120), threads=1)


def test_a_cpu_without_it_is_told_what_to_do(bundle: Bundle, feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bf16_module, "has_bf16", lambda: False)
    with pytest.raises(CalibrationError, match=r"does not compute in bf16.* take pflx calibrate int8"):
        calibrate_bf16(bundle, feeds, bound=Bound(), threads=1)
    assert "needs --feeds" in refusal("calibrate", "bf16", bundle.path, code=2)


HERE, ELSEWHERE = list(cpu_features()), [*cpu_features(), "amx_fp4"]


VARIANTS = {"int8": admitted(["openvino"], ELSEWHERE), "bf16": admitted(["openvino"], HERE)}


@pytest.mark.parametrize(
    ("library", "precision", "taken"),
    [
        ("openvino", "auto", "bf16"),
        ("openvino", None, "fp32"),
        ("openvino", "int8", "int8"),
        ("onnxruntime", "auto", "fp32"),
    ],
)
def test_the_fastest_is_taken_that_was_admitted_for_this_library_and_machine(
    bundle: Bundle, library: str, precision: str | None, taken: str
) -> None:
    manifest = msgspec.structs.replace(bundle.manifest, admissions=VARIANTS)
    assert precision_of(manifest, EngineSettings(library=library, precision=precision)) == taken  # type: ignore[arg-type]


def test_int8_goes_before_bf16(bundle: Bundle) -> None:
    both = {"bf16": admitted(["openvino"], HERE), "int8": admitted(["openvino"], HERE)}
    manifest = msgspec.structs.replace(bundle.manifest, admissions=both)
    assert precision_of(manifest, EngineSettings(library="openvino", precision="auto")) == "int8"
