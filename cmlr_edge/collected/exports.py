"""Kept frames as tools for annotation take them, with what the model said as a first answer.

Labels are of whole pictures: COCO, which has boxes alone, gets one of the whole picture for each label.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from cmlr_edge.collected.frames import Kept, classes_of
from cmlr_edge.errors import OutputError
from cmlr_edge.redaction import printable

_CHOICES, _IMAGE = "labels", "image"  # what Label Studio's results refer to
_MODEL = "cmlr_edge"


def export(frames: Sequence[Kept], kind: str, out: Path) -> None:
    """Write a folder with copies of the frames, whole or not at all.

    Args:
        frames: At least one.
        kind: One of `EXPORTS`.
        out: Made; it must not be there.

    Raises:
        OutputError: It is there, or cannot be written.
    """
    try:
        with _whole_folder(out) as folder:
            EXPORTS[kind](frames, classes_of(frames), folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {printable(out)}: {error.strerror or error}") from error


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder that gets its name when all is in it."""
    if out.exists():
        raise OutputError(f"{printable(out)} is there already: choose another name for the export")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"cannot write {printable(out)}: there is no folder {out.parent}")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of one that was killed
    part.mkdir()
    try:
        yield part
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy(frames: Sequence[Kept], folder: Path) -> None:
    folder.mkdir(parents=True)
    for kept in frames:
        shutil.copyfile(kept.path, folder / kept.name)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
    )


def _labels_json(frames: Sequence[Kept], classes: tuple[str, ...], folder: Path) -> None:
    """Our own layout; `"source"` says where a frame is from, and nobody reads it."""
    _copy(frames, folder / "images")
    images = [
        {
            "file": f"images/{kept.name}",
            "split": "train",
            "labels": [*kept.record.said],
            "source": kept.record.source,
        }
        for kept in frames
    ]
    _write(folder / "labels.json", {"classes": [*classes], "images": images})


def _coco(frames: Sequence[Kept], classes: tuple[str, ...], folder: Path) -> None:
    """As CVAT and Datumaro lay it out; ids count from 1."""
    _copy(frames, folder / "images" / "default")
    numbers = {name: number for number, name in enumerate(classes, 1)}
    images, annotations = [], list[dict[str, Any]]()
    for number, kept in enumerate(frames, 1):
        width, height = kept.record.width, kept.record.height
        images.append({"id": number, "file_name": kept.name, "width": width, "height": height})
        annotations += [
            {
                "id": len(annotations) + 1 + i,
                "image_id": number,
                "category_id": numbers[name],
                "bbox": [0, 0, width, height],
                "area": width * height,
                "segmentation": [],
                "iscrowd": 0,
                "score": score,
            }
            for i, (name, score) in enumerate(kept.record.said.items())
        ]
    categories = [{"id": i, "name": name, "supercategory": ""} for name, i in numbers.items()]
    record = {
        "info": {"description": f"frames kept by {_MODEL}"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    _write(folder / "annotations" / "instances_default.json", record)


def _label_studio(frames: Sequence[Kept], classes: tuple[str, ...], folder: Path) -> None:
    """Tasks with predictions, and the labelling interface that they are for.

    The addresses are those of local storage whose document root is this folder.
    """
    _copy(frames, folder / "images")
    view = ET.Element("View")
    ET.SubElement(view, "Image", name=_IMAGE, value=f"${_IMAGE}")
    choices = ET.SubElement(view, "Choices", name=_CHOICES, toName=_IMAGE, choice="multiple")
    for name in classes:
        ET.SubElement(choices, "Choice", value=name)
    (folder / "label_config.xml").write_text(ET.tostring(view, encoding="unicode") + "\n", "utf-8")
    tasks = [
        {
            "data": {
                _IMAGE: f"/data/local-files/?d=images/{kept.name}",
                "kept_for": f"{kept.record.kind} {kept.record.label}".strip(),
                "source": kept.record.source,
            },
            "predictions": [
                {
                    "model_version": _MODEL,
                    "score": max(kept.record.said.values(), default=0.0),
                    "result": _results(kept),
                }
            ],
        }
        for kept in frames
    ]
    _write(folder / "tasks.json", tasks)


def _results(kept: Kept) -> list[dict[str, Any]]:
    if not kept.record.said:
        return []
    value = {"choices": [*kept.record.said]}
    return [{"from_name": _CHOICES, "to_name": _IMAGE, "type": "choices", "value": value}]


def _cvat(frames: Sequence[Kept], classes: tuple[str, ...], folder: Path) -> None:
    """`CVAT for images 1.1` with tags, and the labels that a task for them needs."""
    _copy(frames, folder / "images")
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
    for name in classes:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "type").text = "tag"
        ET.SubElement(label, "attributes")
    for number, kept in enumerate(frames):
        size = {"width": str(kept.record.width), "height": str(kept.record.height)}
        image = ET.SubElement(root, "image", {"id": str(number), "name": kept.name, **size})
        for name in kept.record.said:
            ET.SubElement(image, "tag", label=name, source="auto")
    ET.indent(root)
    ET.ElementTree(root).write(folder / "annotations.xml", "utf-8", xml_declaration=True)
    _write(
        folder / "labels_for_the_task.json",
        [{"name": name, "type": "tag", "attributes": []} for name in classes],
    )


def _fiftyone(frames: Sequence[Kept], classes: tuple[str, ...], folder: Path) -> None:
    """`FiftyOneImageClassificationDataset` with several labels for a picture, and confidences."""
    _copy(frames, folder / "data")
    labels = {
        Path(kept.name).stem: [
            {"label": name, "confidence": score} for name, score in kept.record.said.items()
        ]
        for kept in frames
    }
    _write(folder / "labels.json", {"classes": [*classes], "labels": labels})


EXPORTS: Mapping[str, Callable[[Sequence[Kept], tuple[str, ...], Path], None]] = {
    "labels.json": _labels_json,
    "coco": _coco,
    "label-studio": _label_studio,
    "cvat": _cvat,
    "fiftyone": _fiftyone,
}
