"""The backchannel listener: when it nods, how it moves, and that its motion is a function of its input alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import fake_listener, fake_manifest, frames_of, sound_of
from support.gpu.fake_gpu import gpu_listener
from support.places import MEDIA
from support.speaker.heads import turning_head
from support.speaker.listeners import BLINK, HOP, INFO, PIECE, SEGMENT_S, TURNS, Run, generator, run, steps
from support.speaker.sounds import RATE_HZ, dialogue, podium, white_noise

from pflx.engines import Array, BundleError, GeneratorInfo
from pflx.runtime import Listener, Region, SpeakerSettings, open_extractor
from pflx.runtime.generators import Generator, default_sources, make_generator
from pflx.runtime.generators.behaviour import gestures
from pflx.runtime.generators.behaviour.gestures import Manner
from pflx.runtime.generators.behaviour.habits import HABITS, habit
from pflx.runtime.generators.protocol import delay_frames, reach
from pflx.runtime.speaker.extractor import Every, ExtractorError
from pflx.runtime.speaker.extractors import source_name
from pflx.runtime.speaker.hearing import Heard
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

REGION = Region(0, 0, 32, 32)


# --- when it nods


def test_nods_fall_into_speech_or_within_a_second_after_it() -> None:
    nods = [time_s for seed in range(3) for _, time_s in run(dialogue(), seed=seed).nods]
    assert len(nods) >= 3 * 4 * 3, "hardly a nod in 19 s of a dialogue"
    inside = [any(begin <= time_s <= end + 1 for begin, end in TURNS) for time_s in nods]
    assert np.mean(inside) >= 0.8


def test_who_speaks_at_a_lectern_is_nodded_to() -> None:
    assert run(podium()).nods


@pytest.mark.parametrize("level", [0.01, 0.1, 0.4])
def test_noise_is_not_nodded_to(level: float) -> None:
    assert not run(white_noise(20, level)).nods


def test_silence_and_tones_are_not_nodded_to() -> None:
    assert not run(np.zeros(20 * RATE_HZ, np.float32)).nods
    tone = 0.3 * np.sin(2 * np.pi * 120 * np.arange(20 * RATE_HZ) / RATE_HZ)
    assert not run(tone.astype(np.float32)).nods


def test_speech_after_silence_is_nodded_to_when_it_comes() -> None:
    shift_s = 5.12
    late = np.concatenate([np.zeros(int(shift_s * RATE_HZ), np.float32), dialogue()])
    nods = run(late).nods
    assert nods
    assert min(time_s for _, time_s in nods) > shift_s + habit("speech_before") + habit("wait")


def test_nods_keep_their_distance() -> None:
    times: dict[int, list[float]] = {}
    for sample, time_s in run(dialogue(), samples=8).nods:
        times.setdefault(sample, []).append(time_s)
    assert min(np.diff(each).min() for each in times.values() if len(each) > 1) >= habit("apart")


def test_a_nod_is_seen_in_the_pitch() -> None:
    listeners = run(dialogue())
    for sample, time_s in listeners.nods:
        frame = round(time_s * 25)
        pitch = listeners.angles_deg[sample, frame : frame + 14, 0]
        if len(pitch) == 14:
            assert pitch.max() - pitch[0] > 1.5


# --- how it moves


class Scripted:
    """Hears a voice whose pitch falls every 3.2 s, whatever the sound is."""

    def __init__(self) -> None:
        pitch = np.concatenate([np.linspace(250, 150, 280), np.full(20, 120.0), np.zeros(20)])
        self._pitch = pitch.astype(np.float32)
        self._voice = (self._pitch > 0).astype(np.float32)

    def start(self) -> dict[str, Array]:
        return {"heard": np.zeros(1, np.int64)}

    def step(self, sound: Array, state: Mapping[str, Array]) -> tuple[Heard, dict[str, Array]]:
        ticks = (int(state["heard"][0]) + np.arange(len(sound) // 160)) % len(self._pitch)
        return Heard(self._voice[ticks], self._pitch[ticks]), {"heard": np.array([int(ticks[-1]) + 1])}


@pytest.fixture(scope="module", name="hour")
def an_hour() -> Run:
    """A long while of two listeners, beside a speaker whom to hear costs nothing."""
    seconds = 1800
    sound = np.zeros(seconds * RATE_HZ, np.float32)
    return run(sound, samples=2, hearing=cast(Any, Scripted()), face=turning_head(seconds * 25))


def test_an_hour_does_not_drift(hour: Run) -> None:
    angles = hour.angles_deg[:, : 6 * 7500].reshape(2, 6, 7500, 3)
    means, deviations = angles.mean(axis=2), angles.std(axis=2)
    assert np.abs(means - means[:, :1]).max() < 0.5
    assert (deviations.max(axis=1) < 1.25 * deviations.min(axis=1)).all()
    assert np.isfinite(hour.coefficients).all()


def test_an_hour_has_nods_to_its_end(hour: Run) -> None:
    per_minute = np.histogram([time_s for _, time_s in hour.nods], bins=30, range=(0, 1800))[0] / 2
    assert per_minute.min() >= 5
    assert per_minute.max() <= 20


def test_blinks_come_at_a_natural_rate(hour: Run) -> None:
    is_closed = hour.coefficients[..., BLINK] > 0.5
    begins = is_closed[:, 1:] & ~is_closed[:, :-1]
    per_minute = begins.sum(axis=1) / 30
    assert ((per_minute >= 13) & (per_minute <= 18)).all()
    gaps = np.diff(np.flatnonzero(begins[0])) / 25
    assert gaps.min() >= habit("blink_least") - 0.04
    assert 0.5 < np.log(gaps).std() < 0.7
    assert is_closed[0].mean() < 0.08


def test_lids_close_all_the_way_and_open_again(hour: Run) -> None:
    closed = hour.coefficients[0, :, BLINK]
    assert closed.min() == 0
    assert closed.max() == pytest.approx(1, abs=1e-6)
    assert np.median(closed) == 0


def test_it_breathes_all_the_time_at_a_natural_rate_and_never_leaps(hour: Run) -> None:
    rise = hour.coefficients[..., 56].astype(np.float64)
    lungs = rise > habit("breath_rise") / 2
    breaths = (lungs[:, 1:] & ~lungs[:, :-1]).sum(axis=1) / 30
    assert ((breaths >= 14) & (breaths <= 16)).all()
    lasts = np.diff(np.flatnonzero(lungs[0, 1:] & ~lungs[0, :-1])) / 25
    assert lasts.min() >= 60 / habit("breaths") * (1 - 2 * habit("breath_spread")) - 0.3
    assert lasts.max() <= 60 / habit("breaths") * (1 + 2 * habit("breath_spread")) + 0.3
    assert 0.05 < lasts.std() / lasts.mean() < 0.13
    steepest = (
        1.5 * habit("breath_rise") / (habit("breath_in") * 60 / habit("breaths") * (1 - 2 * habit("breath_spread")))
    )
    assert np.abs(np.diff(rise)).max() < steepest / 25 * 1.01
    assert np.abs(rise[0] - rise[1]).max() > habit("breath_rise") / 2, "both breathe at once"


def test_weights_of_the_expression_are_in_their_range(hour: Run) -> None:
    expression = hour.coefficients[..., :52]
    assert expression.min() >= 0
    assert expression.max() <= 1
    assert (hour.coefficients[..., 55] == 0).all()
    assert 0 <= hour.coefficients[..., 56].min() < 1e-4
    assert hour.coefficients[..., 56].max() == pytest.approx(habit("breath_rise"), rel=0.01)
    assert hour.coefficients[..., 57].min() >= 0
    assert hour.coefficients[..., 57].max() <= habit("attention_near")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 20), st.floats(0, 3))
def test_velocity_and_acceleration_are_bounded(seed: int, wildness: float, turns: float) -> None:
    rng = np.random.default_rng(seed)
    face = (turns * rng.standard_normal((60 * HOP, 58))).astype(np.float32)

    def noise(_: int, __: int, size: int) -> Array:
        return np.asarray(wildness * rng.standard_normal(size), np.float32)

    sound = np.zeros(60 * PIECE, np.float32)
    made = steps(generator(cast(Any, Scripted())), sound, noise, 2, face)
    angles = np.degrees(np.concatenate([segment for segment, _ in made], axis=1)[..., 52:55].astype(np.float64))
    speed = np.diff(angles, axis=1) * 25
    assert np.abs(speed).max() <= habit("most_speed") + 1e-3
    assert np.abs(np.diff(speed, axis=1)).max() * 25 <= habit("most_change") + 0.1
    assert np.abs(angles).max() < 30


@settings(max_examples=50, deadline=None)
@given(st.floats(0.5, 30), st.floats(-30, 30), st.floats(-100, 100), st.integers(1, 100))
def test_following_exactly_does_not_depend_on_the_steps(rate: float, away: float, speed: float, n_steps: int) -> None:
    at_once = gestures.follow(np.array(away), np.array(speed), np.zeros(()), rate, 0.5)
    position, velocity = np.array(away), np.array(speed)
    for _ in range(n_steps):
        position, velocity = gestures.follow(position, velocity, np.zeros(()), rate, 0.5 / n_steps)
    np.testing.assert_allclose([position, velocity], at_once, atol=1e-6)


def test_the_idle_head_has_the_deviation_of_the_table_and_no_corners() -> None:
    noise = np.random.default_rng(0).standard_normal((200, 2000, 3, 2))
    angles, _ = gestures.sway(gestures.no_sway(200), 0.04, noise)
    late = angles[:, 200:]
    wanted = [habit(f"idle_{axis}") for axis in ("pitch", "yaw", "roll")]
    np.testing.assert_allclose(late.std(axis=(0, 1)), wanted, rtol=0.15)
    assert (np.abs(late).max(axis=(0, 1)) <= habit("idle_most") * np.array(wanted)).all()
    assert np.abs(np.diff(late, axis=1)).max() < 0.4


def test_a_nod_is_a_row_of_dips_that_begins_and_ends_at_rest() -> None:
    nods = gestures.plan_nod(gestures.no_nods(1), 0.2, np.array([[0, 0, 0, 0, 1.2]]), Manner("pause", "pause_wait"))
    pitch = gestures.nod_pitch(nods, np.arange(0, 2, 0.001))[0]
    period = habit("nod_period")
    assert pitch[:200].max() == 0
    assert pitch[int(1000 * (0.2 + 3 * period)) + 1 :].max() == 0
    tops = [pitch[int(1000 * (0.2 + (dip + 0.5) * period))] for dip in range(3)]
    np.testing.assert_allclose(tops, habit("nod_deg") * habit("nod_fading") ** np.arange(3), rtol=1e-3)


def test_listeners_differ_and_a_seed_repeats() -> None:
    sound = dialogue()[: 6 * RATE_HZ]
    first, again, other = (run(sound, seed=seed).coefficients for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    for one in range(4):
        for two in range(one):
            assert np.abs(first[one] - first[two]).max() > 0.01
    np.testing.assert_array_equal(run(sound, seed=1, samples=2).coefficients, first[:2])


def test_a_step_changes_nothing_that_it_was_given() -> None:
    listener = generator()
    state = listener.start(2)
    speaker = {"audio": white_noise(SEGMENT_S).reshape(HOP, 640), "coefficients": turning_head(HOP)}
    noise = np.ones((2, listener.noise_size), np.float32)
    before = {name: value.copy() for name, value in {**state, **speaker}.items()}
    first = listener.step(speaker, state, noise)
    second = listener.step(speaker, state, noise)
    np.testing.assert_array_equal(first[0].coefficients, second[0].coefficients)
    assert first[0].coefficients.shape == (2, HOP, 58)
    assert first[0].coefficients.dtype == np.float32
    for name, value in {**state, **speaker}.items():
        np.testing.assert_array_equal(value, before[name])
    for name, value in first[1].items():
        assert value.shape == state[name].shape
        assert value.dtype == state[name].dtype


def looks_deg(run: Run, sample: int) -> Array:
    """Where the eyes look beside the speaker's middle, up and to the picture's left, [T, 2]."""
    by_name = {name: run.coefficients[sample, :, index].astype(float) for index, name in enumerate(ARKIT_NAMES)}
    attention = run.coefficients[sample, :, 57] / habit("attention_near")
    share = habit("attention_gaze") + (1 - habit("attention_gaze")) * attention
    up, left = (
        by_name["eyeLookUpLeft"] - by_name["eyeLookDownLeft"],
        by_name["eyeLookOutLeft"] - by_name["eyeLookInLeft"],
    )
    np.testing.assert_array_equal(up, by_name["eyeLookUpRight"] - by_name["eyeLookDownRight"])
    np.testing.assert_array_equal(left, by_name["eyeLookInRight"] - by_name["eyeLookOutRight"])
    turned = habit("eye_deg") * np.stack([up, left], axis=1)
    return np.asarray(turned - share[:, None] * run.angles_deg[sample, :, :2])


def test_the_eyes_stay_with_the_speaker_while_the_head_turns(hour: Run) -> None:
    assert np.abs(hour.angles_deg[0, :, :2]).max() > 5
    for sample in range(2):
        looks = looks_deg(hour, sample)
        assert np.abs(looks).max(axis=0) == pytest.approx([2 * habit("glance_up"), 2 * habit("glance_aside")], rel=0.01)
        assert np.abs(looks.mean(axis=0)).max() < 0.25
        assert looks.std(axis=0) == pytest.approx([habit("glance_up"), habit("glance_aside")], rel=0.2)


def test_the_eyes_rest_on_a_point_and_step_to_the_next_within_a_frame(hour: Run) -> None:
    looks = looks_deg(hour, 0)
    steps = np.flatnonzero(np.abs(np.diff(looks, axis=0)).max(axis=1) > 1e-3)
    lasts = np.diff(steps) / 25
    assert lasts.min() >= habit("glance_least") - 0.05
    assert lasts.max() <= habit("glance_most") + 0.05
    assert lasts.mean() == pytest.approx(habit("glances_for"), rel=0.1)
    assert len(steps) > 1000


# --- how it fits in


def test_its_segments_wait_for_nothing() -> None:
    made: Generator = make_generator(INFO, {})
    assert (made.window, made.hop, made.lead, made.opening) == (HOP, HOP, HOP, 0)
    assert [reach(made, segment) for segment in range(3)] == [0, 8, 16]
    assert delay_frames(made, 0) == 1
    assert tuple(INFO.needs) == made.needs


@pytest.mark.parametrize(("window", "hop"), [(6, 6), (16, 8)])
def test_a_hop_that_it_cannot_hear_in_is_refused(window: int, hop: int) -> None:
    info = GeneratorInfo(name="backchannel", window=window, hop=hop, needs=[], graphs={})
    with pytest.raises(BundleError, match=f"window of {window} and a hop of {hop} frames; both must be the same"):
        make_generator(info, {})


def test_it_takes_landmarks_by_itself_and_others_do_not() -> None:
    assert default_sources("backchannel") == {"coefficients": "landmarks/5"}
    assert default_sources("perfrdiff") == default_sources("unknown") == {}
    assert isinstance(open_extractor("landmarks/5", "coefficients", np.zeros(58)), Every)
    with pytest.raises(ExtractorError, match="Landmarks give coefficients, no emotion"):
        open_extractor("landmarks/5", "emotion", np.zeros(58))


def test_a_listener_of_it_starts_without_any_source() -> None:
    with (
        fake_listener(manifest=fake_manifest(generator=INFO)) as listener,
        listener.stream(speaker=SpeakerSettings(region=REGION)) as stream,
    ):
        stream.push(video=frames_of(20), audio=sound_of(20))
        assert len(list(stream.pull())) == 20


@pytest.mark.parametrize("lookahead", [0, 3])
def test_beside_a_gpu_it_reacts_as_beside_a_cpu(lookahead: int) -> None:
    def shown(listener: Listener) -> list[tuple[bytes, bytes]]:
        with listener, listener.stream(speaker=SpeakerSettings(region=REGION), samples=2, seed=5) as stream:
            stream.push(video=frames_of(30), audio=sound_of(30))
            stream.finish()
            return [(frame.image.tobytes(), frame.coefficients.tobytes()) for frame in stream.pull()]

    extractors = {"coefficients": Numbered()}
    options: dict[str, Any] = {"manifest": fake_manifest(generator=INFO), "extractors": extractors}
    expected = shown(fake_listener(lookahead=lookahead, **options))
    assert len(expected) == 60
    assert shown(gpu_listener(lookahead=lookahead, **options)) == expected


class Numbered:
    """Tells the number of the frame."""

    size = 58

    def extract(self, picture: Array | None, frame: int) -> Array:
        return np.full(58, frame, np.float32)


def test_an_extractor_looks_at_some_frames_only() -> None:
    every = Every(Numbered(), 5)
    told = [every.extract(np.zeros((1, 1, 3), np.uint8), frame) for frame in range(11)]
    assert [frame for frame, numbers in enumerate(told) if numbers is not None] == [0, 5, 10]
    assert every.size == 58
    with pytest.raises(ExtractorError, match="Every 0 frames is never"):
        Every(Numbered(), 0)
    assert [source_name(text) for text in ("landmarks", "landmarks/5", "a/b.npy")] == [
        "landmarks",
        "landmarks/5",
        "b.npy",
    ]


# --- what is written about it


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    lines = (MEDIA.parent.parent / "docs" / "backchannel.md").read_text(encoding="utf-8").splitlines()
    rows = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in lines if line.startswith("| `")]
    assert rows == [
        (f"`{name}`", f"{entry.value:g} {entry.unit}".strip(), entry.meaning, entry.source)
        for name, entry in HABITS.items()
    ]
