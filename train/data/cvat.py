"""CVAT's own export, "CVAT for images": `annotations.xml` with boxes, polygons and tags of every picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import read_file
from train.data.base import LabeledImages
from train.data.entries import Entry, PictureFinder, from_entries, mentions, split_of


def cvat_files(root: Path) -> list[Path]:
    """`annotations.xml`, or one file for each split; those of Pascal VOC, one for each picture, are others."""
    return [path for path in sorted(root.glob("*.xml")) if mentions(path, "<annotations")]


def read_cvat(root: Path) -> LabeledImages:
    """Read every such file; pictures lie beside it or in `images`.

    Raises:
        DataError: It is malformed, or of a video.
    """
    paths, finder, labels = cvat_files(root), PictureFinder(root), list[str]()
    entries = []
    for path in paths:
        tree = _parsed(path)
        labels += [item.text or "" for item in tree.iterfind("meta//labels/label/name")]
        entries += _entries(tree, path, finder)
    return from_entries(root, entries, [*dict.fromkeys(labels)] or None, paths[0])


def _entries(tree: ET.Element, path: Path, finder: PictureFinder) -> list[Entry]:
    if tree.find("track") is not None:
        raise DataError(
            f"{path} holds the tracks of a video: export the task as 'CVAT for images' with pictures"
        )
    entries = []
    for number, image in enumerate(tree.iterfind("image")):
        where = f"{path}: image {number}"
        if not (name := image.get("name")):
            raise DataError(f"{where} has no name")
        found = [label for item in image if (label := item.get("label")) is not None]
        subset = image.get("subset", "")
        split = split_of(subset, path.stem, *Path(name).parts[:1])
        entries.append(Entry(finder.find(name, where), split, tuple(dict.fromkeys(found)), where))
    return entries


def _parsed(path: Path) -> ET.Element:
    """Read XML without entities of its own: they can grow a file of bytes to gigabytes."""
    try:
        content = read_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\x00" in content:
        raise DataError(f"{path} has a document type, which CVAT never writes: it was not read")
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as XML: {error}") from error
