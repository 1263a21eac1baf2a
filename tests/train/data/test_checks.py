"""Data that contradicts itself, in every layout: refused when it is read, with the entry named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmlr_edge.errors import DataError
from tests.train.data.own_layouts import draw, draw_all, write
from train.data import read_dataset

LAYOUTS = ("json", "csv", "coco")


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
    draw_all(tmp_path / "shots", layout, "12.jpg")  # a picture of its own, not what 13.jpg was
    shots = write(tmp_path / "shots", layout, [("13.jpg", "train"), ("12.jpg", "train")])
    with pytest.raises(DataError, match=r"lists 1 of 2 .*13\.jpg': restore"):
        read_dataset(shots)
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
