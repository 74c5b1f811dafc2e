"""Writes the table of docs/benchmarks.md from benchmarks/results: every figure stands there as it was measured.

python tools/figures.py        a test holds the page to the JSON files
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks/results", ROOT / "docs/benchmarks.md"
_TABLE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end -->)", re.DOTALL)
_NUMBER = "{:.3g}"

Json = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One row: what was measured, in which file, and beside what in the same run.

    Attributes:
        what: in words.
        file: name in benchmarks/results, without suffix.
        value: reads it.
        beside: reads what it is compared with, in words; nothing where it stands alone.
        ratio: reads the ratios of least times and of rounds.
    """

    what: str
    file: str
    value: Callable[[Json], str]
    beside: Callable[[Json], str] = lambda _: ""
    ratio: Callable[[Json], str] = lambda _: ""


def ms(found: Json) -> str:
    """Least and median of some runs."""
    return f"{_short(found['min_ms'])} / {_short(found['median_ms'])} ms"


def ratios(found: Json) -> str:
    """Of the least times, and the median over rounds."""
    return f"{found['of_minima']:.2f} / {found['median_of_rounds']:.2f}"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else _NUMBER.format(number)


def _quantile(found: Json, name: str) -> str:
    return _short(found[name]["value"])


def _int8(found: Json) -> Json:
    made: Json = found["pirender_256_one_frame"][found["fastest_admitted"]["variant"]]
    return made


def _start(found: Json, when: str, name: str) -> str:
    figure = found[when][name]
    return f"{figure['min']} / {figure['median']}"


def _eight(found: Json, checkout: str) -> str:
    seen, heard = (
        next(row for row in found[speaker][checkout] if row["sessions"] == 8) for speaker in ("seen", "heard")
    )
    costs = f"{seen['cpu_ms_per_frame']} / {heard['cpu_ms_per_frame']} ms"
    return f"{costs}; {seen['missed']:.0%} / {heard['missed']:.0%}"


def _each_missed(found: Json, speaker: str) -> str:
    return ", ".join(f"{row['sessions']}: {row['missed']:.2%}" for row in found[speaker]["here"])


