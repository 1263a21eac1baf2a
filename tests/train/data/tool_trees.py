"""Small data sets as tools write them: two labels, three pictures, and what is on each."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CAT, DOG = "cat", "dog"
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    "",
    "a\x00b",
    "../x",
    "\ud800",
    [],
    {},
    [[]],
    "x" * 5000,
    10**30,
]


def changed_everywhere(value: Any) -> Iterator[Any]:
    """The value with each of its places in turn replaced by each odd value, or taken away."""
    yield from ODD
    places: list[Any] = []
    if isinstance(value, dict):
        places = list(value)
    elif isinstance(value, list):
        places = list(range(len(value)))
    for place in places:
        for changed in changed_everywhere(value[place]):
            other = copy.deepcopy(value)
            other[place] = changed
            yield other
        other = copy.deepcopy(value)
        del other[place]
        yield other


def picture(path: Path, seed: int = 0) -> Path:
    """A picture that no other is equal to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = abs(hash(str(path))) + seed
    pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def yolo(root: Path) -> None:
    """Ultralytics' detection layout."""
    names = {0: CAT, 1: DOG}
    write(
        root / "data.yaml",
        f"path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames: {names}\n",
    )
    for name in ("train/1", "train/2", "val/3"):
        picture(root / f"images/{name}.jpg")
    write(root / "labels/train/1.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n0 0.2 0.2 0.1 0.1\n")
    write(root / "labels/val/3.txt", "1 0.1 0.1 0.2 0.1 0.2 0.3\n")


def roboflow_yolo(root: Path) -> None:
    """Roboflow's YOLO export, whose paths lead out of the folder."""
    text = f"train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['{CAT}', '{DOG}']\n"
    write(root / "data.yaml", text)
    for name in ("train/images/1", "train/images/2", "valid/images/3"):
        picture(root / f"{name}_jpg.rf.0a1b.jpg")
    write(root / "train/labels/1_jpg.rf.0a1b.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n")
    write(root / "train/labels/2_jpg.rf.0a1b.txt", "")
    write(root / "valid/labels/3_jpg.rf.0a1b.txt", "1 0.1 0.1 0.2 0.1\n")


def label_studio_yolo(root: Path) -> None:
    write(root / "classes.txt", f"{CAT}\n{DOG}\n")
    write(root / "notes.json", {"categories": [{"id": 0, "name": CAT}], "info": {}})
    for name in ("1", "2", "3"):
        picture(root / f"images/{name}.jpg")
    write(root / "labels/1.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n")
    write(root / "labels/3.txt", "1 0.1 0.1 0.2 0.1\n")


def supervision_yolo(root: Path) -> None:
    """A data.yaml that names no split."""
    write(root / "data.yaml", f"nc: 2\nnames: [{CAT}, {DOG}]\n")
    for name in ("1", "2", "3"):
        picture(root / f"images/{name}.jpg")
    write(root / "labels/1.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n")
    write(root / "labels/2.txt", "")
    write(root / "labels/3.txt", "1 0.1 0.1 0.2 0.1\n")


def darknet(root: Path) -> None:
    """YOLO 1.1, as CVAT and Datumaro write it."""
    write(root / "obj.names", f"{CAT}\n{DOG}\n")
    about = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    write(root / "obj.data", about)
    for name in ("train_data/1", "train_data/2", "valid_data/3"):
        picture(root / f"obj_{name}.jpg")
    write(root / "train.txt", "data/obj_train_data/1.jpg\ndata/obj_train_data/2.jpg\n")
    write(root / "obj_train_data/1.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n")
    write(root / "obj_train_data/2.txt", "")
    write(root / "obj_valid_data/3.txt", "1 0.1 0.1 0.2 0.1\n")


def class_folders(root: Path) -> None:
    """ImageFolder, and YOLO's classification data."""
    picture(root / "train/cat/1.jpg")
    picture(root / "train/dog/2.JPG")
    picture(root / "valid/dog/3.png")


def class_folders_without_splits(root: Path) -> None:
    for name in ("cat/1.jpg", "dog/2.jpg", "dog/deeper/3.jpg"):
        picture(root / name)


def _coco(files: dict[str, list[int]], *, above: bool = False) -> dict[str, Any]:
    categories = [{"id": 1, "name": CAT}, {"id": 2, "name": DOG}]
    if above:
        categories = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            *({**item, "supercategory": "pets"} for item in categories),
        ]
    return {
        "info": {},
        "categories": categories,
        "images": [{"id": i, "file_name": name} for i, name in enumerate(files)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": [0, 0, 1, 1]}
            for i, (image, category) in enumerate(
                (image, category)
                for image, labels in enumerate(files.values())
                for category in labels
            )
        ],
    }


