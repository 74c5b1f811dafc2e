"""BeLFusion as a pure step: one window at a time, two seconds ahead of the speaker."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from support.exported_generators import exported_generator
from support.fakes import Recording, Reusing

from pflx.engines import Array, Engine, FakeEngine, FeedError, GeneratorInfo, TensorSpec
from pflx.export.chain import runtime_generator
from pflx.runtime.generators import Generator, GeneratorOptions, make_generator, reach

F32 = np.dtype(np.float32)
INFO = GeneratorInfo(name="belfusion", window=50, hop=50, needs=["emotion"], graphs={"react": "belfusion"})
INPUTS = {"speaker_emotion": TensorSpec((1, 50, 25), F32), "noise": TensorSpec(("samples", 128), F32)}
OUTPUTS = {
    "coefficients": TensorSpec(("samples", 50, 58), F32),
    "emotion": TensorSpec(("samples", 50, 25), F32),
}


def react(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    emotion = feeds["speaker_emotion"] + feeds["noise"][:, None, :25]
    return {"emotion": emotion, "coefficients": np.concatenate((emotion, emotion, emotion[..., :8]), axis=-1)}


def fake() -> FakeEngine:
    return FakeEngine(react, INPUTS, OUTPUTS)


def belfusion(engine: Engine | None = None) -> Generator:
    return make_generator(INFO, {"belfusion": engine or fake()})


def noise_of(samples: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((samples, 128), np.float32)


def emotion_of(seed: int) -> dict[str, Array]:
    return {"emotion": np.random.default_rng(seed).random((50, 25), np.float32)}


def test_a_segment_is_made_two_seconds_ahead_and_the_first_at_once() -> None:
    generator = belfusion()
    assert (generator.window, generator.hop, generator.lead, generator.opening) == (50, 50, 50, 0)
    assert [reach(generator, segment) for segment in range(3)] == [0, 50, 100]
    assert (generator.needs, generator.noise_size, generator.steps) == (("emotion",), 128, ())


def test_a_step_gives_coefficients_and_emotion_of_every_sample_and_keeps_nothing() -> None:
    engine = Recording(fake())
    generator = belfusion(engine)
    state = generator.start(3)
    assert not state
    speaker = emotion_of(0)
    reaction, after = generator.step(speaker, state, noise_of(3))
    assert not after
    assert reaction.emotion is not None
    assert (reaction.coefficients.shape, reaction.emotion.shape) == ((3, 50, 58), (3, 50, 25))
    np.testing.assert_array_equal(engine.feeds[0]["speaker_emotion"][0], speaker["emotion"])


def test_windows_know_nothing_of_each_other() -> None:
    generator = belfusion()
    before, state = generator.step(emotion_of(0), generator.start(1), noise_of(1))
    again, _ = generator.step(emotion_of(1), state, noise_of(1, 1))
    alone, _ = generator.step(emotion_of(1), generator.start(1), noise_of(1, 1))
    np.testing.assert_array_equal(again.coefficients, alone.coefficients)
    assert (before.coefficients != again.coefficients).any()


def test_an_engine_may_reuse_its_buffers() -> None:
    generator = belfusion(Reusing(fake()))
    first, state = generator.step(emotion_of(0), generator.start(1), noise_of(1))
    coefficients, emotion = first.coefficients.copy(), np.array(first.emotion)
    generator.step(emotion_of(1), state, noise_of(1, 1))
    np.testing.assert_array_equal(first.coefficients, coefficients)
    assert first.emotion is not None
    np.testing.assert_array_equal(first.emotion, emotion)


@pytest.mark.parametrize("options", [GeneratorOptions(steps=5), GeneratorOptions(history=8)])
def test_options_of_others_are_refused(options: GeneratorOptions) -> None:
    (name, value), *_ = options.given.items()
    with pytest.raises(FeedError, match=f"{name} is {value}, and belfusion takes no {name}"):
        make_generator(INFO, {"belfusion": fake()}, options)


def test_the_exported_graph_moves_with_the_speaker() -> None:
    made = exported_generator("belfusion")
    with runtime_generator(made.parts.info, made.graphs.opener("fp32")) as generator:
        first, _ = generator.step({"emotion": np.zeros((50, 25), np.float32)}, generator.start(2), noise_of(2))
        other, _ = generator.step(emotion_of(0), generator.start(2), noise_of(2))
    assert np.isfinite(first.coefficients).all()
    assert np.abs(first.coefficients - other.coefficients).max() > 1e-2
    assert np.abs(first.coefficients[0] - first.coefficients[1]).max() > 1e-2
