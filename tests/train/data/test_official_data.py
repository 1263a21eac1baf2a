from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from cmlr_edge.errors import CaptureError, DataError
from cmlr_edge.model.spec import PreprocessSpec
from tests.train.data import official_trees
from train.data import read_dataset
from train.data.coco_stuff import BIASED_PAIRS, CACHE
from train.data.common_labels import common_labels
from train.data.deepfashion import BIASED_PAIRS as FASHION_PAIRS
from train.data.deepfashion import most_frequent
from train.data.transforms import ImageTensors


def colors_of(targets: np.ndarray, classes: tuple[str, ...], names: list[str]) -> list[list[bool]]:
    return (targets[:, [classes.index(name) for name in names]] > 0).tolist()


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco_keeps_pictures_without_labels_and_all_80_classes(tmp_path: Path, year: int) -> None:
    data = read_dataset(official_trees.write_coco(tmp_path, year))
    assert len(data.classes) == 80
    for split, size in (("train", 16), ("val", 8)):
        part, expected = (
            data.split(split),
            official_trees.random_colors(size, len(f"{split}{year}")),
        )
        assert colors_of(part.targets(), data.classes, ["person", "dog", "zebra"]) == expected
        assert any(not image.labels for image in part.images)


@pytest.mark.parametrize(("key", "value"), [("category_id", 12), ("image_id", 5)])
def test_a_coco_annotation_of_something_unlisted_is_named(
    tmp_path: Path, key: str, value: int
) -> None:
    path = official_trees.write_coco(tmp_path) / "annotations" / "instances_val2014.json"
    record = json.loads(path.read_text())
    record["annotations"][0] |= {"id": 77, key: value}
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=rf"val2014\.json: annotation 77 .* {value}.*not list"):
        read_dataset(tmp_path)


def test_both_coco_releases_in_one_folder_are_refused(tmp_path: Path) -> None:
    official_trees.write_coco(tmp_path)
    content = (tmp_path / "annotations" / "instances_val2014.json").read_text()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(content)
    with pytest.raises(DataError, match="2014 and 2017"):
        read_dataset(tmp_path)


def test_a_partial_download_is_said_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_dataset(official_trees.write_coco(tmp_path / "coco"))
    assert "16 pictures in train, the published release 82783" in caplog.text
    read_dataset(official_trees.write_coco_stuff(tmp_path / "stuff"))
    assert "10 pictures in test, the published release 40504" in caplog.text
    read_dataset(official_trees.write_deepfashion(tmp_path / "fashion"))
    assert "16 pictures in train, the published release 209222" in caplog.text
    read_dataset(official_trees.write_nus_wide(tmp_path / "nus"))
    assert "20 pictures in train, the published release 161789" in caplog.text


def test_coco_stuff_has_171_labels_present_where_any_pixel_is(tmp_path: Path) -> None:
    data = read_dataset(official_trees.write_coco_stuff(tmp_path))
    assert len(data.classes) == 171
    assert data.splits == ["test", "train"]
    for split, name, size in (("train", "train2014", 20), ("test", "val2014", 10)):
        part = data.split(split)
        found = colors_of(part.targets(), data.classes, ["person", "skis", "road"])
        assert found == official_trees.random_colors(size, len(name))
        assert part.targets().sum() == np.sum(found)


def test_coco_stuff_pairs_have_the_published_indices(tmp_path: Path) -> None:
    data = read_dataset(official_trees.write_coco_stuff(tmp_path))
    assert data.context_bias is not None
    named = [(data.classes[b], data.classes[c]) for b, c in data.context_bias.pairs]
    assert named == list(BIASED_PAIRS)
    assert len(data.context_bias.non_biased) == 60
    assert set(data.context_bias.non_biased).isdisjoint(b for b, _ in data.context_bias.pairs)
    assert data.classes[79] == "toothbrush"


