"""One picture that sums up a clip: frames with their labels, and when each label was there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmlr_edge.errors import OutputError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.model.files import write_atomically
from cmlr_edge.prediction import LabelScore
from cmlr_edge.sinks.base import Result
from cmlr_edge.sinks.drawing import (
    GREY,
    WHITE,
    Image,
    draw_labels,
    fit_into,
    label_color,
    put_text,
    text_width,
)
from cmlr_edge.wording import counted

_COLUMNS, _ROWS = 4, 3
_CELL_WIDTH, _CELL_HEIGHT = 400, 300
_GAP, _TEXT, _LINE = 6, 13, 24
_MAX_TIMELINES = 14
_MAX_SPANS = 8192  # of the timelines: several per pixel, however long the run
_TICKS = 5
_NAME_WIDTH = 190
_BACKGROUND = 24


@dataclass(frozen=True)
class _Thumbnail:
    position: int
    image: Image
    title: str
    labels: tuple[LabelScore, ...]


class ContactSheet:
    """Collects evenly spaced frames in bounded memory and draws them on `close`.

    The length need not be known: whenever too many thumbnails are held, every second one is
    dropped and only every second frame is taken from then on.
    """

    def __init__(self, path: Path, *, scored: bool = True) -> None:
        """Remember where to write the PNG, and whether labels have scores."""
        if path.suffix.lower() != ".png":
            raise OutputError(f"the contact sheet {path} should end in .png")
        self._path, self._scored = path, scored
        self._stride = 1
        self._thumbnails: list[_Thumbnail] = []
        self._frames = 0
        self._present: list[set[str]] = []  # labels of `_span` successive frames each
        self._span = 1
        self._last_title = ""
        self._timed = False

    def write(self, result: Result) -> None:
        """Take one frame; see `Sink`."""
        frame, prediction = result.frame, result.prediction
        position = self._frames
        self._frames += 1
        self._note_presence(position, {item.label for item in prediction.labels})
        self._last_title = _title(frame)
        self._timed = frame.time_s is not None
        if position % self._stride:
            return
        image = fit_into(frame.image_bgr, _CELL_WIDTH, _CELL_HEIGHT)
        self._thumbnails.append(_Thumbnail(position, image, _title(frame), prediction.labels))
        if len(self._thumbnails) > 8 * _COLUMNS * _ROWS:
            self._thumbnails = self._thumbnails[::2]
            self._stride *= 2

    def _note_presence(self, position: int, labels: set[str]) -> None:
        if position % self._span:
            self._present[-1] |= labels
            return
        self._present.append(labels)
        if len(self._present) >= _MAX_SPANS and len(self._present) % 2 == 0:
            pairs = zip(self._present[::2], self._present[1::2], strict=True)
            self._present = [first | second for first, second in pairs]
            self._span *= 2

    def close(self) -> None:
        """Draw and write the picture; see `Sink`."""
        if not self._thumbnails:
            return
        sheet = np.vstack([self._draw_cells(), self._draw_timelines()])
        self._thumbnails = []
        _, encoded = opencv().imencode(".png", sheet)
        try:
            write_atomically(self._path, encoded.tobytes())
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error

    def _draw_cells(self) -> Image:
        count = min(len(self._thumbnails), _COLUMNS * _ROWS)
        columns = min(count, _COLUMNS)
        rows = -(-count // columns)
        chosen = np.linspace(0, len(self._thumbnails) - 1, count).round().astype(int)
        width = _COLUMNS * (_CELL_WIDTH + _GAP) + _GAP
        canvas = np.full((rows * (_CELL_HEIGHT + _GAP) + _GAP, width, 3), _BACKGROUND, np.uint8)
        for cell, index in enumerate(chosen):
            thumbnail = self._thumbnails[index]
            image = thumbnail.image.copy()
            title = thumbnail.title if thumbnail.labels else f"{thumbnail.title}: no label"
            draw_labels(image, thumbnail.labels, title=title, scored=self._scored)
            top = _GAP + cell // columns * (_CELL_HEIGHT + _GAP)
            left = _GAP + cell % columns * (_CELL_WIDTH + _GAP)
            canvas[top : top + _CELL_HEIGHT, left : left + _CELL_WIDTH] = image
        return canvas

    def _draw_timelines(self) -> Image:
        """A row per label, most frequent first: a bar wherever it was present."""
        counts: dict[str, int] = {}
        for labels in self._present:
            for label in labels:
                counts[label] = counts.get(label, 0) + 1
        # Pictures have no time; their labels stand beside them.
        ranked = sorted(counts, key=lambda label: -counts[label]) if self._timed else []
        shown = ranked[:_MAX_TIMELINES]
        width = _COLUMNS * (_CELL_WIDTH + _GAP) + _GAP
        canvas = np.full(((len(shown) + 3) * _LINE, width, 3), _BACKGROUND, np.uint8)
        left, right = _NAME_WIDTH, width - 2 * _GAP
        total = len(self._present)
        for row, label in enumerate(shown):
            top = row * _LINE + _LINE // 2
            put_text(canvas, label, (_GAP, top + _TEXT), label_color(label), _TEXT)
            canvas[top : top + _TEXT, left:right] = 2 * _BACKGROUND
            there = np.array([label in labels for labels in self._present])
            # A column is lit if any of its frames has the label, so that one frame is still seen.
            frames = np.linspace(0, total, right - left + 1)
            starts = frames[:-1].astype(int)
            stops = np.maximum(np.ceil(frames[1:]).astype(int), starts + 1)
            sums = np.concatenate([[0], np.cumsum(there)])
            lit = sums[np.minimum(stops, total)] > sums[starts]
            canvas[top : top + _TEXT, left:right][:, lit] = label_color(label)
        baseline = len(shown) * _LINE + _LINE
        footer = self._footer(len(counts), len(shown))
        put_text(canvas, footer, (_GAP, baseline + _LINE), GREY, _TEXT - 2)
        self._draw_axis(canvas, left, right, baseline)
        return canvas

    def _draw_axis(self, canvas: Image, left: int, right: int, baseline: int) -> None:
        """Write the time under the bars at five places; pictures have no time."""
        if not self._timed:
            return
        size = _TEXT - 2
        for share in np.linspace(0, 1, _TICKS).tolist():
            wanted = share * (self._frames - 1)
            # Held thumbnails are dense enough to know the time near any place, whatever the frame rate.
            near = min(self._thumbnails, key=lambda item: abs(item.position - wanted))
            last = share == 1
            at = 1.0 if last else near.position / max(self._frames - 1, 1)
            title = self._last_title if last else near.title
            x = round(left + at * (right - 1 - left))
            start = min(
                max(left, x - text_width(title, size) // 2), right - text_width(title, size)
            )
            canvas[baseline - _LINE : baseline - _LINE + 5, x : x + 1] = GREY
            put_text(canvas, title, (start, baseline), WHITE, size)

    def _footer(self, found: int, shown: int) -> str:
        if not self._timed:
            return f"{counted(self._frames, 'picture')}, {counted(found, 'different label')}"
        hidden = f", {counted(found - shown, 'rarer label')} not drawn" if found > shown else ""
        return f"{counted(self._frames, 'frame')}; bars show when each label was there{hidden}"


def _title(frame: Frame) -> str:
    return Path(frame.source).name if frame.time_s is None else f"{frame.time_s:.1f} s"
