"""No verb writes over what it reads, or two things to one place, whichever options name it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support.commands import refusal

from pflx.cli import app
from pflx.cli.support import paths
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import OutputError

READS = {
    "demo": (),
    "doctor": (),
    "build": ("BUNDLE",),
    "inspect": ("BUNDLE",),
    "push": ("BUNDLE",),
    "live": (
        *("BUNDLE", "--portrait", "--speaker", "--foresight", "--speaker-coefficients", "--speaker-emotion"),
        "--person",
    ),
    "serve": (
        *("BUNDLES", "--portrait", "--certificate", "--key", "--speaker-emotion"),
        *("--turn-secret", "--turn-password", "--person"),
    ),
    "run": (
        *("SPEAKER", "--portrait", "--bundle", "--foresight", "--speaker-coefficients", "--speaker-emotion"),
        "--person",
    ),
    "batch": (
        "CLIPS",
        "--react",
        "--portrait",
        "--bundle",
        "--speaker-coefficients",
        "--speaker-emotion",
        "--person",
    ),
    "collect": ("FOLDER",),
    "export": ("--generator", "--posnet", "--renderer", "--mean-face", "--policy", "--person"),
    "person make": ("BUNDLE", "--person-encoder", "--modifier", "--clip", "--coefficients"),
    "person show": ("PERSON",),
    "crop": ("CLIPS",),
    "evaluate": (
        "PREDICTIONS",
        "--listener",
        "--speaker",
        "--neighbours",
        "--video",
        "--fid-network",
        "--real",
        "--vbench",
    ),
    "bench-latency": (
        *("BUNDLE", "--portrait", "--speaker", "--compare", "--speaker-coefficients", "--speaker-emotion"),
        "--person",
    ),
    "calibrate record": ("BUNDLE", "--speaker", "--portrait", "--speaker-coefficients", "--speaker-emotion"),
    "calibrate fp16": ("BUNDLE", "--feeds"),
    "calibrate bf16": ("BUNDLE", "--feeds"),
    "calibrate int8": ("BUNDLE", "--feeds"),
    "calibrate lookahead": ("BUNDLE", "--feeds", "--foresight"),
    "calibrate foresight": ("MOTION",),
    "calibrate posnet": ("MOTION",),
}
WRITES = {
    "demo": {"--output": ".mp4"},
    "push": {"--card-only": ".md"},
    "run": {"--output": ".mp4", "--coefficients": ".npz", "--trace": ".json"},
    "batch": {"--output": ""},
    "collect": {"--output": ".npz"},
    "export": {"--output": ".pflx"},
    "person make": {"--output": ".person"},
    "crop": {"--output": ""},
    "evaluate": {"--plot": ".png", "--json": ".json", "--output": ".md", "--vbench-folder": ""},
    "bench-latency": {"--json": ".json", "--html": ".html", "--trace": ".json"},
    "calibrate record": {"--output": ""},
    "calibrate fp16": {"--output": ".json", "--report": ".json", "--plot": ".png"},
    "calibrate bf16": {"--output": ".pflx", "--json": ".json"},
    "calibrate int8": {"--output": ".pflx", "--json": ".json", "--plot": ".png"},
    "calibrate lookahead": {"--json": ".json", "--plot": ".png"},
    "calibrate foresight": {"--output": ".npz", "--json": ".json"},
    "calibrate posnet": {"--output": ".safetensors", "--json": ".json"},
}
NEEDED = {"run": ("SPEAKER", "--portrait"), "export": (), "evaluate": ("PREDICTIONS",), "bench-latency": ()}
"""Of the verbs whose options are not all needed; the others are given all that they read."""
BESIDES = {"calibrate posnet": ("--slide", "8"), "push": ("me/listener", "--license", "mit")}

FILES = [
    (verb, read, write)
    for verb, writes in WRITES.items()
    for read in READS[verb]
    for write, suffix in writes.items()
    if suffix not in ("", ".pflx")
]
PAIRS = [
    (verb, one, other)
    for verb, writes in WRITES.items()
    for one in writes
    for other in writes
    if one < other and writes[one] == writes[other]
]


def verbs(commands: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Callable[..., object]]]:
    for command in commands.registered_commands:
        assert command.name is not None
        assert command.callback is not None
        yield prefix + command.name, command.callback
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        yield from verbs(group.typer_instance, f"{prefix}{group.name} ")


def names_a_file(annotation: Any) -> bool:
    told = " ".join(f"{info.help} {info.metavar}" for info in getattr(annotation, "__metadata__", ()))
    return "pathlib.Path" in str(annotation) or ".npy" in told or "FILE" in told


def argv(verb: str, given: dict[str, Path], folder: Path) -> list[str]:
    """The command with these options, and what it needs besides."""
    needed = {option: folder / f"other{index}" for index, option in enumerate(NEEDED.get(verb, READS[verb]))}
    needed |= {"--output": folder / f"new{WRITES[verb]['--output']}"} if "--output" in WRITES[verb] else {}
    words = verb.split()
    for option, path in (needed | given).items():
        words += [option, str(path)] if option.startswith("--") else [str(path)]
    return [*words, *BESIDES.get(verb, ())]


@pytest.mark.parametrize(("verb", "function"), list(verbs(app)))
def test_every_option_that_names_a_path_is_known_here(verb: str, function: Callable[..., object]) -> None:
    named = set()
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if names_a_file(parameter.annotation):
            is_argument = "ArgumentInfo" in str(parameter.annotation)
            named.add(name.upper() if is_argument else f"--{name.replace('_', '-')}")
    assert named == {*READS[verb], *WRITES.get(verb, {})}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(("verb", "read", "write"), FILES)
def test_what_is_read_is_not_written_over(tmp_path: Path, verb: str, read: str, write: str, linked: bool) -> None:
    given = output = tmp_path / f"given{WRITES[verb][write]}"
    given.write_bytes(b"years of work")
    if linked:
        output = tmp_path / f"link{given.suffix}"
        output.symlink_to(given)
    said = refusal(*argv(verb, {read: given, write: output}, tmp_path))
    assert said == (
        f"pflx: {write} {output} is {read} {given}, which would be replaced. Choose another place for {write}."
    )
    assert given.read_bytes() == b"years of work"


@pytest.mark.parametrize(("verb", "one", "other"), PAIRS)
def test_two_outputs_are_two_files(tmp_path: Path, verb: str, one: str, other: str) -> None:
    path = tmp_path / f"out{WRITES[verb][one]}"
    (tmp_path / "here").symlink_to(tmp_path)
    said = refusal(*argv(verb, {one: path, other: tmp_path / "here" / path.name}, tmp_path))
    assert f"{path} and " in said or f" and {other} {path}" in said or f" and {one} {path}" in said
    assert one in said
    assert other in said
    assert "are one file" in said


@pytest.mark.parametrize("sample", [0, 1])
def test_a_numbered_output_is_compared_by_its_number(tmp_path: Path, sample: int) -> None:
    clip = tmp_path / f"clip-{sample}.mp4"
    clip.write_bytes(b"years of work")
    said = refusal("run", clip, "-p", "me.png", "-o", tmp_path / "clip.mp4", "--samples", 2)
    assert f"--output {clip} is SPEAKER {clip}, which would be replaced" in said
    assert clip.read_bytes() == b"years of work"


def test_what_a_bundle_holds_is_no_place_to_write_to(tmp_path: Path) -> None:
    manifest = tmp_path / "me.pflx" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_bytes(b"{}")
    for verb in ("bench-latency", "calibrate lookahead"):
        said = refusal(*argv(verb, {"BUNDLE": manifest.parent, "--json": manifest}, tmp_path))
        assert f"--json {manifest} lies in BUNDLE {manifest.parent}, which would be changed" in said
    said = refusal("calibrate", "record", manifest.parent, "-s", "a.mp4", "-p", "me.png", "-o", manifest.parent / "new")
    assert "--output" in said
    assert "which would be changed" in said
    said = refusal("export", "-o", manifest.parent, "--overwrite", "--policy", manifest)
    assert f"--policy {manifest} lies in --output {manifest.parent}, which is replaced" in said
    assert manifest.read_bytes() == b"{}"


def test_one_file_is_known_by_any_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "given.json").write_bytes(b"{}")
    os.link(tmp_path / "given.json", tmp_path / "hard.json")
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "soft.json").symlink_to("none.json")
    given, none = tmp_path / "given.json", tmp_path / "none.json"
    for read, write in (
        (given, tmp_path / "hard.json"),
        (given, tmp_path / "folder" / "given.json"),
        (given, Path(os.path.relpath(given))),
        (none, tmp_path / "soft.json"),
        (none, tmp_path / "folder" / "none.json"),
    ):
        with pytest.raises(OutputError, match=r"is X .*, which would be replaced"):
            check_apart(reads={"X": read}, writes={"--y": write})
    check_apart(reads={"X": tmp_path / "given.json"}, writes={"--y": tmp_path / "new.json", "--z": None})
    check_apart(reads={"X": ["a", tmp_path / "lost" / "a"]}, writes={"--y": [tmp_path / "a", tmp_path / "b"]})


@pytest.mark.parametrize("name", ["OUT.json", "out.JSON"])
def test_names_that_differ_in_case_are_one_file_where_the_folder_ignores_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    outputs = {"--y": tmp_path / "out.json", "--z": tmp_path / name}
    if not paths._ignores_case(tmp_path):
        check_apart(reads={}, writes=outputs)
        monkeypatch.setattr(paths, "_ignores_case", lambda folder: True)
    with pytest.raises(OutputError, match="are one file"):
        check_apart(reads={}, writes=outputs)
    assert not list(tmp_path.iterdir())


def test_a_place_that_takes_no_file_is_refused_before_the_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "null.json").symlink_to("/dev/null")
    (tmp_path / "lost.json").symlink_to(tmp_path / "none" / "a.json")
    (tmp_path / "disk").mkdir()
    (tmp_path / "there.json").symlink_to("disk/a.json")
    for name, said in (("pipe", "a device or a pipe"), ("null", "a device or a pipe"), ("lost", "There is no folder")):
        with pytest.raises(OutputError, match=said):
            check_output(tmp_path / f"{name}.json", ".json")
    check_output(tmp_path / "there.json", ".json")
