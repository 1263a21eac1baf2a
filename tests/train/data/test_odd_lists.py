"""Lists of pictures typed wrongly, of any size and kind: read, or refused in one short line."""

from __future__ import annotations

import json
import os
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cmlr_edge.errors import DataError
from cmlr_edge.model.spec import ModelSpec
from tests.tiny_training import tiny_config, write_dataset
from tests.train.data import official_trees
from tests.train.data.own_layouts import draw, draw_all, write
from tests.train.data.tool_trees import changed_everywhere
from train.data import read_dataset
from train.data.base import quote
from train.fitting.lone import lone_examples
from train.fitting.loop import fit


def test_a_table_that_names_a_column_twice_or_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "labels.csv").write_text("file,split,labels,labels\n1.jpg,train,cat,\n")
    with pytest.raises(DataError, match=r"labels\.csv:1 names a column twice"):
        read_dataset(tmp_path)
    (tmp_path / "labels.csv").write_text(f"file,split,labels\n{'x' * 200_000},train,cat\n")
    with pytest.raises(DataError, match=r"labels.csv:\d+ cannot be read as a table"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filename,split,label\n1.jpg,train,cat\n", r"labels\.csv:1 has the columns \['filename'"),
        ("file;split;labels\n1.jpg;train;cat\n", r"with commas between them"),
        ("1.jpg,train,cat\n", r"labels\.csv:1 has the columns \['1.jpg'"),
        ("file,split,labels\n", "nothing below it"),
        ("file,split,labels\n1.jpg,train,\n", "names no label on any picture"),
        ("file,split,labels\n1.jpg,train,cat,dog\n", "put ; between labels"),
    ],
)
def test_a_table_typed_wrongly_is_answered_with_what_it_should_be(
    tmp_path: Path, text: str, said: str
) -> None:
    draw_all(tmp_path, "csv", "1.jpg")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_dataset(tmp_path)


def test_a_table_may_lack_splits_and_have_spaces_but_not_latin_1(tmp_path: Path) -> None:
    draw_all(tmp_path, "csv", "1.jpg")
    (tmp_path / "labels.csv").write_text("file, labels\n1.jpg, cat; black dog\n")
    data = read_dataset(tmp_path)
    assert (data.splits, data.classes) == (["train"], ("black dog", "cat"))
    (tmp_path / "labels.csv").write_bytes(b"file,labels\n1.jpg,caf\xe9\n")
    with pytest.raises(DataError, match=r"labels\.csv:2 .* save the file as UTF-8"):
        read_dataset(tmp_path)


def test_a_file_or_pictures_without_labels_are_told_apart(tmp_path: Path) -> None:
    draw_all(tmp_path, "csv", "1.jpg")
    with pytest.raises(DataError, match="1 picture and nothing that tells"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"1\.jpg is a file: give the folder"):
        read_dataset(tmp_path / "1.jpg")


def test_published_layouts_refuse_one_picture_in_two_places(tmp_path: Path) -> None:
    stuff = official_trees.write_coco_stuff(tmp_path / "stuff")
    picture = next((stuff / "train2014").iterdir())
    shutil.copy(picture, stuff / "val2014" / picture.name.replace("train2014", "val2014"))
    with pytest.raises(DataError, match="are the same picture"):
        read_dataset(stuff)
    nus = official_trees.write_nus_wide(tmp_path / "nus")
    lists = nus / "ImageList"
    first = (lists / "TrainImagelist.txt").read_text().splitlines()
    lines = (lists / "TestImagelist.txt").read_text().splitlines()
    column = nus / "Groundtruth" / "TrainTestLabels"
    kept = next(
        i for i in range(len(lines))
        if any(p.read_text().split()[i] == "1" for p in column.glob("*_Test.txt"))
    )  # fmt: skip
    known = read_dataset(nus).images[0].path.name
    lines[kept] = next(line for line in first if line.endswith(known))
    (lists / "TestImagelist.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"into split 'test', .* into 'train'"):
        read_dataset(nus)
    fashion = official_trees.write_deepfashion(tmp_path / "fashion")
    values = fashion / "Anno_coarse" / "list_attr_img.txt"
    rows = values.read_text().splitlines()
    rows[3] = rows[2]
    values.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"list_attr_img\.txt:4 lists .* twice"):
        read_dataset(fashion)


