"""Persons on a bundle: whose weights a reaction is made with, who is refused, and that sessions share the engines."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.persons.tiny_bundle import SHAPES, made_up_person, own_part, personal_bundle

from pflx.engines import Array
from pflx.runtime import (
    EngineSettings,
    Listener,
    ListenerFrame,
    NullSink,
    Person,
    PersonError,
    PushSource,
    SpeakerSettings,
    StreamError,
)
from pflx.runtime.builtin import DEMO
from pflx.runtime.generators.diffusion import updates
from pflx.runtime.generators.protocol import Personal
from pflx.runtime.persons import write_person

ADA, BOB = made_up_person(1, "Ada"), made_up_person(2, "Bob")
RNG = np.random.default_rng(0)
TRACK = RNG.standard_normal((100, 58)).astype(np.float32)
SOUND = (0.1 * RNG.standard_normal(100 * 1764)).astype(np.float32)


class FromTrack:
    """The speaker's coefficients, whatever the pictures show: those of `TRACK`."""

    size = 58

    def extract(self, picture: Array, frame: int) -> Array:
        return np.asarray(TRACK[frame])


KNOWN = SpeakerSettings(extractors={"coefficients": FromTrack()})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return personal_bundle(tmp_path_factory.mktemp("persons") / "tiny.pflx").path


@pytest.fixture(scope="module")
def listener(bundle: Path) -> Iterator[Listener]:
    with Listener.open(bundle, DEMO / "portrait.png", render=False) as opened:
        yield opened


def reaction(generator: Any, samples: int = 2) -> Array:
    """What a generator makes of the first window of a speaker."""
    speaker = {"coefficients": TRACK[:50], "mfcc": 30 * TRACK[:50, :1].repeat(78, 1)}
    noise = np.random.default_rng(3).standard_normal((samples, 2900)).astype(np.float32)
    segment, state = generator.step(speaker, generator.start(samples), noise)
    second, _ = generator.step(speaker, state, noise)
    return np.concatenate((segment.coefficients, second.coefficients), axis=1)


def by_hand(person: Person | None, samples: int = 2) -> Array:
    """The same by the formula of the tiny graphs, without them."""
    x = np.random.default_rng(3).standard_normal((samples, 2900)).astype(np.float32).reshape(samples, 50, 58)
    mfcc = np.clip((30 * TRACK[:50, :1] + 110) / 195, 0, 1)
    seen = 0.5 * TRACK[:50] + 0.1 * mfcc
    before = x
    for update in updates():
        clean = seen + own_part(person) + 0.1 * x
        fresh, kept, last = update.weights
        x, before = fresh * clean + kept * x + last * before, clean
    return np.asarray(x)


@pytest.mark.parametrize("person", [None, ADA, BOB], ids=["nobody", "Ada", "Bob"])
def test_a_reaction_is_made_with_the_weights_of_the_person(listener: Listener, person: Person | None) -> None:
    np.testing.assert_allclose(reaction(listener.persons.generator(person)), by_hand(person), atol=2e-5)


def test_openvino_takes_weights_with_a_call_too(bundle: Path) -> None:
    pytest.importorskip("openvino")
    engines = EngineSettings("openvino")
    with Listener.open(bundle, DEMO / "portrait.png", render=False, engines=engines) as opened:
        for person in (ADA, None, BOB):
            np.testing.assert_allclose(reaction(opened.persons.generator(person)), by_hand(person), atol=2e-5)


def test_persons_take_turns_on_the_same_engines_and_hear_nothing_of_one_another(listener: Listener) -> None:
    order = [None, ADA, BOB, ADA, None, BOB]
    made = {id(person): reaction(listener.persons.generator(person)) for person in (None, ADA, BOB)}
    for person in order:
        np.testing.assert_array_equal(reaction(listener.persons.generator(person)), made[id(person)])
    assert np.abs(made[id(ADA)] - made[id(BOB)]).max() > 0.05
    assert np.abs(made[id(ADA)] - made[id(None)]).max() > 0.05


def test_sessions_of_one_person_share_its_weights_which_go_with_the_last_of_them(listener: Listener) -> None:
    again = replace(ADA, name="Countess")
    one, other = listener.persons.generator(ADA), listener.persons.generator(again)
    assert one is other
    assert one is not listener.persons.generator(BOB)
    known = id(one)
    del one, other
    gc.collect()
    kept = listener.persons.generator(BOB)
    assert id(listener.persons.generator(ADA)) != id(kept)
    assert len(listener.persons._made) == 1, known


def frames(stream: Any, begin: int = 0, end: int = 100) -> list[ListenerFrame]:
    video = np.zeros((end - begin, 64, 64, 3), np.uint8)
    stream.push(video=video, audio=SOUND[1764 * begin : 1764 * end])
    return list(stream.pull())


def coefficients(stream: Any, begin: int = 0, end: int = 100) -> Array:
    return np.stack([frame.coefficients for frame in frames(stream, begin, end)])


def test_streams_of_two_persons_and_nobody_go_on_side_by_side(listener: Listener) -> None:
    alone = {person: coefficients(listener.stream(speaker=KNOWN, person=person)) for person in (None, ADA, BOB)}
    streams = {person: listener.stream(speaker=KNOWN, person=person) for person in alone}
    made: dict[Person | None, list[Array]] = {person: [] for person in alone}
    for begin in range(0, 100, 20):
        for person, stream in streams.items():
            new = frames(stream, begin, begin + 20)
            made[person] += [frame.coefficients for frame in new]
    for person, expected in alone.items():
        np.testing.assert_array_equal(np.stack(made[person]), expected)
    own = own_part(ADA) - own_part(None)
    # What is told is added to every prediction, of which nine tenths or more come out.
    apart = (alone[ADA] - alone[None]).mean(axis=0)
    assert np.corrcoef(apart, own)[0, 1] > 0.999