def roboflow_coco(root: Path) -> None:
    write(root / "train/_annotations.coco.json", _coco({"1.jpg": [1, 2], "2.jpg": []}, above=True))
    write(root / "valid/_annotations.coco.json", _coco({"3.jpg": [2]}, above=True))
    for name in ("train/1", "train/2", "valid/3"):
        picture(root / f"{name}.jpg")


def cvat_coco(root: Path) -> None:
    """One file that names no split."""
    record = _coco({"1.jpg": [1, 2], "2.jpg": [], "3.jpg": [2]})
    write(root / "annotations/instances_default.json", record)
    for name in "123":
        picture(root / f"images/default/{name}.jpg")


def label_studio_coco(root: Path) -> None:
    write(
        root / "result.json",
        _coco({"images/1.jpg": [1, 2], "images/2.jpg": [], "images/3.jpg": [2]}),
    )
    for name in "123":
        picture(root / f"images/{name}.jpg")


def fiftyone_coco(root: Path) -> None:
    write(root / "labels.json", _coco({"1.jpg": [1, 2], "2.jpg": [], "3.jpg": [2]}))
    for name in "123":
        picture(root / f"data/{name}.jpg")


def roboflow_classes(root: Path) -> None:
    write(root / "train/_classes.csv", f"filename, {CAT}, {DOG}\n1.jpg, 1, 1\n2.jpg, 0, 0\n")
    write(root / "valid/_classes.csv", f"filename, {CAT}, {DOG}\n3.jpg, 0, 1\n")
    for name in ("train/1", "train/2", "valid/3"):
        picture(root / f"{name}.jpg")


def cvat(root: Path) -> None:
    """CVAT for images 1.1."""
    text = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>4</id><labels>
<label><name>{CAT}</name><attributes></attributes></label><label><name>{DOG}</name></label>
</labels></task></meta>
<image id="0" name="1.jpg" subset="Train" width="16" height="12"><box label="{CAT}" xtl="1" ytl="1" xbr="2" ybr="2"/>
<tag label="{DOG}" source="manual"></tag></image>
<image id="1" name="2.jpg" subset="Train" width="16" height="12"></image>
<image id="2" name="3.jpg" subset="Validation" width="16" height="12"><polygon label="{DOG}" points="0,0;1,1"/></image>
</annotations>"""
    write(root / "annotations.xml", text)
    for name in "123":
        picture(root / f"images/{name}.jpg")


def cvat_by_split(root: Path) -> None:
    """A file for each split, as Datumaro writes it."""
    cvat(root)
    whole = (root / "annotations.xml").read_text()
    (root / "annotations.xml").unlink()
    head, *images = (
        whole.replace(' subset="Train"', "").replace(' subset="Validation"', "").split("<image ")
    )
    first = "".join(f"<image {image}" for image in images[:2])
    write(root / "train.xml", f"{head}{first}</annotations>")
    write(root / "val.xml", f"{head}<image {images[2]}")


def label_studio(root: Path) -> None:
    """Choices, boxes, a task nobody did, and one whose annotation was cancelled."""

    def task(number: int, image: str, *results: dict[str, Any], cancelled: bool = False) -> Any:
        annotation = {"id": number, "was_cancelled": cancelled, "result": [*results]}
        return {
            "id": number,
            "data": {"image": image},
            "annotations": [annotation],
            "predictions": [],
        }

    def choice(*names: str) -> dict[str, Any]:
        return {"type": "choices", "from_name": "c", "value": {"choices": [*names]}}

    box = {"type": "rectanglelabels", "value": {"rectanglelabels": [DOG], "x": 1, "width": 2}}
    tasks = [
        task(1, "/data/upload/1/0a1b2c3d-1.jpg", choice(CAT, DOG)),
        task(2, "s3://bucket/pets/2.jpg"),
        task(3, "/data/local-files/?d=pets/3.jpg", box),
        task(4, "4.jpg", choice(CAT), cancelled=True),
        {"id": 5, "data": {"image": "5.jpg"}, "annotations": []},
    ]
    write(root / "project-1-at-2026-11-01.json", tasks)
    for name in ("1", "2", "3", "4", "5"):
        picture(root / f"images/{name}.jpg")


def fiftyone(root: Path) -> None:
    def sample(name: str, tag: str, *labels: str) -> Any:
        detections = [{"_cls": "Detection", "label": label} for label in labels]
        field = {"_cls": "Detections", "detections": detections}
        return {"filepath": f"data/{name}", "tags": [tag], "ground_truth": field}

    samples = [
        sample("1.jpg", "train", CAT, DOG),
        sample("2.jpg", "train"),
        sample("3.jpg", "validation", DOG),
    ]
    write(root / "samples.json", {"samples": samples})
    about = {"info": {}, "default_classes": [], "classes": {"ground_truth": [CAT, DOG]}}
    write(root / "metadata.json", about)
    for name in "123":
        picture(root / f"data/{name}.jpg")


def fiftyone_classification(root: Path) -> None:
    boxes = [{"label": 0, "bounding_box": [0, 0, 1, 1]}, {"label": 1, "bounding_box": [0, 0, 1, 1]}]
    labels = {"1": boxes, "2": None, "3": 1}
    write(root / "labels.json", {"classes": [CAT, DOG], "labels": labels})
    for name in "123":
        picture(root / f"data/{name}.jpg")


def hf_csv(root: Path) -> None:
    write(root / "train/metadata.csv", f"file_name,labels\n1.jpg,{CAT};{DOG}\n2.jpg,\n")
    write(root / "validation/metadata.csv", f"file_name,labels\n3.jpg,{DOG}\n")
    for name in ("train/1", "train/2", "validation/3"):
        picture(root / f"{name}.jpg")


def hf_jsonl(root: Path) -> None:
    rows = [
        {
            "file_name": "1.jpg",
            "objects": {"bbox": [[0, 0, 1, 1]] * 3, "categories": [CAT, DOG, CAT]},
        },
        {"file_name": "2.jpg", "objects": {"bbox": [], "categories": []}},
        {"file_name": "3.jpg", "split": "validation", "objects": {"categories": [DOG]}},
    ]
    write(root / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    for name in "123":
        picture(root / f"{name}.jpg")


def parquet(root: Path) -> None:
    """As the Hub keeps image data sets."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    feature = {"feature": {"names": [CAT, DOG], "_type": "ClassLabel"}, "_type": "Sequence"}
    told = {"info": {"features": {"image": {"_type": "Image"}, "labels": feature}}}
    files = {"train": [("1.jpg", [0, 1]), ("2.jpg", [])], "validation": [("3.jpg", [1])]}
    (root / "data").mkdir(parents=True)
    for split, rows in files.items():
        images = []
        for name, _ in rows:
            file = picture(root.parent / f"{root.name}_{name}")
            images.append({"bytes": file.read_bytes(), "path": name})
        schema = pa.schema([("image", kind), ("labels", pa.list_(pa.int64()))])
        table = pa.table(
            {"image": images, "labels": [labels for _, labels in rows]},
            schema=schema.with_metadata({"huggingface": json.dumps(told)}),
        )
        pq.write_table(table, root / f"data/{split}-00000-of-00001.parquet")


