"""The log of a run as a picture, and as a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import read_file, write_atomically
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.strict_json import json_value
from train.config import LOG, PLAIN, SPEC
from train.explaining.drawing import pyplot, save, shown

_SUFFIXES = (".png", ".svg", ".pdf", ".jpg")


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read what a run logged, a record per epoch.

    Raises:
        DataError: The run has no log yet, or a line of it is no epoch's.
    """
    try:
        lines = read_file(run / LOG).decode().splitlines()
        records = [json_value(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"{run / LOG} cannot be read: {error}") from error
    for number, record in enumerate(records, start=1):
        if not _is_epoch(record):
            raise DataError(
                f"{run / LOG}:{number} is no epoch of this version: expected an object with the numbers "
                "epoch, loss and val_map, as `fit` writes it"
            )
    if not records:
        raise DataError(f"{run / LOG} is empty: no epoch has ended yet")
    return records


def _is_epoch(record: Any) -> bool:
    return isinstance(record, dict) and all(
        type(record.get(key)) in {int, float} or (key == "val_map" and record.get(key, "") is None)
        for key in ("epoch", "loss", "val_map")
    )


def write_table(run: Path, out: Path) -> None:
    """Write the log as CSV: a line per epoch, empty where nothing could be measured.

    Raises:
        DataError: The run has no log yet.
    """
    records, text = read_log(run), io.StringIO()
    writer = csv.DictWriter(
        text, [*dict.fromkeys(key for record in records for key in record)], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(records)
    write_atomically(out, text.getvalue().encode())


def deploys_another(run: Path) -> bool:
    """Whether the run keeps the network without links that was trained beside the one of its log."""
    if not (run / SPEC).is_file() or not (run / PLAIN / LOG).is_file():
        return False
    return ModelSpec.load(run / SPEC).method.read_out == PLAIN


def plot_log(run: Path, out: Path) -> None:
    """Draw loss and validation mAP over the epochs.

    Raises:
        DataError: The run has no log yet.
    """
    if out.suffix.lower() not in _SUFFIXES:
        raise DataError(f"the picture {out} should end in one of {', '.join(_SUFFIXES)}")
    records, plt = read_log(run), pyplot()
    epochs = [record["epoch"] for record in records]
    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    top.plot(epochs, [record["loss"] for record in records], "o-", color="tab:blue")
    top.set(ylabel="training loss", title=shown(run.name))
    measured = [np.nan if record["val_map"] is None else record["val_map"] for record in records]
    bottom.plot(epochs, measured, "o-", color="tab:orange")
    bottom.set(ylabel="validation mAP", xlabel="epoch")
    bottom.set_ylim(0, 1.08 * max((v for v in measured if v > 0), default=1))  # NaN is not above 0
    bottom.xaxis.get_major_locator().set_params(integer=True)
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    save(plt, figure, out)
