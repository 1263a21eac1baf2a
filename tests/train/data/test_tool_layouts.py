"""Data sets of other tools are read as those tools mean them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cmlr_edge.errors import DataError
from tests.train.data.tool_trees import (
    CAT,
    DOG,
    TREES,
    class_folders,
    class_folders_without_splits,
    cvat,
    fiftyone,
    label_studio,
    picture,
    roboflow_classes,
    write,
    yolo,
)
from train.cli.app import app
from train.data import LAYOUTS, layout_of, read_dataset
from train.data.report import report_on


def read(root: Path, name: str) -> Any:
    if name == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
    root.mkdir(exist_ok=True)
    TREES[name][0](root)
    return read_dataset(root)


@pytest.mark.parametrize("name", TREES)
def test_each_tool_s_export_says_the_same(tmp_path: Path, name: str) -> None:
    root = tmp_path / "data"
    data = read(root, name)
    _, layout, split = TREES[name]
    assert layout_of(root).name == layout
    assert data.classes == (CAT, DOG)
    found = sorted(data.images, key=lambda image: image.path.name)
    if name == "parquet":  # its pictures are numbered by row
        found = [*data.split("train").images, *data.split("val").images]
    assert [image.labels for image in found] == [(0, 1), (), (1,)]
    assert [image.split for image in found] == ["train", "train", split]
    assert all(image.path.is_file() for image in found)
    assert data.known() is None
    again = read_dataset(root)  # what was unpacked or kept is found again, and is no second layout
    assert again == data


@pytest.mark.parametrize("make", [class_folders, class_folders_without_splits])
def test_a_folder_per_class_gives_one_label_each(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path)
    data = read_dataset(tmp_path)
    assert layout_of(tmp_path).name == "folder per class"
    assert data.classes == (CAT, DOG)
    assert [image.labels for image in data.images] == [(0,), (1,), (1,)]
    assert data.images[2].split == ("val" if make is class_folders else "train")


def test_pictures_of_a_phone_that_are_left_out_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("all/cat", "all/dog", "some/cat", "some/dog"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "IMG_1.HEIC").write_bytes(b"1")
    with pytest.raises(DataError, match=r"no pictures, 2 of HEIC, which is not read \(convert"):
        read_dataset(tmp_path / "all")
    picture(tmp_path / "some" / "cat" / "1.jpg")
    picture(tmp_path / "some" / "dog" / "1.jpg")
    assert len(read_dataset(tmp_path / "some").images) == 2
    assert ["1 of HEIC left out: convert" in line for line in caplog.messages] == [True, True]
    caplog.clear()
    for place in ("cat", "dog"):  # converted, as the guide says
        picture(tmp_path / "some" / place / "IMG_1.jpg")
    assert len(read_dataset(tmp_path / "some").images) == 4
    assert caplog.messages == []


def test_a_folder_of_trains_is_a_label_and_one_with_folders_a_split(tmp_path: Path) -> None:
    for name in ("cat", "dog", "train"):
        picture(tmp_path / "flat" / name / f"{name}.jpg")
        picture(tmp_path / "split" / "train" / name / f"{name}.jpg")
    for root in ("flat", "split"):
        data = read_dataset(tmp_path / root)
        assert (data.classes, data.splits) == (("cat", "dog", "train"), ["train"])
    for name in ("train", "val"):
        picture(tmp_path / "unlabelled" / name / "1.jpg")
    with pytest.raises(DataError, match="nothing that tells"):
        read_dataset(tmp_path / "unlabelled")


def test_two_layouts_in_one_folder_are_both_named(tmp_path: Path) -> None:
    yolo(tmp_path)
    cvat(tmp_path)
    with pytest.raises(DataError, match=r"data\.yaml.*and annotations\.xml"):
        read_dataset(tmp_path)
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)


def test_labels_that_nobody_looked_for_are_neither_present_nor_absent(tmp_path: Path) -> None:
    roboflow_classes(tmp_path / "csv")
    write(tmp_path / "csv/train/_classes.csv", "filename, cat, dog\n1.jpg, 1, \n2.jpg, -1, 0\n")
    for name in "12":
        picture(tmp_path / f"own/{name}.jpg")
    images = [
        {"file": "1.jpg", "split": "train", "labels": [CAT], "unknown": [DOG]},
        {"file": "2.jpg", "split": "train", "labels": [], "unknown": [CAT]},
    ]
    write(tmp_path / "own/labels.json", {"classes": [CAT, DOG], "images": images})
    write(
        tmp_path / "lvis/annotations/instances_train.json",
        {
            "categories": [{"id": 1, "name": CAT}, {"id": 2, "name": DOG}],
            "images": [
                {"id": 1, "file_name": "1.jpg", "neg_category_ids": []},
                {"id": 2, "file_name": "2.jpg", "neg_category_ids": [2]},
            ],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1}],
        },
    )
    for name in "12":
        picture(tmp_path / f"lvis/train/{name}.jpg")
    for folder in ("csv", "own", "lvis"):
        data = read_dataset(tmp_path / folder).split("train")
        assert [image.labels for image in data.images] == [(0,), ()], folder
        assert data.known().tolist() == [[True, False], [False, True]], folder  # type: ignore[union-attr]
        scores = np.full((2, 2), 0.9, np.float32)
        assert data.judged(scores).tolist() == [[np.float32(0.9), 0], [0, np.float32(0.9)]]


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("make", "spoil", "message"),
    [
        (yolo, lambda r: write(r / "labels/train/1.txt", "2 0 0 1 1"), "a class from 0 to 1"),
        (yolo, lambda r: write(r / "labels/train/1.txt", "cat 0 0 1 1"), "begins with 'cat'"),
        (yolo, lambda r: write(r / "labels/train/1.txt", "0000000002 0 0 1 1"), "from 0 to 1"),
        (yolo, lambda r: _change(r / "data.yaml", "images/val", "images/dev"), "no 'images/dev'"),
        (yolo, lambda r: _change(r / "data.yaml", "images/val", "../../../etc"), "there is no"),
        (yolo, lambda r: _change(r / "data.yaml", "{0: ", "{4: 'x', 3: "), "numbered from 0"),
        (yolo, lambda r: write(r / "data.yaml", "names: [a\ntrain: x"), "as YAML"),
        (
            yolo,
            lambda r: write(r / "data.yaml", "names: !!python/object:os.system\ntrain: x"),
            "YAML",
        ),
        (yolo, lambda r: write(r / "data.yaml", "names: [a]\nnames: [b]\ntrain: x"), "given twice"),
        (yolo, lambda r: write(r / "more.yaml", "names: [a]\ntrain: x"), "keep one of them"),
        (cvat, lambda r: _change(r / "annotations.xml", "<version>", "<version"), "as XML"),
        (
            cvat,
            lambda r: _change(
                r / "annotations.xml",
                "<annotations>",
                '<!DOCTYPE a [<!ENTITY b "c">]><annotations>',
            ),
            "document type",
        ),
        (cvat, lambda r: _change(r / "annotations.xml", '"3.jpg"', '"9.jpg"'), "9.jpg"),
        (
            cvat,
            lambda r: _change(r / "annotations.xml", '<tag label="dog"', '<tag label="dgo"'),
            "dog",
        ),
        (
            cvat,
            lambda r: _change(r / "annotations.xml", "</meta>", "</meta><track/>"),
            "of a video",
        ),
        (label_studio, lambda r: [picture(r / place) for place in ("more/2.jpg", "a/2.jpg")], None),
        (
            label_studio,
            lambda r: [
                (r / "images/2.jpg").unlink(),
                picture(r / "a/2.jpg"),
                picture(r / "b/2.jpg"),
            ],
            "2 pictures have this name",
        ),
        (
            label_studio,
            lambda r: _change(next(r.glob("*.json")), '"image": "s3', '"sound": 3, "text": "s3'),
            None,
        ),
        (
            fiftyone,
            lambda r: _change(r / "samples.json", "ground_truth", "ground_trut"),
            None,
        ),
        (
            roboflow_classes,
            lambda r: _change(r / "train/_classes.csv", "1, 1", "1, yes"),
            "holds 'yes'",
        ),
        (
            roboflow_classes,
            lambda r: _change(r / "valid/_classes.csv", "cat, dog", "dog, cat"),
            "another order",
        ),
        (
            roboflow_classes,
            lambda r: _change(r / "valid/_classes.csv", "3.jpg, 0", "../x.jpg, 0"),
            "leaves",
        ),
        (class_folders, lambda r: picture(r / "trian/cat/9.jpg"), None),
    ],
)
def test_what_is_wrong_in_it_is_one_line_that_says_where(
    tmp_path: Path, make: Callable[[Path], None], spoil: Callable[[Path], Any], message: str | None
) -> None:
    make(tmp_path)
    spoil(tmp_path)
    if message is None:  # taken as it is
        read_dataset(tmp_path)
        return
    with pytest.raises(DataError, match=message) as error:
        read_dataset(tmp_path)
    assert "\n" not in str(error.value)


def test_a_negative_seed_is_one_line(tmp_path: Path) -> None:
    for command in ("check", "fit", "search"):
        done = CliRunner().invoke(app, [command, str(tmp_path), "--seed", "-1"])
        assert done.exit_code == 2, command
        assert "--seed" in done.output


def test_tasks_that_nobody_did_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label_studio(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(read_dataset(tmp_path).images) == 3
    assert "2 tasks that nobody annotated are left out" in caplog.text


def test_tasks_that_have_predictions_alone_are_told_from_an_empty_file(tmp_path: Path) -> None:
    task = {"data": {"image": "1.jpg"}, "predictions": [{"result": []}], "annotations": []}
    (tmp_path / "tasks.json").write_text(json.dumps([task, task]))
    picture(tmp_path / "1.jpg")
    with pytest.raises(DataError, match="none of its 2 tasks is annotated; predictions do not"):
        read_dataset(tmp_path)


def test_check_says_what_it_understood_and_draws_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(
        "cmlr_edge.sinks.drawing.put_text", lambda _image, text, *_: texts.append(text)
    )
    roboflow_classes(tmp_path / "data")
    sheet, out = tmp_path / "sheet.png", tmp_path / "report.json"
    words = ["check", tmp_path / "data", "--sheet", sheet, "--json", out, "--pictures"]
    app([str(word) for word in words], standalone_mode=False)
    said = capsys.readouterr().out
    assert "Roboflow classes" in said
    assert "train 2, val 1" in said
    assert "to look at: cat (1), dog (1): on fewer than 20 training pictures" in said
    assert json.loads(out.read_text())["splits"] == {"train": 2, "val": 1}
    drawn = cv2.imread(str(sheet))
    assert drawn is not None
    assert drawn.shape[0] > 300
    assert "cat" in texts  # people gave it: no score


def test_a_report_names_what_will_make_trouble(tmp_path: Path) -> None:
    for name in "1234":
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "4.jpg").write_bytes((tmp_path / "1.jpg").read_bytes())
    (tmp_path / "3.jpg").write_bytes(b"no picture")
    entries = [("1", "train", ["cat", "traffic light"]), ("2", "train", ["trafic light"])]
    entries += [("3", "train", []), ("4", "val", ["dog"])]
    images = [{"file": f"{n}.jpg", "split": s, "labels": labels} for n, s, labels in entries]
    classes = ["cat", "dog", "traffic light", "trafic light"]
    write(tmp_path / "labels.json", {"classes": classes, "images": images})
    report = report_on(read_dataset(tmp_path), "own, JSON", pictures=True)
    assert (report.splits, report.without_labels) == ({"train": 3, "val": 1}, 1)
    said = "\n".join(report.problems)
    for part in ("dog: on no training picture", "cat (1)", "'traffic light' and 'trafic light'"):
        assert part in said
    assert "cat, traffic light, trafic light: on no validation picture" in said
    assert said.count("3.jpg") == 1
    assert "3.jpg (10 bytes) is not a picture that can be read" in said
    assert "1.jpg = 4.jpg: the same in several splits" in said
    json.dumps(report.problems)


def test_a_report_tells_labels_that_are_several_or_one_or_everywhere(tmp_path: Path) -> None:
    for name in "12":
        picture(tmp_path / f"{name}.jpg")
    rows = '1.jpg,"dog,cat;caf\u00e9;cat"\n2.jpg,cat;cafe\u0301\n'
    (tmp_path / "labels.csv").write_text(f"file,labels\n{rows}", encoding="utf-8")
    said = "\n".join(report_on(read_dataset(tmp_path), "own, table", pictures=False).problems)
    assert "'dog,cat': may be several labels each; labels.csv wants ; between two" in said
    assert "cat: on every training picture" in said
    assert "'cafe\u0301' and 'caf\u00e9': may be one label" in said


def test_a_line_end_within_quotes_is_part_of_a_name(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    table = tmp_path / "labels.csv"
    table.write_text('file,labels,license\n1.png,"a;\nb","by\nme"\n')
    assert read_dataset(tmp_path).classes == ("a", "b")
    for cells in ('"a\nb",x', '"a,x\n1.png,b,x'):  # were the label ab, and one that ate a line
        table.write_text(f"file,labels,license\n1.png,{cells}\n")
        with pytest.raises(DataError, match=r"is 'a.*\\n|values for 3 columns"):
            read_dataset(tmp_path)


def test_a_task_means_the_picture_in_its_own_folder_and_its_newest_annotation(
    tmp_path: Path,
) -> None:
    tasks = []
    for number, folder in enumerate(("images", "cam1", "cam2")):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "1.png"), np.full((8, 8, 3), number, np.uint8))
        annotations = [
            {
                "updated_at": f"2024-0{month}-01T00:00:00Z",
                "result": [{"type": "choices", "value": {"choices": [f"{folder} {month}"]}}],
            }
            for month in (3, 2)
        ]
        address = {"image": f"/data/local-files/?d=home/me/{folder}/1.png"}
        tasks.append({"data": address, "annotations": annotations})
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    data = read_dataset(tmp_path)
    found = {image.path.parent.name: data.classes[image.labels[0]] for image in data.images}
    assert found == {name: f"{name} 3" for name in ("images", "cam1", "cam2")}


def test_a_report_names_the_rarest_labels_first(tmp_path: Path) -> None:
    for name in "12":
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "labels.csv").write_text("file,labels\n1.jpg,cat;dog\n2.jpg,cat\n")
    said = "\n".join(report_on(read_dataset(tmp_path), "own, table", pictures=False).problems)
    assert "dog (1), cat (2): on fewer than 20 training pictures" in said
