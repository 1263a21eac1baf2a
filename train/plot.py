"""The log of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cmlr_edge.errors import DataError
from train.checkpoint import LOG

_SUFFIXES = (".png", ".svg", ".pdf", ".jpg")


def plot_log(run: Path, out: Path) -> None:
    """Draw loss and validation mAP over the epochs.

    Raises:
        DataError: The run has no log yet.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    if out.suffix.lower() not in _SUFFIXES:
        raise DataError(f"the picture {out} should end in one of {', '.join(_SUFFIXES)}")
    try:
        records = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{run / LOG} cannot be read: {error}") from error
    epochs = [record["epoch"] for record in records]
    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    top.plot(epochs, [record["loss"] for record in records], "o-", color="tab:blue")
    top.set(ylabel="training loss", title=run.name)
    measured = [np.nan if record["val_map"] is None else record["val_map"] for record in records]
    bottom.plot(epochs, measured, "o-", color="tab:orange")
    bottom.set(ylabel="validation mAP", xlabel="epoch")
    bottom.set_ylim(bottom=0)
    bottom.xaxis.get_major_locator().set_params(integer=True)
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=120)
    plt.close(figure)
