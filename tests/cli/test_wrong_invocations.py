"""Wrong invocations, and the exact line that answers each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from support.commands import pflx, refusal
from support.fakes import portrait_of, write_fake_bundle

from pflx import __version__
from pflx.cli import app
from pflx.cli.support import options
from pflx.cli.support.usage import EXAMPLES, CommandLineError, taken_by
from pflx.engines import FeedError
from pflx.engines.graphs.threads import most_threads
from pflx.runtime import LiveSettings
from pflx.runtime.frames.coefficients import MOST_SAMPLES
from pflx.runtime.media.video_writer import VideoWriter

MISTYPED = {
    "exprot -o me.pflx": "pflx has no command 'exprot'. Did you mean `pflx export`?",
    "bench me.pflx": "pflx has no command 'bench'. Did you mean `pflx bench-latency`?",
    "benchlatency": "pflx has no command 'benchlatency'. Did you mean `pflx bench-latency`?",
    "record me.pflx": "pflx has no command 'record'. Did you mean `pflx calibrate record`?",
    "int8": "pflx has no command 'int8'. Did you mean `pflx calibrate int8`?",
    "posnet": "pflx has no command 'posnet'. Did you mean `pflx calibrate posnet`?",
    "inspcet me.pflx": "pflx has no command 'inspcet'. Did you mean `pflx inspect`?",
    "calibrate recrod": "pflx calibrate has no command 'recrod'. Did you mean `pflx calibrate record`?",
    "calibrate lookahaed": "pflx calibrate has no command 'lookahaed'. Did you mean `pflx calibrate lookahead`?",
    "person mak": "pflx person has no command 'mak'. Did you mean `pflx person make`?",
    "person me.pflx --clip me.mp4 -o me.person": "pflx person has no command 'me.pflx'. It has make and show.",
    "persn make": "pflx has no command 'persn'. Did you mean `pflx person`?",
    "bnech me.pflx": "pflx has no command 'bnech'. Did you mean `pflx bench-latency`?",
    "persno me.pflx": "pflx has no command 'persno'. Did you mean `pflx person`?",
    "crpo clips": "pflx has no command 'crpo'. Did you mean `pflx crop`?",
    "psuh me.pflx": "pflx has no command 'psuh'. Did you mean `pflx push`?",
    "clollect reactions": "pflx has no command 'clollect'. Did you mean `pflx collect`?",
    "version": "pflx has no command 'version'. Did you mean `pflx --version`?",
    "help": "pflx has no command 'help'. Did you mean `pflx --help`?",
    "-v": (
        "pflx needs a command: demo, export, build, inspect, push, run, batch, collect, live, serve, "
        "bench-latency, crop, evaluate, doctor, person or calibrate."
    ),
    "--verison": "pflx has no option --verison. Did you mean --version?",
    "-x": "pflx has no option -x. See `pflx --help`.",
    "run": "pflx run needs SPEAKER and --portrait. For example: pflx run speaker.mp4 -p me.png",
    "run speaker.mp4": "pflx run needs --portrait. For example: pflx run speaker.mp4 -p me.png",
    "run -p me.png": "pflx run needs SPEAKER. For example: pflx run speaker.mp4 -p me.png",
    "batch clips": "pflx batch needs --output. For example: pflx batch clips -o reactions",
    "collect reactions": "pflx collect needs --output. For example: pflx collect reactions -o pred.npz",
    "batch clips -o out --workers 0": "--workers is '0'; give a whole number, 1 or more.",
    "run speaker.mp4 -p": "-p needs a value. See `pflx run --help`.",
    "run speaker.mp4 -p me.png extra": "pflx run has no place for 'extra'. For example: pflx run speaker.mp4 -p me.png",
    "run speaker.mp4 me.pflx -p me.png": "'me.pflx' stands where nothing does. Give it as --bundle me.pflx",
    "run speaker.mp4 me.png": "'me.png' stands where nothing does. Give it as --portrait me.png",
    "run speaker.mp4 -b me.png -p me.pflx": (
        "--bundle me.png and --portrait me.pflx are swapped. Give --bundle me.pflx --portrait me.png"
    ),
    "run speaker.mp4 -b me.png": "--bundle is me.png, a picture. Give it as --portrait me.png",
    "run speaker.mp4 -p me.pflx": "--portrait is me.pflx, a bundle. Give it as --bundle, and a picture as --portrait.",
    "run speaker.mp4 -p me.png --portriat me.png": "pflx run has no option --portriat. Did you mean --portrait?",
    "run speaker.mp4 -p me.png --lookahead 14": "--lookahead is '14'; give a whole number from 0 to 13.",
    "run speaker.mp4 -p me.png --lookahead -1": "--lookahead is '-1'; give a whole number from 0 to 13.",
    "run speaker.mp4 -p me.png --samples 0": "--samples is '0'; give a whole number from 1 to 100.",
    "run speaker.mp4 -p me.png --samples two": "--samples is 'two'; give a whole number from 1 to 100.",
    "run speaker.mp4 -p me.png --samples 1.5": "--samples is '1.5'; give a whole number from 1 to 100.",
    "run speaker.mp4 -p me.png --samples 1000000000": ("--samples is '1000000000'; give a whole number from 1 to 100."),
    "run speaker.mp4 -p me.png --duration 0": "--duration is '0'; give a number, 0.04 or more.",
    "run speaker.mp4 -p me.png --seed -1": "--seed is '-1'; give a whole number, 0 or more.",
    "run speaker.mp4 -p me.png --threads 0": "--threads is '0'; give a whole number from 1 to {most}.",
    "run speaker.mp4 -p me.png --threads 100000": "--threads is '100000'; give a whole number from 1 to {most}.",
    "run speaker.mp4 -p me.png --renderer wrap": "--renderer is 'wrap'; give pirender or warp. Did you mean warp?",
    "run speaker.mp4 -p me.png --engine onnx": (
        "--engine is 'onnx'; give onnxruntime, openvino, tensorrt or tensorrt-rtx. Did you mean onnxruntime?"
    ),
    "run speaker.mp4 -p me.png --solver dpm": "--solver is 'dpm'; give ddim or dpm++. Did you mean dpm++?",
    "run speaker.mp4 -p me.png --steps 0": "--steps is '0'; give a whole number, 1 or more.",
    "run speaker.mp4 -p me.png --crop floting": (
        "--crop is 'floting'; give pfl, release, paper or floating. Did you mean floating?"
    ),
    "run speaker.mp4 -p me.png --generator-history raw": "--generator-history is 'raw'; give generated or adjusted.",
    "run speaker.mp4 -p me.png --without-posnet=yes": "--without-posnet takes no value. See `pflx run --help`.",
    "run speaker.mp4 -p me.png --without-posent": (
        "pflx run has no option --without-posent. Did you mean --without-posnet?"
    ),
    "batch clips -o out --crop nose": "--crop is 'nose'; give pfl, release, paper or floating.",
    "run speaker.mp4 -p me.png --duration inf": "--duration is 'inf'; give a number, 0.04 or more.",
    "run speaker.mp4 -p me.png --side-by-side=yes": "--side-by-side takes no value. See `pflx run --help`.",
    "run https://me.example/speaker.mp4 -p me.png": (
        "SPEAKER is https://me.example/speaker.mp4, an address; pflx reads files. Download it, and give the path."
    ),
    "run file:///home/me/my%20clip.mp4 -p me.png": (
        "SPEAKER is file:///home/me/my%20clip.mp4, an address; pflx reads files. Give the path: /home/me/my clip.mp4"
    ),
    "run speaker.mp4 -p https://me.example/me.png": (
        "--portrait is https://me.example/me.png, an address; pflx reads files. Download it, and give the path."
    ),
    "run speaker.mp4 -p me.png -b s3://models/me.pflx": (
        "--bundle is s3://models/me.pflx, an address; pflx reads files. Download it, and give the path."
    ),
    "run speaker.mp4 -p me.png --speaker-emotion http://me.example/emotion.npy": (
        "--speaker-emotion is http://me.example/emotion.npy, an address; pflx reads files. Download it, and "
        "give the path."
    ),
    "inspect": "pflx inspect needs BUNDLE. For example: pflx inspect me.pflx",
    "inspect me.pflx me.pflx": "pflx inspect has no place for 'me.pflx'. For example: pflx inspect me.pflx",
    "inspect me.pflx --jsno": "pflx inspect has no option --jsno. Did you mean --json?",
    "push me.pflx": "pflx push needs REPO and --license. For example: pflx push me.pflx ORG/NAME --license mit",
    "inspect ftp://me.example/me.pflx": (
        "BUNDLE is ftp://me.example/me.pflx, an address; pflx reads files. Download it, and give the path."
    ),
    "run hf://me/listener -p me.png": (
        "SPEAKER is hf://me/listener, an address; pflx reads files. Download it, and give the path."
    ),
    "build": "pflx build needs BUNDLE. For example: pflx build me.pflx",
    "build me.pflx --engine tensort": "--engine is 'tensort'; give tensorrt or tensorrt-rtx. Did you mean tensorrt?",
    "build me.pflx --engine openvino": "--engine is 'openvino'; give tensorrt or tensorrt-rtx.",
    "live": "pflx live needs --portrait. For example: pflx live -p me.png",
    "live me.png": "BUNDLE is me.png, a picture. Give it as --portrait me.png",
    "live me.pflx": "pflx live needs --portrait. For example: pflx live -p me.png",
    "live me.png -p me.pflx": "BUNDLE me.png and --portrait me.pflx are swapped. Give me.pflx --portrait me.png",
    "live -p me.png --playout -5": "--playout is '-5'; give a number from 0 to 10000.",
    "live -p me.png --duration nan": "--duration is 'nan'; give a number, 0.04 or more.",
    "serve -p me.pflx": "--portrait is me.pflx, a bundle. Give it without -p, and a picture as --portrait.",
    "serve -p me.png --port 70000": "--port is '70000'; give a whole number from 0 to 65535.",
    "serve -p me.png --port http": "--port is 'http'; give a whole number from 0 to 65535.",
    "serve -p me.png --max-samples 5": "--max-samples is '5'; give a whole number from 1 to 4.",
    "serve -p me.png --playout-ms 1001": "--playout-ms is '1001'; give a number from 0 to 1000.",
    "export": "pflx export needs --output. For example: pflx export -o me.pflx",
    "export --kind reactface": "pflx export needs --output. For example: pflx export -o me.pflx",
    "export -o new.pflx --kind reactfase --untrained 0": (
        "--kind is 'reactfase'; give reactface, perfrdiff, transvae, belfusion or backchannel. Did you mean reactface?"
    ),
    "export -o new.pflx --precision fp61": "--precision is 'fp61'; give fp32 or fp16. Did you mean fp16?",
    "export -o new.pflx --untrained -1": "--untrained is '-1'; give a whole number, 0 or more.",
    "export -o new.pflx --untrained many": "--untrained is 'many'; give a whole number, 0 or more.",
    "export -o new.pflx --window 0": "--window is '0'; give a whole number, 1 or more.",
    "export -o new.pflx --mfcc-range 1": "--mfcc-range needs 2 values. See `pflx export --help`.",
    "export -o new.pflx --mfcc-range 1 nan": "--mfcc-range is 'nan'; give a number.",
    "export -o new.pflx --size big": "--size is 'big'; give a whole number from 64 to 1024.",
    "export -o new.pflx --mean-face https://me.example/mean_face.npy": (
        "--mean-face is https://me.example/mean_face.npy, an address; pflx reads files. Download it, and give the path."
    ),
    "export -o new.pflx --posnet https://me.example/posnet.pth": (
        "--posnet is https://me.example/posnet.pth, an address; pflx reads files. Download it, and give the path."
    ),
    "bench-latency --mode realtme --stub": (
        "--mode is 'realtme'; give realtime, single-stream, engine, sessions or soak. Did you mean realtime?"
    ),
    "bench-latency --stub --kind perfdiff": (
        "--kind is 'perfdiff'; give reactface, perfrdiff, transvae, belfusion or backchannel. Did you mean perfrdiff?"
    ),
    "bench-latency --stub --floor ful": (
        "--floor is 'ful'; give full, fewer-steps, half-rate, warped or hold. Did you mean full?"
    ),
    "bench-latency --stub --playout-ms nan": "--playout-ms is 'nan'; give a number from 0 to 10000.",
    "bench-latency me.png -p me.pflx": (
        "BUNDLE me.png and --portrait me.pflx are swapped. Give me.pflx --portrait me.png"
    ),
    "person make me.pflx --clip me.mp4 -o me.person": (
        "pflx person make needs --person-encoder and --modifier. For example: pflx person make me.pflx --clip me.mp4 "
        "--person-encoder encoder.pth --modifier modifier.pth -o me.person"
    ),
    "person make me.pflx --clip me.mp4 --person-encoder a --modifier b -o me.person --mode offest": (
        "--mode is 'offest'; give shift, offset or weight. Did you mean offset?"
    ),
    "person show": "pflx person show needs PERSON. For example: pflx person show me.person",
    "crop clips -o crops --window 1000000000": "--window is '1000000000'; give a whole number from 1 to 8192.",
    "crop clips -o crops --duration -1": "--duration is '-1'; give a number, 0.04 or more.",
    "bench-latency --stub --duration 1e9": "--duration is '1e9'; give a number from 0.01 to 604800.",
    "live -p me.png --playout 1e9": "--playout is '1e9'; give a number from 0 to 10000.",
    "serve -p me.png --max-load 0": "--max-load is '0'; give a number, 0.01 or more.",
    "calibrate posnet run.npz --slide 8 -o a.safetensors --momentum -1": (
        "--momentum is '-1'; give a number from 0 to 0.999."
    ),
    "crop clips": "pflx crop needs --output. For example: pflx crop clips -o crops",
    "crop clips -o crops --pfl floting": (
        "--pfl is 'floting'; give release, paper or floating. Did you mean floating?"
    ),
    "crop clips -o crops --size 8": "--size is '8'; give a whole number from 16 to 4096.",
    "evaluate": "pflx evaluate needs PREDICTIONS. For example: pflx evaluate run.npz",
    "evaluate https://me.example/run.npz": (
        "PREDICTIONS is https://me.example/run.npz, an address; pflx reads files. Download it, and give the path."
    ),
    "evaluate run.npz --hop 0": "--hop is '0'; give a whole number, 1 or more.",
    "calibrate record": (
        "pflx calibrate record needs BUNDLE, --speaker, --portrait and --output. For example: pflx calibrate "
        "record me.pflx --speaker speaker.mp4 -p me.png -o feeds"
    ),
    "calibrate record me.pflx --speaker speaker.mp4 -p me.png": (
        "pflx calibrate record needs --output. For example: pflx calibrate record me.pflx --speaker "
        "speaker.mp4 -p me.png -o feeds"
    ),
    "calibrate record me.png --speaker speaker.mp4 -p me.pflx -o feeds": (
        "BUNDLE me.png and --portrait me.pflx are swapped. Give me.pflx --portrait me.png"
    ),
    "calibrate record me.pflx -s speaker.mp4 -p me.png -o feeds --limit 0": (
        "--limit is '0'; give a whole number, 1 or more."
    ),
    "calibrate record me.pflx -s speaker.mp4 -p me.png -o feeds --threads 5000": (
        "--threads is '5000'; give a whole number from 1 to {most}."
    ),
    "calibrate fp16 me.pflx": (
        "pflx calibrate fp16 needs --feeds and --output. For example: pflx calibrate fp16 me.pflx --feeds "
        "feeds -o policy.json"
    ),
    "calibrate fp16 me.pflx -f feeds -o policy.json --ssim 2": "--ssim is '2'; give a number from 0 to 1.",
    "calibrate fp16 me.pflx -f feeds -o policy.json --trials 1": "--trials is '1'; give a whole number, 2 or more.",
    "calibrate int8 me.pflx": (
        "pflx calibrate int8 needs --feeds. For example: pflx calibrate int8 me.pflx --feeds feeds"
    ),
    "calibrate int8 me.pflx -f feeds --engine openvin": (
        "--engine is 'openvin'; give openvino, onnxruntime or tensorrt. Did you mean openvino?"
    ),
    "calibrate posnet": (
        "pflx calibrate posnet needs MOTION, --slide and --output. For example: pflx calibrate posnet "
        "run.npz --slide 8 -o posnet.safetensors"
    ),
    "calibrate posnet run.npz --slide eight -o a.safetensors": "--slide is 'eight'; give a whole number, 4 or more.",
    "calibrate posnet run.npz --slide 8 -o a.safetensors --optimizer adan": (
        "--optimizer is 'adan'; give adam or sgd. Did you mean adam?"
    ),
    "doctor now": "pflx doctor has no place for 'now'. For example: pflx doctor",
}
"""Typed wrong: exit code 2, and nothing was opened."""

IMPOSSIBLE = {
    "batch clips -o out --workers 100000": "workers is 100000; give 1 to {most} on this machine.",
    "run speaker.mp4 -p me.png --trace trace.txt": "trace.txt does not end in .json. Try trace.json.",
    "run none.mp4 -p me.png -o out.avi": "out.avi does not end in .mp4. Try out.mp4.",
    "run none.mp4 -p me.png -o none/out.mp4": "There is no folder none. Make it, or choose another place.",
    "run none.mp4 -p me.png": "none.mp4 does not exist. Check the path.",
    "run folder -p me.png": "folder is a folder. Give a video file.",
    "run text.txt -p me.png": "text.txt is text, no clip. Give a clip of the speaker.",
    "run speaker.mp4 -p none.png": "none.png does not exist. Check the path.",
    "run speaker.mp4 -p text.txt": (
        "text.txt is no picture that can be read: it is of no format that is known here. Save it as JPEG, PNG or WebP, "
        "and give that."
    ),
    "run speaker.mp4 -p me.png -b none.pflx": "none.pflx does not exist. Make one: pflx export -o none.pflx",
    "run speaker.mp4 -p me.png -b folder": (
        "folder is no bundle: it has no manifest.json. Make one: pflx export -o folder.pflx"
    ),
    "run speaker.mp4 -p me.png -b me": "me does not exist. Did you mean me.pflx?",
    "run speaker.mp4 -p me.png -b text.txt": "text.txt is a file; a bundle is a folder. Check the path.",
    "run speaker.mp4 -p me.png -b none/me.pflx": "none/me.pflx does not exist. Check the path.",
    "run speaker.mp4 -p me.png --generator-history adjusted": (
        "generator_history is 'adjusted', and this backchannel does not look back on what it made. Leave it out."
    ),
    "inspect me.png": "me.png is a file; a bundle is a folder. Did you mean me.pflx?",
    "inspect none": "none does not exist. Make one: pflx export -o none.pflx",
    "inspect folder": "folder is no bundle: it has no manifest.json. Make one: pflx export -o folder.pflx",
    "build none.pflx": "none.pflx does not exist. Make one: pflx export -o none.pflx",
    "serve -p me.png --certificate none.pem --key none.pem": "none.pem does not exist. Check the path.",
    "export -o me.png": "A bundle's name ends in .pflx, 'me.png' does not. Try me.png.pflx.",
    "export -o out": "A bundle's name ends in .pflx, 'out' does not. Try out.pflx.",
    "export -o none/new.pflx": "none is no folder. Make it, or write new.pflx elsewhere.",
    "export -o me.pflx": "me.pflx exists. Give another name, or replace it with --overwrite.",
    "export -o text.pflx --overwrite": "text.pflx is no bundle, and is not replaced. Remove it, or give another name.",
    "export -o new.pflx --mean-face none.npy": "Mean face none.npy does not exist. Give a .npy file, zero or upright.",
    "person show none.person": "none.person does not exist. Check the path.",
    "person make me.pflx --clip me.mp4 --person-encoder a --modifier b -o me.txt": (
        "me.txt does not end in .person. Try me.person."
    ),
    "bench-latency --stub --sessions 3..2": "--sessions is '3..2'; write the fewest and the most, like 1..8.",
    "bench-latency --compare none.json --stub": (
        "none.json does not exist. Make one: pflx bench-latency BUNDLE --json none.json"
    ),
    "evaluate none.npz": "none.npz does not exist. Check the path.",
    "calibrate lookahead me.pflx -f none": (
        "none does not exist. Record some: pflx calibrate record BUNDLE --speaker CLIP --portrait PICTURE -o none"
    ),
    "calibrate lookahead me.pflx -f folder": (
        "folder holds no recorded feeds: it has no feeds.json. Record some: pflx calibrate record BUNDLE "
        "--speaker CLIP --portrait PICTURE -o folder"
    ),
}
"""Typed right, and there is no such thing: exit code 1."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, a portrait, a clip, and things that are none of these."""
    folder = tmp_path_factory.mktemp("place")
    write_fake_bundle(folder / "me.pflx")
    Image.fromarray(portrait_of()).save(folder / "me.png")
    with VideoWriter(folder / "speaker.mp4", size=(64, 48), audio=False) as writer:
        writer.write(np.zeros((10, 48, 64, 3), np.uint8))
    (folder / "text.txt").write_text("words")
    (folder / "text.pflx").write_text("words")
    (folder / "folder").mkdir()
    (folder / "clips").mkdir()
    shutil.copy(folder / "speaker.mp4", folder / "clips")
    return folder


