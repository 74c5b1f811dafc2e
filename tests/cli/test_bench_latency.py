"""`pflx bench-latency` with stubs and fake engines: what it prints and writes, and what it refuses before the work."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image
from support.commands import Outcome, pflx, refusal
from support.fakes import open_fake, portrait_of, write_fake_bundle
from support.latency.reports import REPORT

from pflx.cli.bench_latency import Floor, bench_latency
from pflx.runtime import EngineSettings, Rung
from pflx.runtime.bench.measure.plan import Plan
from pflx.runtime.bench.measure.stub import StubDetector
from pflx.runtime.bench.report.report import Report, load_report, save_report

QUICK = ("--stub", "--mode", "single-stream", "--duration", "0.1")


def bench(*arguments: str | Path | int) -> Outcome:
    outcome = pflx("bench-latency", *arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def refused(folder: Path, *arguments: str | Path | int, code: int = 1) -> str:
    """The one line of an error; nothing may be left behind."""
    before = set(folder.rglob("*"))
    said = refusal("bench-latency", *arguments, code=code)
    assert set(folder.rglob("*")) == before
    return said


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_fake_bundle(tmp_path / "me.pflx")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """One run of 2 s that writes all there is to write."""
    folder = tmp_path_factory.mktemp("measured")
    write_fake_bundle(folder / "me.pflx")
    places = [part for name in ("json", "html", "trace") for part in (f"--{name}", folder / f"{name}.{_suffix(name)}")]
    return folder, bench(folder / "me.pflx", "--stub", "--duration", 2, "--playout-ms", 500, *places)


def _suffix(name: str) -> str:
    return "html" if name == "html" else "json"


def report_of(folder: Path) -> Report:
    return load_report(folder / "json.json")


def test_a_realtime_run_prints_what_it_writes(measured: tuple[Path, Outcome]) -> None:
    folder, outcome = measured
    report = report_of(folder)
    assert report.mode == "realtime"
    assert (report.setup.bundle, report.setup.untrained, report.setup.stub) == ("me.pflx", 7, True)
    assert (report.setup.floor, report.setup.playout_ms, report.setup.duration_s) == ("FULL", 500, 2)
    assert report.figures is not None
    assert report.figures.frames == 2 * 25 - 24
    assert report.command.startswith(f"pflx bench-latency {folder / 'me.pflx'} --stub --duration 2")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("bench-latency, realtime: me.pflx, untrained weights (seed 7), stub networks")
    assert [line for line in lines if line.startswith("Wrote")] == [
        f"Wrote {folder / 'json.json'}",
        f"Wrote {folder / 'html.html'}",
        f"Wrote {folder / 'trace.json'}",
    ]
    assert "Untrained weights (seed 7)" in outcome.err


def test_the_page_and_the_trace_are_of_the_same_run(measured: tuple[Path, Outcome]) -> None:
    folder, _ = measured
    page = (folder / "html.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "me.pflx" in page
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    shown = {event["args"]["frame"] for event in events if event["ph"] == "X" and event["name"].startswith("frame")}
    assert shown <= set(range(50))
    assert 49 in shown


def test_a_run_within_its_limits_ends_well_and_one_beyond_says_which() -> None:
    bench(*QUICK, "--assert", "frames>=8,algorithmic_ms<=840")
    outcome = pflx("bench-latency", *QUICK, "--assert", "frames>=8,algorithmic_ms<800,dmr<=0.001")
    assert outcome.code == 1
    assert outcome.err == (
        "pflx: algorithmic_ms is 840, asserted was < 800. dmr <= 0.001 cannot be judged: it was not measured.\n"
    )
    assert "To quote" in outcome.out  # the report is there to look into


def test_a_comparison_has_ratios_and_says_what_differs(measured: tuple[Path, Outcome]) -> None:
    folder, _ = measured
    said = bench(*QUICK, "--lookahead", 5, "--compare", folder / "json.json").out
    compared = said.split("Compared with the earlier report")[1]
    assert "The modes differ: single-stream, the other realtime." in compared
    assert "lookahead 5, the other 13" in compared
    (row,) = [line.split() for line in compared.splitlines() if line.strip().startswith("algorithmic_ms")]
    assert row[1:] == ["520", "840", "0.619"]


def test_real_engines_are_opened_as_asked(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[dict[str, object]] = []

    def open_one(path: Path, **options: object) -> object:
        opened.append(options)
        return open_fake(path)

    monkeypatch.setattr("pflx.runtime.bundle_engines.OrtEngine", open_one)
    monkeypatch.setattr("pflx.runtime.generators.speaker_side.BlazeFace", StubDetector)
    portrait = bundle.parent / "me.png"
    Image.fromarray(portrait_of()).save(portrait)
    said = bench(bundle, "--portrait", portrait, "--duration", 2, "--samples", 2, "--threads", 1, "--floor", "hold").out
    assert [options["threads"] for options in opened] == [1] * 5
    assert "2 samples" in said
    assert "floor HOLD" in said
    assert "stub" not in said


def test_every_mode_prints_its_own_section(tmp_path: Path) -> None:
    for mode, section, duration in (
        ("single-stream", "service time", "0.2"),
        ("engine", "Graphs", "0.01"),
        ("sessions", "kept: 1 at once", "2"),
        ("soak", "Minutes", "2"),
    ):
        page = tmp_path / f"{mode}.html"
        said = bench("--stub", "--mode", mode, "--sessions", "1..1", "--duration", duration, "--html", page).out
        assert said.startswith(f"bench-latency, {mode}: stub")
        assert section in said, mode
        assert "</html>" in page.read_text(encoding="utf-8")


def test_the_generator_of_stubs_and_what_it_reads_of_the_speaker_can_be_chosen(tmp_path: Path) -> None:
    np.save(tmp_path / "speaker.npy", np.zeros((200, 25), np.float32))
    given = ("--kind", "belfusion", "--speaker-emotion", tmp_path / "speaker.npy")
    said = bench(*QUICK, *given).out
    assert "belfusion, PosNet, pirender 256 px: window 50, hop 50, lead 50" in said
    assert "emotion from speaker.npy" in said
    assert "history of 16 frames" in bench(*QUICK, "--kind", "transvae", "--history", 16).out


def test_a_graph_of_the_bundle_can_be_asserted_in_engine_mode(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pflx.runtime.bundle_engines.OrtEngine", lambda path, **_: open_fake(path))
    engine = ("--mode", "engine", "--duration", "0.01")
    bench(bundle, *engine, "--assert", "posnet_compute_p50_ms<=10000")
    assert "There is no figure 'posne_compute_p50_ms'" in refused(
        bundle.parent, bundle, *engine, "--assert", "posne_compute_p50_ms<=1"
    )


def test_the_self_test_needs_no_bundle_and_fails_where_the_harness_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = REPORT
    asked: list[str] = []

    def run(command: str) -> Report:
        asked.append(command)
        return report

    monkeypatch.setattr("pflx.runtime.bench.measure.self_test.run_self_test", run)
    assert "passed: the open loop is to see it" in bench("--self-test", "--json", tmp_path / "a.json").out
    assert asked[0] == f"pflx bench-latency --self-test --json {tmp_path / 'a.json'}"
    assert REPORT.self_test is not None
    report = replace(REPORT, self_test=replace(REPORT.self_test, passed=False))
    outcome = pflx("bench-latency", "--self-test")
    assert (outcome.code, outcome.err) == (1, "pflx: The self-test failed: see above.\n")
    assert "measures no bundle" in refused(tmp_path, tmp_path, "--self-test")


def test_what_cannot_be_judged_or_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    for module in ("realtime", "sessions", "engine", "single_stream", "soak", "self_test"):
        monkeypatch.setattr(f"pflx.runtime.bench.measure.{module}.describe_environment", never)
    bundle, lost = write_fake_bundle(tmp_path / "me.pflx"), tmp_path / "lost"
    (tmp_path / "a.json").write_text("{}")
    save_report(tmp_path / "good.json", REPORT)
    for arguments, said in (
        (("--assert", "dmrr<=1"), "There is no figure 'dmrr' to assert. Near it are dmr"),
        (("--assert", ""), "is no assertion"),
        (
            ("--compare", lost / "a.json"),
            f"{lost / 'a.json'} does not exist. Make one: pflx bench-latency ",
        ),
        (("--compare", tmp_path / "a.json"), "is no report of pflx bench-latency"),
        (("--json", lost / "a.json"), f"There is no folder {lost}"),
        (("--json", tmp_path / "a.html"), "does not end in .json. Try"),
        (("--html", tmp_path / "me.pflx"), "does not end in .html"),
        (("--html", tmp_path), "does not end in .html"),
        (("--trace", lost / "a.json"), f"There is no folder {lost}"),
        (("--trace", tmp_path / "b.json", "--json", tmp_path / "b.json"), "are one file"),
        (("--mode", "engine", "--trace", tmp_path / "b.json"), "only the modes realtime and single-stream leave"),
        (("--self-test", "--trace", tmp_path / "b.json"), "only the modes realtime and single-stream leave"),
        (("--sessions", "4"), "--sessions is '4'; write the fewest and the most, like 1..8."),
        (("--sessions", "3..2"), "--sessions is '3..2'"),
        (("--sessions", "0..2"), "--sessions is '0..2'"),
        (("--portrait", lost), f"{lost}"),
        (("--speaker", lost), f"{lost}"),
        (("--precision", "fp16"), "has no fp16 variant; it has fp32"),
        (("--kind", "belfusion"), "has a generator of its own. Leave out the kind 'belfusion'."),
        (("--steps", "5"), "steps is 5, and reactface takes no steps"),
        (("--speaker-emotion", lost / "a.npy"), f"{lost / 'a.npy'} does not exist"),
        (("--speaker-coefficients", lost), f"'{lost}' is no coefficients source"),
    ):
        assert said in refused(tmp_path, bundle, *arguments), arguments
    assert "There is no bundle to measure" in refused(tmp_path)
    assert f"{lost} does not exist" in refused(tmp_path, lost)
    assert "--kind is 'x'; give reactface, " in refused(tmp_path, "--stub", "--kind", "x", code=2)
    assert "--duration is 'nan'; give a number from 0.01 to 604800" in refused(
        tmp_path, bundle, "--duration", "nan", code=2
    )
    assert "--mode is 'turbo'" in refused(tmp_path, bundle, "--mode", "turbo", code=2)


def test_the_defaults_of_the_command_are_those_of_a_plan() -> None:
    given = {name: option.default for name, option in inspect.signature(bench_latency).parameters.items()}
    plan: dict[str, Any] = {field.name: field.default for field in fields(Plan)}
    for name in ("samples", "lookahead", "device", "seed", "stub"):
        assert given[name] == plan[name], name
    for name in ("playout_ms", "stale_ms"):
        assert given[name] == getattr(plan["live"], name), name
    assert Rung[given["floor"].name] is plan["live"].floor
    assert EngineSettings(*(given[name] for name in ("engine", "precision", "threads"))) == plan["engines"]
    assert [floor.name for floor in Floor] == [rung.name for rung in Rung]


def test_an_interrupted_run_ends_at_once_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pflx.runtime.bench.measure.single_stream.figures_of", interrupt)
    outcome = pflx("bench-latency", *QUICK, "--json", tmp_path / "a.json")
    assert (outcome.code, outcome.out) == (130, "")
    assert not any(tmp_path.iterdir())
