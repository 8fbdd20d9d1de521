"""Data sets and frames of the real packages, taken as they are, and image folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas
import polars
import pyarrow as arrow
import pytest
from PIL import Image

import internvl_modal as ivl
from tests.batch.conftest import make_pictures
from tests.batch.sources import found, items, keys, outcomes_of, png

COUNT = 130
"""More than two chunks of rows."""


@pytest.fixture(autouse=True)
def quiet_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table() -> dict[str, list[Any]]:
    pictures = [{"bytes": png(n), "path": f"{n % 3}.png"} for n in range(COUNT)]
    return {"photo": pictures, "n": [f"k{n}" for n in range(COUNT)]}


def data_set() -> datasets.Dataset:
    made = datasets.Dataset.from_dict(table())
    return made.cast_column("photo", datasets.Image())


EVERYTHING = {f"k{n}": png(n) for n in range(COUNT)}


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made,
        lambda made: made.to_iterable_dataset(),
        lambda made: made.to_iterable_dataset(num_shards=4),
        lambda made: made.with_format("numpy"),
        lambda made: made.to_iterable_dataset().with_format("numpy"),
        lambda made: made.cast_column("photo", datasets.Image(decode=False)),
        lambda made: made.data.table,
    ],
)
def test_data_sets(change: Callable[[datasets.Dataset], Any]) -> None:
    assert found(change(data_set()), column="photo", key="n") == EVERYTHING


def test_data_sets_of_few_words() -> None:
    made = data_set().rename_columns({"photo": "image", "n": "id"})
    assert found(made) == EVERYTHING
    assert found(made.remove_columns("id")) == {f"#{n}": png(n) for n in range(COUNT)}
    assert found(made.select([5, 3])) == {"k5": png(5), "k3": png(3)}
    several = made.map(lambda row: {"id": row["id"]}).select(range(2)).to_list()
    rows = [{"images": [row["image"]] * 2, "key": row["id"]} for row in several]
    features = datasets.Features(
        {"images": datasets.List(datasets.Image()), "key": datasets.Value("string")}
    )
    assert found(datasets.Dataset.from_list(rows, features=features)) == {
        f"k{n}": [png(n)] * 2 for n in range(2)
    }


def test_a_transform_of_ones_own_is_kept() -> None:
    made = data_set().with_transform(
        lambda rows: {
            "image": [each.rotate(90) for each in rows["photo"]],
            "key": [f"turned {n}" for n in rows["n"]],
        }
    )
    taken = found(made)
    assert list(taken)[:2] == ["turned k0", "turned k1"]
    assert all(isinstance(each, Image.Image) for each in taken.values())


def test_a_damaged_picture_in_a_data_set_is_its_own_failure(client: ivl.Client) -> None:
    rows = table()
    rows["photo"][64] = {"bytes": b"no picture", "path": None}
    rows["photo"][65] = None
    made = datasets.Dataset.from_dict(rows).cast_column("photo", datasets.Image())
    outcomes, error = outcomes_of(client, made, column="photo", key="n", out="out.jsonl")
    assert error is None
    assert keys(outcomes, ok=False) == {"k64", "k65"}
    assert len(keys(outcomes, ok=True)) == COUNT - 2
    assert not list(client.describe_many(made, column="photo", key="n", out="out.jsonl", detail=1))


def test_a_streamed_data_set_that_raises(client: ivl.Client) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for number in range(30):
            yield {"photo": {"bytes": png(number), "path": None}, "n": number}
        raise OSError("the line is dead")

    features = datasets.Features({"photo": datasets.Image(), "n": datasets.Value("int64")})
    streamed = datasets.IterableDataset.from_generator(rows, features=features)
    outcomes, error = outcomes_of(client, streamed, column="photo", key="n")
    assert "the line is dead" in str(error)
    assert {int(key) for key in keys(outcomes, ok=True)} == set(range(30))


def test_several_splits_are_asked_for_one() -> None:
    with pytest.raises(ivl.ConfigError, match=r"DatasetDict is several.*pass one.*'train', 'test'"):
        items(datasets.DatasetDict({"train": data_set(), "test": data_set()}))


@pytest.mark.parametrize("frame", [pandas.DataFrame, polars.DataFrame])
def test_frames(frame: Any) -> None:
    assert found(frame(table()), column="photo", key="n") == EVERYTHING
    paths = {
        "Path": ["a.png", None, "c.png", "d.png"],
        "url": [None, "https://x.org/b", None, None],
        "key": ["a", None, 0, "d"],
    }
    if frame is polars.DataFrame:
        paths["key"][2] = "0"
    assert found(frame(paths)) == {
        "a": "a.png",
        "https://x.org/b": "https://x.org/b",
        "0": "c.png",
        "d": "d.png",
    }
    assert found(frame({"image": ["a.png", None]})) == {"a.png": "a.png", "#1": []}
    with pytest.raises(ivl.ConfigError, match=r"no column of pictures.*are caption"):
        items(frame({"caption": ["a"]}))


@pytest.mark.parametrize("kind", ["float64", "float32", "Float64", "Int64", "object"])
def test_whole_numbers_beside_a_missing_one_are_keys(kind: str) -> None:
    frame = pandas.DataFrame({"id": [1, None, 3], "image": [png(n) for n in range(3)]})
    frame["id"] = frame["id"].astype(kind)
    if kind == "object":
        frame["id"] = pandas.Series([1, None, 3], dtype=object)
    no_key = "has no key: its column id is empty"
    assert found(frame, key="id") == {"1": png(), "row 1": no_key, "3": png(2)}
    assert set(found(frame)) == {"1", "#1", "3"}
    halves = pandas.DataFrame({"id": [1.0, 2.5], "image": [png(), png(1)]})
    assert set(found(halves)) == {"1", "2.5"}
    ends = pandas.DataFrame({"id": [1.0, float("inf")], "image": [png(), png(1)]})
    assert set(found(ends)) == {"1", "inf"}
    frame.to_parquet("a.parquet")
    assert set(found("a.parquet")) == {"1", "a.parquet#1", "3"}
    assert set(found(datasets.Dataset.from_pandas(frame))) == {"1", "#1", "3"}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "polars", "datasets", "rows"])
def test_a_row_without_the_key_that_was_asked_for(kind: str) -> None:
    rows = [{"id": "a", "image": "a.png"}, {"id": None, "image": "b.png"}]
    frame = pandas.DataFrame(rows)
    given: Any = f"list.{kind}"
    if kind == "csv":
        frame.to_csv(given, index=False)
    elif kind == "jsonl":
        frame.to_json(given, orient="records", lines=True)
    elif kind == "parquet":
        frame.to_parquet(given)
    elif kind == "polars":
        given = polars.DataFrame(rows)
    else:
        given = datasets.Dataset.from_list(rows) if kind == "datasets" else rows
    lost = f"{given}#1" if isinstance(given, str) else "row 1"
    assert found(given, key="id") == {"a": "a.png", lost: "has no key: its column id is empty"}
    assert set(found(given)) == {"a.png", "b.png"}
    assert set(found(given, key="image")) == {"a.png", "b.png"}


def test_frames_of_other_values() -> None:
    numbers = pandas.DataFrame({"image": ["a.png", float("nan"), pandas.NA], "key": [1, 2, 3]})
    assert found(numbers) == {"1": "a.png", "2": [], "3": []}
    series = pandas.Series(["a.png", "b.png"])
    assert list(found(series)) == ["a.png", "b.png"]
    assert list(found(polars.Series(["a.png"]))) == ["a.png"]
    several = pandas.DataFrame({"images": [["a.png", "b.png"]], "key": ["k"]})
    assert found(several) == {"k": ["a.png", "b.png"]}
    with pytest.raises(ivl.ConfigError, match=r"LazyFrame is not computed yet.*collect\(\)"):
        items(polars.LazyFrame({"image": ["a.png"]}))
    assert found(arrow.table({"image": ["a.png"]})) == {"a.png": "a.png"}


def image_folder(kind: str) -> Path:
    folder = make_pictures(Path("photos/train"), 3).parent
    make_pictures(folder / "test", 2)
    for split, count in (("train", 2), ("test", 2)):
        rows = [{"file_name": f"{n:06}.png", "no": f"{split} {n}"} for n in range(count)]
        path = folder / split / f"metadata.{kind}"
        if kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            pandas.DataFrame(rows).to_csv(path, index=False)
    return folder


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_image_folders(kind: str) -> None:
    folder = image_folder(kind)
    unlisted = "photos/train/000002.png"
    listed = {
        f"{split} {n}": f"photos/{split}/{n:06}.png"
        for split in ("train", "test")
        for n in range(2)
    }
    assert found(folder, key="no") == {**listed, unlisted: unlisted}
    assert set(found(folder)) == {*listed.values(), unlisted}
    with pytest.raises(ivl.ConfigError, match="has no column none"):
        items("photos/train", key="none")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_prompts_from_an_image_folder(client: ivl.Client, kind: str) -> None:
    """By path as without them; what no row lists has no prompt, and is asked nothing."""
    folder = image_folder(kind)
    lost = "photos/train/000002.png"
    made = {
        f"photos/{split}/{n:06}.png": f"It is {split} {n}." for split in ("train", "test")
        for n in range(2)
    }  # fmt: skip
    for how in (
        {"prompt": "It is {no}."},
        {"prompt": lambda row: f"It is {row['no']}."},
        {"prompts": {"one": "It is {no}.", "two": "Red?"}},
    ):
        outcomes, error = outcomes_of(client, folder, **how)
        assert error is None
        assert keys(outcomes, ok=True) == set(made)
        assert keys(outcomes, ok=False) == {lost}
        if "prompt" in how:
            assert {each.key: each.prompt for each in outcomes if each.ok} == made
    outcomes, error = outcomes_of(client, folder, prompt_column="no")
    assert {each.prompt.partition(" ")[0] for each in outcomes if each.ok} == {"train", "test"}
    assert keys(outcomes, ok=False) == {lost}
    (folder / "other").mkdir()
    (folder / "other" / "metadata.csv").write_text("a,b\n1,2\n")  # of another program
    plain, error = outcomes_of(client, folder, prompt="As {json}: {}")
    assert (len(keys(plain, ok=True)), error) == (5, None)


def test_image_folders_as_datasets_loads_them() -> None:
    folder = image_folder("jsonl")
    (folder / "train/000002.png").unlink()
    made = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    assert set(found(made, key="no")) == {"train 0", "train 1"}


def test_a_folder_without_metadata() -> None:
    make_pictures(Path("photos"), 2)
    with pytest.raises(
        ivl.ConfigError, match=r"key='no', but photos has no columns.*metadata\.csv"
    ):
        items("photos", key="no")


def test_a_frame_with_two_columns_of_one_name() -> None:
    frame = pandas.DataFrame([[png(1), png(2)]], columns=["image", "image"])
    with pytest.raises(ivl.ConfigError, match="several columns image"):
        items(frame)
