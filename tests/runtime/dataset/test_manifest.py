"""Rows out of folders, tables and lines of JSON; what cannot be meant is named with its line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pflx.engines import FeedError
from pflx.runtime.dataset import Row, RowError, read_rows
from pflx.runtime.dataset.rows import check_rows, shard_of


def test_a_folder_gives_all_clips_below_it_by_their_paths(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/2.MKV", "a/10.mp4", "a/.hidden.mp4", ".git/x.mp4", "a/notes.txt", "a/voice.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert read_rows(tmp_path) == [
        Row(id="a/10", speaker=tmp_path / "a/10.mp4"),
        Row(id="a/2", speaker=tmp_path / "a/2.MKV"),
        Row(id="b", speaker=tmp_path / "b.mp4"),
    ]


def test_clips_of_one_name_are_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.mov").touch()
    with pytest.raises(RowError, match=r"a\.mov and .*a\.mp4 would both be 'a'\. Rename one"):
        read_rows(tmp_path)


def test_a_table_and_lines_of_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "\ufeffspeaker, id,portrait,seed,coefficients,emotion,listener,sound\n"
        "clips/a.mp4,,,,,,,\n"
        "\n"
        f'{tmp_path}/b.mp4, "x/b, 2",me.png, 7,b.npy,b.csv,true.npy,b.wav\n'
    )
    fields = [
        {"speaker": "clips/a.mp4", "seed": None},
        {
            "speaker": f"{tmp_path}/b.mp4",
            "id": "x/b, 2",
            "portrait": "me.png",
            "seed": 7,
            "coefficients": "b.npy",
            "emotion": "b.csv",
            "listener": ["true.npy"],
            "sound": "b.wav",
        },
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, fields)) + "\n\n")
    expected = [
        Row(id="clips/a", speaker=tmp_path / "clips/a.mp4"),
        Row(
            id="x/b, 2",
            speaker=tmp_path / "b.mp4",
            portrait=tmp_path / "me.png",
            seed=7,
            coefficients=tmp_path / "b.npy",
            emotion=tmp_path / "b.csv",
            listener=(tmp_path / "true.npy",),
            sound=tmp_path / "b.wav",
        ),
    ]
    assert read_rows(tmp_path / "rows.csv") == expected
    assert read_rows(tmp_path / "rows.jsonl") == expected


def test_a_row_without_an_id_outside_of_the_folder_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("speaker\n/far/away/one.mp4\n../two.mp4\n")
    assert [row.id for row in read_rows(tmp_path / "rows.csv")] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.csv", "speaker,seed\na.mp4,1\nb.mp4,-1\n", "line 3: seed is '-1'; give a whole number, 0 or more."),
        ("r.csv", "speaker,seed\na.mp4,1.5\n", "line 2: seed is '1.5'; give a whole number, 0 or more."),
        ("r.csv", "speaker,sead\na.mp4,1\n", "line 2: there is no field 'sead'. Fields are id, speaker, sound, "),
        ("r.csv", "id,speaker\nx,\n", "line 2: speaker is missing. Give the clip to react to."),
        ("r.csv", "id,speaker\nx,a.mp4,b\n", "line 2: there are more cells than names. Quote commas."),
        ("r.csv", 'speaker\n"a.mp4\n', "unexpected end of data. Repair it."),
        ("r.csv", "id,speaker\nx,a.mp4\ny,b.mp4\nx,c.mp4\n", "line 4: id 'x' is that of line 2, too."),
        ("r.csv", "id,speaker\n../x,a.mp4\n", "line 2: id '../x' is no relative path without parts that"),
        ("r.csv", "id,speaker\nx:y,a.mp4\n", "line 2: id 'x:y' has ':' in it"),
        ("r.csv", "speaker\n", "names no speaker. Give a line for each."),
        ("r.csv", b"speaker\n\xff.mp4\n", "is not UTF-8 (byte 8). Save it as UTF-8."),
        ("r.jsonl", '{"speaker": "a.mp4"}\n{"speaker"', "line 2: no JSON ("),
        ("r.jsonl", '["a.mp4"]\n', 'line 1: no object of fields. Give one like {"speaker": "a.mp4"}.'),
        ("r.jsonl", '{"speaker": 3}\n', "line 1: speaker is 3; give text."),
        ("r.jsonl", '{"speaker": "a.mp4", "seed": true}\n', "line 1: seed is 'True'; give a whole number"),
        ("r.jsonl", '{"speaker": "a.mp4", "listener": [1]}\n', "line 1: listener is 1; give text."),
        ("r.txt", "a.mp4\n", "is no folder and no manifest. Give a folder of clips, a .csv or a .jsonl."),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_line_and_field(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RowError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_what_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"none\.csv does not exist\. Check the path\."):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(RowError, match=r"holds no clip \(\.3gp, .*\)\. Give a folder of clips, or a manifest\."):
        read_rows(tmp_path)
    with pytest.raises(RowError, match="There is no row to react to"):
        check_rows([])


def test_ids_that_are_one_file_where_case_does_not_count_are_refused() -> None:
    with pytest.raises(RowError, match="Two rows have the id 'A', as 'a' is on systems that ignore case"):
        check_rows([Row(id="A", speaker=Path("1.mp4")), Row(id="a", speaker=Path("2.mp4"))])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 11])
def test_all_shards_together_are_all_rows(count: int) -> None:
    rows = [Row(id=str(index), speaker=Path("a.mp4")) for index in range(7)]
    shards = [shard_of(rows, number, count) for number in range(1, count + 1)]
    assert sorted(row.id for shard in shards for row in shard) == [row.id for row in rows]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("number", "count"), [(0, 2), (3, 2), (1, 0)])
def test_a_shard_that_is_none_is_refused(number: int, count: int) -> None:
    with pytest.raises(FeedError, match=f"Shard {number} of {count} is none"):
        shard_of([], number, count)


def test_a_seed_depends_on_the_id_and_the_data_sets_seed_alone() -> None:
    one, other = Row(id="a", speaker=Path("1.mp4")), Row(id="b", speaker=Path("1.mp4"))
    assert one.reaction_seed(0) == Row(id="a", speaker=Path("2.mp4")).reaction_seed(0) == 2372608467
    assert len({one.reaction_seed(0), one.reaction_seed(1), other.reaction_seed(0)}) == 3
    assert Row(id="a", speaker=Path("1.mp4"), seed=5).reaction_seed(0) == 5
