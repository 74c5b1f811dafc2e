"""A data set on one process: what is written, what is not written again, what is refused, what fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.dataset.sets import ONE_SECOND, PODIUM, WEBCAM, arrays_of, files_of, leftovers, some_rows
from support.fakes import write_fake_bundle
from support.places import MEDIA

from pflx.engines import Bundle, FeedError, OutputError
from pflx.runtime import ChainSettings, Listener, open_speaker
from pflx.runtime.builtin import export_builtin
from pflx.runtime.dataset import DatasetSettings, Row, RowResult, SealError, collect, react_dataset
from pflx.runtime.dataset.dataset import read_index
from pflx.runtime.dataset.maker import INDEX
from pflx.runtime.dataset.seal import difference, settings_seal
from pflx.runtime.evaluation import read_predictions

PORTRAIT = MEDIA / "portrait_astronaut_256.png"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "out"
    assert statuses(react_dataset(some_rows(4), folder, settings=ONE_SECOND)) == ["made"] * 4
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def statuses(results: Iterable[RowResult]) -> list[str]:
    return [result.status for result in results]


def test_a_row_holds_what_a_listener_gives_and_what_it_was_made_with(made: Path) -> None:
    row = some_rows(4)[3]
    arrays = arrays_of(made / "0/3.npz")
    seed = row.reaction_seed(0)
    with Listener.open(render=False) as listener:
        clip = open_speaker(row.speaker).limited(1.0)
        frames = list(listener.react(clip, samples=2, seed=seed, render=False))
    expected = np.stack([frame.coefficients for frame in frames]).reshape(-1, 2, 58).swapaxes(0, 1)
    np.testing.assert_array_equal(arrays["coefficients"], expected)
    assert arrays["coefficients"].shape == (2, 25, 58)
    seal = json.loads(arrays["seal"].tobytes())
    assert seal["row seed"] == seed
    assert seal["speaker"] == {"name": WEBCAM.name, "bytes": WEBCAM.stat().st_size}
    assert (seal["samples"], seal["seed"], seal["pictures"], len(seal["bundle"])) == (2, 0, None, 64)
    assert read_predictions(made / "0/3.npz").shape == (1, 2, 25)


def test_rows_of_one_clip_differ_by_their_ids_and_not_by_their_neighbours(made: Path, tmp_path: Path) -> None:
    rows = some_rows(4)
    alone = tmp_path / "alone"
    list(react_dataset([rows[2]], alone, settings=ONE_SECOND))
    assert files_of(alone)["2/2"] == files_of(made)["2/2"]
    one, other = (arrays_of(made / f"{name}.npz")["coefficients"] for name in ("0/0", "2/2"))
    assert not np.array_equal(one, other)


def test_what_is_done_is_not_done_again(copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*.npz")}
    (copied / "1/1.npz").unlink()
    results = list(react_dataset(some_rows(5), copied, settings=ONE_SECOND))
    assert {result.row.id: result.status for result in results} == {
        "0/0": "there",
        "2/2": "there",
        "0/3": "there",
        "1/1": "made",
        "1/4": "made",
    }
    assert [(result.done, result.total) for result in results] == [(number, 5) for number in range(1, 6)]
    after = {path: path.stat().st_mtime_ns for path in copied.rglob("*.npz")}
    assert [path for path, time in before.items() if after[path] != time] == [copied / "1/1.npz"]


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b""])
def test_a_damaged_file_counts_as_not_done(copied: Path, made: Path, damage: Callable[[bytes], bytes]) -> None:
    path = copied / "0/0.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert sorted(statuses(react_dataset(some_rows(4), copied, settings=ONE_SECOND))) == ["made"] + ["there"] * 3
    assert files_of(copied) == files_of(made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 3}, "samples 2, not 3"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"duration_s": 2.0}, "duration_s 1.0, not 2.0"),
        ({"duration_s": None}, "duration_s 1.0, not null"),
        ({"chain": ChainSettings(crop="floating")}, "crop release, not floating"),
        (
            {"chain": ChainSettings(generator_history="adjusted")},
            "generator_history generated, not adjusted",
        ),
        ({"video": True}, 'pictures null, not {"lookahead": 13, "renderer": null}'),
    ],
)
def test_another_setting_is_refused_and_nothing_is_touched(copied: Path, change: dict[str, object], said: str) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*.*")}
    settings = replace(ONE_SECOND, **change)  # type: ignore[arg-type]
    with pytest.raises(SealError) as caught:
        react_dataset(some_rows(4), copied, settings=settings, portrait=PORTRAIT)
    assert str(caught.value) == (
        f"{copied / '0/0.npz'} was made with {said}. Choose another folder, or have what was made otherwise made again"
        ": --redo, in Python redo=True."
    )
    assert {path: path.read_bytes() for path in copied.rglob("*.*")} == before


def test_without_posnet_is_another_setting_where_there_is_posnet(tmp_path: Path, copied: Path) -> None:
    without = replace(ONE_SECOND, chain=ChainSettings(posnet=False))
    bundle = Bundle.open(write_fake_bundle(tmp_path / "me.pflx"), verify=False)
    assert difference(settings_seal(bundle, ONE_SECOND), settings_seal(bundle, without)) == (
        "was made with posnet true, not false"
    )
    assert statuses(react_dataset(some_rows(4), copied, settings=without)) == ["there"] * 4  # nods leave no seams


def test_rows_and_what_is_collected_of_them_tell_how_the_chain_was_changed(tmp_path: Path) -> None:
    settings = replace(ONE_SECOND, samples=1, chain=ChainSettings(crop="floating"))
    assert statuses(react_dataset(some_rows(2), tmp_path / "out", settings=settings)) == ["made"] * 2
    arrays = arrays_of(tmp_path / "out" / "0/0.npz")
    assert (arrays["crop"].item(), arrays["posnet"].item(), arrays["generator_history"].item()) == (
        "floating",
        False,
        "generated",
    )
    found = collect(tmp_path / "out").arrays
    assert (found["crop"].item(), found["posnet"].item()) == ("floating", False)


def test_another_bundle_or_clip_is_refused(copied: Path, tmp_path: Path) -> None:
    export_builtin(tmp_path / "other.pflx")
    with pytest.raises(SealError, match=r"0/0\.npz was made with bundle [0-9a-f]{12}…, not [0-9a-f]{12}…\."):
        react_dataset(some_rows(4), copied, bundle=tmp_path / "other.pflx", settings=ONE_SECOND)
    rows = [replace(row, speaker=WEBCAM) for row in some_rows(4)]
    with pytest.raises(SealError, match=r'0/0\.npz was made with speaker {"bytes": 173378, "name": "podium_'):
        react_dataset(rows, copied, settings=ONE_SECOND)


def test_what_was_made_otherwise_is_made_again_where_that_is_wanted(copied: Path, made: Path) -> None:
    settings = replace(ONE_SECOND, seed=1)
    results = react_dataset(some_rows(4), copied, settings=settings, redo=True)
    next(results)
    next(results)  # then it is interrupted
    results.close()
    assert sum(files_of(copied)[name] != files_of(made)[name] for name in files_of(made)) == 2
    redone = react_dataset(some_rows(4), copied, settings=settings, redo=True)
    assert statuses(redone) == ["there"] * 2 + ["made"] * 2
    assert read_index(copied).seal["seed"] == 1


def test_a_folder_of_something_else_is_refused(tmp_path: Path, copied: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"full holds other files\. Choose a new folder"):
        react_dataset(some_rows(1), tmp_path / "full")
    with pytest.raises(OutputError, match=r"thesis\.txt is no folder that can be read: Not a directory"):
        react_dataset(some_rows(1), tmp_path / "full" / "thesis.txt")
    with pytest.raises(OutputError, match=r"The folder .*/no/out cannot be made: No such file or directory"):
        react_dataset(some_rows(1), tmp_path / "no" / "out")
    with pytest.raises(SealError, match="is of 3 rows that are not among these, like '1/1'"):
        react_dataset(some_rows(1), copied, settings=ONE_SECOND)


def test_a_bad_row_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(b"no clip at all" * 100)
    rows = [Row(id="bad", speaker=noise), Row(id="lost/one", speaker=tmp_path / "none.mp4"), some_rows(1)[0]]
    results = list(react_dataset(rows, tmp_path / "out", settings=ONE_SECOND))
    assert statuses(results) == ["failed", "failed", "made"]
    for result in results[:2]:
        note = tmp_path / "out" / f"{result.row.id}.failed.json"
        assert json.loads(note.read_text()) == {"error": result.error}
        assert str(result.row.speaker) in (result.error or "")
    shutil.copyfile(PODIUM, noise)
    again = list(react_dataset(rows, tmp_path / "out", settings=ONE_SECOND))
    assert {result.row.id: result.status for result in again} == {"0/0": "there", "bad": "made", "lost/one": "failed"}
    assert not (tmp_path / "out" / "bad.failed.json").exists()


def test_a_fault_that_nobody_foresaw_is_of_its_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    react = Listener.react

    def failing(listener: Listener, clip: object, **options: object) -> object:
        if options["seed"] == 5:
            raise ZeroDivisionError("by chance")
        return react(listener, clip, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Listener, "react", failing)
    rows = [replace(some_rows(1)[0], seed=5), some_rows(2)[1]]
    results = list(react_dataset(rows, tmp_path / "out", settings=ONE_SECOND))
    assert [result.error for result in results] == ["ZeroDivisionError: by chance", None]


def test_with_videos_each_reaction_is_one_with_its_rows_portrait(tmp_path: Path) -> None:
    Image.open(PORTRAIT).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "me.png")
    rows = [
        Row(id="a", speaker=PODIUM, portrait=tmp_path / "me.png"),
        Row(id="b", speaker=PODIUM, portrait=PODIUM),
        Row(id="c", speaker=PODIUM, portrait=tmp_path / "none.png"),
    ]
    settings = DatasetSettings(samples=2, duration_s=0.4, video=True)
    assert statuses(react_dataset(rows, tmp_path / "out", settings=settings)) == ["made", "made", "failed"]
    pictures = {
        name: np.concatenate([chunk.video for chunk in open_speaker(tmp_path / "out" / f"{name}.mp4").chunks()])
        for name in ("a-0", "a-1", "b-0", "b-1")
    }
    assert {shown.shape for shown in pictures.values()} == {(10, 256, 256, 3)}
    assert np.abs(pictures["a-0"].mean(0) - pictures["b-0"].mean(0)).mean() > 10
    assert open_speaker(tmp_path / "out" / "a-0.mp4").has_audio
    bare = [Row(id=row.id, speaker=PODIUM) for row in rows[:1]]
    with pytest.raises(FeedError, match="Row 'a' has no portrait, and pictures are wanted"):
        react_dataset(bare, tmp_path / "new", settings=settings)
    (tmp_path / "out" / "b-1.mp4").unlink()
    again = {r.row.id: r.status for r in react_dataset(rows, tmp_path / "out", settings=settings)}
    assert again == {"a": "there", "b": "made", "c": "failed"}


def test_pictures_change_no_number(tmp_path: Path, made: Path) -> None:
    rows = some_rows(1)
    list(react_dataset(rows, tmp_path / "out", settings=replace(ONE_SECOND, video=True), portrait=PORTRAIT))
    drawn, bare = arrays_of(tmp_path / "out/0/0.npz"), arrays_of(made / "0/0.npz")
    for name in bare.keys() - {"seal"}:
        np.testing.assert_array_equal(drawn[name], bare[name])


def test_shards_on_several_machines_make_the_whole(tmp_path: Path, made: Path) -> None:
    rows = some_rows(4)
    assert len(list(react_dataset(rows, tmp_path / "out", settings=ONE_SECOND, shard=(2, 2)))) == 2
    assert len(list(react_dataset(rows, tmp_path / "out", settings=ONE_SECOND, shard=(1, 2)))) == 2
    assert files_of(tmp_path / "out") == files_of(made)
    assert (tmp_path / "out" / INDEX).read_bytes() == (made / INDEX).read_bytes()


def test_it_stops_between_rows_when_asked(tmp_path: Path, made: Path) -> None:
    seen: list[RowResult] = []
    results = react_dataset(some_rows(4), tmp_path / "out", settings=ONE_SECOND, should_stop=lambda: len(seen) == 2)
    for result in results:
        seen.append(result)
    assert len(seen) == len(files_of(tmp_path / "out")) == 2
    assert statuses(react_dataset(some_rows(4), tmp_path / "out", settings=ONE_SECOND)) == ["there"] * 2 + ["made"] * 2
    assert files_of(tmp_path / "out") == files_of(made)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers is 0; give 1 to"),
        ({"workers": 100_000}, "workers is 100000; give 1 to"),
        ({"workers": 100_000, "ray": "local"}, "workers is 100000; give 1 to"),
        ({"shard": (2, 1)}, "Shard 2 of 1 is none."),
        ({"settings": DatasetSettings(samples=0)}, "samples is 0; give 1 to 100 reactions."),
        ({"settings": DatasetSettings(lookahead=14)}, "lookahead is 14; "),
        ({"settings": DatasetSettings(seed=-1)}, "seed is -1; take 0 or more."),
        ({"settings": DatasetSettings(duration_s=0.0)}, "A clip cannot be cut to 0.0 s."),
    ],
)
def test_a_setting_out_of_range_is_refused_before_any_work(
    tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(FeedError, match=said):
        react_dataset(some_rows(1), tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_there", [False, True])
def test_settings_that_the_bundle_does_not_take_leave_nothing_behind(tmp_path: Path, is_there: bool) -> None:
    folder = tmp_path / "out"
    if is_there:
        folder.mkdir()
    settings = replace(ONE_SECOND, chain=ChainSettings(generator_history="adjusted"))
    with pytest.raises(FeedError, match="does not look back on what it made"):
        list(react_dataset(some_rows(1), folder, settings=settings))
    assert folder.is_dir() == is_there
    assert [*tmp_path.rglob("*")] == [folder] * is_there


def test_settings_that_the_bundle_does_not_take_leave_what_was_made(copied: Path) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file() and path.name != INDEX}
    settings = replace(ONE_SECOND, chain=ChainSettings(generator_history="adjusted"))
    with pytest.raises(FeedError, match="does not look back on what it made"):
        list(react_dataset(some_rows(4), copied, settings=settings, redo=True))
    assert (copied / INDEX).is_file()
    assert {path: path.read_bytes() for path in before} == before
