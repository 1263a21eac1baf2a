"""A place as a picture: its surroundings beside training's, over time, and the frames that are unlike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import CmlrError
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.place.histogram import distance
from cmlr_edge.place.store import StoredPlace
from cmlr_edge.place.words import sentences_of
from cmlr_edge.sinks.drawing import GREY, WHITE, Image, fit_into, put_text
from cmlr_edge.wording import counted

_WIDTH, _MARGIN, _LINE, _TEXT = 960, 20, 24, 11
_NAME, _BAR, _ROWS = 330, 480, 12
_CURVE, _CELL = 110, (225, 170)
_HERE, _ALARM = (210, 150, 60), (60, 80, 220)  # BGR
_BACKGROUND = 24


def draw_place(place: StoredPlace, pictures: Sequence[Path]) -> Image:
    """Draw it.

    Args:
        place: With at least one block.
        pictures: Of what is unlike; those that cannot be read are left out.

    Returns:
        (H, 960, 3), BGR.
    """
    shown = [image for path in pictures if (image := _read(path)) is not None]
    parts = [_title(place), _bars(place), _curve(place), _row(shown)]
    return np.concatenate([part for part in parts if part is not None])


def _canvas(height: int) -> Image:
    return np.full((height, _WIDTH, 3), _BACKGROUND, np.uint8)


def _title(place: StoredPlace) -> Image:
    lines = sentences_of(place)[:3]
    canvas = _canvas(_LINE * (len(lines) + 1))
    for number, line in enumerate(lines, start=1):
        color = WHITE if number > 1 or place.unlike_since is None else _ALARM
        put_text(canvas, line.strip(), (_MARGIN, number * _LINE), color, _TEXT)
    return canvas


def _bars(place: StoredPlace) -> Image:
    """The confounders that differ most: their share here, and in training below it."""
    here, trained = np.mean(place.blocks, axis=0), np.array(place.trained)
    order = np.argsort(-np.abs(here - trained), kind="stable")[:_ROWS]
    canvas = _canvas(_LINE * (len(order) + 2))
    most = max(float(here[order].max()), float(trained[order].max()), 1e-9)
    put_text(canvas, "share of the picture, here", (_MARGIN + _NAME, _LINE - 6), _HERE, _TEXT)
    put_text(canvas, "in training", (_MARGIN + _NAME + 270, _LINE - 6), GREY, _TEXT)
    for row, kind in enumerate(order, start=1):
        top, left = row * _LINE, _MARGIN + _NAME
        name = f"{kind}  {place.speaks_for[kind]}"
        put_text(canvas, name[:38], (_MARGIN, top + 14), WHITE, _TEXT)
        for value, color, y in ((here[kind], _HERE, top + 2), (trained[kind], GREY, top + 11)):
            canvas[y : y + 8, left : left + max(1, round(_BAR * value / most))] = color
        put_text(canvas, f"{here[kind]:.0%}", (left + _BAR + 12, top + 14), WHITE, _TEXT)
    return canvas


def _curve(place: StoredPlace) -> Image:
    """How far each block is from training, the newest on the right."""
    trained = np.array(place.trained)
    far = [distance(np.array(block), trained) for block in place.blocks]
    canvas, width = _canvas(_CURVE + 2 * _LINE), _WIDTH - 2 * _MARGIN
    text = f"distance of each of the last {counted(len(far), 'block')} from training, 0 to 1"
    put_text(canvas, text, (_MARGIN, _LINE - 8), WHITE, _TEXT)
    canvas[_LINE : _LINE + _CURVE, _MARGIN : _MARGIN + width] = 40
    step = width / len(far)
    for number, value in enumerate(far):
        left = _MARGIN + round(number * step)
        top = _LINE + _CURVE - max(1, round(min(1.0, value) * _CURVE))
        canvas[top : _LINE + _CURVE, left : max(left + 1, left + round(step) - 1)] = _HERE
    return canvas


def _row(images: Sequence[Image]) -> Image | None:
    if not images:
        return None
    canvas, (width, height) = _canvas(_CELL[1] + 2 * _LINE), _CELL
    text = "what is least like training, when the alarm began"
    put_text(canvas, text, (_MARGIN, _LINE - 8), WHITE, _TEXT)
    for number, image in enumerate(images[:4]):
        left = _MARGIN + number * (width + 6)
        canvas[_LINE : _LINE + height, left : left + width] = fit_into(image, width, height)
    return canvas


def _read(path: Path) -> Image | None:
    try:
        return read_image(path)
    except CmlrError:
        return None


def png_of(image: Image) -> bytes:
    """Encode it."""
    _, encoded = opencv().imencode(".png", image)
    return bytes(encoded)
