"""What was understood of a data set, and what in it will make trouble: for people, before they train."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import CaptureError
from cmlr_edge.model.files import read_file
from cmlr_edge.wording import few_of
from train.data.base import LabeledImages
from train.data.checks import SPLITS

_FEW = 20  # training pictures of a label, as docs/train_your_own.md asks for
_ALIKE = 0.85  # likeness of two names that may be one
_MOST_COMPARED = 400  # labels, each with each
_NAMED = 5


@dataclass(frozen=True)
class LabelCount:
    """How often a label is there, by split, and how often nobody looked."""

    name: str
    present: dict[str, int]
    unknown: int


@dataclass(frozen=True)
class DataReport:
    """What `python -m train check` tells."""

    name: str
    layout: str
    splits: dict[str, int]
    labels: tuple[LabelCount, ...]
    without_labels: int  # pictures
    labels_per_picture: float
    unknown_share: float  # of all decisions
    problems: tuple[str, ...]


def report_on(data: LabeledImages, layout: str, *, pictures: bool) -> DataReport:
    """Count what there is, and name what will make trouble.

    Args:
        data: As it was read.
        layout: Its name.
        pictures: Read them all: damaged ones, and the same one in two splits, are found so.
    """
    targets, known = data.targets() > 0, data.known()
    split_of = np.array([image.split for image in data.images])
    order = [*[s for s in SPLITS if s in data.splits], *[s for s in data.splits if s not in SPLITS]]
    counts = {split: int((split_of == split).sum()) for split in order}
    labels = tuple(
        LabelCount(
            name,
            {split: int(targets[split_of == split, i].sum()) for split in order},
            0 if known is None else int((~known[:, i]).sum()),
        )
        for i, name in enumerate(data.classes)
    )
    problems = [*_of_splits(counts), *_of_labels(labels, counts)]
    if pictures:
        problems += _of_pictures(data)
    return DataReport(
        name=data.name,
        layout=layout,
        splits=counts,
        labels=labels,
        without_labels=int((~targets.any(axis=1)).sum()),
        labels_per_picture=round(float(targets.sum(axis=1).mean()), 3),
        unknown_share=0.0 if known is None else round(float((~known).mean()), 4),
        problems=tuple(problems),
    )


def _of_splits(counts: dict[str, int]) -> list[str]:
    found = []
    if "train" not in counts:
        found.append(f"no split train, but {', '.join(counts)}: `fit` has nothing to learn")
    if "val" not in counts:
        found.append("no split val: `fit` holds a fifth of train out, drawn by chance")
    return found


def _of_labels(labels: tuple[LabelCount, ...], counts: Mapping[str, int]) -> list[str]:
    found, pictures = [], counts.get("train", 0)
    rare = {label.name: label.present.get("train", 0) for label in labels}
    if never := [name for name, count in rare.items() if count == 0]:
        found.append(f"{few_of(never, _NAMED)}: on no training picture, cannot be learned")
    if counts.get("val") and (unseen := [x.name for x in labels if not x.present["val"]]):
        found.append(
            f"{few_of(unseen, _NAMED)}: on no validation picture, so nobody will know how good"
        )
    rarest_first = sorted(rare.items(), key=lambda item: item[1])
    if few := [f"{name} ({n})" for name, n in rarest_first if 0 < n < _FEW]:
        found.append(f"{few_of(few, _NAMED)}: on fewer than {_FEW} training pictures")
    if always := [name for name, count in rare.items() if count == pictures > 0]:
        found.append(
            f"{few_of(always, _NAMED)}: on every training picture, nothing to tell it from"
        )
    if several := [name for name in rare if _parts(name) & (rare.keys() - {name})]:
        found.append(
            f"{few_of([repr(name) for name in several], _NAMED)}: may be several labels each; "
            "labels.csv wants ; between two"
        )
    if len(labels) <= _MOST_COMPARED and (alike := _alike([label.name for label in labels])):
        found.append(f"{few_of(alike, _NAMED)}: may be one label, spelt in two ways")
    return found


def _parts(name: str) -> set[str]:
    """What a name would be, taken apart at commas and the like."""
    return {part.strip() for part in re.split(r"[,;|/]", name)}


def _alike(names: list[str]) -> list[str]:
    found = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            a, b = _plain(first), _plain(second)
            if a == b or SequenceMatcher(None, a, b).quick_ratio() > _ALIKE < _likeness(a, b):
                found.append(f"{first!r} and {second!r}")
    return found


def _plain(name: str) -> str:
    """A name without what eyes do not see: capitals, spaces, an accent in one sign or two."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()


def _of_pictures(data: LabeledImages) -> list[str]:
    """Damaged pictures, and equal ones in several splits: what is trained on says nothing in a test."""
    damaged: list[str] = []  # names; of the first why, which names it
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for number, image in enumerate(data.images):
        found_there = _digest(image.path)
        if isinstance(found_there, bytes):
            by_content[found_there].append(number)
        else:
            damaged.append(image.path.name if damaged else found_there)
    equal = [numbers for numbers in by_content.values() if len(numbers) > 1]
    across = [n for n in equal if len({data.images[i].split for i in n}) > 1]
    unlike = [n for n in equal if len({data.images[i].labels for i in n}) > 1]
    found = []
    if damaged:
        also = f"; nor can {few_of(damaged[1:], _NAMED)}" if damaged[1:] else ""
        found.append(f"{damaged[0]}{also}; convert, or leave out with `fit --skip-damaged`")
    for groups, what in (
        (across, "the same in several splits"),
        (unlike, "equal, with other labels"),
    ):
        if groups:
            names = [" = ".join(data.images[i].path.name for i in group[:3]) for group in groups]
            found.append(f"{few_of(names, _NAMED)}: {what}")
    return found


def _digest(path: Path) -> bytes | str:
    """Of the content of a picture; where it cannot be read, why."""
    try:
        read_image(path)
        return hashlib.sha256(read_file(path)).digest()
    except (CaptureError, OSError) as error:
        return str(error)