def test_pixel_maps_are_read_once_and_again_where_one_changed(tmp_path: Path) -> None:
    first = read_dataset(official_trees.write_coco_stuff(tmp_path)).targets()
    path = min((tmp_path / "stuffthingmaps").glob("*/*.png"))
    stat, content = path.stat(), path.read_bytes()
    path.write_bytes(bytes(len(content)))  # damaged, but looks unchanged: the cache is used
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    np.testing.assert_array_equal(read_dataset(tmp_path).targets(), first)
    os.utime(path)
    with pytest.raises(DataError, match=f"{path.name} is not a whole 8-bit grey PNG"):
        read_dataset(tmp_path)
    assert cv2.imwrite(str(path), np.full((4, 4), 181, np.uint8))
    assert read_dataset(tmp_path).targets()[:, 170].sum() == 1  # wood, the last label


def test_a_damaged_cache_is_read_anew_and_never_unpickled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = read_dataset(official_trees.write_coco_stuff(tmp_path)).targets()
    for damage in (b"", b"not a zip", (tmp_path / CACHE).read_bytes()[:200]):
        (tmp_path / CACHE).write_bytes(damage)
        caplog.clear()
        np.testing.assert_array_equal(read_dataset(tmp_path).targets(), first)
        assert "is damaged" in caplog.text
    np.savez(tmp_path / CACHE, names=np.array([object()]))
    np.testing.assert_array_equal(read_dataset(tmp_path).targets(), first)


def test_wrong_coco_stuff_trees_are_one_error_that_names_the_file(tmp_path: Path) -> None:
    root = official_trees.write_coco_stuff(tmp_path)
    path = min((root / "stuffthingmaps").glob("*/*.png"))
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(DataError, match=f"1 of 30 pictures have no map.*{path.stem}"):
        read_dataset(root)
    cv2.imwrite(str(path), np.full((4, 4), 200, np.uint8))
    with pytest.raises(DataError, match=rf"{path.name} has the pixel values \[200\]"):
        read_dataset(root)
    path.write_bytes(content)
    lines = (root / "labels.txt").read_text()
    (root / "labels.txt").write_text(lines.replace("3: car", "3: bus").replace("6: bus", "6: car"))
    with pytest.raises(DataError, match=r"car and road at \(5, 137\)"):
        read_dataset(root)
    (root / "labels.txt").write_text(lines.replace("12: street sign\n", ""))
    with pytest.raises(DataError, match="182 other lines"):
        read_dataset(root)
    (root / "labels.txt").unlink()
    with pytest.raises(DataError, match=r"labels\.txt cannot be read"):
        read_dataset(root)


def test_deepfashion_keeps_the_250_attributes_most_frequent_in_train(tmp_path: Path) -> None:
    data = read_dataset(official_trees.write_deepfashion(tmp_path))
    assert data.splits == ["test", "train", "val"]
    # Three attributes occur; of the equally frequent others the first ones stay.
    assert list(data.classes) == official_trees.deepfashion_attributes()[:250]
    for split, size in (("train", 16), ("val", 6), ("test", 8)):
        part = data.split(split)
        found = colors_of(part.targets(), data.classes, ["skinny", "ankle", "wash"])
        assert found == official_trees.random_colors(size, len(split))
        assert part.targets().sum() == np.sum(found)  # 0 is unknown, not present
    assert data.context_bias is not None
    named = [(data.classes[b], data.classes[c]) for b, c in data.context_bias.pairs]
    assert named == list(FASHION_PAIRS)
    assert read_dataset(tmp_path) == data  # from the cache


