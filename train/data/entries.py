"""What the layouts of other tools have in common: pictures with names of labels, and splits of any spelling."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cmlr_edge.capture.images import IMAGE_SUFFIXES, NO_FILMS
from cmlr_edge.errors import DataError
from cmlr_edge.machine.pillow import HEIC_REMEDY
from cmlr_edge.redaction import printable
from train.data.base import LabeledImage, LabeledImages, name_of, quote
from train.data.checks import SPLITS, check_classes, check_images, refuse_unknown, split_meant

_PEEKED = 64 * 1024  # bytes at both ends of a JSON file that tell what it is
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One picture as a tool's file tells of it."""

    path: Path
    split: str
    labels: tuple[str, ...]
    where: str  # the file and place that say so, for messages
    unknown: tuple[str, ...] = ()  # labels that nobody looked for in this picture


def from_entries(
    root: Path, entries: Iterable[Entry], classes: Sequence[str] | None, source: Path
) -> LabeledImages:
    """Check entries as those of every layout are, and number their labels.

    Args:
        root: The data folder.
        entries: In any order.
        classes: In the order of the model's labels; None: those that occur, by the alphabet.
        source: Lists the classes, for messages.

    Raises:
        DataError: There are no pictures, or they contradict each other.
    """
    found = [*entries]
    if not found:
        raise DataError(f"{source} lists no pictures")
    if classes is None:
        classes = sorted({name for entry in found for name in (*entry.labels, *entry.unknown)})
    names = check_classes([*classes], source)
    index = {name: i for i, name in enumerate(names)}
    images = []
    for entry in found:
        refuse_unknown([*entry.labels, *entry.unknown], index, entry.where, source.name)
        present = {index[name] for name in entry.labels}
        unknown = {index[name] for name in entry.unknown} - present
        images.append(
            LabeledImage(entry.path, entry.split, tuple(sorted(present)), tuple(sorted(unknown)))
        )
    data = LabeledImages(name_of(root), names, tuple(images))
    check_images(data, root, lambda i: found[i].where)
    return data


def split_of(*names: str) -> str:
    """The split that the first telling name means, as valid, Validation and dev mean val; else train."""
    for name in names:
        plain = name.strip().casefold()
        if plain in SPLITS:
            return plain
        if (meant := split_meant(plain)) is not None:
            return meant
    return "train"


def tells_split(name: str) -> bool:
    """Whether a folder or tag is named after a split."""
    plain = name.strip().casefold()
    return plain in SPLITS or split_meant(plain) is not None


def is_picture(path: Path) -> bool:
    """Whether a name is that of a picture; nothing is opened."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def pictures_below(folder: Path) -> list[Path]:
    """Every picture in a folder and those in it, sorted; a phone's that are not read are told of."""
    below = sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
    pictures = [path for path in below if is_picture(path)]
    phones = {path.with_suffix("") for path in below if path.suffix.lower() in NO_FILMS}
    if left_out := phones - {
        path.with_suffix("") for path in pictures
    }:  # beside others lies a JPEG
        text = "%s: %d of HEIC left out: %s"
        _log.warning(text, printable(folder), len(left_out), HEIC_REMEDY)
    return pictures


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones are nobody's."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        names = [item.name for item in found if item.is_dir() and not item.name.startswith(".")]
    return [folder / name for name in sorted(names)]


class PictureFinder:
    """Finds pictures by the names that annotation tools know them by."""

    def __init__(self, root: Path) -> None:
        """Look in the usual folders of `root` first, then everywhere below it."""
        self._root = root
        self._by_name: dict[str, list[Path]] | None = None

    def at(self, place: PurePosixPath) -> Path | None:
        """The picture that lies where an address ends, with as many of its folders as there are here."""
        parts = [part for part in place.parts if part not in {"/", ".", ".."}]
        tails = (self._root.joinpath(*parts[i:]) for i in range(len(parts) - 1))
        return next((path for path in tails if is_there(path)), None)

    def find(self, name: str, where: str) -> Path:
        """Return where a picture is, or where it should be.

        Raises:
            DataError: Several have the name.
        """
        for folder in ("", "images", "data"):
            path = self._root / folder / name
            if is_there(path):
                return path
        if self._by_name is None:
            self._by_name = {}
            for path in pictures_below(self._root):
                self._by_name.setdefault(path.name, []).append(path)
        found = self._by_name.get(Path(name).name, [])
        if len(found) > 1:
            raise DataError(
                f"{where} means {quote(name)}, and {len(found)} pictures have this name: "
                f"{found[0].relative_to(self._root)}, {found[1].relative_to(self._root)}"
            )
        return found[0] if found else self._root / name


def is_there(path: Path) -> bool:
    """Whether a file is there; a name that no disk takes is none, nor is a pipe."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def mentions(path: Path, *words: str) -> bool:
    """Whether the start or end of a file holds all these words; large files are not read whole."""
    if not is_there(path):
        return False  # a pipe would be waited for
    try:
        with path.open("rb") as file:
            text = file.read(_PEEKED)
            size = path.stat().st_size
            if size > _PEEKED:
                file.seek(max(_PEEKED, size - _PEEKED))
                text += file.read(_PEEKED)
    except OSError:
        return False
    return all(word.encode() in text for word in words)


def json_files(root: Path) -> Iterator[Path]:
    """The JSON files directly in a folder."""
    return (path for path in sorted(root.glob("*.json")) if path.is_file())


def names_in(value: Any, where: str) -> tuple[str, ...]:
    """Names of labels out of a text or a list of texts and whole numbers.

    Raises:
        DataError: It is something else.
    """
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) or type(item) is int for item in items):
        raise DataError(f"{where}: labels should be names, got {quote(value)}")
    return tuple(dict.fromkeys(str(item) for item in items))