def own_table(root: Path) -> None:
    """Without classes.txt."""
    text = io.StringIO()
    rows = [["file", "split", "labels"], ["1.jpg", "train", f"{CAT};{DOG}"], ["2.jpg", "train", ""]]
    csv.writer(text).writerows([*rows, ["3.jpg", "val", DOG]])
    write(root / "labels.csv", text.getvalue())
    for name in "123":
        picture(root / f"{name}.jpg")


# name -> who writes it, the layout it is taken for, and the split of the third picture.
TREES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "yolo": (yolo, "YOLO detection", "val"),
    "roboflow yolo": (roboflow_yolo, "YOLO detection", "val"),
    "darknet": (darknet, "YOLO detection", "val"),
    "supervision yolo": (supervision_yolo, "YOLO detection", "train"),
    "label studio yolo": (label_studio_yolo, "YOLO detection", "train"),
    "roboflow coco": (roboflow_coco, "COCO", "val"),
    "cvat coco": (cvat_coco, "COCO", "train"),
    "label studio coco": (label_studio_coco, "COCO", "train"),
    "fiftyone coco": (fiftyone_coco, "COCO", "train"),
    "roboflow classes": (roboflow_classes, "Roboflow classes", "val"),
    "cvat by split": (cvat_by_split, "CVAT for images", "val"),
    "cvat": (cvat, "CVAT for images", "val"),
    "label studio": (label_studio, "Label Studio", "train"),
    "fiftyone": (fiftyone, "FiftyOne", "val"),
    "fiftyone classification": (fiftyone_classification, "FiftyOne classification", "train"),
    "hf csv": (hf_csv, "Hugging Face folder", "val"),
    "hf jsonl": (hf_jsonl, "Hugging Face folder", "val"),
    "parquet": (parquet, "Parquet", "val"),
    "own table": (own_table, "own, table", "val"),
}