def test_most_frequent_columns_keep_their_order() -> None:
    present = np.array([[1, 0, 1, 1], [1, 0, 1, 0], [0, 1, 1, 0]], bool)
    assert most_frequent(present, 2).tolist() == [0, 2]
    assert most_frequent(present, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "old", "new", "word"),
    [
        ("Anno_coarse/list_attr_img.txt", "30\nimage", "31\nimage", "announces 31 entries"),
        ("Anno_coarse/list_attr_img.txt", " -1 -1", " -1", "got 299"),
        ("Anno_coarse/list_attr_img.txt", " -1 -1", " -1  7", r"\['7'\], expected -1, 0 or 1"),
        ("Anno_coarse/list_attr_cloth.txt", "ankle ", "wash  ", r"repeats the attributes \['wash'"),
        ("Eval/list_eval_partition.txt", "train\n", "trial\n", "train|val|test"),
        ("Eval/list_eval_partition.txt", "img_00000001", "img_00000000", "twice"),
        ("Eval/list_eval_partition.txt", "img_00000001", "img_00000099", "do not belong together"),
    ],
)
def test_wrong_deepfashion_lists_are_one_error_that_names_the_line(
    tmp_path: Path, name: str, old: str, new: str, word: str
) -> None:
    path = official_trees.write_deepfashion(tmp_path) / name
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    with pytest.raises(DataError, match=word) as caught:
        read_dataset(tmp_path)
    assert path.name in str(caught.value)


def test_nus_wide_drops_pictures_without_concept_and_reads_backslashes(tmp_path: Path) -> None:
    data = read_dataset(official_trees.write_nus_wide(tmp_path))
    assert list(data.classes) == official_trees.CONCEPTS
    for split, size in (("train", 20), ("test", 10)):
        part = data.split(split)
        colors = [c for c in official_trees.random_colors(size, len(split)) if any(c)]
        assert colors_of(part.targets(), data.classes, ["person", "dog", "zebra"]) == colors


def test_the_fault_of_the_published_nus_wide_is_read_as_absent_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = official_trees.write_nus_wide(tmp_path)
    path = root / "Groundtruth" / "TrainTestLabels" / "Labels_lake_Train.txt"
    path.write_text(path.read_text().replace("0\n", "-1130179\n", 1))
    with pytest.raises(DataError, match=r"Labels_lake_Train.txt:1 should be 0 or 1"):
        read_dataset(root)
    fault = ("Labels_lake_Train.txt", 1, "-1130179")
    monkeypatch.setattr("train.data.nus_wide._KNOWN_FAULT", fault)
    data = read_dataset(root)
    assert data.targets()[:, data.classes.index("lake")].sum() == 0
    assert "read as absent" in caplog.text