@pytest.mark.parametrize("is_file", [False, True], ids=["read", "a file"])
def test_a_listener_opened_as_a_person_is_it_in_all_sessions_that_name_no_other(
    bundle: Path, listener: Listener, tmp_path: Path, is_file: bool
) -> None:
    ada, bob = (written(person, tmp_path) if is_file else person for person in (ADA, BOB))
    with Listener.open(bundle, DEMO / "portrait.png", render=False, person=ada) as opened:
        made = coefficients(opened.stream(speaker=KNOWN))
        other = coefficients(opened.stream(speaker=KNOWN, person=bob))
        for person, expected in ((None, ADA), (bob, BOB)):
            with opened.live(PushSource(opened.sample_rate_hz), NullSink(), speaker=KNOWN, person=person) as session:
                assert session.snapshot()["person"].tobytes().hex() == expected.sha256
        resumed = opened.resume(opened.stream(speaker=KNOWN).snapshot(), speaker=KNOWN)
        assert resumed.snapshot()["person"].tobytes().hex() == ADA.sha256
    np.testing.assert_array_equal(made, coefficients(listener.stream(speaker=KNOWN, person=ADA)))
    np.testing.assert_array_equal(other, coefficients(listener.stream(speaker=KNOWN, person=BOB)))


def written(person: Person, folder: Path) -> Path:
    path = folder / f"{person.name}.person"
    write_person(person, path)
    return path


@pytest.mark.parametrize("person", [None, ADA])
def test_a_snapshot_goes_on_as_the_same_person(listener: Listener, person: Person | None) -> None:
    whole = coefficients(listener.stream(speaker=KNOWN, person=person))
    stream = listener.stream(speaker=KNOWN, person=person)
    first = coefficients(stream, 0, 60)
    same = None if person is None else replace(person, name="another name", created="2027")
    resumed = listener.resume(stream.snapshot(), speaker=KNOWN, person=same)
    np.testing.assert_array_equal(np.concatenate((first, coefficients(resumed, 60, 100))), whole)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (
            ADA,
            BOB,
            f"is of the person of SHA-256 {ADA.sha256[:12]}…, the stream of the person of SHA-256 {BOB.sha256[:12]}",
        ),
        (ADA, None, f"is of the person of SHA-256 {ADA.sha256[:12]}…, the stream of nobody"),
        (None, BOB, f"is of nobody, the stream of the person of SHA-256 {BOB.sha256[:12]}"),
    ],
)
def test_a_snapshot_of_another_person_is_refused(
    listener: Listener, was: Person | None, now: Person | None, said: str
) -> None:
    stream = listener.stream(speaker=KNOWN, person=was)
    snapshot = stream.snapshot()
    with pytest.raises(StreamError, match=re.escape(said)) as caught:
        listener.resume(snapshot, speaker=KNOWN, person=now)
    assert str(caught.value).endswith("Resume it with the same person.")


def without(name: str) -> dict[str, Array]:
    return {tensor: value for tensor, value in ADA.weights.items() if tensor != name}


@pytest.mark.parametrize(
    ("person", "said"),
    [
        (
            made_up_person(1, denoiser="ab" * 32),
            "person 1 was made for the denoiser of SHA-256 abababababab…, the bundle's",
        ),
        (
            replace(ADA, weights=without("to_3dmm_pos.weight")),
            "Ada has 'to_3dmm_pos.weight' as nothing, the bundle edits",
        ),
        (
            replace(ADA, weights={**ADA.weights, "to_3dmm_pos.weight": np.ones((4, 6), np.float32)}),
            "Ada has 'to_3dmm_pos.weight' as [4, 6], the bundle edits it as [6, 4]",
        ),
        (
            replace(ADA, weights={**ADA.weights, "pos_fusion.weight": np.ones((6, 12), np.float32)}),
            "Ada has 'pos_fusion.weight' as [6, 12], the bundle edits it as nothing",
        ),
    ],
)
def test_a_person_of_another_denoiser_or_of_other_weights_is_refused(
    listener: Listener, person: Person, said: str
) -> None:
    asked = listener.persons.check, listener.persons.generator, lambda one: listener.stream(speaker=KNOWN, person=one)
    for act in asked:
        with pytest.raises(PersonError, match=re.escape(said)) as caught:
            act(person)
        assert "pflx person make" in str(caught.value)


def test_a_bundle_without_a_graph_for_persons_opens_and_says_what_to_do(tmp_path: Path, listener: Listener) -> None:
    old = personal_bundle(tmp_path / "old.pflx", persons=False)
    with Listener.open(old, DEMO / "portrait.png", render=False) as opened:
        made = coefficients(opened.stream(speaker=KNOWN))
        np.testing.assert_array_equal(made, coefficients(listener.stream(speaker=KNOWN)))
        with pytest.raises(
            PersonError, match=r"was exported without a graph for persons\. Export it again: .*--persons"
        ):
            opened.stream(speaker=KNOWN, person=ADA)


def test_a_generator_without_persons_says_so() -> None:
    said = "Ada is a person, and backchannel takes none"
    with Listener.open(None, DEMO / "portrait.png", render=False) as opened, pytest.raises(PersonError, match=said):
        opened.stream(person=ADA)
    with pytest.raises(PersonError, match=said):
        Listener.open(None, DEMO / "portrait.png", render=False, person=ADA)


def test_the_bundle_names_what_it_edits(listener: Listener) -> None:
    generator = listener.generator
    assert isinstance(generator, Personal)
    assert {name: spec.shape for name, spec in generator.edited.items()} == SHAPES
