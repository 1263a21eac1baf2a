"""Data that contradicts itself, in every layout: refused when it is read, with the entry named."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmlr_edge.errors import DataError
from cmlr_edge.model.spec import ModelSpec
from tests.tiny_training import tiny_config, write_dataset
from tests.train.data import official_trees
from tests.train.data.tool_trees import changed_everywhere
from train.data import read_dataset
from train.fitting.lone import lone_examples
from train.fitting.loop import fit

LAYOUTS = ("json", "csv", "coco")


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))


def write(
    root: Path, layout: str, pictures: list[tuple[str, str]], classes: list[Any] | None = None
) -> Path:
    """Pictures as (file, split), all with the first class, in one of the layouts of own data."""
    classes = ["cat", "dog"] if classes is None else classes
    root.mkdir(parents=True, exist_ok=True)
    if layout == "json":
        images = [{"file": f, "split": s, "labels": classes[:1]} for f, s in pictures]
        (root / "labels.json").write_text(json.dumps({"classes": classes, "images": images}))
    elif layout == "csv":
        lines = ["file,split,labels", *(f"{file},{split},{classes[0]}" for file, split in pictures)]
        (root / "labels.csv").write_text("\n".join(lines) + "\n")
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
    else:
        write_coco(root, pictures, [{"id": i, "name": c} for i, c in enumerate(classes)])
    return root


def write_coco(root: Path, pictures: list[tuple[str, str]], categories: list[Any]) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    for split in {split for _, split in pictures}:
        files = [file for file, other in pictures if other == split]
        record = {
            "categories": categories,
            "images": [{"id": i, "file_name": file} for i, file in enumerate(files)],
            "annotations": [{"id": i, "image_id": i, "category_id": 0} for i in range(len(files))],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(record))


def draw_all(root: Path, layout: str, *names: str) -> None:
    for name in names:
        for folder in ("train", "val") if layout == "coco" else (".",):
            draw(root / folder / name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_without_a_fault_is_read_from_every_layout(tmp_path: Path, layout: str) -> None:
    draw_all(tmp_path, layout, "1.jpg", "2.jpg")
    data = read_dataset(write(tmp_path, layout, [("1.jpg", "train"), ("2.jpg", "val")]))
    assert data.classes == ("cat", "dog")
    assert [(i.path.name, i.split, i.labels) for i in data.images] == [
        ("1.jpg", "train", (0,)),
        ("2.jpg", "val", (0,)),
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("second", ["1.jpg", "./1.jpg"])
def test_a_picture_listed_twice_is_refused(tmp_path: Path, layout: str, second: str) -> None:
    draw_all(tmp_path, layout, "1.jpg")
    with pytest.raises(DataError, match=r"lists '1\.jpg' twice, after"):
        read_dataset(write(tmp_path, layout, [("1.jpg", "train"), (second, "train")]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_in_two_splits_is_refused(tmp_path: Path, layout: str) -> None:
    draw(tmp_path / "1.jpg")
    file = "../1.jpg" if layout == "coco" else "1.jpg"
    pictures = [(file, "train"), (file, "val")]
    if layout == "coco":  # both annotation files look into one folder
        for name in ("train", "val"):
            (tmp_path / name).mkdir()
        with pytest.raises(DataError, match="leaves the data folder"):
            read_dataset(write(tmp_path, layout, pictures))
        return
    with pytest.raises(DataError, match=r"puts '1\.jpg' into split 'val', .* into 'train'"):
        read_dataset(write(tmp_path, layout, pictures))


@pytest.mark.parametrize("kind", ["soft", "hard", "folder"])
def test_one_file_in_two_splits_is_refused_under_two_names_too(tmp_path: Path, kind: str) -> None:
    draw(tmp_path / "train" / "1.jpg")
    if kind == "folder":
        (tmp_path / "val").symlink_to("train")
    else:
        (tmp_path / "val").mkdir()
        link = Path.symlink_to if kind == "soft" else Path.hardlink_to
        link(tmp_path / "val" / "1.jpg", tmp_path / "train" / "1.jpg")
    root = write(tmp_path, "coco", [("1.jpg", "train"), ("1.jpg", "val")])
    with pytest.raises(DataError, match=r"puts '1\.jpg' into split 'val', .* into 'train'"):
        read_dataset(root)


def test_links_to_one_file_within_a_split_are_its_owners_matter(tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").symlink_to("1.jpg")
    data = read_dataset(write(tmp_path, "csv", [("1.jpg", "train"), ("2.jpg", "train")]))
    assert len(data.images) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("file", ["../1.jpg", "/etc/hostname", "a/../../1.jpg"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, layout: str, file: str) -> None:
    root = tmp_path / "data"
    draw_all(root, layout, "1.jpg")
    draw(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=r"leaves the data folder") as error:
        read_dataset(write(root, layout, [(file, "train")]))
    assert ":2" in str(error.value) if layout == "csv" else "images[0]" in str(error.value)


@pytest.mark.parametrize("layout", ["json", "csv"])
@pytest.mark.parametrize(
    ("split", "meant"),
    [
        ("valid", "val"), ("validation", "val"), ("Val", "val"), ("VALID", "val"), ("dev", "val"),
        ("vall", "val"), (" val ", "val"), ("val2017", "val"), ("training", "train"),
        ("trian", "train"), ("Train", "train"), ("train2017", "train"), ("tset", "test"),
        ("testing", "test"), ("Test", "test"),
    ],
)  # fmt: skip
def test_a_split_that_would_go_unused_is_refused_with_what_may_be_meant(
    tmp_path: Path, layout: str, split: str, meant: str
) -> None:
    draw_all(tmp_path, layout, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=f"did you mean '{meant}'") as error:
        read_dataset(write(tmp_path, layout, [("1.jpg", "train"), ("2.jpg", split)]))
    assert (
        "labels.csv:3" in str(error.value) if layout == "csv" else "images[1]" in str(error.value)
    )


@pytest.mark.parametrize("split", ["iid", "do", "cross", "test_night", "spare"])
def test_splits_of_ones_own_stay_possible(tmp_path: Path, split: str) -> None:
    draw_all(tmp_path, "json", "1.jpg", "2.jpg")
    data = read_dataset(write(tmp_path, "json", [("1.jpg", "train"), ("2.jpg", split)]))
    assert data.splits == sorted(["train", split])


BAD_NAMES = [7, None, "", "  ", "\ud83d", "a\nb", "tab\there", "\x1b[31m", "no\u00a0break", ["cat"],
             "x" * 501]  # fmt: skip


@pytest.mark.parametrize("layout", ["json", "coco"])
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_class_name_that_no_spec_can_hold_is_refused(
    tmp_path: Path, layout: str, name: Any
) -> None:
    draw_all(tmp_path, layout, "1.jpg")
    root = write(tmp_path, layout, [("1.jpg", "train")], classes=["cat", name])
    with pytest.raises(DataError, match=r"classes\[1\] is .*(printable text|at most)") as error:
        read_dataset(root)
    str(error.value).encode()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("classes", "word"), [(["cat", "cat"], r"repeats \['cat'\]"), ([], "list of names")]
)
def test_repeated_classes_and_none_are_refused(
    tmp_path: Path, layout: str, classes: list[str], word: str
) -> None:
    draw_all(tmp_path, layout, "1.jpg")
    with pytest.raises(DataError, match=word):
        read_dataset(write(tmp_path, layout, [("1.jpg", "train")], classes or ["cat"]) if classes
                     else emptied(tmp_path, layout))  # fmt: skip


def emptied(root: Path, layout: str) -> Path:
    write(root, layout, [("1.jpg", "train")])
    if layout == "csv":
        (root / "classes.txt").write_text("\n")
    else:
        file = {"json": "labels.json", "coco": "annotations/instances_train.json"}[layout]
        key = {"json": "classes", "coco": "categories"}[layout]
        record = json.loads((root / file).read_text())
        (root / file).write_text(json.dumps({**record, key: []}))
    return root


def test_a_misspelt_label_is_answered_with_the_class_near_to_it(tmp_path: Path) -> None:
    draw_all(tmp_path, "csv", "1.jpg")
    root = write(tmp_path, "csv", [("1.jpg", "train")])
    for label, meant in (("dgo", "dog"), ("Cat", "cat")):
        (root / "labels.csv").write_text(f"file,split,labels\n1.jpg,train,{label}\n")
        with pytest.raises(DataError, match=rf"labels.csv:2 .*did you mean '{meant}'\?"):
            read_dataset(root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_file_is_answered_with_the_one_near_to_it(tmp_path: Path, layout: str) -> None:
    draw_all(tmp_path, layout, "IMG_1.jpg")
    root = write(tmp_path, layout, [("img_1.JPG", "train"), ("x" * 300 + ".jpg", "train")])
    with pytest.raises(DataError, match=r"lists 2 of 2 .*did you mean 'IMG_1\.jpg'"):
        read_dataset(root)
    hostile = write(tmp_path / "hostile", layout, [("a\\u0000.jpg", "train")])
    for file in hostile.rglob("*.json"):
        file.write_text(file.read_text().replace("\\\\u0000", "\\u0000"))
    with pytest.raises(DataError, match="do not exist"):
        read_dataset(hostile)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: r["categories"][1].update(id=0), "categories gives id 0 to 'cat' and to 'dog'"),
        (lambda r: r["images"][1].update(id=0), r"images gives id 0 to '1\.jpg' and to '2\.jpg'"),
        (lambda r: r["images"][1].pop("id"), r"images\[1\] should have id, file_name"),
        (lambda r: r["images"][1].update(id=[1]), r"images\[1\] has the id \[1\]"),
        (lambda r: r["images"][1].update(id=True), r"images\[1\] has the id True"),
        (lambda r: r["images"][1].update(file_name=5), r"images\[1\] has the file_name 5"),
        (lambda r: r["images"].append(None), r"images\[2\] should have"),
        (lambda r: r["annotations"][1].pop("image_id"), r"annotations\[1\] should have image_id"),
        (lambda r: r["annotations"][1].update(image_id={}), r"annotations\[1\] has the image_id"),
        (lambda r: r["annotations"][0].update(category_id=9), "annotation 0 is of category 9"),
        (lambda r: r.pop("annotations"), "it has no list of annotations"),
        (lambda r: r.update(images={}), "it has no list of images"),
        (lambda r: r["categories"][1].update(id="1"), "ids of categories are numbers and text"),
    ],
)
def test_a_coco_file_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Change, word: str
) -> None:
    draw_all(tmp_path, "coco", "1.jpg", "2.jpg")
    root = write(tmp_path, "coco", [("1.jpg", "train"), ("2.jpg", "train")])
    path = root / "annotations/instances_train.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=word) as error:
        read_dataset(root)
    assert "\n" not in str(error.value)


def test_json_that_gives_a_key_twice_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg")
    images = '[{"file": "1.jpg", "split": "train", "split": "val", "labels": []}]'
    (tmp_path / "labels.json").write_text(f'{{"classes": ["cat"], "images": {images}}}')
    with pytest.raises(DataError, match="gives 'split' twice"):
        read_dataset(tmp_path)


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
