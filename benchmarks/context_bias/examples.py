"""`python -m benchmarks.context_bias.examples SCENES`: a few scenes of every part as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from cmlr_edge.capture.images import read_image
from cmlr_edge.model.files import write_atomically
from cmlr_edge.sinks.drawing import GREY, WHITE, put_text
from train.data import LabeledImages, read_dataset
from train.data.context_scenes import PARTS
from train.reporting import exit_on_error

_SIDE, _CAPTION, _COLUMNS, _LETTERS = 190, 22, 6, 34


def draw(
    scenes: Annotated[Path, typer.Argument(help="Folder that the scenes were drawn into.")],
    out: Annotated[Path, typer.Option(help="JPEG to write.")] = Path("context_scenes.jpg"),
) -> None:
    """Show the first scenes of every part, with their labels below.

    Example: python -m benchmarks.context_bias.examples scenes --out scenes.jpg
    """
    data = read_dataset(scenes)
    rows = [_row(data.split(part.name), part.name) for part in PARTS]
    _, encoded = cv2.imencode(".jpg", np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 80])
    write_atomically(out, encoded.tobytes())


def _row(part: LabeledImages, name: str) -> NDArray[np.uint8]:
    cells = []
    for image in part.images[:_COLUMNS]:
        cell = np.zeros((_SIDE + _CAPTION, _SIDE, 3), np.uint8)
        cell[:_SIDE] = cv2.resize(
            read_image(image.path), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA
        )
        labels = " ".join(part.classes[i] for i in image.labels)
        put_text(cell, labels[:_LETTERS], (3, _SIDE + 15), WHITE, 8)
        cells.append(cell)
    header = np.zeros((_CAPTION, _SIDE * _COLUMNS, 3), np.uint8)
    put_text(header, name, (3, 16), GREY, 11)
    return np.vstack([header, np.hstack(cells)])


if __name__ == "__main__":
    with exit_on_error():
        typer.run(draw)
