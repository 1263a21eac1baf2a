"""DeepFashion, Category and Attribute Prediction: the 250 attributes most frequent in train.

Layout, as published: `Anno_coarse/` (older copies: `Anno/`) with `list_attr_cloth.txt` and
`list_attr_img.txt`, `Eval/list_eval_partition.txt`, and the pictures in `Img/img/` or `img/`. The
lists open with a count and a heading. An attribute is present where its value is 1; -1 (absent) and
0 (unknown) both count as absent, as in the contextual-bias benchmark.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cmlr_edge.errors import DataError
from train.data.base import (
    ContextBias,
    LabeledImage,
    LabeledImages,
    count_splits,
    indices_of,
    name_of,
    warn_if_partial,
)
from train.data.checks import check_classes, check_images
from train.data.label_cache import cached_labels

CACHE = "list_attr_img_labels.npz"
PARTITION = Path("Eval", "list_eval_partition.txt")
NUM_LABELS = 250
_PUBLISHED = {"train": 209222, "val": 40000, "test": 40000}
BIASED_PAIRS = (
    ("bell", "lace"),
    ("cut", "bodycon"),
    ("animal", "print"),
    ("flare", "fit"),
    ("embroidery", "crochet"),
    ("suede", "fringe"),
    ("jacquard", "flare"),
    ("trapeze", "striped"),
    ("neckline", "sweetheart"),
    ("retro", "chiffon"),
    ("sweet", "crochet"),
    ("batwing", "loose"),
    ("tassel", "chiffon"),
    ("boyfriend", "distressed"),
    ("light", "skinny"),
    ("ankle", "skinny"),
    ("french", "terry"),
    ("dark", "wash"),
    ("medium", "wash"),
    ("studded", "denim"),
)
_log = logging.getLogger(__name__)


def read_deepfashion(root: Path) -> LabeledImages:
    """Read the three lists; the attribute matrix is read once and kept in `CACHE` beside them.

    Raises:
        DataError: A missing, damaged or contradicting list, missing pictures.
    """
    annotations = root / "Anno_coarse" if (root / "Anno_coarse").is_dir() else root / "Anno"
    values = annotations / "list_attr_img.txt"
    names, partition = annotations / "list_attr_cloth.txt", root / PARTITION
    attributes, splits = _read_attributes(names), _read_splits(partition)
    present = cached_labels(
        root / CACHE,
        [values, names, partition],
        lambda: _read_presence(values, list(splits), len(attributes)),
    )
    in_train = np.array([split == "train" for split in splits.values()])
    kept = most_frequent(present[in_train], NUM_LABELS)
    classes = check_classes([attributes[k] for k in kept], names)
    folder = root / "Img" if (root / "Img" / "img").is_dir() else root
    images = tuple(
        LabeledImage(folder / name, split, tuple(np.flatnonzero(row).tolist()))
        for (name, split), row in zip(splits.items(), present[:, kept], strict=True)
    )
    bias = _context_bias(attributes, classes, names)
    data = LabeledImages(name_of(root), classes, images, bias, published=True)
    check_images(data, root, lambda i: f"{partition}:{i + 3}")
    warn_if_partial(data.name, count_splits(data), _PUBLISHED)
    return data


def most_frequent(present: NDArray[np.bool_], count: int) -> NDArray[np.int_]:
    """Find the columns with the most ones.

    Args:
        present: (N, L).
        count: How many; of equally frequent columns the first ones win.

    Returns:
        At most `count` column indices, increasing.
    """
    order = np.argsort(-present.sum(axis=0), kind="stable")
    return np.sort(order[:count])


def _read_attributes(path: Path) -> tuple[str, ...]:
    names = []
    for number, line in _entries(path):
        name, _, kind = line.rstrip().rpartition(" ")
        if not name.strip() or not kind.isdigit():
            raise DataError(f"{path}:{number} should read 'name  type', got {line[:60]!r}")
        names.append(name.strip())
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path} repeats the attributes {repeated}: every attribute needs one line")
    return tuple(names)


def _read_splits(path: Path) -> dict[str, str]:
    """Map the picture names, in the order of the list, to their split."""
    splits: dict[str, str] = {}
    for number, line in _entries(path):
        name, _, split = line.strip().rpartition(" ")
        name = name.strip()
        if split not in _PUBLISHED or not name.startswith("img/") or ".." in name:
            raise DataError(
                f"{path}:{number} should read 'img/.../NAME.jpg  train|val|test', got {line[:80]!r}"
            )
        if name in splits:
            raise DataError(f"{path}:{number} lists {name} twice: every picture needs one line")
        splits[name] = split
    return splits


def _read_presence(path: Path, names: list[str], num_attributes: int) -> NDArray[np.bool_]:
    """(N, A), one row for each name."""
    row_of = {name: row for row, name in enumerate(names)}
    present = np.zeros((len(names), num_attributes), bool)
    seen = np.zeros(len(names), bool)
    console = Console(stderr=True)
    for number, line in track(_entries(path), "reading attributes", len(names), console=console):
        name, _, values = line.partition(" ")
        tokens = values.split()
        if name not in row_of or len(tokens) != num_attributes:
            raise DataError(
                f"{path}:{number} ({name[:80]}) should name a picture of list_eval_partition.txt "
                f"and {num_attributes} values, got {len(tokens)}: the lists do not belong together"
            )
        if wrong := set(tokens) - {"-1", "0", "1"}:
            raise DataError(f"{path}:{number} ({name}) has {sorted(wrong)}, expected -1, 0 or 1")
        if seen[row_of[name]]:
            raise DataError(f"{path}:{number} lists {name} twice: every picture needs one line")
        present[row_of[name]] = np.array(tokens) == "1"
        seen[row_of[name]] = True
    if not seen.all():
        first = names[int(np.argmin(seen))]
        raise DataError(f"{path} lacks {int((~seen).sum())} pictures of the partition, as {first}")
    return present


def _entries(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and line below the count and the heading; the count must hold."""
    found = 0
    try:
        with path.open(encoding="utf-8-sig") as file:  # up to a gigabyte: never all at once
            count, heading = file.readline().strip(), file.readline()
            if not count.isdigit() or not heading.strip():
                raise DataError(
                    f"{path} should open with a count and a heading, got {count[:60]!r}"
                )
            for number, line in enumerate(file, start=3):
                if line.strip():
                    found += 1
                    yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}") from error
    if found != int(count):
        raise DataError(f"{path} announces {count} entries and has {found}: download it again")


def _context_bias(
    attributes: tuple[str, ...], classes: tuple[str, ...], source: Path
) -> ContextBias:
    """Find the pairs; a small part of the data may not have all their attributes among the 250."""
    indices_of(tuple({name for pair in BIASED_PAIRS for name in pair}), attributes, source)
    known = tuple(pair for pair in BIASED_PAIRS if set(pair) <= set(classes))
    if len(known) < len(BIASED_PAIRS):
        _log.warning(
            "%d of %d biased pairs are scored: the others are not among the %d attributes most "
            "frequent in train",
            len(known),
            len(BIASED_PAIRS),
            len(classes),
        )
    pairs = tuple((classes.index(b), classes.index(c)) for b, c in known)
    return ContextBias(pairs, (), "top-3 recall")