@pytest.mark.parametrize(
    ("line", "said", "code"),
    [(line, said, code) for code, lines in ((2, MISTYPED), (1, IMPOSSIBLE)) for line, said in lines.items()],
)
def test_a_wrong_invocation_is_answered_by_one_exact_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str, code: int
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    assert refusal(*line.split(), code=code) == f"pflx: {said.replace('{most}', str(most_threads()))}"
    assert sorted(place.rglob("*")) == before


def test_the_table_has_at_least_sixty_rows() -> None:
    assert len(MISTYPED) + len(IMPOSSIBLE) >= 60


def verbs(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


MAY_BE_BELOW_NOTHING = {"--mfcc-range"}


def test_advice_is_a_command_that_works_whatever_the_name_of_the_file() -> None:
    swapped = refusal("run", "speaker.mp4", "-b", "my face.png", "-p", "my own.pflx", code=2)
    assert swapped.endswith("are swapped. Give --bundle 'my own.pflx' --portrait 'my face.png'")


def numeric_options() -> Iterator[tuple[str, str]]:
    """Verb and option, of each option that takes a number."""
    for name, verb in verbs(typer.main.get_command(app)):
        takes = taken_by(verb)
        for param in verb.params:
            if param.param_type_name == "option" and param.name in takes and takes[param.name].kind in (int, float):
                yield name, max(param.opts, key=len)


@pytest.mark.parametrize(("name", "option"), [*numeric_options()])
@pytest.mark.parametrize("value", ["-1", "nan"])
def test_a_number_that_cannot_be_meant_is_refused_with_what_can(name: str, option: str, value: str) -> None:
    if option in MAY_BE_BELOW_NOTHING:
        return
    verb, words = dict(verbs(typer.main.get_command(app)))[name], EXAMPLES[name].split()
    if option in words:
        del words[words.index(option) : words.index(option) + 2]
    with pytest.raises(CommandLineError) as refused:
        verb.make_context(f"pflx {name}", [*words, option, value])
    assert re.fullmatch(rf"{option} is '{value}'; give a (whole )?number(,| from) \d.*", str(refused.value))


def test_there_are_numbers_among_the_options() -> None:
    assert {("run", "--samples"), ("serve", "--drain"), ("calibrate posnet", "--lr")} <= {*numeric_options()}


def test_the_most_that_options_take_is_the_most_that_the_runtime_takes() -> None:
    assert options.MOST_SAMPLES == MOST_SAMPLES
    assert LiveSettings(playout_ms=options.MOST_PLAYOUT_MS)
    with pytest.raises(FeedError, match="playout_ms is 10001; give 10000 milliseconds at most"):
        LiveSettings(playout_ms=options.MOST_PLAYOUT_MS + 1)


@pytest.mark.parametrize("verb", ["", "run", "serve", "bench-latency", "calibrate posnet"])
def test_help_names_every_option_in_full_on_a_narrow_terminal(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = pflx(*verb.split(), "-h").out
    app_itself = typer.main.get_command(app)
    params = {"": app_itself, **dict(verbs(app_itself))}[verb].params
    options = [option for param in params if param.param_type_name == "option" for option in param.opts]
    assert [option for option in options if option not in shown] == []
    assert [line for line in shown.splitlines() if len(line) > 40 and not line.strip().startswith("-")] == []


def test_every_verb_has_an_example_that_would_be_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    found = dict(verbs(typer.main.get_command(app)))
    assert found.keys() == EXAMPLES.keys()
    for name, verb in found.items():
        verb.make_context(f"pflx {name}", EXAMPLES[name].split()).close()


def test_what_is_asked_of_pflx_itself_is_answered() -> None:
    version = pflx("--version")
    assert (version.code, version.out, version.err) == (0, f"pflx {__version__}\n", "")
    for asked in ([], ["-h"], ["--help"]):
        shown = pflx(*asked)
        assert (shown.code, shown.err) == (0, "")
        assert "bench-latency" in shown.out
        assert "--install-completion" in shown.out
    assert "lookahead" in pflx("calibrate").out
    assert pflx("calibrate").out == pflx("calibrate", "-h").out
    assert pflx("run", "-h").out == pflx("run", "--help").out
    assert pflx("run", "-h", "--seed", "-1").code == 0


def test_a_shell_that_completes_is_told_verbs_options_and_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PFLX_COMPLETE", "complete_bash")
    for typed, expected in (
        ("pflx ben", {"bench-latency"}),
        ("pflx calibrate ", {"record", "fp16", "bf16", "int8", "lookahead", "foresight", "posnet"}),
        ("pflx person ", {"make", "show"}),
        ("pflx run --side", {"--side-by-side"}),
        ("pflx export --kind per", {"perfrdiff"}),
    ):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
        assert set(pflx().out.split()) == expected, typed
