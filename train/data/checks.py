"""What every layout is held against when it is read, so that nothing is found out after training.

Errors are one line that names the entry and, where something near it exists, what may have been meant.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import followed
from train.data.base import LabeledImages, quote

SPLITS = ("train", "val", "test")
# What others call them.
_ALIASES = {
    "training": "train",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "testing": "test",
}
_NEAR = 0.75  # likeness of a slip of the pen
_MOST_COMPARED = 2000  # files of a folder, with a missing one
_NAMED = 5  # in an error
_LONGEST_NAME = 500  # characters of a label


def check_classes(value: Any, source: Path) -> tuple[str, ...]:
    """Return the class names that `source` lists.

    Raises:
        DataError: There are none, or one is not text, empty, not printable or repeated: the model's
            spec, written when training ends, would be refused.
    """
    if not isinstance(value, list | tuple) or not value:
        raise DataError(f"{source}: classes should be a list of names, got {quote(value)}")
    for number, name in enumerate(value):
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise DataError(
                f"{source}: classes[{number}] is {quote(name)}: a name is printable text and "
                "not empty"
            )
        if len(name) > _LONGEST_NAME:  # to draw one of 100,000 in a log takes minutes
            raise DataError(
                f"{source}: classes[{number}] is {quote(name)}, of {len(name)} characters: a name has "
                f"at most {_LONGEST_NAME}"
            )
    if len(set(value)) != len(value):
        repeated = sorted(name for name, number in Counter(value).items() if number > 1)
        raise DataError(
            f"{source}: classes repeats {quote(repeated)}: every label needs a name of its own"
        )
    return tuple(value)


def check_images(data: LabeledImages, root: Path, where: Callable[[int], str]) -> None:
    """Refuse pictures that are listed twice, lie outside, have no known split, or do not exist.

    Args:
        data: What was read.
        root: Its folder: pictures lie inside.
        where: Names the entry of image i.

    Raises:
        DataError: It names the first such entry.
    """
    first: dict[Path, int] = {}
    splits = _refused_splits(data.splits)
    for number, image in enumerate(data.images):
        inside = image.path.is_relative_to(root)
        if not inside or ".." in image.path.relative_to(root).parts:
            raise DataError(
                f"{where(number)}: file {_short(image.path, root)} leaves the data folder; use a "
                "path inside it"
            )
        if image.split in splits:
            raise DataError(f"{where(number)}: split {quote(image.split)} {splits[image.split]}")
        other = first.setdefault(image.path, number)
        if other != number:
            _refuse_repeated(data, other, number, where)
    _look_at_files(data, root, where)


def split_meant(name: str) -> str | None:
    """The split that other tools call so, in lower case; None where it is no such name."""
    return _ALIASES.get(name)


def _refused_splits(names: Collection[str]) -> dict[str, str]:
    """Why split names are refused: what looks like a known one would not be used, without a word.

    Others, as a data set's further test parts, are its own matter: `fit` says that it leaves them out.
    """
    refused = {}
    for name in names:
        plain = name.strip().casefold()
        meant = split_meant(plain) or next(iter(get_close_matches(plain, SPLITS, 1, _NEAR)), None)
        if meant is None and plain.startswith(("train", "val")):
            meant = "train" if plain.startswith("train") else "val"
        if not name.isprintable():
            refused[name] = "is not printable text"
        elif meant is not None and name not in SPLITS:
            refused[name] = f"is not train, val or test: did you mean {meant!r}?"
    return refused


def _refuse_repeated(
    data: LabeledImages, first: int, second: int, where: Callable[[int], str]
) -> None:
    before, image = data.images[first], data.images[second]
    name = quote(image.path.name)
    if before.split != image.split:
        raise DataError(
            f"{where(second)} puts {name} into split {quote(image.split)}, {where(first)} into "
            f"{quote(before.split)}: what is trained on says nothing when it is tested on; keep one"
        )
    raise DataError(
        f"{where(second)} lists {name} twice, after {where(first)}: every picture needs one entry"
    )


def _look_at_files(data: LabeledImages, root: Path, where: Callable[[int], str]) -> None:
    """Count and name the files that are not there; refuse one file in two splits under two names."""
    missing: list[int] = []
    first: dict[tuple[int, int], int] = {}
    for number, image in enumerate(data.images):
        try:
            status = os.stat(image.path)  # noqa: PTH116
        except (OSError, ValueError):  # a name too long for the disk, or one that no file can have
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            missing.append(number)
        elif status.st_ino:
            other = first.setdefault((status.st_dev, status.st_ino), number)
            if data.images[other].split != image.split and _is_one_file(data, other, number):
                _refuse_repeated(data, other, number, where)
    if missing:
        paths = [data.images[i].path for i in missing]
        named = ", ".join(_short(path, root) for path in paths[:3])
        raise DataError(
            f"{data.name} lists {len(missing)} of {len(data.images)} images that do not exist, "
            f"first {where(missing[0])}: {named}{_similar_file(paths[0], data)}: restore the files or "
            "remove their entries"
        )


def _is_one_file(data: LabeledImages, first: int, second: int) -> bool:
    """Whether two names of one file number are links; some network drives repeat numbers."""
    paths = [data.images[i].path for i in (first, second)]
    hard = all(path.stat().st_nlink > 1 for path in paths)
    return hard or followed(paths[0]) == followed(paths[1])


def _similar_file(path: Path, data: LabeledImages) -> str:
    """A file beside the missing one that may have been meant, as 1.JPG for 1.jpg."""
    try:
        names = os.listdir(path.parent)  # noqa: PTH208
    except (OSError, ValueError):
        return ""
    if path.name in names:
        return " (it is there, and no file)"
    alike = [name for name in names if name.casefold() == path.name.casefold()]
    if not alike and len(names) <= _MOST_COMPARED:
        listed = {
            image.path.name for image in data.images
        }  # pictures of their own: 12.jpg is not 13.jpg
        alike = get_close_matches(path.name, sorted({*names} - listed), 1, _NEAR)
    return f" (did you mean {quote(alike[0])}?)" if alike else ""


def _short(path: Path, root: Path) -> str:
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return quote(str(inside))


def refuse_unknown(names: list[str], known: Collection[str], where: str, listed: str) -> None:
    """Refuse labels that are not among the classes.

    Args:
        names: Of labels.
        known: The classes.
        where: The entry that has them.
        listed: Where the classes stand.

    Raises:
        DataError: It says which label may have been meant.
    """
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    near = [match for name in unknown[:_NAMED] for match in _closest(name, known)]
    meant = f"did you mean {' and '.join(map(quote, dict.fromkeys(near)))}? else " if near else ""
    raise DataError(
        f"{where} has labels {quote(unknown[:_NAMED])} that are not in {listed}: {meant}correct the "
        f"spelling or add them to {listed}"
    )


def _closest(name: str, known: Collection[str]) -> list[str]:
    same = [other for other in known if other.casefold() == name.strip().casefold()]
    return same[:1] or get_close_matches(name, known, 1)
