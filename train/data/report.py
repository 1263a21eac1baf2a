"""What was understood of a data set, and what in it will make trouble: for people, before they train."""

from __future__ import annotations

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
from cmlr_edge.wording import counted, few_of
from train.data.base import LabeledImage, LabeledImages
from train.data.checks import SPLITS
from train.data.copies import first_of_equal

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
        pictures: Read them all: damaged ones, and those that are there twice, are found so.
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
    """Damaged pictures, and equal ones: what is trained on says nothing in a test."""
    faults = [_fault(image.path) for image in data.images]
    found = []
    # The first with why, which names it; of the others the names.
    if damaged := [number for number, fault in enumerate(faults) if fault is not None]:
        others = [data.images[number].path.name for number in damaged[1:]]
        also = f"; nor can {few_of(others, _NAMED)}" if others else ""
        found.append(f"{faults[damaged[0]]}{also}; convert, or leave out with `fit --skip-damaged`")
    whole = [image for image, fault in zip(data.images, faults, strict=True) if fault is None]
    return found + _of_copies(whole)


def _of_copies(images: list[LabeledImage]) -> list[str]:
    by_content: dict[int, list[LabeledImage]] = defaultdict(list)
    for first, image in zip(first_of_equal([i.path for i in images]), images, strict=True):
        by_content[first].append(image)
    equal = [group for group in by_content.values() if len(group) > 1]
    across = [group for group in equal if len({image.split for image in group}) > 1]
    within = [group for group in equal if len({image.split for image in group}) < len(group)]
    unlike = [group for group in equal if len({image.labels for image in group}) > 1]
    again = sum(len(group) - len({image.split for image in group}) for group in within)
    found = []
    for groups, what in (
        (across, "the same in several splits; keep each in one, a test on it says nothing"),
        (
            within,
            f"the same within a split; keep one of each, {counted(again, 'picture')} count again",
        ),
        (unlike, "equal, with other labels; correct them, or keep the right one"),
    ):
        if groups:
            names = [" = ".join(image.path.name for image in group[:3]) for group in groups]
            found.append(f"{few_of(names, _NAMED)}: {what}")
    return found


def _fault(path: Path) -> str | None:
    """Why a picture cannot be read."""
    try:
        read_image(path)
    except (CaptureError, OSError) as error:
        return str(error)
    return None
