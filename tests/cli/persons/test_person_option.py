"""`--person` of the verbs that react: whose weights came out, what is said where it cannot be; `pflx person show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from support.commands import pflx, refusal
from support.persons.tiny_bundle import DENOISER, made_up_person, own_part, personal_bundle
from support.places import MEDIA

from pflx.engines import Array
from pflx.runtime import Listener, PersonError
from pflx.runtime.builtin import DEMO
from pflx.runtime.dataset.seal import read_seal
from pflx.runtime.persons import read_person, write_person

CLIP = MEDIA / "webcam_cap12_12s.mp4"
PORTRAIT = DEMO / "portrait.png"
LOOK = ("--speaker-coefficients", "landmarks")
ADA, BOB = made_up_person(1, "Ada"), made_up_person(2, "Bob")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes persons, one that does not, and two persons."""
    made = tmp_path_factory.mktemp("persons")
    personal_bundle(made / "tiny.pflx")
    personal_bundle(made / "old.pflx", persons=False)
    for person in (ADA, BOB):
        write_person(person, made / f"{person.name.lower()}.person")
    write_person(made_up_person(3, "Eve", denoiser="ab" * 32), made / "eve.person")
    return made


def reaction(folder: Path, person: str | None) -> Array:
    """What `pflx run` writes of two seconds: the coefficients."""
    output = folder / f"{person}.npz"
    given = () if person is None else ("--person", folder / f"{person}.person")
    options = ("-p", PORTRAIT, "-b", folder / "tiny.pflx", "-o", folder / "run.mp4", "--coefficients", output)
    done = pflx("run", CLIP, *options, *LOOK, "--duration", 2, *given)
    assert done.code == 0, done.err
    with np.load(output) as arrays:
        return np.asarray(arrays["coefficients"][0])


def test_run_reacts_with_the_weights_of_the_person(folder: Path) -> None:
    nobody, ada, bob = (reaction(folder, person) for person in (None, "ada", "bob"))
    for made, person in ((ada, ADA), (bob, BOB)):
        apart, own = (made - nobody).mean(axis=0), own_part(person) - own_part(None)
        assert np.corrcoef(apart, own)[0, 1] > 0.99
    np.testing.assert_array_equal(reaction(folder, "ada"), ada)


def command(verb: str, folder: Path, bundle: str) -> list[str | Path]:
    place = folder / bundle
    match verb:
        case "run":
            return ["run", CLIP, "-p", PORTRAIT, "-b", place, "-o", folder / "no.mp4", *LOOK]
        case "bench-latency":
            return ["bench-latency", place, "--duration", "1", *LOOK]
        case "batch":
            clips = folder / "clips"
            clips.mkdir(exist_ok=True)
            (clips / "one.mp4").write_bytes(CLIP.read_bytes())
            return ["batch", clips, "-b", place, "-o", folder / "never", *LOOK]
        case _:
            return ["serve", place, "--port", "0"]


@pytest.mark.parametrize("verb", ["run", "batch", "bench-latency", "serve"])
def test_a_person_that_the_bundle_cannot_take_is_refused_in_one_line(folder: Path, verb: str) -> None:
    said = refusal(*command(verb, folder, "old.pflx"), "--person", folder / "ada.person")
    assert "Ada is a person, and the bundle was exported without a graph for persons" in said
    assert said.endswith("Export it again: pflx export --persons")
    said = refusal(*command(verb, folder, "tiny.pflx"), "--person", folder / "eve.person")
    assert "Eve was made for the denoiser of SHA-256 abababababab…, the bundle's is 0d0d0d0d0d0d…" in said
    assert "is no such file, or cut off" in refusal(*command(verb, folder, "tiny.pflx"), "--person", CLIP)
    assert "none.person does not exist" in refusal(*command(verb, folder, "tiny.pflx"), "--person", "none.person")


def test_live_opens_the_listener_as_the_person(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_fake(*given: Any, person: Path, **_: Any) -> Listener:
        raise PersonError(f"It would be {read_person(person)}.")

    monkeypatch.setattr(Listener, "open", open_fake)
    monkeypatch.setattr("pflx.runtime.WindowSink", Mock())
    said = refusal("live", "-p", PORTRAIT, folder / "tiny.pflx", "--person", folder / "ada.person")
    assert f"It would be Ada, SHA-256 {ADA.sha256}." in said


def test_a_measurement_names_the_person_and_counts_its_graph(folder: Path) -> None:
    output = folder / "engine.json"
    given = (folder / "tiny.pflx", "--mode", "engine", "--duration", "0.05", "--json", output)
    done = pflx("bench-latency", *given, "--person", folder / "ada.person")
    assert done.code == 0, done.err
    assert "as Ada" in done.out
    report = json.loads(output.read_text())
    calls = {each["graph"]: each["per_segment"] for each in report["engines"]}
    assert report["setup"]["person"] == "Ada"
    assert (calls["perfrdiff_denoise"], calls["perfrdiff_personal"]) == (0, 49)


def test_a_data_set_remembers_whose_reactions_it_holds(folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "one.mp4").write_bytes(CLIP.read_bytes())
    given = ("batch", clips, "-b", folder / "tiny.pflx", "-o", tmp_path / "out", *LOOK, "--duration", 2)
    assert pflx(*given, "--person", folder / "ada.person").code == 0
    seal = read_seal(tmp_path / "out" / "one.npz")
    assert seal is not None
    assert seal["person"] == str(ADA)
    again = pflx(*given, "--person", folder / "ada.person")
    assert "had 1 already" in again.out
    other = pflx(*given, "--person", folder / "bob.person")
    assert (other.code, f"was made with person {ADA}, not {BOB}" in other.err) == (1, True)


def test_show_tells_whom_a_file_is_of_and_for_which_denoiser(folder: Path) -> None:
    done = pflx("person", "show", folder / "ada.person")
    assert (done.code, done.err) == (0, "")
    assert f"person        Ada, SHA-256 {ADA.sha256}\n" in done.out
    assert "seen in       750 frames of clip.npy\n" in done.out
    assert f"denoiser      SHA-256 {DENOISER}\n" in done.out
    assert f"hypernetwork  SHA-256 {'f' * 64}, mode shift\n" in done.out
    assert "style [512], decoder.layers.6.linear1.weight [3, 2]" in done.out
    assert "is no such file, or cut off" in refusal("person", "show", CLIP)
