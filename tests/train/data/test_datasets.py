from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmlr_edge.errors import DataError
from train.data import read_dataset


def write(root: Path, record: object) -> Path:
    (root / "labels.json").write_text(json.dumps(record))
    for value, name in enumerate(("1.png", "2.png")):
        cv2.imwrite(str(root / name), np.full((4, 4, 3), value, np.uint8))
    return root


def entry(**changes: Any) -> dict[str, Any]:
    return {"file": "1.png", "split": "train", "labels": ["cat"], **changes}


def with_pairs(*pairs: Any) -> dict[str, Any]:
    return {"classes": ["cat", "dog"], "images": [entry()], "biased_pairs": [*pairs]}


def test_labels_json_becomes_targets_in_the_order_of_its_classes(tmp_path: Path) -> None:
    record = {
        "classes": ["dog", "cat", "cow"],
        "images": [
            entry(labels=["cat", "dog"], license="CC", source="me"),
            entry(file="2.png", split="val", labels=[]),
        ],
    }
    data = read_dataset(write(tmp_path, record))
    assert data.splits == ["train", "val"]
    np.testing.assert_array_equal(data.targets(), [[1, 1, 0], [0, 0, 0]])
    assert [image.path.name for image in data.split("val").images] == ["2.png"]


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ({"classes": ["cat"], "images": [entry(labels=["bat"])]}, r"\['bat'\] that are not"),
        ({"classes": ["cat"], "images": [entry(file="9.png")]}, "9.png"),
        ({"classes": ["cat"], "images": [entry(file="../1.png")]}, "leaves the data folder"),
        ({"classes": ["cat"], "images": [entry(), entry()]}, "twice"),
        ({"classes": ["cat"], "images": [entry(extra=1)]}, "extra"),
        ({"classes": ["cat"], "images": [{"file": "1.png"}]}, r"images\[0\]"),
        ({"classes": ["cat"], "images": []}, "at least one entry"),
        ({"classes": ["cat", "cat"], "images": [entry()]}, "repeats"),
        ({"classes": [], "images": [entry()]}, "classes"),
        ({"images": [entry()]}, "expected"),
        (with_pairs(["cat", "sofa"]), r"biased pair .* labels \['sofa'\]"),
        (with_pairs(["cat"]), r"\[label, context\] pairs"),
        (with_pairs("cat"), r"\[label, context\] pairs"),
        (with_pairs(["cat", "cat"]), "with itself"),
        (with_pairs(["cat", "dog"], ["cat", "dog"]), "twice"),
        ([], "JSON object"),
    ],
)
def test_wrong_labels_json_is_one_error_that_names_the_place(
    tmp_path: Path, record: object, word: str
) -> None:
    with pytest.raises(DataError, match=word):
        read_dataset(write(tmp_path, record))


def test_broken_json_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data folder"):
        read_dataset(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no pictures and nothing that tells"):
        read_dataset(tmp_path)
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_dataset(tmp_path)


def write_coco(root: Path, name: str, classes: list[str]) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / name).mkdir()
    cv2.imwrite(str(root / name / "5.jpg"), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(root / name / "6.jpg"), np.zeros((4, 4, 3), np.uint8))
    record = {
        "images": [{"id": 5, "file_name": "5.jpg"}, {"id": 6, "file_name": "6.jpg"}],
        "categories": [{"id": 10 * i + 7, "name": c} for i, c in enumerate(classes)][::-1],
        "annotations": [{"image_id": 5, "category_id": c} for c in (17, 17, 7)],
    }
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(record))


def test_coco_instances_become_labels_once_each_in_the_order_of_their_ids(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2017", ["person", "dog", "cup"])
    write_coco(tmp_path, "val2017", ["person", "dog", "cup"])
    data = read_dataset(tmp_path)
    assert data.classes == ("person", "dog", "cup")
    np.testing.assert_array_equal(data.split("train").targets(), [[1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("above", [[], {}, None, 3])
def test_what_stands_above_a_coco_category_need_not_be_a_name(tmp_path: Path, above: Any) -> None:
    write_coco(tmp_path, "train2017", ["person", "dog"])
    path = tmp_path / "annotations" / "instances_train2017.json"
    record = json.loads(path.read_text())
    record["categories"][0]["supercategory"] = above
    path.write_text(json.dumps(record))
    assert read_dataset(tmp_path).classes == ("person", "dog")


def test_coco_files_that_disagree_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, "train2017", ["person", "dog"])
    write_coco(tmp_path, "val2017", ["person", "cat"])
    with pytest.raises(DataError, match="other categories"):
        read_dataset(tmp_path)


def test_a_validation_part_is_taken_from_train_only_where_there_is_none(tmp_path: Path) -> None:
    images = [entry(), entry(file="2.png")]
    data = read_dataset(write(tmp_path, {"classes": ["cat"], "images": images}))
    split = data.with_validation(0.2, seed=0)
    assert sorted(image.split for image in split.images) == ["train", "val"]
    assert split.with_validation(0.9, seed=1) == split
