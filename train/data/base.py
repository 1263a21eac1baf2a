"""One record for every layout: the classes, and the images with their split and labels."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import read_file
from cmlr_edge.model.strict_json import json_value
from cmlr_edge.model.tables import read_text
from train.data.copies import first_of_equal

_LONGEST = 120  # characters of a value in an error
_HELD_OUT = 0.2  # share of train, where nothing else was asked for
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabeledImage:
    """One picture and the classes present in it."""

    path: Path
    split: str
    labels: tuple[int, ...]  # indices into `LabeledImages.classes`
    unknown: tuple[int, ...] = ()  # that nobody looked for here: neither present nor absent


@dataclass(frozen=True)
class ContextBias:
    """Labels whose pictures mostly show another label too, and how a benchmark scores them."""

    pairs: tuple[tuple[int, int], ...]  # (b, c): label b is mostly seen together with label c
    non_biased: tuple[int, ...]  # labels to compare with; empty where the benchmark has none
    measure: Literal["average precision", "top-3 recall"]


@dataclass(frozen=True)
class LabeledImages:
    """A whole data set, in the order of its file."""

    name: str
    classes: tuple[str, ...]
    images: tuple[LabeledImage, ...]
    context_bias: ContextBias | None = None  # of benchmarks that publish biased pairs
    published: bool = False  # its splits are a benchmark's: nothing is moved unless asked for
    root: Path | None = None  # the data folder, where there is one

    def split(self, name: str) -> LabeledImages:
        """Keep one split.

        Raises:
            DataError: No image has it.
        """
        kept = tuple(image for image in self.images if image.split == name)
        if not kept:
            raise DataError(
                f"{self.name} has no images in split {name!r}: it has {self.splits}, "
                "which --split takes"
            )
        return replace(self, images=kept)

    @property
    def splits(self) -> list[str]:
        """The split names that occur, sorted."""
        return sorted({image.split for image in self.images})

    def targets(self) -> NDArray[np.float32]:
        """(N, L): 1 where the label is present, else 0."""
        matrix = np.zeros((len(self.images), len(self.classes)), np.float32)
        for row, image in zip(matrix, self.images, strict=True):
            row[list(image.labels)] = 1
        return matrix

    def known(self) -> NDArray[np.bool_] | None:
        """(N, L): whether somebody looked for the label; None where that is so everywhere."""
        if not any(image.unknown for image in self.images):
            return None
        matrix = np.ones((len(self.images), len(self.classes)), bool)
        for row, image in zip(matrix, self.images, strict=True):
            row[list(image.unknown)] = False
        return matrix

    def judged(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (N, L) of these pictures, 0 where nobody knows whether they are right.

        A score of 0 is named by no threshold and ranks below every positive: it counts neither way.
        """
        known = self.known()
        return scores if known is None else np.where(known, scores, np.float32(0))

    def with_validation(self, fraction: float | None, seed: int) -> LabeledImages:
        """Return itself where a `val` split exists, else move a seeded share of `train` there.

        Without a fraction, that is a fifth of own pictures and none of a benchmark's. Copies of a picture
        go where its first one goes: one that was trained on says nothing of the others.

        Raises:
            DataError: There are no two different ones.
        """
        if "val" in self.splits or (fraction is None and self.published):
            return self
        fraction = _HELD_OUT if fraction is None else fraction
        train = [i for i, image in enumerate(self.images) if image.split == "train"]
        first = [train[i] for i in first_of_equal([self.images[i].path for i in train])]
        different = [i for i, j in zip(train, first, strict=True) if i == j]
        if len(different) < 2:
            raise DataError(
                f"{self.name} has {len(train)} train images, {len(different)} of them different: "
                "at least 2 different ones are needed"
            )
        drawn = set(random.Random(seed).sample(different, max(1, round(fraction * len(different)))))
        held_out = {i for i, j in zip(train, first, strict=True) if j in drawn}
        return self._with_val([i in held_out for i in range(len(self.images))])

    def with_held_out(self, names: Collection[str]) -> LabeledImages | None:
        """Move those of train that `name_of` calls so to `val`; None where there is none of them."""
        known = {*names}
        moved = [image.split == "train" and self.name_of(image) in known for image in self.images]
        return self._with_val(moved) if any(moved) else None

    def name_of(self, image: LabeledImage) -> str:
        """What a picture is called in its folder, wherever that lies."""
        if self.root is None or not image.path.is_relative_to(self.root):
            return str(image.path)
        return image.path.relative_to(self.root).as_posix()

    def _with_val(self, moved: Sequence[bool]) -> LabeledImages:
        images = (
            replace(image, split="val") if goes else image
            for image, goes in zip(self.images, moved, strict=True)
        )
        return replace(self, images=tuple(images))


def name_of(root: Path) -> str:
    """Name a data set after its folder, in text that a model's spec can hold."""
    return "".join(c if c.isprintable() else "_" for c in root.resolve().name)


def quote(value: object) -> str:
    """Show a value of a file in an error: short, and nothing that a terminal cannot print."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits, which YAML may hold
        text = f"<{type(value).__name__} of many digits>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def read_text_lines(path: Path) -> list[str]:
    """Read a text file without its line ends.

    Raises:
        DataError: It is missing, or not UTF-8 text.
    """
    return read_text(path, DataError, most=None).splitlines()


def read_json(path: Path) -> Any:
    """Read a JSON file of any form.

    Raises:
        DataError: It cannot be read, or gives a key twice.
    """
    try:
        return json_value(read_file(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object; raises as `read_json`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} should hold a JSON object, got {type(value).__name__}")
    return value


def count_splits(data: LabeledImages) -> Counter[str]:
    """Count the images of every split."""
    return Counter(image.split for image in data.images)


def warn_if_partial(name: str, counts: Mapping[str, int], published: Mapping[str, int]) -> None:
    """Say it where a split is not as large as published: its results compare with no paper's.

    Args:
        name: Of the data.
        counts: Split -> number of pictures found.
        published: Split -> number of pictures in the published release.
    """
    for split, expected in published.items():
        if (found := counts.get(split, 0)) != expected:
            _log.warning(
                "%s has %d pictures in %s, the published release %d: "
                "do not compare results on it with published ones",
                name,
                found,
                split,
                expected,
            )


def indices_of(names: tuple[str, ...], classes: tuple[str, ...], source: Path) -> list[int]:
    """Find each name among the classes.

    Raises:
        DataError: Some are not there; `source` is the file that lists the classes.
    """
    index = {name: i for i, name in enumerate(classes)}
    if missing := sorted(set(names) - set(index)):
        raise DataError(
            f"{source} lacks the labels {missing}: it is not the published list, download it again"
        )
    return [index[name] for name in names]
