"""Where a biased label stands without its usual company: what feature-split and weighted learn from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cmlr_edge.errors import DataError
from train.config import TrainConfig
from train.data.base import LabeledImages, read_json_object
from train.data.checks import refuse_unknown


def lone_examples(config: TrainConfig, data: LabeledImages) -> Tensor | None:
    """Mark the examples, (N, L), bool; None where the recipe has no use for them.

    Args:
        config: Its pairs count; without any, those that the data names.
        data: The training pictures.

    Raises:
        DataError: Pairs are needed and there are none, or they name labels that the data lacks.
    """
    if config.model.head != "feature-split" and config.lone_weight == 1:
        return None
    if config.biased_pairs:
        for pair in config.biased_pairs:
            where = f"biased_pairs, {' with '.join(pair)},"
            refuse_unknown([*pair], data.classes, where, f"the labels of {data.name}")
        pairs = [(data.classes.index(b), data.classes.index(c)) for b, c in config.biased_pairs]
    else:
        pairs = [] if data.context_bias is None else [*data.context_bias.pairs]
    if not pairs:
        what = "head feature-split" if config.lone_weight == 1 else "lone_weight"
        raise DataError(
            f"{what} learns from labels that stand without their usual company, and {data.name} "
            "names no such pairs: give --pairs FILE as `python -m train biased-pairs --json FILE` "
            "writes it, or biased_pairs.csv beside the labels"
        )
    targets = torch.from_numpy(data.targets()) > 0
    looked_for = data.known()
    absent = ~targets if looked_for is None else ~targets & torch.from_numpy(looked_for)
    lone = torch.zeros_like(targets)
    for label, company in pairs:
        lone[:, label] |= targets[:, label] & absent[:, company]
    return lone


def read_pairs(path: Path) -> list[list[str]]:
    """Read (label, company) pairs from what `python -m train biased-pairs --json` wrote.

    Raises:
        DataError: It is something else.
    """
    record = read_json_object(path)
    try:
        pairs = [[str(pair["label"]), str(pair["context"])] for pair in record["pairs"]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f'{path} should hold {{"pairs": [{{"label": ..., "context": ...}}, ...]}}, as '
            "`python -m train biased-pairs --json` writes it"
        ) from error
    if not pairs:
        raise DataError(f"{path} lists no pair: `biased-pairs` found no label with a bias above 1")
    return pairs
