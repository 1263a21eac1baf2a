"""Labels drawn on frames: what overlay video and contact sheet share."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Collection
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.machine.opencv import opencv
from cmlr_edge.prediction import LabelScore
from cmlr_edge.redaction import printable
from cmlr_edge.why import Why

Image: TypeAlias = NDArray[np.uint8]
Color: TypeAlias = tuple[int, int, int]

WHITE: Color = (245, 245, 245)
GREY: Color = (150, 150, 150)
_HUES = 24
_FLAG = " (surroundings)"
_LEAST_HEAT, _MOST_HEAT = (
    0.4,
    0.6,
)  # share of a picture that gives way where nothing, or all, is hot
_BAR_CHARACTERS = 6  # width of the longest score bar, in characters


def label_color(label: str) -> Color:
    """Give a label its colour, BGR, the same in every run and picture."""
    # A checksum scatters similar names; pale and strong tones tell neighbouring hues apart.
    number = zlib.crc32(label.encode())
    hue, tone = (number % _HUES) / _HUES, number // _HUES % 2
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.35, 0.7)[tone], 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def put_text(image: Image, text: str, origin: tuple[int, int], color: Color, height: int) -> None:
    """Write text with its lower left corner at `origin`, capitals `height` pixels tall."""
    cv2 = opencv()
    font: Any = cv2.FONT_HERSHEY_SIMPLEX
    thickness = max(1, round(height / 10))
    scale = cv2.getFontScaleFromHeight(font, height, thickness)
    # OpenCV crashes on a name that is no UTF-8.
    cv2.putText(image, printable(text), origin, font, scale, color, thickness, cv2.LINE_AA)


def text_width(text: str, height: int) -> int:
    """Width in pixels of what `put_text` would draw."""
    cv2 = opencv()
    font: Any = cv2.FONT_HERSHEY_SIMPLEX
    thickness = max(1, round(height / 10))
    scale = cv2.getFontScaleFromHeight(font, height, thickness)
    return int(cv2.getTextSize(printable(text), font, scale, thickness)[0][0])


def draw_labels(
    image: Image,
    labels: tuple[LabelScore, ...],
    *,
    title: str = "",
    flagged: Collection[str] = (),
    scored: bool = True,
) -> None:
    """Draw a panel with a title line and a row per label: name, score, score bar.

    Args:
        image: (H, W, 3), BGR, drawn on in place.
        labels: Most probable first; as many as fit are drawn.
        title: For example the time.
        flagged: Labels that are said because of their surroundings, which their rows say too.
        scored: Without it, labels have their names alone: people gave them.
    """
    height = max(8, round(min(image.shape[:2]) / 32))
    pitch = round(height * 1.9)
    rows = labels[: max(0, (image.shape[0] - pitch) // pitch - 1)]
    texts = [
        f"{item.label}{f' {item.score:.2f}' * scored}{_FLAG * (item.label in flagged)}"
        for item in rows
    ]
    name_width = max([text_width(text, height) for text in (*texts, title)], default=0)
    bar_room = _BAR_CHARACTERS * height * scored
    _darken(image, name_width + bar_room + 3 * height, pitch * (len(rows) + 1) + height // 2)
    put_text(image, title, (height, pitch), WHITE, height)
    for row, (item, text) in enumerate(zip(rows, texts, strict=True), start=2):
        baseline, color = row * pitch, label_color(item.label)
        put_text(image, text, (height, baseline), color, height)
        left = 2 * height + name_width
        right = left + max(1, round(bar_room * item.score)) * scored
        image[max(0, baseline - height) : baseline, left:right] = color


def draw_heat(image: Image, why: Why) -> None:
    """Tint where the network looked for a label, in its colour; the rest becomes a little darker.

    Args:
        image: (H, W, 3), BGR, drawn on in place.
        why: Without a map nothing is drawn.
    """
    if why.map is None or not why.map.any():
        return
    (height, width), (left, top, right, bottom) = image.shape[:2], why.map_box
    columns = slice(int(left * width), max(int(left * width) + 1, round(right * width)))
    rows = slice(int(top * height), max(int(top * height) + 1, round(bottom * height)))
    part = image[rows, columns]
    heat = opencv().resize(
        why.map / why.map.max(), part.shape[1::-1], interpolation=opencv().INTER_LINEAR
    )
    tint = (_LEAST_HEAT + (1 - _LEAST_HEAT) * heat[..., None]) * _MOST_HEAT
    color = np.array(label_color(why.label), np.float32)
    part[...] = (part * (1 - tint) + color * heat[..., None] * tint).astype(np.uint8)


def _darken(image: Image, width: int, height: int) -> None:
    panel = image[:height, :width]
    panel[...] = (panel * 0.35).astype(np.uint8)


def fit_into(image: Image, width: int, height: int) -> Image:
    """Scale an image to fit, keeping its aspect ratio, on black."""
    cv2 = opencv()
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    canvas: Image = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    return canvas
