"""The log of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from cmlr_edge.errors import DataError
from train.checkpoint import LOG


def plot_log(run: Path, out: Path) -> None:
    """Draw loss and validation mAP over the epochs.

    Raises:
        DataError: The run has no log yet.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    try:
        records = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{run / LOG} cannot be read: {error}") from error
    epochs = [record["epoch"] for record in records]
    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(7, 5), layout="constrained")
    top.plot(epochs, [record["loss"] for record in records], color="tab:blue")
    top.set(ylabel="training loss", title=run.name)
    bottom.plot(epochs, [record["val_map"] for record in records], color="tab:orange")
    bottom.set(ylabel="validation mAP", xlabel="epoch", ylim=(0, 1))
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=120)
    plt.close(figure)
