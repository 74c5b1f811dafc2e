"""Generators as pure steps, and the running normalisation of the sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.fakes import HOP, Recording, fake_engines, fake_listener, fake_manifest, frames_of, sound_of

from pflx.engines import Array, BundleError, Engine, FakeEngine, TensorSpec
from pflx.runtime.generators import Generator, SpeakerWindow, State, make_generator
from pflx.runtime.generators.reactface import VARIANCE_FLOOR, add_moments, normalise


def window_of(seed: int) -> SpeakerWindow:
    return {"video": frames_of(HOP, size=(224, 224), seed=seed), "audio": sound_of(HOP, seed=seed).reshape(HOP, -1)}


def reactface(engines: dict[str, Engine] | None = None) -> Generator:
    return make_generator(fake_manifest().generator, engines or fake_engines())


def noise_of(samples: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((samples, 128), np.float32)


def copied(state: State) -> dict[str, Array]:
    return {name: value.copy() for name, value in state.items()}


def test_a_generator_tells_its_window_hop_and_noise() -> None:
    generator = reactface()
    assert (generator.window, generator.hop, generator.noise_size) == (HOP, HOP, 128)


def test_a_step_changes_nothing_it_was_given_and_gives_the_same_again() -> None:
    generator = reactface()
    _, state = generator.step(window_of(0), generator.start(2), noise_of(2))
    window, noise, before = window_of(1), noise_of(2, 1), copied(state)
    results = [generator.step(window, state, noise) for _ in range(2)]
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)
    np.testing.assert_array_equal(results[0][0].coefficients, results[1][0].coefficients)
    for name in state:
        np.testing.assert_array_equal(results[0][1][name], results[1][1][name])


def test_the_speaker_is_encoded_once_for_all_samples() -> None:
    engines = fake_engines()
    engines["reactface_speaker"] = speaker = Recording(engines["reactface_speaker"])
    reaction, _ = reactface(engines).step(window_of(0), reactface().start(5), noise_of(5))
    assert reaction.coefficients.shape == (5, HOP, 58)
    assert len(speaker.feeds) == 1
    assert speaker.feeds[0]["video"].shape == (1, HOP, 224, 224, 3)


def test_each_step_is_given_the_last_reaction_and_only_the_first_is_first() -> None:
    engines = fake_engines()
    engines["reactface_listener"] = listener = Recording(engines["reactface_listener"])
    generator = reactface(engines)
    state = generator.start(2)
    for seed in range(3):
        _, state = generator.step(window_of(seed), state, noise_of(2, seed))
    assert [feeds["first"].tolist() for feeds in listener.feeds] == [[True], [False], [False]]
    assert not listener.feeds[0]["past_reaction"].any()
    assert not listener.feeds[0]["past_motion"].any()
    for earlier, feeds in zip(listener.results, listener.feeds[1:], strict=False):
        np.testing.assert_array_equal(feeds["past_reaction"], earlier["reaction"])
        np.testing.assert_array_equal(feeds["past_motion"], earlier["motion"])


def test_an_unknown_generator_is_named() -> None:
    manifest = fake_manifest()
    stranger = replace(manifest, generator=replace(manifest.generator, name="oracle"))
    with pytest.raises(BundleError, match="'oracle', this pflx runs reactface"):
        fake_listener(manifest=stranger)


def test_what_a_generator_reads_and_its_bundle_lacks_is_named() -> None:
    info, engines = fake_manifest().generator, fake_engines()
    listener = engines["reactface_listener"]
    inputs = dict(listener.inputs)
    with pytest.raises(BundleError, match="'reactface', and what that reads is not all there: 'listener'"):
        make_generator(replace(info, graphs={"speaker": "reactface_speaker"}), engines)
    for eps, said in ((None, "'eps'"), (("samples", "any"), "'eps' has the dynamic axis 'any'"), ((), "out of range")):
        named = {**inputs, "eps": TensorSpec(eps, np.dtype(np.float32))} if eps is not None else dict(inputs)
        if eps is None:
            del named["eps"]
        other = FakeEngine(lambda feeds: feeds, named, listener.outputs)
        with pytest.raises(BundleError, match=f"is not all there: .*{said}"):
            reactface({**engines, "reactface_listener": other})


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(1, 4000), max_size=4), offset=st.floats(-0.9, 0.9))
@settings(deadline=None)
def test_running_moments_are_those_of_the_whole_sound(seed: int, cuts: list[int], offset: float) -> None:
    sound = sound_of(6, seed=seed) * np.float32(0.2) + np.float32(offset)
    moments = np.zeros(3)
    for part in np.split(sound, sorted(set(cuts) & set(range(1, len(sound))))):
        moments = add_moments(moments, part)
    exact = sound.astype(np.float64)
    np.testing.assert_allclose(moments, [len(sound), exact.mean(), exact.var() * len(sound)], rtol=1e-9, atol=1e-12)


def test_the_sound_is_normalised_by_all_that_was_heard_so_far() -> None:
    engines = fake_engines()
    engines["reactface_speaker"] = speaker = Recording(engines["reactface_speaker"])
    generator = reactface(engines)
    windows = [window_of(seed) for seed in range(3)]
    state = generator.start(1)
    for window in windows:
        _, state = generator.step(window, state, noise_of(1))
    for number, feeds in enumerate(speaker.feeds, 1):
        heard = np.concatenate([window["audio"].reshape(-1) for window in windows[:number]]).astype(np.float64)
        expected = (windows[number - 1]["audio"].reshape(-1) - heard.mean()) / np.sqrt(heard.var() + VARIANCE_FLOOR)
        np.testing.assert_allclose(feeds["audio"][0], expected, atol=1e-5)


def test_silence_stays_silent() -> None:
    silence = np.zeros(5120, np.float32)
    normalised = normalise(silence, add_moments(np.zeros(3), silence))
    assert normalised.dtype == np.float32
    assert not normalised.any()