FIGURES = (
    Figure(
        "one frame of the weightless renderer, 256², one thread",
        "warp",
        lambda found: ms(found["costs"]["picture of 256 px, painted"]),
        lambda found: f"{ms(found['costs']['picture of 256 px, by the graph alone'])}, all of it by ONNX Runtime",
        lambda found: ratios(found["costs"]["256 px, painted to by the graph alone"]),
    ),
    Figure(
        "eight live sessions of it with the backchannel listener on two cores, speakers seen / heard alone, 12 s at an "
        "hour when all was a fifth slower: CPU of a frame, begin included; frames missed",
        "sessions_cpu",
        lambda found: _eight(found, "here"),
        lambda found: f"{_eight(found, 'there')}, when OpenCV shared each picture out among the cores",
    ),
    Figure(
        "the same for a minute at that hour, so many at once who are seen / heard: frames missed",
        "sessions_minute",
        lambda found: f"{_each_missed(found, 'seen')} / {_each_missed(found, 'heard')}",
    ),
    Figure(
        "a visitor of `pflx serve` with it, seen and heard: share of a core; until the first picture, p50 / p95",
        "visitors",
        lambda found: "{:.0%}, {} / {} ms".format(
            found["rows"][0]["cpu_s_per_session_s"], *(found["rows"][0]["join_ms"][name] for name in ("p50", "p95"))
        ),
    ),
    Figure(
        "a process that begins it, to its first picture; CPU time",
        "start",
        lambda found: f"{_start(found, 'now', 'first_picture_s')} s; {_start(found, 'now', 'cpu_s')} s",
        lambda found: (
            f"{_start(found, 'earlier', 'first_picture_s')} s; {_start(found, 'earlier', 'cpu_s')} s, both graphs "
            "of its pictures opened, one lid for all"
        ),
    ),
    Figure(
        "memory of that process then, libraries it shares with others included",
        "start",
        lambda found: f"{_start(found, 'now', 'resident_mb')} MB",
        lambda found: f"{_start(found, 'earlier', 'resident_mb')} MB, kept by small graphs between calls",
    ),
    Figure(
        "a live session of it with the backchannel listener, 10 minutes at 25 fps: frames that missed their deadline",
        "latency_backchannel",
        lambda found: f"{found['figures']['missed']:,} of {found['figures']['frames']:,}",
    ),
    Figure(
        "its reaction to a speaker's event, p50 / p99; 100 ms of it are playout delay",
        "latency_backchannel",
        lambda found: "{} / {} ms".format(*(_quantile(found["reaction"]["latency"], name) for name in ("p50", "p99"))),
    ),
    Figure(
        "one PIRender frame, 256², exported, two threads",
        "networks_cpu",
        lambda found: ms(found["pirender_256_one_frame"]["deploy"]),
        lambda found: f"{ms(found['pirender_256_one_frame']['eager_as_released'])}, eager PyTorch as released",
        lambda found: ratios(found["pirender_256_one_frame"]["deploy_to_eager_as_released"]),
    ),
    Figure(
        "the same in INT8 and bf16 on OpenVINO, as far as the pictures bear it",
        "quantised_cpu",
        lambda found: ms(_int8(found)),
        lambda found: f"{ms(found['pirender_256_one_frame']['eager, as released'])}, eager PyTorch as released",
        lambda found: ratios(_int8(found)["to_eager"]),
    ),
    Figure(
        "the same with Winograd convolutions (MNN), an experiment: fewer colour values stay the same",
        "winograd_cpu",
        lambda found: ms(found["mnn"]),
        lambda found: f"{ms(found['onnx_runtime'])}, ONNX Runtime",
        lambda found: ratios(found["mnn_to_onnx_runtime"]),
    ),
    Figure(
        "one ReactFace step (8 frames), exported",
        "networks_cpu",
        lambda found: ms(found["reactface_step"]["deploy"]),
        lambda found: f"{ms(found['reactface_step']['eager'])}, eager PyTorch",
        lambda found: ratios(found["reactface_step"]["deploy_to_eager"]),
    ),
    Figure(
        "one PerFRDiff window (a second of listener, 49 steps), exported",
        "perfrdiff",
        lambda found: ms(found["one_window"]["deploy"]),
        lambda found: f"{ms(found['one_window']['eager'])}, eager PyTorch as published, 50 guided calls",
        lambda found: ratios(found["deploy_to_eager"]),
    ),
    Figure(
        "a whole hop of the stream, PIRender and ReactFace",
        "stream_cpu",
        lambda found: ms(found["hop"]["whole_ms"]),
        lambda found: f"{ms(found['hop']['engines_ms'])}, its engine calls alone",
        lambda found: f"{found['hop']['whole_to_engines_median']} (median of hops)",
    ),
    Figure(
        "`import pflx.runtime`",
        "stream_cpu",
        lambda found: ms(found["start_up"]["import_pflx_runtime"]),
    ),
)


def table() -> str:
    """The rows, and the machines they were taken on."""
    hosts: dict[str, str] = {}
    lines = ["| what | figure | beside it, in the same run | ratio | machine | file |", "|---|---|---|---|---|---|"]
    for figure in FIGURES:
        found = json.loads((RESULTS / f"{figure.file}.json").read_text())
        letter = hosts.setdefault(_host(found), chr(ord("A") + len(hosts)))
        cells = (
            figure.what,
            figure.value(found),
            figure.beside(found),
            figure.ratio(found),
            letter,
            f"`{figure.file}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {letter}: {host}" for host, letter in hosts.items()), ""])


def _host(found: Json) -> str:
    """What tells one machine from another, as far as the file says."""
    machine = found.get("machine") or found["environment"]
    cores = machine.get("logical_cpus") or machine["threads_of_machine"]
    return f"{machine['cpu']}, {cores} logical cores, {machine.get('system') or machine.get('os')}"


def stated() -> Iterator[str]:
    """Every figure as it is written."""
    for figure in FIGURES:
        yield figure.value(json.loads((RESULTS / f"{figure.file}.json").read_text()))


def main() -> None:
    """Write the table."""
    PAGE.write_text(_TABLE.sub(lambda _: table(), PAGE.read_text()))


if __name__ == "__main__":
    main()
