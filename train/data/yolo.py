"""YOLO's detection data: `data.yaml`, pictures in `images`, and a text file of boxes for each in `labels`.

Label Studio's YOLO export has `classes.txt` in the place of `data.yaml`, and no splits; supervision's `data.yaml` names
none: they are then looked for in the folders of `images`. "YOLO 1.1" of CVAT and Darknet has `obj.names`, and the
text files beside the pictures of `obj_train_data`. A label is present if any box of it is. A picture without a text
file shows none, as Ultralytics takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import read_file
from train.data.base import LabeledImages, quote, read_text_lines
from train.data.checks import check_classes
from train.data.entries import (
    Entry,
    folders_in,
    from_entries,
    is_there,
    mentions,
    pictures_below,
    split_of,
    tells_split,
)

_DARKNET = "obj.names"
_MAX_YAML = 4 * 2**20
_KEYS = {"train": "train", "val": "val", "test": "test", "valid": "val"}


def is_yolo(root: Path) -> bool:
    """Whether there is a `data.yaml` with names and splits, or `classes.txt` beside boxes."""
    return bool(_yaml_files(root)) or _is_label_studio(root) or (root / _DARKNET).is_file()


def _yaml_files(root: Path) -> list[Path]:
    files = [path for end in ("yaml", "yml") for path in sorted(root.glob(f"*.{end}"))]
    has_folders = (root / "images").is_dir() and (root / "labels").is_dir()
    return [
        path
        for path in files
        if mentions(path, "names:")
        and (has_folders or mentions(path, "train:") or mentions(path, "val:"))
    ]


def _is_label_studio(root: Path) -> bool:
    return (root / "classes.txt").is_file() and bool(
        (root / "images").is_dir() and any((root / "labels").glob("*.txt"))
    )


def read_yolo(root: Path) -> LabeledImages:
    """Read a YOLO detection data set.

    Raises:
        DataError: `data.yaml` is malformed or there are two, or a line names another class.
    """
    files = _yaml_files(root)
    if len(files) > 1:
        raise DataError(f"{root} holds {files[0].name} and {files[1].name}: keep one of them")
    if not files:
        is_darknet = (root / _DARKNET).is_file()
        source = root / (_DARKNET if is_darknet else "classes.txt")
        classes = [line.strip() for line in read_text_lines(source) if line.strip()]
        places = _darknet_places(root) if is_darknet else _places_by_name(root)
    else:
        source = files[0]
        settings = _settings(source)
        classes = _names(settings, source)
        places = _places(settings, root, source)
    entries = [
        _entry(root, picture, split, classes)
        for split, folders in places.items()
        for place in folders
        for picture in _pictures(place, root)
    ]
    if entries and not any(is_there(_boxes_of(root, entry.path)) for entry in entries):
        raise DataError(
            f"{source} names {len(entries)} pictures and none has a text file of boxes, as "
            f"{_boxes_of(root, entries[0].path)} for {entries[0].path.name}"
        )
    return from_entries(root, entries, classes, source)


def _settings(path: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Follows no alias: a few lines of them stand for billions of names, or for themselves.

        Takes no key twice: YAML's own reader would take the last one and forget the other.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.composer.ComposerError(None, None, "it has aliases: write them out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            found = super().construct_mapping(node, deep)
            if len(found) != len(node.value):
                raise yaml.constructor.ConstructorError("a key is given twice", node.start_mark)
            return found

    try:
        value = yaml.load(read_file(path, _MAX_YAML), Loader)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} should hold keys and values, got {type(value).__name__}")
    return value


def _names(settings: dict[str, Any], source: Path) -> list[str]:
    names = settings.get("names")
    if isinstance(names, dict):
        try:
            names = [names[number] for number in range(len(names))]
        except KeyError as error:
            raise DataError(
                f"{source}: names should be numbered from 0, {error} is missing"
            ) from error
    if not isinstance(names, list):
        raise DataError(
            f"{source}: names should be a list, or numbers with names, got {quote(names)}"
        )
    number = settings.get("nc", len(names))
    if number != len(names):
        raise DataError(f"{source}: nc is {quote(number)}, and there are {len(names)} names")
    # `no` and `yes` are false and true in YAML: they are refused, for they were meant as names.
    return [*check_classes([str(n) if type(n) is int else n for n in names], source)]


def _places(settings: dict[str, Any], root: Path, source: Path) -> dict[str, list[Path]]:
    """Folders and lists of pictures, by split."""
    found: dict[str, list[Path]] = {}
    for key, split in _KEYS.items():
        value = settings.get(key)
        for item in value if isinstance(value, list) else [value]:
            if item is None or item == "":
                continue
            if not isinstance(item, str):
                raise DataError(f"{source}: {key} should be a folder or a list of pictures")
            found.setdefault(split, []).append(_inside(root, settings.get("path"), item, source))
    return found or _places_by_name(root)


def _places_by_name(root: Path) -> dict[str, list[Path]]:
    """The folders of `images`, by the splits that they are named after; some tools name none in the file."""
    found: dict[str, list[Path]] = {}
    for folder in folders_in(root / "images"):
        if tells_split(folder.name):
            found.setdefault(split_of(folder.name), []).append(folder)
    return found or {"train": [root / "images"]}


def _inside(root: Path, base: Any, item: str, source: Path) -> Path:
    """Where a place lies: below the folder, whatever machine and notebook the file came from."""
    plain = item.removeprefix("./")
    while plain.startswith("../"):  # Roboflow writes ../train/images
        plain = plain.removeprefix("../")
    tried = [root / plain]
    if isinstance(base, str) and not Path(base).is_absolute():
        tried.insert(0, root / base / item)
    for path in tried:
        with suppress(OSError, ValueError):  # a name that no disk takes
            if path.resolve().is_relative_to(root.resolve()) and path.exists():
                return path
    raise DataError(f"{source}: there is no {quote(item)} in {root}: correct it, or copy it there")


def _darknet_places(root: Path) -> dict[str, list[Path]]:
    """Folders such as `obj_train_data`, by split."""
    found: dict[str, list[Path]] = {}
    for folder in folders_in(root):
        if name := re.fullmatch(r"obj_(.+)_data", folder.name):
            found.setdefault(split_of(name[1]), []).append(folder)
    return found


def _pictures(place: Path, root: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from pictures_below(place)
        return
    for line in read_text_lines(place):
        if line.strip():
            near = place.parent / line.strip()
            yield near if is_there(near) else root / line.strip().removeprefix("./")


def _boxes_of(root: Path, picture: Path) -> Path:
    """The text file of a picture: `labels` where its folder says `images`, else beside it."""
    parts = [*picture.relative_to(root).parts] if picture.is_relative_to(root) else []
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[last] = "labels"
        picture = root / Path(*parts)
    return picture.parent / f"{picture.stem}.txt"


def _entry(root: Path, picture: Path, split: str, classes: list[str]) -> Entry:
    boxes = _boxes_of(root, picture)
    where = str(boxes)
    if not is_there(boxes):
        return Entry(picture, split, (), str(picture))
    labels = []
    for number, line in enumerate(read_text_lines(boxes), start=1):
        if not (words := line.split()):
            continue
        first = words[0]
        number_of_class = first.lstrip("0")[:9] or "0"
        if not first.isascii() or not first.isdecimal() or int(number_of_class) >= len(classes):
            raise DataError(
                f"{where}:{number} begins with {quote(first)}: expected a class from 0 to "
                f"{len(classes) - 1}"
            )
        labels.append(classes[int(number_of_class)])
    return Entry(picture, split, tuple(dict.fromkeys(labels)), where)
