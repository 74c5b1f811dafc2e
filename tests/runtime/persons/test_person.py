"""Files of persons: what is written comes back, and anything else ends in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from pflx.engines.files import tensor_file
from pflx.runtime.persons import Person, PersonError, read_person, write_person

NUMBERS = np.random.default_rng(0)


def made_up(name: str = "Ada", **changed: Any) -> Person:
    weights = {
        "to_3dmm_expr.weight": NUMBERS.standard_normal((52, 512), np.float32),
        "decoder.layers.6.linear2.weight": NUMBERS.standard_normal((512, 1024), np.float32),
    }
    facts: dict[str, Any] = {"denoiser": "d" * 64, "encoder": "e" * 64, "hypernetwork": "f" * 64, "mode": "shift"}
    facts |= {"frames": 750, "source": "ada.mp4", "created": "2026-07-01T12:00:00Z"}
    facts |= {"style": NUMBERS.standard_normal(512, np.float32), "weights": weights}
    return Person(name=name, **{**facts, **changed})


def test_a_person_comes_back_as_it_was_written(tmp_path: Path) -> None:
    person = made_up("Ada, Countess of Lovelace · Ἄδα")
    write_person(person, tmp_path / "ada.person")
    found = read_person(tmp_path / "ada.person")
    texts = ("name", "denoiser", "encoder", "hypernetwork", "mode", "frames", "source", "created", "pflx", "sha256")
    assert [getattr(found, each) for each in texts] == [getattr(person, each) for each in texts]
    np.testing.assert_array_equal(found.style, person.style)
    assert found.weights.keys() == person.weights.keys()
    for name, value in person.weights.items():
        np.testing.assert_array_equal(found.weights[name], value)
    assert not any(value.flags.writeable for value in found.weights.values())


def test_the_file_is_one_of_safetensors_and_no_larger_than_its_numbers(tmp_path: Path) -> None:
    person = made_up()
    write_person(person, tmp_path / "ada.person")
    found = load_file(tmp_path / "ada.person")
    assert {name: value.shape for name, value in found.items()} == {
        "style": (512,),
        "to_3dmm_expr.weight": (52, 512),
        "decoder.layers.6.linear2.weight": (512, 1024),
    }
    np.testing.assert_array_equal(found["to_3dmm_expr.weight"], person.weights["to_3dmm_expr.weight"])
    numbers = sum(value.nbytes for value in found.values())
    assert (tmp_path / "ada.person").stat().st_size < numbers + 2000


def test_equal_persons_are_equal_bytes_and_one_identity_whatever_they_are_called(tmp_path: Path) -> None:
    person = made_up()
    for name in ("a", "b"):
        write_person(person, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert replace(person, name="Countess", created="2027").sha256 == person.sha256
    weights = {name: value.copy() for name, value in person.weights.items()}
    weights["to_3dmm_expr.weight"][51, 511] += 1e-6
    assert replace(person, weights=weights).sha256 != person.sha256


def nan(person: Person) -> dict[str, Any]:
    weights = {name: value.copy() for name, value in person.weights.items()}
    weights["to_3dmm_expr.weight"][3, 4] = np.nan
    return {"weights": weights}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": ""}, "its name is '', not 1 to 200 letters"),
        ({"name": "a\nb"}, "letters that can be shown"),
        ({"source": "x" * 201}, "its source is 'xxx"),
        ({"denoiser": "untrained"}, "its denoiser is 'untrained', not the SHA-256 of a checkpoint"),
        ({"mode": "rotate"}, "its mode is 'rotate', not one of shift, offset, weight"),
        ({"frames": 0}, "it was seen in 0 frames, not in 1 to 999"),
        ({"style": np.zeros(511, np.float32)}, "its style is of shape [511], not [512]"),
        ({"weights": {}}, "it has 0 edited tensors"),
        ({"weights": {"w": np.zeros((2, 2))}}, "'w' is float64 [2, 2], not float32"),
        ({"weights": {"w": np.zeros((2, 0), np.float32)}}, "'w' is float32 [2, 0], not float32 numbers"),
        (nan(made_up()), "'to_3dmm_expr.weight' has numbers that are not finite"),
    ],
)
def test_what_is_no_person_is_refused_in_one_sentence(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PersonError, match=re.escape(said)) as caught:
        made_up(**changed)
    assert "\n" not in str(caught.value)


def written(folder: Path) -> bytes:
    write_person(made_up(), folder / "whole")
    return (folder / "whole").read_bytes()


def with_header(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with another header, whose tensors lie where they lay."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def tensors(**given: Any) -> bytes:
    return bytes(save(given, {"format": "1"}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole[:5], "is no such file, or cut off"),
        (lambda whole: b"", "is no such file, or cut off"),
        (lambda whole: whole[:300], "is no such file, or cut off"),
        (lambda whole: whole[:-1], "bytes of tensors, and holds"),
        (lambda whole: whole + b"0", "bytes of tensors, and holds"),
        (lambda whole: whole[:-4] + b"\x00\x00\x80\x7f", "was changed or damaged since it was written"),
        (lambda whole: whole.replace(b'"name":"Ada"', b'"name":"Eve"'), "was changed or damaged since"),
        (lambda whole: b"\xff" * 8 + whole[8:], "is no such file, or cut off"),
        (lambda whole: whole[:8] + b"[" + whole[9:], "has a header that is none"),
        (lambda whole: with_header(whole, lambda head: head["style"].update(dtype="F64")), "header that is none"),
        (lambda whole: with_header(whole, lambda head: head["style"].update(shape=[511])), "says [511] of 'style'"),
        (lambda whole: with_header(whole, lambda head: head["style"].update(shape=[-512])), "says [-512] of 'style'"),
        (lambda whole: with_header(whole, lambda head: head["style"].update(shape=[1 << 62])), "of 'style'"),
        (
            lambda whole: with_header(whole, lambda head: head["style"].update(data_offsets=[0, 2048])),
            "at bytes",
        ),
        (lambda whole: with_header(whole, lambda head: head["__metadata__"].update(format="2")), "is of format '2'"),
        (lambda whole: with_header(whole, lambda head: head["__metadata__"].pop("sha256")), "and no person"),
        (lambda whole: tensors(style=np.zeros(512, np.float32)), "holds tensors, and no person"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, change: Callable[[bytes], bytes], said: str) -> None:
    path = tmp_path / "x.person"
    path.write_bytes(change(written(tmp_path)))
    with pytest.raises(PersonError, match=re.escape(said)) as caught:
        read_person(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_a_folder_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PersonError, match=r"none.person does not exist\. Check the path"):
        read_person(tmp_path / "none.person")
    with pytest.raises(PersonError, match=r"is a folder\. Check the path"):
        read_person(tmp_path)
    content = written(tmp_path)
    monkeypatch.setattr(tensor_file, "LARGEST", len(content) - 1)
    with pytest.raises(PersonError, match="more than the"):
        read_person(tmp_path / "whole")