def test_wrong_nus_wide_trees_are_one_error_that_names_the_file(tmp_path: Path) -> None:
    root = official_trees.write_nus_wide(tmp_path)
    labels = root / "Groundtruth" / "TrainTestLabels"
    (labels / "Labels_dog_Test.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match=r"Labels_dog_Test\.txt has 2 lines"):
        read_dataset(root)
    (labels / "Labels_zebra_Train.txt").unlink()
    with pytest.raises(DataError, match="80 concepts, expected 81"):
        read_dataset(root)
    again = official_trees.write_nus_wide(tmp_path / "again")
    (again / "Flickr" / "actor").rename(again / "moved")
    with pytest.raises(DataError, match=r"_Train\.jpg"):
        read_dataset(again)
    (again / "ImageList" / "TrainImagelist.txt").write_text("..\\1.jpg\n")
    with pytest.raises(DataError, match=r"TrainImagelist\.txt:1 should name"):
        read_dataset(again)


def test_common_labels_are_13_and_map_both_ways(tmp_path: Path) -> None:
    coco = read_dataset(official_trees.write_coco(tmp_path / "coco")).classes
    nus = read_dataset(official_trees.write_nus_wide(tmp_path / "nus")).classes
    pairs = common_labels(coco, nus)
    assert len(pairs) == 13
    assert ("bird", "birds") in [(coco[a], nus[b]) for a, b in pairs]
    assert [(b, a) for a, b in common_labels(nus, coco)] == list(pairs)
    assert all(
        nus[b].startswith(coco[a]) or (coco[a], nus[b]) == ("airplane", "plane") for a, b in pairs
    )
    with pytest.raises(DataError, match="only for MS-COCO and NUS-WIDE"):
        common_labels(coco, ("cat", "dog"))


def write_table(root: Path, table: str, classes: str = "person\ndog\n") -> Path:
    for name in ("1.jpg", "2.jpg"):
        cv2.imwrite(str(root / name), np.zeros((4, 4, 3), np.uint8))
    (root / "labels.csv").write_text(table)
    (root / "classes.txt").write_text(classes)
    return root


def test_a_table_equals_the_same_labels_json(tmp_path: Path) -> None:
    write_table(tmp_path, "split,file,labels\ntrain,1.jpg,dog; person\nval,2.jpg,\n")
    table = read_dataset(tmp_path)
    entries = [
        {"file": "1.jpg", "split": "train", "labels": ["person", "dog"]},
        {"file": "2.jpg", "split": "val", "labels": []},
    ]
    (tmp_path / "labels.csv").unlink()
    record = {"classes": ["person", "dog"], "images": entries}
    (tmp_path / "labels.json").write_text(json.dumps(record))
    assert read_dataset(tmp_path) == table


def test_biased_pairs_of_a_table_equal_those_of_labels_json(tmp_path: Path) -> None:
    write_table(tmp_path, "file,split,labels\n1.jpg,train,dog\n2.jpg,val,\n")
    (tmp_path / "biased_pairs.csv").write_text("label,context\ndog,person\n")
    bias = read_dataset(tmp_path).context_bias
    assert bias is not None
    assert bias.pairs == ((1, 0),)
    assert bias.measure == "average precision"
    (tmp_path / "biased_pairs.csv").write_text("dog,person\n")
    with pytest.raises(DataError, match="heading label,context"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("file,split,labels\n1.jpg,train,cat\n", r"labels.csv:2 .*\['cat'\] that are not"),
        ("file,split,labels\n1.jpg,train\n", "labels.csv:2 has 2 values for 3 columns"),
        ("file,split,labels\n1.jpg,train,dog,person\n", "labels.csv:2 has 4 values for 3 columns"),
        ("file,split\n1.jpg,train\n", "labels"),
        ("file,split,labels\n1.jpg,,dog\n", "split should be text"),
        ("file,split,labels\n9.jpg,train,dog\n", "9.jpg"),
        ("file,split,labels\n../1.jpg,train,dog\n", "leaves the data folder"),
        (
            "file,split,labels\n1.jpg,train,dog\n1.jpg,val,dog\n",
            "labels.csv:3 puts '1.jpg' into split 'val'",
        ),
        ("file,split,labels\n1.jpg,train,dog\n./1.jpg,train,dog\n", "labels.csv:3 lists .* twice"),
        ("file,split,labels\n", "a line per picture"),
        ("", r"labels.csv:1 has the columns \[\], expected file, split, labels"),
    ],
)
def test_a_wrong_table_is_one_error_that_names_the_line(
    tmp_path: Path, table: str, word: str
) -> None:
    with pytest.raises(DataError, match=word):
        read_dataset(write_table(tmp_path, table))


def test_two_layouts_in_one_folder_are_refused(tmp_path: Path) -> None:
    official_trees.write_coco(tmp_path)
    write_table(tmp_path, "file,split,labels\n1.jpg,train,dog\n")
    with pytest.raises(DataError, match=r"labels.csv .* and annotations"):
        read_dataset(tmp_path)


def test_a_damaged_picture_is_named_when_it_is_read(tmp_path: Path) -> None:
    data = read_dataset(official_trees.write_coco(tmp_path))
    path = data.images[3].path
    path.write_bytes(path.read_bytes()[:20])
    images = ImageTensors(data, PreprocessSpec((32, 32), (0.0,) * 3, (1.0,) * 3))
    with pytest.raises(CaptureError, match=path.name):
        images[3]
