"""bf16 for a bundle on OpenVINO: the graphs that can have it, judged on the pictures at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

import pflx
from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.judge import Bound, Judgement
from pflx.calibration.precision.inference import choose_inference, has_bf16
from pflx.calibration.precision.int8_player import Player
from pflx.calibration.precision.int8_target import TARGETS, quantisable
from pflx.calibration.progress import Progress, silent
from pflx.engines import Admission, Bundle
from pflx.engines.bundle.variant_admission import cpu_features, library_version
from pflx.engines.graphs.openvino import import_openvino
from pflx.engines.graphs.threads import check_threads
from pflx.runtime.text_table import number

PRECISION = "bf16"
"""The variant's name in a bundle."""


class Bf16Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a variant was found.

    Attributes:
        schema: version of this description.
        pflx: version that made it.
        bundle: its name.
        untrained: seed of made-up weights; None for trained ones.
        feeds_sha256: of what it was judged on.
        judged_with: library and version that made the pictures.
        cpu: instruction sets that they depend on.
        inference: graph to what it computes in.
        bound: that was asked for.
        refused: what was out of bound with all graphs in bf16; empty if all of them are.
        judgement: of the held-out takes.
    """

    schema: int = 1
    pflx: str
    bundle: str
    untrained: int | None
    feeds_sha256: str
    judged_with: str
    cpu: list[str]
    inference: dict[str, str]
    bound: Bound
    refused: list[str]
    judgement: Judgement


@dataclass(frozen=True)
class Bf16Result:
    """What was found: the admission of the variant, whose graphs are those of FP32, and how."""

    admission: Admission
    report: Bf16Report


def calibrate_bf16(
    bundle: Bundle, feeds: Feeds, *, bound: Bound, threads: int | None = None, progress: Progress = silent
) -> Bf16Result:
    """Find the graphs that OpenVINO may compute in bf16 so that the pictures stay within a bound.

    The renderer and the generator's transformers are tried together, and then the renderer alone.

    Args:
        bundle: with FP32 graphs.
        feeds: recorded from it.
        bound: that pictures and motion of the held-out takes must keep.
        threads: of the CPU, per graph.
        progress: told about every step.

    Raises:
        CalibrationError: feeds of another bundle, this CPU has no bf16, or the pictures do not bear it.
        BackendMissingError: openvino is not installed.
        ThreadsError: fewer than one thread, or more than `most_threads()`.
    """
    check_threads(threads)
    feeds.require_match(bundle)
    import_openvino()
    if not has_bf16():
        raise CalibrationError(
            f"This CPU does not compute in bf16: it has {' '.join(cpu_features())}. Calibrate on the machine that is "
            "to run it, or take pflx calibrate int8."
        )
    with (
        TemporaryDirectory() as folder,
        closing(Player(bundle, feeds, "openvino", {}, {}, Path(folder), threads)) as player,
    ):
        trials = choose_inference(player, quantisable(bundle.manifest, TARGETS["openvino"]), bound, progress)
        inference = player.inference
    if not inference:
        why = "; ".join(trials[-2].faults)
        raise CalibrationError(f"Not one graph bears bf16: {why}. Ask for less, like --psnr {bound.psnr_db - 4:g}.")
    judged_with, judgement = library_version("openvino"), trials[-1].judgement
    admission = Admission(
        libraries=["openvino"],
        judged_with=judged_with,
        inference=dict(inference),
        cpu=list(cpu_features()),
        lowest_psnr_db=judgement.lowest_psnr_db,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    report = Bf16Report(
        pflx=pflx.__version__,
        bundle=bundle.name,
        untrained=bundle.manifest.untrained,
        feeds_sha256=feeds.sha256(),
        judged_with=judged_with,
        cpu=admission.cpu,
        inference=admission.inference,
        bound=bound,
        refused=trials[0].faults,
        judgement=judgement,
    )
    return Bf16Result(admission, report)


def report_lines(report: Bf16Report) -> Iterator[str]:
    """The report in words."""
    yield f"Judged with {report.judged_with}, in bf16: {', '.join(report.inference)}"
    if report.refused:
        yield f"Not all graphs bear it: {'; '.join(report.refused)}"
    found = report.judgement
    yield f"{number(found.lowest_psnr_db)} dB in the worst picture, {number(found.psnr_db)} dB over all of them"
