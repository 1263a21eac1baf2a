"""Find the labels that a model recognises by their company.

For labels b and z, bias(b, z) is the mean score of b on images with both over its mean score on
images with b alone: far above 1 where the model leans on z. The context of b is the z with the highest
bias among those that stand with b often enough. Definition of Singh et al., CVPR 2020; they search a
held-out fifth of the training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError
from cmlr_edge.model.tables import read_rows, scores_by_file
from train.data import LabeledImages, read_dataset
from train.data.damaged import whole_pictures
from train.data.transforms import ImageTensors
from train.judging.inference import score_images
from train.network.checkpoint import held_out_by, load_model

_HELD_OUT = 0.2  # of train, where scores come without a run
_LEAST_SCORE = 1e-6  # a mean score below counts as this, so that the bias stays finite


@dataclass(frozen=True)
class BiasedPair:
    """Label b and its context c, on one set of images."""

    label: str
    context: str
    bias: float
    mean_together: float  # mean score of the label on images with both
    mean_apart: float  # on images with the label and without the context
    num_together: int
    num_apart: int


def find_biased_pairs(
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    labels: tuple[str, ...],
    *,
    known: NDArray[np.bool_] | None = None,
    min_share: float = 0.2,
    min_images: int = 1,
    count: int = 20,
) -> tuple[BiasedPair, ...]:
    """Find each label's context, and return the pairs with the highest bias above 1.

    Args:
        scores: (N, L), probabilities on images that the model was not trained on.
        targets: (N, L), 0 or 1.
        labels: L names.
        known: (N, L), as `LabeledImages.known`: images where nobody looked for z count for no pair with it.
        min_share: A context is on at least this share of the label's images (DeepFashion: 0.1).
        min_images: Least number of images with both, and with the label alone, >= 1.
        count: How many pairs at most, at most one for a label; highest bias first.

    Returns:
        None where every label scores as high without its companions.

    Raises:
        DataError: No label stands both with and without a frequent companion.
    """
    there = (targets > 0).astype(np.float64)
    absent = 1 - there if known is None else (1 - there) * known
    together, apart = there.T @ there, there.T @ absent  # (L, L): images with b and z, and b alone
    scored = there * scores
    mean_together = scored.T @ there / np.maximum(together, 1)
    mean_apart = scored.T @ absent / np.maximum(apart, 1)
    usable = (together / np.maximum(together + apart, 1) >= min_share) & (together > 0)
    usable &= (np.minimum(together, apart) >= max(1, min_images)) & ~np.eye(len(labels), dtype=bool)
    bias = np.where(usable, mean_together / np.maximum(mean_apart, _LEAST_SCORE), -1.0)
    contexts = bias.argmax(axis=1)
    highest = bias.max(axis=1)
    if not usable.any():
        raise DataError(
            f"no label of {len(labels)} is both with and without a companion that is on "
            f"{min_share:.0%} of its images, {min_images} images each: use more images, or "
            "lower --min-images or --min-share"
        )
    leaning = [b for b in np.argsort(-highest, kind="stable") if highest[b] > 1][:count]
    return tuple(
        BiasedPair(
            label=labels[b],
            context=labels[c],
            bias=float(bias[b, c]),
            mean_together=float(mean_together[b, c]),
            mean_apart=float(mean_apart[b, c]),
            num_together=int(together[b, c]),
            num_apart=int(apart[b, c]),
        )
        for b, c in ((b, contexts[b]) for b in leaning)
    )


def score_part(
    root: Path,
    split: str,
    *,
    run: Path | None = None,
    table: Path | None = None,
    skip_damaged: bool = False,
) -> tuple[LabeledImages, NDArray[np.float32]]:
    """Read a split of a data folder and the scores (N, L) of its images.

    Without a `val` split, that is the part of train that the run held out, so that the model has
    not seen it.

    Args:
        root: The data folder.
        split: Its split.
        run: A finished run; its scores as it would be deployed.
        table: See `read_scores`. Exactly one of the two is given.
        skip_damaged: Leave out pictures that the run cannot read.

    Raises:
        DataError: Neither is given, or both, or they do not fit the data.
    """
    if (run is None) == (table is None):
        raise DataError("give --checkpoint RUN or --scores FILE, one of them: bias is a model's")
    data = read_dataset(root)
    data = data.with_validation(_HELD_OUT, 0) if run is None else held_out_by(run, data)
    if split == "val" and "val" not in data.splits:
        raise DataError(
            f"{data.name} has no val split and {run} held nothing out of train: search another "
            "--split, or train with --set validation_share=0.2"
        )
    data = data.split(split)
    if table is not None:
        return data, read_scores(table, root, data)
    assert run is not None
    model, spec = load_model(run)
    if spec.labels != data.classes:
        raise DataError(
            f"{data.name} has {len(data.classes)} classes, {run} {len(spec.labels)}, or in another "
            "order: use the data that the run was trained on"
        )
    data = whole_pictures(data, skip_damaged=skip_damaged)
    scores = score_images(model, ImageTensors(data, spec.preprocess), spec.preprocess)
    return data, scores.deployed


def read_scores(path: Path, root: Path, data: LabeledImages) -> NDArray[np.float32]:
    """Read scores that any other program wrote.

    Args:
        path: CSV with the heading `file,<label>,...` and a line per picture; `file` as in the data
            folder. Labels may come in any order; further pictures are not looked at.
        root: The data folder.
        data: The pictures to score.

    Returns:
        (N, L), in the order of `data`.

    Raises:
        DataError: Not such a table, a picture or label without scores, a score outside [0, 1].
    """
    rows = read_rows(path, DataError, most=None)
    _, heading = next(rows, ("", []))
    if heading[:1] != ["file"] or sorted(heading[1:]) != sorted(data.classes):
        raise DataError(
            f"{path} should have the heading file,{','.join(data.classes[:3])},... with the "
            f"{len(data.classes)} labels of {data.name}, got {','.join(heading)[:80]!r}"
        )
    columns = [heading.index(name, 1) for name in data.classes]
    found = scores_by_file(rows, DataError)
    scores = np.empty((len(data.images), len(columns)), np.float32)
    for row, image in zip(scores, data.images, strict=True):
        name = image.path.relative_to(root).as_posix()
        if name not in found:
            raise DataError(f"{path} has no scores of {name}: it needs a line for every picture")
        row[:] = _read_row(found[name], columns, f"{path}: the line of {name}")
    return scores


def _read_row(cells: list[str], columns: list[int], where: str) -> list[float]:
    try:
        values = [float(cells[column]) for column in columns]
    except (ValueError, IndexError) as error:
        raise DataError(f"{where} should have {len(columns)} numbers: {error}") from error
    if wrong := [value for value in values if not 0 <= value <= 1]:
        raise DataError(f"{where} has {wrong[0]}: scores are probabilities from 0 to 1")
    return values
