"""Trans-VAE as a pure step: what its history holds, how long it gets, and when that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.exported_generators import exported_generator
from support.fakes import Recording, Reusing
from support.golden_arrays import moving_picture

from pflx.engines import Array, Engine, FakeEngine, FeedError, GeneratorInfo, TensorSpec
from pflx.runtime.generators import (
    Generator,
    GeneratorOptions,
    Reaction,
    SpeakerWindow,
    State,
    make_generator,
    reach,
)
from pflx.runtime.generators.protocol import SelfReader

W = 4
SIDE = 6  # the fakes' pictures are small, and so is what is kept of them
F32 = np.dtype(np.float32)


def f32(*shape: int | str) -> TensorSpec:
    return TensorSpec(shape, F32)


INPUTS = {
    "video": TensorSpec((1, W, SIDE, SIDE, 3), np.dtype(np.uint8)),
    "mfcc": f32(1, W, 78),
    "eps": f32("samples", 128),
}
PAST = {
    "past_features": f32("history", 2, 5, 5),
    "past_moments": f32("history", 2, 2),
    "past_mfcc": f32(1, "history", 78),
    "past_coefficients": f32("samples", "history", 58),
    "past_emotion": f32("samples", "history", 25),
}
OUTPUTS = {
    "coefficients": f32("samples", W, 58),
    "emotion": f32("samples", W, 25),
    "features": f32(W, 2, 5, 5),
    "moments": f32(W, 2, 2),
}


def react(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """Every number depends on all of the history, in its order."""
    samples = len(feeds["eps"])
    frames = feeds["video"][0].astype(np.float32).mean(axis=(1, 2, 3)) / 255
    past = [feeds[name].astype(np.float64) for name in PAST if name in feeds]
    told = sum(float((value * np.arange(1, value.size + 1).reshape(value.shape)).sum()) for value in past)
    moved = np.sin(told + feeds["mfcc"].sum() + feeds["eps"].sum(axis=1)[:, None, None] + frames[None, :, None])
    return {
        "coefficients": np.broadcast_to(moved, (samples, W, 58)).astype(np.float32),
        "emotion": np.broadcast_to(moved / 2, (samples, W, 25)).astype(np.float32),
        "features": np.broadcast_to(frames[:, None, None, None], (W, 2, 5, 5)).astype(np.float32),
        "moments": np.broadcast_to(frames[:, None, None], (W, 2, 2)).astype(np.float32),
    }


def fakes() -> dict[str, Engine]:
    return {
        "transvae_first": FakeEngine(react, INPUTS, OUTPUTS),
        "transvae_next": FakeEngine(react, INPUTS | PAST, OUTPUTS),
    }


def info(history: int = 0) -> GeneratorInfo:
    return GeneratorInfo(
        name="transvae",
        window=W,
        hop=W,
        needs=["video", "mfcc"],
        graphs={"first": "transvae_first", "next": "transvae_next"},
        settings={"history": history},
    )


def transvae(engines: Mapping[str, Engine] | None = None, *, history: int | None = None, bundle: int = 0) -> Generator:
    return make_generator(info(bundle), engines or fakes(), GeneratorOptions(history=history))


def window_of(seed: int) -> SpeakerWindow:
    rng = np.random.default_rng(seed)
    return {
        "video": rng.integers(0, 256, (W, SIDE, SIDE, 3), np.uint8),
        "mfcc": rng.standard_normal((W, 78), np.float32),
    }


def noise_of(samples: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((samples, 128), np.float32)


def silence_of(length: int) -> State:
    """The state after a session of that many frames of zeros, one sample."""
    sizes = {"history": length, "samples": 1}
    shapes = {
        name: [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape] for name, spec in PAST.items()
    }
    return {name: np.zeros(shape, F32) for name, shape in shapes.items()}


def run(generator: Generator, n_steps: int, samples: int = 2) -> tuple[list[Reaction], State]:
    state, reactions = generator.start(samples), []
    for step in range(n_steps):
        reaction, state = generator.step(window_of(step), state, noise_of(samples, step))
        reactions.append(reaction)
    return reactions, state


def test_a_segment_is_made_of_the_window_it_falls_into() -> None:
    generator = transvae()
    assert (generator.window, generator.hop, generator.lead, generator.opening) == (W, W, 0, W)
    assert [reach(generator, segment) for segment in range(3)] == [W, 2 * W, 3 * W]
    assert (generator.needs, generator.noise_size, generator.steps) == (("video", "mfcc"), 128, ())


def test_later_steps_are_given_all_that_came_before_and_each_frame_is_seen_once() -> None:
    engines = fakes()
    engines["transvae_first"] = first = Recording(engines["transvae_first"])
    engines["transvae_next"] = following = Recording(engines["transvae_next"])
    reactions, state = run(transvae(engines), 3)
    assert (len(first.feeds), len(following.feeds)) == (1, 2)
    given = following.feeds[-1]
    assert given["video"].shape[1] == W
    before = first.results + following.results[:1]
    for name in ("features", "moments"):
        np.testing.assert_array_equal(given[f"past_{name}"], np.concatenate([result[name] for result in before]))
    for name in ("coefficients", "emotion"):
        np.testing.assert_array_equal(given[f"past_{name}"], np.concatenate([result[name] for result in before], 1))
    heard = np.concatenate([window_of(step)["mfcc"] for step in range(2)])
    np.testing.assert_array_equal(given["past_mfcc"][0], heard)
    assert state["past_coefficients"].shape == (2, 3 * W, 58)
    assert reactions[0].emotion is not None


@pytest.mark.parametrize("history", [0, 2, 6, 2 * W])
def test_remembered_coefficients_are_those_that_were_shown(history: int) -> None:
    generator = transvae(history=history)
    state, shown, plain = generator.start(2), [], generator.start(2)
    for step in range(4):
        reaction, after = generator.step(window_of(step), state, noise_of(2, step))
        shown.append(reaction.coefficients + step + 1)
        assert isinstance(generator, SelfReader)
        state = generator.remember(state, after, shown[-1])
        np.testing.assert_array_equal(state["past_emotion"], after["past_emotion"])
        _, plain = generator.step(window_of(step), plain, noise_of(2, step))
        assert state["past_coefficients"].shape == plain["past_coefficients"].shape
    np.testing.assert_array_equal(state["past_coefficients"], np.concatenate(shown, axis=1)[:, -history:])


@settings(deadline=None, max_examples=25)
@given(history=st.integers(1, 30), n_steps=st.integers(1, 8))
def test_a_bounded_history_is_the_exact_one_until_it_is_full(history: int, n_steps: int) -> None:
    exact, _ = run(transvae(history=0), n_steps)
    bounded, state = run(transvae(history=history), n_steps)
    for step, (ours, theirs) in enumerate(zip(bounded, exact, strict=True)):
        same = np.array_equal(ours.coefficients, theirs.coefficients)
        assert same == (step * W <= history)
    lengths = {state[name].shape[spec.shape.index("history")] for name, spec in PAST.items()}
    assert lengths == {min(history, n_steps * W)}


def test_a_full_history_is_that_of_a_session_that_began_with_it() -> None:
    later = transvae(history=2 * W)
    _, state = run(later, 5)
    reaction, _ = later.step(window_of(9), state, noise_of(2))
    fresh, _ = transvae(history=0).step(window_of(9), state, noise_of(2))
    np.testing.assert_array_equal(reaction.coefficients, fresh.coefficients)


def test_a_step_changes_nothing_it_was_given_and_buffers_may_be_reused() -> None:
    expected, _ = run(transvae(history=6), 5)
    reused, _ = run(transvae({name: Reusing(engine) for name, engine in fakes().items()}, history=6), 5)
    for ours, theirs in zip(reused, expected, strict=True):
        np.testing.assert_array_equal(ours.coefficients, theirs.coefficients)
    generator = transvae(history=6)
    _, state = run(generator, 3)
    before = {name: value.copy() for name, value in state.items()}
    results = [generator.step(window_of(4), state, noise_of(2)) for _ in range(2)]
    np.testing.assert_array_equal(results[0][0].coefficients, results[1][0].coefficients)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_the_bundle_says_how_long_the_history_is_unless_one_asks_otherwise() -> None:
    for asked, bundled, kept in ((None, 8, 8), (None, 0, 20), (0, 8, 20), (12, 8, 12)):
        _, state = run(transvae(history=asked, bundle=bundled), 5)
        assert state["past_features"].shape[0] == kept


def test_a_session_longer_than_the_network_reaches_is_refused_with_the_fix() -> None:
    generator = transvae(history=0)
    generator.step(window_of(0), silence_of(747), noise_of(1))
    with pytest.raises(FeedError, match=r"longer than 748 frames, and Trans-VAE looks back on 751 at most.*history=64"):
        generator.step(window_of(0), silence_of(748), noise_of(1))


@pytest.mark.parametrize("history", [-1, 748])
def test_a_history_that_the_network_cannot_have_is_refused(history: int) -> None:
    with pytest.raises(FeedError, match=f"history is {history}; Trans-VAE looks back on 1 to 747 frames, or with 0"):
        transvae(history=history)


def test_options_of_others_are_refused() -> None:
    with pytest.raises(FeedError, match="steps is 5, and transvae takes no steps"):
        make_generator(info(), fakes(), GeneratorOptions(steps=5))


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    made = exported_generator("transvae")
    with ExitStack() as stack:
        opened = made.graphs.opener("fp32")
        yield {name: stack.enter_context(closing(opened(name))) for name in made.graphs.infos}


def test_the_exported_graphs_react_alike_until_the_history_is_full(engines: dict[str, Engine]) -> None:
    bundle = exported_generator("transvae").parts.info
    pictures = moving_picture("tv1", 24, 224)
    mfcc = np.random.default_rng(0).standard_normal((24, 78), np.float32)
    made = {}
    for history in (0, 8):
        generator = make_generator(bundle, engines, GeneratorOptions(history=history))
        state, segments = generator.start(1), []
        for now in (0, 8, 16):
            speaker: SpeakerWindow = {"video": pictures[now : now + 8], "mfcc": mfcc[now : now + 8]}
            reaction, state = generator.step(speaker, state, noise_of(1, now))
            segments.append(reaction.coefficients)
        made[history] = segments
    for ours, theirs in zip(made[8][:2], made[0][:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.abs(made[8][2] - made[0][2]).max() > 1e-3