def test_a_folder_of_any_name_gives_a_model_that_can_be_read(tmp_path: Path) -> None:
    named = write_dataset(tmp_path / "data").rename(tmp_path / "a\tb\udcff")
    data = read_dataset(named)
    fit(data, tmp_path / "run", tiny_config("epochs=1", "model.intervention=none"))
    assert ModelSpec.load(tmp_path / "run" / "model.json").provenance.data == "a_b_"


def test_a_misspelt_pair_is_answered_with_the_label_near_to_it(tiny_data: Path) -> None:
    config = tiny_config("lone_weight=10", 'biased_pairs=[["red", "bleu"]]')
    with pytest.raises(DataError, match="did you mean 'blue'"):
        lone_examples(config, read_dataset(tiny_data).split("train"))


COCO = {
    "categories": [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog"},
    ],
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 2}],
}


OWN = {
    "classes": ["cat", "dog"],
    "images": [{"file": "1.jpg", "split": "train", "labels": ["cat"]}],
    "biased_pairs": [["cat", "dog"]],
}


@pytest.mark.parametrize(
    ("record", "file"),
    [(OWN, "labels.json"), (COCO, "annotations/instances_train.json")],
    ids=["own", "coco"],
)
def test_whatever_stands_anywhere_is_read_or_one_short_line(
    tmp_path: Path, record: dict[str, Any], file: str
) -> None:
    draw_all(tmp_path, "coco", "1.jpg", "2.jpg")
    draw_all(tmp_path, "json", "1.jpg", "2.jpg")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    refused = 0
    for changed in changed_everywhere(record):
        (tmp_path / file).write_text(json.dumps(changed))
        try:
            read_dataset(tmp_path)
        except DataError as error:
            refused += 1
            text = str(error)
            assert "\n" not in text
            assert len(text.encode()) < 700
    assert refused > 100


@pytest.mark.parametrize("name", ["labels.json", "labels.csv", "classes.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_list_that_is_no_file_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    if name != "labels.json":
        (tmp_path / "labels.csv").write_text("file,labels,split\n1.png,cat,train\n")
        (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a file"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("layout", ["json", "csv"])
def test_a_split_that_a_terminal_would_obey_is_refused(tmp_path: Path, layout: str) -> None:
    write(tmp_path, layout, [("1.jpg", "train"), ("2.jpg", "\x1b]0;x\x07")])
    for name in "12":
        draw(tmp_path / f"{name}.jpg")
    with pytest.raises(DataError, match="is not printable"):
        read_dataset(tmp_path)


def test_a_name_that_is_there_and_no_file_is_not_proposed_for_itself(tmp_path: Path) -> None:
    write(tmp_path, "csv", [("1.jpg", "train")])
    (tmp_path / "1.jpg").symlink_to("1.jpg")
    with pytest.raises(DataError, match="it is there, and no file") as error:
        read_dataset(tmp_path)
    assert "did you mean" not in str(error.value)


def test_pairs_that_are_no_table_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, "csv", [("1.jpg", "train")])
    draw(tmp_path / "1.jpg")
    (tmp_path / "biased_pairs.csv").write_text('label,context\ncat,"' + "x" * 200_000 + '"\n')
    with pytest.raises(DataError, match="as a table"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("wrong", ["classes", "labels", "pairs"])
def test_ten_thousand_labels_are_refused_or_read_at_once(tmp_path: Path, wrong: str) -> None:
    names = [f"label {number}" for number in range(10_000)]
    record: dict[str, Any] = {"classes": names, "images": []}
    labels = [f"unheard {n}" for n in range(2000)] if wrong == "labels" else names[:1]
    record["images"] = [{"file": "1.jpg", "split": "train", "labels": labels}]
    if wrong == "classes":
        record["classes"] = names * 2
    if wrong == "pairs":
        pairs = [[a, b] for a, b in pairwise(names)]
        record["biased_pairs"] = [*pairs, pairs[-1]]
    draw(tmp_path / "1.jpg")
    (tmp_path / "labels.json").write_text(json.dumps(record))
    started = time.process_time()
    with pytest.raises(DataError, match=r"repeats|not in classes|stands twice"):
        read_dataset(tmp_path)
    assert time.process_time() - started < 5  # each was a square: 10 s and more


def test_a_label_is_shown_as_it_is_written_and_what_no_terminal_prints_is_not() -> None:
    assert quote("Fußgänger") == "'Fußgänger'"
    assert quote("a\x1b[31mb\u202ec\udcff") == r"'a\x1b[31mb\u202ec\udcff'"
